"""DNNH: a symmetric method on triplets of images, with codes in 0..1 and one private slice of features a bit."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hhlib.common import check_above
from hhlib.losses.common import Method, full


class DNNHLoss(Method):
    r"""DNNH (also NINH): an image's code must be nearer to a more similar image's than to a less similar one's.

    With t = sigmoid(z), u = g(t) in [0, 1] and all triplets (q, p, n) of the batch in which p shares more labels with q
    than n does,

        L = mean over triplets of [margin + ||u_q - u_p||^2 - ||u_q - u_n||^2]_+

    g makes most outputs exactly binary: 0 below 1/2 - epsilon, 1 above 1/2 + epsilon, t between; its derivative is 1
    between and 0 outside. Squared distances of 0/1 codes are Hamming distances, so a margin of 1 is one bit. Each bit
    sees its own slice of the features only (``head = "divide"``), so that bits do not repeat each other.

    Lai, Pan, Liu and Yan, "Simultaneous Feature Learning and Hash Coding with Deep Neural Networks", CVPR 2015. The
    paper's epsilon is not known ("a small positive number"); 0.4 is our choice. Bits that leave the band on the wrong
    side get no gradient any more, so reproductions train without g (``epsilon=0.5``). They use margin 2, and the paper
    draws triplets beforehand, not from the batch.

    Args:
        bits, num_classes, train_size: see `Method`.
        margin: above 0.
        epsilon: half the width of the band in which g is not flat; above 0, at most 0.5.
    """

    head = "divide"
    MOST = 1 << 24  #: triplets compared at a time; of larger batches a random part of the queries is taken

    def __init__(self, bits: int, num_classes: int, train_size: int, *, margin: float = 1.0, epsilon: float = 0.4):
        super().__init__(bits, num_classes, train_size)
        self.margin = check_above("margin", margin)
        if not 0 < epsilon <= 0.5:
            raise ValueError(f"epsilon is {epsilon!r}, but it must be above 0 and at most 0.5.")
        self.epsilon = epsilon

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K) before squashing, labels (B, C) multi-hot, index (B,) int64 -> scalar, 0 without a triplet."""
        self.check(z, labels, index)
        return self.of_codes(self.threshold(torch.sigmoid(full(z))), labels)

    def threshold(self, t: Tensor) -> Tensor:
        """g: (B, K) in 0..1 -> the same, exactly 0 or 1 outside the band."""
        outside = (t - 0.5).abs() > self.epsilon
        return torch.where(outside, (t > 0.5).to(t.dtype), t)

    def of_codes(self, u: Tensor, labels: Tensor) -> Tensor:
        """The loss of codes u (B, K) in 0..1."""
        shared = labels.float() @ labels.float().T  # (B, B)
        D = (u[:, None] - u[None]).square().sum(dim=2)  # (B, B)
        queries = torch.arange(len(u), device=u.device)
        if len(u) ** 3 > self.MOST:
            queries = torch.randperm(len(u), device=u.device)[: max(1, self.MOST // len(u) ** 2)]
        itself = queries[:, None] == torch.arange(len(u), device=u.device)  # (Q, B)
        valid = shared[queries][:, :, None] > shared[queries][:, None, :]  # (Q, B, B): p shares more than n
        valid &= ~itself[:, :, None] & ~itself[:, None, :]
        values = F.relu(self.margin + D[queries][:, :, None] - D[queries][:, None, :])
        return (values * valid).sum() / valid.sum().clamp(min=1)
