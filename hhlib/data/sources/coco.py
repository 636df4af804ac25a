"""MS-COCO 2014 from its annotation files (Lin et al., ECCV 2014)."""

import json
import posixpath
from pathlib import Path

import numpy as np

from hhlib.common import Missing
from hhlib.data.download import Archive
from hhlib.data.files import clean_path
from hhlib.data.reading import brief, read_bytes
from hhlib.data.splits import Pool, listed_pool, zeros

FOLDER = "coco"
YEARS = ("train2014", "val2014")  #: both are pooled
_HOME = "http://images.cocodataset.org"
_LABELS = [f"annotations/instances_{year}.json" for year in YEARS]
ARCHIVES = [
    Archive(f"{_HOME}/annotations/annotations_trainval2014.zip", 253, _LABELS, "0a379cfc70b0e71301e0f377548639bd"),
    Archive(f"{_HOME}/zips/train2014.zip", 13_500, ["train2014"], "0da8c0bd3d6becc4dcb32757491aca88"),
    Archive(f"{_HOME}/zips/val2014.zip", 6_600, ["val2014"], "a3d79f5ed8d289b7a7554ce06a5782b3"),
]


def coco(root: Path, size: int) -> Pool:
    """The training and validation images that show at least one of the 80 categories (122,218 of 123,287).

    `root` holds `coco/annotations`, `coco/train2014` and `coco/val2014`; pictures are cut and scaled to `size` pixels.
    Raises FileNotFoundError if a file or all pictures are missing, ValueError if a file is not what it should be.
    """
    folder = root / FOLDER
    files = [folder / name for name in _LABELS]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise Missing(f"missing: {' and '.join(missing)}; data.load('coco', download=True) fetches them.")
    (paths, labels, classes), (more, more_labels, others) = map(read_annotations, files, YEARS)
    if classes != others:
        raise ValueError(f"{files[0]} and {files[1]} name different categories.")
    labels = np.concatenate([labels, more_labels])
    return listed_pool(folder, paths + more, labels, classes, size, "the pictures of MS-COCO 2014")


def read_annotations(file: Path, year: str) -> tuple[list[str], np.ndarray, list[str]]:
    """One annotation file -> paths (n), labels (n, 80) uint8 and category names. ValueError if it is not one."""
    try:
        # Outlines are nine tenths of the file; without them it takes little memory.
        content = json.loads(read_bytes(file), object_hook=lambda e: {k: e[k] for k in e if k != "segmentation"})
        categories = _by_id(sorted(content["categories"], key=lambda entry: entry["id"]), "name")
        images = _by_id(content["images"], "file_name")
        pairs = dict.fromkeys((entry["image_id"], entry["category_id"]) for entry in content["annotations"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{file} is not an annotation file of COCO ({type(error).__name__}: {brief(error)})."
        ) from error
    row, column = ({key: i for i, key in enumerate(keys)} for keys in (images, categories))
    labels = zeros(len(images), len(categories), str(file))
    for image, category in pairs:
        if image not in row or category not in column:
            which = f"image {brief(image)}, category {brief(category)}"
            raise ValueError(f"{file}: an annotation names {which}, which is not listed.")
        labels[row[image], column[category]] = 1
    paths = [clean_path(f"{year}/{name}", str(file)) for name in images.values()]
    if odd := [name for name, path in zip(images.values(), paths, strict=True) if posixpath.dirname(path) != year]:
        raise ValueError(f"{file}: the picture '{brief(odd[0])}' is not in {year} itself.")
    return paths, labels, list(categories.values())


def _by_id(entries: list[dict], what: str) -> dict[int, str]:
    """Id -> name of pictures or categories; no id and no name is there twice."""
    names = {entry["id"]: entry[what] for entry in entries}
    if odd := [name for name in names.values() if not isinstance(name, str)]:
        raise TypeError(f"{what} is {brief(odd[0])}")
    if len(set(names.values())) != len(entries):
        raise ValueError(f"an id or a {what} is there twice")
    return names
