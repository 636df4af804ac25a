"""Lists of pictures and their labels."""

import gzip
import os
import struct
import zlib

import numpy as np

from hhlib import data
from hostile import hostile, refused


def read(folder, content):
    """One list; a number of lists is a folder of them."""
    (folder / "train.txt").write_bytes(content)
    return data.read_list(folder / "train.txt")


def gzipped(deflated: bytes, size: int = 0) -> bytes:
    """A gzip file around what may be no valid deflate, with a wrong checksum."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflated + struct.pack("<II", 0, size)


LINE = b"a.jpg 1 0\n"
refused(
    "list",
    read,
    [
        ("nothing", b"", "train.txt lists no image"),
        ("blank lines only", b"\n \n\t\n", "train.txt lists no image"),
        ("a label of 2", LINE + b"b.jpg 1 2\n", "line 2: a label is '2', but it must be 0 or 1"),
        ("a label of -1", LINE + b"b.jpg -1 1\n", "line 2: a label is '-1'"),
        ("a label of a half", LINE + b"b.jpg 0.5 1\n", "line 2: a label is '0.5'"),
        ("a label that is not a number", LINE + b"b.jpg nan 1\n", "line 2: there are 1 labels, but 2 are expected"),
        ("a label of 4,000 digits", LINE + b"b.jpg 1 " + b"9" * 4000, "line 2: a label is '999"),
        ("class numbers", b"a.jpg 0\nb.jpg 1\n", "one number per line, but a label is a 0 or 1 for each class"),
        ("no label", b"a.jpg\n", "line 1: there is no label after the path"),
        ("another number of labels", LINE + b"b.jpg 1 0 1\n", "line 2: there are 3 labels, but 2 are expected"),
        ("labels without a path", LINE + b"0 1\n", "line 2: there are 1 labels, but 2 are expected"),
        ("a path that leaves the root", b"../../etc/passwd 1 0\n", "'../../etc/passwd' leaves the root folder"),
        ("a path that leaves it in the middle", b"x/../../a.jpg 1 0\n", "leaves the root folder"),
        ("a path that leaves it by backslashes", b"..\\..\\a.jpg 1 0\n", "leaves the root folder"),
        ("an absolute path", b"/etc/passwd 1 0\n", "'/etc/passwd' leaves the root folder"),
        ("a path with a drive", b"C:\\a.jpg 1 0\n", "leaves the root folder"),
        ("the same path twice", LINE + b"./a.jpg 1 0\n", "line 2: 'a.jpg' is on line 1 already"),
        ("bytes that are no text", b"a\xff.jpg 1 0\n", "is not UTF-8 text"),
        ("UTF-16", LINE.decode().encode("utf-16"), "train.txt is UTF-16 text, but it must be UTF-8"),
        ("gzip, cut short", gzip.compress(LINE * 50, mtime=0)[:30], "is a gzip file that is damaged or cut short"),
        ("gzip with a wrong sum", gzipped(zlib.compress(LINE, wbits=-15), len(LINE)), "is a gzip file that"),
        ("gzip of what cannot be unpacked", gzipped(b"\xff" * 20), "train.txt"),
        ("gzip of 20 KB that unpacks to a line of 4 MB", gzip.compress(b"x" * (4 << 20), 1, mtime=0), "has more than"),
    ],
)


@hostile("list", "a pipe that nobody writes to", says="train.txt")
def _(folder):
    os.mkfifo(folder / "train.txt")
    data.read_list(folder / "train.txt")


@hostile("list", "a folder in its place", says="train.txt")
def _(folder):
    (folder / "train.txt").mkdir()
    data.read_list(folder / "train.txt")


@hostile("list", "a device that never ends in its place", says="train.txt")
def _(folder):
    (folder / "train.txt").symlink_to("/dev/zero")
    data.read_list(folder / "train.txt")


@hostile("list", "tabs between labels, one of them after a blank", gives="the labels")
def _(folder):
    assert read(folder, b"x\t 0\t1").labels.tolist() == [[0, 1]]


@hostile("list", "letters that run from right to left in a path", gives="a path like any other")
def _(folder):
    assert read(folder, "a/\u202egpj.exe 1 0\n".encode()).paths == ["a/\u202egpj.exe"]


@hostile("list", "a path with markup and a quote", gives="a path like any other")
def _(folder):
    assert read(folder, b"<script>'\".jpg 1 0\n").paths == ["<script>'\".jpg"]


def three(folder, **changed):
    """Three lists of two classes, some of them changed, and the split that they make."""
    texts = {"test": "a.jpg 1 0\n", "train": "b.jpg 0 1\n", "database": "c.jpg 0 1\n"} | changed
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return data.read_lists(folder)


refused(
    "list",
    lambda folder, changed: three(folder, **changed),
    [
        ("a query that is in the database too", {"database": "a.jpg 1 0\n"}, "1 of the 1 query images"),
        ("a picture with other labels in another list", {"database": "b.jpg 1 0\n"}, "database.txt line 1: 'b.jpg'"),
        ("lists of different numbers of classes", {"database": "c.jpg 1 0 0\n"}, "but train.txt has 2"),
        ("classes.txt that is no text", {"classes": b"caf\xe9\ndog\n"}, "classes.txt is not UTF-8 text"),
        ("classes.txt with a name too few", {"classes": "cat"}, "test.txt"),
    ],
)


@hostile("list", "class names with markup, dollars and a mark that turns the direction", gives="names like any other")
def _(folder):
    names = ["<script>alert(1)</script>", "Ba$$in \u202e"]
    split = three(folder, classes="\n".join(names))
    assert split.classes == names
    assert np.array_equal(split.query.labels.numpy(), [[1, 0]])
