"""Pictures on disk that behave like a tensor in memory: opened, cut to a square and scaled when they are used."""

import os
import posixpath
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, features
from torch import Tensor
from torch.utils.data import get_worker_info

from hhlib.common import check_whole, resolve

#: What Pillow may open, whatever a file is called: no PostScript, which would start another program.
FORMATS = ["JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"] + ["AVIF"] * features.check("avif")
#: Extensions that count as pictures.
EXTENSIONS = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
EXTENSIONS |= {".ppm", ".pgm", ".pbm", ".pnm"} | ({".avif"} if "AVIF" in FORMATS else set())
#: Extensions of pictures that cannot be opened, and what they are.
OTHER_FORMATS = dict.fromkeys((".heic", ".heif", ".hif"), "HEIC") | dict.fromkeys((".psd", ".psb"), "Photoshop")
OTHER_FORMATS |= dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".raw"), "RAW")
OTHER_FORMATS |= {".jxl": "JPEG XL", ".jp2": "JPEG 2000", ".svg": "SVG", ".xcf": "GIMP", ".dcm": "DICOM"}
OTHER_FORMATS |= {} if "AVIF" in FORMATS else {".avif": "AVIF"}

DECODER = 2  #: changes when pictures are decoded in another way, so that older caches are not reused


def clean_path(text: str, place: str) -> str:
    """A path as it is compared and joined, "./a//b.jpg" -> "a/b.jpg"; `place` is where it came from, for messages.

    Raises ValueError for a path that leaves the root folder: absolute, with a drive, or beginning with "..".
    """
    path = posixpath.normpath(text.replace("\\", "/"))
    if path.startswith(("/", "../")) or path in ("..", ".") or re.match(r"[A-Za-z]:/", path):
        raise ValueError(f"{place}: the path {text!r} leaves the root folder.")
    return path


class ImageFiles:
    """n image files, indexed like a (n, 3, S, S) uint8 tensor: ``files[3]`` is (3, S, S), ``files[rows]`` (B, 3, S, S).

    Opened when used, several at once in threads, and not kept. The largest central square of a picture is scaled to
    S x S, upright as its EXIF orientation says; grey pictures get three equal channels, 16 bits per channel become 8.

    `paths` are n paths relative to `root`; `size` is S in pixels, at least 1. `where` says where the path of a row came
    from, for messages ("train.txt line 12"); it must be picklable.
    """

    def __init__(self, root: str | Path, paths: Sequence[str], size: int, where: Callable[[int], str] | None = None):
        self.root, self.paths, self.size = resolve(root), paths, check_whole("size", size, 1)
        self.where = where or paths.__getitem__

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, 3, S, S)."""
        return len(self), 3, self.size, self.size

    def __getitem__(self, index: int | slice | Tensor | np.ndarray | Sequence[int]) -> Tensor:
        # As an array: NumPy takes a tensor of one number for that number.
        rows = np.arange(len(self))[index.numpy() if isinstance(index, Tensor) else index]
        if rows.ndim == 0:
            return self._open(int(rows))
        if not len(rows):
            return torch.empty(0, *self.shape[1:], dtype=torch.uint8)
        # A loader's worker is one of several processes: threads of its own would only be in the way.
        several = map if get_worker_info() else _threads(os.getpid()).map
        return torch.stack(list(several(self._open, rows.tolist())))

    def file(self, row: int) -> Path:
        """The file of a picture. Raises FileNotFoundError, with the list's line, if it is missing."""
        path = self.root / self.paths[row]
        if not path.is_file():
            raise FileNotFoundError(f"{self.where(row)}: there is no file {path}.")
        return path

    def _open(self, row: int) -> Tensor:
        path = self.file(row)
        try:
            with Image.open(path) as image:
                return square_picture(image, self.size)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{self.where(row)}: {path} is not a picture, or is damaged ({error}).") from error


def square_picture(image: Image.Image, size: int) -> Tensor:
    """An opened picture, upright, in colour, cut to its central square and scaled: (3, size, size) uint8.

    Raises OSError, SyntaxError or ValueError if it is damaged, cut short, or its pixels have 32 bits.
    """
    image.draft("RGB", (size, size))  # a JPEG decoder can scale down by 2, 4 or 8 for free
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # 16 bits; Pillow by itself would cut off whatever is above 255
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif upright.mode in ("I", "F"):
        raise ValueError(f"its pixels have 32 bits, of no agreed range (mode {upright.mode}); save it with 8 or 16")
    square = ImageOps.fit(upright.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """One pool per process (a forked one inherits the object, but not its threads): decoding releases Python's lock."""
    return ThreadPoolExecutor(thread_name_prefix="open-image")
