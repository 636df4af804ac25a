"""From a split and settings to a trained network in a run folder."""

import os
from collections.abc import Iterable
from contextlib import nullcontext

import torch

from hhlib.common import check_whole
from hhlib.data import Split
from hhlib.locking import held
from hhlib.runs import Run
from hhlib.settings import Settings
from hhlib.training import keeping
from hhlib.training.reports import Report, print_line
from hhlib.training.scale.processes import check_batch_size, in_processes
from hhlib.training.setup import choose_device
from hhlib.training.trainer import Trainer


def fit(split: Split, run: Run, settings: Settings, reports: Iterable[Report] = (print_line,)) -> Run:
    """Train a network in as many processes of this machine as the settings say (on several machines: `tools/train.py`).

    reports are called with a `Progress` after each epoch; the usual one prints a line. With several processes they must
    be picklable. -> `run`, with run.json, history.csv, timing.csv, model.safetensors and training_state.pt.

    Raises:
        ValueError: for settings that do not fit, a split that leaks, or a folder that holds a run with other settings.
        ConnectionError: if the recipe wants pretrained weights that cannot be fetched.
        MemoryError: if the GPU's memory is too small for a step.
        FloatingPointError: if the loss is no longer finite; the last state that was kept stays on disk.
        KeyboardInterrupt, SystemExit: after SIGINT or another signal that asks to end, once what was done is on disk.
        RuntimeError: if another process works in the folder of the run; or if one of several processes fails, with its
            reason; what was kept stays on disk.
        Unwritable: if the disk is full or read-only; what was kept before stays on disk.
    """
    arguments = split, run, settings, list(reports)
    if settings.processes == 1:
        _fit(*arguments)
        return run
    check_batch_size(settings.recipe.batch_size, settings.processes)
    if (device := choose_device(settings.device)) != "cpu":  # a process for each GPU; of Apple's there is one
        check_whole("processes", settings.processes, 1, torch.cuda.device_count() if device == "cuda" else 1)
    in_processes(settings.processes, _fit, arguments)
    return run


def _fit(split: Split, run: Run, settings: Settings, reports: list[Report]) -> None:
    goes_on = settings.resume and bool(keeping.states(run))
    trainer = Trainer(split, settings, fresh=not goes_on)
    first = os.environ.get("RANK", "0") == "0"  # of several processes, this one writes
    with held(run.path, "training") if first else nullcontext():
        if goes_on != (settings.resume and bool(keeping.states(run))):
            raise RuntimeError(f"another process was at work in {run.path} just now; run this again.")
        keeping.begin(trainer, run)
        trainer.fit(run, reports)
