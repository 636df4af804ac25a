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
from hhlib.data.folders import Scan, scan, told
from hhlib.data.lists import ImageList, find_lists, holds_lists, read_list, read_lists, write_list, write_lists
from hhlib.data.own import folder_pool, is_table, own_split, table_pool
from hhlib.data.protocols import PROTOCOLS, deviations, draw, split_pool, split_unseen
from hhlib.data.splits import Part, Pool, Protocol, Split, check_disjoint, hold_out

_in_memory = lru_cache(maxsize=2)(sources.pool_of)  # a menu of protocols and seeds reads the images only once


def names() -> list[str]:
    """Every known data set's name."""
    return list(PROTOCOLS)


def short_name(dataset: str | Path) -> str:
    """The name of a data set, as used for run folders: a known name itself, or the last component of a path.

    A table loses its ".csv"; "-folder" is appended if a known data set has that name. Raises ValueError for what is
    neither a known name nor the path of a folder or a table.
    """
    if isinstance(dataset, str) and dataset in PROTOCOLS:
        return dataset
    path = Path(os.path.abspath(resolve(dataset))) if dataset and isinstance(dataset, (str, Path)) else None
    if path is None or not (path.is_dir() or is_table(path)):
        where = f" ({path} is {'neither' if path.exists() else 'not there'})" if path else ""
        allowed = f"one of {', '.join(PROTOCOLS)}, or the path of a folder or of a .csv table{where}"
        raise ValueError(f"dataset is {str(dataset)!r}, but it must be {allowed}.{nearest(dataset, PROTOCOLS)}")
    name = path.name if path.is_dir() else path.stem
    return f"{name}-folder" if name in PROTOCOLS else name


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
    skip: bool = False,
) -> Split:
    """Load a data set and draw its split. Warns if the sizes are not the protocol's.

    Args:
        dataset: one of `names()`, or a path, which is read as the first of these that it is: a folder with `test.txt`,
            `train.txt` and `database.txt`, see `read_lists`; a folder that is split already, such as
            `train/cat/1.jpg` and `test/cat/2.jpg`, see `own_split`; a folder of class folders; a folder of pictures
            without labels; a table, see `table_pool`. A known name is never read as a path.
        seed: of the split, at least 0. One seed, one split, on every machine and for every code length.
        root: folder with the known data sets' files and with caches; None is `data/` in the project.
        size: side of the images as the network sees them, in pixels. None is their own size for those in memory
            (otherwise they are scaled on the device), and 224 for those on disk (scaled when they are opened).
        lists: folder with `test.txt`, `train.txt` and `database.txt` that say who goes where, instead of the seed.
            Their paths start at `dataset` if it is a folder; images of a known data set or a table are found by their
            path in it or, failing that, by their file name.
        cache: decode pictures on disk once, into a memory-mapped file below `root`; see `cached`.
        download: first fetch what may be fetched and is missing: CIFAR-10 (170 MB), COCO (20 GB), NUS-WIDE's labels
            and image list. It resumes where it stopped, is checked by MD5 if one is published, and shows a bar.
        query, train: share or number of own pictures; see `split_pool`. Not used where lists or folders say who asks.
        skip: go on without own pictures that cannot be used, with a warning instead of an error.

    Raises ValueError for an unknown data set, a bad seed or size, or a file that is not what it should be;
    FileNotFoundError if something is missing, with the place where it belongs.

    >>> load("digits", seed=0).sizes
    {'query': 200, 'train': 1000, 'database': 597}
    """
    name, folder = short_name(dataset), resolve("data" if root is None else root)
    check_whole("seed", seed, 0)
    side = 224 if size is None else check_whole("size", size, 1)
    if lists is not None:
        find_lists(resolve(lists))
    if dataset in PROTOCOLS:
        split = _known(name, seed, folder, side, lists, download)
    elif is_table(resolve(dataset)) and lists is not None:
        split = read_lists(lists, pool=table_pool(dataset, size=side, skip=skip))
    elif lists is not None or holds_lists(resolve(dataset)):
        split = read_lists(lists or dataset, root=dataset, size=side)
    else:
        how = dict(size=side, seed=seed, query=query, train=train, skip=skip)
        split = own_split(dataset, verdicts=folder / "cache" / f"{name}-checked.npy", **how)
    if cache and isinstance(split.query.pool.images, ImageFiles):
        split = split.moved(cached(split.query.pool, folder / "cache" / f"{name}-{side}"))
    return replace(split, name=name, seed=seed, network_size=size)


def _known(name: str, seed: int, folder: Path, side: int, lists: str | Path | None, download: bool) -> Split:
    """The split of a data set that has a protocol, see `load`."""
    below, archives = sources.archives(name)
    for archive in archives if download else ():
        fetch(archive, folder / below)
    source, protocol = name.split("-")[0], PROTOCOLS[name]  # the protocols of CIFAR-10 share their images
    pool = _in_memory(source, folder, 0) if source in sources.MEMORY else sources.pool_of(name, folder, side)
    split = draw(name, pool, protocol, seed) if lists is None else read_lists(lists, pool=pool)
    for sentence in deviations(split, protocol):
        warnings.warn(f"{name}: {sentence}.", stacklevel=3)
    return replace(split, protocol=protocol)
