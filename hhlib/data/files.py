"""Pictures on disk that behave like a tensor in memory: opened, cut to a square and scaled when they are used."""

import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor
from torch.utils.data import get_worker_info

from hhlib.common import check_whole, resolve
from hhlib.data.reading import brief

#: What Pillow may open, whatever a file is called: no PostScript, which would start another program. JPEG includes MPO.
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"] + ["AVIF"] * bool(features.check("avif"))
#: Extensions that count as pictures.
EXTENSIONS = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
EXTENSIONS |= {".ppm", ".pgm", ".pbm", ".pnm"} | ({".avif"} if "AVIF" in FORMATS else set())
#: Extensions of pictures that cannot be opened, and what they are.
OTHER_FORMATS = dict.fromkeys((".heic", ".heif", ".hif"), "HEIC") | dict.fromkeys((".psd", ".psb"), "Photoshop")
OTHER_FORMATS |= dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".raw"), "RAW")
OTHER_FORMATS |= {".jxl": "JPEG XL", ".jp2": "JPEG 2000", ".svg": "SVG", ".xcf": "GIMP", ".dcm": "DICOM"}
OTHER_FORMATS |= {} if "AVIF" in FORMATS else {".avif": "AVIF"}

#: Pixels of the largest picture that is read: twice Pillow's own limit, from where on it refuses too. Up to here, it
#: only warns; a photograph of 100 megapixels is nothing to warn about.
MOST_PIXELS = 178_956_970
Image.MAX_IMAGE_PIXELS = MOST_PIXELS
TOO_LARGE = f"larger than the {MOST_PIXELS / 1e6:.0f} megapixels that are allowed"
MOST_BYTES = 1_500_000_000  #: of a picture's file: as many pixels of four channels with 16 bits, not compressed
MOST_SCANS = 100  #: passes of a progressive JPEG, which has about ten; each takes time, but hardly any bytes
#: EXIF orientation -> what turns the picture upright.
_TO = Image.Transpose
TURNS = {2: _TO.FLIP_LEFT_RIGHT, 3: _TO.ROTATE_180, 4: _TO.FLIP_TOP_BOTTOM, 5: _TO.TRANSPOSE}
TURNS |= {6: _TO.ROTATE_270, 7: _TO.TRANSVERSE, 8: _TO.ROTATE_90}

MOST_PATH = 4096  #: characters of a path, the limit of Linux
DECODER = 3  #: changes when pictures are decoded in another way, so that older caches are not reused


def clean_path(text: str, place: str) -> str:
    """A path as it is compared and joined, "./a//b.jpg" -> "a/b.jpg"; `place` is where it came from, for messages.

    Raises ValueError for a path that leaves the root folder: absolute, with a drive, or beginning with ".."; and for
    one that no file can have.
    """
    try:
        fits = "\0" not in text and len(text.encode()) <= MOST_PATH
    except UnicodeEncodeError:  # half a letter, as JSON and file systems can hold it
        fits = False
    if not fits:
        raise ValueError(f"{place}: no file can be called '{brief(text)}': too long, a zero byte or no text in UTF-8.")
    path = posixpath.normpath(text.replace("\\", "/"))
    if path.startswith(("/", "../")) or path in ("..", ".") or re.match(r"[A-Za-z]:/", path):
        raise ValueError(f"{place}: the path '{brief(text)}' leaves the root folder.")
    return path


def fact_of(file: Path, *about: object) -> int:
    """64 bits that change with a file's size or date, and with `about`. OSError if the file cannot be looked at."""
    seen = file.stat()
    text = " ".join(map(str, (seen.st_size, seen.st_mtime_ns, *about)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class ImageFiles:
    """n image files, indexed like a (n, 3, S, S) uint8 tensor: ``files[3]`` is (3, S, S), ``files[rows]`` (B, 3, S, S).

    Opened when used, several at once in threads, and not kept. The largest central square of a picture is scaled to
    S x S, upright as its EXIF orientation says; grey pictures get three equal channels, 16 bits per channel become 8,
    and what is transparent becomes white.

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
        several = map if get_worker_info() else threads(os.getpid()).map
        return torch.stack(list(several(self._open, rows.tolist())))

    def file(self, row: int) -> Path:
        """The file of a picture. Raises FileNotFoundError, with the list's line, if it is missing."""
        path = self.root / self.paths[row]
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{self._told(row)}there is no file {path}.")
        return path

    def _open(self, row: int) -> Tensor:
        path = self.file(row)
        try:
            return read_picture(path, self.size)
        except ValueError as error:
            raise ValueError(f"{self._told(row)}{path} is {error}.") from error

    def _told(self, row: int) -> str:
        """Where a path came from, for messages; empty if that is the path itself."""
        where = self.where(row)
        return "" if where == str(self.root / self.paths[row]) else f"{where}: "


class Unusable(ValueError):
    """Why a picture cannot be used, in words that follow "is"; what is between brackets is about this one alone."""

    @property
    def reason(self) -> str:
        """The same for many at once, as `Scan.trouble` has it."""
        return f"pictures that are {str(self).split(' (')[0]}"


def read_picture(file: str | Path | BinaryIO, size: int) -> Tensor:
    """Open a picture of one of the `FORMATS` -> `square_picture`, (3, size, size) uint8.

    Raises Unusable, whatever is wrong with it.
    """
    try:
        if isinstance(file, (str, Path)):
            _check_file(file)
        with Image.open(file, formats=FORMATS) as image:
            _check_scans(image)
            return square_picture(image, size)
    except UnidentifiedImageError:
        raise Unusable(f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, or damaged at the start") from None
    except Image.DecompressionBombError:
        raise Unusable(f"{TOO_LARGE} (it has more than {2 * MOST_PIXELS / 1e6:.0f}: scale it down)") from None
    except (MemoryError, Unusable):
        raise
    except Exception as error:  # whatever a damaged file makes a decoder raise
        reason = "damaged or cut short" if getattr(error, "errno", None) is None else "not readable"
        raise Unusable(f"{reason} ({brief(error)})") from error


def _check_file(file: str | Path) -> None:
    """Raise Unusable for what is no file, or too large a one."""
    if os.path.exists(file) and not os.path.isfile(file):
        raise Unusable("a folder, a pipe or a device (it must be a file)")
    if (size := os.path.getsize(file)) > MOST_BYTES:
        raise Unusable(f"larger than the {MOST_BYTES / 1e9:g} GB that are allowed (it has {size / 1e9:.1f})")


def _check_scans(image: Image.Image) -> None:
    """Raise Unusable if a progressive JPEG would take far longer to decode than its size lets expect."""
    if image.info.get("progressive"):
        file = image.fp  # pyrefly: ignore[missing-attribute], an opened file's
        place = file.tell()
        file.seek(0)
        if (scans := file.read().count(b"\xff\xda")) > MOST_SCANS:
            raise Unusable(f"made of more than {MOST_SCANS} passes (it has {scans}: save it anew)")
        file.seek(place)


def square_picture(image: Image.Image, size: int) -> Tensor:
    """An opened picture, upright, in colour, on white, cut to its central square and scaled: (3, size, size) uint8.

    Raises Unusable if it has more than `MOST_PIXELS`, or its pixels are numbers of no agreed range; and whatever Pillow
    raises where it is damaged or cut short.
    """
    if image.width * image.height > MOST_PIXELS:
        raise Unusable(f"{TOO_LARGE} (it has {image.width * image.height / 1e6:.0f}: scale it down)")
    image.draft("RGB", (size, size))  # a JPEG decoder can scale down by 2, 4 or 8 for free
    square = ImageOps.fit(_in_colour(image), (size, size), Image.Resampling.BICUBIC)
    if square.mode == "RGBA":
        square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square).convert("RGB")
    turn = _turn(image)
    square = square if turn is None else square.transpose(turn)  # last, where it is small: all sides are treated alike
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _in_colour(image: Image.Image) -> Image.Image:
    """RGB or, where a picture has transparency, RGBA; 16 bits become 8."""
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG"))
    if sixteen:  # Pillow by itself would cut off whatever is above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        tags = getattr(image, "tag_v2", {})
        bits = (tags.get(258) or (32,))[0]  # BitsPerSample of a TIFF
        kind = "floating-point" if image.mode == "F" else "signed" if tags.get(339) == (2,) else "whole"
        what = f"made of {kind} numbers of {bits} bits, which do not say what is black and what is white"
        raise Unusable(f"{what} (save it with 8 bits, or with 16 without a sign)")
    wanted = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns a loaded picture upright, by its EXIF orientation; None if that cannot be read."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # cameras and editors write EXIF that is broken in many ways; the pixels are fine
        return None


@cache
def threads(process: int) -> ThreadPoolExecutor:
    """One pool per process (a forked one inherits the object, but not its threads): decoding releases Python's lock."""
    return ThreadPoolExecutor(thread_name_prefix="open-image")
