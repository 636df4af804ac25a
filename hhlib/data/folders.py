"""What a folder of pictures holds, by names alone: pictures, their labels and parts, and what cannot be used."""

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hhlib.common import Missing, resolve
from hhlib.data.files import EXTENSIONS, OTHER_FORMATS
from hhlib.data.reading import brief

#: What systems and archives leave behind, in small letters: never a class and never a picture.
JUNK = {"@eadir", "__macosx", "thumbs.db", "desktop.ini", "#recycle", "$recycle.bin", "system volume information"}
JUNK |= {"lost+found"}
#: The first folders of a tree that is split already, in small letters, and the part that each holds.
PARTS = {"train": "train", "training": "train", "test": "query", "testing": "query", "query": "query"}
PARTS |= dict.fromkeys(("val", "valid", "validation", "dev"), "validation")
PARTS |= dict.fromkeys(("database", "gallery"), "database")


@dataclass(frozen=True)
class Scan:
    """The pictures below a folder. Reasons are plural, such as "links that lead nowhere"; see `told`."""

    root: Path
    paths: list[str]  #: n pictures, relative to `root`, with "/", sorted
    labels: list[list[str]]  #: label names of each picture; empty for one that is in no class folder
    #: "query", "train", "validation" or "database" of each picture, "" for one outside; None if no folders say so
    parts: list[str] | None
    trouble: dict[str, list[str]]  #: reason -> paths that cannot be used
    ignored: dict[str, list[str]]  #: reason -> paths that are left out on purpose


def scan(root: str | Path) -> Scan:
    """Look through a folder and all below it; no file is opened.

    A picture's label is the first folder on its path, `cat/1.jpg` -> "cat". If all first folders are called train,
    test, and so on (see `PARTS`), and one trains and one asks, the tree is split already, and the label is the second
    folder, `train/cat/1.jpg`. Links are followed; each folder is entered once, by its own path rather than by a link.

    Raises FileNotFoundError if there is no such folder; OSError if it cannot be read.
    """
    root = resolve(root)
    if not root.is_dir():
        raise Missing(f"there is no folder {root}.")
    found = {"picture": {}, "folder": {}, "trouble": {}, "ignored": {}}
    for kind, reason, path in _walk(root):
        found[kind].setdefault(reason, []).append(path)
    paths = sorted(found["picture"].get("", []))
    trouble, ignored = ({why: sorted(which) for why, which in found[kind].items()} for kind in ("trouble", "ignored"))
    wanted = [*paths, *(path for which in trouble.values() for path in which)]
    if empty := _without(wanted, found["folder"].get("", [])):
        ignored["folders without pictures"] = empty
    split = _is_split({path.split("/")[0] for path in wanted if "/" in path})
    labels = [[unicodedata.normalize("NFC", name) for name in path.split("/")[split:-1][:1]] for path in paths]
    parts = [PARTS[path.split("/")[0].lower()] if "/" in path else "" for path in paths] if split else None
    return Scan(root, paths, labels, parts, trouble, ignored)


def told(found: dict[str, list[str]], names: int = 3) -> str:
    """Reasons with counts and first names: "links that lead nowhere (2: dog/1.jpg, dog/2.jpg); empty files (...)"."""
    several = (
        f"{reason} ({len(paths):,}: {', '.join(map(brief, paths[:names]))}{', ...' if len(paths) > names else ''})"
        for reason, paths in found.items()
        if paths
    )
    return "; ".join(several)


def _is_split(firsts: Iterable[str]) -> bool:
    """Whether folders with these names are the parts of a split."""
    parts = {PARTS.get(name.lower()) for name in firsts}
    return None not in parts and "train" in parts and not parts.isdisjoint({"query", "validation"})


def _walk(root: Path) -> Iterator[tuple[str, str, str]]:
    """Everything below a folder: (picture, folder, trouble or ignored; the reason, if there is one; path)."""
    todo, links, seen = [(str(root), "")], [], set()
    while todo or links:
        folder, start = todo.pop() if todo else links.pop(0)  # real folders first: pictures keep their own paths
        try:
            facts = os.stat(folder)
            entries = [] if (facts.st_dev, facts.st_ino) in seen else [*os.scandir(folder)]
        except OSError:
            if not start:
                raise
            yield "trouble", "folders that cannot be read", start[:-1]
            continue
        if (facts.st_dev, facts.st_ino) in seen:
            yield "ignored", "links to folders that are looked at already", start[:-1]
            continue
        seen.add((facts.st_dev, facts.st_ino))
        if start:
            yield "folder", "", start[:-1]
        for entry in entries:
            path = start + entry.name
            if entry.name.startswith("."):
                yield "ignored", "hidden files and folders", path
            elif entry.name.lower() in JUNK:
                yield "ignored", "files and folders of the system", path
            elif os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                (links if entry.is_symlink() else todo).append((entry.path, f"{path}/"))
            else:
                yield *_what(entry, path), path
        links.sort()


def _what(entry: os.DirEntry, path: str) -> tuple[str, str]:
    """Whether a file is a picture by its name, its kind and its size, and if not, why."""
    extension = os.path.splitext(entry.name)[1].lower()
    if extension in EXTENSIONS or entry.is_symlink():
        try:
            facts = entry.stat()
            path.encode()
        except OSError:
            return "trouble", "links that lead nowhere" if entry.is_symlink() else "files that cannot be read"
        except UnicodeEncodeError:
            return "trouble", "files whose names are not UTF-8"
    if extension in OTHER_FORMATS:
        return "trouble", f"{OTHER_FORMATS[extension]} files, which must be converted to JPEG or PNG"
    if extension not in EXTENSIONS:
        return "ignored", "files of other types"
    if not stat.S_ISREG(facts.st_mode):  # pyrefly: ignore[unbound-name], its extension is in EXTENSIONS
        return "trouble", "pipes or devices"
    return ("picture", "") if facts.st_size else ("trouble", "empty files")


def _without(paths: list[str], folders: list[str]) -> list[str]:
    """The outermost of these folders that hold none of the paths, sorted."""
    used = {""}
    for path in set(map(os.path.dirname, paths)):
        while path not in used:
            used.add(path)
            path = os.path.dirname(path)
    return sorted(folder for folder in folders if folder not in used and os.path.dirname(folder) in used)
