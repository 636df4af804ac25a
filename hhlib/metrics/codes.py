"""What a set of codes is worth, whatever the labels: balance, correlation, buckets, entropy."""

import numpy as np

from hhlib.metrics.packing import pack_signs, unpack_bits


def code_quality(codes: np.ndarray, *, bits: int | None = None) -> dict:
    """Facts about codes.

    Args:
        codes: packed (n, ceil(bits/8)) uint8, or (n, K) numbers whose sign counts; n of at least 2.
        bits: code length K; must be given with packed codes.

    Returns:
        - ``ones``: (K,) share of codes in which each bit is 1; 0.5 is balanced;
        - ``constant``: bits that never change;
        - ``correlation``: (K, K) between bits, 0 for a constant bit;
        - ``effective_bits``: (sum of eigenvalues)^2 / sum of their squares, of the bits' covariance: K if all bits are
          balanced and independent, 1 if all say the same;
        - ``buckets``: distinct codes; ``largest``: codes in the fullest bucket; ``occupancy``: codes in each bucket,
          most first;
        - ``entropy``: of the distribution over buckets, in bits: at most min(K, log2 n).
    """
    codes = np.asarray(codes)
    packed = codes.dtype == np.uint8
    if packed and bits is None:
        raise ValueError("packed codes do not say how long they are: give bits=.")
    if codes.ndim != 2 or len(codes) < 2:
        raise ValueError(f"codes have shape {codes.shape}, but they must be (n, K) with n of at least 2.")
    packed = codes if packed else pack_signs(codes)
    flags = unpack_bits(packed, codes.shape[1] if bits is None else bits).astype(float)  # (n, K)
    covariance = np.atleast_2d(np.cov(flags.T, bias=True))  # (K, K)
    spread = np.sqrt(np.diag(covariance))
    scale = np.outer(spread, spread)
    occupancy = np.sort(np.unique(packed, axis=0, return_counts=True)[1])[::-1]
    share = occupancy / len(codes)
    total = np.trace(covariance)
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
