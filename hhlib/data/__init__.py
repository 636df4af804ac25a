"""Data sets, protocols and batches. ``data.load("digits", seed=0)`` gives a `Split` of query, train and database."""

from functools import lru_cache
from pathlib import Path

from hhlib.common import check_choice, resolve
from hhlib.data import sources
from hhlib.data.audit import audit, similar_share
from hhlib.data.batches import augment, channel_statistics, normalise
from hhlib.data.files import ImageFiles
from hhlib.data.lists import ImageList, read_list, read_lists, write_list, write_lists
from hhlib.data.own import folder_pool, split_pool, split_unseen, table_pool
from hhlib.data.splits import Part, Pool, Protocol, Split, check_disjoint, draw, hold_out

__all__ = [
    "PROTOCOLS",
    "ImageFiles",
    "ImageList",
    "Part",
    "Pool",
    "Protocol",
    "Split",
    "audit",
    "augment",
    "channel_statistics",
    "check_disjoint",
    "draw",
    "folder_pool",
    "hold_out",
    "load",
    "names",
    "normalise",
    "read_list",
    "read_lists",
    "similar_share",
    "split_pool",
    "split_unseen",
    "table_pool",
    "write_list",
    "write_lists",
]

#: The protocols, after `spec/evaluation.md`'s table; digits and shapes are ours.
PROTOCOLS = {
    "digits": Protocol(200, 1_000, "rest", True, "1,797 handwritten digits; training images are not in the database."),
    "shapes": Protocol(
        300, 1_200, "rest", False, "Drawn pictures with one to three labels each; three disjoint parts."
    ),
    "cifar10": Protocol(1_000, 5_000, "rest", True, "Training images are not in the database."),
    "cifar10-1": Protocol(1_000, 5_000, "rest+train", True, "The 5,000 training images stand in the database."),
    "cifar10-2": Protocol(10_000, 50_000, "train", True, "The database is the training set itself."),
}


def names() -> list[str]:
    """Every data set's name."""
    return list(PROTOCOLS)


def load(name: str, *, seed: int = 0, root: str | Path | None = None, download: bool = False) -> Split:
    """Load a data set and draw its split.

    Args:
        name: one of `names()`.
        seed: of the split, at least 0. One seed, one split, on every machine and for every code length.
        root: folder with the data; None is `data/` in the project. digits and shapes need none.
        download: fetch what may be fetched if it is missing (CIFAR-10: the official archive, checked).

    Raises:
        ValueError: for an unknown name or a bad seed.
        FileNotFoundError: if the data is not there; the sentence says where to put it.
    """
    protocol = PROTOCOLS[check_choice("dataset", name, PROTOCOLS)]
    folder = resolve("data" if root is None else root)
    return draw(name, _pool(name.split("-")[0], folder, download), protocol, seed)


@lru_cache(maxsize=2)
def _pool(source: str, folder: Path, download: bool) -> Pool:
    """The images, kept in memory so that a menu of protocols and seeds does not read them again."""
    return sources.cifar10(folder, download) if source == "cifar10" else getattr(sources, source)()
