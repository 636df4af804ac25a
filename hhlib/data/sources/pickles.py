"""Pickles that hold arrays, numbers, text and containers, read without Python's own unpickler.

That one runs what a file names, and some files crash it without a name: a million tuples one in the other, used as a
key. Here a file names nothing but what a pickled NumPy array is made of, and these names are never looked up.
"""

import pickletools
import re

import numpy as np

MOST_STEPS = 200_000  #: operations of a pickle: a batch of CIFAR-10 takes 30,000
#: What a pickled array asks for, under NumPy's new module names, and how Python 3 writes bytes for Python 2.
RECONSTRUCT, NDARRAY, DTYPE = "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"
FROMBUFFER, ENCODE = "numpy._core.numeric._frombuffer", "_codecs.encode"
NUMBERS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")  #: kinds of numbers in arrays

#: Operations that put a number, text or bytes of the file on the stack.
_VALUES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_VALUES |= {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_VALUES |= {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
#: Operations that put something new on the stack.
_NEW = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False}
_NEW |= {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}


class _Name(str):
    """One of the names above, in the place of what it names."""


class _Array:
    """An array, or its kind of numbers, that is completed by a later operation."""

    kind: np.dtype
    array: np.ndarray | None = None


def read_pickle(raw: bytes) -> dict:
    """The dict that a pickle of any protocol holds; text of Python 2 is read as Latin-1.

    Raises ValueError for anything that a plain dict of arrays, lists, numbers and text does not need.
    """
    reader = _Reader()
    try:
        for step, (code, value, _) in enumerate(pickletools.genops(raw)):
            if step == MOST_STEPS:
                raise ValueError(f"it has more than {MOST_STEPS:,} operations")
            reader.do(code.name, value)
        (found,) = reader.stack
        return {key: value.array if isinstance(value, _Array) else value for key, value in found.items()}
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"its operations do not fit together: {type(error).__name__} {error}") from error


class _Reader:
    """A stack that a pickle's operations change, one after the other."""

    def __init__(self):
        self.stack, self.marks, self.memo = [], [], {}

    def do(self, name: str, value) -> None:
        """One operation with its argument."""
        if name in _VALUES:
            self.stack.append(value)
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if value is None else value] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[value])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self.stack.append(tuple(self._pop(int(name[-1]))))
        elif name in ("TUPLE", "LIST"):
            self.stack.append((tuple if name == "TUPLE" else list)(self._since_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._since_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            self._set(name)
        elif name == "GLOBAL":
            self.stack.append(_named(*value.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            self.stack.append(_named(*self._pop(2)))
        elif name == "REDUCE":
            self.stack.append(_call(*self._pop(2)))
        elif name == "BUILD":
            (state,) = self._pop(1)
            _complete(self._top(_Array), state)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"it uses the operation {name}, which a batch of pictures does not need")

    def _pop(self, count: int) -> list:
        """Take the last things, in their order."""
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _since_mark(self) -> list:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _top(self, kind: type):
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"{type(self.stack[-1]).__name__} in the place of {kind.__name__}")
        return self.stack[-1]

    def _set(self, name: str) -> None:
        """Fill a dict, whose keys are text: to compare anything deeper may take any time."""
        items = self._pop(2) if name == "SETITEM" else self._since_mark()
        if name == "DICT":
            self.stack.append({})
        if not all(isinstance(key, str) for key in items[::2]):
            raise TypeError("a key is no text")
        self._top(dict).update(zip(items[::2], items[1::2], strict=True))


def _named(module: str, name: str) -> _Name:
    """A name of the list above; ValueError for any other."""
    full = re.sub(r"^numpy\.core\.", "numpy._core.", f"{module}.{name}")
    if full not in (RECONSTRUCT, NDARRAY, DTYPE, FROMBUFFER, ENCODE):
        raise ValueError(f"it asks for {full}, but only NumPy arrays are read from it")
    return _Name(full)


def _call(what: _Name, arguments: tuple):
    """What a call gives: bytes, or an array that may still have to be completed."""
    made = _Array()
    if not isinstance(what, _Name) or not isinstance(arguments, tuple):
        raise TypeError("a call of something else than NumPy's names")
    if what == ENCODE and arguments[1:] == ("latin1",):
        return arguments[0].encode("latin1")
    if what == DTYPE and arguments[0] in NUMBERS:
        made.kind = np.dtype(f"<{arguments[0]}")
    elif what == FROMBUFFER:
        raw, kind, shape, order = arguments
        made.array = _array(raw, kind, shape, order == "F")
    elif what != RECONSTRUCT:
        raise TypeError(f"{what} of {len(arguments)} arguments that a batch of pictures does not need")
    return made


def _complete(made: _Array, state: tuple) -> None:
    """What pickle calls the state: of an array (version, shape, kind, by columns, bytes), or of a kind of numbers."""
    if hasattr(made, "kind"):
        made.kind = made.kind.newbyteorder(">" if state[1] == ">" else "<")
    else:
        _, shape, kind, columns, raw = state
        made.array = _array(raw, kind, shape, columns)


def _array(raw: bytes | str, kind: _Array, shape: tuple, columns: bool) -> np.ndarray:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(raw, dtype=kind.kind).reshape(shape, order="F" if columns else "C")
