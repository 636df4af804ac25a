"""Fetch archives: with a progress bar, resumed where they stopped, within bounds, checked."""

import errno
import http.client
import posixpath
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from torchvision.datasets.utils import calculate_md5
from tqdm.auto import tqdm

from hhlib.data.reading import brief
from hhlib.data.unpacking import unpack

# A downloader of our own, because pooch and torchvision restart interrupted downloads from the beginning (COCO: 20 GB).
BLOCK = 1 << 20  # bytes read at a time
PATIENCE = 60  #: seconds in which a server must send
LEAST = 60_000  #: bytes; slower than this, COCO would take more than half a year
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # errors of the disk
MOST_TIMES = 4  #: a file may have so many times the bytes that its archive is known to have


@dataclass(frozen=True)
class Archive:
    """A file to fetch and what unpacking it makes."""

    url: str
    megabytes: int  #: its size, for the progress bar where the server does not say, and as a bound
    makes: list[str]  #: files or folders, relative to where it is unpacked; if all are there, nothing is to be done
    md5: str | None = None  #: of the whole file; None if none is published (the content is checked when it is read)
    #: called with the folder in which it is unpacked, before anything appears; raises ValueError if a file is wrong
    check: Callable[[Path], None] | None = None


def fetch(archive: Archive, folder: Path) -> None:
    """Download and unpack an archive into `folder`, unless what it makes is there already.

    An interrupted download resumes where it stopped. What the archive makes appears in `folder` only when all of it is
    unpacked; the archive itself is then removed. A second process waits for the first.
    Raises ValueError if the bytes are not those of the MD5 or too many, or the archive cannot be unpacked;
    ConnectionError if the server cannot be reached, stops or hardly sends (what has arrived is kept).
    """
    if _is_made(archive, folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".fetching.lock"):
        if not _is_made(archive, folder):
            _fetch(archive, folder)


def _is_made(archive: Archive, folder: Path) -> bool:
    return all((folder / name).exists() for name in archive.makes)


def _fetch(archive: Archive, folder: Path) -> None:
    """`fetch`, for one process at a time."""
    file = folder / posixpath.basename(archive.url)
    if file.is_file():  # put here by hand
        _check(file, archive)
    else:
        download(archive, file)
    try:
        unpack(file, folder, archive.check)
    except ValueError as error:
        file.unlink()  # or every later call would fail on it
        raise ValueError(f"{error} It came from {archive.url} and was removed; call again to download it.") from error
    file.unlink()


def download(archive: Archive, file: Path) -> None:
    """Download to `file`, which appears only when it is whole and its MD5 is right; see `fetch`."""
    part = file.with_name(file.name + ".part")
    try:
        _receive(archive, part)
    except (http.client.HTTPException, OSError, UnicodeError) as error:
        if getattr(error, "errno", None) in DISK:  # the network is not to blame
            raise
        raise ConnectionError(f"{archive.url} could not be fetched ({brief(error)}); call again to resume.") from error
    except ValueError:
        part.unlink(missing_ok=True)  # or every later call would go on with it
        raise
    _check(part, archive)
    part.replace(file)


def _check(file: Path, archive: Archive) -> None:
    """Raise ValueError, and remove the file, if its bytes are not those of the archive's MD5."""
    if archive.md5 and (found := calculate_md5(file)) != archive.md5:
        file.unlink()
        raise ValueError(f"{archive.url} has the MD5 {found}, but it must be {archive.md5}; the file was removed.")


def _receive(archive: Archive, part: Path) -> None:
    """Append to `part` what is missing; from the start if the server cannot begin in the middle."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if not error.headers.get("Content-Range", "").endswith(f"/{have}"):  # longer than the file: of another one
            part.unlink()
            _receive(archive, part)
        return
    with response:
        resumed = response.status == 206
        begins = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range") or "")
        if resumed and begins and int(begins[1]) != have:
            part.unlink()
            raise ConnectionResetError(f"asked for what follows byte {have:,}, the server began at {int(begins[1]):,}")
        have = have if resumed else 0
        total = None if response.length is None else have + response.length
        _check_size(archive, total or have)
        bar = tqdm(
            total=total or archive.megabytes * 1_000_000, initial=have, desc=part.stem, unit="B", unit_scale=True
        )
        with bar, part.open("ab" if resumed else "wb") as out:
            for piece in _steadily(response):
                out.write(piece)
                bar.update(len(piece))
                _check_size(archive, out.tell())
    if total is not None and part.stat().st_size != total:
        raise ConnectionResetError(f"{part.stat().st_size:,} of {total:,} bytes arrived")


def _steadily(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What a server sends, as it arrives. Raises TimeoutError if that is less than `LEAST` in `PATIENCE` seconds."""
    start, bytes_since = time.monotonic(), 0
    while piece := response.read1(BLOCK):
        yield piece
        bytes_since += len(piece)
        if time.monotonic() - start > PATIENCE:
            if bytes_since < LEAST:
                raise TimeoutError(f"only {bytes_since:,} bytes arrived in {PATIENCE} seconds")
            start, bytes_since = time.monotonic(), 0


def _check_size(archive: Archive, size: int) -> None:
    """Raise ValueError if a file has, or will have, far more bytes than its archive."""
    if size > MOST_TIMES * archive.megabytes * 1_000_000:
        raise ValueError(
            f"{archive.url} has {size:,} bytes or more, but should have about {archive.megabytes:,} million."
        )
