"""Codes of several lengths from one network: every prefix of the code is trained to be a code itself."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hhlib.common import check_whole
from hhlib.losses.common import Method


class NestedLoss(Method):
    r"""The mean of one and the same loss over several prefixes of the code.

    With lengths k_1 < ... < k_L = K and the first k numbers z_{:k} of the output,

        L = mean over k of loss_k(z_{:k}),

    each with its own state. One training then gives codes of K bits whose first k bits can be searched by themselves:
    take as many as memory allows. The idea for real vectors: Kusupati et al., "Matryoshka Representation Learning",
    NeurIPS 2022.

    Args:
        bits, num_classes, train_size: see `Method`.
        lengths: the prefixes, rising, the last one K; None takes a quarter, half, three quarters and all of the bits.
        hyperparameters: of the loss.
    """

    inner: type[Method]

    def __init__(
        self, bits: int, num_classes: int, train_size: int, *, lengths: Sequence[int] | None = None, **hyperparameters
    ):
        super().__init__(bits, num_classes, train_size)
        self.lengths = _checked(lengths, bits)
        self.parts = nn.ModuleList(self.inner(k, num_classes, train_size, **hyperparameters) for k in self.lengths)

    def prepare(self, labels: Tensor) -> None:
        """See `Method`."""
        for part in self.parts:
            part.prepare(labels)

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K) before squashing, labels (B, C) multi-hot, index (B,) int64 without repeats -> scalar."""
        self.check(z, labels, index)
        return torch.stack([part(z[:, : part.bits], labels, index) for part in self.parts]).mean()


def _checked(lengths: Sequence[int] | None, bits: int) -> tuple[int, ...]:
    if lengths is None:
        return tuple(sorted({max(1, bits * quarter // 4) for quarter in (1, 2, 3, 4)}))
    lengths = tuple(check_whole("each of lengths", k, 1, bits) for k in lengths)
    if not lengths or list(lengths) != sorted(set(lengths)) or lengths[-1] != bits:
        raise ValueError(f"lengths is {lengths}, but it must rise and end with the {bits} bits of the code.")
    return lengths


def nested(method: type[Method]) -> type[NestedLoss]:
    """A symmetric method for several lengths at once."""
    name = f"Nested{method.__name__}"
    return type(name, (NestedLoss,), dict(inner=method, head=method.head, __doc__=NestedLoss.__doc__))
