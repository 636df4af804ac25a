"""CIFAR-10 from its official files."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10

from hhlib.common import Missing
from hhlib.data.download import Archive
from hhlib.data.reading import brief, read_bytes
from hhlib.data.sources.pickles import read_pickle
from hhlib.data.splits import Pool, one_hot

FOLDER = CIFAR10.base_folder
#: File -> its MD5 in the official archive, in the order in which the images are pooled.
FILES = dict(CIFAR10.train_list + CIFAR10.test_list)
#: The official archive; it is unpacked beside itself and makes `FOLDER`.
ARCHIVE = Archive(CIFAR10.url, 170, [f"{FOLDER}/{name}" for name in FILES], CIFAR10.tgz_md5)
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

MOST_BYTES = 64 << 20  #: of a batch: twice those of the official ones


def cifar10(root: Path) -> Pool:
    """CIFAR-10 (Krizhevsky, 2009): 60,000 photographs of 32 x 32 pixels, the official training and test images pooled.

    `root` is the folder that holds `cifar-10-batches-py`, or that folder itself. Raises FileNotFoundError if one of the
    six files is missing, ValueError if one is not what it should be; warns if one is not the official one.
    """
    folder = root if root.name == FOLDER else root / FOLDER
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise Missing(f"{folder} lacks {', '.join(missing)}: unpack {ARCHIVE.url} in {folder.parent}, or "
                                "load with download=True.")  # fmt: skip
    files = {name: read_bytes(folder / name, MOST_BYTES) for name in FILES}
    digests = {name: hashlib.md5(raw, usedforsecurity=False).hexdigest() for name, raw in files.items()}
    if changed := [name for name in FILES if digests[name] != FILES[name]]:
        warnings.warn(f"{folder}: {', '.join(changed)} differ from the official CIFAR-10 (MD5).", stacklevel=2)
    images, numbers = zip(*(read_batch(folder / name, raw) for name, raw in files.items()), strict=True)
    images = torch.from_numpy(np.concatenate(images)).reshape(-1, 3, 32, 32)
    return Pool(images, one_hot(np.concatenate(numbers), 10), CLASSES, flip=True)


def read_batch(path: Path, raw: bytes | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One pickled batch -> images (n, 3072) uint8, class numbers (n,) int64. `raw` is its content, if read already.

    Nothing that the file names is run, see `read_pickle`. Raises ValueError if it is no batch of CIFAR-10.
    """
    try:
        batch = read_pickle(read_bytes(path, MOST_BYTES) if raw is None else raw)
        images, labels = batch["data"], batch["labels"]
    except KeyError as error:
        raise ValueError(f"{path} is not a CIFAR-10 batch (it lacks {error}).") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a CIFAR-10 batch ({brief(error)}).") from error
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    arrays = isinstance(images, np.ndarray) and isinstance(labels, list)
    if not arrays or images.dtype != np.uint8 or images.shape != (len(labels), 3072) or not _all_classes(labels):
        shape, kind = getattr(images, "shape", ""), getattr(images, "dtype", type(images).__name__)
        many = len(labels) if isinstance(labels, list) else "no list of"
        raise ValueError(f"{path} holds images {shape} {kind} and {many} labels, but a CIFAR-10 batch has (n, 3072) "
                         "uint8 and n labels from 0 to 9.")  # fmt: skip
    return images, np.array(labels, dtype=np.int64)


def _all_classes(labels: list) -> bool:
    return all(type(label) is int and 0 <= label < len(CLASSES) for label in labels)
