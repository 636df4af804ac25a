"""Everything at once: one pass, one dict."""

import numpy as np
from numpy.typing import ArrayLike

from hhlib.common import check_choice, check_whole
from hhlib.metrics import kernels
from hhlib.metrics.curves import at_ranks, mean_distances, ndcg, ramap, within_radius
from hhlib.metrics.packing import check_case, check_labels
from hhlib.metrics.pairs import Counts, count, laid_out
from hhlib.metrics.precision import DENOMINATORS, average_precision, divide, divisor

LOOKUP_RADIUS = 2  #: bits; the radius at which the field reports hash lookup


def evaluate(
    query_codes: ArrayLike,
    query_labels: ArrayLike,
    database_codes: ArrayLike,
    database_labels: ArrayLike,
    *,
    bits: int | None = None,
    topk: int | None = None,
    denominator: str = "found",
    no_match: str = "zero",
    unlabelled: str = "count",
    database_order: bool = True,
    device: str = "cpu",
) -> dict:
    """Rank the database for each query by Hamming distance and score the ranking.

    Args:
        query_codes, database_codes: (n, K) numbers whose sign counts (0 is +1) or bool, or packed (n, ceil(K/8)) uint8.
        query_labels, database_labels: 0 and 1 (n, C), C of at least 2, or class numbers (n,) from 0.
        bits: code length K; required for packed codes.
        topk: cut-off k of mAP@k and nDCG@k; None ranks the whole database.
        denominator: what AP@k divides by, see `DENOMINATORS`: "found" (the field's way), "reachable" or "all".
        no_match: a query that finds nothing relevant among the first k scores "zero", or "drop" it from the mean.
        unlabelled: "count" images without labels (never relevant; a query scores 0) or "drop" them before ranking.
        database_order: also score the list in which ties are in database order (takes twice the time).
        device: where pairs are counted: "cpu", "cuda" or "cuda:N".

    Returns:
        - ``map``: ``expected`` (mean over tie orders: the headline), ``best`` and ``worst`` (what an order could give),
          ``database_order`` (a stable sort: ties in database order); ``ap``: the same per query, (Q,);
        - ``ndcg``: mean expected nDCG@k, gain ``shared`` (labels in common) and ``exponential`` (2^shared - 1);
        - ``ramap``: ``plain`` and ``with_cost``; ``distance``: mean of ``similar`` and ``dissimilar`` pairs, in bits;
        - ``lookup``: ``radius`` 2, its ``precision``, ``recall`` and number of ``empty`` balls;
        - ``within_radius``: arrays over ``radius`` 0..K, see `within_radius`; ``at_rank``: the precision-recall curve,
          arrays ``n``, ``precision``, ``recall`` over ranks up to the whole database, mean over queries and tie orders;
        - ``histogram``: ``all`` and ``relevant``, (Q, K + 1) images at each distance; ``bits``, ``topk``, ``policy``;
        - ``queries``, ``database``, ``queries_without_match``, ``queries_without_label``: numbers of images.

    Raises:
        ValueError: before any work, for shapes that do not fit and values that would give a silently wrong number:
            codes with NaN, without a negative number or with spare bits set; labels other than described; no images.

    Of three images, two share the query's code, and only one of these its class; which comes first is luck:

    >>> scores = evaluate([[1, 1]], [0], [[1, 1], [1, 1], [-1, 1]], [0, 1, 0])["map"]
    >>> [round(scores[name], 3) for name in ("worst", "expected", "best")]
    [0.583, 0.708, 0.833]
    """
    check_choice("denominator", denominator, DENOMINATORS)
    check_choice("no_match", no_match, ("zero", "drop"))
    check_choice("unlabelled", unlabelled, ("count", "drop"))
    topk = None if topk is None else check_whole("topk", topk, 1)
    bits, arrays = check_case(bits, query=(query_codes, query_labels), database=(database_codes, database_labels))
    if unlabelled == "drop":
        arrays = _without_unlabelled(*arrays)
    database = len(arrays[2])
    k = min(topk or database, database)
    counts = count(*arrays, bits=bits, device=device)
    n_t, r_t = counts.n_t, counts.r_t
    ap = average_precision(n_t, r_t, k, denominator)
    if database_order:
        sums, hits = kernels.sum_in_order(*laid_out(*arrays), n_t, r_t, k)
        ap["database_order"] = divide(sums, divisor(hits, r_t, k, denominator))
    radius, lookup = within_radius(n_t, r_t), min(LOOKUP_RADIUS, bits)
    return {
        "map": {name: _mean(values, no_match) for name, values in ap.items()},
        "ndcg": _mean_ndcg(counts, k),
        "ramap": {"plain": float(ramap(n_t, r_t).mean()), "with_cost": float(ramap(n_t, r_t, cost=True).mean())},
        "distance": mean_distances(n_t, r_t),
        "lookup": {"radius": lookup} | {name: radius[name][lookup].item() for name in ("precision", "recall", "empty")},
        "at_rank": at_ranks(n_t, r_t, np.unique(np.geomspace(1, database, 80).round().astype(int))),
        "within_radius": radius,
        "histogram": {"all": n_t, "relevant": r_t},
        "ap": ap,
        "bits": bits,
        "topk": topk,
        "queries": len(n_t),
        "database": database,
        "queries_without_match": int((r_t.sum(axis=1) == 0).sum()),
        "queries_without_label": int((~arrays[1].any(axis=1)).sum()),
        "policy": {"denominator": denominator, "no_match": no_match, "unlabelled": unlabelled},
    }


def chance(query_labels: ArrayLike, database_labels: ArrayLike, *, topk: int | None = None) -> float:
    """Expected mAP@k of codes that know nothing: all images tied, in random order.

    It is slightly above the share of relevant images, because AP looks only at the ranks of hits.

    >>> round(chance([0], [0, 1, 0]), 3)
    0.806
    """
    tables = check_labels(**{"query labels": query_labels, "database labels": database_labels})
    alike = (part for table in tables for part in (np.zeros((len(table), 1), np.uint8), table))
    counts = count(*alike, bits=1)
    return float(average_precision(counts.n_t, counts.r_t, topk)["expected"].mean())


def leave_one_out_map(codes: ArrayLike, labels: ArrayLike, *, bits: int | None = None) -> float:
    """Expected mAP of one set of at least 2 images, each a query whose database is all the others; see `evaluate`."""
    bits, (codes, labels) = check_case(bits, least=2, image=(codes, labels))
    counts = count(codes, labels, codes, labels, bits)
    counts.n_t[:, 0] -= 1  # an image is at distance 0 from itself,
    counts.r_t[:, 0] -= labels.any(axis=1)  # and relevant to itself unless it has no label
    return float(average_precision(counts.n_t, counts.r_t)["expected"].mean())


def _mean(ap: np.ndarray, no_match: str) -> float:
    counted = ap[ap > 0] if no_match == "drop" else ap  # an AP is 0 only where nothing relevant is found
    return float(counted.mean()) if len(counted) else 0.0


def _mean_ndcg(counts: Counts, k: int) -> dict[str, float]:
    shared = np.arange(counts.shared.shape[1])
    worth = {"shared": (counts.shared_t, shared.astype(float)), "exponential": (counts.exponential_t, 2.0**shared - 1)}
    return {name: float(ndcg(counts.n_t, t, counts.shared, gains, k).mean()) for name, (t, gains) in worth.items()}


def _without_unlabelled(query_codes, query_labels, database_codes, database_labels):
    """The same without images that carry no label."""
    query, database = query_labels.any(axis=1), database_labels.any(axis=1)
    if not query.any() or not database.any():
        raise ValueError("unlabelled is 'drop', but no query or no database image has a label.")
    return query_codes[query], query_labels[query], database_codes[database], database_labels[database]
