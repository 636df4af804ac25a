"""One process at a time in a folder: a lock that says who has it, and that a killed process does not leave behind."""

import errno
import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from inspect import signature
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from hhlib.common import Told, Unwritable, atomic

LOCK, STANDS, HOLDER = ".lock", ".lock-file", ".lock-holder.json"
#: What file systems answer that know no locks. There, a file of its own stands for the lock, and says whose it is.
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
#: Versions of filelock that would take the lock's own file for that have a switch: an old one would block for ever.
PLAIN: dict[str, Any] = (
    {"fallback_to_soft": False} if "fallback_to_soft" in signature(BaseFileLock.__init__).parameters else {}
)
_MINE = threading.local()  #: .folders: those whose lock this thread has


class Busy(Told, RuntimeError):
    """Another process works in a folder."""


@contextmanager
def held(folder: Path, doing: str, *, wait: float = 1.0) -> Iterator[None]:
    """The right to write to a folder, which is made; it ends with the ``with``, or with the process, even if killed.

    The thread that has it may take it again.

    Args:
        doing: what the others are told, such as "training".
        wait: seconds to wait for it; -1: without end.

    Raises:
        Busy: if another process, or another thread, has it; says what it does, where, and since when.
        Unwritable: if the folder cannot be written to.
    """
    mine = vars(_MINE).setdefault("folders", set())
    if folder in mine:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder / LOCK, wait)
    except Timeout as error:
        stands = Path(error.lock_file).name == STANDS
        way_out = f", or delete {STANDS} there if no such process runs" if stands else ", or name another place"
        raise Busy(f"{folder} is in use: {_holder(folder)}; wait until that has ended{way_out}.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or error
        raise Unwritable(f"{folder} cannot be written to ({reason}); name another place.") from error
    try:
        mine.add(folder)
        _tell(folder, doing)
        yield
    finally:
        mine.discard(folder)
        with suppress(OSError):
            (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _locked(file: Path, wait: float) -> BaseFileLock:
    """The lock of a file, once this process has it; Timeout if it does not get it."""
    try:
        lock = FileLock(file, **PLAIN)
        lock.acquire(timeout=wait)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, Timeout) or (isinstance(error, OSError) and error.errno not in NO_LOCKS):
            raise
        lock = SoftFileLock(file.with_name(STANDS))
        lock.acquire(timeout=wait)
    return lock


def _tell(folder: Path, doing: str) -> None:
    """Say who has the lock; it holds without that."""
    about = {"doing": doing, "host": platform.node(), "process": os.getpid()}
    with suppress(OSError), atomic(folder / HOLDER) as draft:
        draft.write_text(json.dumps(about | {"since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}), encoding="utf-8")


def _holder(folder: Path) -> str:
    """Who has the lock of a folder, in words."""
    try:
        about = json.loads((folder / HOLDER).read_bytes()[:1000])
        return "{doing} on {host}, process {process}, since {since}".format(**about)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another process works in it"  # it has just begun, or another version wrote it
