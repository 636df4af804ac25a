"""Pictures on disk that look like a tensor in memory: opened, cut to a square and scaled when they are asked for."""

import hashlib
import os
import posixpath
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import get_worker_info

from hhlib.common import check_whole


def digest(raw: bytes) -> bytes:
    """16 bytes that are equal where the content is."""
    return hashlib.blake2b(raw, digest_size=16).digest()


class ImageFiles:
    """n image files, indexed like a (n, 3, S, S) uint8 tensor: ``files[3]`` is (3, S, S), ``files[rows]`` (B, 3, S, S).

    Nothing is opened before it is asked for, and nothing is kept. The largest square in the middle of a picture is
    scaled to S x S; grey pictures get three equal channels. Several are decoded at once, in threads.

    Args:
        root: folder at which the paths start.
        paths: n relative paths.
        size: side S in pixels, at least 1.
        where: row -> where the path came from ("train.txt line 12"), for messages.
    """

    def __init__(self, root: str | Path, paths: Sequence[str], size: int, where: Callable[[int], str] | None = None):
        self.root, self.paths, self.size = Path(root), paths, check_whole("size", size, 1)
        self.where = where or (lambda row: f"image {row}")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, 3, S, S)."""
        return len(self), 3, self.size, self.size

    def __getitem__(self, index: int | slice | Tensor | np.ndarray | Sequence[int]) -> Tensor:
        rows = np.arange(len(self))[index]
        if rows.ndim == 0:
            return self._open(int(rows))
        if not len(rows):
            return torch.empty(0, *self.shape[1:], dtype=torch.uint8)
        # A loader's worker is one of several processes: threads of its own would only be in the way.
        several = map if get_worker_info() else _threads(os.getpid()).map
        return torch.stack(list(several(self._open, rows.tolist())))

    def digest(self, row: int) -> bytes:
        """16 bytes that are equal where the files' bytes are equal."""
        return digest(self.file(row).read_bytes())

    def file(self, row: int) -> Path:
        """Where a picture lies. Raises FileNotFoundError, naming the list's line, if it does not."""
        path = self.root / self.paths[row]
        if not path.is_file():
            raise FileNotFoundError(f"{self.where(row)}: there is no file {path}.")
        return path

    def _open(self, row: int) -> Tensor:
        path = self.file(row)
        try:
            with Image.open(path) as image:
                image.draft("RGB", (self.size, self.size))  # a JPEG decoder can scale down by 2, 4 or 8 for free
                square = ImageOps.fit(image.convert("RGB"), (self.size, self.size), Image.Resampling.BICUBIC)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{self.where(row)}: {path} is no picture, or is damaged or cut short ({error})."
            ) from error
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()  # (3, S, S)


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """One pool a process (a forked one inherits the object, but not its threads): decoding releases Python's lock."""
    return ThreadPoolExecutor(thread_name_prefix="open-image")


def leave_out_missing(root: Path, paths: list[str], what: str) -> np.ndarray:
    """Which of the listed pictures are there: row numbers. Says so if some are not.

    Args:
        what: their name in messages ("the pictures of MS-COCO 2014").

    Raises:
        FileNotFoundError: if none is there.
    """
    folders = {posixpath.dirname(path) for path in paths}
    there = {f"{folder}/{name}" for folder in folders if (root / folder).is_dir() for name in os.listdir(root / folder)}
    rows = np.array([row for row, path in enumerate(paths) if path in there], dtype=np.int64)
    first = next((path for path in paths if path not in there), None)
    if not len(rows):
        raise FileNotFoundError(
            f"{root} holds none of {what} ({len(paths):,} are listed, the first is {first}); "
            "data/README.md says where they come from."
        )
    if first:
        warnings.warn(
            f"{root} lacks {len(paths) - len(rows):,} of {what} ({len(paths):,} are listed, the first missing is "
            f"{first}); they are left out, so that this is not the published split.",
            stacklevel=3,
        )
    return rows
