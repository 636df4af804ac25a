"""The losses of deep hashing methods, and the one interface they share.

A loss is a module, ``loss(z, labels, index) -> scalar``, with z (B, K) the network's output *before* squashing, labels
(B, C) multi-hot and index (B,) the rows of the training set. Each method squashes in its own way. Two images are
similar if they share a label; an image without labels is similar to none, not even to itself.

Three families: *symmetric* methods learn from pairs and triplets (`symmetric`) or codes found beforehand (`two_stage`);
*asymmetric* ones solve for the database's codes directly (`asymmetric`); *central* ones give every class a target code
(`central`). Symmetric ones also exist for several code lengths at once, as "hybridhash_nested" and so on.
"""

from collections.abc import Mapping
from dataclasses import Field, fields

import torch
from torch import Tensor, nn

from hhlib.common import check_choice, check_setting, nearest, setting
from hhlib.losses import centers
from hhlib.losses.asymmetric import ADMHStyleLoss, ADSHLoss, JLDSHStyleLoss
from hhlib.losses.central import CSQLoss, GreedyHashLoss, MDSHCLoss, OrthoHashLoss
from hhlib.losses.common import BankMethod, Method, balanced_mean, pair_loss, sign, similarity
from hhlib.losses.symmetric import DCHLoss, DNNHLoss, DPSHLoss, DSHLoss, HashNetLoss, HybridHashLoss
from hhlib.losses.two_stage import CNNHLoss

#: The class of every method. Those called "style" are reconstructions: the papers' formulas could not be read.
METHODS: dict[str, type[Method]] = dict(hybridhash=HybridHashLoss, cnnh=CNNHLoss, dnnh=DNNHLoss, dpsh=DPSHLoss)
METHODS |= dict(dsh=DSHLoss, hashnet=HashNetLoss, dch=DCHLoss)
METHODS |= dict(adsh=ADSHLoss, admh_style=ADMHStyleLoss, jldsh_style=JLDSHStyleLoss)
METHODS |= dict(csq=CSQLoss, mdshc=MDSHCLoss, orthohash=OrthoHashLoss, greedyhash=GreedyHashLoss)


def names(*, nested: bool = True) -> list[str]:
    """Every method's name; without the variants for several code lengths if `nested` is False."""
    return [*METHODS, *(f"{name}_nested" for name in METHODS if nested and METHODS[name].family == "symmetric")]


def method(name: str) -> type[Method]:
    """The class of a method, for "hybridhash_nested" that of "hybridhash"; `Method` lists the attributes of both."""
    return METHODS[check_choice("method", name, names()).removesuffix("_nested")]


def hyperparameters(name: str) -> dict[str, Field]:
    """A method's hyper-parameters: name -> field, with `.default`, `.type` and ``.metadata["help"]``."""
    classes = [method(name)] if name in METHODS else [method(name), NestedLoss]
    return {field.name: field for kind in classes for field in fields(kind) if field.kw_only}


def defaults(name: str) -> dict[str, object]:
    """The values that a method's hyper-parameters have unless they are given, as published."""
    return {name: field.default for name, field in hyperparameters(name).items()}


def check_hyperparameters(name: str, given: Mapping[str, object]) -> None:
    """Raise ValueError if a name is not a hyper-parameter of the method, or its value does not fit."""
    known = hyperparameters(name)
    for other, value in given.items():
        if other not in known:
            hint = nearest(other, known)
            raise ValueError(f"{other} is no hyper-parameter of {name}; those are {', '.join(known)}.{hint}")
        check_setting(known[other], value, known[other].type)


def create(name: str, *, bits: int, num_classes: int, train_size: int, **given) -> Method:
    """Build the loss of a method by name: ``create("hybridhash", bits=64, num_classes=10, train_size=5000)``.

    given: hyper-parameters that differ from the method's defaults, see `hyperparameters`. Raises ValueError for an
    unknown method or hyper-parameter, or a bad value.

    >>> csq = create("csq", bits=16, num_classes=10, train_size=1000)
    >>> csq(torch.zeros(2, 16), torch.eye(10)[:2], torch.arange(2)).item() > 0
    True
    """
    check_hyperparameters(name, given)
    sizes = dict(bits=bits, num_classes=num_classes, train_size=train_size)
    if name in METHODS:
        return METHODS[name](**sizes, **given)
    return NestedLoss(name.removesuffix("_nested"), **sizes, **given)


class NestedLoss(Method):
    r"""The mean of the same loss over several prefixes of the code.

    With lengths k_1 < ... < k_L = K and the first k numbers z_{:k} of the output,

        L = mean over k of loss_k(z_{:k}),

    each with its own state. One training then gives codes of K bits whose first k bits can be searched on their own:
    use as many as memory allows. The idea for real vectors: Kusupati et al., "Matryoshka Representation Learning",
    NeurIPS 2022. The inner losses are those of a symmetric method, with the same hyper-parameters, each for its k bits.
    """

    lengths: tuple[int, ...] | None = setting(None, "the prefixes, rising, the last one K; None for K/4, K/2, 3K/4, K")

    def __init__(self, method: str, bits: int, num_classes: int, train_size: int, *, lengths=None, **hyperparameters):
        check_choice("method", f"{method}_nested", names())
        self.lengths = lengths
        super().__init__(bits, num_classes, train_size)
        quarters = sorted({max(1, self.bits * quarter // 4) for quarter in (1, 2, 3, 4)})
        self.lengths = tuple(quarters if lengths is None else lengths)
        if self.lengths[-1:] != (bits,) or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"lengths is {self.lengths}, but it must rise and end with the {bits} bits of the code.")
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
