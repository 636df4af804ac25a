"""Data sets, protocols and batches. ``data.load("digits", seed=0)`` gives a `Split` of query, train and database."""

import os
import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from hhlib.common import check_whole, nearest, resolve
from hhlib.data import sources
from hhlib.data.audit import audit, near_duplicates, similar_share
from hhlib.data.batches import augment, channel_statistics, check_pictures, class_by_class, loader, normalise, scale
from hhlib.data.cache import KeptRows, cached, facts_of
from hhlib.data.download import fetch
from hhlib.data.files import ImageFiles, square_picture
from hhlib.data.lists import ImageList, find_lists, holds_lists, read_list, read_lists, write_list, write_lists
from hhlib.data.own import folder_pool, table_pool
from hhlib.data.protocols import PROTOCOLS, deviations, draw, split_pool, split_unseen
from hhlib.data.splits import Part, Pool, Protocol, Split, check_disjoint, hold_out

_in_memory = lru_cache(maxsize=2)(sources.pool_of)  # a menu of protocols and seeds reads the images only once


def names() -> list[str]:
    """Every known data set's name."""
    return list(PROTOCOLS)


def short_name(dataset: str | Path) -> str:
    """The name of a data set, as used for run folders: a known name itself, or the last component of a folder.

    "-folder" is appended to the latter if a known data set has that name. Raises ValueError for what is neither.
    """
    if isinstance(dataset, str) and dataset in PROTOCOLS:
        return dataset
    path = Path(os.path.abspath(resolve(dataset))) if dataset and isinstance(dataset, (str, Path)) else None
    if path is None or not path.is_dir():
        where = f" ({path} is not there)" if path else ""
        allowed = f"one of {', '.join(PROTOCOLS)}, or the path of a folder{where}"
        raise ValueError(f"dataset is {str(dataset)!r}, but it must be {allowed}.{nearest(dataset, PROTOCOLS)}")
    return f"{path.name}-folder" if path.name in PROTOCOLS else path.name


def load(
    dataset: str | Path,
    *,
    seed: int = 0,
    root: str | Path | None = None,
    size: int | None = None,
    lists: str | Path | None = None,
    cache: bool = False,
    download: bool = False,
    query: int | float = 0.1,
    train: int | float = 0.5,
) -> Split:
    """Load a data set and draw its split. Warns if the sizes are not the protocol's.

    Args:
        dataset: one of `names()`, or the path of a folder: with `test.txt`, `train.txt` and `database.txt`, see
            `read_lists`; otherwise a folder of class folders, see `folder_pool`. A known name is never read as a path.
        seed: of the split, at least 0. One seed, one split, on every machine and for every code length.
        root: folder with the known data sets' files and with caches; None is `data/` in the project.
        size: side of the images as the network sees them, in pixels. None is their own size for those in memory
            (otherwise they are scaled on the device), and 224 for those on disk (scaled when they are opened).
        lists: folder with `test.txt`, `train.txt` and `database.txt` that say who goes where, instead of the seed.
            Their paths start at `dataset` if it is a folder; images of a known data set are found by their path in it
            or, failing that, by their file name.
        cache: decode pictures on disk once, into a memory-mapped file below `root`; see `cached`.
        download: first fetch what may be fetched and is missing: CIFAR-10 (170 MB), COCO (20 GB), NUS-WIDE's labels
            and image list. It resumes where it stopped, is checked by MD5 if one is published, and shows a bar.
        query, train: share or number of a folder's pictures; see `split_pool`. Used for class folders only.

    Raises ValueError for an unknown data set, a bad seed or size, or a file that is not what it should be;
    FileNotFoundError if something is missing, with the place where it belongs.
    """
    name, folder = short_name(dataset), resolve("data" if root is None else root)
    check_whole("seed", seed, 0)
    side = 224 if size is None else check_whole("size", size, 1)
    if lists is not None:
        find_lists(resolve(lists))
    if dataset in PROTOCOLS:
        below, archives = sources.archives(name)
        for archive in archives if download else ():
            fetch(archive, folder / below)
        source, protocol = name.split("-")[0], PROTOCOLS[name]  # the protocols of CIFAR-10 share their images
        pool = _in_memory(source, folder, 0) if source in sources.MEMORY else sources.pool_of(name, folder, side)
        split = draw(name, pool, protocol, seed) if lists is None else read_lists(lists, pool=pool)
        split = replace(split, protocol=protocol)
        for sentence in deviations(split, protocol):
            warnings.warn(f"{name}: {sentence}.", stacklevel=2)
    elif lists is not None or holds_lists(resolve(dataset)):
        split = read_lists(lists or dataset, root=dataset, size=side)
    else:
        split = split_pool(folder_pool(dataset, size=side), query=query, train=train, seed=seed)
    if cache and isinstance(split.query.pool.images, ImageFiles):
        pool = cached(split.query.pool, folder / "cache" / f"{name}-{side}")
        split = replace(split, **{key: Part(pool, part.rows) for key, part in split.parts().items()})
    return replace(split, name=name, seed=seed, network_size=size)
