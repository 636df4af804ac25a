"""Archives, and the servers that they come from."""

import gzip
import http.server
import io
import stat
import tarfile
import threading
import zipfile
from contextlib import contextmanager

from hhlib.data import download
from hostile import hostile, refused


def read(folder, content):
    """What an archive leaves, by its paths; nothing if it is refused."""
    target = folder / "target"
    target.mkdir()
    (folder / "a.bin").write_bytes(content)
    try:
        download.unpack(folder / "a.bin", target)
    except ValueError:
        assert list(target.iterdir()) == []
        raise
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir())


def zipped(*members, how=zipfile.ZIP_STORED):
    """A zip of (name or ZipInfo, content)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            info.compress_type = how
            archive.writestr(info, content)
    return file.getvalue()


def tarred(*members, packed=False):
    """A tar of (name, content) and of TarInfo."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member in members:
            info, content = (
                (member, b"") if isinstance(member, tarfile.TarInfo) else (tarfile.TarInfo(member[0]), member[1])
            )
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(file.getvalue(), mtime=0) if packed else file.getvalue()


def special(name, kind, link="", mode=0o644):
    """A member of a tar that is no plain file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def flagged(raw, bit):
    """A zip whose first member has a flag."""
    changed = bytearray(raw)
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        changed[raw.index(mark) + at] |= bit
    return bytes(changed)


def method(raw, number):
    """A zip whose first member says that it is compressed by another method."""
    changed = bytearray(raw)
    for mark, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        changed[raw.index(mark) + at] = number
    return bytes(changed)


GOOD = ("good.txt", b"1")
TWO = gzip.compress(tarred(("one.txt", b"1" * 2000), ("two.txt", b"2" * 2000)), 0, mtime=0)
NO = "a.bin cannot be unpacked"
refused(
    "archive",
    read,
    [
        ("a zip with a path that leaves it", zipped(GOOD, ("../out.txt", b"bad")), NO),
        ("a zip with a path that leaves it by backslashes", zipped(GOOD, ("..\\out.txt", b"bad")), NO),
        ("a zip with an absolute path", zipped(GOOD, ("/tmp/out.txt", b"bad")), NO),
        ("a zip with a drive", zipped(GOOD, ("C:/out.txt", b"bad")), NO),
        ("a zip, cut short", zipped(GOOD)[:-5], NO),
        ("a zip with a wrong sum", zipped(GOOD).replace(b"good.txt1", b"good.txt2"), NO),
        ("a zip with a password", flagged(zipped(GOOD), 1), NO),
        ("a zip compressed in an unknown way", method(zipped(GOOD), 99), NO),
        ("a zip that unpacks to a thousand times its size", zipped(("a", bytes(12 << 20)), how=8), NO),
        ("a zip in which a file is a folder too", zipped(("a", b"1"), ("a/b", b"2")), "a.bin"),
        ("a tar with a path that leaves it", tarred(GOOD, ("../out.txt", b"bad")), NO),
        ("a tar with an absolute path", tarred(GOOD, special("/tmp/out", tarfile.SYMTYPE, "/etc")), NO),
        ("a tar with a link that leaves it", tarred(GOOD, special("l", tarfile.SYMTYPE, "/etc/passwd")), NO),
        (
            "a tar that links out and writes through it",
            tarred(special("l", tarfile.SYMTYPE, ".."), ("l/x", b"bad")),
            NO,
        ),
        ("a tar with a hard link that leaves it", tarred(GOOD, special("l", tarfile.LNKTYPE, "../../a.bin")), NO),
        ("a tar with a pipe", tarred(GOOD, special("p", tarfile.FIFOTYPE)), NO),
        ("a tar with a device", tarred(GOOD, special("d", tarfile.CHRTYPE)), NO),
        ("a tar.gz, cut short", gzip.compress(tarred(("a", b"1" * 9000)), mtime=0)[:60], NO),
        ("a tar.gz with a wrong sum", TWO[:-8] + b"xxxx" + TWO[-4:], NO),
        ("a tar whose second member is damaged", tarred(GOOD, ("b", b"2"))[:1100] + b"\xff" * 400, NO),
        ("a web page in its place", b"<html>log in first</html>", NO),
        ("nothing", b"", NO),
    ],
)


@hostile("archive", "a zip with a link that leaves it", gives="a small text file, no link")
def _(folder):
    info = zipfile.ZipInfo("l")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert read(folder, zipped((info, "/etc/passwd"))) == ["l"]
    assert not (folder / "target" / "l").is_symlink()


@hostile("archive", "a tar with a program that would run with its owner's rights", gives="a plain file")
def _(folder):
    read(folder, tarred(special("p", tarfile.REGTYPE, mode=0o4777)))
    assert not (folder / "target" / "p").stat().st_mode & (stat.S_ISUID | stat.S_IWOTH)


@contextmanager
def serving(answer):
    """A server of this machine that answers in this way: its address."""
    kind = type("Answer", (http.server.BaseHTTPRequestHandler,), {"do_GET": answer, "log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/a.zip"
        finally:
            server.shutdown()


def fetched(folder, answer, md5=None):
    """Fetch an archive that makes x."""
    with serving(answer) as url:
        download.fetch(download.Archive(url, 1, ["x"], md5), folder)


def answering(*parts, status=200, **headers):
    """A server's answer."""

    def answer(self):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        for part in parts:
            self.wfile.write(part)

    return answer


refused(
    "download",
    lambda folder, how: fetched(folder, **how),
    [
        ("a page that asks for a password", dict(answer=answering(b"<html>log in</html>")), "cannot be unpacked"),
        ("other bytes than those of the sum", dict(answer=answering(zipped(("x", b"1"))), md5="0" * 32), "has the MD5"),
        (
            "fewer bytes than announced",
            dict(answer=answering(b"PK", Content_Length="5000")),
            "2 of 5,000 bytes arrived",
        ),
        (
            "an answer that leads to a file of this machine",
            dict(answer=answering(status=302, Location="file:///etc/passwd")),
            "could not be fetched",
        ),
        (
            "an answer that leads in a circle",
            dict(answer=answering(status=302, Location="/a.zip")),
            "could not be fetched",
        ),
        (
            "a length that is no number",
            dict(answer=answering(b"PK", Content_Length="many")),
            "a.zip cannot be unpacked",
        ),
        ("an archive with a path that leaves it", dict(answer=answering(zipped(("../x", b"1")))), "cannot be unpacked"),
    ],
)
