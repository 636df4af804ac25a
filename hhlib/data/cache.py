"""Pictures decoded once, into one file that is mapped into memory: reading them again costs nothing but the disk."""

import hashlib
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from hhlib.common import atomic
from hhlib.data.files import ImageFiles
from hhlib.data.splits import Pool

BLOCK = 512  # pictures decoded between two marks of progress
DONE = np.uint64(1 << 32)  # beside a picture's CRC-32: this one is done


def cached(pool: Pool, folder: str | Path, *, check: bool = False) -> Pool:
    """The same pool with all its pictures decoded, as one (n, 3, S, S) uint8 file mapped into memory.

    Stopped half-way, it goes on where it was. It takes 3 S^2 bytes a picture (150 KB at 224), which are reserved first.

    Args:
        pool: with pictures on disk (`ImageFiles`).
        folder: where the cache lies; created if need be.
        check: compare each picture that was decoded earlier with its CRC-32.

    Raises:
        TypeError: if the pool's images are in memory already.
        ValueError: if the folder holds a cache of other pictures, or one that is damaged.
        OSError: if the disk has too little room; nothing is then left behind.
    """
    if not isinstance(pool.images, ImageFiles):
        raise TypeError("the images of this pool are in memory already: there is nothing to cache.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(folder, pool.images)
    n, *one = pool.images.shape
    images = _map(folder / "images.npy", (n, *one), np.uint8)
    marks = _map(folder / "marks.npy", (n,), np.uint64)  # 0: not yet
    with atomic(folder / "cache.json") as draft:
        draft.write_text(json.dumps(key))
    if check:
        _check_pictures(folder, images, marks)
    todo = np.flatnonzero(marks == 0)
    for start in tqdm(range(0, len(todo), BLOCK), desc="decoding", unit=f"x{BLOCK}", disable=not len(todo)):
        rows = todo[start : start + BLOCK]
        images[rows] = pool.images[rows].numpy()
        images.flush()  # before the marks, so that a mark never stands for a picture that is not there
        marks[rows] = [DONE | np.uint64(_crc(images[row])) for row in rows]
        marks.flush()
    # "c": whoever writes to these images writes to memory, not to the file.
    return replace(pool, images=torch.from_numpy(np.load(folder / "images.npy", mmap_mode="c")))


def _key(folder: Path, files: ImageFiles) -> dict:
    """What the cache belongs to: these paths with these sizes and dates, at this size. Refuses that of others."""
    digest = hashlib.sha256(f"{files.shape} {files.root.resolve()}".encode())
    for row, path in enumerate(files.paths):
        facts = files.file(row).stat()
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    key, file = {"pictures": digest.hexdigest()}, folder / "cache.json"
    if file.is_file() and json.loads(file.read_text()) != key:
        raise ValueError(f"{folder} is a cache of other pictures, or they changed since; delete it or name another.")
    return key


def _map(file: Path, shape: tuple[int, ...], kind: type) -> np.memmap:
    """Open an array on disk for reading and writing; made of zeros, with its room reserved, if it is not there."""
    if not file.is_file():
        with atomic(file) as draft:
            array = np.lib.format.open_memmap(draft, mode="w+", dtype=kind, shape=shape)
            with draft.open("r+b") as raw:
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    # Writing to a mapped file on a full disk kills the process: find out now.
                    os.posix_fallocate(raw.fileno(), 0, array.offset + array.nbytes)
    array = np.load(file, mmap_mode="r+")
    if array.shape != shape or array.dtype != kind:
        raise ValueError(f"{file} holds {array.shape} {array.dtype}, but it must hold {shape}; delete it.")
    return array


def _check_pictures(folder: Path, images: np.memmap, marks: np.memmap) -> None:
    for row in np.flatnonzero(marks):
        if marks[row] != DONE | np.uint64(_crc(images[row])):
            raise ValueError(f"{folder}: picture {row} is not what was written; delete the folder.")


def _crc(image: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(image))
