"""What training keeps after each epoch, and how it goes on from there."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

from hhlib.common import atomic
from hhlib.retrieval import pack
from hhlib.runs import Run, surroundings, write_json
from hhlib.training.recipes import CHOICES, Recipe
from hhlib.training.tally import Tally

STATE, PREVIOUS = "training_state.pt", "training_state.previous.pt"


@dataclass
class State:
    """Everything that changes while training.

    replicas: the network as the processes share it, or `net` itself; copy: its slowly moving copy, where the loss wants
    one; history, timing: a row for each finished epoch; tally: of the steps of the present one.
    """

    net: nn.Module
    replicas: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    loader: DataLoader
    copy: nn.Module | None
    history: list[dict] = field(default_factory=list)
    timing: list[dict] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)


def earlier_state(run: Run, record: dict) -> dict | None:
    """The state of an earlier run in this folder, None if there is none; refuses one with other parameters."""
    path = run.path / STATE
    if not path.is_file():
        return None
    before = run.record
    usual = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
    before["parameters"]["recipe"] = usual | before["parameters"]["recipe"]  # recipes used to have fewer fields
    for part in ("parameters", "model", "loss", "data"):
        for name, old, new in _differences(before[part], record[part]):
            raise ValueError(
                f"{run.path} holds a run with {name} = {old!r}, but {new!r} is asked for; "
                "use resume=False to train afresh, or another runs_dir to keep both."
            )
    try:
        return _load(path)
    except Exception as error:
        if not path.with_name(PREVIOUS).is_file():
            raise ValueError(f"{path} is damaged or cut short; use resume=False to train afresh.") from error
    print(f"{path} is damaged or cut short; going on from the one before.")
    try:
        return _load(path.with_name(PREVIOUS))
    except Exception as error:
        raise ValueError(
            f"{path} and {PREVIOUS} are damaged or cut short; use resume=False to train afresh."
        ) from error


def _load(path: Path) -> dict:
    return {"tally": {}} | torch.load(path, weights_only=True, map_location="cpu")


def _differences(old: dict, new: dict, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif json.loads(json.dumps(b)) != a:  # JSON knows no tuples
            yield prefix + name, a, b


def start_afresh(run: Run, record: dict) -> None:
    """Write run.json, after what an earlier training left is gone: a stop from here on never mixes two runs."""
    for name in (
        STATE,
        PREVIOUS,
        "model.safetensors",
        "history.csv",
        "timing.csv",
        "codes.npz",
        "metrics.json",
        "database_codes.npz",
    ):
        (run.path / name).unlink(missing_ok=True)
    write_json(run.path / "run.json", record | surroundings())


def _parts(state: State) -> dict:
    parts = {name: getattr(state, name) for name in ("net", "loss", "optimizer", "schedule", "copy")}
    return {name: part for name, part in parts.items() if part is not None}


def restore(state: State, stored: dict) -> None:
    """Put a stored state back."""
    for name, part in _parts(state).items():
        part.load_state_dict(stored[name])
    state.history, state.timing = stored["history"], stored["timing"]
    state.tally = Tally(**stored["tally"]).to(next(state.net.parameters()).device)


def save(accelerator: Accelerator, state: State, run: Run, recipe: Recipe) -> None:
    """After each epoch: history, the weights if they are the best so far, and all that is needed to go on."""
    if not accelerator.is_main_process:
        return
    scores = [row[CHOICES[recipe.choose]] for row in state.history]
    valid = [score for score in scores if not math.isnan(score)]
    full_size = len(scores) > recipe.small_epochs
    if full_size and (not valid or scores[-1] == max(valid)):
        weights = state.net.state_dict()
        with atomic(run.path / "model.safetensors") as draft:
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, draft)
    if (codes := state.loss.database_codes()) is not None:
        run.save_database_codes(pack(codes))
    with atomic(run.path / "history.csv") as draft:
        pd.DataFrame(state.history).to_csv(draft, index=False)
    with atomic(run.path / "timing.csv") as draft:
        pd.DataFrame(state.timing).to_csv(draft, index=False)
    save_state(accelerator, state, run)


def _second_name(path: Path, other: Path) -> None:
    """Let a file be known by another name too, so that at no moment there is none; a copy where links are unknown."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def save_state(accelerator: Accelerator, state: State, run: Run) -> None:
    """All that is needed to go on; the one before stays beside it, in case this one gets damaged."""
    if not accelerator.is_main_process:
        return
    stored = {name: part.state_dict() for name, part in _parts(state).items()}
    stored |= {"history": state.history, "timing": state.timing, "tally": vars(state.tally)}
    path = run.path / STATE
    with atomic(path) as draft:
        torch.save(stored, draft)
        if path.is_file():
            with atomic(path.with_name(PREVIOUS)) as other:
                _second_name(path, other)
