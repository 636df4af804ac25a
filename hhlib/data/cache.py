"""Rows computed once, into one memory-mapped file: decoded pictures here, a backbone's vectors in `hhlib.features`."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from hhlib.common import atomic, resolve
from hhlib.data.files import DECODER, ImageFiles, fact_of
from hhlib.data.splits import Pool
from hhlib.locking import held
from hhlib.reading import read_array, read_json

BLOCK = 512  # rows computed between two marks of progress
DONE = 1 << 32  # beside a row's CRC-32: this one is done
NAMES = ("cache.json", "images.npy", "marks.npy")


def cached(pool: Pool, folder: str | Path, *, check: bool = False) -> Pool:
    """The same pool with all its pictures decoded, as one memory-mapped file of (n, 3, S, S) uint8 in `folder`.

    See `KeptRows`; it takes 3 S^2 bytes per picture (150 KB at 224). Raises TypeError if the pool's images are not
    `ImageFiles`, but in memory already; ValueError if the folder holds a cache of other pictures, or one that is
    damaged; OSError if the disk has too little space.
    """
    if not isinstance(pool.images, ImageFiles):
        raise TypeError("the images of this pool are in memory already: there is nothing to cache.")
    files = pool.images
    paths = hashlib.sha256("\n".join(files.paths).encode()).hexdigest()
    key = {"paths": paths, "shape": list(files.shape), "decoder": DECODER}
    rows = KeptRows(resolve(folder), key, files.shape, np.uint8, facts_of(files), "decoding")
    return replace(pool, images=rows.get(lambda rows: files[rows].numpy(), check=check))


def facts_of(images: ImageFiles | Tensor) -> np.ndarray:
    """A number per picture, (n,) uint64, that changes with it: with a file's size or date, or with the pixels."""
    if isinstance(images, ImageFiles):
        rows = range(len(images))
        return np.array([fact_of(images.file(row)) for row in rows], dtype="<u8")  # raises for a missing picture
    told = (hashlib.blake2b(picture.numpy().tobytes(), digest_size=8).digest() for picture in images)
    return np.frombuffer(b"".join(told), dtype="<u8")


@dataclass(frozen=True)
class KeptRows:
    """An array on disk, one row per picture, each computed once.

    Resumes where it was stopped; rows whose picture has changed since are computed again; a second process waits for
    the first. The space is reserved first. A finished array may be on read-only storage.
    """

    folder: Path
    key: dict  #: what the rows belong to; another key in the folder is refused
    shape: tuple[int, ...]  #: (n, ...)
    kind: type  #: of the numbers
    facts: np.ndarray  #: (n,) uint64, see `facts_of`
    doing: str  #: beside the progress bar

    def get(self, compute: Callable[[np.ndarray], np.ndarray], *, check: bool = False) -> Tensor:
        """All rows, memory-mapped; ``compute(rows)`` makes those that are missing. `check` compares with each CRC-32.

        Raises:
            ValueError: if the folder belongs to something else, or a row is damaged.
            OSError: if the disk has too little space.
        """
        todo = self._todo()
        if todo is None or len(todo):
            with held(self.folder, self.doing, wait=-1):
                self._fill(compute)
        images = np.load(self.folder / "images.npy", mmap_mode="c")  # "c": writing changes memory, not the file
        for row, (_, mark) in enumerate(np.load(self.folder / "marks.npy") if check else ()):
            if mark != DONE | zlib.crc32(images[row]):
                raise ValueError(f"{self.folder}: picture {row} is not what was written; delete the folder.")
        return torch.from_numpy(images)

    def _todo(self) -> np.ndarray | None:
        """Rows to compute; None if one of the files is missing or cut short. Refuses rows of something else."""
        key, kinds = self.key, None
        with suppress(ValueError, OSError):
            key = read_json(self.folder / "cache.json", "what a cache holds")
            images, marks = (read_array(self.folder / name) for name in NAMES[1:])  # for reading: "r+" appends zeros
            kinds = [(array.shape, array.dtype) for array in (images, marks)]
        if key != self.key:
            raise ValueError(
                f"{self.folder} is a cache of other pictures, or at another size; delete it or name another."
            )
        if kinds != [(self.shape, np.dtype(self.kind)), ((len(self.facts), 2), np.dtype(np.uint64))]:
            return None
        return np.flatnonzero((marks[:, 0] != self.facts) | (marks[:, 1] == 0))

    def _fill(self, compute: Callable[[np.ndarray], np.ndarray]) -> None:
        """Compute what is missing. Marks: (n, 2) uint64, what the picture was and, once done, the row's CRC-32."""
        todo = self._todo()  # again, because another process may have been here
        if todo is None:
            # marks without their rows, unknown rows, drafts of a process that was killed
            for file in (*(self.folder / name for name in NAMES), *self.folder.glob(".*.npy")):
                file.unlink(missing_ok=True)
            _make(self.folder / "images.npy", self.shape, self.kind)
            _make(self.folder / "marks.npy", (len(self.facts), 2), np.uint64)
            with atomic(self.folder / "cache.json") as draft:
                draft.write_text(json.dumps(self.key), encoding="utf-8")
            todo = np.arange(len(self.facts))
        images, marks = (np.load(self.folder / name, mmap_mode="r+") for name in NAMES[1:])
        with tqdm(total=len(todo), desc=self.doing, unit="picture", disable=not len(todo)) as bar:
            for start in range(0, len(todo), BLOCK):
                rows = todo[start : start + BLOCK]
                values = compute(rows)
                marks[rows] = 0  # until they are there: half of a changed picture must not pass for the old one
                marks.flush()
                images[rows] = values
                images.flush()  # before the marks, so that no mark stands for a row that is not there
                marks[rows] = [(self.facts[row], DONE | zlib.crc32(images[row])) for row in rows]
                marks.flush()
                bar.update(len(rows))


def _make(file: Path, shape: tuple[int, ...], kind: type) -> None:
    """An array of zeros on disk, its space reserved: writing to a mapped file on a full disk kills the process."""
    with atomic(file) as draft:
        array = np.lib.format.open_memmap(draft, mode="w+", dtype=kind, shape=shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with draft.open("r+b") as raw:
                os.posix_fallocate(raw.fileno(), 0, array.offset + array.nbytes)
