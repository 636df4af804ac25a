"""Your own pictures: from a folder of folders, or a table of paths and label names, to a split.

What the three lists are for: a *query* is a picture somebody searches with; the *database* is what is searched; the
*training* set is what the network learns from. A score is honest only if no query stands in the other two.
"""

import csv
import numbers
import os
import warnings
from pathlib import Path

import numpy as np
import torch

from hhlib.common import check_whole
from hhlib.data.files import ImageFiles, Places, clean_path
from hhlib.data.splits import Part, Pool, Split, given_split, hold_out

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}  #: endings that count as pictures


def folder_pool(root: str | Path, *, size: int = 224, flip: bool = True) -> Pool:
    """All pictures under a folder; a picture's class is the first folder on its path, `root/cat/1.jpg` -> "cat".

    Links to folders are followed. Says so if files are left out because of their ending.

    Args:
        size: side to which the pictures are cut and scaled, in pixels.
        flip: whether a mirrored picture keeps its labels (no: text, digits, hands).

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds fewer than two classes with pictures, or a picture that lies in no class folder.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}.")
    files = _files_below(root)
    paths = [path for path in files if os.path.splitext(path)[1].lower() in PICTURES]
    left_out = [path for path in files if os.path.splitext(path)[1].lower() not in PICTURES and "/" in path]
    if left_out:
        endings = sorted({os.path.splitext(path)[1] or "none" for path in left_out})
        warnings.warn(
            f"{root}: {len(left_out)} files are left out because of their endings ({', '.join(endings)}), the first is "
            f"{left_out[0]}.",
            stacklevel=2,
        )
    loose = [path for path in paths if "/" not in path]
    if loose:
        raise ValueError(f"{loose[0]} lies in {root} itself, but each picture must lie in the folder of its class.")
    return _pool(root, paths, [[path.split("/")[0]] for path in paths], size, flip, where=None)


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

    Args:
        table: the file; further columns are ignored.
        root: folder at which the paths start; None is the table's folder.
        size, flip: see `folder_pool`.
        separator: what stands between two labels of a picture. An empty field is a picture without labels.

    Raises:
        FileNotFoundError: if a picture is missing; says in which line it stands.
        ValueError: if a column is missing, a line has more fields than the head, a path is empty, stands twice or
            leaves the root, or there are fewer than two labels.
    """
    table = Path(table).expanduser()
    root = table.parent if root is None else Path(root).expanduser()
    if not separator:
        raise ValueError("separator is '', but it must be what stands between two labels, such as ';'.")
    try:
        return _read_table(table, root, size, separator, flip)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is no CSV file in UTF-8 ({error}).") from error


def _read_table(table: Path, root: Path, size: int, separator: str, flip: bool) -> Pool:
    paths, labels, lines = [], [], {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"path", "labels"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{table.name} has the columns {reader.fieldnames}, but it needs path and labels.")
        for entry in reader:
            path, place = (entry["path"] or "").strip(), f"{table.name} line {reader.line_num}"
            if not path:
                raise ValueError(f"{place}: no path.")
            if None in entry:
                raise ValueError(f"{place}: more fields than the head names; put labels between quotes, or use ';'.")
            path = clean_path(path, place)
            if path in lines:
                raise ValueError(f"{place}: {path} stands on line {lines[path]} already.")
            if not (root / path).is_file():
                raise FileNotFoundError(f"{place}: there is no file {root / path}.")
            lines[path] = reader.line_num
            paths.append(path)
            labels.append([name for word in (entry["labels"] or "").split(separator) if (name := word.strip())])
    where = Places([table.name], np.zeros(len(paths), int), list(lines.values()))
    return _pool(root, paths, labels, size, flip, where)


def split_pool(
    pool: Pool, *, query: int | float, train: int | float, seed: int = 0, name: str = "own", train_in_database=False
) -> Split:
    """Draw a split: queries first, then training pictures; the database is the rest.

    Each combination of labels gives its share, so that classes of unequal size stay in proportion.

    Args:
        query, train: how many, as a number of pictures (int) or a share of all (float, above 0 and below 1).
        seed: of the drawing.
        train_in_database: put the training pictures into the database too; scores are then a little too good.

    Raises:
        ValueError: if a number is out of range, or nothing is left for the database.
    """
    total = len(pool.labels)
    check_whole("seed", seed, 0)
    q, t = _count("query", query, total), _count("train", train, total)
    if q + t >= total:
        raise ValueError(f"query and train take {q} + {t} of {total} pictures, but the database needs some too.")
    others, queries = hold_out(Part(pool, np.arange(total)), q / total, seed)
    rest, training = hold_out(others, t / (total - q), seed)
    database = others if train_in_database else rest
    return given_split(name, queries, training, database, about="Drawn from own pictures.", seed=seed)


def split_unseen(
    pool: Pool, *, unseen: list[str] | float, query: int | float, seed: int = 0, name: str = "unseen"
) -> Split:
    """Train on some classes; query and search only others, which the network has never met.

    The usual protocols ask whether codes tell known classes apart; this one asks whether they carry over. Pictures with
    labels of both kinds are left out. (Sablayrolles et al., "How should we evaluate supervised hashing?", 2017.)

    Args:
        unseen: names of the classes that training must not see, or their share of all classes (drawn by `seed`).
        query: how many of the unseen classes' pictures are queries, a number or a share; the others are the database.

    Raises:
        ValueError: for a class that is not there, or if no class is left on one side.
    """
    classes = pool.classes
    check_whole("seed", seed, 0)
    if isinstance(unseen, str):
        unseen = [unseen]
    if isinstance(unseen, numbers.Real):
        drawn = np.random.default_rng(seed).permutation(len(classes))[: _count("unseen", unseen, len(classes))]
        unseen = [classes[i] for i in sorted(drawn)]
    unseen = list(unseen)
    for given in unseen:
        if given not in classes:
            raise ValueError(f"unseen names {given!r}, but the classes are {', '.join(classes)}.")
    hidden = np.isin(classes, unseen)
    if hidden.all() or not hidden.any():
        raise ValueError(f"unseen names {hidden.sum()} of {len(classes)} classes, but some must be on each side.")
    labels = pool.labels.numpy().astype(bool)
    has_hidden, has_known = labels[:, hidden].any(axis=1), labels[:, ~hidden].any(axis=1)
    strange = Part(pool, np.flatnonzero(has_hidden & ~has_known))
    if len(strange) < 2:
        raise ValueError(f"only {len(strange)} pictures show unseen classes alone, but there must be 2 or more.")
    share = _count("query", query, len(strange)) / len(strange)
    database, queries = hold_out(strange, share, seed)
    training = Part(pool, np.flatnonzero(has_known & ~has_hidden))
    about = "Queries and database show only classes that training never sees."
    return given_split(name, queries, training, database, about=about, seed=seed)


def _pool(root, paths, names, size, flip, where) -> Pool:
    classes = sorted({name for each in names for name in each})
    if len(classes) < 2:
        raise ValueError(f"{root} shows {len(classes)} classes ({', '.join(classes) or 'no pictures'}), but needs two.")
    column = {name: i for i, name in enumerate(classes)}
    labels = torch.zeros(len(paths), len(classes), dtype=torch.uint8)
    for row, each in enumerate(names):
        labels[row, [column[name] for name in each]] = 1
    return Pool(ImageFiles(root, paths, size, where), labels, classes, flip, paths)


def _count(name: str, wanted: int | float, total: int) -> int:
    """A number of pictures or a share of them -> a number."""
    whole = isinstance(wanted, numbers.Integral)
    usable = isinstance(wanted, numbers.Real) and not isinstance(wanted, bool)
    if not usable or not (1 <= wanted < total if whole else 0 < wanted < 1):
        raise ValueError(f"{name} is {wanted!r}, but it must be a number from 1 to {total - 1}, or a share like 0.1.")
    count = int(wanted) if whole else round(float(wanted) * total)
    if not count:
        raise ValueError(f"{name} is {wanted!r} of {total}, which is none.")
    return count
