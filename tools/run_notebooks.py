"""Run the notebooks in order, headless, and leave one start page with all results.

    python tools/run_notebooks.py [-p NAME VALUE]... [--only 03 04]

Parameters are those of the notebooks' parameters cells; each notebook gets the ones it knows, and a name that none
knows is refused (papermill itself would only warn). Everything lands in the run's folder.
"""

import argparse
import ast
import html
import json
import logging
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # silences a debugger's note in every kernel

import papermill
from kernels import AskingKernelManager
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from hhlib import runs

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
NAMING = ("dataset", "method", "network", "bits", "seed")  #: the parameters that name a run


def main() -> int:
    """Run what the command line asks for; the exit code is the number of notebooks that failed (0 or 1)."""
    os.chdir(PROJECT)  # where the notebooks' relative paths start
    arguments = parse()
    given = values_of(arguments)
    known = {path: defaults(path) for path in NOTEBOOKS}
    try:
        chosen = choose(arguments.only)
        check_names(given, known)
        every = {name: value for parameters in known.values() for name, value in parameters.items()} | given
        folder = runs.folder(**{name: every[name] for name in NAMING}, root=every["runs_dir"])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    show_training_lines()
    seconds = {}
    for path in chosen:
        start = time.perf_counter()
        print(f"{path.stem} ...", flush=True)
        values = {name: value for name, value in ({"live": False} | given).items() if name in known[path]}
        if not execute(path, folder, values):
            return 1
        seconds[path.stem] = time.perf_counter() - start
        print(f"{path.stem} done in {seconds[path.stem]:.0f} s", flush=True)
    page = start_page(folder, seconds)
    print(f"\nAll done in {sum(seconds.values()):.0f} s. Open this page in a browser:\n  {page}")
    print(f"It links the executed notebooks, the figures and {folder / 'metrics.json'}")
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = parameter_parser(__doc__)
    parser.add_argument("--only", nargs="+", metavar="NN", help="numbers of the notebooks to run, such as 03 04b")
    return parser.parse_args()


def parameter_parser(description: str) -> argparse.ArgumentParser:
    """A command line that takes notebooks' parameters."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    return parser


def values_of(arguments: argparse.Namespace) -> dict:
    """The parameters given on such a command line."""
    return {name: literal(value) for name, value in arguments.parameter}


def choose(numbers: list[str] | None) -> list[Path]:
    """The notebooks with these numbers, in reading order; all without numbers. ValueError for one that is not there."""
    known = {path.stem.split("_")[0]: path for path in NOTEBOOKS}
    for number in numbers or ():
        if number not in known:
            raise ValueError(f"there is no notebook {number!r}; there are {', '.join(known)}.")
    return [path for number, path in known.items() if not numbers or number in numbers]


def literal(text: str) -> object:
    """A value as Python would read it ("12", "0.5", "False"); anything else is a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def defaults(path: Path) -> dict:
    """A notebook's parameters and their default values."""
    found = papermill.inspect_notebook(str(path))
    return {name: literal(parameter["default"]) for name, parameter in found.items()}


def check_names(given: dict, known: dict[Path, dict]) -> None:
    """Raise ValueError for a parameter that no notebook has."""
    everything = sorted({name for parameters in known.values() for name in parameters})
    for name in given:
        if name not in everything:
            raise ValueError(f"no notebook has a parameter {name!r}; there are {', '.join(everything)}.")


def show_training_lines() -> None:
    """Let the lines that training prints through, so that the reader sees it move."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(lambda record: record.getMessage().startswith("epoch"))
    handler.setFormatter(logging.Formatter("  %(message)s"))
    handler.terminator = ""
    logger = logging.getLogger("papermill")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def execute(path: Path, folder: Path, values: dict) -> bool:
    """Run one notebook into the run's folder, as .ipynb and .html; False, with the reason printed, if it failed."""
    target = folder / "notebooks" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(path),
            str(target),
            parameters=values,
            cwd=str(PROJECT),
            progress_bar=False,
            log_output=True,
            kernel_manager_class=AskingKernelManager,
            extra_arguments=["--log-level=40"],  # the kernel's own notes about its connection say nothing to a reader
        )
    except PapermillExecutionError as error:
        print(f"{path.name} failed: {error.ename}: {error.evalue}\nSee {target}", file=sys.stderr)
        return False
    body, _ = HTMLExporter().from_filename(str(target))
    target.with_suffix(".html").write_text(body)
    return True


def start_page(folder: Path, seconds: dict[str, float]) -> Path:
    """Write index.html into the run's folder: the score, the notebooks, the figures."""
    metrics = json.loads((folder / "metrics.json").read_text()) if (folder / "metrics.json").is_file() else {}
    pages = sorted((folder / "notebooks").glob("*.html"))
    took = lambda page: f" ({seconds[page.stem]:.0f} s)" if page.stem in seconds else ""  # noqa: E731
    links = "".join(f'<li><a href="notebooks/{p.name}">{p.stem}</a>{took(p)}</li>' for p in pages)
    figures = "".join(
        f'<figure><img src="figures/{p.name}" alt="{p.stem}"><figcaption>{p.stem}</figcaption></figure>'
        for p in sorted((folder / "figures").glob("*.png"))
    )
    score = "".join(
        f"<tr><td>{n.replace('_', ' ')}</td><td>{v:.4f}</td></tr>" for n, v in metrics.get("map", {}).items()
    )
    title = html.escape(f"{folder.parent.name}: {folder.name}")
    files = "".join(
        f'<li><a href="{name}">{name}</a></li>'
        for name in ("metrics.json", "history.csv", "run.json")
        if (folder / name).is_file()
    )
    page = folder / "index.html"
    page.write_text(f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
img{{max-width:100%}} figure{{margin:1.5rem 0}} figcaption{{color:#555}} td{{padding:.1rem 1rem .1rem 0}}</style>
<h1>{title}</h1>
<h2>Mean average precision</h2><table>{score}</table>
<p>expected: mean over all orders of tied images; best and worst: what an order could give.</p>
<h2>Executed notebooks</h2><ol>{links}</ol>
<h2>Files</h2><ul>{files}</ul>
<h2>Figures</h2>{figures}</html>
""")
    return page


if __name__ == "__main__":
    sys.exit(main())
