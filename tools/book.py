"""Build the book: run the pages that changed, let Sphinx write the site, and check its links.

    python tools/book.py

A page is run again if it, its parameters, `hhlib` or `results` have changed. If `hhlib` has changed, the network is
trained again too. Everything lies in book/_build; the site is book/_build/html.
"""

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
from links import broken
from run_notebooks import PROJECT, Request, alone, request_parser, show_training_lines, timed
from sphinx.cmd.build import build_main

from hhlib.common import atomic, command

BUILD = Path("book/_build")
RUNS = BUILD / "runs"
FIRST = """<!doctype html><meta charset="utf-8"><title>HybridHash kit</title>
<meta http-equiv="refresh" content="0; url=book/index.html"><a href="book/index.html">HybridHash kit</a>
"""


@command
def main() -> int:
    """Build the book; the exit code is 0, or 1 if a page failed, Sphinx warned or a link is broken."""
    os.chdir(PROJECT)
    start = time.perf_counter()
    arguments = request_parser(__doc__).parse_args(["-p", "runs_dir", RUNS.as_posix()])
    discard_other_runs(digest([Path("hhlib")]))
    executed = run_changed(Request(arguments))
    if executed is None or not write_site(PROJECT, executed, BUILD):
        return 1
    first = (BUILD / "html" / "index.html").resolve()
    print(f"\nBuilt in {time.perf_counter() - start:.0f} s. Open this page in a browser:\n  {first}")
    return 0


def discard_other_runs(library: str) -> None:
    """Remove a run that another `hhlib` made."""
    made_by = RUNS / "made_by.txt"
    if not made_by.is_file() or made_by.read_text(encoding="utf-8") != library:
        shutil.rmtree(RUNS, ignore_errors=True)
        with atomic(made_by) as path:
            path.write_text(library, encoding="utf-8")


def run_changed(request: Request) -> Path | None:
    """Run the pages that were not run as they are now -> the folder of executed pages, or None if one failed."""
    folder = request.experiment.run.path
    show_training_lines()
    with alone(folder):
        for path, values in request.pages.items():
            executed = folder / "notebooks" / path.name
            now = digest([path, Path("hhlib"), Path("results")], values)
            if is_from(executed, now):
                continue
            if not timed(path, folder, values):
                return None
            mark(executed, now)
    return folder / "notebooks"


def digest(paths: list[Path], values: dict | None = None) -> str:
    """SHA-256 of files, of all files in folders, and of parameters."""
    content = hashlib.sha256(repr(sorted((values or {}).items())).encode())
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                content.update(os.path.relpath(file).encode() + hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()


def is_from(executed: Path, wanted: str) -> bool:
    """Whether a page was executed to its end, with this digest."""
    return executed.is_file() and nbformat.read(executed, as_version=4).metadata.get("digest") == wanted


def mark(executed: Path, now: str) -> None:
    """Write the digest into an executed page, which says that it is complete."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata["digest"] = now
    with atomic(executed) as path:
        nbformat.write(notebook, path)


def write_site(project: Path, executed: Path, build: Path) -> bool:
    """Write the site into ``html`` in a folder, and check its links; False, with reasons printed, if one is broken."""
    source, site = project / "book", build / "html"
    words = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(source), "-d", str(build / "doctrees")]
    if build_main([*words, "-D", f"executed={executed.resolve()}", str(project), str(site)]):
        shutil.rmtree(build / "doctrees", ignore_errors=True)  # Sphinx warns of a page only when it reads it
        return False
    if (source / "explorer").is_dir():
        shutil.copytree(source / "explorer", site / "book" / "explorer", dirs_exist_ok=True)
    (site / "index.html").write_text(FIRST, encoding="utf-8")
    found = broken(site)
    for sentence in found:
        print(sentence, file=sys.stderr)
    return not found


if __name__ == "__main__":
    sys.exit(main())
