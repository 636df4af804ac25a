"""The one pass over all query-database pairs: codes and labels are packed into words, and only counts are kept.

Distances are popcounts of exclusive ors, relevance is a bit operation too, and both run in compiled loops on all cores
(numba), a query at a time: no (queries x database) matrix exists. On a GPU the same counts come from matrix products.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from hhlib.common import check_bits

BLOCK = 2048  #: database images at a time in the compiled loops: their distances stay in the nearest cache
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


# --- packing -------------------------------------------------------------------------------------------------------


def pack_signs(codes: np.ndarray) -> np.ndarray:
    """(n, K) numbers -> (n, ceil(K/8)) uint8, bit = 1 where the number is >= 0, so a zero counts as +1."""
    codes = np.asarray(codes)
    return np.packbits(codes if codes.dtype == bool else codes >= 0, axis=1)


def unpack_bits(packed: np.ndarray, bits: int) -> np.ndarray:
    """(n, ceil(K/8)) uint8 -> (n, K) uint8 of 0 and 1."""
    return np.unpackbits(packed, axis=1, count=check_bits(bits))


def multi_hot(labels: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """Class numbers (n,) -> one-hot (n, C); multi-hot labels (n, C) come back as they are."""
    labels = np.asarray(labels)
    if labels.ndim == 2:
        return labels
    return np.arange(num_classes or labels.max() + 1) == labels[:, None]


def words(packed: np.ndarray) -> np.ndarray:
    """(n, bytes) uint8 -> (n, words) uint64, padded with zeros, which add no distance."""
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All distances between packed codes, (q, bytes) and (n, bytes) uint8 -> (q, n) uint16, in bits."""
    a, b = words(a), words(b)
    distance = np.zeros((len(a), len(b)), dtype=np.uint16)
    for word in range(a.shape[1]):
        distance += np.bitwise_count(a[:, word, None] ^ b[None, :, word])
    return distance


# --- compiled loops ------------------------------------------------------------------------------------------------


@njit(inline="always")
def _ones(x):
    """How many bits of a word are 1: sums of 2, 4 and 8 neighbours, then of the 8 bytes by one multiplication."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


# The database lies word by word, (words, n), so that the loops below run over neighbours in memory and become vector
# instructions. They fill a block of `n` images from `first` on, for query i.


@njit(inline="always")
def _distances(codes, i, database, first, n, out):
    out[:n] = 0
    for word in range(codes.shape[1]):
        mine, theirs = codes[i, word], database[word, first : first + n]
        for j in range(n):
            out[j] += _ones(mine ^ theirs[j])


@njit(inline="always")
def _shared_labels(labels, i, database, first, n, out, count):
    """How many labels each image shares with query i or, without `count`, only whether it shares any (not 0)."""
    out[:n] = 0
    for word in range(labels.shape[1]):
        mine, theirs = labels[i, word], database[word, first : first + n]
        if mine and count:
            for j in range(n):
                out[j] += _ones(mine & theirs[j])
        elif mine:
            for j in range(n):
                out[j] |= mine & theirs[j]


@njit(parallel=True, cache=True)
def _count(q, q_labels, d, d_labels, bits):
    """-> (Q, K + 1, 2) int64: images at each distance, irrelevant and relevant."""
    counts = np.zeros((len(q), bits + 1, 2), np.int64)
    for i in prange(len(q)):
        distance, shared = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
        found = np.zeros((4, bits + 1, 2), np.int64)  # four, because a counter must not wait for its own last addition
        for first in range(0, d.shape[1], BLOCK):
            n = min(BLOCK, d.shape[1] - first)
            _distances(q, i, d, first, n, distance)
            _shared_labels(q_labels, i, d_labels, first, n, shared, False)
            for j in range(n):
                found[j & 3, distance[j], np.int64(shared[j] != 0)] += 1
        counts[i] = found.sum(axis=0)
    return counts


@njit(parallel=True, cache=True)
def _count_gains(q, q_labels, d, d_labels, bits, most):
    """-> (Q, K + 1, G + 1) int32: images at each distance with each number of shared labels, G = most."""
    counts = np.zeros((len(q), bits + 1, most + 1), np.int32)
    for i in prange(len(q)):
        distance, shared = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
        for first in range(0, d.shape[1], BLOCK):
            n = min(BLOCK, d.shape[1] - first)
            _distances(q, i, d, first, n, distance)
            _shared_labels(q_labels, i, d_labels, first, n, shared, True)
            for j in range(n):
                counts[i, distance[j], shared[j]] += 1
    return counts


@njit(parallel=True, cache=True)
def _sum_in_order(q, q_labels, d, d_labels, n_t, topk):
    """Walk the list that a stable sort gives, without sorting: an image's rank is where its group starts, plus how
    many of its group came before it in the database. -> sum of precisions, hits, among the first k: (Q,) each."""
    sums, hits = np.zeros(len(q)), np.zeros(len(q), np.int64)
    for i in prange(len(q)):
        distance, shared = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
        free = np.zeros(n_t.shape[1], np.int64)  # the next rank of each group, from 0
        free[1:] = np.cumsum(n_t[i])[:-1]
        relevant = np.zeros(topk, np.bool_)  # by rank
        for first in range(0, d.shape[1], BLOCK):
            n = min(BLOCK, d.shape[1] - first)
            _distances(q, i, d, first, n, distance)
            _shared_labels(q_labels, i, d_labels, first, n, shared, False)
            for j in range(n):
                rank = free[distance[j]]
                free[distance[j]] += 1
                if rank < topk:
                    relevant[rank] = shared[j] != 0
        for rank in range(topk):
            if relevant[rank]:
                hits[i] += 1
                sums[i] += hits[i] / (rank + 1)
    return sums, hits


# --- the doors -----------------------------------------------------------------------------------------------------


def count(query_codes, query_labels, database_codes, database_labels, bits: int, device: str = "cpu") -> Counts:
    """Count all pairs.

    Args:
        query_codes, database_codes: packed, (n, ceil(bits/8)) uint8.
        query_labels, database_labels: multi-hot (n, C).
        bits: code length K.
        device: "cpu", or "cuda" for a GPU; the counts are the same.
    """
    most = int(min(np.max(np.sum(x, axis=1)) for x in (query_labels, database_labels)))
    arrays = (query_codes, query_labels, database_codes, database_labels)
    if device != "cpu":
        table = _count_on(device, *arrays, bits, most)
    elif most > 1:
        table = _count_gains(*_laid_out(*arrays), bits, most)
    else:
        table = _count(*_laid_out(*arrays), bits)
    gains = np.arange(table.shape[2])
    n_t = table.sum(axis=2, dtype=np.int64)
    shared = table.sum(axis=1, dtype=np.int64)
    return Counts(n_t, n_t - table[:, :, 0], table @ gains.astype(float), table @ (2.0**gains - 1), shared)


def in_database_order(query_codes, query_labels, database_codes, database_labels, n_t, topk: int):
    """Sum of precisions and number of hits among the first k of the list in which ties stand in database order.

    Returns:
        (Q,) float64, (Q,) int64.
    """
    return _sum_in_order(*_laid_out(query_codes, query_labels, database_codes, database_labels), n_t, topk)


def _laid_out(query_codes, query_labels, database_codes, database_labels):
    """As the compiled loops want it: queries (Q, words), the database (words, n)."""
    database = words(database_codes), pack_labels(database_labels)
    return words(query_codes), pack_labels(query_labels), *(np.ascontiguousarray(part.T) for part in database)


def pack_labels(labels: np.ndarray) -> np.ndarray:
    """Multi-hot (n, C) -> (n, words) uint64, so that "shares a label" is one bit operation a word."""
    return words(np.packbits(np.asarray(labels) != 0, axis=1))


def _count_on(device, query_codes, query_labels, database_codes, database_labels, bits, most) -> np.ndarray:
    """`_count_gains` from matrix products, for a GPU. Codes as -1 and +1 have u . v = K - 2 distance."""
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
