"""Training objectives of deep hashing, and the one interface they share.

A loss is a module, ``loss(z, labels, index) -> scalar``, with z (B, K) the network's output *before* squashing, labels
(B, C) multi-hot and index (B,) the rows of the training set. Each method squashes in its own way. Two images are
similar if they share a label; an image without labels is similar to nobody, not even to itself.

Methods keep what they remember between batches in buffers, so that `state_dict` can resume them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hhlib.common import check_bits, check_choice, check_whole


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Which pairs share a label: multi-hot (n, C) and (m, C) -> bool (n, m)."""
    return a.float() @ b.float().T > 0


def pair_loss(theta: Tensor, similar: Tensor) -> Tensor:
    """Negative log-likelihood of "similar" under a logistic model, pair by pair: softplus(theta) - s * theta.

    Stable for any theta: log(1 + exp(theta)) as written would overflow near 89 in float32.
    """
    return F.softplus(theta) - similar * theta


def balanced_mean(values: Tensor, similar: Tensor, counted: Tensor) -> Tensor:
    """mean over similar pairs + mean over dissimilar pairs, of the pairs that are `counted`; an empty group adds 0.

    The same as weighting each pair by |S| / |S_1| or |S| / |S_0| and averaging over all |S| pairs: the few similar
    pairs get as much say as the many dissimilar ones.
    """
    total = values.new_zeros(())
    for group in (similar & counted, ~similar & counted):
        total = total + (values * group).sum() / group.sum().clamp(min=1)
    return total


class HybridHashLoss(nn.Module):
    r"""Weighted maximum likelihood against a memory bank of all training images (the paper's loss).

    With u = tanh(z), U the bank, theta_ij = alpha * <u_i, U_j>, and s_ij = 1 if i and j share a label:

        L = mean over similar pairs of [softplus(theta_ij) - theta_ij]
          + mean over dissimilar pairs of softplus(theta_ij)

    The bank holds the latest u of every training image. A batch first writes itself into the bank, then is compared
    with all of it; the bank is a constant, so gradients flow through u_i only, also for an image against itself.
    Formula: the authors' released code, which is the HashNet likelihood (Cao et al., ICCV 2017) with alpha = 0.5.

    Args:
        bits: code length K.
        num_classes: label width C.
        train_size: number of training images N, the bank's rows. The released code fixes 10,000 for CIFAR-10
            whatever the protocol: half of it then stays empty for ever, or the index leaves it.
        alpha: scale of the logistic model; above 0.
        unseen: "skip" leaves bank rows that were never written out of the loss; "dissimilar" counts them as
            dissimilar to everything, as the released code does (they add ln 2 each and no gradient).
    """

    def __init__(self, bits: int, num_classes: int, train_size: int, alpha: float = 0.5, unseen: str = "skip"):
        super().__init__()
        check_bits(bits)
        for name, value in [("num_classes", num_classes), ("train_size", train_size)]:
            check_whole(name, value, 1)
        if not alpha > 0:
            raise ValueError(f"alpha is {alpha!r}, but it must be above 0.")
        self.alpha, self.unseen = alpha, check_choice("unseen", unseen, ("skip", "dissimilar"))
        self.register_buffer("U", torch.zeros(train_size, bits))
        self.register_buffer("Y", torch.zeros(train_size, num_classes))
        self.register_buffer("seen", torch.zeros(train_size, dtype=torch.bool))

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K) before squashing, labels (B, C) multi-hot, index (B,) int64 without repeats -> scalar."""
        return self.of_codes(torch.tanh(z.float()), labels, index)

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of relaxed codes u (B, K) in (-1, 1), after tanh; `forward` without its squashing."""
        self._check(u, labels, index)
        self.U[index], self.Y[index], self.seen[index] = u.detach().float(), labels.float(), True
        theta = self.alpha * u @ self.U.T  # (B, N)
        similar = similarity(labels, self.Y)  # (B, N)
        counted = self.seen if self.unseen == "skip" else torch.ones_like(self.seen)  # (N,)
        return balanced_mean(pair_loss(theta, similar), similar, counted.expand_as(similar))

    def _check(self, u: Tensor, labels: Tensor, index: Tensor) -> None:
        wanted = (len(index), self.U.shape[1]), (len(index), self.Y.shape[1])
        if (tuple(u.shape), tuple(labels.shape)) != wanted:
            raise ValueError(
                f"codes {tuple(u.shape)} and labels {tuple(labels.shape)} must be {wanted[0]} and {wanted[1]}: "
                "one row an index, one column a bit and a class."
            )


METHODS: dict[str, type[nn.Module]] = {"hybridhash": HybridHashLoss}


def names() -> list[str]:
    """Every method's name."""
    return list(METHODS)


def create(name: str, *, bits: int, num_classes: int, train_size: int, **hyperparameters) -> nn.Module:
    """Build the loss of a method by name: ``create("hybridhash", bits=64, num_classes=10, train_size=5000)``."""
    method = METHODS[check_choice("method", name, METHODS)]
    return method(bits=bits, num_classes=num_classes, train_size=train_size, **hyperparameters)
