"""Central methods: every class has a target code, and each image is pulled to its class's; and one that classifies."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hhlib.common import at_least, check_above, setting
from hhlib.losses import centers
from hhlib.losses.common import BankMethod, Method, full, generator, sign, similarity, unit_means


class CSQLoss(Method, family="central", knob="quantisation"):
    r"""CSQ: give every class a target code, far from all others, and ask the network for it bit by bit.

    With the center c_i of an image (-1 and +1) and u = tanh(z), the probability of a 1 is (u + 1) / 2 = sigmoid(2z), so

        L = mean over images and bits of softplus(-2 c z) + quantisation * mean of (|u| - 1)^2

    Centers are rows of a Hadamard matrix if there are enough, see `centers.csq_centers`. Several labels give the sign
    of the sum of their centers, and where that is 0 the bit of one random vector; images without a label are left out.
    Yuan et al., "Central Similarity Quantization for Efficient Image and Video Retrieval", CVPR 2020; the quantisation
    term is that of their code (the paper's is ||2h - 1| - 1|), with weights from 1e-4 to 0.05. Written as above because
    BCELoss on (tanh z + 1) / 2 saturates: a wrong bit then has no gradient.
    """

    quantisation: float = setting(1e-4, "weight of the second term, at least 0", at_least(0.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        rng = generator()
        self.register_buffer("H", torch.tensor(centers.csq_centers(self.bits, self.num_classes, rng)).float())
        self.register_buffer("tie", torch.tensor(rng.choice([-1.0, 1.0], self.bits)).float())

    def targets(self, labels: Tensor) -> Tensor:
        """The target of each image: multi-hot (B, C) -> (B, K) of -1 and +1."""
        total = labels.to(self.H.dtype) @ self.H  # (B, K)
        return torch.where(total == 0, self.tie, torch.sign(total))

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """See `Method`."""
        self.check(z, labels, index)
        labelled = (labels != 0).any(dim=1)
        if not labelled.any():
            return full(z).sum() * 0
        z, c = full(z)[labelled], self.targets(labels[labelled])
        return F.softplus(-2 * c * z).mean() + self.quantisation * (self.squash(z).abs() - 1).square().mean()


class MDSHCLoss(BankMethod, family="central", head="normalised", momentum=0.9, knob="beta"):
    r"""MDSHC: CSQ with centers from a search, a softmax over cosines, and a pull between images of the same label.

    With u = tanh(z), z normalised over the batch (`head`), the centers h of `centers.separated_centers` in random
    order, p_ic = softmax over classes of sqrt(K) cos(u_i, h_c), U the bank of outputs of a slow copy of the net,

        L = - mean over images and classes of [y log p + (1 - y) log(1 - p)]
          + beta * mean over similar pairs of softplus((1 - cos(u_i, U_j)) / 2)        from epoch `pairs_from` on
          + quantisation * mean of (|u| - 1)^2

    Wang et al., "Deep Hashing with Minimal-Distance-Separated Hash Centers", CVPR 2023; defaults from their code.
    """

    unseen: ClassVar[str] = "skip"  # not hyper-parameters here: unseen rows never count
    spare: ClassVar[int] = 0
    beta: float = setting(1.0, "weight of the second term, at least 0", at_least(0.0))
    quantisation: float = setting(1e-4, "weight of the third term, at least 0", at_least(0.0))
    pairs_from: int = setting(9, "first epoch with the second term, counted from 0", at_least(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        rng = generator()
        H = centers.separated_centers(self.bits, self.num_classes, rng)[rng.permutation(self.num_classes)]
        self.register_buffer("H", torch.tensor(H).float())
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def targets(self, labels: Tensor) -> Tensor:
        """The code of each image's class, of several the sign of their sum: multi-hot (B, C) -> (B, K) of -1 and +1."""
        return sign(labels.to(self.H.dtype) @ self.H)

    def start_epoch(self, epoch: int) -> None:
        """Keep the epoch: the second term starts late."""
        self.epoch.fill_(epoch)

    @property
    def remembers(self) -> bool:
        """From one epoch before the second term on, so that it finds the bank full."""
        return bool(self.epoch >= self.pairs_from - 1) and self.beta > 0

    def remember(self, z: Tensor, index: Tensor) -> None:
        """Put the momentum copy's outputs z (B, K) into the bank."""
        self.U[index] = self.squash(z).to(self.U.dtype)
        self.seen[index] = True

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of relaxed codes u (B, K) in (-1, 1); the bank has the copy's outputs for the batch already."""
        self.Y[index] = labels.to(self.Y.dtype)
        loss = self.to_centers(u, labels) + self.quantisation * (u.abs() - 1).square().mean()
        late = self.epoch >= self.pairs_from and self.beta > 0
        return loss + self.beta * self.to_similar(u, labels) if late else loss

    def to_centers(self, u: Tensor, labels: Tensor) -> Tensor:
        """The first term. log(1 - p_c) = lse of the other classes - lse of all: 1 - p itself would round to 0."""
        theta = math.sqrt(self.bits) * F.normalize(u, dim=1) @ F.normalize(self.H.to(u.dtype), dim=1).T  # (B, C)
        everything, C = theta.logsumexp(dim=1, keepdim=True), self.num_classes
        if C == 1:
            return everything.sum() * 0
        itself = torch.eye(C, dtype=torch.bool, device=u.device)
        others = theta[:, None, :].expand(-1, C, -1).masked_fill(itself, -math.inf).logsumexp(dim=2)  # (B, C)
        y = labels.to(u.dtype)
        return -(y * (theta - everything) + (1 - y) * (others - everything)).mean()

    def to_similar(self, u: Tensor, labels: Tensor) -> Tensor:
        """The second term."""
        similar = similarity(labels, self.Y) & self.seen  # (B, N)
        cosine = F.normalize(u, dim=1) @ F.normalize(self.U.to(u.dtype), dim=1).T
        return (F.softplus((1 - cosine) / 2) * similar).sum() / similar.sum().clamp(min=1)

    def settle(self, z: Tensor, labels: Tensor) -> None:
        """Fill the bank, and start the second term."""
        super().settle(z, labels)
        self.epoch.fill_(self.pairs_from)


class OrthoHashLoss(Method, family="central", head="normalised", knob="margin"):
    r"""OrthoHash: one term only, the cosine between an image's output and its class's fixed random code.

    With u = z, normalised over the batch (`head`), codes h of -1 and +1 drawn once, y labels over their number,

        L = cross-entropy of softmax over classes of scale * (cos(u_i, h_c) - margin * [c is a label of i]) against y

    Hoe et al., "One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective", NeurIPS 2021.
    Only u's direction matters. Bits are drawn by a coin (here until all codes differ). Unlabelled images are left out.
    """

    scale: float = setting(8.0, "scale of the cosines, above 0", check_above)
    margin: float = setting(0.2, "at least 0; 0.3 in the authors' example for CIFAR-10", at_least(0.0))
    squash = staticmethod(full)
    targets = MDSHCLoss.targets

    def __post_init__(self) -> None:
        super().__post_init__()
        self.register_buffer("H", torch.tensor(centers.different(self.bits, self.num_classes, generator())).float())

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of outputs u (B, K)."""
        y = labels.to(u.dtype)
        cosine = F.normalize(u, dim=1) @ F.normalize(self.H.to(u.dtype), dim=1).T  # (B, C)
        return soft_cross_entropy(self.scale * (cosine - self.margin * y), y)


class GreedyHashLoss(Method, family="central", knob="alpha"):
    r"""GreedyHash: classify the binary code itself, and let gradients pass the sign as if it were not there.

    With b = sgn(z) (backwards: identity), a learnt matrix W (C, K) and y labels divided by their number,

        L = cross-entropy of softmax(b W^T) against y + alpha * mean of ||z| - 1|^3

    Su, Zhang, Han and Tian, "Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN", NeurIPS 2018.
    Neither pairs nor centers: counted among the central methods here, as the rows of W act as learnt centers. The most
    copied re-implementation takes the first of several labels.
    """

    alpha: float = setting(0.1, "weight of the pull to -1 and +1, at least 0; 1 for ImageNet", at_least(0.0))
    squash = staticmethod(full)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.classifier = nn.Linear(self.bits, self.num_classes, bias=False)

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of outputs u (B, K)."""
        b = u + (sign(u) - u).detach()  # the value of the sign, the gradient of u
        penalty = (u.abs() - 1).abs().pow(3).mean()
        return soft_cross_entropy(self.classifier(b), labels.to(u.dtype)) + self.alpha * penalty

    def settle(self, z: Tensor, labels: Tensor) -> None:
        """Make the classes' mean codes the rows of W."""
        self.classifier.weight.copy_(unit_means(sign(z), labels))


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy against labels (B, C) divided by their number; mean over the images that have any."""
    y = labels / labels.sum(dim=1, keepdim=True).clamp(min=1)
    labelled = (labels != 0).any(dim=1).sum()
    return F.cross_entropy(logits, y, reduction="none").sum() / labelled.clamp(min=1)
