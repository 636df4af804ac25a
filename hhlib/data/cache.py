"""Pictures decoded once, into one memory-mapped file: reading them again costs only the disk access."""

import hashlib
import json
import os
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from hhlib.common import atomic, resolve
from hhlib.data.files import DECODER, ImageFiles
from hhlib.data.splits import Pool

BLOCK = 512  # pictures decoded between two marks of progress
DONE = 1 << 32  # beside a picture's CRC-32: this one is done
NAMES = ("cache.json", "images.npy", "marks.npy")


def cached(pool: Pool, folder: str | Path, *, check: bool = False) -> Pool:
    """The same pool with all its pictures decoded, as one memory-mapped file of (n, 3, S, S) uint8 in `folder`.

    Resumes where it was stopped; pictures that have changed since (size or date) are decoded again; a second process
    waits for the first. It takes 3 S^2 bytes per picture (150 KB at 224), which are reserved first. A finished cache
    may be on read-only storage. `check` compares each picture that was decoded earlier with its CRC-32.
    Raises TypeError if the pool's images are not `ImageFiles`, but in memory already; ValueError if the folder holds a
    cache of other pictures, or one that is damaged; OSError if the disk has too little space.
    """
    if not isinstance(pool.images, ImageFiles):
        raise TypeError("the images of this pool are in memory already: there is nothing to cache.")
    folder, files = resolve(folder), pool.images
    stats = [files.file(row).stat() for row in range(len(files))]  # raises for a missing picture
    facts = [hashlib.blake2b(f"{s.st_size} {s.st_mtime_ns}".encode(), digest_size=8).digest() for s in stats]
    facts = np.frombuffer(b"".join(facts), dtype="<u8")  # (n,) uint64 that changes with a picture's size or date
    todo = _todo(folder, files, facts)
    if todo is None or len(todo):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            _fill(folder, files, facts)
    images = np.load(folder / "images.npy", mmap_mode="c")  # "c": writing to these changes memory, not the file
    for row, (_, mark) in enumerate(np.load(folder / "marks.npy") if check else ()):
        if mark != DONE | zlib.crc32(images[row]):
            raise ValueError(f"{folder}: picture {row} is not what was written; delete the folder.")
    return replace(pool, images=torch.from_numpy(images))


def _key(files: ImageFiles) -> dict:
    """What a cache belongs to: these paths in this order, at this size, by this decoder."""
    paths = hashlib.sha256("\n".join(files.paths).encode()).hexdigest()
    return {"paths": paths, "shape": list(files.shape), "decoder": DECODER}


def _todo(folder: Path, files: ImageFiles, facts: np.ndarray) -> np.ndarray | None:
    """Rows of the pictures to decode; None if one of the files is missing or cut short. Refuses other pictures."""
    key, marks = _key(files), None
    with suppress(ValueError, OSError, EOFError):
        key = json.loads((folder / "cache.json").read_text())
        images, marks = (np.load(folder / name, mmap_mode="r") for name in NAMES[1:])  # "r+" would append zeros
    if key != _key(files):
        raise ValueError(f"{folder} is a cache of other pictures, or at another size; delete it or name another.")
    if marks is None or images.shape != files.shape or marks.shape != (len(files), 2):
        return None
    return np.flatnonzero((marks[:, 0] != facts) | (marks[:, 1] == 0))


def _fill(folder: Path, files: ImageFiles, facts: np.ndarray) -> None:
    """Decode what is not decoded yet. Marks: (n, 2) uint64, what the picture was and, once done, its CRC-32."""
    todo = _todo(folder, files, facts)  # again, because another process may have been here
    if todo is None:
        for name in NAMES:  # marks without their pictures, or unknown pictures
            (folder / name).unlink(missing_ok=True)
        _make(folder / "images.npy", files.shape, np.uint8)
        _make(folder / "marks.npy", (len(files), 2), np.uint64)
        with atomic(folder / "cache.json") as draft:
            draft.write_text(json.dumps(_key(files)))
        todo = np.arange(len(files))
    images, marks = (np.load(folder / name, mmap_mode="r+") for name in NAMES[1:])
    for start in tqdm(range(0, len(todo), BLOCK), desc="decoding", unit=f"x{BLOCK}", disable=not len(todo)):
        rows = todo[start : start + BLOCK]
        images[rows] = files[rows].numpy()
        images.flush()  # before the marks, so that no mark stands for a picture that is not there
        marks[rows] = [(facts[row], DONE | zlib.crc32(images[row])) for row in rows]
        marks.flush()


def _make(file: Path, shape: tuple[int, ...], kind: type) -> None:
    """An array of zeros on disk, its space reserved: writing to a mapped file on a full disk kills the process."""
    with atomic(file) as draft:
        array = np.lib.format.open_memmap(draft, mode="w+", dtype=kind, shape=shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with draft.open("r+b") as raw:
                os.posix_fallocate(raw.fileno(), 0, array.offset + array.nbytes)
