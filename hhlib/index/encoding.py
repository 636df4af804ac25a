"""From files to rows: pictures are opened by threads, looked at in batches, and kept in blocks as they come.

A block on disk is a segment whose codes are still empty and whose vectors are what the encoder saw. Encoding that was
stopped resumes after the last block, and no picture is looked at twice.
"""

import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from hhlib import retrieval
from hhlib.common import usable_cores
from hhlib.data import Scan, told
from hhlib.data.files import Unusable, fact_of, read_picture
from hhlib.encoder import Encoder
from hhlib.index.store import Segment, Texts, key_of, read_segment, write_segment

BLOCK = 512  #: pictures between two blocks on disk, at least
MOST_BLOCKS = 256  #: of one change: each is a few open files
BATCH = 64  #: pictures that the encoder gets at once


@dataclass(frozen=True)
class Picture:
    """A file to be indexed."""

    path: str  #: as the index names it
    file: Path
    label: str
    fact: int  #: changes with the file, see `hhlib.data.files.fact_of`


def is_gone(file: Path) -> bool:
    """Whether a file that is not among the pictures is really no picture any more, and not only out of reach."""
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return file.exists()  # False: a link that leads nowhere now


@dataclass
class Report:
    """What a change of an index did."""

    encoded: int = 0  #: pictures that were looked at
    kept: int = 0  #: pictures whose row was there already
    removed: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)  #: reason -> pictures that cannot be used
    ignored: dict[str, list[str]] = field(default_factory=dict)  #: reason -> what is no picture

    def __str__(self) -> str:
        counts = f"pictures: {self.encoded:,} encoded, {self.kept:,} there already, {self.removed:,} removed"
        counts += f"; left out: {told(self.left_out)}" if self.left_out else ""
        return counts + (f"; passed over: {told(self.ignored)}" if self.ignored else "")


class Blocks:
    """What was looked at and is not in an index yet, in a folder of its own per backbone or network."""

    def __init__(self, where: Path, encoder: Encoder):
        self.folder = where / "blocks" / encoder.digest(looking=True)[:16]

    def read(self) -> Iterator[Segment]:
        """The blocks on disk, one after the other; a damaged one is deleted, and its pictures are looked at again."""
        for folder in self._folders():
            try:
                yield read_segment(folder)
            except (ValueError, FileNotFoundError) as error:
                print(f"{error} Its pictures are looked at again.")
                shutil.rmtree(folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*"))

    def write(self, pictures: Sequence[Picture], seen: np.ndarray) -> None:
        """Keep what was seen of some pictures, all or nothing."""
        draft, number = self.folder / "draft", max((int(folder.name) + 1 for folder in self._folders()), default=0)
        shutil.rmtree(draft, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_segment(draft, [_segment(pictures, seen)], np.stack([np.zeros(len(seen), int), np.arange(len(seen))], 1))
        draft.rename(self.folder / f"{number:08d}")

    def clear(self) -> None:
        """Delete them all: in one step out of the way, so that half a block is never read."""
        done = self.folder.with_name("done")
        shutil.rmtree(done, ignore_errors=True)
        if self.folder.is_dir():
            self.folder.rename(done)
        shutil.rmtree(self.folder.parent, ignore_errors=True)


def _segment(pictures: Sequence[Picture], seen: np.ndarray) -> Segment:
    n = len(pictures)
    keys = np.array([key_of(picture.path) for picture in pictures], dtype=np.uint64)
    facts = np.array([picture.fact for picture in pictures], dtype=np.uint64)
    paths, labels = (Texts.of(getattr(picture, name) for picture in pictures) for name in ("path", "label"))
    return Segment(keys, np.empty((n, 0), np.uint8), facts, paths, labels, seen)


def files_in(found: Scan, report: Report) -> list[Path]:
    """The pictures of a folder; files that cannot be used are in the report."""
    for kept, reasons in ((report.left_out, found.trouble), (report.ignored, found.ignored)):
        for reason, paths in reasons.items():
            kept.setdefault(reason, []).extend(paths)
    return [found.root / path for path in found.paths]


def pictures_of(files: Sequence[Path], root: Path, level: int | None, report: Report) -> list[Picture]:
    """Files as an index names them, in the order of their keys. FileNotFoundError if one is missing.

    level: which folder below `root` names the class, see `label_level`.
    """
    if missing := [file for file in files if not file.is_file()]:
        others = f" ({len(missing)} of {len(files)} are missing)" if len(files) > 1 else ""
        raise FileNotFoundError(f"there is no file {missing[0]}{others}.")
    pictures = []
    for file in files:
        path = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
        folders = path.split("/")[:-1] if file.is_relative_to(root) and level is not None else []
        label = unicodedata.normalize("NFC", "".join(folders[level : level + 1]) if folders else "")  # as `scan` does
        pictures.append(Picture(path, file, label, fact_of(file)))
    return sorted(pictures, key=lambda picture: key_of(picture.path))


def label_level(found: Scan) -> int | None:
    """Which folder on a path names a picture's class: 0 the first, 1 the second (train/cat/1.jpg); None: none."""
    return 1 if found.parts else 0 if any(found.labels) else None


def seen(blocks: Blocks, pictures: Sequence[Picture]) -> np.ndarray:
    """What was seen of these pictures, in the order of their keys: (n, D). ValueError if none could be opened."""
    wanted = {picture.path: picture.fact for picture in pictures}
    keys, rows = [], []
    for block in blocks.read():
        here = _rows(block, wanted)
        keys.append(block.keys[here])
        rows.append(block.vectors[here])
    if not sum(map(len, keys)):
        raise ValueError(f"none of the {len(pictures):,} pictures can be opened, beginning with {pictures[0].file}.")
    return np.concatenate(rows)[np.argsort(np.concatenate(keys))]


def _rows(block: Segment, wanted: dict[str, int]) -> np.ndarray:
    """The rows of a block whose pictures are wanted (path -> fact), as they are now."""
    return np.flatnonzero([wanted.get(p) == int(fact) for p, fact in zip(block.paths, block.facts, strict=True)])


def look(encoder: Encoder, pictures: Iterable[Picture], blocks: Blocks, report: Report, workers: int | None) -> None:
    """Look at the pictures that no block has yet, and keep what was seen in blocks."""
    done = {(path, int(fact)) for block in blocks.read() for path, fact in zip(block.paths, block.facts, strict=True)}
    todo = [picture for picture in pictures if (picture.path, picture.fact) not in done]
    held, seen, block = [], [], max(BLOCK, len(todo) // MOST_BLOCKS)
    try:
        with tqdm(total=len(todo), desc="encoding", unit="picture", disable=not todo) as bar:
            for some, found in _opened(todo, encoder.size, workers):
                for picture, wrong in zip(some, found, strict=True):
                    if isinstance(wrong, str):
                        report.left_out.setdefault(wrong, []).append(picture.path)
                if good := [n for n, image in enumerate(found) if isinstance(image, Tensor)]:
                    seen.append(encoder.look(torch.stack([found[n] for n in good])))
                    held += [some[n] for n in good]
                    report.encoded += len(good)
                bar.update(len(some))
                if len(held) >= block:
                    blocks.write(held, np.concatenate(seen))
                    held, seen = [], []
    finally:  # even after Ctrl-C, or a picture that the network cannot take
        if held:
            done = np.concatenate(seen)[: len(held)]
            blocks.write(held[: len(done)], done)


def _opened(pictures: Sequence[Picture], size: int, workers: int | None) -> Iterator[tuple]:
    """Batches of pictures, in order, and of each the opened one (3, S, S) or the reason why it cannot be used.

    Threads open the next batch while the encoder looks at this one.
    """
    batches = (pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH))
    with ThreadPoolExecutor(max(1, usable_cores() if workers is None else workers)) as pool:
        begun = ((some, pool.map(lambda picture: _open(picture.file, size), some)) for some in batches)
        for (some, found), _ in pairwise(chain(begun, [((), ())])):
            yield some, [*found]


def _open(file: Path, size: int) -> Tensor | str:
    try:
        return read_picture(file, size)
    except Unusable as error:
        return error.reason


def coded(encoder: Encoder, block: Segment, wanted: dict[str, int], vectors: str) -> Segment | None:
    """The rows of a block that are wanted (path -> fact), with codes, and with the `vectors` that an index keeps."""
    rows = _rows(block, wanted)
    if not len(rows):
        return None
    seen = block.vectors if len(rows) == len(block) else block.vectors[rows]  # (n, D) or (n, K); a map stays one
    z = encoder.outputs(seen)  # (n, K)
    kept = {"outputs": z.numpy().astype(np.float16), "backbone": seen, "none": None}[vectors]
    paths, labels = (Texts.of(texts[row] for row in rows) for texts in (block.paths, block.labels))
    return Segment(block.keys[rows], retrieval.pack(z), block.facts[rows], paths, labels, kept)
