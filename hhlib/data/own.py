"""Your own pictures: from a folder of class folders, or a table of paths and label names, to a pool."""

import csv
import os
import warnings
from pathlib import Path

import torch

from hhlib.common import resolve
from hhlib.data.files import ImageFiles, clean_path
from hhlib.data.folders import Scan, scan, told  # noqa: F401
from hhlib.data.splits import Pool

#: Extensions that count as pictures.
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def folder_pool(root: str | Path, *, size: int = 224, flip: bool = True) -> Pool:
    """All pictures below a folder; a picture's class is the first folder on its path, `root/cat/1.jpg` -> "cat".

    They are cut and scaled to `size` pixels per side; `flip` says whether a mirrored one keeps its labels (not so for
    text, digits, hands). Links to folders are followed. Warns if files are left out because of their extension.
    Raises FileNotFoundError if there is no such folder; ValueError if it holds fewer than two classes with pictures, or
    a picture that is in no class folder.
    """
    root = resolve(root)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}.")
    extension = {path: os.path.splitext(path)[1] for path in _files_below(root)}
    paths = [path for path, kind in extension.items() if kind.lower() in PICTURES]
    if left_out := [path for path, kind in extension.items() if kind.lower() not in PICTURES and "/" in path]:
        kinds = ", ".join(sorted({extension[path] or "none" for path in left_out}))
        which = f"{len(left_out)} files are left out because of their extensions ({kinds}), the first is {left_out[0]}"
        warnings.warn(f"{root}: {which}.", stacklevel=2)
    if loose := [path for path in paths if "/" not in path]:
        raise ValueError(f"{loose[0]} is in {root} itself, but each picture must be in the folder of its class.")
    return _pool(root, paths, [[path.split("/")[0]] for path in paths], size, flip)


def _files_below(root: Path) -> list[str]:
    """All files that are not hidden, relative to `root`, sorted; each folder once, whatever links say."""
    found, seen = [], set()
    for folder, inner, names in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        found += [path.relative_to(root).as_posix() for path in paths if path.is_file()]
    return sorted(found)


def table_pool(
    table: str | Path, *, root: str | Path | None = None, size: int = 224, separator: str = ";", flip: bool = True
) -> Pool:
    """The pictures of a CSV file with the columns `path` and `labels`: ``cats/1.jpg,cat;indoors``.

    Further columns are ignored, and an empty field is a picture without labels. `root` is the folder where the paths
    start (None: the table's), `separator` is between two labels of a picture; for `size` and `flip` see `folder_pool`.
    Raises, with the table's line, FileNotFoundError if a picture is missing; ValueError if a column is missing, a line
    has more fields than the head, a path is empty, repeated or leaves the root, or there are fewer than two labels.
    """
    table = resolve(table)
    root = resolve(root or table.parent)
    if not separator:
        raise ValueError("separator is '', but it must be what separates two labels, such as ';'.")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, entries = reader.fieldnames, [(reader.line_num, entry) for entry in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is not a CSV file in UTF-8 ({error}).") from error
    if not {"path", "labels"} <= set(columns or ()):
        raise ValueError(f"{table} has the columns {columns}, but it needs path and labels.")
    lines, labels = {}, []  # path -> line; label names of each picture
    for line, entry in entries:
        path, place = (entry["path"] or "").strip(), f"{table} line {line}"
        if not path:
            raise ValueError(f"{place}: no path.")
        if None in entry:
            raise ValueError(f"{place}: more fields than the head names; put labels between quotes, or use ';'.")
        path = clean_path(path, place)
        if path in lines:
            raise ValueError(f"{place}: {path} is on line {lines[path]} already.")
        if not (root / path).is_file():
            raise FileNotFoundError(f"{place}: there is no file {root / path}.")
        lines[path] = line
        labels.append([name for word in (entry["labels"] or "").split(separator) if (name := word.strip())])
    where = [f"{table} line {line}" for line in lines.values()]
    return _pool(root, list(lines), labels, size, flip, where.__getitem__)


def _pool(root, paths, names, size, flip, where=None) -> Pool:
    """A pool of pictures with these label names each."""
    classes = sorted({name for each in names for name in each})
    if len(classes) < 2:
        raise ValueError(f"{root} shows {len(classes)} classes ({', '.join(classes) or 'no pictures'}), but needs two.")
    column = {name: i for i, name in enumerate(classes)}
    labels = torch.zeros(len(paths), len(classes), dtype=torch.uint8)
    for row, each in enumerate(names):
        labels[row, [column[name] for name in each]] = 1
    return Pool(ImageFiles(root, paths, size, where), labels, classes, flip, paths)
