"""Pickles that hold arrays, numbers, text and containers, and that may be damaged or made to do harm.

Python's unpickler runs what a file names, takes as much memory as a file says, and ends the process at a deep tuple as
a key. So the operations are looked through first, and names stand for nothing but the few functions here.
"""

import io
import pickle
import pickletools
import re
from typing import Literal

import numpy as np

MOST_STEPS = 200_000  #: operations of a pickle, and its largest place in the memo: a batch of CIFAR-10 has 30,000
MOST_TUPLES = 100  #: so many tuples in one another are no danger; an array has six
NUMBERS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")  #: kinds of numbers in arrays


class _Array:
    """In the place of an array, whose bytes come last, or of its kind of numbers."""

    def __init__(self, kind=None, *_):
        self.kind = kind if kind in NUMBERS else None

    def __setstate__(self, state: tuple) -> None:
        if self.kind:  # a kind of numbers: (version, byte order, ...)
            self.kind = np.dtype(self.kind).newbyteorder(">" if state[1] == ">" else "<").str
        else:
            _, shape, kind, columns, raw = state
            self.array = _from_bytes(raw, kind, shape, "F" if columns else "C").array


def _from_bytes(raw: bytes | str, kind: _Array, shape: tuple, order: Literal["F", "C"]) -> _Array:
    made = _Array()
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    made.array = np.frombuffer(raw, dtype=np.dtype(kind.kind)).reshape(shape, order=order)
    return made


def _encode(text: str, _: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    return text.encode("latin1")


#: All that a pickled array asks for, under NumPy's new module names, and what stands in its place.
_KNOWN = {"numpy.ndarray": _Array, "numpy.dtype": _Array, "numpy._core.multiarray._reconstruct": lambda *_: _Array()}
_KNOWN |= {"numpy._core.numeric._frombuffer": _from_bytes, "_codecs.encode": _encode}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        full = re.sub(r"^numpy\.core\.", "numpy._core.", f"{module}.{name}")
        if full not in _KNOWN:
            raise ValueError(f"it asks for {full}, but only NumPy arrays are read from it")
        return _KNOWN[full]


def read_pickle(raw: bytes) -> dict:
    """The dict that a pickle of any protocol holds; text of Python 2 is read as Latin-1.

    Raises ValueError for anything that a plain dict of arrays, lists, numbers and text does not need.
    """
    tuples = 0
    try:
        for step, (code, value, _) in enumerate(pickletools.genops(raw)):
            tuples += code.name.startswith("TUPLE")
            if step == MOST_STEPS or tuples > MOST_TUPLES or ("PUT" in code.name and (value or 0) > MOST_STEPS):
                raise ValueError(f"it has more than {MOST_STEPS:,} operations, or more than {MOST_TUPLES} tuples")
        found = _Unpickler(io.BytesIO(raw), encoding="latin1").load()
        return {key: value.array if isinstance(value, _Array) else value for key, value in found.items()}
    except Exception as error:  # whatever operations in a wrong order raise
        raise ValueError(f"{type(error).__name__}: {error}") from error
