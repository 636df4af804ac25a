"""Indexes that others send."""

import json
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

import hhlib as hh
from hostile import hostile, refused
from hostile.networks import small_run


@cache
def built():
    """An index of four pictures, and the folder that goes with the process."""
    whole = tempfile.TemporaryDirectory()
    folder = Path(whole.name)
    for number, name in enumerate("abcd"):
        (folder / "own" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(folder / "own" / name / "1.png")
    (folder / "run").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = small_run(folder / "run")
        hh.index.build(folder / "own", run=run, where=folder / "index", vectors="outputs", workers=0, device="cpu")
    return whole, folder / "index"


def read(folder, change):
    """The nearest of a picture in an index that is changed; ``change(index's folder, its segment)``."""
    shutil.copytree(built()[1], folder / "index")
    change(folder / "index", next((folder / "index" / "segments").iterdir()))
    index = hh.index.open(folder / "index", device="cpu")
    hits = index.search(Image.new("RGB", (8, 8)), k=2)
    assert len(index.paths) == len(index.labels) == len(index.codes) == len(index)
    assert all(0 <= hit.distance <= index.bits for hit in hits)
    return index, hits


def about(**changes):
    """index.json says something else."""

    def change(folder, _):
        content = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps(content | changes))

    return change


def text(content):
    """index.json is this."""
    return lambda folder, _: (folder / "index.json").write_bytes(content)


def array(name, make):
    """An array of the segment is another: bytes, or an array; None: it is missing."""

    def change(_, segment):
        file = segment / f"{name}.npy"
        made = make(np.load(file)) if not isinstance(make, bytes) else make
        if isinstance(made, bytes):
            file.write_bytes(made)
        else:
            np.save(file, made, allow_pickle=True)

    return change


def without(name):
    """A file of the segment is missing."""
    return lambda _, segment: (segment / name).unlink()


def outside(folder, segment):
    """A segment that lies outside of the index."""
    shutil.copytree(segment, folder.parent / "elsewhere")
    about(segments=["../../elsewhere"])(folder, segment)


refused(
    "index",
    read,
    [
        ("index.json that is no JSON", text(b"{"), "index.json"),
        ("index.json that is a list", text(b"[]"), "index.json"),
        ("index.json of a later format", about(format=99), "its format is 99"),
        ("index.json without segments", about(segments=None), "index.json"),
        ("index.json of 10,000 lists in each other", text(b"[" * 10_000), "index.json"),
        ("a segment that lies elsewhere", outside, "index"),
        ("a segment that is missing", about(segments=["harm"]), "harm"),
        ("a segment without codes", without("codes.npy"), "codes.npy"),
        ("a segment without labels", without("labels.npy"), "labels.npy"),
        ("codes, cut short", array("codes", lambda x: b"\x93NUMPY\1\0v\0{'descr'"), "index"),
        ("codes that are objects", array("codes", lambda x: np.array([{}] * len(x))), "index"),
        ("fewer codes than pictures", array("codes", lambda x: x[:2]), "index"),
        ("codes of another width", array("codes", lambda x: np.zeros((len(x), 9), "u1")), "index"),
        ("codes that are floats", array("codes", lambda x: x.astype(float)), "index"),
        ("paths that end behind their bytes", array("paths-ends", lambda x: x + 10**6), "index"),
        ("paths that end before they begin", array("paths-ends", lambda x: x[::-1].copy()), "index"),
        ("more labels than pictures", array("labels-ends", lambda x: np.append(x, x[-1])), "index"),
        ("vectors that are not numbers", array("vectors", lambda x: x * np.nan), "index"),
        ("fewer vectors than pictures", array("vectors", lambda x: x[:1]), "index"),
        ("the encoder of another index", about(model="0" * 64), "is not the encoder of this index"),
        ("vectors of an unknown kind", about(vectors="harm"), "index"),
        (
            "no root",
            lambda folder, _: text(
                json.dumps(
                    {k: v for k, v in json.loads((folder / "index.json").read_text()).items() if k != "root"}
                ).encode()
            )(folder, _),
            "index",
        ),
    ],
)


@hostile("index", "a path with markup", gives="a hit with this path")
def _(folder):
    change = array("paths", lambda x: np.frombuffer(b"<b>.pngx"[:8] * (len(x) // 8) + bytes(x[: len(x) % 8]), np.uint8))
    _, hits = read(folder, change)
    assert "<" in str(hits[0].path) or ">" in str(hits[0].path)
