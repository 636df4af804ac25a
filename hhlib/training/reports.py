"""What is summed up over the steps of an epoch, and reported after it: a line, or TensorBoard's curves."""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hhlib.runs import Run


@dataclass
class Tally:
    """Sums over an epoch's steps. They stay on the device, because reading them would have to wait for it."""

    steps: int = 0
    loss: Tensor | float = 0.0
    gap: Tensor | float = 0.0  #: mean of 1 - |tanh(z)|
    ones: Tensor | float = 0.0  #: (K,), share of outputs of at least 0
    first_bad: Tensor | int = 0  #: the first step, counted from 1, whose loss is not finite

    def add(self, loss: Tensor, z: Tensor) -> None:
        """One more step: its loss, and the outputs z (B, K) of the whole batch."""
        z = z.detach().float()
        self.steps += 1
        self.loss = self.loss + loss.detach()
        self.gap = self.gap + (1 - torch.tanh(z).abs()).mean()
        self.ones = self.ones + (z >= 0).float().mean(dim=0)
        bad = ~torch.isfinite(loss.detach())
        self.first_bad = torch.where(bad & (torch.as_tensor(self.first_bad) == 0), self.steps, self.first_bad)

    def to(self, device: torch.device) -> "Tally":
        """The same on another device."""
        return Tally(**{name: x.to(device) if isinstance(x, Tensor) else x for name, x in vars(self).items()})

    def check(self, epoch: int) -> None:
        """Raise FloatingPointError if the loss of a step was not finite. epoch counts from 0."""
        if self.steps and not math.isfinite(self.loss):
            raise FloatingPointError(
                f"the loss is {float(self.loss)} in epoch {epoch + 1}, step {int(self.first_bad)}; "
                "lower learning_rate or use float32. The state before stays on disk."
            )

    def means(self) -> dict:
        """What the history keeps of an epoch."""
        ones = self.ones / self.steps
        return {
            "loss": float(self.loss) / self.steps,
            "quantisation_gap": float(self.gap) / self.steps,
            "bit_balance": float((ones - 0.5).abs().mean()),
            "constant_bits": int(((ones == 0) | (ones == 1)).sum()),
        }


@dataclass(frozen=True)
class Progress:
    """How far a training is: the rows of its history, seconds per epoch, and how many epochs there will be."""

    history: list[dict]
    seconds: list[float]
    epochs: int
    small_epochs: int = 0

    @property
    def seconds_left(self) -> float:
        """An estimate from the epochs so far; epochs with images at half their side are counted separately."""
        small, large = self.seconds[: self.small_epochs], self.seconds[self.small_epochs :]
        per_small = sum(small) / max(1, len(small))
        per_large = sum(large) / len(large) if large else 2 * per_small  # at half the side: a third to half of the time
        small_left = self.small_epochs - len(small)
        return small_left * per_small + (self.epochs - self.small_epochs - len(large)) * per_large

    def start(self, steps: int) -> str:
        """What is said before the first step, `steps` into the next epoch: a training starts, resumes, or is done."""
        done = len(self.history)
        if done == self.epochs:
            rows = [row for row in self.history if not math.isnan(row["validation_map"])]
            best = max(rows, key=lambda row: row["validation_map"], default=None)
            score = f", best validation mAP {best['validation_map']:.3f} in epoch {best['epoch']}" if best else ""
            return f"finished before: {done} epochs{score}; resume=false trains anew."
        if steps:
            return f"resumes in epoch {done + 1} of {self.epochs}, after step {steps}."
        left = f"resumes after epoch {done} of {self.epochs}, about {self.seconds_left:.0f} s left."
        return left if done else f"trains {self.epochs} epochs ..."

    def __str__(self) -> str:
        row = self.history[-1]
        score = "" if math.isnan(row["validation_map"]) else f"  validation mAP {row['validation_map']:.3f}"
        still = f"  {row['constant_bits']} bits never change" if row["constant_bits"] else ""
        done = f"epoch {row['epoch']:3d}/{self.epochs}  loss {row['loss']:.3f}{score}{still}"
        return f"{done}  {self.seconds[-1]:.1f} s, {self.seconds_left:.0f} s left"


Report = Callable[[Progress], None]  #: called after each epoch


def print_line(progress: Progress) -> None:
    """The report that prints one line per epoch."""
    print(progress, flush=True)


@dataclass(frozen=True)
class TensorBoard:
    """The report that writes every column of the history into the run's folder: ``tensorboard --logdir runs``.

    Raises:
        ValueError: if TensorBoard is not installed.
    """

    run: Run

    def __post_init__(self):
        if importlib.util.find_spec("tensorboard") is None:
            raise ValueError("tensorboard is true, but TensorBoard is not installed here: pip install tensorboard.")

    def __call__(self, progress: Progress) -> None:
        """Write the newest row; what a run that was stopped wrote about later epochs is dropped."""
        from torch.utils.tensorboard import SummaryWriter

        row = progress.history[-1]
        with SummaryWriter(self.run.path / "tensorboard", purge_step=row["epoch"]) as writer:
            for name, value in row.items():
                if name != "epoch" and not math.isnan(value):
                    writer.add_scalar(name, value, row["epoch"])
