"""What a kill would leave: copies of a folder as it is just before each write to the disk.

SIGKILL gives a process no time for anything, so the folder stays exactly as it was; a copy at that moment is the same,
and takes no process. What the process still had in its buffers is not in the copy, as it would not be on the disk.
"""

import os
import shutil
import sys
from pathlib import Path

WRITES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir")  #: as Python's audit hooks call them
_working: list["Moments"] = []  #: a hook cannot be taken away again, so it looks here


class Moments:
    """Within a ``with``: copies ``to/0000``, ``to/0001`` ... of a folder, before each write or before the wanted one.

    Attributes:
        count: writes so far.
        copies: the copies, in their order.
    """

    def __init__(self, folder: Path, to: Path, wanted: int | None = None):
        self.folder, self.to, self.wanted = folder, to, wanted
        self.count, self.copies = 0, []

    def __enter__(self) -> "Moments":
        _working.append(self)
        return self

    def __exit__(self, *_) -> None:
        _working.remove(self)

    def copy(self) -> None:
        """Copy the folder now, if this is a wanted moment."""
        _working.remove(self)  # copying writes too
        if self.wanted in (None, self.count) and self.folder.is_dir():
            self.copies.append(Path(shutil.copytree(self.folder, self.to / f"{self.count:04d}")))
        self.count += 1
        _working.append(self)


def _hook(event: str, arguments: tuple) -> None:
    if not _working:
        return
    opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if opened or event in WRITES:
        _working[-1].copy()


sys.addaudithook(_hook)


def visible(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by name, without hidden ones: drafts and locks."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    named = {file.relative_to(folder).as_posix(): file for file in files}
    return {name: file.read_bytes() for name, file in named.items() if not f"/{name}".count("/.")}


def different(copies: list[Path]) -> list[Path]:
    """Of copies that hold the same files, the first; so that a test looks at each state once."""
    states = {}
    for copy in copies:
        states.setdefault(tuple(visible(copy).items()), copy)
    return [*states.values()]
