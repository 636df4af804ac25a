"""The one pass over all query-database pairs: codes and labels are packed into words, and only counts are kept.

Distances are popcounts of exclusive ors, in compiled loops on all cores (numba), a query at a time: no (queries x
database) matrix exists. Where images have one label at most, the database is sorted by class and the relevant images of
a query are its class's stretch; otherwise shared labels are popcounts too. On a GPU the same counts come from matrix
products.
"""

from dataclasses import dataclass

import numpy as np

from hhlib.metrics import kernels
from hhlib.metrics.packing import pack_labels, unpack_bits, words

_BLOCK_PAIRS = 1 << 24  #: query-database pairs a block on the GPU: bounds its memory to some 500 MB


@dataclass(frozen=True)
class Counts:
    """What every metric follows from; t is a distance, 0 to K.

    Attributes:
        n_t: (Q, K + 1) int64 database images at each distance.
        r_t: (Q, K + 1) int64 relevant ones among them.
        shared_t: (Q, K + 1) float64 labels shared with the query, summed over the images at each distance.
        exponential_t: (Q, K + 1) float64 the same sum of 2^shared - 1.
        shared: (Q, G + 1) int64 database images by number of shared labels, 0 to G.
    """

    n_t: np.ndarray
    r_t: np.ndarray
    shared_t: np.ndarray
    exponential_t: np.ndarray
    shared: np.ndarray


def count(query_codes, query_labels, database_codes, database_labels, bits: int, device: str = "cpu") -> Counts:
    """Count all pairs.

    Args:
        query_codes, database_codes: packed, (n, ceil(bits/8)) uint8.
        query_labels, database_labels: multi-hot (n, C).
        bits: code length K.
        device: "cpu", or "cuda" for a GPU; the counts are the same.
    """
    arrays = (query_codes, query_labels, database_codes, database_labels)
    labels_of_one = [int(np.count_nonzero(labels, axis=1).max()) for labels in (query_labels, database_labels)]
    if device == "cpu" and labels_of_one[1] <= 1:
        return _one_label(*kernels.count(*_by_class(*arrays), bits))
    most = min(labels_of_one)
    if device == "cpu":
        table = kernels.count_gains(*_laid_out(*arrays), bits, most)
    else:
        table = _count_on(device, *arrays, bits, most)
    gains = np.arange(most + 1)
    n_t = table.sum(axis=2, dtype=np.int64)
    shared = table.sum(axis=1, dtype=np.int64)
    return Counts(n_t, n_t - table[:, :, 0], table @ gains.astype(float), table @ (2.0**gains - 1), shared)


def _one_label(n_t, r_t) -> Counts:
    """Counts where no database image has several labels, so that 1 is the most a pair can share."""
    relevant = r_t.sum(axis=1)
    return Counts(n_t, r_t, r_t.astype(float), r_t.astype(float), np.stack([n_t.sum(axis=1) - relevant, relevant], 1))


def in_database_order(query_codes, query_labels, database_codes, database_labels, n_t, r_t, topk: int):
    """Sum of precisions and number of hits among the first k of the list in which ties stand in database order.

    Returns:
        (Q,) float64, (Q,) int64.
    """
    return kernels.sum_in_order(*_laid_out(query_codes, query_labels, database_codes, database_labels), n_t, r_t, topk)


def _by_class(query_codes, query_labels, database_codes, database_labels):
    """As `kernels.count` wants it; images without a label come last and belong to no class."""
    flags = np.asarray(database_labels) != 0
    classes = flags.shape[1]
    of = np.where(flags.any(axis=1), flags.argmax(axis=1), classes)
    starts = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=classes))])
    order = np.argsort(of.astype(np.min_scalar_type(classes)), kind="stable")  # small numbers are sorted by counting
    database = words(database_codes)[order]
    return words(query_codes), np.asarray(query_labels) != 0, np.ascontiguousarray(database.T), starts


def _laid_out(query_codes, query_labels, database_codes, database_labels):
    """As the compiled loops want it: queries (Q, words), the database (words, n)."""
    database = words(database_codes), pack_labels(database_labels)
    return words(query_codes), pack_labels(query_labels), *(np.ascontiguousarray(part.T) for part in database)


def _count_on(device, query_codes, query_labels, database_codes, database_labels, bits, most) -> np.ndarray:
    """`kernels.count_gains` from matrix products, for a GPU. Codes as -1 and +1 have u . v = K - 2 distance."""
    import torch

    kind = torch.float16 if device == "cuda" else torch.float32  # whole numbers up to 1024 are exact in both

    def signs(packed):
        return torch.as_tensor(unpack_bits(packed, bits), device=device).to(kind) * 2 - 1

    def flags(labels):
        return torch.as_tensor(np.asarray(labels) != 0, device=device).to(kind)

    d, d_labels = signs(database_codes), flags(database_labels)
    size, table = (bits + 1) * (most + 1), []
    step = max(1, _BLOCK_PAIRS // len(d))
    for start in range(0, len(query_codes), step):
        q, q_labels = signs(query_codes[start : start + step]), flags(query_labels[start : start + step])
        distance = ((bits - q @ d.T) / 2).long()  # (B, n)
        cell = distance * (most + 1) + (q_labels @ d_labels.T).long()
        cell += torch.arange(len(q), device=device)[:, None] * size
        found = torch.bincount(cell.flatten(), minlength=len(q) * size)
        table.append(found.reshape(len(q), bits + 1, most + 1).int().cpu().numpy())
    return np.concatenate(table)
