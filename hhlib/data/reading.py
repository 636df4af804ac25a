"""Files that somebody else may have made: only regular ones are opened, and each is read within a bound."""

import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

#: Bytes of the longest text that is read, unpacked: 3 times COCO's longest file, 30 times the longest published list.
MOST_TEXT = 1 << 30
MOST_LINE = 1 << 20  #: bytes of a list's line: five times what 100,000 classes take
PIECE = 1 << 20  #: bytes read at a time


def brief(text: object, most: int = 200) -> str:
    """Somebody else's text in a message: on one line, what does not print is escaped, and the end is cut."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)[: most + 1])
    return text if len(text) <= most else f"{text[:most]}..."


def open_file(path: Path) -> io.BufferedReader:
    """Open a regular file to read bytes: a pipe would be waited for, and a device may have no end.

    Raises ValueError for what is no regular file, FileNotFoundError if there is none, OSError if it cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is a folder, a pipe or a device, but it must be a file.")
    return path.open("rb")


def read_bytes(path: Path, most: int = MOST_TEXT) -> bytes:
    """The content of a regular file. Raises ValueError if it has more than `most` bytes; see also `open_file`."""
    with open_file(path) as file:
        if (size := file.seek(0, io.SEEK_END)) > most:
            raise ValueError(f"{path} has {size:,} bytes, but at most {most:,} are read of such a file.")
        file.seek(0)
        return file.read()


def read_text(path: Path) -> str:
    """A text in UTF-8, with or without a byte order mark. Raises ValueError if it is another, see also `read_bytes`."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({brief(error)}).") from error


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The number, from 1, and the content of each line of a text that may be gzipped; blank lines are left out.

    Raises ValueError for more than `MOST_TEXT` bytes or a line of more than `MOST_LINE`, and a damaged gzip file.
    """
    number, rest = 0, b""
    for piece in _pieces(path):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            number += 1
            if line := line.strip():
                yield number, line
        if len(rest) > MOST_LINE:
            raise ValueError(f"{path} line {number + 1} has more than {MOST_LINE:,} bytes.")
    if line := rest.strip():
        yield number + 1, line


def _pieces(path: Path) -> Iterator[bytes]:
    """The content of a file, unpacked if it is gzip, a piece at a time."""
    total = 0
    with open_file(path) as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        file = gzip.GzipFile(fileobj=raw) if packed else raw
        while piece := _next(file, path):
            total += len(piece)
            if total > MOST_TEXT:
                how = " unpacked" * packed
                raise ValueError(f"{path} has more than the {MOST_TEXT:,} bytes{how} that are read of such a file.")
            yield piece


def _next(file: io.BufferedReader | gzip.GzipFile, path: Path) -> bytes:
    try:
        return file.read(PIECE)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a gzip file that is damaged or cut short.") from error
