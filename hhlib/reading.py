"""Files that may come from anywhere: for any bytes, what was wanted, or one sentence that names the file and what is
wrong with it. Sizes are checked before anything is unpacked, and nothing in a file is ever executed.
"""

import json
import pickle
import stat
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from hhlib.common import Told

MOST_TEXT = 32 << 20  #: bytes of a .json or .csv file; those of 10,000 epochs or classes take less than 2 MB
MOST_HEAD = 10_000  #: bytes of the first line of a .csv file, which names its columns
MOST_UNPACKED = 4 << 30  #: bytes of all arrays of an .npz file: labels and codes of ten million images take less


class Damaged(Told, ValueError):
    """A file that is not what it should be."""


class Unsaid(Damaged, LookupError):
    """A name that a file does not have; a template may ask whether it is there."""


class Said(dict):
    """What a file says, by name; asked for what it does not say, it names the file."""

    def __init__(self, content: dict, path: Path):
        super().__init__(content)
        self.path = path

    def __missing__(self, name: str):
        raise Unsaid(f"{self.path} does not say {name!r}.")


@contextmanager
def reading(path: Path, what: str, most: int | None = None) -> Iterator[None]:
    """Turn whatever a damaged file makes a reader raise into one sentence. OSError, such as of a missing file, stays.

    what: the file is none if this fails, such as "a table"; most: bytes that it may have.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe would wait for ever, a device never end
            raise ValueError("it is no file")
        if most is not None and about.st_size > most:
            raise ValueError(f"it has {about.st_size:,} bytes, but at most {most:,} are allowed")
        yield
    except Damaged:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise Damaged(f"{path} is not {what}, or is damaged or cut short ({reason}).") from error


def read_json(path: Path, what: str) -> Said:
    """A file of one JSON object."""
    with reading(path, what, MOST_TEXT):
        content: Said = json.loads(path.read_text(encoding="utf-8"), object_hook=partial(Said, path=path))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, but it must be names and values in braces")
        return content


def read_table(path: Path, what: str, numbers: Iterable[str]) -> pd.DataFrame:
    """A .csv file; `numbers` are columns that it must have, in which there must be numbers."""
    with reading(path, what, MOST_TEXT):
        with path.open("rb") as file:
            if len(file.readline(MOST_HEAD + 1)) > MOST_HEAD:  # each column takes memory
                raise ValueError(f"its first line is longer than {MOST_HEAD:,} bytes")
        table = pd.read_csv(path)
        for name in numbers:
            if name not in table or (len(table) and table[name].dtype.kind not in "iuf"):
                raise ValueError(f"it has no column {name!r} of numbers")
        return table


def read_array(path: Path) -> np.ndarray:
    """A .npy file, memory-mapped; its shape is checked against the file's size."""
    with reading(path, "an array"):
        return np.lib.format.open_memmap(path, mode="r")


def read_arrays(path: Path, what: str) -> Said:
    """All arrays of an .npz file, in memory."""
    with reading(path, what):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if (size := sum(member.file_size for member in members)) > MOST_UNPACKED:
                raise ValueError(f"it unpacks to {size:,} bytes, but at most {MOST_UNPACKED:,} are allowed")
            for member in members:
                with archive.open(member) as file:
                    _check_shape(file, member)
        with np.load(path, allow_pickle=False) as stored:
            return Said(dict(stored), path)


def _check_shape(file, member: zipfile.ZipInfo) -> None:
    """Raise ValueError unless an array is as large as its header says: NumPy would take the memory first."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = header(file)
    if kind.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are never loaded")
    wanted = kind.itemsize * int(np.prod(shape, dtype=object))
    if min(shape, default=0) < 0 or wanted != member.file_size - file.tell():
        raise ValueError(f"{member.filename} does not hold the {shape} numbers that it says")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, by name."""
    with reading(path, "a .safetensors file"):
        return load_file(path)


def read_state(path: Path) -> dict:
    """What `torch.save` wrote: tensors, numbers, text, lists and dicts only."""
    with reading(path, "a training state"):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type for member in archive.infolist()):  # PyTorch never compresses
                raise ValueError("it is compressed, which a training state never is")
            if broken := archive.testzip():
                raise ValueError(f"its part {broken} is damaged")
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except pickle.UnpicklingError as error:  # PyTorch's text says how to run the file's code
            raise ValueError("it holds more than tensors and plain values, which is never loaded") from error
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}, but it must be a dict")
        return state
