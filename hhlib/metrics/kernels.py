"""The compiled loops behind `pairs`: all cores (numba), a query at a time, no (queries x database) matrix.

They are one file, because numba notices a change in a function's own file only and would go on with what it kept.
"""

import numpy as np
from numba import njit, prange

BLOCK = 2048  #: database images at a time in the compiled loops: their distances stay in the nearest cache


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
def _tally(distance, one, two, three, four):
    """Count distances, in four tables: the same counter twice in a row would have to wait for its own last addition."""
    n = len(distance)
    for j in range(0, n - 3, 4):
        one[distance[j]] += 1
        two[distance[j + 1]] += 1
        three[distance[j + 2]] += 1
        four[distance[j + 3]] += 1
    for j in range(n - n % 4, n):
        one[distance[j]] += 1


@njit
def _histogram(code, database, start, stop, out):
    """out[t] += images from start to stop - 1 at distance t."""
    distance, tables = np.empty(BLOCK, np.uint64), np.zeros((4, len(out)), np.int64)
    for first in range(start, stop, BLOCK):
        n = min(BLOCK, stop - first)
        _distances(code, database, first, n, distance)
        _tally(distance[:n], tables[0], tables[1], tables[2], tables[3])
    out += tables.sum(axis=0)


@njit(parallel=True, cache=True)
def count(q, mine, d, starts, bits):
    """-> (2, Q, K + 1) int64: all images at each distance, and the relevant ones.

    The database is sorted by class, so nobody looks at labels: class c starts at starts[c], and mine (Q, C) says which
    classes a query has.
    """
    counts = np.zeros((2, len(q), bits + 1), np.int64)
    for i in prange(len(q)):
        _histogram(q[i], d, 0, d.shape[1], counts[0, i])
        for c in range(mine.shape[1]):
            if mine[i, c]:
                _histogram(q[i], d, starts[c], starts[c + 1], counts[1, i])
    return counts


@njit(parallel=True, cache=True)
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


# --- the list with ties in database order --------------------------------------------------------------------------


@njit
def _ranks(distance, ranks, out):
    """out = rank of each image: one more than the images before it; ranks[t] counts on."""
    for j in range(len(distance)):
        out[j] = ranks[distance[j]] = ranks[distance[j]] + 1


@njit
def _near(distance, last, flags):
    for j in range(len(distance)):
        flags[j] = distance[j] <= last


@njit
def _relevant(labels, database, first, n, flags):
    flags[:n] = 0
    for word in range(len(labels)):
        if labels[word]:
            _any_common(labels[word], database[word][first : first + n], flags[:n])


@njit
def _any_common(mine, theirs, flags):
    for j in range(len(theirs)):
        flags[j] |= (mine & theirs[j]) != 0


@njit
def _shares(labels, database, j):
    common = np.uint64(0)
    for word in range(len(labels)):
        common |= labels[word] & database[word, j]
    return common != 0


@njit
def _places(flags, out):
    """out = where flags are 1; -> how many. Without a branch: each place is written, and kept if its flag is 1."""
    n = 0
    for j in range(len(flags)):
        out[n] = j
        n += flags[j]
    return n


@njit
def _few_places(flags, out):
    """The same where few flags are 1: eight are looked at at once."""
    n, eights = 0, flags.view(np.uint64)
    for eight in range(len(eights)):
        if eights[eight]:
            for j in range(8 * eight, 8 * eight + 8):
                out[n] = j
                n += flags[j]
    return n


@njit(error_model="numpy")
def _sum_precisions(places, distance, rank, hits, topk):
    """-> sum of precisions at the relevant images (at `places`) among the first k, and how many; hits[t] counts on."""
    total, found = 0.0, 0
    for j in places:
        if rank[j] <= topk:
            hits[distance[j]] += 1
            found += 1
            total += hits[distance[j]] / np.float64(rank[j])
    return total, found


@njit(parallel=True, cache=True)
def sum_in_order(q, q_labels, d, d_labels, n_t, r_t, topk):
    """Walk the list that a stable sort gives, without sorting.

    An image's rank is where its group starts, plus how many of its group came before it in the database; the hits up to
    it likewise. -> sum of precisions, hits, among the first k: (Q,) each.
    """
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
            else:  # go on with the few that are near enough
                _near(distance[:n], last, flags[:n])
                flags[n:] = 0
                n = _few_places(flags, places)
                for j in range(n):
                    distance[j] = distance[places[j]]
                    flags[j] = _shares(q_labels[i], d_labels, first + places[j])
            _ranks(distance[:n], ranks, rank)
            n = _places(flags[:n], places)
            total, count = _sum_precisions(places[:n], distance, rank, hits, topk)
            sums[i] += total
            found[i] += count
    return sums, found
