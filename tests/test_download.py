import concurrent.futures
import contextlib
import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from hhlib import data
from hhlib.data import download, sources, unpacking
from hhlib.data.download import Archive
from hhlib.data.sources import cifar, clothes, coco

CONTENT = bytes(range(256)) * 40_000  # 10 MB


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`; can begin in the middle, unless `whole_only`; hangs up after `most` bytes."""

    files, asked, most, whole_only = {}, [], None, False
    begins, announces, pause = (
        0,
        True,
        0.0,
    )  # bytes before the asked ones; whether it says how many; seconds per 10 bytes

    def do_GET(self):
        start = self.headers.get("Range")
        type(self).asked.append((self.path, start))
        if self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
            return
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
        begin = max(0, begin - self.begins)
        if start:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if self.announces:
            self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the other side hangs up
            for place in range(begin, len(content), 10) if self.pause else ():
                self.wfile.write(content[place : place + 10])
                time.sleep(self.pause)
            self.wfile.write(b"" if self.pause else content[begin:][: self.most])

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def server():
    kind = type("Fresh", (Server,), {"files": {}, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        kind.url = f"http://127.0.0.1:{listening.server_port}"
        yield kind
        listening.shutdown()


def zipped(how=zipfile.ZIP_STORED, **files):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, how)  # of 1980: no clock in the bytes
    return raw.getvalue()


def tarred(*members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


def archive(server, name, content, makes):
    server.files[f"/{name}"] = content
    return Archive(f"{server.url}/{name}", 1 + len(content) // 1_000_000, makes, hashlib.md5(content).hexdigest())


def names(folder):
    """What is in a folder, without the lock of `fetch`."""
    return [path.name for path in folder.iterdir() if path.name != ".fetching.lock"]


def test_an_archive_is_fetched_once_and_leaves_only_what_it_makes(server, tmp_path):
    wanted = archive(server, "a.zip", zipped(**{"folder/one.txt": "1", "folder/deep/two.txt": "2"}), ["folder"])
    for _ in range(2):
        download.fetch(wanted, tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.txt")) == [
        "folder/deep/two.txt",
        "folder/one.txt",
    ]
    assert names(tmp_path) == ["folder"]
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
    assert names(tmp_path) == ["big.bin.part"]
    server.most = None
    download.download(wanted, tmp_path / "big.bin")
    assert (tmp_path / "big.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["big.bin"]
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
    assert names(tmp_path) == []
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
    assert names(tmp_path) == ["x"]


def test_wrong_bytes_are_refused_and_removed(server, tmp_path):
    wanted = replace(archive(server, "a.zip", zipped(x="1"), ["x"]), md5="0" * 32)
    with pytest.raises(ValueError, match="a.zip has the MD5 [0-9a-f]{32}, .* 0{32}"):
        download.fetch(wanted, tmp_path)
    assert names(tmp_path) == []


def test_a_server_that_lacks_the_file_or_does_not_answer(server, tmp_path):
    with pytest.raises(ConnectionError, match="none.zip could not be fetched .*404"):
        download.fetch(Archive(f"{server.url}/none.zip", 1, ["x"]), tmp_path)
    with pytest.raises(ConnectionError, match="^http.*/loop could not be fetched .*302.*; call again to resume[.]$"):
        download.fetch(Archive(f"{server.url}/loop", 1, ["x"]), tmp_path)
    with pytest.raises(ConnectionError, match="could not be fetched"):
        download.fetch(Archive("http://127.0.0.1:9/none.zip", 1, ["x"]), tmp_path)
    assert names(tmp_path) == []


def test_a_server_that_hardly_sends_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    server.pause = 0.02
    wanted = archive(server, "big.bin", CONTENT, [])
    with pytest.raises(ConnectionError, match="only [0-9]+ bytes arrived in 0.2 seconds.; call again to resume"):
        download.download(wanted, tmp_path / "big.bin")
    assert CONTENT.startswith((tmp_path / "big.bin.part").read_bytes())
    server.pause = 0.0
    download.download(wanted, tmp_path / "big.bin")
    assert (tmp_path / "big.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("announces", [True, False])
def test_a_file_that_is_far_too_long_is_not_kept(server, tmp_path, announces):
    server.announces = announces
    small = replace(archive(server, "big.bin", CONTENT, []), megabytes=2)
    with pytest.raises(ValueError, match="big.bin has [0-9,]+ bytes or more, but should have about 2 million"):
        download.download(small, tmp_path / "big.bin")
    assert names(tmp_path) == []
    download.download(replace(small, megabytes=3), tmp_path / "big.bin")  # of unknown length, but not too long
    assert (tmp_path / "big.bin").read_bytes() == CONTENT


def test_a_server_that_begins_elsewhere_is_not_believed(server, tmp_path):
    wanted = replace(archive(server, "big.bin", CONTENT, []), md5=None)
    (tmp_path / "big.bin.part").write_bytes(CONTENT[:1000])
    server.begins = 7
    with pytest.raises(ConnectionError, match="asked for what follows byte 1,000, the server began at 993"):
        download.download(wanted, tmp_path / "big.bin")
    download.download(wanted, tmp_path / "big.bin")
    assert (tmp_path / "big.bin").read_bytes() == CONTENT


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def second_damaged():
    """A tar of two files, of which the second's header is damaged."""
    raw = bytearray(gzip.decompress(tarred((tarfile.TarInfo("good.txt"), b"1"), (tarfile.TarInfo("more.txt"), b"2"))))
    raw[1024] ^= 1  # the first letter of its name
    return bytes(raw)


def long_header():
    info = tarfile.TarInfo("x")
    info.pax_headers = {"comment": "y" * 2_000_000}
    return info


def encrypted():
    raw = bytearray(zipped(**{"good.txt": "1"}))
    for place in (6, raw.index(b"PK\1\2") + 8):  # the flags of its two headers
        raw[place] |= 1
    return bytes(raw)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zipped(**{"good.txt": "1", "../outside.txt": "bad"})),
        ("a.zip", zipped(**{"good.txt": "1", "/tmp/outside.txt": "bad"})),
        ("a.zip", zipped(**{"good.txt": "1", "..\\outside.txt": "bad"})),
        ("a.tar.gz", tarred((tarfile.TarInfo("good.txt"), b"1"), (tarfile.TarInfo("../outside.txt"), b"bad"))),
        ("a.tar.gz", tarred((tarfile.TarInfo("good.txt"), b"1"), (link("l", "/etc/passwd"), b""))),
        ("a.tar.gz", tarred((tarfile.TarInfo("good.txt"), b"1"), (link("l", "good.txt"), b""))),
        ("a.tar.gz", tarred((tarfile.TarInfo("good.txt"), b"1"), (tarfile.TarInfo("good.txt/x"), b"1"))),
        ("a.tar.gz", tarred((tarfile.TarInfo("x" * 300), b"1"))),
        ("a.tar.gz", tarred((tarfile.TarInfo("good.txt"), b"1" * 100_000))[:60]),
        ("a.tar.gz", tarred((tarfile.TarInfo("good.txt"), b"1"))[:-8] + bytes(8)),
        ("a.tar", second_damaged()),
        ("a.tar.gz", gzip.compress(second_damaged(), mtime=0)),
        ("a.tar", second_damaged()[:1024]),
        ("a.tar.gz", tarred((tarfile.TarInfo("zeros"), bytes(11_000_000)))),
        ("a.tar.gz", tarred((long_header(), b"1"))),
        ("a.zip", zipped(zeros=bytes(11_000_000), how=zipfile.ZIP_DEFLATED)),
        ("a.zip", zipped(**{"good.txt": "1" * 100})[:-5]),
        ("a.zip", zipped(**{"good.txt": "1" * 100}).replace(b"1" * 100, b"1" * 99 + b"2")),
        ("a.zip", zipped(**{"good.txt": "1", "good.txt/x": "1"})),
        ("a.zip", encrypted()),
        ("a.tar", b"neither"),
        ("a.tar", b""),
        ("a.zip", b"PK"),
    ],
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
    assert names(tmp_path) == [cifar.FOLDER]
    assert len(sources.cifar10(tmp_path).images) == 120


def test_every_archive_says_where_and_how_large_and_which_bytes():
    for name in data.names():
        folder, wanted = sources.archives(name)
        assert all(one.url.startswith("http") and one.megabytes and one.makes for one in wanted)
        assert bool(folder) == name.startswith(("nuswide", "coco", "clothes"))
    assert [len(one.md5) for one in [*coco.ARCHIVES, cifar.ARCHIVE]] == [32] * 4
    assert clothes.ARCHIVE.check is clothes.check  # of every picture, because archives made on request may differ
    assert clothes.COMMIT in clothes.ARCHIVE.url


def test_two_processes_fetch_once(server, tmp_path):
    wanted = archive(server, "a.zip", zipped(x="1"), ["x"])
    with concurrent.futures.ThreadPoolExecutor(4) as several:
        list(several.map(lambda _: download.fetch(wanted, tmp_path), range(4)))
    assert len(server.asked) == 1
    assert (tmp_path / "x").read_text() == "1"


def test_what_an_archive_may_hold_is_bounded_by_number(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_MEMBERS", 2)
    for content in (zipped(a="1", b="2", c="3"), tarred(*((tarfile.TarInfo(name), b"1") for name in "abc"))):
        (tmp_path / "archive").write_bytes(content)
        with pytest.raises(ValueError, match="it holds more than 2 files and folders"):
            unpacking.unpack(tmp_path / "archive", tmp_path)
