"""Where the images come from: scikit-learn's digits, shapes drawn from a seed, CIFAR-10's official files."""

import hashlib
import io
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hhlib.data.splits import Pool

CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"
#: file -> MD5 of the official archive, in the order in which the images are pooled
CIFAR10_FILES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


# --- digits ------------------------------------------------------------------------------------------------------


def digits() -> Pool:
    """The 1,797 handwritten digits that come with scikit-learn (UCI Optical Recognition of Handwritten Digits).

    8 x 8 pixels of 17 grey levels, enlarged to 32 x 32 and repeated to three channels. A mirrored 2 is no 2: no flip.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    grey = torch.from_numpy(raw.images).float()[:, None] * (255 / 16)  # (n, 1, 8, 8)
    grey = F.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False)
    images = grey.round().clamp(0, 255).to(torch.uint8).repeat(1, 3, 1, 1)  # (n, 3, 32, 32)
    return Pool(images, one_hot(raw.target, 10), [str(digit) for digit in range(10)], flip=False)


def one_hot(numbers: np.ndarray, num_classes: int) -> Tensor:
    """Class numbers (n,) -> one-hot labels (n, C) uint8."""
    return torch.from_numpy(np.eye(num_classes, dtype=np.uint8)[np.asarray(numbers)])


# --- shapes ------------------------------------------------------------------------------------------------------

SHAPES = ["circle", "square", "triangle", "cross"]
COLOURS = {"red": (225, 55, 45), "green": (45, 165, 75), "blue": (55, 95, 220)}
SHAPES_COUNT, SHAPES_SIZE, _SUPER = 3_500, 32, 2  # images, side in pixels, samples a pixel along each side


def shapes(count: int = SHAPES_COUNT, seed: int = 0) -> Pool:
    """Small multi-label pictures drawn from a seed: one to three coloured shapes on a noisy grey ground.

    Twelve concepts, each a colour and a shape ("red circle"); an image carries the label of every concept in it. The
    shapes lie in different quarters of the image, so none hides another.
    """
    rng = np.random.default_rng([seed, 2])
    canvas = np.repeat(rng.uniform(60, 200, (count, 1, 1, 1)), 3, axis=3)  # (n, 1, 1, 3)
    side = SHAPES_SIZE * _SUPER
    canvas = np.broadcast_to(canvas, (count, side, side, 3)).astype(np.float32)
    labels = np.zeros((count, len(SHAPES) * len(COLOURS)), dtype=np.uint8)
    how_many = rng.integers(1, 4, count)
    quarters = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    for slot in range(3):
        rows = np.flatnonzero(how_many > slot)
        shape, colour = rng.integers(len(SHAPES), size=len(rows)), rng.integers(len(COLOURS), size=len(rows))
        mask = _mask(shape, quarters[rows, slot], rng)  # (m, side, side)
        paint = np.array(list(COLOURS.values()))[colour] + rng.normal(0, 12, (len(rows), 3))
        canvas[rows] = np.where(mask[..., None], paint[:, None, None, :], canvas[rows])
        labels[rows, colour * len(SHAPES) + shape] = 1
    pixels = canvas.reshape(count, SHAPES_SIZE, _SUPER, SHAPES_SIZE, _SUPER, 3).mean(axis=(2, 4))
    pixels = np.clip(pixels + rng.normal(0, 10, pixels.shape), 0, 255).round().astype(np.uint8)
    classes = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    return Pool(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels), classes, flip=True)


def _mask(shape: np.ndarray, quarter: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which samples a shape covers: shape numbers (m,), quarters 0..3 (m,) -> bool (m, side, side)."""
    m, side = len(shape), SHAPES_SIZE * _SUPER
    radius = rng.uniform(0.14, 0.23, (m, 1, 1)).astype(np.float32)  # of the image's side
    centre = 0.25 + 0.5 * np.stack([quarter % 2, quarter // 2]) + rng.uniform(-0.03, 0.03, (2, m))
    angle = rng.uniform(-0.5, 0.5, (m, 1, 1)).astype(np.float32)
    grid = ((np.arange(side) + 0.5) / side).astype(np.float32)
    x = (grid[None, None, :] - centre[0][:, None, None].astype(np.float32)) / radius
    y = (grid[None, :, None] - centre[1][:, None, None].astype(np.float32)) / radius
    x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x  # (m, side, side)
    ax, ay = np.abs(x), np.abs(y)
    covers = [
        lambda i: x[i] ** 2 + y[i] ** 2 <= 1,
        lambda i: np.maximum(ax[i], ay[i]) <= 0.85,
        lambda i: (y[i] <= 0.6) & (1.8 * ax[i] - y[i] <= 1.0),
        lambda i: (np.minimum(ax[i], ay[i]) <= 0.3) & (np.maximum(ax[i], ay[i]) <= 1),
    ]
    mask = np.zeros((m, side, side), dtype=bool)
    for number, cover in enumerate(covers):
        mine = shape == number
        mask[mine] = cover(mine)
    return mask


# --- CIFAR-10 ----------------------------------------------------------------------------------------------------


#: All that a pickled NumPy array asks for, under NumPy's old and new module names
_ARRAY_PARTS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # how Python 3 writes bytes for Python 2
}


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR-10's pickles and nothing that could run code: arrays, numbers, strings and containers."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, but only NumPy arrays are read from it.")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def cifar10(root: Path, download: bool = False) -> Pool:
    """CIFAR-10 (Krizhevsky, 2009): 60,000 photographs of 32 x 32 pixels, the official training and test images pooled.

    Args:
        root: folder that holds `cifar-10-batches-py`, or that folder itself.
        download: fetch the official archive into `root` if the folder is not there.

    Raises:
        FileNotFoundError: if the folder or one of its six files is missing and `download` is off.
        ValueError: if a file is not what it should be.
    """
    folder = root if root.name == CIFAR10_FOLDER else root / CIFAR10_FOLDER
    if download and not folder.is_dir():
        download_cifar10(folder.parent)
    missing = [name for name in CIFAR10_FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}: unpack {CIFAR10_URL} there, or load with download=True."
        )
    files = [(folder / name).read_bytes() for name in CIFAR10_FILES]
    changed = [
        n for n, raw in zip(CIFAR10_FILES, files, strict=True) if hashlib.md5(raw).hexdigest() != CIFAR10_FILES[n]
    ]
    if changed:
        warnings.warn(f"{folder}: {', '.join(changed)} differ from the official CIFAR-10 (MD5).", stacklevel=2)
    batches = [_read_batch(folder / name, raw) for name, raw in zip(CIFAR10_FILES, files, strict=True)]
    images = torch.from_numpy(np.concatenate([images for images, _ in batches])).reshape(-1, 3, 32, 32)
    return Pool(images, one_hot(np.concatenate([numbers for _, numbers in batches]), 10), CIFAR10_CLASSES, flip=True)


def _read_batch(path: Path, raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """One pickled batch -> images (n, 3072) uint8, class numbers (n,)."""
    try:
        batch = _ArraysOnly(io.BytesIO(raw), encoding="latin1").load()
        images, numbers = np.asarray(batch["data"]), np.asarray(batch["labels"], dtype=np.int64)
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a CIFAR-10 batch ({error}).") from error
    if images.dtype != np.uint8 or images.shape != (len(numbers), 3072) or not ((numbers >= 0) & (numbers < 10)).all():
        raise ValueError(
            f"{path} holds images {images.shape} {images.dtype} and {len(numbers)} labels, but a CIFAR-10 batch has "
            "(n, 3072) uint8 and n labels from 0 to 9."
        )
    return images, numbers


def download_cifar10(root: Path) -> None:
    """Fetch the official archive into `root`, check its MD5, unpack it there (paths that leave `root` are refused)."""
    from torchvision.datasets.utils import download_url

    root.mkdir(parents=True, exist_ok=True)
    archive = root / Path(CIFAR10_URL).name
    download_url(CIFAR10_URL, root, archive.name, CIFAR10_MD5)
    with tarfile.open(archive) as tar:
        tar.extractall(root, filter="data")
    archive.unlink()
