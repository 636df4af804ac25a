"""Symmetric methods on pairs: one network codes queries and database, and learns from which images are similar."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hhlib.common import check_above, check_at_least, check_choice
from hhlib.losses.common import (
    BankMethod,
    Method,
    balanced_mean,
    full,
    pair_loss,
    sign,
    similarity,
)


class HybridHashLoss(BankMethod):
    r"""Weighted maximum likelihood against a memory bank of all training images (the paper's loss).

    With u = tanh(z), U the bank, theta_ij = alpha * <u_i, U_j>, and s_ij = 1 if i and j share a label:

        L = mean over similar pairs of [softplus(theta_ij) - theta_ij]
          + mean over dissimilar pairs of softplus(theta_ij)

    Formula: the authors' released code, which is the HashNet likelihood (Cao et al., ICCV 2017) with alpha = 0.5 and
    without continuation. That code fixes the bank at 10,000 rows for CIFAR-10 whatever the protocol: half of it then
    stays empty for ever, or the index leaves it.

    Args:
        bits, num_classes, train_size: see `Method`.
        alpha: scale of the logistic model; above 0.
        unseen: see `BankMethod`; as released is "dissimilar" (empty rows add ln 2 each, and no gradient).
    """

    def __init__(self, bits: int, num_classes: int, train_size: int, *, alpha: float = 0.5, unseen: str = "skip"):
        super().__init__(bits, num_classes, train_size, unseen)
        self.alpha = check_above("alpha", alpha)

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K) before squashing, labels (B, C) multi-hot, index (B,) int64 without repeats -> scalar."""
        return self.of_codes(torch.tanh(full(z)), labels, index)

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of relaxed codes u (B, K) in (-1, 1), after tanh; `forward` without its squashing."""
        similar, counted = self.write(u, labels, index)
        theta = self.alpha * u @ self.U.T  # (B, N)
        return balanced_mean(pair_loss(theta, similar), similar, counted)


class HashNetLoss(Method):
    r"""HashNet: weighted likelihood of the pairs of a batch, with a tanh that slowly turns into the sign.

    With u = tanh(beta * z) and theta_ij = alpha * <u_i, u_j>,

        L = mean over similar pairs of c_ij [softplus(theta_ij) - theta_ij] + mean over dissimilar pairs of softplus

    c_ij = |labels in common| / |labels of either| for similar pairs, so 1 for single labels (taken literally it is 0
    for dissimilar pairs too, which would erase them). Continuation: beta = sqrt(1 + growth * steps), refreshed every
    200 steps. Cao et al., "HashNet: Deep Learning to Hash by Continuation", ICCV 2017, and the authors' code, which
    pairs two half-batches instead and weights similar pairs by a constant: give `class_weight` for that.

    The most copied re-implementation uses alpha = 0.1, c_ij = 1 and beta = sqrt(1 + epoch // 20).

    Args:
        bits, num_classes, train_size: see `Method`.
        alpha: scale of the logistic model; None takes the authors' 10 / K.
        growth: of the continuation, a step; 0 keeps tanh(z).
        jaccard: whether c_ij is as above; False for 1 everywhere.
        class_weight: the authors' form, with the two halves of a batch against each other and this weight for similar
            pairs (100 for ImageNet-100, 5 for NUS-WIDE, 1 for COCO); None for the balanced mean of all pairs.
    """

    REFRESH = 200  #: steps between two changes of beta

    def __init__(
        self,
        bits: int,
        num_classes: int,
        train_size: int,
        *,
        alpha: float | None = None,
        growth: float = 0.005,
        jaccard: bool = True,
        class_weight: float | None = None,
    ):
        super().__init__(bits, num_classes, train_size)
        self.alpha = 10 / bits if alpha is None else check_above("alpha", alpha)
        self.growth, self.jaccard = check_at_least("growth", growth), jaccard
        self.class_weight = class_weight if class_weight is None else check_above("class_weight", class_weight)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def beta(self) -> Tensor:
        """Slope of the tanh now."""
        return torch.sqrt(1 + self.growth * (self.steps // self.REFRESH * self.REFRESH))

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K) before squashing, labels (B, C) multi-hot, index (B,) int64 -> scalar."""
        self.check(z, labels, index)
        u = torch.tanh(self.beta * full(z))
        if self.training:
            self.steps += 1
        if self.class_weight is None:
            return self.of_pairs(u, labels, u, labels)
        half = len(u) // 2
        return self.of_pairs(u[:half], labels[:half], u[half:], labels[half:])

    def of_pairs(self, u: Tensor, labels: Tensor, v: Tensor, other: Tensor) -> Tensor:
        """The loss of all pairs of u (A, K) and v (B, K), both after tanh."""
        similar = similarity(labels, other)  # (A, B)
        values = pair_loss(self.alpha * u @ v.T, similar)
        if self.jaccard:
            values = torch.where(similar, jaccard(labels, other).to(values.dtype), 1) * values
        if self.class_weight is None:
            return balanced_mean(values, similar, torch.ones_like(similar))
        weights = torch.where(similar, self.class_weight, 1.0)
        return (weights * values).sum() / weights.sum()


def jaccard(a: Tensor, b: Tensor) -> Tensor:
    """Labels in common / labels of either: multi-hot (n, C) and (m, C) -> (n, m), 0 where nobody has one."""
    a, b = a.float(), b.float()
    common = a @ b.T
    return common / (a.sum(dim=1)[:, None] + b.sum(dim=1) - common).clamp(min=1)


class DPSHLoss(BankMethod):
    r"""DPSH: likelihood of all pairs, unweighted, plus a pull of every output towards -1 or +1.

    With u = z (no squashing) and theta_ij = <u_i, U_j> / 2 against the memory bank:

        L = mean over pairs of [softplus(theta_ij) - s_ij theta_ij] + alpha * mean of (u - sgn u)^2

    Li, Wang and Kang, "Feature Learning based Deep Supervised Hashing with Pairwise Labels", IJCAI 2016. The authors'
    penalty is 10 / (N B) a row, which is alpha = 10 K / N: 0.096 at 48 bits and 5,000 images.

    From scratch this can fail: nine pairs in ten are dissimilar, so a batch flees from the mean of the bank, which
    follows, and the classes never come apart (digits: one code for all, expected mAP 0.109). ``balanced`` prevents it.

    Args:
        bits, num_classes, train_size, unseen: see `Method` and `BankMethod`.
        alpha: weight of the pull; at least 0.
        balanced: mean over similar pairs + mean over dissimilar pairs, as in HashNet, instead of the mean over all.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        train_size: int,
        *,
        alpha: float = 0.1,
        balanced: bool = False,
        unseen: str = "skip",
    ):
        super().__init__(bits, num_classes, train_size, unseen)
        self.alpha, self.balanced = check_at_least("alpha", alpha), balanced

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K), labels (B, C) multi-hot, index (B,) int64 without repeats -> scalar."""
        u = full(z)
        similar, counted = self.write(u, labels, index)
        values = pair_loss(0.5 * u @ self.U.T, similar)  # (B, N)
        if self.balanced:
            likelihood = balanced_mean(values, similar, counted)
        else:
            likelihood = (values * counted).sum() / counted.sum()
        return likelihood + self.alpha * (u - sign(u).detach()).square().mean()


class DSHLoss(BankMethod):
    r"""DSH: pull similar codes together, push dissimilar ones apart up to a margin, pull outputs towards -1 or +1.

    With u = z (no squashing, on purpose), D_ij = ||u_i - u_j||^2 and the margin m = 2K, at which codes of -1 and +1
    differ in half of their bits:

        L = sum over pairs i < j of the batch of
              s_ij D_ij / 2 + (1 - s_ij) [m - D_ij]_+ / 2 + alpha (| |u_i| - 1 |_1 + | |u_j| - 1 |_1)

    Liu, Wang, Shan and Chen, "Deep Supervised Hashing for Fast Image Retrieval", CVPR 2016. The most copied
    re-implementation compares the batch with a memory bank, takes means, and alpha = 0.1: give ``pairs="bank"`` and
    that alpha; the two alphas do not mean the same, as the sum counts each image B - 1 times.

    Args:
        bits, num_classes, train_size, unseen: see `Method` and `BankMethod`. Here unseen rows do harm: as images
            without a label at the origin, they push every code away from it.
        alpha: weight of the pull towards -1 or +1; at least 0.
        pairs: "batch" or "bank".
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        train_size: int,
        *,
        alpha: float = 0.01,
        pairs: str = "batch",
        unseen: str = "skip",
    ):
        super().__init__(bits, num_classes, train_size, unseen)
        self.alpha, self.margin = check_at_least("alpha", alpha), 2 * bits
        self.pairs = check_choice("pairs", pairs, ("batch", "bank"))

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K), labels (B, C) multi-hot, index (B,) int64 without repeats -> scalar."""
        u = full(z)
        away = (u.abs() - 1).abs()  # (B, K) how far from -1 or +1
        if self.pairs == "bank":
            similar, counted = self.write(u, labels, index)
            return (self.contrast(u, self.U, similar) * counted).sum() / counted.sum() + self.alpha * away.mean()
        self.check(u, labels, index)
        both = self.contrast(u, u, similarity(labels, labels)).triu(diagonal=1).sum()
        return both + self.alpha * (len(u) - 1) * away.sum()

    def contrast(self, u: Tensor, v: Tensor, similar: Tensor) -> Tensor:
        """The contrastive part of each pair, (A, B)."""
        D = (u.square().sum(dim=1)[:, None] + v.square().sum(dim=1) - 2 * u @ v.T).clamp(min=0)
        return torch.where(similar, D, F.relu(self.margin - D)) / 2


class DCHLoss(Method):
    r"""DCH: a Cauchy-shaped probability, which pulls similar codes into a very small Hamming ball.

    With d(a, b) = K/2 (1 - cos(a, b)), the Hamming distance of codes of -1 and +1, and P(similar) = gamma/(gamma + d),

        L = mean over similar pairs of log(1 + d_ij / gamma) + mean over dissimilar pairs of log(1 + gamma / d_ij)
          + lambda * mean over images of log(1 + d(|u_i|, 1) / gamma)

    u = z: only the direction matters. An image is not paired with itself. Cao, Long, Liu and Wang, "Deep Cauchy Hashing
    for Hamming Space Retrieval", CVPR 2018; in the paper the parts are sums. The authors' code has another loss:
    ``variant="released"`` takes squared Euclidean distances of tanh outputs instead of d, and weights similar pairs by
    |S| / |S_1| but dissimilar ones by 1. The most copied re-implementation keeps the pairs of an image with itself.

    Args:
        bits, num_classes, train_size: see `Method`.
        gamma: scale of the distance, in bits; above 0.
        quantisation: lambda; at least 0. The authors' code sets it to 0.
        closest: cosines above it count as it, which bounds log(1 + gamma / d); below 1.
        variant: "paper" or "released".
        with_itself: whether each image is also paired with itself.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        train_size: int,
        *,
        gamma: float = 20.0,
        quantisation: float = 0.1,
        closest: float = 0.99,
        variant: str = "paper",
        with_itself: bool = False,
    ):
        super().__init__(bits, num_classes, train_size)
        self.gamma, self.quantisation = check_above("gamma", gamma), check_at_least("quantisation", quantisation)
        if not 0 < closest < 1:
            raise ValueError(f"closest is {closest!r}, but it must be above 0 and below 1.")
        self.closest, self.variant = closest, check_choice("variant", variant, ("paper", "released"))
        self.with_itself = with_itself

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K), labels (B, C) multi-hot, index (B,) int64 -> scalar."""
        self.check(z, labels, index)
        u, similar = full(z), similarity(labels, labels)
        itself = torch.eye(len(u), dtype=torch.bool, device=u.device)
        counted = torch.ones_like(itself) if self.with_itself else ~itself
        if self.variant == "released":
            return self._released(torch.tanh(u), similar, counted)
        pairs = balanced_mean(self.cauchy(self.distance(u, u), similar), similar, counted)
        to_code = self.distance(u.abs(), torch.ones_like(u[:1]))  # (B, 1)
        return pairs + self.quantisation * torch.log1p(to_code / self.gamma).mean()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """d of all pairs, (n, K) and (m, K) -> (n, m), 0.005 K (at the default of `closest`) to K."""
        lengths = (a.norm(dim=1)[:, None] * b.norm(dim=1)).clamp(min=1e-4)
        return self.bits / 2 * (1 - (a @ b.T / lengths).clamp(max=self.closest))

    def cauchy(self, d: Tensor, similar: Tensor) -> Tensor:
        """-log P of each pair."""
        return torch.where(similar, torch.log1p(d / self.gamma), torch.log1p(self.gamma / d))

    def _released(self, u: Tensor, similar: Tensor, counted: Tensor) -> Tensor:
        """The authors' code: all pairs in one mean, only the similar ones weighted (|S| / |S_1| with the diagonal)."""
        d = torch.cdist(u, u).square() + 1e-3
        weights = torch.where(similar, similar.numel() / similar.sum().clamp(min=1), 1.0) * counted
        return (weights * self.cauchy(d, similar)).sum() / counted.sum()
