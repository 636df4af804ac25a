"""What all methods share: the interface, similarity from labels, the logistic pair loss, the memory bank."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hhlib.common import at_least, check_bits, check_choice, check_settings, check_whole, one_of, setting
from hhlib.losses import centers


@dataclass(eq=False, repr=False)
class Method(nn.Module):
    """The loss of a method, ``loss(z, labels, index) -> scalar``, and what training and pages ask of it.

    A method defines its hyper-parameters as fields (a subclass becomes a dataclass without a decorator), `squash` if it
    is not tanh, and ``of_codes(u, labels, index)``, the loss of relaxed codes u. The other hooks are for what is kept
    between batches; all of it is in buffers, so that `state_dict` resumes a training exactly where it stopped.
    """

    bits: int  #: code length K, 1 to 1024
    num_classes: int  #: label width C
    train_size: int  #: number of training images N
    family: ClassVar[str] = "symmetric"  #: or "asymmetric" (database codes are free variables), "central" (targets)
    head: ClassVar[str] = "linear"  #: the network's last layer that the method needs, see `network.HEADS`
    momentum: ClassVar[float | None] = None  #: of the network's slow copy whose outputs go to `remember`; None: no copy
    knob: ClassVar[str]  #: the hyper-parameter most worth turning
    learning_rate_share: ClassVar[float] = 1.0  #: share of the usual learning rate that suits it, above 0, at most 1
    remembers: ClassVar[bool] = False  #: whether `remember` must be called in this epoch
    recommended: ClassVar[dict] = {}  #: hyper-parameters to start with where they differ from the publication's

    def __init_subclass__(cls, **attributes) -> None:
        for name, value in attributes.items():  # class DNNHLoss(Method, head="divide", knob="margin")
            setattr(cls, check_choice("class attribute", name, Method.__annotations__), value)
        dataclass(eq=False, repr=False)(cls)

    def __post_init__(self) -> None:
        nn.Module.__init__(self)
        self.bits = check_bits(self.bits)
        self.num_classes = check_whole("num_classes", self.num_classes, 1)
        self.train_size = check_whole("train_size", self.train_size, 1)
        self.images_an_epoch = self.train_size  #: number of training images per epoch
        check_settings(self)

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """Outputs z (B, K) before squashing, labels (B, C) multi-hot, index (B,) int64 without repeats -> scalar."""
        self.check(z, labels, index)
        return self.of_codes(self.squash(z), labels, index)

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of relaxed codes u (B, K), a scalar; a method defines it, or `forward`."""
        raise NotImplementedError

    def check(self, z: Tensor, labels: Tensor, index: Tensor) -> None:
        """Raise ValueError unless there is a row per index, a column per bit and per class."""
        wanted = (len(index), self.bits), (len(index), self.num_classes)
        if (tuple(z.shape), tuple(labels.shape)) != wanted:
            shapes = f"codes {tuple(z.shape)} and labels {tuple(labels.shape)}"
            raise ValueError(f"{shapes} must be {wanted[0]} and {wanted[1]}: (images, bits) and (images, classes).")

    def squash(self, z: Tensor) -> Tensor:
        """The relaxed code u (B, K) of outputs z (B, K), in float32 or float64; tanh(z) if the method does not say."""
        return torch.tanh(full(z))

    def prepare(self, labels: Tensor) -> None:
        """Called once, before a fresh training: labels (N, C) of all training images, in the order of `index`."""

    def start_epoch(self, epoch: int) -> Tensor | None:
        """Called before each epoch, counted from 0 -> the rows (m,) to train on in this epoch, None for all."""

    def end_epoch(self, epoch: int, *, last: bool) -> None:
        """Called after each epoch; last: no other follows."""

    def remember(self, z: Tensor, index: Tensor) -> None:
        """Take the outputs z (B, K) of the network's momentum copy for a batch, before `forward` gets the batch."""

    def database_codes(self) -> Tensor | None:
        """The codes (N, K) of -1 and +1 that were learnt for the training images themselves; None if there are none."""

    @torch.no_grad()
    def ideal(self, labels: Tensor) -> Tensor:
        """Set what the method keeps to what it would call perfect -> the outputs z (N, K) that it then calls perfect.

        labels: (N, C), of all training images in the order of `index`. Images with the same labels share one target. z
        is -1 or +1 if `squash` leaves it there (the method pulls z to it, or sees only the direction), else -2 or +2.
        """
        self.prepare(labels)
        codes = self.targets(labels)
        z = codes if torch.equal(self.squash(codes), codes) else 2 * codes
        self.settle(z, labels)
        return z

    def targets(self, labels: Tensor) -> Tensor:
        """A perfect code per image, (N, C) -> (N, K) of -1 and +1; here `centers.separated_centers`, per label set."""
        kinds, kind = labels.unique(dim=0, return_inverse=True)  # (Q, C), (N,)
        codes = centers.separated_centers(self.bits, len(kinds), np.random.default_rng(0))  # (Q, K)
        return torch.tensor(codes, dtype=torch.float32, device=labels.device)[kind]

    def settle(self, z: Tensor, labels: Tensor) -> None:
        """Set what the method keeps to what suits outputs z (N, K) of all training images best, see `ideal`."""


class BankMethod(Method):
    """A method that compares each batch with the latest output of every training image, kept in a memory bank.

    A batch first writes itself into the bank, then is compared with all of it, as a constant: gradients flow through
    the batch only, even for an image and itself. In most released code, unwritten rows (no label) are dissimilar.
    """

    unseen: str = setting("skip", "unwritten bank rows: skip, or count as dissimilar", one_of("skip", "dissimilar"))
    spare: int = setting(0, "bank rows that stay empty for ever; 5,000 on CIFAR-10 as released", at_least(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = self.train_size + self.spare
        self.register_buffer("U", torch.zeros(rows, self.bits))
        self.register_buffer("Y", torch.zeros(rows, self.num_classes))
        self.register_buffer("seen", torch.zeros(rows, dtype=torch.bool))

    def write(self, u: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Put u (B, K) into the bank -> which pairs (B, N) are similar, and which count."""
        self.U[index], self.Y[index], self.seen[index] = u.detach().to(self.U.dtype), labels.to(self.Y.dtype), True
        similar = similarity(labels, self.Y)  # (B, N)
        counted = self.seen if self.unseen == "skip" else torch.ones_like(self.seen)  # (N,)
        return similar, counted.expand_as(similar)

    def settle(self, z: Tensor, labels: Tensor) -> None:
        """Fill the bank."""
        self.U[: len(z)], self.Y[: len(z)], self.seen[: len(z)] = self.squash(z), labels.to(self.Y.dtype), True


def full(z: Tensor) -> Tensor:
    """z itself, but half precision as float32: sums over many pairs lose too much in bf16."""
    return z.float() if z.dtype in (torch.bfloat16, torch.float16) else z


def generator() -> np.random.Generator:
    """NumPy's generator, seeded by PyTorch's: one seed fixes both."""
    return np.random.default_rng(int(torch.randint(2**31, ())))


def sign(x: Tensor) -> Tensor:
    """-1 or +1, and +1 for 0 (`torch.sign` gives 0 there, hence half bits in a Hamming distance)."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Which pairs share a label: multi-hot (n, C) and (m, C) -> bool (n, m)."""
    return a.float() @ b.float().T > 0


def unit_means(codes: Tensor, labels: Tensor) -> Tensor:
    """The mean code of each class, (N, K) and multi-hot (N, C) -> (C, K), of length 1 if the codes of a class agree."""
    labels = labels.to(codes.dtype)
    return labels.T @ codes / labels.sum(dim=0)[:, None].clamp(min=1) / codes.shape[1] ** 0.5


def pair_loss(theta: Tensor, similar: Tensor) -> Tensor:
    """Negative log-likelihood of "similar" under a logistic model, per pair: log(1 + exp(theta)) - s * theta."""
    return F.softplus(theta) - similar * theta  # log(1 + exp(theta)) as written would overflow near 89 in float32


def balanced_mean(values: Tensor, similar: Tensor, counted: Tensor) -> Tensor:
    """mean over similar pairs + mean over dissimilar pairs, of those that are `counted`; an empty group adds 0."""
    # like weights |S| / |S_1| and |S| / |S_0| in a mean over all |S|: few similar pairs count as much as many others
    ones, zeros = ((group & counted).sum().clamp(min=1).to(values.dtype) for group in (similar, ~similar))
    weights = torch.where(similar, 1 / ones, 1 / zeros) * counted  # (B, N)
    return (values * weights).sum()
