"""The one pass over all query-database pairs: codes and labels are packed into words, and only counts are kept.

Distances are popcounts of exclusive ors, relevance is a bit operation too, and both run in compiled loops on all cores
(numba), a query at a time: no (queries x database) matrix exists. On a GPU the same counts come from matrix products.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from hhlib.metrics.packing import pack_labels, unpack_bits, words

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


# --- compiled loops ------------------------------------------------------------------------------------------------


@njit(inline="always")
def _ones(x):
    """How many bits of a word are 1: sums of 2, 4 and 8 neighbours, then of the 8 bytes by one multiplication."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


# The database lies word by word, (words, n), so that these loops run over neighbours in memory. Each is a function of
# its own on plain rows: that is what the compiler turns into vector instructions. They fill a block for one query.


@njit
def _distances(code, database, first, n, out):
    """out[:n] = Hamming distances of the images from `first` on."""
    _differences(code[0], database[0][first : first + n], out[:n], False)
    for word in range(1, len(code)):
        _differences(code[word], database[word][first : first + n], out[:n], True)


@njit
def _shared_labels(labels, database, first, n, out):
    """out[:n] = how many labels each image shares."""
    out[:n] = 0
    for word in range(len(labels)):
        if labels[word]:
            _common(labels[word], database[word][first : first + n], out[:n])


@njit
def _differences(mine, theirs, out, add):
    if add:
        for j in range(len(theirs)):
            out[j] += _ones(mine ^ theirs[j])
    else:
        for j in range(len(theirs)):
            out[j] = _ones(mine ^ theirs[j])


@njit
def _common(mine, theirs, out):
    for j in range(len(theirs)):
        out[j] += _ones(mine & theirs[j])


@njit
def _cells(distance, shared):
    """distance[j] = 2 * distance + whether a label is shared: the number of the counter."""
    for j in range(len(distance)):  # uint64 throughout: numba makes floats of uint64 and a plain 2
        distance[j] = (distance[j] << np.uint64(1)) + min(shared[j], np.uint64(1))


@njit
def _tally(cell, one, two, three, four):
    """Count cells, in four tables: the same counter twice in a row would have to wait for its own last addition."""
    n = len(cell)
    for j in range(0, n - 3, 4):
        one[cell[j]] += 1
        two[cell[j + 1]] += 1
        three[cell[j + 2]] += 1
        four[cell[j + 3]] += 1
    for j in range(n - n % 4, n):
        one[cell[j]] += 1


@njit
def _is_relevant(labels, database, j):
    common = np.uint64(0)
    for word in range(len(labels)):
        common |= labels[word] & database[word, j]
    return common != 0


@njit(parallel=True, cache=True)
def _count(q, q_labels, d, d_labels, bits):
    """-> (Q, K + 1, 2) int64: images at each distance, irrelevant and relevant."""
    counts = np.zeros((len(q), bits + 1, 2), np.int64)
    for i in prange(len(q)):
        distance, shared = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
        tables = np.zeros((4, 2 * bits + 2), np.int64)
        for first in range(0, d.shape[1], BLOCK):
            n = min(BLOCK, d.shape[1] - first)
            _distances(q[i], d, first, n, distance)
            _shared_labels(q_labels[i], d_labels, first, n, shared)
            _cells(distance[:n], shared[:n])
            _tally(distance[:n], tables[0], tables[1], tables[2], tables[3])
        counts[i] = tables.sum(axis=0).reshape(bits + 1, 2)
    return counts


@njit(parallel=True, cache=True)
def _count_gains(q, q_labels, d, d_labels, bits, most):
    """-> (Q, K + 1, G + 1) int32: images at each distance with each number of shared labels, G = most."""
    counts = np.zeros((len(q), bits + 1, most + 1), np.int32)
    for i in prange(len(q)):
        distance, shared = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
        for first in range(0, d.shape[1], BLOCK):
            n = min(BLOCK, d.shape[1] - first)
            _distances(q[i], d, first, n, distance)
            _shared_labels(q_labels[i], d_labels, first, n, shared)
            for j in range(n):
                counts[i, distance[j], shared[j]] += 1
    return counts


@njit
def _up_to(distance, last, out):
    """out = places in the block whose distance is at most `last`; -> how many. Without a branch: each is written."""
    n = 0
    for j in range(len(distance)):
        out[n] = j
        n += distance[j] <= last
    return n


@njit(error_model="numpy")
def _walk(distance, relevant, ranks, hits, topk):
    """Go on in the list with these images, in database order. -> sum of precisions, hits among the first k."""
    total, found = 0.0, 0
    for j in range(len(distance)):
        t = np.int64(distance[j])
        rank = ranks[t] + 1
        ranks[t] = rank
        if relevant[j] and rank <= topk:
            hits[t] += 1
            found += 1
            total += hits[t] / np.float64(rank)
    return total, found


@njit(parallel=True, cache=True)
def _sum_in_order(q, q_labels, d, d_labels, n_t, r_t, topk):
    """Walk the list that a stable sort gives, without sorting.

    An image's rank is where its group starts, plus how many of its group came before it in the database; the hits up to
    it likewise. -> sum of precisions, hits, among the first k: (Q,) each.
    """
    sums, found = np.zeros(len(q)), np.zeros(len(q), np.int64)
    for i in prange(len(q)):
        distance, relevant = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
        near = np.empty(BLOCK, np.int64)
        ranks, hits = np.cumsum(n_t[i]) - n_t[i], np.cumsum(r_t[i]) - r_t[i]  # so far, in each group
        last = np.uint64(np.searchsorted(ranks, topk) - 1)  # the distance at which the cut falls
        for first in range(0, d.shape[1], BLOCK):
            n = min(BLOCK, d.shape[1] - first)
            _distances(q[i], d, first, n, distance)
            if topk == d.shape[1]:
                _shared_labels(q_labels[i], d_labels, first, n, relevant)
            else:  # few are near enough: look at their labels only
                n = _up_to(distance[:n], last, near)
                for j in range(n):
                    distance[j] = distance[near[j]]
                    relevant[j] = _is_relevant(q_labels[i], d_labels, first + near[j])
            total, count = _walk(distance[:n], relevant[:n], ranks, hits, topk)
            sums[i] += total
            found[i] += count
    return sums, found


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


def in_database_order(query_codes, query_labels, database_codes, database_labels, n_t, r_t, topk: int):
    """Sum of precisions and number of hits among the first k of the list in which ties stand in database order.

    Returns:
        (Q,) float64, (Q,) int64.
    """
    return _sum_in_order(*_laid_out(query_codes, query_labels, database_codes, database_labels), n_t, r_t, topk)


def _laid_out(query_codes, query_labels, database_codes, database_labels):
    """As the compiled loops want it: queries (Q, words), the database (words, n)."""
    database = words(database_codes), pack_labels(database_labels)
    return words(query_codes), pack_labels(query_labels), *(np.ascontiguousarray(part.T) for part in database)


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
