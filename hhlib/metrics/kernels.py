"""The compiled loops behind `pairs`: all cores (numba), one query at a time, no (queries x database) matrix.

The database is stored word by word, (words, n), and read in blocks: loops over neighbours in memory become vector
instructions. They share this file because numba recompiles a cached function only when its own file changes.
"""

import numpy as np
from numba import njit, prange

from hhlib.compiled import compiled

BLOCK = 2048  #: database images at a time: their distances stay in the nearest cache


@njit(inline="always")
def _ones(x):
    """How many bits of a word are 1: sums of 2, 4 and 8 neighbours, then of the 8 bytes by one multiplication."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit
def _distances(code, database, first, n, out):
    """out[:n] = Hamming distances of the n images from `first` on."""
    for word in range(len(code)):
        mine, theirs = code[word], database[word][first : first + n]
        for j in range(n):
            out[j] = _ones(mine ^ theirs[j]) + (out[j] if word else np.uint64(0))


@njit
def _shared_labels(labels, database, first, n, out):
    """out[:n] = how many labels each image shares."""
    out[:n] = 0
    for word in range(len(labels)):
        mine, theirs = labels[word], database[word][first : first + n]
        if mine:
            for j in range(n):
                out[j] += _ones(mine & theirs[j])


@njit
def _histogram(code, database, start, stop, out):
    """out[t] += images from start to stop - 1 at distance t."""
    distance, tables = np.empty(BLOCK, np.uint64), np.zeros((4, len(out)), np.int64)
    for first in range(start, stop, BLOCK):
        n = min(BLOCK, stop - first)
        _distances(code, database, first, n, distance)
        for j in range(n):
            tables[j & 3, distance[j]] += 1  # in turn: the same counter twice in a row waits for its last addition
    out += tables.sum(axis=0)


@compiled(parallel=True)
def count(q, mine, d, starts, bits):
    """-> (2, Q, K + 1) int64: all images at each distance, and the relevant ones. No labels are compared."""
    # the database is sorted by class: class c starts at starts[c]; mine (Q, C) says which classes a query has
    counts = np.zeros((2, len(q), bits + 1), np.int64)
    for i in prange(len(q)):
        _histogram(q[i], d, 0, d.shape[1], counts[0, i])
        for c in range(mine.shape[1]):
            if mine[i, c]:
                _histogram(q[i], d, starts[c], starts[c + 1], counts[1, i])
    return counts


@compiled(parallel=True)
def count_gains(q, q_labels, d, d_labels, bits, most):
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
def _relevant(labels, database, first, n, flags):
    """flags[:n] = 1 where an image shares a label."""
    flags[:n] = 0
    for word in range(len(labels)):
        mine, theirs = labels[word], database[word][first : first + n]
        if mine:
            for j in range(n):
                flags[j] |= (mine & theirs[j]) != 0


@njit
def _places(flags, out):
    """out = where flags are 1; -> how many. Without a branch: each place is written, but kept only if its flag is 1."""
    n = 0
    for j in range(len(flags)):
        out[n] = j
        n += flags[j]
    return n


@njit
def _few_places(flags, out):
    """The same where few flags are 1: eight are tested at once."""
    n, eights = 0, flags.view(np.uint64)
    for eight in range(len(eights)):
        if eights[eight]:
            for j in range(8 * eight, 8 * eight + 8):
                out[n] = j
                n += flags[j]
    return n


@compiled(parallel=True, error_model="numpy")
def sum_in_order(q, q_labels, d, d_labels, n_t, r_t, topk):
    """Walk the list that a stable sort gives, unsorted -> sum of precisions, hits, among the first k: (Q,) each."""
    # a rank is where the image's group starts, plus how many of its group precede it in the database; hits likewise
    sums, found = np.zeros(len(q)), np.zeros(len(q), np.int64)
    for i in prange(len(q)):
        distance, rank = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64)
        flags, places = np.zeros(BLOCK, np.uint8), np.empty(BLOCK + 1, np.int64)
        ranks, hits = np.cumsum(n_t[i]) - n_t[i], np.cumsum(r_t[i]) - r_t[i]  # so far, in each group
        last = np.uint64(np.searchsorted(ranks, topk) - 1)  # the distance at which the cut falls
        for first in range(0, d.shape[1], BLOCK):
            n = min(BLOCK, d.shape[1] - first)
            _distances(q[i], d, first, n, distance)
            if topk == d.shape[1]:
                _relevant(q_labels[i], d_labels, first, n, flags)
            else:  # keep only the few that are near enough
                flags[:n] = distance[:n] <= last
                flags[n:] = 0
                n = _few_places(flags, places)
                for j in range(n):
                    distance[j], flags[j] = distance[places[j]], 0
                    for word in range(len(d_labels)):
                        flags[j] |= (q_labels[i, word] & d_labels[word, first + places[j]]) != 0
            for j in range(n):
                rank[j] = ranks[distance[j]] = ranks[distance[j]] + 1
            precisions = 0.0
            for j in places[: _places(flags[:n], places)]:
                if rank[j] <= topk:
                    hits[distance[j]] += 1
                    found[i] += 1
                    precisions += hits[distance[j]] / rank[j]
            sums[i] += precisions
    return sums, found
