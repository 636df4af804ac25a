"""Fetch archives that may be fetched: with a progress bar, resumed where they stopped, checked, unpacked safely."""

import gzip
import hashlib
import http.client
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

BLOCK = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Archive:
    """A file to fetch and what unpacking it leaves.

    Attributes:
        url: where it is.
        megabytes: how large it is, for the progress bar where the server does not say.
        makes: files or folders, relative to where it is unpacked; all there means that nothing is to be done.
        md5: of the whole file; None if nobody publishes one (what is inside is then checked when it is read).
    """

    url: str
    megabytes: int
    makes: list[str]
    md5: str | None = None


def fetch(archive: Archive, folder: Path) -> None:
    """Download and unpack an archive into `folder`, unless what it makes is there already.

    A download that was cut short goes on where it stopped. What it makes appears in `folder` only when all of it is
    unpacked; the archive itself is then removed.

    Raises:
        ValueError: if the bytes are not those of the MD5, or the archive holds a path that leaves `folder`.
        ConnectionError: if the server cannot be reached or stops; what has arrived is kept.
    """
    if all((folder / name).exists() for name in archive.makes):
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PurePosixPath(archive.url).name
    if file.is_file() and archive.md5:  # put here by hand
        _check(file, archive)
    if not file.is_file():
        download(archive, file)
    try:
        unpack(file, folder)
    except ValueError as error:
        file.unlink()  # or every later call would stumble over it
        raise ValueError(f"{error} It came from {archive.url} and was removed; call again to fetch it anew.") from error
    file.unlink()


def download(archive: Archive, file: Path) -> None:
    """Download to `file`, which appears only when it is whole and its MD5 is right; see `fetch`."""
    part = file.with_name(file.name + ".part")
    try:
        _receive(archive, part)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if getattr(error, "errno", None) == 28:  # no space left: the network is not to blame
            raise
        raise ConnectionError(f"{archive.url} could not be fetched ({error}); call again to go on.") from error
    if archive.md5:
        _check(part, archive)
    part.replace(file)


def _check(file: Path, archive: Archive) -> None:
    """Raise ValueError, and remove the file, if its bytes are not the archive's."""
    with file.open("rb") as raw:
        found = hashlib.file_digest(raw, "md5").hexdigest()
    if found != archive.md5:
        file.unlink()
        raise ValueError(f"{archive.url} has the MD5 {found}, but it must be {archive.md5}; the file was removed.")


def _receive(archive: Archive, part: Path) -> None:
    """Append to `part` what it still lacks; from the start if the server cannot begin in the middle."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):  # nothing is lacking
            return
        part.unlink()  # longer than the file: of another one
        _receive(archive, part)
        return
    with response:
        resumed = response.status == 206
        have = have if resumed else 0
        lacking = response.headers.get("Content-Length")
        total = have + int(lacking) if lacking else None
        bar = tqdm(
            total=total or archive.megabytes * 1_000_000, initial=have, unit="B", unit_scale=True, desc=part.stem
        )
        with bar, part.open("ab" if resumed else "wb") as out:
            while block := response.read(BLOCK):
                out.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size != total:
        raise ConnectionResetError(f"{part.stat().st_size:,} of {total:,} bytes arrived")


def unpack(file: Path, folder: Path) -> None:
    """Unpack a .tar, .tar.gz or .zip into `folder`, all or nothing.

    Raises:
        ValueError: if it is damaged, or holds a path or a link that leaves `folder`; nothing is then left there.
    """
    for left in folder.glob(".unpacking-*"):  # by a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as draft:
        try:
            if zipfile.is_zipfile(file):
                _unzip(file, Path(draft))
            else:
                with tarfile.open(file) as tar:
                    tar.extractall(draft, filter="data")
        except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
            raise ValueError(f"{file} cannot be unpacked ({str(error).splitlines()[0].rstrip(':. ')}).") from error
        for made in Path(draft).iterdir():
            _move(made, folder / made.name)


def _unzip(file: Path, folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"the path {name!r} leaves the folder.")
        archive.extractall(folder)


def _move(made: Path, place: Path) -> None:
    """Move into place; a folder that is there already (of another archive) takes in what it lacks."""
    if made.is_dir() and place.is_dir():
        for inner in made.iterdir():
            _move(inner, place / inner.name)
    else:
        shutil.move(made, place)
