"""Unpack archives that somebody else may have made: all or nothing, only files and folders, within bounds."""

import errno
import gzip
import io
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from hhlib.data.files import clean_path
from hhlib.data.reading import PIECE, brief, open_file

MOST_MEMBERS = 500_000  #: files and folders of an archive: COCO's largest has 83,000
#: Unpacked bytes for each byte of an archive. NUS-WIDE's labels, zeros and ones, have about 30, a bomb has 1,000.
MOST_TIMES = 100
FREE = 10_000_000  #: unpacked bytes that every archive may have, however small it is
#: What a file system says of an impossible name, such as a file in a file; all other errors are not the archive's.
_BAD_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ)


def unpack(file: Path, folder: Path, check: Callable[[Path], None] | None = None) -> None:
    """Unpack a .tar, .tar.gz or .zip, told apart by content. `check` is called with the folder of what was unpacked.

    Raises ValueError if it is damaged anywhere, has too many files or bytes, holds a link or a path that leaves
    `folder`, or `check` says so; OSError if the disk is full or cannot be written. Nothing is left then.
    """
    for left in folder.glob(".unpacking-*"):  # by a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as draft:
        try:
            with open_file(file) as raw:
                most = max(FREE, MOST_TIMES * file.stat().st_size)
                (_unzip if raw.peek(2)[:2] == b"PK" else _untar)(raw, Path(draft), most)
            if check:
                check(Path(draft))
        except Exception as error:  # whatever a damaged file makes a reader raise
            known = getattr(error, "errno", None)
            if isinstance(error, MemoryError) or (known is not None and known not in _BAD_NAMES):
                raise
            reason = brief(error).rstrip(":. ") or type(error).__name__
            raise ValueError(f"{file} cannot be unpacked ({reason}).") from error
        for made in Path(draft).iterdir():
            _move(made, folder / made.name)


def _unzip(raw: io.BufferedReader, draft: Path, most: int) -> None:
    with zipfile.ZipFile(raw) as archive:
        members = archive.infolist()
        _check_number(len(members))
        if (total := sum(member.file_size for member in members)) > most:  # no member gives more than it announces
            raise ValueError(f"it holds {total:,} bytes, but at most {most:,} are unpacked of an archive of its size")
        for member in members:
            clean_path(member.filename, "zip")
        archive.extractall(draft)


def _untar(raw: io.BufferedReader, draft: Path, most: int) -> None:
    source = _Bounded(gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw, most)
    with tarfile.open(fileobj=source, mode="r:") as tar:  # pyrefly: ignore[no-matching-overload], it can read and seek
        for number, member in enumerate(tar, start=1):
            _check_number(number)
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise ValueError(f"'{brief(member.name)}' is a link, a device or a sparse file")
            tar.extract(member, draft, filter="data")
        # tarfile takes a damaged header for the end, which must be zeros
        source.seek(tar.offset)
        if source.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError(f"damaged or cut short after {len(tar.getmembers())} files and folders")
    while source.read(PIECE):  # gzip's checksum comes last
        pass


def _check_number(members: int) -> None:
    if members > MOST_MEMBERS:
        raise ValueError(f"it holds more than {MOST_MEMBERS:,} files and folders")


class _Bounded:
    """A file that is read up to a place, `most`, and never much at once: only a tar's hostile header asks for that."""

    def __init__(self, file: io.BufferedReader | gzip.GzipFile, most: int):
        self.file, self.most, self.tell = file, most, file.tell

    def seek(self, place: int) -> None:
        self.file.seek(min(place, self.most + 1))

    def read(self, size: int) -> bytes:
        if size > PIECE:
            raise ValueError(f"a header of {size:,} bytes")
        found = self.file.read(size)
        if self.tell() > self.most:
            raise ValueError(f"more than the {self.most:,} bytes that are unpacked of an archive of its size")
        return found


def _move(made: Path, place: Path) -> None:
    """Move into place; a folder that is there already (from another archive) receives what it does not have yet."""
    if made.is_dir() and place.is_dir():
        for inner in made.iterdir():
            _move(inner, place / inner.name)
    else:
        shutil.move(made, place)
