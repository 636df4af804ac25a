"""How far a mean over queries can be trusted, and whether one run is better than another."""

import numpy as np
from scipy import stats

from hhlib.common import check_whole


def interval(ap: np.ndarray, *, level: float = 0.95, resamples: int = 2_000, seed: int = 0) -> tuple[float, float]:
    """Confidence interval of a mean over queries, by bootstrap: queries are drawn again, with replacement.

    It says how much the score would move with other queries of the same kind, for this network and this database. It
    says nothing about another training seed.

    Args:
        ap: (Q,) a score for each query, Q of at least 2.
        level: above 0 and below 1.
    """
    ap = np.asarray(ap, dtype=float)
    if ap.ndim != 1 or len(ap) < 2:
        raise ValueError(f"ap has shape {ap.shape}, but an interval needs (Q,) with at least 2 queries.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}, but it must be above 0 and below 1.")
    if np.ptp(ap) == 0:
        return float(ap[0]), float(ap[0])
    found = stats.bootstrap(
        (ap,),
        np.mean,
        confidence_level=level,
        n_resamples=check_whole("resamples", resamples, 100),
        batch=100,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def compare(a: np.ndarray, b: np.ndarray, *, resamples: int = 9_999, seed: int = 0) -> dict[str, float]:
    """Is run A better than run B on the same queries? A paired permutation test, and how much better.

    If the two were alike, each query's pair of scores could as well be the other way round; ``p_value`` is the share of
    such swaps that give a mean difference at least as large, on either side.

    Args:
        a, b: (Q,) scores of the same queries in the same order.

    Returns:
        ``difference`` (mean of a - b), its 95 % interval ``low``, ``high``, and ``p_value``.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a has shape {a.shape} and b {b.shape}, but both must be (Q,), the same queries.")
    low, high = interval(a - b, seed=seed)
    test = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=check_whole("resamples", resamples, 100),
        batch=100,
        rng=np.random.default_rng(seed),
    )
    return {"difference": float((a - b).mean()), "low": low, "high": high, "p_value": float(test.pvalue)}


def by_class(ap: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean score of the queries that carry each label: (Q,), multi-hot (Q, C) -> (C,); not a number where none does."""
    labels = np.asarray(labels) != 0
    with np.errstate(invalid="ignore"):
        return (np.asarray(ap) @ labels) / labels.sum(axis=0)
