"""Query, training and database set: what they are made of, and what must never overlap."""

import hashlib
import os
import posixpath
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from hhlib.common import Missing, check_share, check_whole
from hhlib.data.files import ImageFiles

#: Numbers in a table of labels, one for each picture and class: all 14 million pictures of ImageNet with 300 classes.
MOST_LABELS = 1 << 32


@dataclass(frozen=True)
class Pool:
    """All images of a source, before any split."""

    images: Tensor | ImageFiles  #: (n, 3, S, S) uint8, in memory or on disk
    labels: Tensor  #: (n, C) uint8, multi-hot; single-label data has one 1 per row
    classes: list[str]  #: C names
    flip: bool  #: whether a mirrored image keeps its labels (not so for digits)
    paths: list[str] | None = None  #: n names of the images, no two the same; None numbers them
    #: (n,) bool, the images that their source keeps for testing: only they are drawn as queries, and for nothing else
    held_out: Tensor | None = None
    #: rows (n,) int64 of the published "query" and "train" part, which seed 0 takes; empty if none is published
    published: dict[str, np.ndarray] = field(default_factory=dict)

    def path(self, row: int) -> str:
        """An image's name in list files."""
        return self.paths[row] if self.paths else f"{row:06d}"


class Part(Dataset):
    """One of the three sets: rows of a pool. ``part[i] -> (image (3, S, S) uint8, labels (C,) uint8, i)``.

    `labels` (n, C) is there without reading images; `rows` (n,) int64 are the images' rows in the pool: their identity.
    """

    def __init__(self, pool: Pool, rows: np.ndarray | Tensor):
        self.pool, self.rows = pool, torch.as_tensor(np.asarray(rows), dtype=torch.int64)
        self.labels = pool.labels[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        return self.pool.images[self.rows[index]], self.labels[index], index

    def batch(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Many at once, without a loop if in memory: (B, 3, S, S) uint8, (B, C) uint8, (B,) int64."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        return self.pool.images[self.rows[index]], self.labels[index], index

    __getitems__ = batch  # the name under which PyTorch's DataLoader asks for a whole batch

    @property
    def paths(self) -> list[str]:
        """The images' names in list files."""
        return [*map(self.pool.path, self.rows.tolist())]

    def subset(self, indices: Sequence[int] | np.ndarray | Tensor) -> "Part":
        """The part made of these rows of this part; indices start again at 0."""
        return Part(self.pool, self.rows[torch.as_tensor(np.asarray(indices))])


@dataclass(frozen=True)
class Protocol:
    """How many images go where."""

    query: int  #: images in total
    train: int  #: images in total
    #: "rest" (all but queries and training images), "rest+train" (all but the queries), "train" (the training set
    #: itself), or "lists" (as list files or own pictures say)
    database: str
    by_class: bool  #: whether queries and training images are drawn in equal numbers from each class
    about: str  #: one sentence for the reader
    size: int | None = None  #: images in the database; None if the field fixes no number
    topk: int | None = None  #: k of the mAP@k that the field reports; None ranks the whole database


@dataclass(frozen=True)
class Split:
    """A data set drawn by a protocol: three parts, and what is needed to use them."""

    name: str
    seed: int
    protocol: Protocol
    query: Part
    train: Part
    database: Part
    _: KW_ONLY
    network_size: int | None = None  #: side to which images are scaled on the device, in pixels; None leaves them
    #: which backbone's vectors (n, D) are in the place of the images, with a digest of its weights; empty for pictures
    vectors_of: str = ""
    validation: Part | None = None  #: what chooses the epoch, where it is given; None cuts it from the training set

    @property
    def classes(self) -> list[str]:
        """C names, in the order of the labels' columns."""
        return self.query.pool.classes

    @property
    def image_size(self) -> int:
        """Side of the square images as the network sees them, in pixels."""
        return self.network_size or self.query.pool.images.shape[-1]

    @property
    def flip(self) -> bool:
        """Whether a mirrored image keeps its labels."""
        return self.query.pool.flip

    @property
    def sizes(self) -> dict[str, int]:
        """Images in query, train and database."""
        return {name: len(part) for name, part in self.parts().items()}

    def describe(self, labels: Tensor) -> str:
        """What an image shows, for a title: its first class, and how many more. labels: (C,) multi-hot."""
        present = [name for name, there in zip(self.classes, labels.tolist(), strict=True) if there]
        return (present[0] if present else "no label") + (f" +{len(present) - 1}" if len(present) > 1 else "")

    def parts(self) -> dict[str, Part]:
        """The three parts by name."""
        return {"query": self.query, "train": self.train, "database": self.database}

    def fingerprint(self) -> str:
        """SHA-256 over the three lists, and a given validation part: equal if the same images are in the same order."""
        digest = hashlib.sha256()
        for name, part in (self.parts() | self._given()).items():
            paths, rows = part.pool.paths, part.rows.numpy()
            digest.update(name.encode())
            digest.update("\n".join(paths[row] for row in rows).encode() if paths else rows.astype("<i8").tobytes())
        return digest.hexdigest()

    def moved(self, pool: Pool, **changes) -> "Split":
        """The same rows of another pool; `changes` are other fields that differ."""
        parts = {name: Part(pool, part.rows) for name, part in (self.parts() | self._given()).items()}
        return replace(self, **parts, **changes)

    def _given(self) -> dict[str, Part]:
        """The validation part, if it is given."""
        return {} if self.validation is None else {"validation": self.validation}

    def need_labels(self) -> None:
        """Raise ValueError if there are no labels."""
        if not self.classes:
            raise ValueError(f"{self.name} has no labels, so there is nothing to train or to score; a folder with a "
                             "folder per class has them, and `hhlib index FOLDER` searches without.")  # fmt: skip


def given_split(name: str, query: Part, train: Part, database: Part, *, about: str, seed=0, check=True) -> Split:
    """A split of given parts. Raises ValueError if one is empty or, with `check`, a query is in another part."""
    split = Split(name, seed, Protocol(len(query), len(train), "lists", False, about), query, train, database)
    if empty := [part for part, size in split.sizes.items() if not size]:
        few = f"{len(query.pool.labels)} pictures are too few for these shares"
        raise ValueError(f"{', '.join(empty)} would be empty: {few}; give whole numbers, or another seed.")
    if check:
        check_disjoint(split)
    return split


def zeros(images: int, classes: int, place: str) -> np.ndarray:
    """Labels to be filled, (images, classes) uint8. Raises ValueError if there are more than `MOST_LABELS`."""
    if images * classes > MOST_LABELS:
        raise ValueError(
            f"{place} has {classes:,} classes and {images:,} pictures; their product may be {MOST_LABELS:,}."
        )
    return np.zeros((images, classes), dtype=np.uint8)


def one_hot(numbers: ArrayLike, num_classes: int) -> Tensor:
    """Class numbers (n,) -> one-hot labels (n, C) uint8."""
    return torch.from_numpy(np.eye(num_classes, dtype=np.uint8)[np.asarray(numbers)])


def listed_pool(root: Path, paths: list[str], labels: np.ndarray, classes: list[str], size: int, what: str) -> Pool:
    """The listed pictures that have a label and are on disk. Warns if some are missing; FileNotFoundError if all are.

    `paths` (n) start at `root`, `labels` are (n, C), `what` is the pictures' name in messages ("the pictures of COCO").
    """
    labelled = np.flatnonzero(labels.any(axis=1))
    paths = [paths[row] for row in labelled]
    if not paths:
        raise ValueError(f"{root}: none of {what} has a label.")
    folders = {posixpath.dirname(path) for path in paths}
    there = {f"{folder}/{name}" for folder in folders if (root / folder).is_dir() for name in os.listdir(root / folder)}
    kept = [row for row, path in enumerate(paths) if path in there]
    listed = f"of {what} ({len(paths):,} are listed, the first"
    if not kept:
        raise Missing(f"{root} holds none {listed} is {paths[0]}); data/README.md says where they come from.")
    if gaps := [path for path in paths if path not in there]:
        lacking = f"{len(gaps):,} {listed} gap is {gaps[0]}); this is not the published split."
        warnings.warn(f"{root} lacks {lacking}", stacklevel=3)
    paths, found = [paths[row] for row in kept], torch.from_numpy(labels[labelled[kept]])
    return Pool(ImageFiles(root, paths, size), found, classes, flip=True, paths=paths)


def check_disjoint(split: Split) -> None:
    """Raise ValueError if any query image is also a training or a database image."""
    for name, part in [("train", split.train), ("database", split.database)]:
        if len(shared := np.intersect1d(split.query.rows, part.rows)):
            raise ValueError(f"{len(shared):,} of the {len(split.query):,} query images of {split.name} are also in "
                             f"its {name} set (first: {split.query.pool.path(shared[0])}), but none may.")  # fmt: skip


def hold_out(part: Part, fraction: float, seed: int) -> tuple[Part, Part]:
    """Cut a validation part from a training part: -> (what is left to train on, validation).

    The query set is then never used to choose a model. `fraction` is the share that is held out, from 0 to below 1
    (ValueError otherwise); each combination of labels gives its share to within one image, so that single-label data
    stays balanced.
    """
    check_whole("seed", seed, 0)
    check_share("validation", fraction)
    rng = np.random.default_rng([seed, 1])  # 1: another stream than the split's
    order = rng.permutation(len(part))
    _, kind = np.unique(part.labels.numpy()[order], axis=0, return_inverse=True)
    order = order[np.argsort(kind.ravel(), kind="stable")]  # equal label combinations next to each other
    step = np.arange(len(part)) * fraction
    held = np.floor(step + fraction + 1e-9) > np.floor(step + 1e-9)  # every 1/fraction-th
    return part.subset(np.sort(order[~held])), part.subset(np.sort(order[held]))
