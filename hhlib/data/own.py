"""Your own pictures: from a folder, or a table of paths and label names, to a pool and a split."""

import csv
import io
import os
import reprlib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hhlib.common import Missing, resolve
from hhlib.data.checking import unusable
from hhlib.data.files import ImageFiles, clean_path
from hhlib.data.folders import scan, told
from hhlib.data.protocols import split_pool
from hhlib.data.reading import brief, read_text
from hhlib.data.splits import Part, Pool, Split, given_split, zeros


def own_split(
    dataset: str | Path, *, size: int, seed: int, query: int | float, train: int | float, skip: bool, verdicts: Path
) -> Split:
    """The split of a folder or a table of own pictures: as its folders say (see `PARTS`), or drawn by `split_pool`.

    Every picture is opened once, see `unusable`; for the others, see `data.load`. Raises one ValueError that names all
    that cannot be used; with `skip`, it is left out, and the same is a warning.
    """
    dataset = resolve(dataset)
    read = _read_table if is_table(dataset) else _read_folder
    pool, parts = read(dataset, size=size, skip=skip, verdicts=verdicts)
    if parts is None:
        return split_pool(pool, query=query, train=train, seed=seed)
    rows = {name: np.flatnonzero(np.array(parts) == name) for name in ("query", "train", "validation", "database")}
    part = {name: Part(pool, found) for name, found in rows.items() if len(found)}
    asks = part.get("query") or part.pop("validation", Part(pool, rows["query"]))
    learns = part.get("train", Part(pool, rows["train"]))
    folders = ", ".join(dict.fromkeys(path.split("/")[0] for path in pool.paths or ()))
    about = "" if "database" in part else "; the database is the training set itself"
    warnings.warn(f"{dataset}: its folders {folders} are taken as the split{about}.", stacklevel=3)
    about = f"Split by the folders {folders}{about}."
    split = given_split(dataset.name, asks, learns, part.get("database", learns), about=about, seed=seed)
    return replace(split, validation=part.get("validation"))


def is_table(dataset: Path) -> bool:
    """Whether a path is that of a table of own pictures rather than of a folder."""
    return dataset.suffix.lower() == ".csv" and dataset.is_file()


def folder_pool(root: str | Path, *, size: int = 224, flip: bool = True, skip: bool = False) -> Pool:
    """All pictures below a folder, with the labels of `scan`; no labels (n, 0) if all pictures are in `root` itself.

    They are cut and scaled to `size` pixels per side; `flip` says whether a mirrored one keeps its labels (not so for
    text, digits, hands). Pictures are not opened. Warns about what is left out on purpose.
    Raises FileNotFoundError if there is no such folder; ValueError if it holds no pictures or only one class, or if
    there is something that cannot be used, unless `skip` leaves that out with a warning.
    """
    return _read_folder(resolve(root), size=size, flip=flip, skip=skip)[0]


def _read_folder(root: Path, *, size: int, flip=True, skip=False, verdicts=None) -> tuple[Pool, list[str] | None]:
    """`folder_pool`, and the part of each picture if its folders say so; opens all pictures if `verdicts` is given."""
    found = scan(root)
    if found.ignored:
        warnings.warn(f"{root}: left out are {told(found.ignored)}.", stacklevel=4)
    trouble = found.trouble | ({} if verdicts is None else unusable(root, found.paths, verdicts))
    wrong = {path for which in trouble.values() for path in which}
    fine = [row for row, path in enumerate(found.paths) if path not in wrong]
    if any(found.labels):
        trouble["pictures that are in no class folder"] = [found.paths[row] for row in fine if not found.labels[row]]
        fine = [row for row in fine if found.labels[row]]
        number = Counter(found.labels[row][0] for row in fine)
        single = [] if found.parts else [row for row in fine if number[found.labels[row][0]] == 1]
        trouble["classes with one picture"] = [found.paths[row] for row in single]
        fine = sorted({*fine}.difference(single))
    _complain(root, trouble, skip)
    if not fine:
        raise ValueError(f"{root} holds no pictures.")
    names = [found.labels[row] for row in fine]
    pool = _pool(root, [found.paths[row] for row in fine], names, size, flip, unlabelled=not any(found.labels))
    return pool, found.parts and [found.parts[row] for row in fine]


def _complain(root: Path, trouble: dict[str, list[str]], skip: bool) -> None:
    """Say all that cannot be used: as an error or, with `skip`, as a warning."""
    if said := told(trouble):
        if not skip:
            raise ValueError(
                f"{root} has {said}; mend or remove them, or leave them out by skip=true (in a shell: -p skip true)."
            )
        warnings.warn(f"{root} has {said}. They are left out.", stacklevel=5)


def _read_table(table: Path, *, size: int, skip: bool, verdicts: Path) -> tuple[Pool, None]:
    """`table_pool`, with all pictures opened."""
    pool = table_pool(table, size=size, skip=skip)
    files: ImageFiles = pool.images  # pyrefly: ignore[bad-assignment], as of every table
    trouble = unusable(files.root, files.paths, verdicts)
    _complain(table, trouble, skip)
    wrong = {path for which in trouble.values() for path in which}
    fine = [row for row, path in enumerate(files.paths) if path not in wrong]
    paths, where = [files.paths[row] for row in fine], [files.where(row) for row in fine]
    images = ImageFiles(files.root, paths, size, where.__getitem__)
    return replace(pool, images=images, labels=pool.labels[fine], paths=paths), None


def table_pool(
    table: str | Path,
    *,
    root: str | Path | None = None,
    size: int = 224,
    separator: str = ";",
    flip: bool = True,
    skip: bool = False,
) -> Pool:
    """The pictures of a CSV file with the columns `path` and `labels`: ``cats/1.jpg,cat;indoors``.

    Further columns are ignored, and an empty field is a picture without labels. `root` is the folder where the paths
    start (None: the table's), `separator` is between two labels of a picture; for `size` and `flip` see `folder_pool`.
    Raises, with the table's line, FileNotFoundError if a picture is missing (a warning with `skip`); ValueError if a
    column is missing, a line has more fields than the head, a path is empty, repeated or leaves the root, or there are
    fewer than two labels.
    """
    table = resolve(table)
    root = resolve(root or table.parent)
    if not separator:
        raise ValueError("separator is '', but it must be what separates two labels, such as ';'.")
    lines, labels, missing = {}, [], []  # path -> line; label names of each picture; messages
    for line, path, words in _entries(table):
        place = f"{table} line {line}"
        path = clean_path(path, place)
        if path in lines:
            raise ValueError(f"{place}: {brief(path)} is on line {lines[path]} already.")
        if not os.path.isfile(root / path):
            missing.append(f"{place}: there is no file {root / brief(path)}")
            continue
        lines[path] = line
        labels.append([name for word in words.split(separator) if (name := word.strip())])
    if missing:
        said = missing[0] + (f", and {len(missing) - 1:,} more pictures are missing" if len(missing) > 1 else "")
        if not skip:
            raise Missing(f"{said}; skip=true leaves them out.")
        warnings.warn(f"{said}; they are left out.", stacklevel=2)
    where = [f"{table} line {line}" for line in lines.values()]
    return _pool(root, list(lines), labels, size, flip, where.__getitem__)


def _entries(table: Path) -> Iterator[tuple[int, str, str]]:
    """The line, path and labels of each picture in a table, as they stand."""
    reader = csv.DictReader(io.StringIO(read_text(table), newline=""))
    try:
        columns = [*(reader.fieldnames or ())]
        if [columns.count(name) for name in ("path", "labels")] != [1, 1]:
            raise ValueError(
                f"{table} has the columns {reprlib.repr(columns)}, but it needs path and labels, once each."
            )
        for entry in reader:
            place, path, words = f"{table} line {reader.line_num}", (entry["path"] or "").strip(), entry["labels"] or ""
            if not path:
                raise ValueError(f"{place}: no path.")
            if None in entry:
                raise ValueError(f"{place}: more fields than the head names; put labels between quotes, or use ';'.")
            if "\n" in path or "\n" in words:  # the rest of the table would be one label
                raise ValueError(f"{place}: a path or label goes over several lines; a quote that ends it is missing.")
            yield reader.line_num, path, words
    except csv.Error as error:
        raise ValueError(f"{table} line {reader.line_num + 1} is not CSV ({error}).") from error


def _pool(root, paths, names, size, flip, where=None, unlabelled=False) -> Pool:
    """A pool of pictures with these label names each."""
    classes = sorted({name for each in names for name in each})
    if len(classes) < 2 and not unlabelled:
        raise ValueError(f"{root} shows {len(classes)} classes ({', '.join(classes)}), but needs two.")
    if alike := {name for name, n in Counter(map(str.casefold, classes)).items() if n > 1}:
        which = ", ".join(name for name in classes if name.casefold() in alike)
        warnings.warn(f"{root}: the classes {which} differ only in case, and count as different.", stacklevel=5)
    column = {name: i for i, name in enumerate(classes)}
    labels = torch.from_numpy(zeros(len(paths), len(classes), str(root)))
    for row, each in enumerate(names):
        labels[row, [column[name] for name in each]] = 1
    return Pool(ImageFiles(root, paths, size, where), labels, classes, flip, paths)
