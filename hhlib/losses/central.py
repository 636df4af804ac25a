"""Central methods: every class has a target code, and each image is drawn to its class's; and one that classifies."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hhlib.common import check_above, check_at_least, check_whole
from hhlib.losses import centers
from hhlib.losses.common import BankMethod, Method, full, sign, sign_or, similarity


class CSQLoss(Method):
    r"""CSQ: give every class a target code, far from all others, and ask the network for it bit by bit.

    With the center c_i of an image (-1 and +1) and u = tanh(z), the probability of a 1 is (u + 1) / 2 = sigmoid(2z), so

        L = mean over images and bits of softplus(-2 c z) + quantisation * mean of (|u| - 1)^2

    Centers are rows of a Hadamard matrix where they suffice, see `centers.csq_centers`. An image with several labels
    has the sign of the sum of its centers, where that is 0 the bits of one random vector, the same for all images; an
    image without a label is left out. Yuan et al., "Central Similarity Quantization for Efficient Image and Video
    Retrieval", CVPR 2020; the quantisation term is that of their code (the paper's is ||2h - 1| - 1|), with weights
    from 1e-4 to 0.05. Written as above because BCELoss on (tanh z + 1) / 2 saturates: a wrong bit then has no gradient.

    Args:
        bits, num_classes, train_size: see `Method`.
        quantisation: weight of the second term; at least 0.
    """

    family = "central"

    def __init__(self, bits: int, num_classes: int, train_size: int, *, quantisation: float = 1e-4):
        super().__init__(bits, num_classes, train_size)
        self.quantisation = check_at_least("quantisation", quantisation)
        rng = generator()
        self.register_buffer("H", torch.tensor(centers.csq_centers(bits, num_classes, rng), dtype=torch.float32))
        self.register_buffer("tie", torch.tensor(rng.choice([-1.0, 1.0], bits), dtype=torch.float32))

    def targets(self, labels: Tensor) -> Tensor:
        """The center of each image: multi-hot (B, C) -> (B, K) of -1 and +1."""
        total = labels.to(self.H.dtype) @ self.H  # (B, K)
        return sign_or(total, self.tie)

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K) before squashing, labels (B, C) multi-hot, index (B,) int64 -> scalar."""
        self.check(z, labels, index)
        labelled = (labels != 0).any(dim=1)
        if not labelled.any():
            return full(z).sum() * 0
        z, c = full(z)[labelled], self.targets(labels[labelled])
        away = (torch.tanh(z).abs() - 1).square().mean()
        return F.softplus(-2 * c * z).mean() + self.quantisation * away


class MDSHCLoss(BankMethod):
    r"""MDSHC: CSQ with centers from a search, a softmax over cosines, and a pull between images of the same label.

    With u = tanh(z), the network's last layer normalised over the batch (``head = "normalised"``), the centers h of
    `centers.separated_centers` in random order, p_ic = softmax over classes of sqrt(K) cos(u_i, h_c), and U the bank of
    outputs of a slowly moving copy of the network,

        L = - mean over images and classes of [y log p + (1 - y) log(1 - p)]
          + beta * mean over similar pairs of softplus((1 - cos(u_i, U_j)) / 2)        from epoch `pairs_from` on
          + quantisation * mean of (|u| - 1)^2

    Wang et al., "Deep Hashing with Minimal-Distance-Separated Hash Centers", CVPR 2023; weights and settings from the
    authors' code.

    Args:
        bits, num_classes, train_size, unseen: see `Method` and `BankMethod`.
        beta, quantisation: weights of the second and third term; at least 0.
        pairs_from: first epoch, counted from 0, with the second term.
    """

    family = "central"
    head = "normalised"
    momentum = 0.9

    def __init__(
        self,
        bits: int,
        num_classes: int,
        train_size: int,
        *,
        beta: float = 1.0,
        quantisation: float = 1e-4,
        pairs_from: int = 9,
    ):
        super().__init__(bits, num_classes, train_size)
        self.beta, self.quantisation = check_at_least("beta", beta), check_at_least("quantisation", quantisation)
        self.pairs_from = check_whole("pairs_from", pairs_from, 0)
        rng = generator()
        H = centers.separated_centers(bits, num_classes, rng)[rng.permutation(num_classes)]
        self.register_buffer("H", torch.tensor(H, dtype=torch.float32))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def start_epoch(self, epoch: int) -> None:
        """Keep the epoch: the second term starts late."""
        self.epoch.fill_(epoch)

    @property
    def remembers(self) -> bool:
        """From one epoch before the second term on, so that it finds the bank full."""
        return bool(self.epoch >= self.pairs_from - 1) and self.beta > 0

    def remember(self, z: Tensor, index: Tensor) -> None:
        """Put the momentum copy's outputs z (B, K) into the bank."""
        self.U[index] = torch.tanh(full(z)).to(self.U.dtype)
        self.seen[index] = True

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K) before squashing, labels (B, C) multi-hot, index (B,) int64 without repeats -> scalar."""
        self.check(z, labels, index)
        self.Y[index] = labels.to(self.Y.dtype)
        return self.of_codes(torch.tanh(full(z)), labels)

    def of_codes(self, u: Tensor, labels: Tensor) -> Tensor:
        """The loss of u (B, K), after tanh; the bank holds the batch already."""
        loss = self.to_centers(u, labels) + self.quantisation * (u.abs() - 1).square().mean()
        late = self.epoch >= self.pairs_from and self.beta > 0
        return loss + self.beta * self.to_similar(u, labels) if late else loss

    def to_centers(self, u: Tensor, labels: Tensor) -> Tensor:
        """The first term. log(1 - p_c) = lse of the other classes - lse of all: 1 - p itself would round to 0."""
        theta = math.sqrt(self.bits) * F.normalize(u, dim=1) @ F.normalize(self.H.to(u.dtype), dim=1).T  # (B, C)
        C = theta.shape[1]
        everything = theta.logsumexp(dim=1, keepdim=True)
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


class OrthoHashLoss(Method):
    r"""OrthoHash: one term only, the cosine between an image's output and its class's fixed random code.

    With u = z, the network's last layer normalised over the batch (``head = "normalised"``), codes h of -1 and +1 drawn
    once, and y an image's labels shared out to a sum of 1,

        L = cross-entropy of softmax over classes of scale * (cos(u_i, h_c) - margin * [c is a label of i]) against y

    Hoe et al., "One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective", NeurIPS 2021.
    The scale of u does not matter. The authors draw each bit by a coin; we draw again while two codes are alike.

    Args:
        bits, num_classes, train_size: see `Method`.
        scale: of the cosines; above 0.
        margin: at least 0; 0.3 in the authors' example for CIFAR-10.
    """

    family = "central"
    head = "normalised"

    def __init__(self, bits: int, num_classes: int, train_size: int, *, scale: float = 8.0, margin: float = 0.2):
        super().__init__(bits, num_classes, train_size)
        self.scale, self.margin = check_above("scale", scale), check_at_least("margin", margin)
        H = centers.different(bits, num_classes, generator())
        self.register_buffer("H", torch.tensor(H, dtype=torch.float32))

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K), labels (B, C) multi-hot, index (B,) int64 -> scalar; images without a label are left out."""
        self.check(z, labels, index)
        u = full(z)
        y = labels.to(u.dtype)
        cosine = F.normalize(u, dim=1) @ F.normalize(self.H.to(u.dtype), dim=1).T  # (B, C)
        return soft_cross_entropy(self.scale * (cosine - self.margin * y), y)


class GreedyHashLoss(Method):
    r"""GreedyHash: classify the binary code itself, and let gradients pass the sign as if it were not there.

    With b = sgn(z) (backwards: identity), a learnt matrix W (C, K) and y an image's labels shared out to a sum of 1,

        L = cross-entropy of softmax(b W^T) against y + alpha * mean of ||z| - 1|^3

    Su, Zhang, Han and Tian, "Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN", NeurIPS 2018.
    alpha = 0.1 for CIFAR-10, 1 for ImageNet. Neither pairs nor centers: counted with the central methods here, as the
    rows of W act as learnt centers. The most copied re-implementation takes the first of several labels.

    Args:
        bits, num_classes, train_size: see `Method`.
        alpha: weight of the pull towards -1 and +1; at least 0.
    """

    family = "central"

    def __init__(self, bits: int, num_classes: int, train_size: int, *, alpha: float = 0.1):
        super().__init__(bits, num_classes, train_size)
        self.alpha = check_at_least("alpha", alpha)
        self.classifier = nn.Linear(bits, num_classes, bias=False)

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K), labels (B, C) multi-hot, index (B,) int64 -> scalar."""
        self.check(z, labels, index)
        z = full(z)
        b = z + (sign(z) - z).detach()  # the value of the sign, the gradient of z
        penalty = (z.abs() - 1).abs().pow(3).mean()
        return soft_cross_entropy(self.classifier(b), labels.to(z.dtype)) + self.alpha * penalty


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy against labels (B, C) shared out to a sum of 1; mean over the images that have any."""
    labelled = (labels != 0).any(dim=1)
    y = labels / labels.sum(dim=1, keepdim=True).clamp(min=1)
    each = -(y * F.log_softmax(logits, dim=1)).sum(dim=1)
    return (each * labelled).sum() / labelled.sum().clamp(min=1)


def generator() -> np.random.Generator:
    """NumPy's generator, seeded by PyTorch's: one seed fixes both."""
    return np.random.default_rng(int(torch.randint(2**31, ())))
