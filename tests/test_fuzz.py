"""The fuzzer sees what is wrong with a reader, and the inputs that it makes get past checksums."""

import io
import os
import signal
import zipfile
from random import Random

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def found(from_tools):
    """``found(read)`` is what the fuzzer says of a reader that is given one file."""
    fuzz, readers = (from_tools(name) for name in ("fuzz", "fuzz_readers"))

    def said(read):
        wrong = fuzz.lone(readers.Reader(None, read, ()), {"own.txt": b"x"})
        return wrong and wrong[0]

    return said


def raising(error):
    def read(folder):
        raise error

    return read


def test_a_result_and_a_sentence_that_names_the_file_are_no_findings(found):
    assert found(lambda folder: (folder / "own.txt").read_bytes()) is None
    assert found(raising(ValueError("own.txt is empty."))) is None
    assert found(lambda folder: (folder / "gone.txt").read_bytes()) is None  # OSError


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (raising(KeyError("a")), "KeyError at "),
        (raising(RecursionError()), "RecursionError at "),
        (raising(ValueError("")), "ValueError without words at "),
        (raising(ValueError("own.txt is\nempty")), "ValueError of several lines at "),
        (raising(ValueError("own.txt is " + "x" * 3000)), "ValueError too long at "),
        (raising(ValueError("it is empty")), "ValueError that names no file at "),
        (lambda folder: bytes(5 << 30), "MemoryError at "),
        (lambda folder: os.kill(os.getpid(), signal.SIGSEGV), "ended by SIGSEGV"),
        (lambda folder: (folder.parent / "new").touch(), "a file outside of its folder: ['new']"),
    ],
)
def test_everything_else_is_a_finding(found, read, words):
    assert found(read).startswith(words)


def test_an_endless_loop_is_a_finding(found, from_tools, monkeypatch):
    monkeypatch.setattr(from_tools("fuzz"), "SECONDS", 0)  # and one that is always given

    def endless(folder):
        while True:
            pass

    assert found(endless).startswith("computes for more than")


def test_one_seed_makes_the_same_inputs(from_tools):
    mutate = from_tools("mutate")
    corpus = [{"a.json": b'{"a": [1, 2]}', "b.txt": b"x 0 1\ny 1 0\n"}, {"a.json": b"{}", "b.txt": b""}]
    first, second = (mutate.Mutator(Random("1"), (b"word",)) for _ in range(2))
    made = [first.case(corpus) for _ in range(50)]
    assert made == [second.case(corpus) for _ in range(50)]
    assert sum(case not in corpus for case in made) > 30


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damage_inside_a_structure_leaves_it_readable(from_tools):
    mutator = from_tools("mutate").Mutator(Random("1"))
    png, zipped, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    np.save(array, np.arange(9))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.npy", array.getvalue())
    for _ in range(30):
        with zipfile.ZipFile(io.BytesIO(mutator.in_zip(zipped.getvalue()))) as archive:
            assert archive.testzip() is None
        changed = mutator.in_png(png.getvalue())
        assert changed.startswith(b"\x89PNG\r\n\x1a\n")
        assert mutator.in_array(array.getvalue())[:6] == b"\x93NUMPY"
