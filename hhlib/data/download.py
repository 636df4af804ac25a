"""Fetch archives: with a progress bar, resumed where they stopped, checked, unpacked safely."""

import gzip
import http.client
import posixpath
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.utils import calculate_md5
from tqdm.auto import tqdm

from hhlib.data.files import clean_path

# A downloader of our own, because pooch and torchvision restart interrupted downloads from the beginning (COCO: 20 GB).
BLOCK = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Archive:
    """A file to fetch and what unpacking it makes."""

    url: str
    megabytes: int  #: its size, for the progress bar where the server does not say
    makes: list[str]  #: files or folders, relative to where it is unpacked; if all are there, nothing is to be done
    md5: str | None = None  #: of the whole file; None if none is published (the content is checked when it is read)
    #: called with the folder in which it is unpacked, before anything appears; raises ValueError if a file is wrong
    check: Callable[[Path], None] | None = None


def fetch(archive: Archive, folder: Path) -> None:
    """Download and unpack an archive into `folder`, unless what it makes is there already.

    An interrupted download resumes where it stopped. What the archive makes appears in `folder` only when all of it is
    unpacked; the archive itself is then removed.
    Raises ValueError if the bytes are not those of the MD5, or the archive holds a path that leaves `folder`;
    ConnectionError if the server cannot be reached or stops (what has arrived is kept).
    """
    if all((folder / name).exists() for name in archive.makes):
        return
    folder.mkdir(parents=True, exist_ok=True)
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
    except (http.client.HTTPException, OSError) as error:
        if getattr(error, "errno", None) == 28:  # no space left: the network is not to blame
            raise
        raise ConnectionError(f"{archive.url} could not be fetched ({error}); call again to resume.") from error
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
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if not error.headers.get("Content-Range", "").endswith(f"/{have}"):  # longer than the file: of another one
            part.unlink()
            _receive(archive, part)
        return
    with response:
        resumed = response.status == 206
        have = have if resumed else 0
        missing = response.headers.get("Content-Length")
        total = have + int(missing) if missing else None
        bar = dict(total=total or archive.megabytes * 1_000_000, initial=have, desc=part.stem)
        with tqdm.wrapattr(response, "read", **bar) as source, part.open("ab" if resumed else "wb") as out:
            shutil.copyfileobj(source, out, BLOCK)
    if total is not None and part.stat().st_size != total:
        raise ConnectionResetError(f"{part.stat().st_size:,} of {total:,} bytes arrived")


def unpack(file: Path, folder: Path, check: Callable[[Path], None] | None = None) -> None:
    """Unpack a .tar, .tar.gz or .zip, all or nothing. ValueError if it is damaged or a path or link leaves `folder`, or
    `check` says so."""
    for left in folder.glob(".unpacking-*"):  # by a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as draft:
        try:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    for name in archive.namelist():
                        clean_path(name, "zip")
                    archive.extractall(draft)
            else:
                with tarfile.open(file) as tar:
                    tar.extractall(draft, filter="data")
            if check:
                check(Path(draft))
        except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
            raise ValueError(f"{file} cannot be unpacked ({str(error).splitlines()[0].rstrip(':. ')}).") from error
        for made in Path(draft).iterdir():
            _move(made, folder / made.name)


def _move(made: Path, place: Path) -> None:
    """Move into place; a folder that is there already (from another archive) receives what it does not have yet."""
    if made.is_dir() and place.is_dir():
        for inner in made.iterdir():
            _move(inner, place / inner.name)
    else:
        shutil.move(made, place)
