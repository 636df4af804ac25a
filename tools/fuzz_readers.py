"""What `tools/fuzz.py` tries: readers of files that others made, valid inputs for each, and what must hold of a result.

A reader gets a folder with the files of one input. It gives a result or raises ValueError or OSError; an assertion that
fails is a wrong result, which is a finding too.
"""

import gzip
import io
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import batch
import numpy as np
import torch
from mutate import Case
from PIL import Image

import hhlib as hh
from hhlib.data import download, sources
from hhlib.training import keeping

CLASSES = ["cat", "dog", "émeu"]
#: A network that is written and read quickly.
SMALL = "epochs=1 batch_size=50 net.embed_dims=8,8,8 net.num_heads=1,1,1 net.interaction_heads=1 net.depths=1,1,1"


@dataclass(frozen=True)
class Reader:
    """One reader of foreign files."""

    seeds: Callable[[Path], list[Case]]  #: valid inputs, made in an empty folder
    read: Callable[[Path], object]  #: reads the folder of an input; raises AssertionError for a wrong result
    covers: tuple[str, ...]  #: the project's files whose lines are counted
    tokens: tuple[bytes, ...] = ()  #: words of the format
    named: bool = True  #: whether an error must name a file or the folder


def taken(folder: Path) -> Case:
    """The files below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- data


def lists(folder: Path) -> list[Case]:
    """Three lists and the names of their classes; one of them is gzipped."""
    rows, labels = [f"a b/{i}.jpg" for i in range(6)], np.eye(3, dtype=int)[[0, 1, 2, 0, 1, 2]]
    for name, which in (("test.txt", slice(0, 2)), ("train.txt", slice(2, 6)), ("database.txt.gz", slice(2, 6))):
        hh.data.write_list(folder / name, rows[which], labels[which])
    (folder / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    return [taken(folder)]


def read_lists(folder: Path) -> None:
    """A split; no picture leaves its folder."""
    split = hh.data.read_lists(folder)
    pool = split.query.pool
    assert pool.labels.shape == (len(pool.paths), len(pool.classes))
    assert int(pool.labels.max()) <= 1
    assert not any(path.startswith("/") or ".." in path.split("/") for path in pool.paths)


def pickles(_: Path) -> list[Case]:
    """CIFAR-10's six files with two pictures each, as different versions of Python write them."""
    images = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    content = {"data": images, "labels": [3, 9], "batch_label": "one", "filenames": ["a.png", "b.png"]}
    made = [pickle.dumps(content, protocol=protocol) for protocol in range(6)]
    return [{f"{sources.cifar.FOLDER}/{name}": raw for name, raw in zip(sources.cifar.FILES, made, strict=True)}]


def read_pickles(folder: Path) -> None:
    """Pictures and labels."""
    pool = sources.cifar10(folder)
    assert (pool.images.shape, pool.images.dtype) == ((len(pool.labels), 3, 32, 32), torch.uint8)
    assert (pool.labels.sum(dim=1) == 1).all()


def tables(folder: Path) -> list[Case]:
    """A table of own pictures, and the pictures, which are not opened."""
    (folder / "own.csv").write_text("path,labels\na.jpg,cat;in\nb.jpg,dog\nc.jpg,\n", encoding="utf-8")
    for name in "abc":
        (folder / f"{name}.jpg").write_bytes(b"x")
    return [taken(folder)]


def read_table(folder: Path) -> None:
    """A pool with two classes or more."""
    pool = hh.data.table_pool(folder / "own.csv")
    assert pool.labels.shape == (len(pool.paths), len(pool.classes))
    assert len(pool.classes) >= 2


def pictures(_: Path) -> list[Case]:
    """Small pictures of every format and of several kinds of pixels, with an orientation where it can be kept."""
    exif, made = Image.Exif(), []
    exif[0x0112] = 6
    coloured = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8))
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8))
    for mode, form in (
        [("RGB", name) for name in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "MPO")]
        + [
            ("L", "JPEG"),
            ("CMYK", "JPEG"),
            ("P", "PNG"),
            ("RGBA", "PNG"),
            ("RGBA", "WEBP"),
            ("1", "TIFF"),
            ("P", "GIF"),
        ]
        + ([("RGB", "AVIF")] if "AVIF" in hh.data.files.FORMATS else [])
    ):
        file = io.BytesIO()
        coloured.convert(mode).save(file, form, **({} if form in ("BMP", "GIF", "PPM") else {"exif": exif}))
        made.append({"picture.jpg": file.getvalue()})
    for form, more in (("PNG", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_deflate"})):
        file = io.BytesIO()
        deep.save(file, form, **more)
        made.append({"picture.jpg": file.getvalue()})
    return made


def read_picture(folder: Path) -> None:
    """A small square."""
    square = hh.data.ImageFiles(folder, ["picture.jpg"], 8)[0]
    assert (square.shape, square.dtype) == ((3, 8, 8), torch.uint8)


def archives(_: Path) -> list[Case]:
    """A zip, a tar and a gzipped tar."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/1.txt", "a/b/2.txt", "c.txt"):
            archive.writestr(zipfile.ZipInfo(name), name * 20)
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a/1.txt", "a/é" + "x" * 120, "c.txt"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()[: info.size]))
    found = [zipped.getvalue(), tarred.getvalue(), gzip.compress(tarred.getvalue(), mtime=0)]
    return [{"archive.bin": raw} for raw in found]


def read_archive(folder: Path) -> None:
    """All of it or nothing, inside the folder, without links that lead out."""
    target = folder / "made"
    target.mkdir()
    try:
        download.unpack(folder / "archive.bin", target)
    except ValueError:
        assert not any(target.iterdir()), "something is left of an archive that was refused"
        raise
    for path in target.rglob("*"):
        assert path.resolve().is_relative_to(target.resolve()), f"{path} leads out"


def annotations(folder: Path) -> list[Case]:
    """COCO's two annotation files, and the pictures that they list."""
    content = '{"categories":[{"id":1,"name":"cat"},{"id":7,"name":"dog"}],"images":[{"id":3,"file_name":"x.jpg"}],'
    content += '"annotations":[{"image_id":3,"category_id":7,"segmentation":[[1,2]]}]}'
    for year in sources.coco.YEARS:
        for place in ("annotations", year):
            (folder / "coco" / place).mkdir(parents=True, exist_ok=True)
        (folder / f"coco/annotations/instances_{year}.json").write_text(content, encoding="utf-8")
        (folder / f"coco/{year}/x.jpg").write_bytes(b"x")
    return [taken(folder)]


def read_annotations(folder: Path) -> None:
    """A pool."""
    pool = sources.coco.coco(folder, 8)
    assert pool.labels.shape == (len(pool.paths), len(pool.classes))


# ---- runs


@cache
def small_run(folder: Path) -> hh.runs.Run:
    """A run that was trained and scored."""
    found = hh.open(SMALL, dataset="digits", bits=8, runs_dir=folder, device="cpu", precision="float32", live=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.fit([])
        found.evaluate()
    return found.run


def runs(folder: Path) -> list[Case]:
    """What is read of a run without its network, of this one and of two that come with the kit."""
    made = []
    for run in (small_run(folder), hh.runs.kept("digits-32bits"), hh.runs.kept("clothes-validation-lite0-32bits")):
        names = ("run.json", "metrics.json", "history.csv", "timing.csv", "codes.npz")
        made.append({name: (run.path / name).read_bytes() for name in names})
    return made


def read_run(folder: Path) -> None:
    """A row of the table of runs, its state and its codes."""
    run = hh.runs.Run(folder)
    kinds = hh.runs.row(run)
    for kind in ("expected", "worst", "best"):
        assert 0 <= float(kinds[kind]) <= 1, f"a score is {kinds[kind]}"
    str(run.state)
    codes = run.codes()
    for part in ("query", "database"):
        packed, labels = codes[f"{part}_codes"], codes[f"{part}_labels"]
        assert (packed.dtype, packed.ndim, len(packed)) == (np.uint8, 2, len(labels)), f"codes are {packed.shape}"


def states(folder: Path) -> list[Case]:
    """A training state, and the record of its run."""
    run = small_run(folder)
    trainer()  # made once, before any child is forked
    return [{name: (run.path / name).read_bytes() for name in ("run.json", keeping.STATE)}]


@cache
def trainer() -> hh.training.Trainer:
    """A training like that of `small_run`, at its start."""
    return hh.open(SMALL, dataset="digits", bits=8, device="cpu", precision="float32", live=False).trainer()


def read_state(folder: Path) -> None:
    """A training that resumes."""
    keeping.begin(trainer(), hh.runs.Run(folder))
    assert all(x.isfinite().all() for x in trainer().net.state_dict().values() if x.is_floating_point())


def weights(folder: Path) -> list[Case]:
    """The weights of a small network, and what makes the network."""
    run = small_run(folder)
    return [{name: (run.path / name).read_bytes() for name in ("run.json", "model.safetensors")}]


def read_weights(folder: Path) -> None:
    """A network whose numbers are finite."""
    net = hh.runs.Run(folder).model()
    assert all(x.isfinite().all() for x in net.state_dict().values() if x.is_floating_point())


def encoders(folder: Path) -> list[Case]:
    """What `save_pretrained` writes."""
    hh.encoder.encoder_of(small_run(folder)).save_pretrained(folder / "encoder")
    return [{name: raw for name, raw in taken(folder / "encoder").items() if name != "README.md"}]


def read_encoder(folder: Path) -> None:
    """Codes of a picture, of as many bits as it says."""
    found = hh.encoder.load(folder)
    assert found(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape == (1, found.bits)


def indexes(folder: Path) -> list[Case]:
    """An index of three pictures, with vectors and without."""
    for name in "abc":
        (folder / "own" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), name == "a" and "red" or "blue").save(folder / f"own/{name}/1.png")
    made = []
    for kind in ("outputs", "none"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hh.index.build(
                folder / "own", run=small_run(folder), where=folder / kind, vectors=kind, workers=0, device="cpu"
            )
        made.append({n: raw for n, raw in taken(folder / kind).items() if n != ".lock" and not n.endswith(".md")})
    return made


def read_index(folder: Path) -> None:
    """The nearest of a picture, each with its path."""
    index = hh.index.open(folder, device="cpu")
    paths, labels = index.paths, index.labels
    assert len(paths) == len(labels) == len(index.codes) == len(index)
    hits = index.search(Image.new("RGB", (8, 8)), k=2)
    assert len(hits) == min(2, len(index))
    assert all(0 <= hit.distance <= index.bits and -1.01 <= hit.similarity <= 1.01 for hit in hits), f"{hits}"


# ---- requests


def batches(_: Path) -> list[Case]:
    """The batches that come with the kit."""
    return [{"batch.yml": path.read_bytes()} for path in sorted((batch.PROJECT / "batches").glob("*.yml"))]


def read_batch(folder: Path) -> None:
    """At least one job."""
    assert batch.read(folder / "batch.yml").jobs


def settings(_: Path) -> list[Case]:
    """Settings as text."""
    texts = (
        "bits=16 erase=0 loss.alpha=0.2",
        "net.depths=1,1,2 method=csq seed=3",
        "image_size=none clip=1e-3 flip=no",
    )
    return [{"settings": text.encode()} for text in texts]


def read_settings(folder: Path) -> None:
    """Settings whose words give the same settings again."""
    text = (folder / "settings").read_bytes().decode("utf-8", "replace")
    found = hh.settings.read(text)
    again = hh.settings.read(hh.settings.words(found.changes().items()))
    assert again == found, f"{again} != {found}"


_OPCODES = tuple(bytes([code]) for code in b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu}]\x80\x81\x82\x85\x86\x8c\x93\x94")
READERS = {
    "list": Reader(
        lists,
        read_lists,
        ("hhlib/data/lists.py", "hhlib/data/reading.py"),
        (b" 0", b" 1", b"\t", b"\r\n", b"../", b"\xff\xfe"),
    ),
    "pickle": Reader(
        pickles,
        read_pickles,
        ("hhlib/data/sources/cifar.py", "hhlib/data/sources/pickles.py"),
        (
            *_OPCODES,
            b"cnumpy\ndtype\n",
            b"cos\nsystem\n(S'touch escaped'\ntR.",
            b"cbuiltins\neval\n",
            b"c_codecs\nencode\n",
        ),
    ),
    "table": Reader(tables, read_table, ("hhlib/data/own.py",), (b'"', b",", b";", b"\r\n", b"\xef\xbb\xbf", b"../")),
    "picture": Reader(pictures, read_picture, ("hhlib/data/files.py",), (b"%!PS", b"Exif\0\0", b"II*\0", b"MM\0*")),
    "annotations": Reader(annotations, read_annotations, ("hhlib/data/sources/coco.py",), (b"id", b"../", b"\\u0000")),
    "archive": Reader(
        archives, read_archive, ("hhlib/data/unpacking.py",), (b"../", b"/etc/passwd", b"PK\5\6", b"PK\1\2")
    ),
    "run": Reader(
        runs,
        read_run,
        ("hhlib/runs.py", "hhlib/reading.py", "hhlib/records.py"),
        (b"NaN", b"mAP", b",", b"digits", b"csq", b"|O"),
    ),
    "state": Reader(states, read_state, ("hhlib/training/keeping.py",), (*_OPCODES, b"cos\nsystem\n", b"history")),
    "weights": Reader(weights, read_weights, ("hhlib/network/weights.py", "hhlib/network/model.py"), (b"F64", b"I64")),
    "encoder": Reader(encoders, read_encoder, ("hhlib/encoder.py", "hhlib/network/presets.py"), (b"lite0", b"timm:")),
    "index": Reader(indexes, read_index, ("hhlib/index/store.py", "hhlib/index/folder.py"), (b"segments", b"built")),
    "batch": Reader(batches, read_batch, ("tools/batch.py",), (b"&a ", b"*a", b"<<: *a", b"!!python/object:os.x {}")),
    "settings": Reader(
        settings,
        read_settings,
        ("hhlib/settings/reading.py", "hhlib/settings/fields.py"),
        (b"=", b"'", b"\\", b"bits=", b"loss.", b"net.", b"recipe.", b"none", b"inf"),
        named=False,
    ),
}
