"""Sums over the steps of an epoch."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


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
