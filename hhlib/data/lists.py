"""The field's list files: one image per line, ``relative/path.jpg 0 1 0 ... 0``, plain or gzipped.

The format is HashNet's (Cao et al., ICCV 2017), and every code base of the field reads it: three files, `test.txt` for
the queries, `train.txt` and `database.txt`, with multi-hot labels, equally many on every line.
"""

import codecs
import gzip
import posixpath
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch

from hhlib.common import Missing, atomic, resolve
from hhlib.data.columns import column_order
from hhlib.data.files import ImageFiles, clean_path
from hhlib.data.reading import brief, read_lines, read_text
from hhlib.data.splits import Part, Pool, Split, given_split

#: The three files and the part that each holds.
LIST_NAMES = {"query": "test.txt", "train": "train.txt", "database": "database.txt"}


@dataclass(frozen=True)
class ImageList:
    """What a list file says."""

    source: Path  #: the file
    paths: list[str] = field(repr=False)  #: n paths, relative to `root`, with "/" and without "." or ".."
    labels: np.ndarray = field(repr=False)  #: (n, C) uint8, 0 or 1
    classes: list[str] = field(repr=False)  #: C names; the numbers "0", "1", ... if they have none
    lines: np.ndarray = field(repr=False)  #: (n,) the line of each image, from 1
    root: Path  #: folder where the paths start

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, row: int) -> str:
        """ "/lists/train.txt line 12", for messages."""
        return f"{self.source} line {self.lines[row]}"

    def images(self, size: int = 224) -> ImageFiles:
        """The pictures, opened when they are used, cut and scaled to `size` pixels per side."""
        return ImageFiles(self.root, self.paths, size, where=self.where)


def read_list(path: str | Path, *, root: str | Path | None = None, classes: list[str] | None = None) -> ImageList:
    """Read a list file. Images are not opened; blank lines are skipped.

    Args:
        path: plain text or gzip, told apart by content.
        root: folder where the images' paths start; None is that of the list.
        classes: names of the labels, in order; None takes the number of labels from the first line and numbers them.

    Raises ValueError for the first fault, with file and line: another number of labels, a label other than 0 and 1, no
    label at all, a path that is absolute or leaves the root, the same path twice, more bytes than `reading.MOST_TEXT`.
    """
    path = resolve(path)
    width, rows, flags = len(classes or ()), {}, []  # labels per line; path -> line; labels of each path
    for number, line in _lines(path):
        width = width or len(_trailing_labels(line))
        if width == 1:
            raise ValueError(f"{path} has one number per line, but a label is a 0 or 1 for each class: class 2 of 3 is "
                             "written 0 0 1.")  # fmt: skip
        name, labels = _parse(line, width, f"{path} line {number}")
        if rows.setdefault(name, number) != number:
            raise ValueError(f"{path} line {number}: '{brief(name)}' is on line {rows[name]} already.")
        flags.append(labels)
    if not rows:
        raise ValueError(f"{path} lists no image.")
    labels = np.frombuffer(b"".join(flags), dtype=np.uint8).reshape(len(rows), width) - ord("0")
    names = list(classes) if classes else [str(i) for i in range(width)]
    return ImageList(path, list(rows), labels, names, np.array([*rows.values()]), resolve(root or path.parent))


def write_list(path: str | Path, paths: list[str], labels: np.ndarray) -> None:
    """Write a list file, all or nothing; gzipped if its extension is .gz. Equal content gives equal bytes.

    `paths` are n relative paths, `labels` (n, C) of 0 and 1. Raises ValueError for labels of another shape or value, or
    a path that would not be read back as it is.
    """
    path, labels = resolve(path), np.asarray(labels)
    if (
        labels.shape[:1] != (len(paths),)
        or labels.ndim != 2
        or not labels.shape[1]
        or not np.isin(labels, (0, 1)).all()
    ):
        raise ValueError(f"labels have shape {labels.shape}, but {len(paths)} paths need ({len(paths)}, C) of 0 and 1.")
    for name in paths:
        if name != clean_path(name, str(path)) or name != name.strip() or "\n" in name:
            raise ValueError(f"{path}: the path {name!r} would not be read back as it is.")
    text = np.full((*labels.shape, 2), ord(" "), dtype=np.uint8)
    text[..., 1] = labels + ord("0")
    raw = b"".join(name.encode() + row.tobytes() + b"\n" for name, row in zip(paths, text, strict=True))
    with atomic(path) as draft:
        draft.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)


def read_lists(
    folder: str | Path,
    *,
    root: str | Path | None = None,
    size: int = 224,
    classes: list[str] | None = None,
    pool: Pool | None = None,
    check: bool = True,
) -> Split:
    """A split from `test.txt`, `train.txt` and `database.txt` (or `test.txt.gz` and so on).

    Args:
        folder: where the three files are; a `classes.txt` beside them names the labels, one per line.
        root: folder where the images' paths start; None is `folder`.
        size: side to which the images are cut and scaled when they are used, in pixels.
        classes: names of the labels; None takes those of `classes.txt`, else numbers.
        pool: look the images up in this pool instead, by their path or, failing that, by their file name if no other
            image there has it (published lists of a data set whose folders are named otherwise); the columns of labels
            are matched with its classes, see `column_order`.
        check: refuse a query that is in another part too. False is for looking at broken lists (`audit`).

    Raises FileNotFoundError if a file is missing; ValueError for a fault in a list (see `read_list`), an image with two
    different labels, an unknown path.
    """
    folder = resolve(folder)
    if classes is None and (folder / "classes.txt").is_file():
        classes = _read_names(folder / "classes.txt")
    lists = {part: read_list(file, root=root or folder, classes=classes) for part, file in find_lists(folder).items()}
    classes = lists["train"].classes
    for listed in lists.values():
        if (width := len(listed.classes)) != len(classes):
            raise ValueError(f"{listed.source} has {width} labels per line, but train.txt has {len(classes)}.")
    own, pool = pool is None, pool or _pool_of(list(lists.values()), size)
    place = _places(pool)
    rows = {part: _rows(listed, pool, place) for part, listed in lists.items()}
    how = _check_labels(lists, rows, pool, "another list" if own else "the data set")
    parts = {part: Part(pool, found) for part, found in rows.items()}
    return given_split(folder.name, **parts, about=f"The lists in {folder}{how}.", check=check)


def write_lists(split: Split, folder: str | Path) -> None:
    """Write a split as the three list files and `classes.txt`, to be read by `read_lists`."""
    folder = resolve(folder)
    if odd := [name for name in split.classes if name != name.strip() or len(name.splitlines()) != 1]:
        raise ValueError(f"{folder / 'classes.txt'}: the class {odd[0]!r} would not be read back as it is.")
    for name, part in split.parts().items():
        write_list(folder / LIST_NAMES[name], part.paths, part.labels.numpy())
    with atomic(folder / "classes.txt") as draft:
        draft.write_text("\n".join(split.classes) + "\n", encoding="utf-8")


def holds_lists(folder: Path) -> bool:
    """Whether any of the three list files is in a folder."""
    return any((folder / f"{name}{gz}").is_file() for name in LIST_NAMES.values() for gz in ("", ".gz"))


def find_lists(folder: Path) -> dict[str, Path]:
    """The three list files in a folder, by part; raises FileNotFoundError for the first that is missing."""
    found = {}
    for part, name in LIST_NAMES.items():
        path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
        if path is None:
            raise Missing(f"{folder / name} is missing (and {name}.gz too), but a split is test.txt (the "
                                    "queries), train.txt and database.txt.")  # fmt: skip
        found[part] = path
    return found


def _pool_of(lists: list[ImageList], size: int) -> Pool:
    """One pool of all images in any list, each once, in the order of their first mention."""
    first = {}  # path -> (list, row) of its first mention
    for listed in lists:
        for row, path in enumerate(listed.paths):
            first.setdefault(path, (listed, row))
    labels = np.stack([listed.labels[row] for listed, row in first.values()])
    where = [listed.where(row) for listed, row in first.values()]
    files = ImageFiles(lists[0].root, list(first), size, where.__getitem__)
    return Pool(files, torch.from_numpy(labels), lists[0].classes, flip=True, paths=list(first))


def _places(pool: Pool) -> dict[str, int]:
    """Path -> row, and file name -> row for names that only one image has."""
    paths = [*map(pool.path, range(len(pool.labels)))]
    names = [posixpath.basename(path) for path in paths]
    count = Counter(names)
    return {name: row for row, name in enumerate(names) if count[name] == 1} | {p: row for row, p in enumerate(paths)}


def _rows(listed: ImageList, pool: Pool, place: dict[str, int]) -> np.ndarray:
    """The rows of a list's images in the pool, which must have them all, and none by two names: (n,)."""
    rows = np.array([place.get(path, place.get(posixpath.basename(path), -1)) for path in listed.paths])
    if len(unknown := np.flatnonzero(rows < 0)):
        raise ValueError(f"{listed.where(unknown[0])}: the data set has no image '{brief(listed.paths[unknown[0]])}'.")
    first = {}
    for row, line in zip(rows.tolist(), listed.lines, strict=True):
        if first.setdefault(row, line) != line:
            raise ValueError(f"{listed.source} line {line}: '{brief(pool.path(row))}' is on line {first[row]} already.")
    return rows


def _check_labels(lists: dict[str, ImageList], rows: dict[str, np.ndarray], pool: Pool, other: str) -> str:
    """Raise ValueError unless lists and pool tell the same of each image; says how columns were matched, if not by
    their place."""
    width, names = len(pool.classes), lists["train"].classes
    if len(names) != width:
        raise ValueError(f"{lists['train'].source} has {len(names)} labels per line, but {other} has {width} classes.")
    listed, known = np.concatenate([each.labels for each in lists.values()]), pool.labels.numpy()
    known = known[np.concatenate([*rows.values()])]  # (n, C), of the images of all lists
    order, how, differ = column_order(listed, known, names, pool.classes)
    if len(differ):
        each, row = [(each, row) for each in lists.values() for row in range(len(each))][differ[0]]
        shown = ([pool.classes[i] for i in np.flatnonzero(of[differ[0]])] for of in (listed[:, order], known))
        here, there = (brief(" and ".join(names)) or "nothing" for names in shown)
        path, columns = brief(each.paths[row]), f", with the columns {how}" if how else ""
        way = " (read_lists without pool= takes the labels of the lists)" * (other == "the data set")
        raise ValueError(f"{each.where(row)}: '{path}' shows {here} here, but {there} in {other}; "
                         f"{len(differ):,} of {len(known):,} lines differ{columns}{way}.")  # fmt: skip
    if how.startswith("in the only"):
        warnings.warn(f"{lists['train'].source.parent}: the columns of labels were matched with the classes {how}; a "
                      "classes.txt beside the lists would name them.", stacklevel=3)  # fmt: skip
    return f"; their columns are matched {how}" if how else ""


def _read_names(file: Path) -> list[str]:
    """The names of the labels, one per line, each once."""
    lines = {}
    for line, name in enumerate(map(str.strip, read_text(file).rstrip().splitlines()), start=1):
        if not name or lines.setdefault(name, line) != line:
            wrong = f"'{brief(name)}' is on line {lines[name]} already" if name else "no name"
            raise ValueError(f"{file} line {line}: {wrong}.")
    return [*lines]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a list, without the mark that some editors put first."""
    for number, line in read_lines(path):
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and number == 1:
            raise ValueError(f"{path} is UTF-16 text, but it must be UTF-8.")
        if line := line.removeprefix(codecs.BOM_UTF8) if number == 1 else line:
            yield number, line


def _parse(line: bytes, width: int, place: str) -> tuple[str, bytes]:
    """A line -> its path, and its labels as `width` characters, 0 or 1; `place` is where it is, for messages."""
    name, *labels = line.rsplit(maxsplit=width)
    too_many = name[-2:] in (b" 0", b" 1", b"\t0", b"\t1")
    if not labels or len(labels) != width or too_many or not set(labels) <= {b"0", b"1"}:
        found = _trailing_labels(line)
        wrong = f"there are {len(found)} labels, but {width} are expected."
        if not found:
            wrong = "there is no label after the path; a line is a path and then 0 or 1 for each class."
        elif len(found) == width:
            odd = next(label for label in found if label not in (b"0", b"1"))
            wrong = f"a label is '{brief(odd.decode())}', but it must be 0 or 1."
        raise ValueError(f"{place}: {wrong}")
    try:
        return clean_path(name.decode(), place), b"".join(labels)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: the path {name[:200]!r} is not UTF-8 text.") from error


def _trailing_labels(line: bytes) -> list[bytes]:
    """The numbers at the end of a line."""
    words = reversed(line.split()[1:])
    return [*takewhile(lambda word: re.fullmatch(rb"[+-]?[\d.]+(e[+-]?\d+)?", word), words)][::-1]
