"""What training keeps after each epoch, and how it resumes from there."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from hhlib import losses
from hhlib.common import atomic
from hhlib.data.reading import brief
from hhlib.reading import read_state, reading
from hhlib.retrieval import pack
from hhlib.runs import Run, surroundings, write_json
from hhlib.settings import CHOICES
from hhlib.training.reports import Tally

if TYPE_CHECKING:
    from hhlib.training.trainer import Trainer

STATE, PREVIOUS, WEIGHTS = "training_state.pt", "training_state.previous.pt", "model.safetensors"
SCORED = ("codes.npz", "metrics.json")  #: what evaluation makes of the kept weights
MADE = (STATE, PREVIOUS, WEIGHTS, "history.csv", "timing.csv", *SCORED, "database_codes.npz")


def begin(trainer: "Trainer", run: Run) -> None:
    """Continue an earlier run in this folder, or write run.json for a new one."""
    found = earlier_states(run, trainer.record) if trainer.settings.resume else []
    trainer.accelerator.wait_for_everyone()  # all have looked for an earlier run
    if trainer.accelerator.is_main_process:
        for name in (STATE, PREVIOUS, WEIGHTS):  # drafts of a process that was killed: large, and of no use
            for draft in run.path.glob(f".{name}.*"):
                draft.unlink(missing_ok=True)
    if found:
        _restore(trainer, found)
        _follow(trainer, run)
    elif trainer.accelerator.is_main_process:
        for name in MADE:  # before run.json: a stop from here on never mixes two runs
            (run.path / name).unlink(missing_ok=True)
        write_json(run.path / "run.json", trainer.record | surroundings())


def states(run: Run) -> list[Path]:
    """The states that are in a run's folder, the newest first."""
    return [run.path / name for name in (STATE, PREVIOUS) if (run.path / name).is_file()]


def earlier_states(run: Run, record: dict) -> list[Path]:
    """The states of an earlier run in this folder, the newest first; refuses one with other parameters.

    A network of several epochs without a state is refused too: training afresh would delete it.
    """
    if not (found := states(run)):
        trained = (run.path / WEIGHTS).is_file() and (run.path / "history.csv").is_file() and len(run.history())
        if trained > 1:  # a training killed in its first epoch may have left weights, too
            raise ValueError(
                f"{run.path} holds a network of {trained} epochs, but no {STATE} to go on from; use resume=false to "
                "train afresh, or another runs_dir to keep it."
            )
        return []
    kept_since, new = ("classes", "image_size", "flip"), _comparable(record)
    with reading(run.path / "run.json", "the record of a run"):
        old = _comparable(run.record)
        old["data"] = {name: new["data"][name] for name in kept_since} | old["data"]  # older runs do not say these
        parts = [(old[part], new[part]) for part in ("parameters", "model", "loss", "data")]
        different = [found for part in parts for found in _differences(*part)]
    for name, before, now in different[:1]:
        raise ValueError(
            f"{run.path} holds a run with {brief(name)} = {brief(repr(before))}, but {now!r} is asked for; "
            "use resume=false to train afresh, or another runs_dir to keep both."
        )
    return found


def _restore(trainer: "Trainer", files: list[Path]) -> None:
    """Let a trainer continue from the first of some states that is whole; each replaces all of the one before."""
    for file in files:
        try:
            state = read_state(file)
            with reading(file, "a state of this training"):
                _load(trainer, {"tally": {}} | state)
            return
        except (OSError, ValueError) as error:
            trainer.accelerator.print(error)
    raise ValueError(f"{' and '.join(map(str, files))} cannot be read; use resume=false to train afresh.")


def _load(trainer: "Trainer", state: dict) -> None:
    """Continue from a state. Raises whatever PyTorch does, and KeyError or ValueError, where a part of it is wrong."""
    trainer.history, trainer.timing = [dict(row) for row in state["history"]], [dict(row) for row in state["timing"]]
    trainer.tally = Tally(**state["tally"]).to(trainer.accelerator.device)
    if len(trainer.timing) != len(trainer.history) or len(trainer.history) > trainer.recipe.epochs:
        raise ValueError(f"it has {len(trainer.history)} epochs, and the times of {len(trainer.timing)}")
    if not all({"epoch", "loss", "validation_map"} <= row.keys() for row in trainer.history):
        raise ValueError("its history lacks a column")
    last = len(trainer.history) - (not trainer.tally.steps)  # the epoch it stopped in, or after
    trainer.set_image_side(last)
    for name, part in _parts(trainer).items():
        part.load_state_dict(state[name])
    for parameter, kept in trainer.optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"its optimizer has {name} of shape {tuple(value.shape)} for {tuple(parameter.shape)}")
    if bad := [name for name, x in trainer.net.state_dict().items() if not x.isfinite().all()]:
        raise ValueError(f"{bad[0]} of its network holds numbers that are not finite")


def _comparable(record: dict) -> dict:
    """A record in which the hyper-parameters of the loss have all their values; as JSON, which knows no tuples."""
    record, usual = json.loads(json.dumps([record, losses.defaults(record["parameters"]["method"])]))
    record["parameters"]["recipe"]["loss"] = usual | record["parameters"]["recipe"]["loss"]
    record["loss"] = usual | record["loss"]
    return record


def _differences(old: dict, new: dict, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield prefix + name, a, b


def _parts(trainer: "Trainer") -> dict:
    """What changes while training, and has a state of its own."""
    parts = {name: getattr(trainer, name) for name in ("net", "loss", "optimizer", "schedule", "copy", "average")}
    return {name: part for name, part in parts.items() if part is not None}


def _follow(trainer: "Trainer", run: Run) -> None:
    """Let the files beside a state agree with it, when one of them was lost, or was newer when the process was killed.

    Raises ValueError if the weights are gone, and are those of an earlier epoch than the state's.
    """
    full_size = len(trainer.history) > trainer.recipe.small_epochs
    gone = full_size and not (run.path / WEIGHTS).is_file()
    if gone and not (_is_best(trainer) and not trainer.tally.steps):
        wanted = f"{run.path / WEIGHTS} is gone, and the state beside it has the weights of another epoch"
        raise ValueError(f"{wanted}; use resume=false to train afresh.")
    trainer.accelerator.wait_for_everyone()  # all have looked
    if trainer.accelerator.is_main_process:
        if gone:
            _save_weights(trainer, run)
        _save_history(trainer, run)


def _is_best(trainer: "Trainer") -> bool:
    """Whether the last epoch is the best so far with images of full size; without scores, the last always is."""
    scores = pd.Series([row[CHOICES[trainer.recipe.choose]] for row in trainer.history])
    best = scores.isna().all() or scores.iloc[-1] == scores.max()
    return len(scores) > trainer.recipe.small_epochs and bool(best)


def _save_weights(trainer: "Trainer", run: Run) -> None:
    for name in SCORED:  # of the weights before: codes are made once, and would stay
        (run.path / name).unlink(missing_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in trainer.kept.state_dict().items()}
    with atomic(run.path / WEIGHTS) as draft:
        save_file(weights, draft)


def _save_history(trainer: "Trainer", run: Run) -> None:
    for name, rows in (("history.csv", trainer.history), ("timing.csv", trainer.timing)):
        with atomic(run.path / name) as draft:
            pd.DataFrame(rows).to_csv(draft, index=False)


def save(trainer: "Trainer", run: Run) -> None:
    """After each epoch: history, the weights if they are the best so far, and all that is needed to resume."""
    if not trainer.accelerator.is_main_process:
        return
    if _is_best(trainer):
        _save_weights(trainer, run)
    if (codes := trainer.loss.database_codes()) is not None:
        run.save_codes("database_codes.npz", codes=pack(codes))
    _save_history(trainer, run)
    save_state(trainer, run)


def save_state(trainer: "Trainer", run: Run) -> None:
    """All that is needed to resume; the state before stays beside it, in case this one gets damaged."""
    if not trainer.accelerator.is_main_process:
        return
    stored = {name: part.state_dict() for name, part in _parts(trainer).items()}
    stored |= {"history": trainer.history, "timing": trainer.timing, "tally": vars(trainer.tally)}
    path = run.path / STATE
    with atomic(path) as draft:
        torch.save(stored, draft)
        if path.is_file():
            with atomic(path.with_name(PREVIOUS)) as other:
                try:
                    os.link(path, other)  # so that a complete checkpoint always exists
                except OSError:  # a file system without links
                    shutil.copyfile(path, other)
