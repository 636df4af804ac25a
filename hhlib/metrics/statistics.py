"""What scores and codes are worth: how far a mean can be trusted, which run is better, and how codes use their bits."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from hhlib.common import check_whole
from hhlib.metrics.packing import as_array, check_codes, check_labels, refuse


def interval(ap: ArrayLike, *, level: float = 0.95, resamples: int = 2_000, seed: int = 0) -> tuple[float, float]:
    """Confidence interval of a mean over queries, by bootstrap: queries are redrawn with replacement.

    It says how far the score would move with other queries of the same kind, not with another database or training.

    Args:
        ap: (Q,) one finite score per query, Q of at least 2.
        level, resamples: above 0 and below 1; at least 100.
    """
    ap = _scores("scores ap", ap, least=2)
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}, but it must be above 0 and below 1.")
    check_whole("resamples", resamples, 100)
    if np.ptp(ap) == 0:
        return float(ap[0]), float(ap[0])
    how = dict(n_resamples=resamples, batch=100, rng=np.random.default_rng(seed))
    found = stats.bootstrap((ap,), np.mean, confidence_level=level, method="percentile", **how).confidence_interval
    return float(found.low), float(found.high)


def compare(a: ArrayLike, b: ArrayLike, *, resamples: int = 9_999, seed: int = 0) -> dict[str, float]:
    """Is run A better than run B on the same queries? A paired permutation test, and how much better.

    If the two were alike, each query's pair of scores could just as well be swapped. Of the shares of swaps whose mean
    difference is at least as large, or at most as small, ``p_value`` is twice the smaller one. Scores that differ by
    less than 1e-9 count as equal: what rounding leaves between them would decide which swaps are "as large".

    Args:
        a, b: (Q,) finite scores of the same queries in the same order, Q of at least 2; resamples: at least 100.

    Returns:
        ``difference`` (mean of a - b), its 95 % interval ``low``, ``high``, and ``p_value``.
    """
    a, b = _scores("scores a", a, least=2), _scores("scores b", b, least=2)
    if len(a) != len(b):
        raise ValueError(f"there are {len(a)} scores a and {len(b)} scores b, but both must be of the same queries.")
    check_whole("resamples", resamples, 100)
    b = np.where(np.abs(a - b) < 1e-9, a, b)
    low, high = interval(a - b, seed=seed)
    how = dict(permutation_type="samples", n_resamples=resamples, batch=100, rng=np.random.default_rng(seed))
    test = stats.permutation_test((a, b), lambda x, y, axis: np.mean(x - y, axis=axis), **how)
    return {"difference": float((a - b).mean()), "low": low, "high": high, "p_value": float(test.pvalue)}


def by_class(ap: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Mean score of the queries that carry each label: (Q,), labels as in `evaluate` -> (C,); NaN where none does."""
    ap, (labels,) = _scores("scores ap", ap), check_labels(labels=labels)
    if len(ap) != len(labels):
        raise ValueError(f"there are {len(ap)} scores ap but {len(labels)} rows of labels.")
    with np.errstate(invalid="ignore"):
        return (ap @ labels) / labels.sum(axis=0)


def _scores(name: str, scores: ArrayLike, least: int = 1) -> np.ndarray:
    """Scores, one per query, as (Q,) float64, if they are finite and at least `least`."""
    scores = as_array(name, scores, 1, least).astype(float)
    refuse(name, scores, ~np.isfinite(scores), "finite")
    return scores


def code_quality(codes: ArrayLike, *, bits: int | None = None) -> dict:
    """What a set of codes is worth, whatever the labels.

    Args:
        codes, bits: as in `evaluate`, n of at least 2.

    Returns:
        - ``ones``: (K,) share of codes in which each bit is 1; 0.5 is balanced;
        - ``constant``: number of bits that never change; ``correlation``: (K, K) between bits, 0 for a constant bit;
        - ``effective_bits``: (sum of eigenvalues)^2 / sum of their squares, of the bits' covariance: K if all bits are
          balanced and independent, 1 if all are copies of one;
        - ``buckets``: distinct codes; ``occupancy``: codes per bucket, fullest first; ``largest``: its first entry;
        - ``entropy``: of the distribution over buckets, in bits: at most min(K, log2 n).
    """
    bits, (packed,) = check_codes(bits, least=2, codes=codes)
    flags = np.unpackbits(packed, axis=1, count=bits).astype(float)  # (n, K)
    covariance = np.atleast_2d(np.cov(flags.T, bias=True))  # (K, K)
    spread = np.sqrt(np.diag(covariance))
    scale = np.outer(spread, spread)
    occupancy = np.sort(np.unique(packed, axis=0, return_counts=True)[1])[::-1]
    share, total = occupancy / len(packed), np.trace(covariance)
    return {
        "ones": flags.mean(axis=0),
        "constant": int((spread == 0).sum()),
        "correlation": np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0),
        "effective_bits": float(total**2 / (covariance**2).sum()) if total > 0 else 0.0,
        "buckets": len(occupancy),
        "largest": int(occupancy[0]),
        "occupancy": occupancy,
        "entropy": float(-(share * np.log2(share)).sum()),
    }
