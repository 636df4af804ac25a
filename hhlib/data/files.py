"""Pictures on disk that look like a tensor in memory: opened, cut to a square and scaled when they are asked for."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

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
        return torch.stack(list(_threads().map(self._open, rows.tolist())))

    def digest(self, row: int) -> bytes:
        """16 bytes that are equal where the files' bytes are equal."""
        return digest(self._file(row).read_bytes())

    def _file(self, row: int) -> Path:
        path = self.root / self.paths[row]
        if not path.is_file():
            raise FileNotFoundError(f"{self.where(row)}: there is no file {path}.")
        return path

    def _open(self, row: int) -> Tensor:
        path = self._file(row)
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
def _threads() -> ThreadPoolExecutor:
    """One pool for all: decoding releases Python's lock."""
    return ThreadPoolExecutor(thread_name_prefix="open-image")
