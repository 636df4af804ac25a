"""How the tests run the notebooks: on a small data set of one's own, the way the reader does."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from PIL import Image

import hhlib as hh

PROJECT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
RUNNER = PROJECT / "tools" / "run_notebooks.py"
SMALL = {"bits": 12, "epochs": 1, "erase": 0, "clip": 0, "loss.alpha": 0.3, "precision": "float32", "image_size": 32}


#: A cell that notes what a page draws with menus, and one that draws it so when the page has ended, as for a reader who
#: moves a control then.
NOTE = """import hhlib.widgets
_drawn = []
def _noted(way):
    def call(view, *, live, **choices):
        _drawn.append((way, view, choices))
        way(view, live=live, **choices)
    return call
hhlib.widgets.explore, hhlib.widgets.upload = _noted(hhlib.widgets.explore), _noted(hhlib.widgets.upload)"""
AGAIN = "for _way, _view, _choices in _drawn: _way(_view, live=True, **_choices)"


def with_menus(folder):
    """A copy of the runner and of the pages, each with these two cells -> the runner."""
    shutil.copytree(RUNNER.parent, folder / "tools")
    (folder / "notebooks").mkdir(parents=True)
    for name in ("hhlib", "batches", "profiles", "results"):
        (folder / name).symlink_to(PROJECT / name)
    for path in NOTEBOOKS:
        page = nbformat.read(path, as_version=4)
        first = next(i for i, cell in enumerate(page.cells) if cell.cell_type == "code")
        page.cells.insert(first, nbformat.v4.new_code_cell(NOTE))
        page.cells.append(nbformat.v4.new_code_cell(AGAIN))
        nbformat.write(page, folder / "notebooks" / path.name)
    return folder / "tools" / RUNNER.name


def run(pictures, folder, *words, runner=RUNNER, **more):
    """Run notebooks the way the reader does -> what was printed."""
    given = SMALL | {"dataset": pictures, "tested": 8, "runs_dir": folder} | more
    values = [word for name, value in given.items() for word in ("-p", name, str(value))]
    command = [sys.executable, str(runner), *values, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def executed(folder):
    """The executed notebooks of the only run in a folder, by name."""
    return {path.stem: nbformat.read(path, as_version=4) for path in folder.glob("*/*/notebooks/*.ipynb")}


def drawings(folder):
    """A data set of one's own: 350 pictures with several labels each, and the three lists."""
    shapes = hh.data.load("shapes")
    parts = [part.subset(range(n)) for part, n in zip(shapes.parts().values(), (50, 150, 150), strict=True)]
    split = dataclasses.replace(shapes, query=parts[0], train=parts[1], database=parts[2])
    hh.data.write_lists(split, folder)
    for part in parts:
        for image, row in zip(part.batch(range(len(part)))[0], part.rows.tolist(), strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / part.pool.path(row), "PNG")
    return folder
