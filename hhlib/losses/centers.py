"""Target codes for classes, far apart: Hadamard rows, random balanced codes, and a search that reaches a bound."""

import math
from functools import partial

import numpy as np
from scipy import linalg
from scipy.spatial.distance import pdist, squareform

from hhlib.common import check_bits, check_whole


def distances(H: np.ndarray) -> np.ndarray:
    """Hamming distances between all rows of H (C, K) of -1 and +1: (C, C) int64."""
    return squareform(pdist(H, "cityblock") / 2).astype(np.int64)


def least_distance(H: np.ndarray) -> int:
    """The smallest distance between two different rows; K for a single row."""
    return int(pdist(H, "cityblock").min(initial=2 * H.shape[1])) // 2


def hadamard(bits: int) -> np.ndarray:
    """Sylvester's matrix (K, K) of -1 and +1, K a power of two: any two rows differ in exactly K / 2 bits."""
    if check_bits(bits) & (bits - 1):
        raise ValueError(f"bits is {bits}, but Sylvester's Hadamard matrix needs a power of two.")
    return linalg.hadamard(bits, dtype=float)


def _hadamard_rows(bits: int, num_classes: int) -> np.ndarray:
    """The first rows of [H; -H], at most C; none if K is not a power of two."""
    _check_enough(bits, num_classes)
    H = np.empty((0, bits)) if bits & (bits - 1) else hadamard(bits)
    return np.concatenate([H, -H])[:num_classes]


def csq_centers(bits: int, num_classes: int, rng: np.random.Generator, draws: int = 1000) -> np.ndarray:
    """CSQ's centers (C, K): rows of [H; -H] while there are enough, the rest random.

    Random rows have K/2 ones. Of up to `draws` sets, the first that is far enough apart (least distance above K/4, mean
    at least K/2) is taken, else the one with the largest least distance; if every set has two equal centers, any
    different codes. Yuan et al., CVPR 2020, section 3; the authors' code draws all rows if Hadamard's are too few.
    """
    fixed, half = _hadamard_rows(bits, num_classes), np.where(np.arange(bits) < bits // 2, 1.0, -1.0)
    best, distance = None, 0
    for _ in range(draws):
        H = np.concatenate([fixed, rng.permuted(np.tile(half, (num_classes - len(fixed), 1)), axis=1)])
        d, least = pdist(H, "cityblock") / 2, least_distance(H)
        if least > distance:
            best, distance = H, least
        if len(fixed) == num_classes or (least > bits / 4 and d.sum() >= len(d) * bits / 2):
            break
    return different(bits, num_classes, rng) if best is None else best


def different(bits: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Random codes (C, K) of -1 and +1, each bit by a coin; those that repeat an earlier one are drawn again."""
    _check_enough(bits, num_classes)
    H = np.empty((0, bits))
    while len(H) < num_classes:
        H = np.concatenate([H, rng.choice([-1.0, 1.0], (num_classes - len(H), bits))])
        H = H[np.sort(np.unique(H, axis=0, return_index=True)[1])]
    return H


def _check_enough(bits: int, num_classes: int) -> None:
    if check_whole("num_classes", num_classes, 1) > 2 ** check_bits(bits):
        raise ValueError(f"num_classes is {num_classes}, but {bits} bits have only {2**bits} codes, one per class.")


def bound(bits: int, num_classes: int) -> int:
    """d*: the least d for which balls of radius d - 1 around C codes of K bits would fill all 2^K codes.

    The Gilbert-Varshamov bound promises C codes that are d* - 1 apart; d* itself is usually reached by search.
    """
    d, volume = 0, 0
    while volume * num_classes < 2**bits:
        volume += math.comb(bits, d)
        d += 1
    return d


def separated_centers(bits: int, num_classes: int, rng: np.random.Generator, *, sweeps: int = 3) -> np.ndarray:
    """MDSHC's centers (C, K) of -1 and +1: at least d* = `bound` apart if the search succeeds.

    Starts from Hadamard rows if K is a power of two (for C <= 2K these are further apart than d* already), else at
    random. In at most `sweeps` passes each center is moved, with the others fixed, to where it is far from their mean
    and at least d* from each (`_move`); the set with the largest least distance is kept. Wang et al., "Deep Hashing
    with Minimal-Distance-Separated Hash Centers", CVPR 2023, and the authors' code, with two differences. There a
    center that converges early is thrown away, so that 48 bits and 21 classes stay 15 apart; here it is kept, and they
    reach 19. And where three sweeps are not enough (16 bits and 81 classes take 30, minutes), single bits are flipped.
    """
    fixed = _hadamard_rows(bits, num_classes)
    wanted = min(bits, bound(bits, num_classes))  # the bound of a single class is K + 1
    H = rng.choice([-1.0, 1.0], (num_classes, bits))
    H[: len(fixed)] = fixed
    best = H.copy()
    for _ in range(sweeps):
        if least_distance(best) >= wanted:
            break
        before = H.copy()
        for c in rng.permutation(num_classes):
            others = np.delete(H, c, axis=0)
            H[c] = max(H[c], _move(others, bits - 2 * wanted, rng), key=partial(_spread, others=others))
        best = max(best, H.copy(), key=least_distance)
        if (before == H).all():
            break
    return flipped(best, wanted, rng)


def flipped(H: np.ndarray, wanted: int, rng: np.random.Generator, steps: int = 20_000) -> np.ndarray:
    """Flip single bits of centers H (C, K) until all are `wanted` apart, or for a number of steps -> the best set."""
    H, d = H.copy(), distances(H)
    np.fill_diagonal(d, H.shape[1])
    best, least = H.copy(), d.min()
    for _ in range(steps):
        near = np.flatnonzero((d < wanted).any(axis=1))
        if not len(near):
            return H
        c = rng.choice(near)  # a center that is too near another
        change = np.where(H[c] == H, 1, -1)  # (C, K): the distance to each center after a flip of each bit
        missing = np.maximum(wanted - (d[c][:, None] + change), 0)
        missing[c] = 0
        # the bit that lowers the sum of [wanted - d]_+^2 most, or in one step of twenty a random one
        bit = rng.integers(H.shape[1]) if rng.random() < 0.05 else (missing**2).sum(axis=0).argmin()
        d[c] += change[:, bit]
        d[c, c] = H.shape[1]
        d[:, c] = d[c]
        H[c, bit] *= -1
        if d.min() > least:
            best, least = H.copy(), d.min()
    return best


def _spread(x: np.ndarray, others: np.ndarray) -> float:
    """How well a center is placed: mean + least - variance of its distances to the others."""
    d = (len(x) - others @ x) / 2
    return d.mean() + d.min() - d.var()


def _move(A: np.ndarray, D: float, rng: np.random.Generator) -> np.ndarray:
    """A code x of -1 and +1 with the least mean product with the rows of A (C - 1, K), each product at most D.

    min <a, x>, a the mean row, with x = z1 in [-1, 1]^K, x = z2 of length sqrt(K) (together: binary), A x + z3 = D and
    z3 >= 0, by an augmented Lagrangian: x in closed form, projections, multipliers y; the penalty rho grows.
    """
    n, K = A.shape
    a, solve = A.mean(axis=0), np.linalg.inv(2 * np.eye(K) + A.T @ A)
    x = rng.choice([-1.0, 1.0], K)
    y1, y2, y3 = rng.random(K), rng.random(K), rng.random(n)
    rho, step = 1e-5, (1 + math.sqrt(5)) / 2
    for _ in range(400):  # rho reaches its cap after some 320
        for _ in range(10):
            z1 = np.clip(x + y1 / rho, -1, 1)
            z2 = x + y2 / rho
            z2 *= math.sqrt(K) / max(np.linalg.norm(z2), 1e-12)
            z3 = np.maximum(D - A @ x - y3 / rho, 0)
            x = solve @ (rho * (z1 + z2 + A.T @ (D - z3)) - y1 - y2 - A.T @ y3 - a) / rho
            y1 += step * rho * (x - z1)
            y2 += step * rho * (x - z2)
            y3 += step * rho * (A @ x + z3 - D)
        if max(np.abs(x - z1).max(), np.abs(x - z2).max()) < 1e-3 and (A @ x - D).max() < 1e-3:
            break  # binary and far enough
        rho = min(1.09 * rho, 1e7)
    return np.where(x >= 0, 1.0, -1.0)
