"""Codes and labels as bits, and bits as words: the form in which they are stored and compared."""

import numpy as np

from hhlib.common import check_bits


def pack_signs(codes: np.ndarray) -> np.ndarray:
    """(n, K) numbers -> (n, ceil(K/8)) uint8, bit = 1 where the number is >= 0, so a zero counts as +1."""
    codes = np.asarray(codes)
    return np.packbits(codes if codes.dtype == bool else codes >= 0, axis=1)


def unpack_bits(packed: np.ndarray, bits: int) -> np.ndarray:
    """(n, ceil(K/8)) uint8 -> (n, K) uint8 of 0 and 1."""
    return np.unpackbits(packed, axis=1, count=check_bits(bits))


def multi_hot(labels: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """Class numbers (n,) -> one-hot (n, C); multi-hot labels (n, C) come back as they are."""
    labels = np.asarray(labels)
    if labels.ndim == 2:
        return labels
    return np.arange(num_classes or labels.max() + 1) == labels[:, None]


def words(packed: np.ndarray) -> np.ndarray:
    """(n, bytes) uint8 -> (n, words) uint64, padded with zeros, which add no distance."""
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All distances between packed codes, (q, bytes) and (n, bytes) uint8 -> (q, n) uint16, in bits."""
    a, b = words(a), words(b)
    distance = np.zeros((len(a), len(b)), dtype=np.uint16)
    for word in range(a.shape[1]):
        distance += np.bitwise_count(a[:, word, None] ^ b[None, :, word])
    return distance


def pack_labels(labels: np.ndarray) -> np.ndarray:
    """Multi-hot (n, C) -> (n, words) uint64, so that "shares a label" is one bit operation a word."""
    return words(np.packbits(np.asarray(labels) != 0, axis=1))
