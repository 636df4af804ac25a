"""The one pass over all query-database pairs: codes and labels are packed into words, and only counts are kept.

Distances are popcounts of exclusive ors (`kernels`). If images have one label at most, the database is sorted by class,
so relevant images are neighbours; else shared labels are popcounts too. GPUs get the counts from matrix products.
"""

from dataclasses import dataclass

import numpy as np

from hhlib.common import check_choice
from hhlib.metrics import kernels
from hhlib.metrics.packing import check_case, unpack_signs, words


@dataclass(frozen=True)
class Counts:
    """What every metric follows from; t is a distance, 0 to K."""

    n_t: np.ndarray  #: (Q, K + 1) int64 database images at each distance
    r_t: np.ndarray  #: (Q, K + 1) int64 relevant ones among them
    shared_t: np.ndarray  #: (Q, K + 1) float64 labels shared with the query, summed over the images at each distance
    exponential_t: np.ndarray  #: (Q, K + 1) float64 the same sum of 2^shared - 1
    shared: np.ndarray  #: (Q, G + 1) int64 database images by number of shared labels, 0 to G


def count(query_codes, query_labels, database_codes, database_labels, bits: int, device: str = "cpu") -> Counts:
    """Count all pairs; the arguments are those of `evaluate`, and the counts are the same on every device."""
    device = check_device(device)
    bits, arrays = check_case(bits, query=(query_codes, query_labels), database=(database_codes, database_labels))
    labels_of_one = [int(np.count_nonzero(labels, axis=1).max()) for labels in arrays[1::2]]
    if device == "cpu" and labels_of_one[1] <= 1:
        n_t, r_t = kernels.count(*_by_class(*arrays), bits)
        right = r_t.sum(axis=1)
        return Counts(n_t, r_t, r_t.astype(float), r_t.astype(float), np.stack([n_t.sum(axis=1) - right, right], 1))
    most = min(labels_of_one)
    if device == "cpu":
        table = kernels.count_gains(*laid_out(*arrays), bits, most)
    else:
        table = count_by_products(*arrays, bits=bits, most=most, device=device)
    gains = np.arange(most + 1)
    n_t, shared = (table.sum(axis=axis, dtype=np.int64) for axis in (2, 1))
    return Counts(n_t, n_t - table[:, :, 0], table @ gains.astype(float), table @ (2.0**gains - 1), shared)


def check_device(device: str) -> str:
    """Return the name of a device, "cpu", "cuda" or "cuda:N", if this machine has it; raise ValueError otherwise."""
    import torch

    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return check_choice("device", str(device), ["cpu", *(["cuda", *gpus] if gpus else [])])


def _by_class(q, q_labels, d, d_labels):
    """As `kernels.count` takes it; images without a label come last and belong to no class."""
    classes = d_labels.shape[1]
    of = np.where(d_labels.any(axis=1), d_labels.argmax(axis=1), classes)
    starts = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=classes))])
    order = np.argsort(of.astype(np.min_scalar_type(classes)), kind="stable")  # small numbers are sorted by counting
    return words(q), q_labels, np.ascontiguousarray(words(d)[order].T), starts


def laid_out(q, q_labels, d, d_labels):
    """As the other compiled loops take it: queries (Q, words), the database (words, n)."""
    q_labels, d_labels = (words(np.packbits(labels, axis=1)) for labels in (q_labels, d_labels))
    return words(q), q_labels, np.ascontiguousarray(words(d).T), np.ascontiguousarray(d_labels.T)


def count_by_products(q, q_labels, d, d_labels, bits: int, most: int, device: str, block: int = 1 << 24) -> np.ndarray:
    """`kernels.count_gains` from matrix products, for a GPU. Codes as -1 and +1 have u . v = K - 2 distance."""
    import torch

    kind = torch.float32 if device == "cpu" else torch.float16  # whole numbers up to 1024 are exact in both

    def load(codes, labels):
        signs = torch.as_tensor(unpack_signs(codes, bits), device=device).to(kind)  # (n, K)
        return signs, torch.as_tensor(labels, device=device).to(kind)  # (n, C)

    database, flags = load(d, d_labels)
    size, table = (bits + 1) * (most + 1), []
    step = max(1, block // len(d))  # queries at a time: `block` pairs need some 500 MB by default
    for start in range(0, len(q), step):
        signs, q_flags = load(q[start : start + step], q_labels[start : start + step])
        distance = ((bits - signs @ database.T) / 2).long()  # (B, n)
        cell = distance * (most + 1) + (q_flags @ flags.T).long()
        cell += torch.arange(len(signs), device=device)[:, None] * size
        found = torch.bincount(cell.flatten(), minlength=len(signs) * size)
        table.append(found.reshape(len(signs), bits + 1, most + 1).int().cpu().numpy())
    return np.concatenate(table)
