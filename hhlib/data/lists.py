"""The field's list files: one image a line, ``relative/path.jpg 0 1 0 ... 0``, plain or gzipped.

Every code base of the field reads them (the format is HashNet's, Cao et al., ICCV 2017): three files, `test.txt` for
the queries, `train.txt` and `database.txt`, with a multi-hot label of one width.
"""

import codecs
import gzip
import posixpath
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from hhlib.common import atomic
from hhlib.data.files import ImageFiles, Places, clean_path
from hhlib.data.splits import Part, Pool, Split, given_split

#: The three files and the part that each holds.
LIST_NAMES = {"query": "test.txt", "train": "train.txt", "database": "database.txt"}


@dataclass(frozen=True)
class ImageList:
    """What a list file says.

    Attributes:
        source: the file.
        paths: n paths, relative to the images' root, with "/" and without "." or "..".
        labels: (n, C) uint8, 0 or 1.
        classes: C names; the numbers "0", "1", ... if nobody named them.
        lines: (n,) the line of each image, from 1.
        root: folder at which the paths start.
    """

    source: Path
    paths: list[str] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    classes: list[str] = field(repr=False)
    lines: np.ndarray = field(repr=False)
    root: Path

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, row: int) -> str:
        """ "train.txt line 12", for messages."""
        return f"{self.source.name} line {self.lines[row]}"

    def images(self, size: int = 224) -> ImageFiles:
        """The pictures, opened when they are asked for, cut and scaled to `size` pixels a side."""
        return ImageFiles(self.root, self.paths, size, where=self.where)


def read_list(path: str | Path, *, root: str | Path | None = None, classes: list[str] | None = None) -> ImageList:
    """Read a list file. Images are not touched; blank lines are skipped.

    Args:
        path: plain text or gzip, told apart by content.
        root: folder at which the images' paths start; None is that of the list.
        classes: names of the labels, in order; None takes the width from the first line and numbers them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for the first fault, with file and line: another number of labels, a label other than 0 and 1, no
            label at all, a path that is absolute or leaves the root, the same path twice.
    """
    path = Path(path).expanduser()
    numbered = [(i, line.strip()) for i, line in enumerate(_raw_lines(path), start=1)]
    numbered = [(i, line) for i, line in numbered if line]
    if not numbered:
        raise ValueError(f"{path} lists no image.")
    width = len(classes) if classes else len(_trailing_labels(numbered[0][1]))
    if width == 1:
        raise ValueError(
            f"{path.name} has one number a line, but a label is a 0 or 1 for each class: class 2 of 3 is written 0 0 1."
        )
    names, text = [], bytearray()
    for number, line in numbered:
        name, labels = _cut(line, width) or _cut(b" ".join(line.split()), width) or (b"", b"")
        if not name:
            raise ValueError(f"{path.name} line {number}: {_what_is_wrong(line, width)}")
        names.append(name)
        text += labels
    flags = np.frombuffer(text, dtype=np.uint8).reshape(len(names), width, 2)  # a blank and a digit for each label
    good = ((flags[..., 0] == ord(" ")) & ((flags[..., 1] | 1) == ord("1"))).all(axis=1)
    if not good.all():
        number, line = numbered[int(np.argmin(good))]
        raise ValueError(f"{path.name} line {number}: {_what_is_wrong(line, width)}")
    lines = np.array([number for number, _ in numbered])
    paths = [_decoded(name, f"{path.name} line {line}") for name, line in zip(names, lines, strict=True)]
    names = list(classes) if classes else [str(i) for i in range(width)]
    root = path.parent if root is None else Path(root).expanduser()
    listed = ImageList(path, paths, flags[..., 1] - ord("0"), names, lines, root)
    _check_no_repeat(paths, listed, str)
    return listed


def write_list(path: str | Path, paths: list[str], labels: np.ndarray) -> None:
    """Write a list file, whole or not at all; gzipped if the name ends in .gz. Equal content gives equal bytes.

    Args:
        paths: n relative paths.
        labels: (n, C) of 0 and 1.
    """
    path, labels = Path(path).expanduser(), np.asarray(labels)
    if labels.shape[:1] != (len(paths),) or labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels have shape {labels.shape}, but {len(paths)} paths need ({len(paths)}, C) of 0 and 1.")
    for name in paths:
        if name != clean_path(name, path.name) or name != name.strip() or "\n" in name:
            raise ValueError(f"{path.name}: the path {name!r} would not be read back as it is written.")
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
    """A split from `test.txt`, `train.txt` and `database.txt` (each may be gzipped, and then end in .gz).

    Args:
        folder: where the three files are; a `classes.txt` beside them names the labels, one a line.
        root: folder at which the images' paths start; None is `folder`. Images are opened when used, not before.
        size: side to which the images are cut and scaled, in pixels.
        classes: names of the labels; None takes those of `classes.txt`, else numbers.
        pool: look the images up in this pool instead, by their path or, failing that, by their file name if no other
            image there has it (published lists of a data set that lies in other folders).
        check: refuse a query that stands in another part. False is for looking at broken lists (`audit`).

    Raises:
        FileNotFoundError: if one of the files is missing.
        ValueError: for a fault in a list (see `read_list`), an image with two different labels, an unknown path.
    """
    folder = Path(folder).expanduser()
    if classes is None and (folder / "classes.txt").is_file():
        classes = _text(folder / "classes.txt").strip().splitlines()
    lists = {part: read_list(file, classes=classes) for part, file in find_lists(folder).items()}
    classes = classes or lists["train"].classes
    for listed in lists.values():
        if listed.classes != classes:
            widths = len(listed.classes), len(classes)
            raise ValueError(f"{listed.source.name} has {widths[0]} labels a line, but train.txt has {widths[1]}.")
    pool = pool or _pool_of(lists, root or folder, size)
    place = _places(pool)
    parts = {part: Part(pool, _rows(listed, pool, place)) for part, listed in lists.items()}
    return given_split(folder.name, **parts, about=f"The lists in {folder}.", check=check)


def write_lists(split: Split, folder: str | Path) -> None:
    """Write a split as the three list files and `classes.txt`; `read_lists` gives it back."""
    folder = Path(folder).expanduser()
    for name, part in split.parts().items():
        paths = [part.pool.path(row) for row in part.rows.tolist()]
        write_list(folder / LIST_NAMES[name], paths, part.labels.numpy())
    with atomic(folder / "classes.txt") as draft:
        draft.write_text("\n".join(split.classes) + "\n")


def find_lists(folder: Path) -> dict[str, Path]:
    """The three list files in a folder, by part; raises FileNotFoundError for the first that is missing."""
    found = {}
    for part, name in LIST_NAMES.items():
        found[part] = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
        if not found[part]:
            raise FileNotFoundError(
                f"{folder / name} is not there (nor {name}.gz); a split is test.txt (the queries), train.txt and "
                "database.txt."
            )
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error}).") from error


def _pool_of(lists: dict[str, ImageList], root: str | Path, size: int) -> Pool:
    """One pool of all images that any list names, each once, in the order of their first mention."""
    every = list(lists.values())
    first = {}  # path -> (list, row) of its first mention
    for number, listed in enumerate(every):
        for row, path in enumerate(listed.paths):
            first.setdefault(path, (number, row))
    paths, which = list(first), np.array([number for number, _ in first.values()])
    labels = np.stack([every[number].labels[row] for number, row in first.values()])
    lines = np.array([every[number].lines[row] for number, row in first.values()])
    files = ImageFiles(root, paths, size, Places([listed.source.name for listed in every], which, lines))
    return Pool(files, torch.from_numpy(labels), lists["train"].classes, flip=True, paths=paths)


def _places(pool: Pool) -> dict[str, int]:
    """Path -> row, and file name -> row for names that only one image has."""
    paths = [pool.path(row) for row in range(len(pool.labels))]
    names = [posixpath.basename(path) for path in paths]
    count = Counter(names)
    return {name: row for row, name in enumerate(names) if count[name] == 1} | {p: row for row, p in enumerate(paths)}


def _rows(listed: ImageList, pool: Pool, place: dict[str, int]) -> np.ndarray:
    """Where a list's images stand in the pool, which must know them with the same labels: (n,)."""
    rows = np.array([place.get(path, place.get(posixpath.basename(path), -1)) for path in listed.paths])
    if (rows < 0).any():
        row = int(np.argmax(rows < 0))
        raise ValueError(f"{listed.where(row)}: the data set has no image {listed.paths[row]!r}.")
    _check_no_repeat(rows.tolist(), listed, pool.path)
    differs = (pool.labels.numpy()[rows] != listed.labels).any(axis=1)
    if differs.any():
        row = int(np.argmax(differs))
        raise ValueError(f"{listed.where(row)}: {listed.paths[row]!r} has other labels elsewhere.")
    return rows


def _raw_lines(path: Path) -> list[bytes]:
    raw = path.read_bytes()
    try:
        text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        return text.removeprefix(codecs.BOM_UTF8).split(b"\n")
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is a gzip file that is damaged or cut short.") from error


def _cut(line: bytes, width: int) -> tuple[bytes, bytes] | None:
    """Path and label text (2 * width bytes: blank, digit, blank, digit, ...), if the line has this form."""
    name, labels = line[: -2 * width], line[-2 * width :]
    fits = width and name and labels[:1] == b" " and name[-2:] not in (b" 0", b" 1", b"\t0", b"\t1")
    return (name, labels) if fits else None


def _trailing_labels(line: bytes) -> list[bytes]:
    """The numbers at the end of a line."""
    words = line.split()[1:]
    first = len(words)
    while first and words[first - 1].lstrip(b"+-").replace(b".", b"").isdigit():
        first -= 1
    return words[first:]


def _what_is_wrong(line: bytes, width: int) -> str:
    labels = _trailing_labels(line)
    odd = [label.decode() for label in labels if label not in (b"0", b"1")]
    if not labels:
        return "there is no label after the path; a line is a path and then 0 or 1 for each class."
    if len(labels) != width:
        return f"there are {len(labels)} labels, but {width} are expected."
    return f"a label is {odd[0]!r}, but it must be 0 or 1."


def _decoded(name: bytes, place: str) -> str:
    try:
        return clean_path(name.decode(), place)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: the path {name!r} is not UTF-8 text.") from error


def _check_no_repeat(images: list, listed: ImageList, name: Callable) -> None:
    """Raise ValueError if an image, whatever it is known by, stands on two lines of a list."""
    first = {}
    for image, line in zip(images, listed.lines, strict=True):
        if first.setdefault(image, line) != line:
            raise ValueError(
                f"{listed.source.name} line {line}: {name(image)!r} stands on line {first[image]} already."
            )
