"""The table of all methods, what is known of each by name, and the loss that trains several code lengths at once."""

from collections.abc import Iterable, Sequence
from dataclasses import Field, dataclass, fields

import torch
from torch import Tensor, nn

from hhlib.common import check_choice, check_whole, nearest, setting
from hhlib.losses.asymmetric import ADMHStyleLoss, ADSHLoss, JLDSHStyleLoss
from hhlib.losses.central import CSQLoss, GreedyHashLoss, MDSHCLoss, OrthoHashLoss
from hhlib.losses.common import Method
from hhlib.losses.symmetric import DCHLoss, DNNHLoss, DPSHLoss, DSHLoss, HashNetLoss, HybridHashLoss
from hhlib.losses.two_stage import CNNHLoss

#: The class of every method. Those called "style" are reconstructions: the papers' formulas could not be read.
METHODS: dict[str, type[Method]] = dict(hybridhash=HybridHashLoss, cnnh=CNNHLoss, dnnh=DNNHLoss, dpsh=DPSHLoss)
METHODS |= dict(dsh=DSHLoss, hashnet=HashNetLoss, dch=DCHLoss)
METHODS |= dict(adsh=ADSHLoss, admh_style=ADMHStyleLoss, jldsh_style=JLDSHStyleLoss)
METHODS |= dict(csq=CSQLoss, mdshc=MDSHCLoss, orthohash=OrthoHashLoss, greedyhash=GreedyHashLoss)


def names(*, nested: bool = True) -> list[str]:
    """Every method's name; without the variants for several code lengths if `nested` is False."""
    symmetric = [name for name, found in METHODS.items() if found.family == "symmetric"]
    return [*METHODS, *(f"{name}_nested" for name in symmetric if nested)]


def method(name: str) -> type[Method]:
    """The class of a method, for "hybridhash_nested" that of "hybridhash"; `Method` lists the attributes of both."""
    return METHODS[check_choice("method", name, names()).removesuffix("_nested")]


def hyperparameters(name: str) -> dict[str, Field]:
    """A method's hyper-parameters: name -> field, with `.default`, `.type` and ``.metadata["help"]``."""
    classes = [method(name)] if name in METHODS else [method(name), NestedLoss]
    return {field.name: field for kind in classes for field in fields(kind) if field.kw_only}


def check_hyperparameters(name: str, given: Iterable[str]) -> None:
    """Raise ValueError if a name is not a hyper-parameter of the method."""
    known = hyperparameters(name)
    for other in given:
        if other not in known:
            hint = nearest(other, known)
            raise ValueError(f"{other} is no hyper-parameter of {name}; those are {', '.join(known)}.{hint}")


def create(name: str, *, bits: int, num_classes: int, train_size: int, **given) -> Method:
    """Build the loss of a method by name: ``create("hybridhash", bits=64, num_classes=10, train_size=5000)``.

    given: hyper-parameters that differ from the method's defaults, see `hyperparameters`.

    Raises:
        ValueError: for an unknown method or hyper-parameter, or a bad value.
    """
    check_hyperparameters(name, given)
    sizes = dict(bits=bits, num_classes=num_classes, train_size=train_size)
    return METHODS[name](**sizes, **given) if name in METHODS else NestedLoss(name[:-7], **sizes, **given)


@dataclass(eq=False, repr=False, init=False)
class NestedLoss(Method):
    r"""The mean of the same loss over several prefixes of the code.

    With lengths k_1 < ... < k_L = K and the first k numbers z_{:k} of the output,

        L = mean over k of loss_k(z_{:k}),

    each with its own state. One training then gives codes of K bits whose first k bits can be searched on their own:
    use as many as memory allows. The idea for real vectors: Kusupati et al., "Matryoshka Representation Learning",
    NeurIPS 2022. method: the name of a symmetric one, whose hyper-parameters follow; a None that depends on the bits
    (alpha) depends on those of the prefix.
    """

    lengths: Sequence[int] | None = setting(None, "the prefixes, rising, the last one K; None takes the quarters of K")

    def __init__(self, method: str, bits: int, num_classes: int, train_size: int, *, lengths=None, **hyperparameters):
        check_choice("method", f"{method}_nested", names())
        self.lengths = lengths
        super().__init__(bits, num_classes, train_size)
        self.lengths = _checked(lengths, bits)
        sizes = dict(num_classes=num_classes, train_size=train_size)
        self.parts = nn.ModuleList(create(method, bits=k, **sizes, **hyperparameters) for k in self.lengths)
        self.head = self.parts[0].head

    def prepare(self, labels: Tensor) -> None:
        """See `Method`."""
        for part in self.parts:
            part.prepare(labels)

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """See `Method`."""
        self.check(z, labels, index)
        return torch.stack([part(z[:, : part.bits], labels, index) for part in self.parts]).mean()

    def squash(self, z: Tensor) -> Tensor:
        """As the method does, bit by bit."""
        return self.parts[0].squash(z)

    def settle(self, z: Tensor, labels: Tensor) -> None:
        """Each prefix on its own."""
        for part in self.parts:
            part.settle(z[:, : part.bits], labels)


def _checked(lengths: Sequence[int] | None, bits: int) -> tuple[int, ...]:
    if lengths is None:
        return tuple(sorted({max(1, bits * quarter // 4) for quarter in (1, 2, 3, 4)}))
    lengths = tuple(check_whole("each of lengths", k, 1, bits) for k in lengths)
    if not lengths or list(lengths) != sorted(set(lengths)) or lengths[-1] != bits:
        raise ValueError(f"lengths is {lengths}, but it must rise and end with the {bits} bits of the code.")
    return lengths
