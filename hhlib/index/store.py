"""Rows of pictures on disk: folders of arrays that are written once, and a small file that says which of them count.

    index.json            what the index is, and its segments, in order
    segments/<name>/      up to a million rows: keys, codes, facts, paths, labels and, if kept, vectors
    encoder/              what makes a query's code, see `hhlib.encoder`
    .lock                 held by the one process that writes

A change writes new segments, then replaces index.json, then deletes what it no longer names: a reader sees the old
state or the new one, and a writer that is killed leaves one of the two.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from hhlib.common import atomic, check_choice, saving
from hhlib.locking import held
from hhlib.metrics.packing import check_packed
from hhlib.reading import Damaged, read_array, read_json, reading

FORMAT = 1  #: changes when older versions could not read what is written
LARGEST = 1 << 20  #: rows of a segment; so a change copies a part of a large index only
PIECE = 1 << 15  #: rows copied at a time
#: Axes and kind of numbers of the arrays of a segment. Vectors that wait for their code may be float32.
PARTS = {"keys": (1, np.uint64), "codes": (2, np.uint8), "facts": (1, np.uint64), "vectors": (2, np.float16)}
PARTS |= {"": (1, np.uint8), "-ends": (1, np.int64)}  # of texts


class Texts(Sequence):
    """n texts in two arrays, which can be memory-mapped: their bytes, and where each ends."""

    def __init__(self, raw: np.ndarray, ends: np.ndarray):
        self.raw, self.ends = raw, ends  # (bytes,) uint8, (n,) int64

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """From Python's texts; file names that are not UTF-8 keep their bytes."""
        parts = [text.encode("utf-8", "surrogateescape") for text in texts]
        ends = np.fromiter(accumulate(map(len, parts)), dtype=np.int64, count=len(parts))
        return cls(np.frombuffer(b"".join(parts), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> str:
        start, end = int(self.ends[row - 1]) if row else 0, int(self.ends[row])
        if not 0 <= start <= end <= len(self.raw):
            raise Damaged(f"{getattr(self.ends, 'filename', 'a list of texts')} is damaged in row {row}.")
        return self.raw[start:end].tobytes().decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Segment:
    """Rows in the order of their keys: a seeded order, so that the order of folders never decides between ties."""

    keys: np.ndarray  #: (n,) uint64, see `key_of`; ascending in an index
    codes: np.ndarray  #: (n, ceil(K/8)) uint8, packed
    facts: np.ndarray  #: (n,) uint64, changes with a picture's file
    paths: Texts  #: below the index's root, or absolute
    labels: Texts  #: of each picture, joined by ";"; empty if it has none
    vectors: np.ndarray | None  #: (n, D) float16

    def __len__(self) -> int:
        return len(self.keys)


def key_of(path: str) -> np.uint64:
    """Where a path comes among others: 64 bits of its hash."""
    raw = path.encode("utf-8", "surrogateescape")
    return np.uint64(int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big"))


def write_segment(folder: Path, sources: Sequence[Segment], order: np.ndarray) -> Segment:
    """Write rows of some segments as a new one -> it, memory-mapped.

    order: (n, 2) int64, the segment and its row that each row comes from.
    """
    with saving(folder / "codes.npy"):
        folder.mkdir(parents=True)
        has = sources[0].vectors is not None
        for name in ("keys", "codes", "facts", *(("vectors",) if has else ())):
            _write_rows(folder / f"{name}.npy", [getattr(source, name) for source in sources], order)
        for name in ("paths", "labels"):
            texts = Texts.of(getattr(sources[number], name)[row] for number, row in order.tolist())
            np.save(folder / f"{name}.npy", texts.raw)
            np.save(folder / f"{name}-ends.npy", texts.ends)
    return read_segment(folder)


def _write_rows(file: Path, arrays: Sequence[np.ndarray], order: np.ndarray) -> None:
    """Rows of some arrays as one .npy file, see `write_segment`.

    Written piece by piece, not through a memory map: where the disk is full, that would kill the process.
    """
    shape, kind = (len(order), *arrays[0].shape[1:]), arrays[0].dtype
    header = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(kind)}
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, len(order), PIECE):
            piece = order[start : start + PIECE]
            rows = np.empty((len(piece), *shape[1:]), dtype=kind)
            for number in np.unique(piece[:, 0]):
                here = np.flatnonzero(piece[:, 0] == number)
                rows[here] = arrays[number][piece[here, 1]]
            out.write(rows)


def read_segment(folder: Path) -> Segment:
    """A segment, memory-mapped. FileNotFoundError if a part of it is missing, ValueError if parts do not fit."""
    names = ("keys", "codes", "facts", *(["vectors"] if (folder / "vectors.npy").is_file() else []))
    found = {"vectors": None} | {name: _part(folder / f"{name}.npy", *PARTS[name]) for name in names}
    for name in ("paths", "labels"):
        raw, ends = (_part(folder / f"{name}{which}.npy", *PARTS[which]) for which in ("", "-ends"))
        found[name] = Texts(raw, ends)
    segment = Segment(**found)
    rows = {name: len(part) for name, part in vars(segment).items() if part is not None}
    if len(set(rows.values())) > 1:
        raise Damaged(f"{folder} is damaged: its parts have unequal numbers of rows, {rows}.")
    return segment


def _part(file: Path, ndim: int, kind: type) -> np.ndarray:
    array = read_array(file)
    if array.ndim != ndim or array.dtype not in (kind, np.float32 if kind is np.float16 else kind):
        raise Damaged(f"{file} is {array.dtype} of shape {array.shape}, but it must be {kind.__name__} of {ndim} axes.")
    return array


def writing(folder: Path) -> AbstractContextManager[None]:
    """The right to write to an index; it ends with the process, even if killed. RuntimeError if another has it."""
    return held(folder, "indexing")


class Store:
    """The segments of an index and what it says of itself.

    Raises:
        FileNotFoundError: if there is no index in the folder.
        ValueError: if it is damaged, or of another format.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for last in (False, True):  # a writer may delete a segment between the two steps of reading
            try:
                self.read()
                return
            except FileNotFoundError:
                if last or not (folder / "index.json").is_file():
                    raise

    @classmethod
    def create(cls, folder: Path, about: dict) -> "Store":
        """An index without rows."""
        _write(folder, about | {"format": FORMAT, "segments": []})
        return cls(folder)

    def read(self) -> None:
        """Read again what is on disk."""
        about = about_of(self.folder)
        names = about.pop("segments")
        segments = [read_segment(self.folder / "segments" / name) for name in names]
        self.about, self.names, self.segments = about, names, segments

    def check(self, bits: int, wide: int | None) -> None:
        """Raise ValueError unless codes have `bits` bits and vectors `wide` numbers; None: there are no vectors."""
        for name, segment in zip(self.names, self.segments, strict=True):
            if bits % 8 or segment.codes.shape[1:] != (bits // 8,):  # what is longer than a byte, to the end
                with reading(self.folder / "segments" / name / "codes.npy", f"codes of {bits} bits"):
                    check_packed("codes", np.asarray(segment.codes), bits)
            found = None if segment.vectors is None else segment.vectors.shape[1]
            if found != wide:
                raise Damaged(f"{self.folder / 'segments' / name} has {found or 'no'} numbers a vector, but this index "
                              f"needs {wide or 'none'}.")  # fmt: skip

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    def find(self, paths: Sequence[str]) -> list[tuple[int, int] | None]:
        """The segment and the row of each path; None if it is not in the index."""
        keys, found = np.array([*map(key_of, paths)], dtype=np.uint64), [None] * len(paths)
        for number, segment in enumerate(self.segments):
            rows = np.searchsorted(segment.keys, keys)
            for i in np.flatnonzero(np.take(segment.keys, rows, mode="clip") == keys):
                if segment.paths[rows[i]] == paths[i]:
                    found[i] = number, int(rows[i])
        return found

    def rows(self) -> Iterator[tuple[Segment, int]]:
        """Every segment with each of its rows."""
        return ((segment, row) for segment in self.segments for row in range(len(segment)))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The right to write, see `writing`; what others wrote before is read first."""
        with writing(self.folder):
            self.read()
            yield

    def change(self, new: Sequence[Segment] = (), dropped: Iterable[str] = ()) -> int:
        """Add rows and drop paths, in one step -> how many rows are gone. New rows of a path take the place of the old.

        Small segments are merged with the new rows, so that there are never many.
        """
        gone = [place for place in self.find([*dropped]) if place]
        replaced = [place for segment in new for place in self.find(segment.paths) if place]
        kept = [np.ones(len(segment), dtype=bool) for segment in self.segments]
        for number, row in gone + replaced:
            kept[number][row] = False
        size = sum(map(len, new))
        merged = [n for n, k in enumerate(kept) if not k.all() or len(k) <= size]
        sources = [self.segments[n] for n in merged] + [*new]
        rows = [np.flatnonzero(kept[n]) for n in merged] + [np.arange(len(segment)) for segment in new]
        names = [name for number, name in enumerate(self.names) if number not in merged]
        _write(self.folder, self.about | {"segments": names + self._merge(sources, rows), "built": True})
        self.read()
        self._tidy()
        return len(gone)

    def _merge(self, sources: list[Segment], rows: list[np.ndarray]) -> list[str]:
        """New segments of these rows of these segments -> their names."""
        if not sum(map(len, rows)):
            return []
        order = np.concatenate([np.stack([np.full(len(r), n), r], axis=1) for n, r in enumerate(rows)])  # (n, 2)
        keys = np.concatenate([source.keys[r] for source, r in zip(sources, rows, strict=True)])
        order, names = order[np.argsort(keys, kind="stable")], []
        for start in range(0, len(order), LARGEST):
            names.append(uuid.uuid4().hex)
            write_segment(self.folder / "segments" / names[-1], sources, order[start : start + LARGEST])
        return names

    def _tidy(self) -> None:
        """Delete segments that index.json does not name: replaced ones, and those of a writer that was killed."""
        for folder in (self.folder / "segments").glob("*"):
            if folder.name not in self.names:
                shutil.rmtree(folder, ignore_errors=True)  # a reader may still have it open where that forbids it


def about_of(folder: Path) -> dict:
    """What the index in a folder says of itself, checked; FileNotFoundError or ValueError as for `Store`."""
    file = folder / "index.json"
    if not file.is_file():
        raise FileNotFoundError(f"there is no index in {folder}; `hhlib index FOLDER` makes one.")
    about = read_json(file, "what an index says of itself")
    with reading(file, "what an index says of itself"):
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, but this version reads {FORMAT}")
        for name in about["segments"]:  # which are below this folder, and nowhere else
            if not isinstance(name, str) or not re.fullmatch("[0-9a-f]{32}", name):
                raise ValueError(f"it has the segment {name!r}, but each must be 32 letters and digits")
        check_choice("built", about["built"], (True, False))
        if "root" in about:  # else rows without pictures
            if not isinstance(about["root"], str) or not Path(about["root"]).is_absolute():
                raise ValueError(f"root is {about['root']!r}, but it must be the absolute path of a folder")
            check_choice("level", about["level"], (None, 0, 1))
            check_choice("vectors", about["vectors"], ("outputs", "backbone", "none"))
    return about


def _write(folder: Path, about: dict) -> None:
    with atomic(folder / "index.json") as draft:
        draft.write_text(json.dumps(about, indent=1), encoding="utf-8")
