"""Training objectives of deep hashing, and the one interface they share.

A loss is a module, ``loss(z, labels, index) -> scalar``, with z (B, K) the network's output *before* squashing, labels
(B, C) multi-hot and index (B,) the rows of the training set. Each method squashes in its own way. Two images are
similar if they share a label; an image without labels is similar to nobody, not even to itself.

Three families: *symmetric* methods learn from pairs (`symmetric`), triplets (`triplets`) or codes found beforehand
(`two_stage`); *asymmetric* ones solve for the database's codes directly (`asymmetric`); *central* ones give every class
a target code (`central`). What a method keeps between batches lies in buffers: `state_dict` resumes it.
"""

import inspect
from collections.abc import Iterable

from hhlib.common import check_choice
from hhlib.losses import centers
from hhlib.losses.asymmetric import ADMHStyleLoss, ADSHLoss, JLDSHStyleLoss
from hhlib.losses.central import CSQLoss, GreedyHashLoss, MDSHCLoss, OrthoHashLoss
from hhlib.losses.common import BankMethod, Method, balanced_mean, pair_loss, sign, similarity
from hhlib.losses.nested import nested
from hhlib.losses.symmetric import DCHLoss, DPSHLoss, DSHLoss, HashNetLoss, HybridHashLoss
from hhlib.losses.triplets import DNNHLoss
from hhlib.losses.two_stage import CNNHLoss

#: Every method by name. Those called "style" are reconstructions: the papers' formulas could not be read.
#: Symmetric ones are there twice, the second time with "_nested": for several code lengths at once.
METHODS: dict[str, type[Method]] = {
    "hybridhash": HybridHashLoss,
    "cnnh": CNNHLoss,
    "dnnh": DNNHLoss,
    "dpsh": DPSHLoss,
    "dsh": DSHLoss,
    "hashnet": HashNetLoss,
    "dch": DCHLoss,
    "adsh": ADSHLoss,
    "admh_style": ADMHStyleLoss,
    "jldsh_style": JLDSHStyleLoss,
    "csq": CSQLoss,
    "mdshc": MDSHCLoss,
    "orthohash": OrthoHashLoss,
    "greedyhash": GreedyHashLoss,
}
METHODS |= {f"{name}_nested": nested(method) for name, method in METHODS.items() if method.family == "symmetric"}


def names(*, nested: bool = True) -> list[str]:
    """Every method's name; without the variants for several code lengths if `nested` is False."""
    return [name for name in METHODS if nested or not name.endswith("_nested")]


def hyperparameters(name: str) -> dict[str, object]:
    """A method's hyper-parameters and their defaults."""
    found, classes = {}, METHODS[check_choice("method", name, METHODS)].__mro__
    inner = getattr(classes[0], "inner", None)
    for method in reversed((*classes, *(inner.__mro__ if inner else ()))):
        for parameter in inspect.signature(method.__init__).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                found[parameter.name] = parameter.default
    return found


def check_hyperparameters(name: str, given: Iterable[str]) -> None:
    """Raise ValueError if a name is no hyper-parameter of the method."""
    known = hyperparameters(name)
    for other in given:
        if other not in known:
            raise ValueError(f"{other} is no hyper-parameter of {name}; those are {', '.join(known) or 'none'}.")


def create(name: str, *, bits: int, num_classes: int, train_size: int, **given) -> Method:
    """Build the loss of a method by name: ``create("hybridhash", bits=64, num_classes=10, train_size=5000)``.

    Args:
        given: the method's hyper-parameters where they are not its defaults, see `hyperparameters`.

    Raises:
        ValueError: for an unknown method or hyper-parameter, or a bad value.
    """
    check_hyperparameters(name, given)
    return METHODS[name](bits=bits, num_classes=num_classes, train_size=train_size, **given)


__all__ = [
    "METHODS",
    "BankMethod",
    "Method",
    "balanced_mean",
    "centers",
    "check_hyperparameters",
    "create",
    "hyperparameters",
    "names",
    "pair_loss",
    "sign",
    "similarity",
]
