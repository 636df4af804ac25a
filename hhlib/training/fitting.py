"""From a split and settings to a trained network in a run folder."""

from collections.abc import Iterable

import torch

from hhlib.common import check_whole
from hhlib.data import Split
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
        KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, once everything that was done is on disk.
        Unwritable: if the disk is full or read-only; what was kept before stays on disk.
        RuntimeError: if one of several processes fails, with its reason; what was kept stays on disk.
    """
    arguments = split, run, settings, list(reports)
    if settings.processes == 1:
        _fit(*arguments)
        return run
    check_batch_size(settings.recipe.batch_size, settings.processes)
    if choose_device(settings.device) == "cuda":
        check_whole("processes", settings.processes, 1, torch.cuda.device_count())
    in_processes(settings.processes, _fit, arguments)
    return run


def _fit(split: Split, run: Run, settings: Settings, reports: list[Report]) -> None:
    trainer = Trainer(split, settings, fresh=not (settings.resume and (run.path / keeping.STATE).is_file()))
    keeping.begin(trainer, run)
    trainer.fit(run, reports)
