"""Everything at once: one pass, one dict."""

import numpy as np

from hhlib.common import check_bits, check_choice, check_whole
from hhlib.metrics.curves import at_ranks, mean_distances, ndcg, ramap, within_radius
from hhlib.metrics.packing import multi_hot, pack_signs
from hhlib.metrics.pairs import Counts, count, in_database_order
from hhlib.metrics.precision import average_precision, divide, fixed_divisor

LOOKUP_RADIUS = 2  #: bits; the radius at which the field reports hash lookup


def evaluate(
    query_codes,
    query_labels,
    database_codes,
    database_labels,
    *,
    bits: int | None = None,
    topk: int | None = None,
    denominator: str = "found",
    no_match: str = "zero",
    unlabelled: str = "count",
    database_order: bool = True,
    device: str = "cpu",
) -> dict:
    """Rank the database for every query by Hamming distance and score it.

    Args:
        query_codes, database_codes: packed uint8 (n, ceil(bits/8)), or (n, K) numbers whose sign counts (0 is +1).
        query_labels, database_labels: multi-hot (n, C), or class numbers (n,).
        bits: code length K; must be given with packed codes.
        topk: cut-off k of mAP@k and nDCG@k; None ranks the whole database.
        denominator: what AP@k divides by: "found" (relevant images among the first k: the field's way), "reachable"
            (min(k, all relevant)) or "all" (relevant). The same without a cut-off.
        no_match: what a query counts that finds nothing relevant among the first k: "zero", or "drop" it from the mean.
        unlabelled: images without labels are relevant to nobody; "count" them (a query scores 0, a database image is
            wrong for all), or "drop" them before ranking.
        database_order: also score the list in which ties stand in database order (twice the time).
        device: where pairs are counted: "cpu" or "cuda".

    Returns:
        A dict of

        - ``map``: ``expected`` (mean over tie orders: the headline), ``best`` and ``worst`` (what an order could give),
          ``database_order`` (a stable sort: ties in the order of the database);
        - ``ap``: the same for every query, (Q,);
        - ``ndcg``: mean expected nDCG@k, gain ``shared`` (labels in common) and ``exponential`` (2^shared - 1);
        - ``ramap``: ``plain`` and ``with_cost``; ``distance``: mean of ``similar`` and ``dissimilar`` pairs, in bits;
        - ``lookup``: ``radius`` 2, its ``precision``, ``recall`` and number of ``empty`` balls;
        - ``at_rank``: arrays ``n``, ``precision``, ``recall`` over ranks up to the whole database, mean over queries,
          expected over ties; (recall, precision) is the precision-recall curve;
        - ``within_radius``: arrays over ``radius`` 0..K, see `within_radius`;
        - ``histogram``: ``all`` and ``relevant``, (Q, K + 1) images at each distance;
        - ``bits``, ``topk``, ``queries``, ``database``, ``queries_without_match``, ``queries_without_label``,
          ``policy``: plain values.

    Raises:
        ValueError: if shapes, widths, `topk` or a policy do not fit, before any work.
    """
    check_choice("no_match", no_match, ("zero", "drop"))
    check_choice("unlabelled", unlabelled, ("count", "drop"))
    bits, arrays = checked(query_codes, query_labels, database_codes, database_labels, bits)
    if unlabelled == "drop":
        arrays = _without_unlabelled(*arrays)
    topk = None if topk is None else check_whole("topk", topk, 1)
    database = len(arrays[2])
    k = min(topk or database, database)
    counts = count(*arrays, bits, device)
    n_t, r_t = counts.n_t, counts.r_t
    ap = average_precision(n_t, r_t, k, denominator)
    if database_order:
        sums, hits = in_database_order(*arrays, n_t, r_t, k)
        fixed = fixed_divisor(r_t, k, denominator)
        ap["database_order"] = divide(sums, hits if fixed is None else fixed)
    radius = within_radius(n_t, r_t)
    return {
        "map": {name: _mean(values, no_match) for name, values in ap.items()},
        "ndcg": _mean_ndcg(counts, k),
        "ramap": {"plain": float(ramap(n_t, r_t).mean()), "with_cost": float(ramap(n_t, r_t, cost=True).mean())},
        "distance": mean_distances(n_t, r_t),
        "lookup": _lookup(radius, bits),
        "at_rank": at_ranks(n_t, r_t, np.unique(np.geomspace(1, database, 80).round().astype(int))),
        "within_radius": radius,
        "histogram": {"all": n_t, "relevant": r_t},
        "ap": ap,
        "bits": bits,
        "topk": topk,
        "queries": len(n_t),
        "database": database,
        "queries_without_match": int((r_t.sum(axis=1) == 0).sum()),
        "queries_without_label": int((~np.asarray(arrays[1]).any(axis=1)).sum()),
        "policy": {"denominator": denominator, "no_match": no_match, "unlabelled": unlabelled},
    }


def chance(query_labels, database_labels, *, topk: int | None = None) -> float:
    """Expected mAP@k of codes that know nothing: all images tied, in random order.

    It lies a little above the share of right images, because AP looks at the ranks of hits only.
    """
    topk = None if topk is None else check_whole("topk", topk, 1)
    alike = [np.zeros((len(labels), 1)) for labels in (query_labels, database_labels)]
    bits, arrays = checked(alike[0], query_labels, alike[1], database_labels, None)
    counts = count(*arrays, bits)
    return float(average_precision(counts.n_t, counts.r_t, topk)["expected"].mean())


def leave_one_out_map(codes: np.ndarray, labels: np.ndarray) -> float:
    """Expected mAP of one set of at least 2 images, each a query whose database is all the others; see `evaluate`.

    Args:
        codes: (n, K) numbers whose sign counts.
        labels: multi-hot (n, C), or class numbers (n,).
    """
    bits, arrays = checked(codes, labels, codes, labels, None)
    counts = count(*arrays, bits)
    counts.n_t[:, 0] -= 1  # an image is at distance 0 of itself,
    counts.r_t[:, 0] -= multi_hot(labels).any(axis=1)  # and relevant to itself unless it has no label
    return float(average_precision(counts.n_t, counts.r_t)["expected"].mean())


def _mean(ap: np.ndarray, no_match: str) -> float:
    counted = ap[ap > 0] if no_match == "drop" else ap  # an AP is 0 only where nothing relevant is found
    return float(counted.mean()) if len(counted) else 0.0


def _mean_ndcg(counts: Counts, k: int) -> dict[str, float]:
    shared = np.arange(counts.shared.shape[1])
    worth = {"shared": (counts.shared_t, shared.astype(float)), "exponential": (counts.exponential_t, 2.0**shared - 1)}
    return {name: float(ndcg(counts.n_t, t, counts.shared, gains, k).mean()) for name, (t, gains) in worth.items()}


def _lookup(radius: dict, bits: int) -> dict:
    r = min(LOOKUP_RADIUS, bits)
    return {"radius": r} | {name: radius[name][r].item() for name in ("precision", "recall", "empty")}


def _without_unlabelled(query_codes, query_labels, database_codes, database_labels):
    """The same without images that carry no label."""
    kept = [np.asarray(labels).any(axis=1) for labels in (query_labels, database_labels)]
    if not kept[0].any() or not kept[1].any():
        raise ValueError("unlabelled is 'drop', but no query or no database image has a label.")
    return query_codes[kept[0]], query_labels[kept[0]], database_codes[kept[1]], database_labels[kept[1]]


def checked(query_codes, query_labels, database_codes, database_labels, bits):
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
