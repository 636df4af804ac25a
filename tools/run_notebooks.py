"""Run the notebooks in order, headless, and leave one start page with all results.

    python tools/run_notebooks.py [-p NAME VALUE]... [--only 03 04]

NAME is any setting (`hh.settings.helps()` lists them), such as bits, erase or loss.alpha, or a parameter that only one
notebook has. Unknown names and values that do not fit are refused before anything runs. Everything lands in the run's
folder.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # silences a debugger's note in every kernel

import jinja2
import papermill
from asking import AskingKernelManager, PageStop
from filelock import FileLock, Timeout
from papermill.exceptions import PapermillExecutionError
from PIL import Image
from publish import NOTEBOOKS, opening, publish

import hhlib as hh
from hhlib.common import atomic, command, resolve, saving
from hhlib.settings.reading import typed

PROJECT = Path(__file__).resolve().parent.parent
INSIDE = ("02", "07", "08", "11")  #: pages that look inside HybridHash, and have nothing to show of another network
WITHOUT_LABELS = ("00", "14")  #: pages that need no labels
TOLD = ("epoch", "trains", "resumes", "finished")  #: how the lines begin that a training prints
TYPES = {"int": int, "float": float, "bool": bool, "str": str}


@command
def main() -> int:
    """Run what the command line asks for; the exit code is 0, 1 if a notebook failed, 2 for a request that is wrong."""
    os.chdir(PROJECT)  # where the notebooks' relative paths start
    request = Request(request_parser(__doc__).parse_args())
    with alone(request.experiment.run.path):
        return run(request)


class Request:
    """What a command line asks for.

    Attributes:
        experiment: the run.
        pages: its notebooks, with the parameters that each gets.

    Raises:
        ValueError: for a name or a number that does not exist, or a value that does not fit.
    """

    def __init__(self, arguments: argparse.Namespace):
        chosen = choose(arguments.only)
        of_settings, of_pages = sort_out(arguments.parameter)
        self.experiment = hh.open(hh.settings.words(of_settings))
        settings = self.experiment.settings
        chosen = suited(with_labels(chosen, settings), settings.network)
        self.pages = {path: values_for(path, of_settings, of_pages, settings) for path in chosen}


def run(request: Request) -> int:
    """Run the pages, in order, until one fails -> 0, or 1 if one failed."""
    folder = request.experiment.run.path
    show_training_lines()
    start = time.perf_counter()
    try:  # the first page that fails is the last
        done = all(timed(path, folder, values) for path, values in request.pages.items())
    except (KeyboardInterrupt, SystemExit):
        start_page(folder)  # what was executed can be read
        raise
    page = start_page(folder)
    ending = f"All done in {time.perf_counter() - start:.0f} s." if done else "A page failed, see above."
    print(f"\n{ending} Open this page in a browser:\n  {page}")
    scores = f" and {folder / 'metrics.json'}" if (folder / "metrics.json").is_file() else ""
    print(f"It links the executed notebooks, the figures{scores}.")
    return 0 if done else 1


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process works in a run's folder; a process lets go of it when it ends, even if killed."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".pages-lock")  # not the run's own, which the pages take
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process works in {folder}; waiting for it to end.", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def timed(path: Path, folder: Path, values: dict) -> bool:
    """`execute`, with a line before and a line after."""
    start = time.perf_counter()
    print(f"{path.stem} ...", flush=True)
    done = execute(path, folder, values)
    if done:
        print(f"{path.stem} done in {time.perf_counter() - start:.0f} s", flush=True)
    return done


def request_parser(description: str) -> argparse.ArgumentParser:
    """A command line that takes settings and numbers of pages."""
    parser = parameter_parser(description)
    parser.add_argument("--only", nargs="+", metavar="NN", help="numbers of the notebooks to run, such as 03 04")
    return parser


def parameter_parser(description: str) -> argparse.ArgumentParser:
    """A command line that takes settings."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    return parser


def choose(numbers: list[str] | None) -> list[Path]:
    """The notebooks with these numbers, in reading order; all without numbers. ValueError for an unknown one."""
    known = {path.stem.split("_")[0]: path for path in NOTEBOOKS}
    for number in numbers or ():
        if number not in known:
            raise ValueError(f"there is no notebook {number!r}; there are {', '.join(known)}.")
    return [path for number, path in known.items() if not numbers or number in numbers]


def suited(pages: list[Path], network: str) -> list[Path]:
    """The pages that a network can be shown on; those left out are named. ValueError if none is left."""
    if hh.network.kind(network) == "hybridhash":
        return pages
    left_out = [path for path in pages if path.stem.split("_")[0] in INSIDE]
    if left_out == pages:
        hh.network.check_hybridhash(network)
    if left_out:
        print(f"left out for network {network}, because they look inside HybridHash:", *(p.stem for p in left_out))
    return [path for path in pages if path not in left_out]


def with_labels(pages: list[Path], settings: hh.settings.Settings) -> list[Path]:
    """The pages that a data set has the labels for; those left out are named. ValueError if none is left."""
    if settings.lists or labelled(settings.dataset):
        return pages
    left_out = [path for path in pages if path.stem.split("_")[0] not in WITHOUT_LABELS]
    what = f"{settings.dataset} has no labels"
    if left_out == pages:
        raise ValueError(f"{what}, but these pages need them; `hhlib index FOLDER` searches without.")
    if left_out:
        print(f"left out, because {what}:", *(path.stem for path in left_out))
    return [path for path in pages if path not in left_out]


def labelled(dataset: str) -> bool:
    """Whether a data set has labels; a folder that holds pictures and no class folders has none."""
    folder = resolve(dataset)
    if dataset in hh.data.names() or hh.data.is_table(folder) or hh.data.holds_lists(folder):
        return True
    found = hh.data.scan(folder)
    return not found.paths or any(found.labels)


def parameters(path: Path) -> dict[str, type]:
    """A notebook's parameters and their types."""
    found = papermill.inspect_notebook(str(path))
    return {name: TYPES[parameter["inferred_type_name"]] for name, parameter in found.items()}


def sort_out(given: list[list[str]]) -> tuple[list[tuple[str, str]], dict[str, object]]:
    """What the command line gave -> settings, and the values of parameters that only some notebook has."""
    every = {name: kind for path in NOTEBOOKS for name, kind in parameters(path).items()}
    own = {name for name in every if name not in hh.settings.helps() and name != "settings"}
    of_settings = [pair for name, value in given if name not in own for pair in _pairs(name, value)]
    return of_settings, {name: typed(name, value, every[name]) for name, value in given if name in own}


def _pairs(name: str, value: str) -> list[tuple[str, str]]:
    return hh.settings.reading.split(value) if name == "settings" else [(name, value)]


def values_for(path: Path, of_settings, of_pages: dict, settings: hh.settings.Settings) -> dict:
    """What a notebook gets: its own parameters by name, all other settings as text."""
    known = parameters(path)
    values = {"live": False} | {name: getattr(settings, name) for name, _ in of_settings if name in known}
    rest = hh.settings.words(pair for pair in of_settings if pair[0] not in known)
    return values | {"settings": rest} | {name: value for name, value in of_pages.items() if name in known}


def show_training_lines() -> None:
    """Let the lines that training prints through, so that the reader sees it move."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(lambda record: record.getMessage().startswith(TOLD))
    handler.setFormatter(logging.Formatter("  %(message)s"))
    handler.terminator = ""
    logging.raiseExceptions = False  # a reader that has left, as `head` does, is not reported line by line
    logger = logging.getLogger("papermill")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def execute(path: Path, folder: Path, values: dict) -> bool:
    """Run one notebook into the run's folder; False, with the reason printed, if it failed.

    Raises KeyboardInterrupt after SIGINT, SystemExit after another signal that asks to end, once the page has kept what
    it did.
    """
    target = folder / "notebooks" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    where = f"on page {path.stem}"
    with saving(target), PageStop() as stop:
        try:
            papermill.execute_notebook(
                str(path),
                str(target),
                parameters=values,
                cwd=str(PROJECT),
                progress_bar=False,
                log_output=True,
                kernel_manager_class=AskingKernelManager,
                on_cell_start=stop.check,
                extra_arguments=["--log-level=40"],  # the kernel's own notes about its connection tell a reader nothing
            )
        except PapermillExecutionError as error:
            if stop.received is None:
                print(f"{path.name} failed: {error.ename}: {error.evalue}\nSee {target}", file=sys.stderr)
                return False
            if error.ename == "Stopped":
                where = error.evalue.removeprefix("stopped ").partition(";")[0]
        except (Exception, KeyboardInterrupt):  # a kernel that was interrupted while it started
            if stop.received is None:
                raise
        if stop.received is not None:
            stop.leave(where)
    return True


def start_page(folder: Path) -> Path:
    """Write the executed pages as .html, and index.html: the score and what must be said beside it, a card per page."""
    scores = folder / "metrics.json"
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True).get_template(
        "start_page.html.j2"
    )
    names = publish(folder / "notebooks")
    figures = drawn(folder / "figures")
    content = page.render(
        title=f"{folder.parent.name}: {folder.name}",
        scores=json.loads(scores.read_text(encoding="utf-8")) if scores.is_file() else {},
        hero=next(((name, text) for name, text in figures.items() if name.startswith("04_query")), None),
        cards=[(name, *opening(name), _first(figures, name.split("_")[0])) for name in names],
        files=[name for name in ("metrics.json", "history.csv", "run.json") if (folder / name).is_file()],
    )
    target = folder / "index.html"
    with atomic(target) as draft:
        draft.write_text(content, encoding="utf-8")
    return target


def drawn(folder: Path) -> dict[str, str]:
    """The figures of a run and their captions, by name."""
    captions = {}
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            captions[path.stem] = picture.text.get("Description", "")
    return captions


def _first(figures: dict[str, str], number: str) -> tuple[str, str] | None:
    """A page's first figure and its caption."""
    return next(((name, text) for name, text in figures.items() if name.split("_")[0] == number), None)


if __name__ == "__main__":
    sys.exit(main())
