import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from hhlib import data
from hhlib.data import download, sources
from hhlib.data.download import Archive
from hhlib.data.sources import cifar, clothes, coco

CONTENT = bytes(range(256)) * 40_000  # 10 MB


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`; can begin in the middle, unless `whole_only`; hangs up after `most` bytes."""

    files, asked, most, whole_only = {}, [], None, False

    def do_GET(self):
        start = self.headers.get("Range")
        type(self).asked.append((self.path, start))
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        begin = int(start.removeprefix("bytes=").removesuffix("-")) if start and not self.whole_only else 0
        if begin >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        self.wfile.write(content[begin:][: self.most])

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def server():
    kind = type("Fresh", (Server,), {"files": {}, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        kind.url = f"http://127.0.0.1:{listening.server_port}"
        yield kind
        listening.shutdown()


def zipped(**files):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of 1980: no clock in the bytes
    return raw.getvalue()


def tarred(*members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


def archive(server, name, content, makes):
    server.files[f"/{name}"] = content
    return Archive(f"{server.url}/{name}", 1, makes, hashlib.md5(content).hexdigest())


def test_an_archive_is_fetched_once_and_leaves_only_what_it_makes(server, tmp_path):
    wanted = archive(server, "a.zip", zipped(**{"folder/one.txt": "1", "folder/deep/two.txt": "2"}), ["folder"])
    for _ in range(2):
        download.fetch(wanted, tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.txt")) == [
        "folder/deep/two.txt",
        "folder/one.txt",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert len(server.asked) == 1


def test_two_archives_may_fill_one_folder(server, tmp_path):
    download.fetch(archive(server, "a.zip", zipped(**{"f/one.txt": "1"}), ["f/one.txt"]), tmp_path)
    download.fetch(archive(server, "b.zip", zipped(**{"f/two.txt": "2"}), ["f/two.txt"]), tmp_path)
    assert {path.name: path.read_text() for path in (tmp_path / "f").iterdir()} == {"one.txt": "1", "two.txt": "2"}


@pytest.mark.parametrize("whole_only", [False, True])
def test_a_download_goes_on_where_it_stopped(server, tmp_path, whole_only):
    wanted = archive(server, "big.bin", CONTENT, [])
    server.most, server.whole_only = 3_000_000, whole_only
    with pytest.raises(ConnectionError, match=r"big.bin .*3,000,000 of 10,240,000 bytes"):
        download.download(wanted, tmp_path / "big.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["big.bin.part"]
    server.most = None
    download.download(wanted, tmp_path / "big.bin")
    assert (tmp_path / "big.bin").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["big.bin"]
    assert server.asked[-1] == ("/big.bin", "bytes=3000000-")


def test_a_part_that_is_whole_already_is_only_checked(server, tmp_path):
    (tmp_path / "big.bin.part").write_bytes(CONTENT)
    download.download(archive(server, "big.bin", CONTENT, []), tmp_path / "big.bin")
    assert (tmp_path / "big.bin").read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(server, tmp_path):
    (tmp_path / "big.bin.part").write_bytes(b"of another file" + CONTENT)
    download.download(archive(server, "big.bin", CONTENT, []), tmp_path / "big.bin")
    assert (tmp_path / "big.bin").read_bytes() == CONTENT


def test_what_is_no_archive_is_removed_so_that_the_next_call_can_succeed(server, tmp_path):
    page = replace(archive(server, "a.zip", b"<html>log in first</html>", ["x"]), md5=None)
    with pytest.raises(ValueError, match=r"a.zip cannot be unpacked .* http.*a.zip and was removed"):
        download.fetch(page, tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.files["/a.zip"] = zipped(x="1")
    download.fetch(page, tmp_path)
    assert (tmp_path / "x").read_text() == "1"


def test_an_archive_put_there_by_hand_is_checked_and_a_draft_of_a_killed_process_is_removed(server, tmp_path):
    good = zipped(x="1")
    wanted = archive(server, "a.zip", good, ["x"])
    (tmp_path / "a.zip").write_bytes(good[:-9])
    (tmp_path / ".unpacking-old").mkdir()
    with pytest.raises(ValueError, match="has the MD5"):
        download.fetch(wanted, tmp_path)
    download.fetch(wanted, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_wrong_bytes_are_refused_and_removed(server, tmp_path):
    wanted = replace(archive(server, "a.zip", zipped(x="1"), ["x"]), md5="0" * 32)
    with pytest.raises(ValueError, match="a.zip has the MD5 [0-9a-f]{32}, .* 0{32}"):
        download.fetch(wanted, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_lacks_the_file_or_does_not_answer(server, tmp_path):
    with pytest.raises(ConnectionError, match="none.zip could not be fetched .*404"):
        download.fetch(Archive(f"{server.url}/none.zip", 1, ["x"]), tmp_path)
    with pytest.raises(ConnectionError, match="could not be fetched"):
        download.fetch(Archive("http://127.0.0.1:9/none.zip", 1, ["x"]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zipped(**{"good.txt": "1", "../outside.txt": "bad"})),
        ("a.zip", zipped(**{"good.txt": "1", "/tmp/outside.txt": "bad"})),
        ("a.zip", zipped(**{"good.txt": "1", "..\\outside.txt": "bad"})),
        ("a.tar.gz", tarred((tarfile.TarInfo("good.txt"), b"1"), (tarfile.TarInfo("../outside.txt"), b"bad"))),
        ("a.tar.gz", tarred((tarfile.TarInfo("good.txt"), b"1"), (link("l", "/etc/passwd"), b""))),
        ("a.tar.gz", tarred((tarfile.TarInfo("good.txt"), b"1" * 100_000))[:60]),
        ("a.zip", zipped(**{"good.txt": "1" * 100})[:-5]),
        ("a.tar", b"neither"),
    ],
    ids=["zip up", "zip absolute", "zip backslash", "tar up", "tar link", "tar cut", "zip cut", "no archive"],
)
def test_a_dangerous_or_damaged_archive_leaves_nothing(tmp_path, name, content):
    folder = tmp_path / "deep" / "root"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be unpacked \(.+\)\.$"):
        download.unpack(folder / name, folder)
    assert [path.name for path in folder.iterdir()] == [name]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["root"]


@pytest.fixture
def official(server, monkeypatch):
    """CIFAR-10's archive in the official layout, with 120 random images, where the official host would be."""
    rng = np.random.default_rng(0)
    members = []
    for name in cifar.FILES:
        batch = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(20)]}
        members.append((tarfile.TarInfo(f"{cifar.FOLDER}/{name}"), pickle.dumps(batch, protocol=2)))
    wanted = archive(server, "cifar-10-python.tar.gz", tarred(*members), [f"{cifar.FOLDER}/{n}" for n in cifar.FILES])
    monkeypatch.setattr(cifar, "ARCHIVE", wanted)
    data._in_memory.cache_clear()


@pytest.mark.filterwarnings("ignore:.*differ from the official CIFAR-10")
@pytest.mark.usefixtures("official")
def test_cifar10_is_fetched_on_request_only(tmp_path):
    with pytest.raises(FileNotFoundError, match="unpack http.*download=True"):
        data.load("cifar10", root=tmp_path)
    with pytest.raises(ValueError, match="cifar10 needs 100 query and 500 .* 12 and 0"):
        data.load("cifar10", root=tmp_path, download=True)  # 120 images are too few, but they are there and read
    assert [path.name for path in tmp_path.iterdir()] == [cifar.FOLDER]
    assert len(sources.cifar10(tmp_path).images) == 120


def test_every_archive_says_where_and_how_large_and_which_bytes():
    for name in data.names():
        folder, wanted = sources.archives(name)
        assert all(one.url.startswith("http") and one.megabytes and one.makes for one in wanted)
        assert bool(folder) == name.startswith(("nuswide", "coco", "clothes"))
    assert [len(one.md5) for one in [*coco.ARCHIVES, cifar.ARCHIVE]] == [32] * 4
    assert clothes.ARCHIVE.check is clothes.check  # of every picture, because archives made on request may differ
    assert clothes.COMMIT in clothes.ARCHIVE.url
