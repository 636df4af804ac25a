"""Data sets, protocols and batches. ``data.load("digits", seed=0)`` gives a `Split` of query, train and database."""

import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from hhlib.common import check_choice, check_whole, resolve
from hhlib.data import sources
from hhlib.data.audit import audit, audit_tables, near_duplicates, similar_share
from hhlib.data.batches import augment, channel_statistics, loader, normalise, scale
from hhlib.data.cache import cached
from hhlib.data.files import ImageFiles, square_picture
from hhlib.data.lists import ImageList, find_lists, read_list, read_lists, write_list, write_lists
from hhlib.data.own import folder_pool, split_pool, split_unseen, table_pool
from hhlib.data.protocols import PROTOCOLS, deviations, draw
from hhlib.data.splits import Part, Pool, Protocol, Split, check_disjoint, hold_out

__all__ = [
    "PROTOCOLS",
    "ImageFiles",
    "ImageList",
    "Part",
    "Pool",
    "Protocol",
    "Split",
    "audit",
    "audit_tables",
    "augment",
    "cached",
    "channel_statistics",
    "check_disjoint",
    "deviations",
    "draw",
    "folder_pool",
    "hold_out",
    "load",
    "loader",
    "names",
    "near_duplicates",
    "normalise",
    "prepare",
    "read_list",
    "read_lists",
    "scale",
    "similar_share",
    "square_picture",
    "split_pool",
    "split_unseen",
    "table_pool",
    "write_list",
    "write_lists",
]

FILE_SIZE = 224  #: side to which pictures on disk are cut and scaled unless told otherwise, in pixels


def names() -> list[str]:
    """Every data set's name."""
    return list(PROTOCOLS)


def short_name(dataset):
    if dataset in PROTOCOLS:
        return dataset
    if resolve(dataset).is_dir():
        return Path(dataset).name
    check_choice("dataset", dataset, PROTOCOLS)


def load(
    name: str,
    *,
    seed: int = 0,
    root: str | Path | None = None,
    size: int | None = None,
    lists: str | Path | None = None,
    cache: bool = False,
    download: bool = False,
) -> Split:
    """Load a data set and draw its split. Says so where the sizes are not the protocol's.

    Args:
        name: one of `names()`.
        seed: of the split, at least 0. One seed, one split, on every machine and for every code length.
        root: folder with the data; None is `data/` in the project. digits and shapes need none.
        size: side of the images as the network sees them, in pixels. None is their own size for those kept in memory
            (they are scaled on the device otherwise), and 224 for those on disk (scaled when they are opened).
        lists: folder with `test.txt`, `train.txt` and `database.txt` that say who goes where, instead of the seed;
            images are found by their path in the data set or, failing that, by their file name.
        cache: decode pictures on disk once, into a file below `root` that is mapped into memory; see `cached`.
        download: first fetch what may be fetched and is missing; see `prepare`.

    Raises:
        ValueError: for an unknown name, a bad seed or size, or a file that is not what it should be.
        FileNotFoundError: if the data is not there; the sentence says where to put it.
    """
    protocol = PROTOCOLS[check_choice("dataset", name, PROTOCOLS)]
    check_whole("seed", seed, 0)
    size = None if size is None else check_whole("size", size, 1)
    folder = resolve("data" if root is None else root)
    if lists is not None:
        find_lists(resolve(lists))
    if download:
        sources.fetch_archives(name, folder)
    if name in sources.MEMORY:
        pool = _in_memory(name.split("-")[0], folder)  # the protocols of CIFAR-10 share their images
    else:
        side = size or FILE_SIZE
        pool = sources.pool_of(name, folder, side)
        pool = cached(pool, folder / "cache" / f"{name}-{side}") if cache else pool
    split = draw(name, pool, protocol, seed) if lists is None else _listed(name, lists, pool, protocol, seed)
    for sentence in deviations(split, protocol):
        warnings.warn(f"{name}: {sentence}.", stacklevel=2)
    return split if size is None else replace(split, network_size=size)


def prepare(name: str, *, root: str | Path | None = None) -> Split:
    """Fetch what may be fetched for a data set, check what must be put there by hand, and give its split.

    Downloads show a bar, go on where they stopped, are checked by MD5 where one is published, and are unpacked only as
    a whole. CIFAR-10: 170 MB. COCO: 20 GB. NUS-WIDE: labels and image list only. ImageNet: nothing.

    Raises:
        FileNotFoundError: if something must be put there by hand; the sentence says what and where.
    """
    return load(name, root=root, download=True)


def _listed(name: str, lists: str | Path, pool: Pool, protocol: Protocol, seed: int) -> Split:
    return replace(read_lists(resolve(lists), pool=pool), name=name, seed=seed, protocol=protocol)


@lru_cache(maxsize=2)
def _in_memory(source: str, root: Path) -> Pool:
    """The images, kept so that a menu of protocols and seeds does not read them again."""
    return sources.pool_of(source, root, 0)
