"""Training objectives of deep hashing, and the one interface they share.

A loss is a module, ``loss(z, labels, index) -> scalar``, with z (B, K) the network's output *before* squashing, labels
(B, C) multi-hot and index (B,) the rows of the training set. Each method squashes in its own way. Two images are
similar if they share a label; an image without labels is similar to nobody, not even to itself.

Three families: *symmetric* methods learn from pairs (`symmetric`), triplets (`triplets`) or codes found beforehand
(`two_stage`); *asymmetric* ones solve for the database's codes directly (`asymmetric`); *central* ones give every class
a target code (`central`). What a method keeps between batches lies in buffers: `state_dict` resumes it.
"""

from hhlib.common import check_choice
from hhlib.losses.asymmetric import ADMHStyleLoss, ADSHLoss, JLDSHStyleLoss
from hhlib.losses.central import CSQLoss, GreedyHashLoss, MDSHCLoss, OrthoHashLoss
from hhlib.losses.common import BankMethod, Method, balanced_mean, pair_loss, sign, similarity
from hhlib.losses.symmetric import DCHLoss, DPSHLoss, DSHLoss, HashNetLoss, HybridHashLoss
from hhlib.losses.triplets import DNNHLoss
from hhlib.losses.two_stage import CNNHLoss

#: Every method by name. Those called "style" are reconstructions: the papers' formulas could not be read.
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


def names() -> list[str]:
    """Every method's name."""
    return list(METHODS)


def create(name: str, *, bits: int, num_classes: int, train_size: int, **hyperparameters) -> Method:
    """Build the loss of a method by name: ``create("hybridhash", bits=64, num_classes=10, train_size=5000)``."""
    method = METHODS[check_choice("method", name, METHODS)]
    return method(bits=bits, num_classes=num_classes, train_size=train_size, **hyperparameters)


__all__ = ["METHODS", "BankMethod", "Method", "balanced_mean", "create", "names", "pair_loss", "sign", "similarity"]
