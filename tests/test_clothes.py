"""The photographs of clothes: the published parts, other seeds, and a download in which every picture is checked."""

import hashlib
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from hhlib import data
from hhlib.data import download
from hhlib.data.sources import clothes


def content(path):
    """A small picture whose colour depends on its path."""
    colour = tuple(hashlib.md5(path.encode()).digest()[:3])
    return Image.new("RGB", (8, 8), colour)


def sha1(raw):
    """As git computes it."""
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All 3,781 paths of the manifest, each a small picture."""
    root = tmp_path_factory.mktemp("data")
    for path in clothes.manifest():
        file = root / "clothes" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        content(path).save(file, "PNG")  # whatever the extension: pictures are known by their content
    return root


def test_the_manifest_lists_the_published_parts():
    parts = [path.split("/")[0] for path in clothes.manifest()]
    assert {part: parts.count(part) for part in clothes.PARTS} == {"train": 3068, "validation": 341, "test": 372}


@pytest.mark.parametrize(
    ("name", "queries", "size"), [("clothes", "test", 372), ("clothes-validation", "validation", 341)]
)
def test_seed_0_is_the_published_split(root, name, queries, size):
    split = data.load(name, root=root, size=8)
    assert split.sizes == {"query": size, "train": 3068, "database": 3068}
    assert {split.query.pool.path(row).split("/")[0] for row in split.query.rows} == {queries}
    assert {split.train.pool.path(row).split("/")[0] for row in split.train.rows} == {"train"}
    assert len(split.classes) == 10
    row = int(split.query.rows[0])
    path = split.query.pool.path(row)
    assert split.classes[int(split.query.labels[0].argmax())] == path.split("/")[1]
    assert split.query[0][0][:, 4, 4].tolist() == list(hashlib.md5(path.encode()).digest()[:3])


def test_other_seeds_draw_as_many_of_each_class(root):
    first, second, again = (data.load("clothes", root=root, size=8, seed=seed) for seed in (1, 2, 1))
    assert first.sizes == {"query": 372, "train": 3068, "database": 3068}
    assert first.fingerprint() == again.fingerprint() != second.fingerprint()
    drawn, of_all = (labels.numpy().mean(axis=0) for labels in (first.query.labels, first.query.pool.labels))
    assert np.abs(drawn - of_all).max() < 0.005


def test_the_test_part_is_not_needed_where_it_does_not_ask(root, tmp_path):
    (tmp_path / "clothes").mkdir()
    for part in ("train", "validation"):
        (tmp_path / "clothes" / part).symlink_to(root / "clothes" / part)
    assert data.load("clothes-validation", root=tmp_path, size=8).sizes["query"] == 341
    with pytest.raises(FileNotFoundError, match="lacks test: load with download=True"):
        data.load("clothes", root=tmp_path, size=8)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A function that makes the archive, from the bytes of each picture."""
    pictures = {f"{part}/hat/{n}.jpg": f"{part} {n}".encode() for part in clothes.PARTS for n in range(2)}
    listed = {path: sha1(raw) for path, raw in pictures.items()}
    monkeypatch.setattr(clothes, "manifest", lambda: listed)

    def make(**changed):
        with zipfile.ZipFile(tmp_path / "commit.zip", "w") as file:
            for path, raw in (
                pictures | {"train/hat/0.jpg": changed.get("first", pictures["train/hat/0.jpg"])}
            ).items():
                if raw is not None:
                    file.writestr(f"{clothes.UNPACKED}/{path}", raw)
        return tmp_path / "commit.zip"

    return make


def test_an_archive_with_every_picture_right_is_unpacked(archive, tmp_path):
    (tmp_path / "out").mkdir()
    download.unpack(archive(), tmp_path / "out", clothes.check)
    assert (tmp_path / "out" / clothes.UNPACKED / "test/hat/1.jpg").read_bytes() == b"test 1"


@pytest.mark.parametrize(("first", "said"), [(b"another", "is not the picture"), (None, "is missing")])
def test_one_wrong_picture_and_nothing_appears(archive, tmp_path, first, said):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=said):
        download.unpack(archive(first=first), tmp_path / "out", clothes.check)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def address(tmp_path):
    """Where the files of `tmp_path` are served."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_photographs_are_fetched_on_request(root, tmp_path, address, monkeypatch):
    digests = {}
    with zipfile.ZipFile(tmp_path / "commit.zip", "w") as file:
        for path in clothes.manifest():
            raw = (root / "clothes" / path).read_bytes()
            digests[path] = sha1(raw)
            file.writestr(f"{clothes.UNPACKED}/{path}", raw)
    monkeypatch.setattr(clothes, "manifest", lambda: digests)
    monkeypatch.setattr(clothes, "ARCHIVE", replace(clothes.ARCHIVE, url=f"{address}/commit.zip"))
    fetched = data.load("clothes", root=tmp_path / "data", size=8, download=True)
    assert fetched.fingerprint() == data.load("clothes", root=root, size=8).fingerprint()


def test_the_sha1_is_that_of_git(tmp_path, monkeypatch):
    """`git hash-object` says b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0 of a file with the five bytes "hello"."""
    monkeypatch.setattr(clothes, "manifest", lambda: {"a.jpg": "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"})
    (tmp_path / clothes.UNPACKED).mkdir()
    (tmp_path / clothes.UNPACKED / "a.jpg").write_bytes(b"hello")
    clothes.check(tmp_path)
