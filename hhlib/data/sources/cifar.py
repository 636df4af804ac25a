"""CIFAR-10 from its official files."""

import hashlib
import io
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import torch

from hhlib.data.download import Archive
from hhlib.data.splits import Pool, one_hot

FOLDER = "cifar-10-batches-py"
#: File -> its MD5 in the official archive, in the order in which the images are pooled.
FILES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
#: The official archive; it is unpacked beside itself and makes `FOLDER`.
_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = Archive(_URL, 170, [f"{FOLDER}/{name}" for name in FILES], "c58f30108f718f92721af3b95e74349a")
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
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}: unpack {ARCHIVE.url} in {folder.parent}, or "
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
