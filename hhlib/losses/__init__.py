"""The losses of deep hashing methods, and the one interface they share.

A loss is a module, ``loss(z, labels, index) -> scalar``, with z (B, K) the network's output *before* squashing, labels
(B, C) multi-hot and index (B,) the rows of the training set. Each method squashes in its own way. Two images are
similar if they share a label; an image without labels is similar to none, not even to itself.

Three families: *symmetric* methods learn from pairs and triplets (`symmetric`) or codes found beforehand (`two_stage`);
*asymmetric* ones solve for the database's codes directly (`asymmetric`); *central* ones give every class a target code
(`central`). Symmetric ones also exist for several code lengths at once, as "hybridhash_nested" and so on (`registry`).
What a method keeps between batches is in buffers: `state_dict` resumes it.
"""

from hhlib.losses import centers
from hhlib.losses.common import BankMethod, Method, balanced_mean, pair_loss, sign, similarity
from hhlib.losses.registry import METHODS, NestedLoss, check_hyperparameters, create, hyperparameters, method, names
from hhlib.losses.symmetric import HybridHashLoss

__all__ = ["METHODS", "BankMethod", "HybridHashLoss", "Method", "NestedLoss"]
__all__ += ["balanced_mean", "centers", "check_hyperparameters", "create", "hyperparameters", "method", "names"]
__all__ += ["pair_loss", "sign", "similarity"]
