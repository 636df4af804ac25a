"""An index against a dict, through long random sequences of what people and machines do to it.

The dict says which picture each row stands for; whatever happened, the index has these rows and no others, finds what
comparing with each of them finds, and a writer that was killed has left the old rows or the new ones.

`pytest tests/test_index_machine.py --hypothesis-profile long` takes minutes.
"""

import io
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import several
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from moments import Moments
from PIL import Image

import hhlib as hh

BITS, PICTURES = 8, 6
BROKEN = PICTURES  #: number of a file that is no picture
INSIDE = ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "loose.png"]
OUTSIDE = ["out/0.png", "out/1.png"]

numbers = st.integers(0, PICTURES - 1)
some_names = st.lists(st.sampled_from(INSIDE + OUTSIDE), min_size=1, max_size=3, unique=True)
one_name = st.sampled_from(INSIDE + OUTSIDE)


TRAINED = tempfile.TemporaryDirectory()


@cache
def known() -> tuple[list[bytes], torch.Tensor]:
    """Files of pictures and of no picture, and what a trained network says of the pictures: z (n, K)."""
    learns = dict(epochs=12, small_epochs=0, batch_size=10, learning_rate=0.02, validate_every=12, net=several.SMALL)
    how = several.how("greedyhash", bits=BITS, **learns)
    run = hh.training.fit(several.small_digits(), hh.runs.Run(TRAINED.name), how, reports=[])
    images = hh.data.load("digits").query.pool.images
    z = hh.encoder.encoder_of(run)(images)
    clear = (z.abs().amin(dim=1) > 0.02).nonzero().flatten().tolist()  # none of their bits is a matter of rounding
    first = {tuple((z[row] >= 0).tolist()): row for row in reversed(clear)}  # a picture of each code, then more
    chosen = [*first.values(), *(row for row in clear if row not in first.values())][:PICTURES]
    assert len(chosen) == PICTURES
    assert len(first) > 2
    files = []
    for image in images[chosen]:
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(raw := io.BytesIO(), "png")
        files.append(raw.getvalue())
    return [*files, b"no picture"], z[chosen]


class Machine(RuleBasedStateMachine):
    """`files`: name -> picture, on disk; `rows`: name -> picture, in the index; `seen`: those of an older reader."""

    def __init__(self):
        super().__init__()
        known()
        self.home = Path(tempfile.mkdtemp())
        self.where, self.clock = self.home / "index", 0
        self.files, self.rows = {}, {}

    def teardown(self):
        shutil.rmtree(self.home)

    @initialize(first=st.lists(numbers, min_size=2, max_size=3))
    def build(self, first):
        for name, number in zip(INSIDE[1:], first, strict=False):
            self.paint(name, number)
        self.build_index()
        self.rows = dict(self.files)
        self.read_now()

    def build_index(self) -> None:
        """Make the index, or bring it up to date."""
        how = dict(run=TRAINED.name, where=self.where, precision="float32", device="cpu", workers=0)
        self.index = hh.index.build(self.home / "in", **how)

    # --- files change -------------------------------------------------------------------------------------------------

    def place(self, name: str) -> Path:
        """Where a file is."""
        return self.home / name if name in OUTSIDE else self.home / "in" / name

    @rule(name=one_name, number=st.integers(0, BROKEN))
    def paint(self, name, number):
        file, self.clock = self.place(name), self.clock + 1
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(known()[0][number])
        os.utime(file, ns=(0, self.clock * 10**9))
        self.files[name] = number

    @rule(name=one_name)
    def delete(self, name):
        self.place(name).unlink(missing_ok=True)
        self.files.pop(name, None)

    @rule(old=one_name, new=one_name)
    def rename(self, old, new):
        if old in self.files and old != new:
            self.place(new).parent.mkdir(parents=True, exist_ok=True)
            self.place(old).replace(self.place(new))
            self.files[new] = self.files.pop(old)

    # --- the index follows --------------------------------------------------------------------------------------------

    def refusal(self, change: str, names: list[str]) -> tuple | None:
        """The error that a change must end with, if any."""
        if change == "add" and any(name not in self.files for name in names):
            return FileNotFoundError, "there is no file"
        if change == "remove" and any(name not in self.rows for name in names):
            return ValueError, "is not in the index"
        if change == "update" and self.rows and not any(name in INSIDE for name in self.files):
            return ValueError, "Nothing was removed"
        return None

    def expected(self, change: str, names: list[str]) -> dict[str, int]:
        """The rows after a change."""
        if change == "remove":
            return {name: number for name, number in self.rows.items() if name not in names}
        if change == "save":
            return self.rows
        if change == "update":
            names = [name for name in self.files if name in INSIDE or name in self.rows]
        looked = {name: self.files[name] for name in names}
        kept = {name: number for name, number in self.rows.items() if change == "add" or name in names}
        return {name: number for name, number in (kept | looked).items() if number != BROKEN}

    def change(self, change: str, names: list[str]) -> None:
        """Let the index do something."""
        files = [self.place(name) for name in names]
        arguments = {"add": [files], "remove": [files], "update": [], "save": []}[change]
        getattr(self.index, change)(*arguments)

    @rule(change=st.sampled_from(["add", "remove", "update", "save"]), names=some_names)
    def change_index(self, change, names):
        if refusal := self.refusal(change, names):
            with pytest.raises(refusal[0], match=refusal[1]):
                self.change(change, names)
        else:
            rows = self.expected(change, names)
            self.change(change, names)
            self.rows = rows

    @rule(change=st.sampled_from(["add", "remove", "update", "save"]), names=some_names, write=st.integers(0, 40))
    def change_killed(self, change, names, write):
        """A change is killed just before a write; another process opens what is left."""
        if self.refusal(change, names):
            return
        after = self.expected(change, names)
        with Moments(self.where, self.home / "killed", wanted=write) as moments:
            self.change(change, names)
        if not moments.copies:
            self.rows = after
            return
        shutil.rmtree(self.where)
        moments.copies[0].rename(self.where)
        self.reopen()
        there = {*self.names(self.index)}
        self.rows = after if self.state(self.index) == self.codes(after) else self.rows
        assert there == {*self.rows}

    @rule()
    def reopen(self):
        self.index = hh.index.open(self.where, device="cpu")

    @rule()
    def build_again(self):
        if not self.refusal("update", []):
            rows = self.expected("update", [])
            self.build_index()
            self.rows = rows

    @precondition(lambda self: self.rows)
    @rule()
    def copy(self):
        other = self.index.save(self.home / f"copy{self.clock}")
        assert self.state(other) == self.state(self.index)
        shutil.rmtree(other.where)

    # --- and is looked at ---------------------------------------------------------------------------------------------

    @rule()
    def read_now(self):
        """Somebody opens the index to search, and keeps it open."""
        self.reader, self.seen = hh.index.open(self.where, device="cpu"), dict(self.rows)

    @rule(number=numbers, k=st.integers(1, 9), late=st.booleans())
    def search(self, number, k, late):
        index, rows = (self.reader, self.seen) if late else (self.index, self.rows)
        found = index.search(Image.open(io.BytesIO(known()[0][number])), k)
        z = known()[1]
        unit = torch.nn.functional.normalize(z.half().double(), dim=1)
        distance = ((z >= 0) != (z[number] >= 0)).sum(dim=1).tolist()  # of every picture
        similar = (unit @ unit[number]).tolist()
        values = {name: (distance[row], -similar[row]) for name, row in rows.items()}
        nearest = sorted(values.values())[:k]
        assert [hit.distance for hit in found] == [d for d, _ in nearest]
        np.testing.assert_allclose([-hit.similarity for hit in found], [s for _, s in nearest], atol=1e-3)
        names = {self.place(name): name for name in rows}
        assert len({hit.path for hit in found}) == len(found)
        for hit in found:  # each hit is what it says
            d, s = values[names[hit.path]]
            assert hit.distance == d
            assert hit.similarity == pytest.approx(-s, abs=1e-3)

    def names(self, index) -> list[str]:
        """The rows of an index, by the names of this machine."""
        names = {str(self.place(name)): name for name in OUTSIDE}
        return [names.get(path, path) for path in index.paths]

    def state(self, index) -> dict[str, tuple]:
        """What an index holds: name -> code and label."""
        rows = zip(self.names(index), index.codes, index.labels, strict=True)
        return {name: (code.tobytes(), label) for name, code, label in rows}

    def codes(self, rows: dict[str, int]) -> dict[str, tuple]:
        """What an index of these rows must hold."""
        packed = hh.retrieval.pack(known()[1])
        labels = {name: name.split("/")[0] if name.startswith(("a/", "b/")) else "" for name in rows}
        return {name: (packed[row].tobytes(), labels[name]) for name, row in rows.items()}

    @invariant()
    def the_index_has_the_rows(self):
        assert self.state(self.index) == self.codes(self.rows)
        assert len(self.index) == len(self.rows)


TestIndex = Machine.TestCase
TestIndex.settings = settings(max_examples=settings.default.max_examples // 10)  # each has many steps
