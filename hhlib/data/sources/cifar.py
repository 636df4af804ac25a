"""CIFAR-10 from its official files."""

import hashlib
import io
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10

from hhlib.common import Missing
from hhlib.data.download import Archive
from hhlib.data.splits import Pool, one_hot

FOLDER = CIFAR10.base_folder
#: File -> its MD5 in the official archive, in the order in which the images are pooled.
FILES = dict(CIFAR10.train_list + CIFAR10.test_list)
#: The official archive; it is unpacked beside itself and makes `FOLDER`.
ARCHIVE = Archive(CIFAR10.url, 170, [f"{FOLDER}/{name}" for name in FILES], CIFAR10.tgz_md5)
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

#: All that a pickled NumPy array asks for, under NumPy's new module names, and how Python 3 writes bytes for Python 2.
_ARRAY_PARTS = ["numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct",
                "numpy._core.numeric._frombuffer", "_codecs.encode"]  # fmt: skip


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR-10's pickles and nothing that could run code: arrays, numbers, strings and containers."""

    def find_class(self, module: str, name: str):
        module = re.sub(r"^numpy\.core\.", "numpy._core.", module)
        if f"{module}.{name}" not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, but only NumPy arrays are read from it.")
        return super().find_class(module, name)


def cifar10(root: Path) -> Pool:
    """CIFAR-10 (Krizhevsky, 2009): 60,000 photographs of 32 x 32 pixels, the official training and test images pooled.

    `root` is the folder that holds `cifar-10-batches-py`, or that folder itself. Raises FileNotFoundError if one of the
    six files is missing, ValueError if one is not what it should be; warns if one is not the official one.
    """
    folder = root if root.name == FOLDER else root / FOLDER
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise Missing(f"{folder} lacks {', '.join(missing)}: unpack {ARCHIVE.url} in {folder.parent}, or "
                                "load with download=True.")  # fmt: skip
    files = {name: (folder / name).read_bytes() for name in FILES}
    if changed := [name for name, raw in files.items() if hashlib.md5(raw).hexdigest() != FILES[name]]:
        warnings.warn(f"{folder}: {', '.join(changed)} differ from the official CIFAR-10 (MD5).", stacklevel=2)
    images, numbers = zip(*(_read_batch(folder / name, raw) for name, raw in files.items()), strict=True)
    images = torch.from_numpy(np.concatenate(images)).reshape(-1, 3, 32, 32)
    return Pool(images, one_hot(np.concatenate(numbers), 10), CLASSES, flip=True)


def _read_batch(path: Path, raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """One pickled batch -> images (n, 3072) uint8, class numbers (n,)."""
    try:
        batch = _ArraysOnly(io.BytesIO(raw), encoding="latin1").load()
        images, numbers = np.asarray(batch["data"]), np.asarray(batch["labels"], dtype=np.int64)
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a CIFAR-10 batch ({error}).") from error
    if images.dtype != np.uint8 or images.shape != (len(numbers), 3072) or not ((numbers >= 0) & (numbers < 10)).all():
        raise ValueError(f"{path} holds images {images.shape} {images.dtype} and {len(numbers)} labels, but a CIFAR-10 "
                         "batch has (n, 3072) uint8 and n labels from 0 to 9.")  # fmt: skip
    return images, numbers
