"""The pictures of a folder, coded and kept on disk: search them, add some, remove some.

    index = hh.index.build("animals", network="lite0")
    for path, distance, similarity in index.search("new.jpg", k=10):
        print(path, distance, similarity)

Changes are on disk when they return; `Index.save` makes a copy elsewhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hhlib import encoder as encoders
from hhlib import retrieval, training
from hhlib.common import check_whole, nearest, resolve
from hhlib.data import ImageFiles, scan, square_picture
from hhlib.index import encoding, searching
from hhlib.index.encoding import Picture, Report
from hhlib.index.store import Store


class Hit(NamedTuple):
    """A picture that was found."""

    path: Path  #: its file
    distance: int  #: bits in which the codes differ
    similarity: float  #: cosine of the two vectors, -1 to 1; without vectors, of the two codes as -1 and +1


@dataclass(frozen=True)
class Coded:
    """Pictures as queries: what `Index.encode` makes, and `Index.search` takes."""

    z: Tensor  #: (Q, K) float32; a bit is z >= 0
    vectors: np.ndarray | None  #: (Q, D) float16, to break ties
    model: str  #: digest of the encoder that made them

    def __len__(self) -> int:
        return len(self.z)


class Index:
    """An index on disk; `hhlib.index.build` makes one, `hhlib.index.open` opens one.

    Attributes:
        where: its folder.
        root: the folder of the pictures.
        bits: code length K.
        model: digest of what makes the codes.
        vectors: what is kept to break ties: "outputs" of the network, the "backbone"'s vectors, or "none".
        report: what the last change did.
    """

    def __init__(self, where: Path, device: str = "auto"):
        self.where, self.store = where, Store(where)
        self.encoder = encoders.load(where / "encoder").to(training.choose_device(device))
        about = self.store.about
        self.root, self.vectors, self.bits = Path(about["root"]), about["vectors"], self.encoder.bits
        self.model, self.report = self.encoder.digest(), Report()
        if self.model != about["model"]:
            raise ValueError(f"{where / 'encoder'} is not the encoder of this index; build the index again elsewhere.")
        wide = {"none": None, "outputs": self.bits}.get(self.vectors, getattr(self.encoder.backbone, "num_features", 0))
        self.store.check(self.bits, wide)

    def __len__(self) -> int:
        return len(self.store)

    def __repr__(self) -> str:
        about = self.encoder.about
        how = about["parameters"]["method"] if "parameters" in about else about["fitted"]
        kept = "no vectors" if self.vectors == "none" else f"vectors of the {self.vectors}"
        what = f"{self.bits} bits of {self.encoder.model['name']} ({how}), {kept}"
        return f"{len(self):,} pictures of {self.root}: {what}; in {self.where}"

    @property
    def paths(self) -> list[str]:
        """Of all pictures, in the index's order: below `root`, or absolute."""
        return [segment.paths[row] for segment, row in self.store.rows()]

    @property
    def labels(self) -> list[str]:
        """Of all pictures, in the same order: the folder of its class, "" where there is none."""
        return [segment.labels[row] for segment, row in self.store.rows()]

    @property
    def codes(self) -> np.ndarray:
        """Packed codes of all pictures, in the same order: (n, ceil(K/8)) uint8."""
        width = -(-self.bits // 8)
        return np.concatenate([np.empty((0, width), np.uint8), *(segment.codes for segment in self.store.segments)])

    def label(self, path: str | Path) -> str:
        """The label of a picture of the index."""
        number, row = self._place(path)
        return self.store.segments[number].labels[row]

    def encode(self, what) -> Coded:
        """Pictures as this index codes them.

        Args:
            what: the path of a picture or a list of paths, a picture opened by Pillow, or pictures (n, 3, S, S) uint8.
        """
        seen = np.concatenate([self.encoder.look(images) for images in self._batches(what)])
        z = self.encoder.outputs(seen)  # (Q, K)
        vectors = {"outputs": z.numpy().astype(np.float16), "backbone": seen, "none": None}[self.vectors]
        return Coded(z, vectors, self.model)

    def _batches(self, what) -> Iterable[Tensor]:
        size = self.encoder.size
        if isinstance(what, Tensor):
            return what.split(encoding.BLOCK)
        if isinstance(what, Image.Image):
            return [square_picture(what, size)[None]]
        files = ImageFiles(
            "/", [str(resolve(path)) for path in ([what] if isinstance(what, str | Path) else what)], size
        )
        return (files[start : start + encoding.BATCH] for start in range(0, len(files), encoding.BATCH))

    @overload
    def search(self, query: str | Path | Image.Image, k: int = 10, *, rerank: int = 0) -> list[Hit]: ...
    @overload
    def search(self, query: list | Tensor, k: int = 10, *, rerank: int = 0) -> list[list[Hit]]: ...
    @overload
    def search(self, query: Coded, k: int = 10, *, rerank: int = 0) -> list[Hit] | list[list[Hit]]: ...

    def search(self, query, k: int = 10, *, rerank: int = 0) -> list[Hit] | list[list[Hit]]:
        """The k pictures that are nearest to a query; a list of such lists for a list of queries.

        Nearest by Hamming distance; among equal distances the most similar vectors first or, without vectors, in a
        seeded order that has nothing to do with folders.

        Args:
            query: what `encode` takes, or what it gives.
            k: 1 or more; fewer are found in a smaller index.
            rerank: so many candidates (at least k) are taken by distance and then ordered by similarity alone; 0: none.

        Raises:
            ValueError: for a query coded by another model, or codes without their model.
        """
        check_whole("k", k, 1)
        check_whole("rerank", rerank, 0)
        if rerank and self.vectors == "none":
            raise ValueError(f"rerank is {rerank}, but this index keeps no vectors; it must be 0.")
        if isinstance(query, Tensor | np.ndarray) and query.dtype != torch.uint8:
            raise ValueError(
                "query is an array, which does not say what coded it; give a picture, or index.encode(it)."
            )
        if isinstance(query, Sequence) and not len(query):
            raise ValueError("query is empty, but it must be a picture, or a list of at least one.")
        coded = query if isinstance(query, Coded) else self.encode(query)
        if coded.model != self.model:
            raise ValueError(
                f"the query was coded by model {coded.model[:12]}, but this index by {self.model[:12]}: their bits "
                "mean different things."
            )
        single = len(coded) == 1 and isinstance(query, str | Path | Image.Image | Coded)
        found = self._search(coded, min(k, len(self)), min(max(rerank, k), len(self)) if rerank else 0)
        return found[0] if single else found

    def _search(self, coded: Coded, k: int, rerank: int) -> list[list[Hit]]:
        segments = self.store.segments
        if not segments:
            return [[] for _ in range(len(coded))]
        codes = retrieval.pack(coded.z)
        if self.vectors == "none":
            distances, rows = searching.nearest(segments, codes, k)
            return [self._hits(r, d, 1 - 2 * d / self.bits) for d, r in zip(distances, rows, strict=True)]
        found = []
        for code, vector in zip(codes, coded.vectors, strict=True):
            distances, rows = searching.with_ties(segments, code[None], rerank or k)
            similar = searching.similarities(segments, vector, rows)
            order = np.lexsort((-similar,) if rerank else (-similar, distances))[:k]  # stable: then the seeded order
            found.append(self._hits(rows[order], distances[order], similar[order]))
        return found

    def _hits(self, rows: np.ndarray, distances: np.ndarray, similar: np.ndarray) -> list[Hit]:
        starts = np.cumsum([0, *map(len, self.store.segments)])
        numbers = np.searchsorted(starts, rows, side="right") - 1
        paths = [self.store.segments[n].paths[row - starts[n]] for n, row in zip(numbers, rows, strict=True)]
        values = zip(paths, distances.tolist(), similar.tolist(), strict=True)
        return [Hit(self.root / path, d, s) for path, d, s in values]

    def add(self, pictures: str | Path | Iterable[str | Path], *, workers: int | None = None) -> Report:
        """Add pictures: a file, files, or a folder with all that is below it. Those that are there already stay.

        A file that changed since is looked at again; one that cannot be read is left out, see `report`.
        """
        report = Report()
        with self.store.writing():
            wanted = self._pictures(pictures, report)
            self._bring(wanted, report, workers)
        return self._done(report)

    def remove(self, pictures: str | Path | Iterable[str | Path]) -> Report:
        """Remove pictures: a file, files, or a folder with all that is below it.

        Their files stay; those in the index's own folder come back with the next `update`. Raises ValueError, before
        anything is removed, for a picture that is not in the index.
        """
        pictures = [pictures] if isinstance(pictures, str | Path) else [*pictures]
        with self.store.writing():
            names = {name for path in pictures for name in self._names(path)}
            report = Report(removed=self.store.change(dropped=names))
        return self._done(report)

    def update(self, *, workers: int | None = None) -> Report:
        """Bring the index up to date with the files: new and changed ones are coded, rows without a file removed.

        Pictures outside the index's folder that were added are looked after too. What is only out of reach (behind a
        link that leads nowhere, in a folder that cannot be read) keeps its row.
        """
        report = Report()
        with self.store.writing():
            wanted = self._pictures(self.root, report)
            if not wanted and len(self):
                raise ValueError(f"{self.root} holds no picture now; is its disk mounted? Nothing was removed.")
            outside = [path for path in self.paths if Path(path).is_absolute()]
            wanted += self._pictures([path for path in outside if Path(path).is_file()], report)
            missing = {*self.paths}.difference(picture.path for picture in wanted)
            self._bring(wanted, report, workers, [path for path in missing if encoding.is_gone(self.root / path)])
        return self._done(report)

    def save(self, where: str | Path | None = None) -> "Index":
        """Write all rows into as few files as can be -> the index; or, in a new folder, a copy of it -> the copy."""
        if where is None:
            with self.store.writing():
                self.store.change(self.store.segments)
            return self
        where = resolve(where)
        if where.exists():
            raise ValueError(f"{where} exists already, but a copy of an index needs a new folder.")
        self.encoder.save_pretrained(where / "encoder")
        Store.create(where, self.store.about | {"built": False}).change(self.store.segments)
        return Index(where, self.encoder.device.type)

    def _done(self, report: Report) -> Report:
        self.report = report
        return report

    def _bring(self, wanted: Sequence[Picture], report: Report, workers: int | None, gone: Sequence[str] = ()) -> None:
        """Rows for the wanted pictures, none for those that are gone; only what is new is looked at."""
        there = self.store.find([picture.path for picture in wanted])
        pairs = zip(wanted, there, strict=True)
        new = [picture for picture, place in pairs if place is None or self._fact(place) != picture.fact]
        report.kept = len(wanted) - len(new)
        blocks = encoding.Blocks(self.where, self.encoder)
        encoding.look(self.encoder, new, blocks, report, workers)
        facts = {picture.path: picture.fact for picture in new}
        broken = {path for paths in report.left_out.values() for path in paths if path in facts}  # readable before?
        parts = (encoding.coded(self.encoder, block, facts, self.vectors) for block in blocks.read())
        report.removed = self.store.change([part for part in parts if part is not None], broken.union(gone))
        blocks.clear()

    def _fact(self, place: tuple[int, int]) -> int:
        number, row = place
        return int(self.store.segments[number].facts[row])

    def _pictures(self, what, report: Report) -> list[Picture]:
        """The files that a caller means; those that cannot be used are in the report."""
        what = [what] if isinstance(what, str | Path) else what
        files = []
        for path in map(resolve, what):
            if path.is_dir():
                files += encoding.files_in(scan(path), report)
            else:
                files.append(path)
        return encoding.pictures_of(files, self.root, self.store.about["level"], report)

    def _place(self, path: str | Path) -> tuple[int, int]:
        file = resolve(path)
        inside = file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else str(file)
        place = next(filter(None, self.store.find([str(path), inside])), None)
        if place is None:
            hint = nearest(path, self.paths) if len(self) < 100_000 else ""
            raise ValueError(f"{path} is not in the index of {self.root}.{hint}")
        return place

    def _names(self, path: str | Path) -> list[str]:
        """A picture as the index names it, or all that are below a folder."""
        folder = resolve(path)
        if folder.is_dir() and (below := [name for name in self.paths if (self.root / name).is_relative_to(folder)]):
            return below
        number, row = self._place(path)
        return [self.store.segments[number].paths[row]]
