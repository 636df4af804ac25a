"""Retrieval metrics of hashing, exact under ties, from two histograms a query.

A code of K bits has only K + 1 distances, so almost every database image is tied with others, and a sorted list is one
arbitrary order among many. Nothing here needs that list. One pass over the pairs counts, for each query and each
distance t, n_t = database images at distance t and r_t = relevant ones among them; every metric is a closed form of the
two. NumPy only: this module knows nothing of networks.

Conventions, where code bases of the field differ:

- relevant = shares at least one label;
- AP@k divides by the relevant images *found* in the first k (the field's way; 0 where none is found);
- the field's mAP depends on how a sort happened to order ties; `expected` is its mean over all orders.

Sources: McSherry & Najork, ECIR 2008, and He et al., "Hashing as Tie-Aware Learning to Rank", CVPR 2018 (average
precision under ties); the hypergeometric form for a cut inside a tie group was derived for this kit and is checked
against enumeration of all orders in the tests.
"""

import numpy as np

from hhlib.common import check_bits, check_whole

_BLOCK_PAIRS = 1 << 22  #: query-database pairs a block: bounds the memory of the pass to some 100 MB


# --- the pass over all pairs ---------------------------------------------------------------------------------------


def pack_signs(codes: np.ndarray) -> np.ndarray:
    """(n, K) numbers -> (n, ceil(K/8)) uint8, bit = 1 where the number is >= 0, so a zero counts as +1."""
    codes = np.asarray(codes)
    return np.packbits(codes if codes.dtype == bool else codes >= 0, axis=1)


def multi_hot(labels: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """Class numbers (n,) -> one-hot (n, C); multi-hot labels (n, C) come back as they are."""
    labels = np.asarray(labels)
    if labels.ndim == 2:
        return labels
    return np.arange(num_classes or labels.max() + 1) == labels[:, None]


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All distances between packed codes, (q, bytes) and (n, bytes) uint8 -> (q, n) uint16, in bits."""
    a, b = _words(a), _words(b)
    distance = np.zeros((len(a), len(b)), dtype=np.uint16)
    for word in range(a.shape[1]):
        distance += np.bitwise_count(a[:, word, None] ^ b[None, :, word])
    return distance


def _words(packed: np.ndarray) -> np.ndarray:
    """(n, bytes) uint8 -> (n, words) uint64, padded with zeros, which add no distance."""
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def _blocks(query_codes, query_labels, database_codes, database_labels):
    """Yield, block by block of queries: slice, distances (q, n) uint16, relevance (q, n) bool."""
    step = max(1, _BLOCK_PAIRS // len(database_codes))
    database_labels = np.ascontiguousarray(database_labels.T, dtype=np.float32)  # (C, n)
    for start in range(0, len(query_codes), step):
        rows = slice(start, start + step)
        relevant = query_labels[rows].astype(np.float32) @ database_labels > 0
        yield rows, hamming(query_codes[rows], database_codes), relevant


def _count(distance: np.ndarray, relevant: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Count a block's pairs: distances and relevance (q, n) -> n_t, r_t, each (q, K + 1) int64."""
    q = len(distance)
    cell = distance + np.arange(q)[:, None] * (bits + 1)  # one cell a query and distance
    size = q * (bits + 1)
    counts = np.bincount((cell + size * relevant).ravel(), minlength=2 * size).reshape(2, q, bits + 1)
    return counts.sum(axis=0), counts[1]


# --- average precision from the histograms -------------------------------------------------------------------------


def harmonic(n: int) -> np.ndarray:
    """Harmonic numbers H(0) .. H(n), with H(m) = 1 + 1/2 + ... + 1/m: (n + 1,) float64."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])


def _first(N, R, m, H):
    """Sum of the precisions of m relevant images at ranks N+1 .. N+m, with R relevant before rank N+1.

    sum over i of (R + i) / (N + i) = m + (R - N) * (H(N + m) - H(N))
    """
    return m + (R - N) * (H[N + m] - H[N])


def _mixed(N, R, n, r, H):
    """Expected sum of the precisions of r relevant images spread at random over ranks N+1 .. N+n."""
    D = H[N + n] - H[N]
    pairs = np.divide(r - 1, n - 1, out=np.zeros(np.shape(r)), where=n > 1)
    share = np.divide(r, n, out=np.zeros(np.shape(r)), where=n > 0)
    return share * ((R + 1) * D + pairs * (n - (N + 1) * D))


def average_precision(n_t: np.ndarray, r_t: np.ndarray, topk: int | None = None) -> dict[str, np.ndarray]:
    """AP@k of every query, over the orders that ties leave open.

    Args:
        n_t: (Q, K + 1) database images at each distance.
        r_t: (Q, K + 1) relevant ones among them.
        topk: cut-off k; None ranks everything.

    Returns:
        ``expected``: the mean over all orders; ``best`` and ``worst``: the largest and smallest AP that any order can
        give. Each (Q,) float64. Without a cut inside a tie group, best and worst put the relevant images first and
        last in every group. With one, more relevant images among the first k can *lower* AP@k, because it divides by
        the number found; so they search over how many of the cut group's are kept.
    """
    total = int(n_t.sum(axis=1).max())
    H = harmonic(total)
    N = np.cumsum(n_t, axis=1) - n_t  # images at smaller distances
    R = np.cumsum(r_t, axis=1) - r_t  # relevant ones among them
    k = total if topk is None else min(topk, total)
    whole = N + n_t <= k  # groups that no cut divides
    n, r = np.where(whole, n_t, 0), np.where(whole, r_t, 0)
    found = r.sum(axis=1)
    sums = {
        "expected": _mixed(N, R, n, r, H).sum(axis=1),
        "best": _first(N, R, r, H).sum(axis=1),
        "worst": _first(N + n - r, R, r, H).sum(axis=1),
    }
    ap = {name: np.divide(s, found, out=np.zeros(len(s)), where=found > 0) for name, s in sums.items()}
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    for query, t in zip(*np.nonzero(~whole & (k > N) & (n_t > 0)), strict=True):
        group = N[query, t], R[query, t], n_t[query, t], r_t[query, t]
        before = {name: s[query] for name, s in sums.items()}
        for name, value in _cut_group(*group, k, before, H, log_factorial).items():
            ap[name][query] = value
    return ap


def _cut_group(N, R, n, r, k, before, H, log_factorial) -> dict[str, float]:
    """AP@k of one query whose cut k falls inside a group of n images, r relevant, behind N with R relevant.

    q = k - N of the group are kept; the number m of relevant ones among them is hypergeometric(n, r, q). `before` are
    the sums of precisions up to the group.
    """
    q = k - N
    m = np.arange(max(0, q - (n - r)), min(r, q) + 1)
    found = np.maximum(R + m, 1)  # where R + m is 0 the sums are 0 too
    choose = lambda a, b: log_factorial[a] - log_factorial[b] - log_factorial[a - b]  # noqa: E731
    weight = np.exp(choose(r, m) + choose(n - r, q - m) - choose(n, q))
    expected = (before["expected"] + _mixed(N, R, np.full_like(m, q), m, H)) / found
    best = (before["best"] + _first(N, R, m, H)) / found
    worst = (before["worst"] + _first(N + q - m, R, m, H)) / found
    return {"expected": float(weight @ expected / weight.sum()), "best": float(best.max()), "worst": float(worst.min())}


def ranked_average_precision(relevant: np.ndarray, topk: int | None = None) -> np.ndarray:
    """AP@k of lists that are already in order: (Q, n) bool, best first -> (Q,). The textbook formula, hits found.

    A list of relevant, irrelevant, relevant: (1/1 + 2/3) / 2 = 0.833.
    """
    relevant = relevant[:, :topk]
    hits = np.cumsum(relevant, axis=1)
    precision = hits / np.arange(1, relevant.shape[1] + 1)
    found = hits[:, -1]
    return np.divide((precision * relevant).sum(axis=1), found, out=np.zeros(len(found)), where=found > 0)


# --- curves from the histograms ------------------------------------------------------------------------------------


def hits_at(n_t: np.ndarray, r_t: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Expected number of relevant images among the first k, for each k in `ranks`: -> (Q, len(ranks)).

    Whole groups count fully, the group that the cut divides in proportion.
    """
    N = np.concatenate([np.zeros((len(n_t), 1)), np.cumsum(n_t, axis=1)], axis=1)  # (Q, K + 2)
    R = np.concatenate([np.zeros((len(n_t), 1)), np.cumsum(r_t, axis=1)], axis=1)
    return np.stack([np.interp(ranks, n, r) for n, r in zip(N, R, strict=True)])


def _at_ranks(n_t, r_t, ranks) -> dict[str, np.ndarray]:
    hits, total = hits_at(n_t, r_t, ranks), r_t.sum(axis=1, keepdims=True)
    recall = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
    return {"n": ranks, "precision": (hits / ranks).mean(axis=0), "recall": recall.mean(axis=0)}


def _within_radius(n_t, r_t) -> dict[str, np.ndarray]:
    images, hits = np.cumsum(n_t, axis=1), np.cumsum(r_t, axis=1)  # (Q, K + 1)
    precision = np.divide(hits, images, out=np.zeros(hits.shape), where=images > 0)
    recall = np.divide(hits, hits[:, -1:], out=np.zeros(hits.shape), where=hits[:, -1:] > 0)
    return {
        "radius": np.arange(n_t.shape[1]),
        "precision": precision.mean(axis=0),
        "recall": recall.mean(axis=0),
        "empty": (images == 0).sum(axis=0),
        "images": images.mean(axis=0),
    }


# --- everything at once --------------------------------------------------------------------------------------------


def evaluate(query_codes, query_labels, database_codes, database_labels, *, bits=None, topk=None) -> dict:
    """Rank the database for every query by Hamming distance and score it.

    Args:
        query_codes, database_codes: packed uint8 (n, ceil(bits/8)), or (n, K) numbers whose sign counts (0 is +1).
        query_labels, database_labels: multi-hot (n, C), or class numbers (n,).
        bits: code length K; must be given with packed codes.
        topk: cut-off k of mAP@k; None ranks the whole database.

    Returns:
        A dict of

        - ``map``: ``expected`` (mean over tie orders: the headline), ``best`` and ``worst`` (what an order could give),
          ``database_order`` (a stable sort: ties in the order of the database);
        - ``at_rank``: arrays ``n``, ``precision``, ``recall`` over ranks up to the whole database, mean over queries,
          expected over ties; (recall, precision) is the precision-recall curve;
        - ``within_radius``: arrays ``radius`` (0..K), ``precision`` (a query with nothing in its ball scores 0),
          ``recall``, ``empty`` (queries with nothing in their ball), ``images`` (mean images in the ball);
        - ``histogram``: ``all`` and ``relevant``, (Q, K + 1) images at each distance;
        - ``ap``: as ``map``, but for every query, (Q,);
        - ``bits``, ``topk``, ``queries``, ``database``, ``queries_without_match``: plain numbers.

        An image without labels is relevant to nobody: as a query it scores 0 and counts.

    Raises:
        ValueError: if shapes, widths or `topk` do not fit, before any work.
    """
    bits, arrays = _checked(query_codes, query_labels, database_codes, database_labels, bits)
    topk = None if topk is None else check_whole("topk", topk, 1)
    n_t, r_t, in_order = [], [], []
    for _, distance, relevant in _blocks(*arrays):
        counts = _count(distance, relevant, bits)
        n_t.append(counts[0])
        r_t.append(counts[1])
        order = np.argsort(distance, axis=1, kind="stable")[:, :topk]
        in_order.append(ranked_average_precision(np.take_along_axis(relevant, order, axis=1)))
    n_t, r_t = np.concatenate(n_t), np.concatenate(r_t)
    ap = average_precision(n_t, r_t, topk) | {"database_order": np.concatenate(in_order)}
    database = len(arrays[2])
    return {
        "map": {name: float(values.mean()) for name, values in ap.items()},
        "at_rank": _at_ranks(n_t, r_t, np.unique(np.geomspace(1, database, 80).round().astype(int))),
        "within_radius": _within_radius(n_t, r_t),
        "histogram": {"all": n_t, "relevant": r_t},
        "ap": ap,
        "bits": bits,
        "topk": topk,
        "queries": len(n_t),
        "database": database,
        "queries_without_match": int((r_t.sum(axis=1) == 0).sum()),
    }


def leave_one_out_map(codes: np.ndarray, labels: np.ndarray) -> float:
    """Expected mAP of one set of at least 2 images, each a query whose database is all the others; see `evaluate`.

    Args:
        codes: (n, K) numbers whose sign counts.
        labels: multi-hot (n, C), or class numbers (n,).
    """
    counts = evaluate(codes, labels, codes, labels)["histogram"]
    counts["all"][:, 0] -= 1  # an image is at distance 0 of itself,
    counts["relevant"][:, 0] -= multi_hot(labels).any(axis=1)  # and relevant to itself unless it has no label
    return float(average_precision(counts["all"], counts["relevant"])["expected"].mean())


def _checked(query_codes, query_labels, database_codes, database_labels, bits):
    """Check what the caller gave -> bits, (packed query codes, labels, packed database codes, labels)."""
    codes = {"query": np.asarray(query_codes), "database": np.asarray(database_codes)}
    classes = 1 + max((int(np.max(x)) for x in (query_labels, database_labels) if np.ndim(x) == 1), default=0)
    labels = {"query": multi_hot(query_labels, classes), "database": multi_hot(database_labels, classes)}
    packed = bits is not None and all(c.dtype == np.uint8 for c in codes.values())
    if bits is None:
        if codes["query"].dtype == np.uint8:
            raise ValueError("packed codes do not say how long they are: give bits=.")
        bits = codes["query"].shape[-1]
    bits = check_bits(bits)
    width = -(-bits // 8) if packed else bits
    for name in codes:
        if codes[name].ndim != 2 or codes[name].shape[1] != width or not len(codes[name]):
            raise ValueError(
                f"{name} codes have shape {codes[name].shape}, but {bits} bits need (n, {width}), n of at least 1."
            )
        if len(labels[name]) != len(codes[name]):
            raise ValueError(
                f"there are {len(codes[name])} {name} codes but {len(labels[name])} rows of {name} labels."
            )
    if labels["query"].shape[1] != labels["database"].shape[1]:
        widths = labels["query"].shape[1], labels["database"].shape[1]
        raise ValueError(
            f"query labels are {widths[0]} wide and database labels {widths[1]}, but they must be equally wide."
        )
    if not packed:
        codes = {name: pack_signs(values) for name, values in codes.items()}
    return bits, (codes["query"], labels["query"], codes["database"], labels["database"])
