"""Average precision from two histograms a query, exact under ties.

A code of K bits has only K + 1 distances, so almost every database image is tied with others, and a sorted list is one
arbitrary order among many. The mean over all orders needs no list: with n_t images at distance t, r_t of them relevant,
it is a closed form.

Sources: McSherry & Najork, ECIR 2008, and He et al., "Hashing as Tie-Aware Learning to Rank", CVPR 2018 (average
precision under ties); the hypergeometric form for a cut inside a tie group was derived for this kit and is checked
against enumeration of all orders in the tests.
"""

import numpy as np
from numba import njit, prange

from hhlib.common import check_choice

#: What AP@k divides by: the relevant images found among the first k (the field's way), the most that could have been
#: found there, min(k, all relevant), or all relevant ones.
DENOMINATORS = ("found", "reachable", "all")
#: What `average_precision` gives.
ORDERS = ("expected", "best", "worst")
FOUND = -1  #: stands for a divisor that depends on the order


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


def average_precision(
    n_t: np.ndarray, r_t: np.ndarray, topk: int | None = None, denominator: str = "found"
) -> dict[str, np.ndarray]:
    """AP@k of every query, over the orders that ties leave open.

    Args:
        n_t: (Q, K + 1) database images at each distance.
        r_t: (Q, K + 1) relevant ones among them.
        topk: cut-off k; None ranks everything.
        denominator: one of `DENOMINATORS`. Without a cut-off all three are the same.

    Returns:
        ``expected``: the mean over all orders; ``best`` and ``worst``: the largest and smallest AP that any order can
        give. Each (Q,) float64. Without a cut inside a tie group, best and worst put the relevant images first and
        last in every group. With one, more relevant images among the first k can *lower* AP@k, because it divides by
        the number found; so they search over how many of the cut group's are kept.
        A query for which nothing is relevant has 0.
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
    fixed = fixed_divisor(r_t, k, denominator)
    ap = {name: divide(s, found if fixed is None else fixed) for name, s in sums.items()}
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    query, t = np.nonzero(~whole & (k > N) & (n_t > 0))  # the group that the cut divides, where one is
    group = (part[query, t] for part in (N, R, n_t, r_t))
    before = np.stack([sums[name][query] for name in ORDERS])
    divisor = np.full(len(query), FOUND) if fixed is None else fixed[query]
    for name, values in zip(ORDERS, _cut_groups(*group, k, before, divisor, H, log_factorial), strict=True):
        ap[name][query] = values
        np.minimum(ap[name], 1, out=ap[name])  # a perfect list came out as 1 + 4e-16, beyond a histogram's last bin
    return ap


def fixed_divisor(r_t: np.ndarray, k: int, denominator: str) -> np.ndarray | None:
    """(Q,) what AP@k divides by where no order changes it; None where it is what was found."""
    relevant = r_t.sum(axis=1)
    ways = {"found": None, "reachable": np.minimum(k, relevant), "all": relevant}
    return ways[check_choice("denominator", denominator, DENOMINATORS)]


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b))), where=np.asarray(b) > 0)


@njit(parallel=True, cache=True)
def _cut_groups(N, R, n, r, k, before, divisor, H, log_factorial):
    """AP@k of queries whose cut k falls inside a group of n images, r relevant, behind N with R relevant: (C,) each.

    q = k - N of the group are kept; the number m of relevant ones among them is hypergeometric(n, r, q). `before`,
    (3, C), are the sums of precisions up to the group; the formulas are those of `_mixed` and `_first`. -> (3, C) in
    the order of `ORDERS`.
    """
    ap = np.zeros((3, len(N)))
    for i in prange(len(N)):
        q = k - N[i]
        D = H[k] - H[N[i]]
        all_ways = log_factorial[n[i]] - log_factorial[q] - log_factorial[n[i] - q]
        mean, weights, best, worst = 0.0, 0.0, 0.0, np.inf
        for m in range(max(0, q - (n[i] - r[i])), min(r[i], q) + 1):
            among_relevant = log_factorial[r[i]] - log_factorial[m] - log_factorial[r[i] - m]
            others = n[i] - r[i]
            among_others = log_factorial[others] - log_factorial[q - m] - log_factorial[others - (q - m)]
            weight = np.exp(among_relevant + among_others - all_ways)
            by = max(R[i] + m if divisor[i] == FOUND else divisor[i], 1)  # where it is 0 the sums are 0 too
            pairs = (m - 1) / (q - 1) if q > 1 else 0.0
            mixed = m / q * ((R[i] + 1) * D + pairs * (q - (N[i] + 1) * D))
            first = m + (R[i] - N[i]) * (H[N[i] + m] - H[N[i]])
            last = m + (R[i] - (k - m)) * (H[k] - H[k - m])
            mean += weight * (before[0, i] + mixed) / by
            weights += weight
            best = max(best, (before[1, i] + first) / by)
            worst = min(worst, (before[2, i] + last) / by)
        ap[0, i], ap[1, i], ap[2, i] = mean / weights, best, worst
    return ap
