"""What every method shares: the interface, similarity from labels, the logistic pair loss, the memory bank."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hhlib.common import check_bits, check_choice, check_whole


class Method(nn.Module):
    """A training objective: ``loss(z, labels, index) -> scalar``, and what the training loop asks of it besides.

    Most methods need only `forward`. The hooks are for those that keep something between batches; all of it lies in
    buffers, so that `state_dict` resumes a training exactly where it stopped.

    Args:
        bits: code length K.
        num_classes: label width C.
        train_size: number of training images N.

    Attributes:
        family: "symmetric" (one network codes queries and database), "asymmetric" (database codes are free variables)
            or "central" (every class has a target code).
        head: the network's last layer that the method asks for, see `network.HEADS`.
        momentum: of the slowly moving copy of the network whose outputs go to `remember`; None for no copy.
    """

    family = "symmetric"
    head = "linear"
    momentum: float | None = None

    def __init__(self, bits: int, num_classes: int, train_size: int):
        super().__init__()
        self.bits = check_bits(bits)
        self.num_classes = check_whole("num_classes", num_classes, 1)
        self.train_size = check_whole("train_size", train_size, 1)

    def prepare(self, labels: Tensor) -> None:
        """Once, before a fresh training: multi-hot labels (N, C) of all training images, in the order of `index`."""

    @property
    def images_an_epoch(self) -> int:
        """How many training images an epoch shows."""
        return self.train_size

    def start_epoch(self, epoch: int) -> Tensor | None:
        """Before each epoch, counted from 0 -> the rows (m,) to train on in this epoch, None for all."""

    def end_epoch(self, epoch: int, *, last: bool) -> None:
        """After each epoch; last: no other follows."""

    @property
    def remembers(self) -> bool:
        """Whether `remember` is wanted in this epoch."""
        return False

    def remember(self, z: Tensor, index: Tensor) -> None:
        """What the momentum copy of the network gives for this batch, z (B, K), before `forward` gets the batch."""

    def database_codes(self) -> Tensor | None:
        """Codes (N, K) of -1 and +1 that were learnt for the training images themselves; None where none are."""

    def check(self, z: Tensor, labels: Tensor, index: Tensor) -> None:
        """Raise ValueError unless there is one row an index, one column a bit and a class."""
        wanted = (len(index), self.bits), (len(index), self.num_classes)
        if (tuple(z.shape), tuple(labels.shape)) != wanted:
            raise ValueError(
                f"codes {tuple(z.shape)} and labels {tuple(labels.shape)} must be {wanted[0]} and {wanted[1]}: "
                "one row an index, one column a bit and a class."
            )


class BankMethod(Method):
    """A method that compares each batch with the latest output of every training image, kept in a memory bank.

    A batch first writes itself into the bank, then is compared with all of it; the bank is a constant, so gradients
    flow through the batch only, also for an image against itself.

    Args:
        unseen: "skip" leaves bank rows that were never written out of the loss; "dissimilar" counts them as
            dissimilar to everything, as most released code does: they have no label.
    """

    def __init__(self, bits: int, num_classes: int, train_size: int, unseen: str = "skip"):
        super().__init__(bits, num_classes, train_size)
        self.unseen = check_choice("unseen", unseen, ("skip", "dissimilar"))
        self.register_buffer("U", torch.zeros(train_size, bits))
        self.register_buffer("Y", torch.zeros(train_size, num_classes))
        self.register_buffer("seen", torch.zeros(train_size, dtype=torch.bool))

    def write(self, u: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Put u (B, K) into the bank -> which pairs (B, N) are similar, and which count."""
        self.check(u, labels, index)
        self.U[index], self.Y[index], self.seen[index] = u.detach().to(self.U.dtype), labels.to(self.Y.dtype), True
        similar = similarity(labels, self.Y)  # (B, N)
        counted = self.seen if self.unseen == "skip" else torch.ones_like(self.seen)  # (N,)
        return similar, counted.expand_as(similar)


def full(z: Tensor) -> Tensor:
    """Half precision -> float32: sums over many pairs lose too much in bf16. float64 stays."""
    return z.float() if z.dtype in (torch.bfloat16, torch.float16) else z


def sign(x: Tensor) -> Tensor:
    """-1 or +1, and +1 for 0 (`torch.sign` gives 0 there, and half bits in a Hamming distance)."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def sign_or(x: Tensor, otherwise: Tensor) -> Tensor:
    """The sign of x, and `otherwise` where x is 0."""
    return torch.where(x == 0, otherwise, torch.sign(x))


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
    ones, zeros = ((group & counted).sum().clamp(min=1).to(values.dtype) for group in (similar, ~similar))
    weights = torch.where(similar, 1 / ones, 1 / zeros) * counted  # (B, N)
    return (values * weights).sum()
