"""Average precision from two histograms a query, exact under ties.

A code of K bits has only K + 1 distances, so almost every database image is tied with others, and a sorted list is one
arbitrary order among many. The mean over all orders needs no list: with n_t images at distance t, r_t of them relevant,
it is a closed form.

Sources: McSherry & Najork, ECIR 2008, and He et al., "Hashing as Tie-Aware Learning to Rank", CVPR 2018 (average
precision under ties); the hypergeometric form for a cut inside a tie group was derived for this kit and is checked
against enumeration of all orders in the tests.
"""

import numpy as np

from hhlib.common import check_choice

#: What AP@k divides by: the relevant images found among the first k (the field's way), the most that could have been
#: found there, min(k, all relevant), or all relevant ones.
DENOMINATORS = ("found", "reachable", "all")


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
    for query, t in zip(*np.nonzero(~whole & (k > N) & (n_t > 0)), strict=True):
        group = N[query, t], R[query, t], n_t[query, t], r_t[query, t]
        before = {name: s[query] for name, s in sums.items()}
        divisor = None if fixed is None else fixed[query]
        for name, value in _cut_group(*group, k, before, divisor, H, log_factorial).items():
            ap[name][query] = value
    return ap


def fixed_divisor(r_t: np.ndarray, k: int, denominator: str) -> np.ndarray | None:
    """(Q,) what AP@k divides by where no order changes it; None where it is what was found."""
    relevant = r_t.sum(axis=1)
    ways = {"found": None, "reachable": np.minimum(k, relevant), "all": relevant}
    return ways[check_choice("denominator", denominator, DENOMINATORS)]


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b))), where=np.asarray(b) > 0)


def _cut_group(N, R, n, r, k, before, divisor, H, log_factorial) -> dict[str, float]:
    """AP@k of one query whose cut k falls inside a group of n images, r relevant, behind N with R relevant.

    q = k - N of the group are kept; the number m of relevant ones among them is hypergeometric(n, r, q). `before` are
    the sums of precisions up to the group; `divisor` None divides by what was found.
    """
    q = k - N
    m = np.arange(max(0, q - (n - r)), min(r, q) + 1)
    found = np.maximum(R + m if divisor is None else divisor, 1)  # where it is 0 the sums are 0 too
    choose = lambda a, b: log_factorial[a] - log_factorial[b] - log_factorial[a - b]  # noqa: E731
    weight = np.exp(choose(r, m) + choose(n - r, q - m) - choose(n, q))
    expected = (before["expected"] + _mixed(N, R, np.full_like(m, q), m, H)) / found
    best = (before["best"] + _first(N, R, m, H)) / found
    worst = (before["worst"] + _first(N + q - m, R, m, H)) / found
    return {"expected": float(weight @ expected / weight.sum()), "best": float(best.max()), "worst": float(worst.min())}
