"""Symmetric methods on pairs and triplets: one network encodes queries and database, and learns what is similar."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hhlib.common import at_least, check_above, number, one_of, setting
from hhlib.losses.common import BankMethod, Method, balanced_mean, full, pair_loss, sign, similarity

_cosine = number("above 0 and below 1", lambda x: 0 < x < 1)
_half = number("above 0 and at most 0.5", lambda x: 0 < x <= 0.5)


class HybridHashLoss(BankMethod, knob="alpha", recommended={"alpha": None}):
    r"""Weighted maximum likelihood against a memory bank of all training images (the paper's loss).

    With u = tanh(z), U the bank, theta_ij = alpha * <u_i, U_j>, and s_ij = 1 if i and j share a label:

        L = mean over similar pairs of [softplus(theta_ij) - theta_ij] + mean over dissimilar ones of softplus(theta_ij)

    Formula: the authors' released code, which is the HashNet likelihood (Cao et al., ICCV 2017) with alpha = 0.5 and no
    continuation. theta grows with alpha K, so an alpha suits one code length: on CIFAR-10 at 32 bits, 10 / K instead of
    0.15 raised mAP from 0.372 to 0.448. The released bank has 10,000 rows for CIFAR-10 whatever the protocol: half of
    it stays empty for ever (each row adds ln 2, no gradient: ``unseen="dissimilar"``), or the index is out of range.
    """

    alpha: float | None = setting(0.5, "scale of the logistic model, above 0; None takes 10 / K", check_above)

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of relaxed codes u (B, K) in (-1, 1)."""
        similar, counted = self.write(u, labels, index)
        theta = (self.alpha or 10 / self.bits) * u @ self.U.T  # (B, N)
        return balanced_mean(pair_loss(theta, similar), similar, counted)


class HashNetLoss(Method, knob="alpha"):
    r"""HashNet: weighted likelihood of the pairs of a batch, with a tanh that slowly turns into the sign.

    With u = tanh(beta * z) and theta_ij = alpha * <u_i, u_j>,

        L = mean over similar pairs of c_ij [softplus(theta_ij) - theta_ij] + mean over dissimilar pairs of softplus

    c_ij = |labels in common| / |labels of either|, so 1 for single labels (taken literally it is 0 for dissimilar
    pairs, which would erase them). Continuation: beta = sqrt(1 + growth * steps), updated every 200 steps. Cao et al.,
    "HashNet: Deep Learning to Hash by Continuation", ICCV 2017, and the authors' code, which compares two half-batches
    and weights similar pairs by a constant `class_weight` (100 for ImageNet-100, 5 for NUS-WIDE, 1 for COCO). The most
    copied re-implementation uses alpha = 0.1, c_ij = 1 and beta = sqrt(1 + epoch // 20).
    """

    REFRESH = 200  #: steps between two changes of beta

    alpha: float | None = setting(None, "scale of the logistic model, above 0; None takes 10 / K", check_above)
    growth: float = setting(0.005, "growth of beta^2 per step, at least 0; 0 keeps tanh(z)", at_least(0.0))
    jaccard: bool = setting(True, "whether c_ij depends on the labels; false for 1 everywhere")
    class_weight: float | None = setting(None, "weight of similar pairs, above 0; None: balanced", check_above)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def beta(self) -> Tensor:
        """Present slope of the tanh."""
        return torch.sqrt(1 + self.growth * (self.steps // self.REFRESH * self.REFRESH))

    def squash(self, z: Tensor) -> Tensor:
        """tanh(beta z)."""
        return torch.tanh(self.beta * full(z))

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of relaxed codes u (B, K) in (-1, 1); counts a step if the module is in training mode."""
        if self.training:
            self.steps += 1
        if self.class_weight is None:
            return self.of_pairs(u, labels, u, labels)
        half = len(u) // 2
        return self.of_pairs(u[:half], labels[:half], u[half:], labels[half:])

    def of_pairs(self, u: Tensor, labels: Tensor, v: Tensor, other: Tensor) -> Tensor:
        """The loss of all pairs of relaxed codes u (A, K) and v (B, K)."""
        similar = similarity(labels, other)  # (A, B)
        values = pair_loss((self.alpha or 10 / self.bits) * u @ v.T, similar)
        if self.jaccard:
            values = torch.where(similar, jaccard(labels, other).to(values.dtype), 1) * values
        if self.class_weight is None:
            return balanced_mean(values, similar, torch.ones_like(similar))
        weights = torch.where(similar, self.class_weight, 1.0)
        return (weights * values).sum() / weights.sum()


def jaccard(a: Tensor, b: Tensor) -> Tensor:
    """Labels in common / labels of either: multi-hot (n, C) and (m, C) -> (n, m), 0 where neither has any."""
    a, b = a.float(), b.float()
    common = a @ b.T
    return common / (a.sum(dim=1)[:, None] + b.sum(dim=1) - common).clamp(min=1)


class DPSHLoss(BankMethod, knob="alpha"):
    r"""DPSH: likelihood of all pairs, unweighted, plus a pull of every output towards -1 or +1.

    With u = z (no squashing) and theta_ij = <u_i, U_j> / 2 against the memory bank:

        L = mean over pairs of [softplus(theta_ij) - s_ij theta_ij] + alpha * mean of (u - sgn u)^2

    Li, Wang and Kang, "Feature Learning based Deep Supervised Hashing with Pairwise Labels", IJCAI 2016. The authors'
    penalty is 10 / (N B) per row, which is alpha = 10 K / N: 0.096 at 48 bits and 5,000 images. From scratch it can
    fail: nine pairs in ten are dissimilar, so a batch flees from the mean of the bank, which follows, and the classes
    never separate (digits: one code for all, expected mAP 0.109). `balanced` prevents it.
    """

    alpha: float = setting(0.1, "weight of the pull towards -1 or +1, at least 0", at_least(0.0))
    balanced: bool = setting(False, "mean over similar + mean over dissimilar pairs, instead of the mean over all")
    squash = staticmethod(full)

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of outputs u (B, K)."""
        similar, counted = self.write(u, labels, index)
        values = pair_loss(0.5 * u @ self.U.T, similar)  # (B, N)
        pull = self.alpha * (u - sign(u).detach()).square().mean()
        if self.balanced:
            return balanced_mean(values, similar, counted) + pull
        return (values * counted).sum() / counted.sum() + pull


class DSHLoss(BankMethod, knob="alpha"):
    r"""DSH: pull similar codes together, push dissimilar ones apart up to a margin, pull outputs towards -1 or +1.

    With u = z (no squashing, on purpose), D_ij = ||u_i - u_j||^2 and margin m = 2K (half of all bits differ),

        L = sum over pairs i < j of the batch of
              s_ij D_ij / 2 + (1 - s_ij) [m - D_ij]_+ / 2 + alpha (| |u_i| - 1 |_1 + | |u_j| - 1 |_1)

    Liu, Wang, Shan and Chen, "Deep Supervised Hashing for Fast Image Retrieval", CVPR 2016. The most copied
    re-implementation has ``pairs="bank"``, means and alpha = 0.1; the two alphas are not comparable, as the sum counts
    each image B - 1 times. Bank rows that are unseen but counted do harm: at the origin, they push every code away.
    """

    alpha: float = setting(0.01, "weight of the pull towards -1 or +1, at least 0", at_least(0.0))
    pairs: str = setting("batch", "what a batch is compared with: batch (itself) or bank", one_of("batch", "bank"))
    squash = staticmethod(full)

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of outputs u (B, K)."""
        away = (u.abs() - 1).abs()  # (B, K) how far from -1 or +1
        if self.pairs == "bank":
            similar, counted = self.write(u, labels, index)
            return (self.contrast(u, self.U, similar) * counted).sum() / counted.sum() + self.alpha * away.mean()
        both = self.contrast(u, u, similarity(labels, labels)).triu(diagonal=1).sum()
        return both + self.alpha * (len(u) - 1) * away.sum()

    def contrast(self, u: Tensor, v: Tensor, similar: Tensor) -> Tensor:
        """The contrastive part of each pair, (A, B)."""
        D = (u.square().sum(dim=1)[:, None] + v.square().sum(dim=1) - 2 * u @ v.T).clamp(min=0)
        return torch.where(similar, D, F.relu(2 * self.bits - D)) / 2


class DCHLoss(Method, knob="gamma"):
    r"""DCH: a Cauchy-shaped probability, which pulls similar codes into a very small Hamming ball.

    With d(a, b) = K/2 (1 - cos(a, b)), the Hamming distance of codes of -1 and +1, and P(similar) = gamma/(gamma + d),

        L = mean over similar pairs of log(1 + d_ij / gamma) + mean over dissimilar pairs of log(1 + gamma / d_ij)
          + quantisation * mean over images of log(1 + d(|u_i|, 1) / gamma)

    u = z: only the direction matters. An image is not paired with itself (in the most copied re-implementation it is).
    Cao, Long, Liu and Wang, "Deep Cauchy Hashing for Hamming Space Retrieval", CVPR 2018; in the paper the parts are
    sums. The authors' code has another loss, ``variant="released"``: squared Euclidean distances of tanh outputs
    instead of d, similar pairs weighted by |S| / |S_1| but dissimilar ones by 1, and no quantisation.
    """

    gamma: float = setting(20.0, "scale of the distance in bits, above 0", check_above)
    quantisation: float = setting(0.1, "weight of the third term, at least 0", at_least(0.0))
    closest: float = setting(0.99, "largest cosine, bounds log(1 + gamma / d); above 0 and below 1", _cosine)
    variant: str = setting("paper", "which formula: paper or released", one_of("paper", "released"))
    with_itself: bool = setting(False, "whether each image is also paired with itself")

    def squash(self, z: Tensor) -> Tensor:
        """z itself; tanh(z) in the released variant."""
        return torch.tanh(full(z)) if self.variant == "released" else full(z)

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of relaxed codes u (B, K)."""
        similar = similarity(labels, labels)
        counted = ~torch.eye(len(u), dtype=torch.bool, device=u.device) | self.with_itself
        if self.variant == "released":  # all pairs in one mean, only the similar ones weighted, |S| with the diagonal
            d = torch.cdist(u, u).square() + 1e-3
            weights = torch.where(similar, similar.numel() / similar.sum().clamp(min=1), 1.0) * counted
            return (weights * self.cauchy(d, similar)).sum() / counted.sum()
        pairs = balanced_mean(self.cauchy(self.distance(u, u), similar), similar, counted)
        to_code = self.distance(u.abs(), torch.ones_like(u[:1]))  # (B, 1)
        return pairs + self.quantisation * torch.log1p(to_code / self.gamma).mean()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """d of all pairs, (n, K) and (m, K) -> (n, m), from 0.005 K (at the default of `closest`) to K."""
        lengths = (a.norm(dim=1)[:, None] * b.norm(dim=1)).clamp(min=1e-4)
        return self.bits / 2 * (1 - (a @ b.T / lengths).clamp(max=self.closest))

    def cauchy(self, d: Tensor, similar: Tensor) -> Tensor:
        """-log P of each pair."""
        return torch.where(similar, torch.log1p(d / self.gamma), torch.log1p(self.gamma / d))


class DNNHLoss(Method, head="divide", knob="margin", learning_rate_share=0.3):
    r"""DNNH (also NINH): an image's code must be nearer to a more similar image's than to a less similar one's.

    With t = sigmoid(z), u = g(t) in [0, 1] and the batch's triplets in which p shares more labels with q than n does,

        L = mean over triplets of [margin + ||u_q - u_p||^2 - ||u_q - u_n||^2]_+

    g makes most outputs binary: 0 below 1/2 - epsilon, 1 above 1/2 + epsilon, t with derivative 1 between. Squared
    distances of 0/1 codes are Hamming distances: a margin of 1 is one bit. Each bit sees only its own slice of the
    features (`head`), so that bits do not repeat each other. Lai, Pan, Liu and Yan, "Simultaneous Feature Learning and
    Hash Coding with Deep Neural Networks", CVPR 2015. The paper draws triplets beforehand and calls epsilon "a small
    positive number"; 0.4 is our choice. Bits that leave the band on the wrong side get no gradient, so reproductions
    train without g (``epsilon=0.5``), with margin 2. At full learning rate, all digits get one code (mAP 0.109).
    """

    MOST = 1 << 24  #: triplets compared at a time; larger batches take a random part of the queries

    margin: float = setting(1.0, "margin in bits, above 0", check_above)
    epsilon: float = setting(0.4, "half the width of g's band, above 0 and at most 0.5", _half)

    def squash(self, z: Tensor) -> Tensor:
        """g(sigmoid(z)), in 0..1, and exactly 0 or 1 outside the band."""
        t = torch.sigmoid(full(z))
        return torch.where((t - 0.5).abs() > self.epsilon, (t > 0.5).to(t.dtype), t)

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of relaxed codes u (B, K) in 0..1; 0 without a triplet."""
        shared = labels.float() @ labels.float().T  # (B, B)
        D = (u[:, None] - u[None]).square().sum(dim=2)  # (B, B)
        everyone = queries = torch.arange(len(u), device=u.device)
        if len(u) ** 3 > self.MOST:
            queries = torch.randperm(len(u), device=u.device)[: max(1, self.MOST // len(u) ** 2)]
        itself = queries[:, None] == everyone  # (Q, B)
        valid = shared[queries][:, :, None] > shared[queries][:, None, :]  # (Q, B, B): p shares more than n
        valid &= ~itself[:, :, None] & ~itself[:, None, :]
        values = F.relu(self.margin + D[queries][:, :, None] - D[queries][:, None, :])
        return (values * valid).sum() / valid.sum().clamp(min=1)
