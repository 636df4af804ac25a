"""Where the images come from: a function for each source, and which archives may be fetched for it."""

from functools import partial
from pathlib import Path

from hhlib.data.download import Archive
from hhlib.data.sources import cifar, clothes, coco, imagenet, nuswide
from hhlib.data.sources.cifar import cifar10
from hhlib.data.sources.embedded import digits, shapes
from hhlib.data.splits import Pool

__all__ = ["DRAWN", "FILES", "MEMORY", "archives", "cifar10", "digits", "pool_of", "shapes"]

DRAWN = ("digits", "shapes")  #: data sets that show no photographs
#: Data sets whose images are kept in memory at their own size: name -> f(root).
MEMORY = {"digits": lambda root: digits(), "shapes": lambda root: shapes(), "cifar10": cifar10}
#: Data sets whose images are opened when they are used, cut and scaled to one size: name -> f(root, size).
FILES = {
    "nuswide_21": partial(nuswide.nuswide, concepts=21),
    "nuswide_21_m": partial(nuswide.nuswide, concepts=21, small=True),
    "nuswide_81_m": partial(nuswide.nuswide, small=True),
    "imagenet": imagenet.imagenet,
    "coco": coco.coco,
    "clothes": clothes.clothes,
    "clothes-validation": partial(clothes.clothes, queries="validation"),
}


def pool_of(name: str, root: Path, size: int) -> Pool:
    """All images of a data set. size: side of the images, in pixels, for those on disk."""
    return MEMORY[name](root) if name in MEMORY else FILES[name](root, size)


def archives(name: str) -> tuple[str, list[Archive]]:
    """The folder below the root, and what may be fetched into it."""
    if name.startswith("cifar10"):
        return "", [cifar.ARCHIVE]
    if name.startswith("nuswide"):
        return nuswide.FOLDER, nuswide.ARCHIVES
    if name.startswith("clothes"):
        return clothes.FOLDER, [clothes.ARCHIVE]
    return (coco.FOLDER, coco.ARCHIVES) if name == "coco" else ("", [])
