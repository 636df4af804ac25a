"""What is reported after each epoch: a line, or TensorBoard's curves. A report is a function of a `Progress`."""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass

from hhlib.runs import Run


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
        done = len(self.seconds)
        small, large = self.seconds[: self.small_epochs], self.seconds[self.small_epochs :]
        per_small = sum(small) / len(small) if small else 0.0
        per_large = sum(large) / len(large) if large else 2 * per_small  # at half the side: a third to half of the time
        small_left = max(0, self.small_epochs - done)
        return small_left * per_small + (self.epochs - done - small_left) * per_large

    def __str__(self) -> str:
        row = self.history[-1]
        score = "" if math.isnan(row["validation_map"]) else f"  validation mAP {row['validation_map']:.3f}"
        still = f"  {row['constant_bits']} bits never change" if row["constant_bits"] else ""
        done = f"epoch {row['epoch']:3d}/{self.epochs}  loss {row['loss']:.3f}{score}{still}"
        return f"{done}  {self.seconds[-1]:.1f} s, {self.seconds_left:.0f} s left"


Report = Callable[[Progress], None]


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
