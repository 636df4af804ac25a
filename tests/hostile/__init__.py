"""Inputs that are damaged or made to do harm, and what the kit does with each: the one place where they are listed.

`tests/test_hostile.py` tries each; `tools/tables.py` writes them down, in results/hostile.csv and SECURITY.md.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """One input."""

    kind: str  #: what it claims to be: "list", "archive" ...
    what: str  #: what is wrong with it, in a few words
    happens: Callable[[Path], object]  #: makes it in an empty folder, and gives it to the kit
    says: str = ""  #: a part of the sentence that refuses it; empty where it is used
    gives: str = ""  #: what comes of it where it is used, in words; `happens` asserts it


CASES: list[Case] = []


def hostile(kind: str, what: str, **outcome: str) -> Callable:
    """Enter a function into the list; `outcome` is `says` or `gives`."""

    def enter(happens: Callable[[Path], object]) -> Callable:
        CASES.append(Case(kind, what, happens, **outcome))
        return happens

    return enter


def refused(kind: str, read: Callable[[Path, Any], object], rows: Iterable[tuple]) -> None:
    """Enter inputs that ``read(folder, content)`` refuses: (what, content, says)."""
    for what, content, says in rows:
        CASES.append(Case(kind, what, lambda folder, content=content: read(folder, content), says))


def put(file: Path, content: str | bytes) -> Path:
    """Write a file, text in UTF-8 -> its path."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


from hostile import archives, lists, networks, pages, pictures, requests, runs, stores, tables  # noqa: E402, F401
