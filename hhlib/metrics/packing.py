"""Codes and labels: checked, packed and compared. A value that would give a silently wrong number is refused."""

import numpy as np
from numpy.typing import ArrayLike

from hhlib.common import check_bits

MAX_CLASSES = 100_000  #: more than any data set of the field has; a larger class number is probably an identifier
_ADVICE = "and a bit is 1 where a number is >= 0: give 2 * codes - 1, or bool for 0 and 1."


def pack_signs(codes: ArrayLike, *, name: str = "codes") -> np.ndarray:
    """(n, K) numbers or bool -> (n, ceil(K/8)) uint8, bit = 1 where the number is >= 0 (so zero counts as +1) or True.

    Raises ValueError for numbers that are not finite, codes of 0 and 1 (give 2 * codes - 1, or bool), or packed codes.

    >>> pack_signs([[0.3, -1.2, 0.0, 2.0]])  # 1011, then zeros up to a whole byte
    array([[176]], dtype=uint8)
    """
    codes = as_array(name, codes, 2)
    check_bits(codes.shape[1])
    if codes.dtype == bool:
        return np.packbits(codes, axis=1)
    refuse(name, codes, ~np.isfinite(codes), "finite")
    low, high = codes.min(), codes.max()
    if (low, high) == (0, 1) and ((codes == 0) | (codes == 1)).all():
        raise ValueError(f"{name} are 0 and 1, {_ADVICE}")
    if codes.dtype.kind == "u" and high > 1:
        raise ValueError(f"{name} have dtype {codes.dtype}, which has no negative numbers: are they packed already?")
    return np.packbits(codes >= 0, axis=1)


def unpack_signs(packed: ArrayLike, bits: int) -> np.ndarray:
    """The inverse of `pack_signs`: (n, ceil(bits/8)) uint8 -> (n, bits) int8 of -1 and +1."""
    return np.unpackbits(check_packed("codes", packed, bits), axis=1, count=bits).view(np.int8) * 2 - 1


def words(packed: np.ndarray) -> np.ndarray:
    """(n, bytes) uint8 -> (n, words) uint64, padded with zeros, which add no distance."""
    return np.pad(np.ascontiguousarray(packed), ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)


def hamming(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """All distances between packed codes, (q, bytes) and (n, bytes) uint8 -> (q, n) uint16, in bits.

    >>> hamming(pack_signs([[1, 1, -1, 1]]), pack_signs([[1, 1, 1, 1], [-1, -1, -1, 1]]))
    array([[1, 2]], dtype=uint16)
    """
    a = check_packed("codes a", a)
    a, b = words(a), words(check_packed("codes b", b, 8 * a.shape[1]))
    distance = np.zeros((len(a), len(b)), dtype=np.uint16)
    for word in range(a.shape[1]):
        distance += np.bitwise_count(a[:, word, None] ^ b[None, :, word])
    return distance


def check_case(bits: int | None, least: int = 1, **case) -> tuple[int, list[np.ndarray]]:
    """Check codes and labels that are scored together, name=(codes, labels), with at least `least` images each.

    Returns the code length, and for each name packed codes (n, ceil(bits/8)) uint8 and a label table (n, C) bool.
    """
    bits, codes = check_codes(bits, least, **{f"{name} codes": codes for name, (codes, _) in case.items()})
    tables = check_labels(**{f"{name} labels": labels for name, (_, labels) in case.items()})
    for name, c, table in zip(case, codes, tables, strict=True):
        if len(c) != len(table):
            raise ValueError(f"there are {len(c)} {name} codes but {len(table)} rows of {name} labels.")
    return bits, [part for pair in zip(codes, tables, strict=True) for part in pair]


def check_codes(bits: int | None, least: int = 1, **sets) -> tuple[int, list[np.ndarray]]:
    """Check sets of codes that are compared with each other -> code length, packed codes of each set."""
    sets = {name: as_array(name, codes, 2, least) for name, codes in sets.items()}
    first, names = next(iter(sets.values())), " and ".join(sets)
    if any(codes.dtype == np.uint8 for codes in sets.values()):
        if bits is None:
            raise ValueError(f"{names} are packed (uint8), which does not say how long they are: give bits=.")
        return check_bits(bits), [check_packed(name, codes, bits) for name, codes in sets.items()]
    bits = check_bits(first.shape[1] if bits is None else bits)
    for name, codes in sets.items():
        if codes.shape[1] != bits:
            raise ValueError(f"{name} have shape {codes.shape}, but {bits} bits need (n, {bits}).")
    found = [pack_signs(codes, name=name) for name, codes in sets.items()]
    lowest = min((codes.min() for codes in sets.values() if codes.dtype != bool), default=-1)
    if lowest >= 0 and any((codes != first[0]).any() for codes in sets.values()):
        raise ValueError(f"{names} vary but their lowest number is {lowest}, {_ADVICE}")
    return bits, found


def check_packed(name: str, codes, bits: int | None = None) -> np.ndarray:
    """Return packed codes (n, ceil(bits/8)) uint8 if no spare bit at the end is set; by default no bit is spare."""
    codes = as_array(name, codes, 2)
    bits = check_bits(8 * codes.shape[1] if bits is None else bits)
    if codes.dtype != np.uint8 or codes.shape[1] != -(-bits // 8):
        raise ValueError(f"{name} are {codes.shape} {codes.dtype}, but {bits} bits need (n, {-(-bits // 8)}) uint8.")
    spare = codes[:, -1] & (0xFF >> (bits % 8 or 8))  # np.packbits fills the last byte up with zeros, at its end
    if spare.any():
        raise ValueError(f"bits is {bits}, but row {spare.argmax()} of the {name} has a bit set beyond that.")
    return codes


def check_labels(**sets) -> list[np.ndarray]:
    """Check sets of labels that are compared, class numbers or tables -> tables (n, C) bool, all equally wide."""
    sets = {name: _label_values(name, as_array(name, labels)) for name, labels in sets.items()}
    classes = max(2, *(x.shape[1] if x.ndim == 2 else x.max() + 1 for x in sets.values()))
    tables = [labels if labels.ndim == 2 else np.arange(classes) == labels[:, None] for labels in sets.values()]
    widths = [table.shape[1] for table in tables]
    if min(widths) < classes:
        raise ValueError(f"{' and '.join(sets)} are {widths} wide, but they must be equally wide.")
    return tables


def _label_values(name: str, labels: np.ndarray) -> np.ndarray:
    """Labels as class numbers (n,) int64 or as a table (n, C) bool."""
    numbers = labels.ndim == 1 and labels.dtype != bool
    if not labels.size or not (numbers or (labels.ndim == 2 and labels.shape[1] > 1)):
        raise ValueError(f"{name} are {labels.shape} {labels.dtype}, but they must be class numbers (n,), or 0 and 1 "
                         "in a column per class, (n, C) with C of at least 2.")  # fmt: skip
    if numbers:
        whole = (labels >= 0) & (labels < MAX_CLASSES) & (labels == np.floor(labels))
        refuse(name, labels, ~whole, f"whole numbers from 0 to {MAX_CLASSES - 1}")
        return labels.astype(np.int64)
    flags = labels.astype(bool, copy=False)
    if labels.dtype != bool:
        refuse(name, labels, flags & (labels != 1), "0 or 1")
    return flags


def as_array(name: str, values, ndim: int | None = None, least: int = 1) -> np.ndarray:
    """A list, an array or a torch tensor on any device as an array of real numbers or bool, of `least` rows or more."""
    if hasattr(values, "detach"):
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).detach().cpu()
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} have dtype {values.dtype}, but they must be real numbers or bool.")
    if ndim and (values.ndim != ndim or len(values) < least):
        shape = "(n,)" if ndim == 1 else "(n, K)"
        raise ValueError(f"{name} have shape {values.shape}, but they must be {shape} with n of at least {least}.")
    return values


def refuse(name: str, values: np.ndarray, wrong: np.ndarray, allowed: str) -> None:
    """Raise ValueError that names the first row with a wrong value, if there is one."""
    if wrong.any():
        where = tuple(np.argwhere(wrong)[0])
        raise ValueError(f"{name} have {values[where]} in row {where[0]}, but they must be {allowed}.")
