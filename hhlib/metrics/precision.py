"""Average precision from two histograms per query, exact under ties.

A code of K bits has only K + 1 distances, so almost every database image is tied with others, and a sorted list is one
arbitrary order among many. The mean over all orders needs no list: with n_t images at distance t, r_t of them relevant,
it is a closed form (McSherry & Najork, ECIR 2008; He et al., "Hashing as Tie-Aware Learning to Rank", CVPR 2018). The
hypergeometric form for a cut inside a tie group was derived for this kit; the tests enumerate all orders to check it.
"""

import numpy as np
from numba import prange
from numba.extending import register_jitable

from hhlib.common import check_choice, check_whole
from hhlib.compiled import compiled
from hhlib.metrics.packing import as_array

#: What AP@k divides by: the relevant images found among the first k (the field's way), the most that could have been
#: found there, min(k, all relevant), or all relevant ones.
DENOMINATORS = ("found", "reachable", "all")


def harmonic(n: int) -> np.ndarray:
    """Harmonic numbers H(0) .. H(n), with H(m) = 1 + 1/2 + ... + 1/m: (n + 1,) float64."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])


@register_jitable
def _first(N, R, m, H):
    """Sum of the precisions (R + i) / (N + i) of m relevant images at ranks N+1 .. N+m, after R relevant ones."""
    return m + (R - N) * (H[N + m] - H[N])


@register_jitable
def _mixed(N, R, n, r, H):
    """Expected sum of the precisions of r relevant images spread at random over ranks N+1 .. N+n; 0 where n is 0."""
    D, pairs = H[N + n] - H[N], (r - 1) / np.maximum(n - 1, 1)
    return r / np.maximum(n, 1) * ((R + 1) * D + pairs * (n - (N + 1) * D))


def average_precision(n_t: np.ndarray, r_t: np.ndarray, topk: int | None = None, denominator: str = "found") -> dict:
    """AP@k of every query, over the orders that ties leave open.

    Args:
        n_t, r_t: (Q, K + 1) database images at each distance, and relevant ones among them.
        topk: cut-off k; None ranks everything.
        denominator: one of `DENOMINATORS`. Without a cut-off all three are the same.

    Returns:
        ``expected``, the mean over all orders, ``best`` and ``worst``, the largest and smallest AP of any order: each
        (Q,) float64, 0 for a query without relevant images. Best and worst put the relevant images first and last in
        every tie group; in the group that the cut divides they search over how many are kept, as more relevant images
        among the first k can *lower* AP@k, which divides by the number found.
    """
    n_t, r_t = check_histograms(n_t, r_t)
    total = int(n_t.sum(axis=1).max())
    k = total if topk is None else min(check_whole("topk", topk, 1), total)
    H = harmonic(total)
    N = np.cumsum(n_t, axis=1) - n_t  # images at smaller distances
    R = np.cumsum(r_t, axis=1) - r_t  # relevant ones among them
    whole = N + n_t <= k  # groups that no cut divides
    n, r = np.where(whole, n_t, 0), np.where(whole, r_t, 0)
    parts = _mixed(N, R, n, r, H), _first(N, R, r, H), _first(N + n - r, R, r, H)
    sums = np.stack([part.sum(axis=1) for part in parts])  # (3, Q): expected, best, worst
    by = divisor(r.sum(axis=1), r_t, k, denominator)
    ap = divide(sums, by)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    query, t = np.nonzero(~whole & (k > N))  # the group that the cut divides, where there is one
    N, R, n, r = (part[query, t] for part in (N, R, n_t, r_t))
    ap[:, query] = _cut_groups(N, R, n, r, k, sums[:, query], by[query] * (denominator != "found"), H, log_factorial)
    return dict(zip(("expected", "best", "worst"), np.minimum(ap, 1), strict=True))  # a perfect list gave 1 + 4e-16


def divisor(found: np.ndarray, r_t: np.ndarray, k: int, denominator: str) -> np.ndarray:
    """(Q,) what AP@k divides by, where `found` (Q,) relevant images are among the first k."""
    relevant = r_t.sum(axis=1)
    ways = {"found": found, "reachable": np.minimum(k, relevant), "all": relevant}
    return ways[check_choice("denominator", denominator, DENOMINATORS)]


def check_histograms(n_t: np.ndarray, r_t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two histograms as int64 if they are (Q, K + 1) whole numbers with 0 <= r_t <= n_t."""
    given = as_array("n_t", n_t, 2), as_array("r_t", r_t, 2)
    n, r = (part.astype(np.int64) for part in given)
    if n.shape != r.shape or (n != given[0]).any() or (r != given[1]).any() or (r < 0).any() or (r > n).any():
        raise ValueError(f"n_t {n.shape} and r_t {r.shape} must be (Q, K + 1) whole numbers with 0 <= r_t <= n_t.")
    return n, r


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b))), where=np.asarray(b) > 0)


@compiled(parallel=True)
def _cut_groups(N, R, n, r, k, before, fixed, H, F):
    """AP@k of queries whose cut k falls inside a group of n images, r relevant, after N with R relevant: (C,) each.

    before: (3, C) sums of precisions up to the group; fixed: what AP divides by, 0 for the number found; H, F: harmonic
    numbers, logarithms of factorials. -> (3, C): expected, best, worst.
    """
    ap = np.zeros((3, len(N)))
    for i in prange(len(N)):
        q, wrong = k - N[i], n[i] - r[i]  # q of the group are kept, m of them relevant: hypergeometric(n, r, q)
        ways = F[n[i]] - F[q] - F[n[i] - q]
        mean, weights, best, worst = 0.0, 0.0, 0.0, np.inf
        for m in range(max(0, q - wrong), min(r[i], q) + 1):
            relevant = F[r[i]] - F[m] - F[r[i] - m]
            others = F[wrong] - F[q - m] - F[wrong - (q - m)]
            weight = np.exp(relevant + others - ways)
            by = max(fixed[i] if fixed[i] else R[i] + m, 1)  # where it is 0 the sums are 0 too
            mean += weight * (before[0, i] + _mixed(N[i], R[i], q, m, H)) / by
            weights += weight
            best = max(best, (before[1, i] + _first(N[i], R[i], m, H)) / by)
            worst = min(worst, (before[2, i] + _first(k - m, R[i], m, H)) / by)
        ap[0, i], ap[1, i], ap[2, i] = mean / weights, best, worst
    return ap
