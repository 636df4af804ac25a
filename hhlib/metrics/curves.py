"""Curves and gains from the same histograms: precision and recall, hash lookup, nDCG, RAMAP."""

import numpy as np
from scipy.special import comb

from hhlib.metrics.precision import check_histograms, divide


def hits_at(n_t: np.ndarray, r_t: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Expected number of relevant images among the first k, for each k in `ranks`: -> (Q, len(ranks))."""
    N, R = (np.pad(np.cumsum(part, axis=1), ((0, 0), (1, 0))) for part in check_histograms(n_t, r_t))  # (Q, K + 2)
    # whole groups count fully, and the group that the cut divides counts in proportion
    return np.stack([np.interp(ranks, n, r) for n, r in zip(N, R, strict=True)])


def at_ranks(n_t: np.ndarray, r_t: np.ndarray, ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Expected precision and recall among the first n, mean over queries: ``n``, ``precision``, ``recall``."""
    hits, total = hits_at(n_t, r_t, ranks), r_t.sum(axis=1, keepdims=True)
    return {"n": ranks, "precision": (hits / ranks).mean(axis=0), "recall": divide(hits, total).mean(axis=0)}


def within_radius(n_t: np.ndarray, r_t: np.ndarray) -> dict[str, np.ndarray]:
    """Hash lookup: everything within each ``radius`` 0..K, without ranking.

    Returns:
        ``precision`` (mean over queries; a query with nothing in its ball scores 0), ``precision_nonempty`` (without
        those), ``recall``, ``empty`` (queries with nothing in their ball), ``images`` (mean images in the ball), and
        ``pooled_precision``, ``pooled_recall``: over the pairs of all queries, the other curve that papers draw.
    """
    n_t, r_t = check_histograms(n_t, r_t)
    images, hits = np.cumsum(n_t, axis=1), np.cumsum(r_t, axis=1)  # (Q, K + 1)
    precision, empty = divide(hits, images), (images == 0).sum(axis=0)
    return {
        "radius": np.arange(n_t.shape[1]),
        "precision": precision.mean(axis=0),
        "precision_nonempty": divide(precision.sum(axis=0), len(n_t) - empty),
        "recall": divide(hits, hits[:, -1:]).mean(axis=0),
        "empty": empty,
        "images": images.mean(axis=0),
        "pooled_precision": divide(hits.sum(axis=0), images.sum(axis=0)),
        "pooled_recall": divide(hits.sum(axis=0), hits[:, -1].sum()),
    }


def ndcg(n_t: np.ndarray, gain_t: np.ndarray, ideal: np.ndarray, gains: np.ndarray, topk: int) -> np.ndarray:
    """Expected nDCG@k of each query over all tie orders: (Q,), 0 where no image has a gain.

    DCG = sum over ranks j <= k of gain(j) / log2(j + 1). In expectation each image of a group has the group's mean
    gain, so no order is needed. (Jarvelin & Kekalainen, TOIS 2002; ties: McSherry & Najork, ECIR 2008.)

    Args:
        n_t, gain_t: (Q, K + 1) images at each distance, and the sum of their gains.
        ideal: (Q, G + 1) images by shared labels, 0 to G.
        gains: (G + 1,) what each number of shared labels is worth, increasing.
        topk: cut-off k.
    """
    discount = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, topk + 2)))])  # (k + 1,), of the first j ranks

    def discounted(counts, worth):
        end = np.cumsum(counts, axis=1)
        begin = np.minimum(end - counts, topk)
        return ((discount[np.minimum(end, topk)] - discount[begin]) * worth).sum(axis=1)

    best = discounted(ideal[:, ::-1], np.broadcast_to(gains[::-1], ideal.shape))  # the largest gains first
    return divide(discounted(n_t, divide(gain_t, n_t)), best)


def ramap(n_t: np.ndarray, r_t: np.ndarray, *, cost: bool = False) -> np.ndarray:
    """Radius-aware average precision of each query: (Q,), the mean over radii 0..K of the precision within the radius.

    It depends on absolute distances, so ties do not matter. With `cost`, each precision is divided by the buckets that
    a lookup of this radius opens, sum over s <= r of C(K, s). (Jiang, Li & Li, "On the Evaluation Metric for Hashing",
    2019, arXiv 1905.10951; the formula comes from descriptions and a re-implementation, not from the authors' code.)
    """
    n_t, r_t = check_histograms(n_t, r_t)
    precision, K = divide(np.cumsum(r_t, axis=1), np.cumsum(n_t, axis=1)), n_t.shape[1] - 1  # (Q, K + 1)
    buckets = np.cumsum(comb(K, np.arange(K + 1))) if cost else 1.0
    return (precision / buckets).mean(axis=1)


def mean_distances(n_t: np.ndarray, r_t: np.ndarray) -> dict[str, float]:
    """Mean distance in bits of ``similar`` and of ``dissimilar`` pairs (NaN where there are none)."""
    n_t, r_t = check_histograms(n_t, r_t)
    t = np.arange(n_t.shape[1])
    with np.errstate(invalid="ignore"):
        return {name: float((c * t).sum() / c.sum()) for name, c in (("similar", r_t), ("dissimilar", n_t - r_t))}
