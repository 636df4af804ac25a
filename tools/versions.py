"""Try the oldest and the newest packages that pyproject.toml allows: results/versions.csv.

    python tools/versions.py [oldest] [newest] [--tests FILE]... [--pages NN]... [--folder FOLDER]

Each gets an environment of its own in FOLDER (several GB, removed afterwards), which uv fills (pip install uv). The
oldest has the lowest version of each requirement that fits the others, and the newest of what these need in turn; the
newest has the newest of all. There the tests run, then the pages on handwritten digits, which compare their figures
with results/reference.csv.

The table has a row for each requirement, and above them what came out: how many tests passed, and of the pages how many
ran, and how many agree in all their figures. Of a page that does not, the figures are named on the screen. A column is
replaced when its environment is tried again.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from hhlib.common import atomic, command
from hhlib.runs import surroundings

PROJECT = Path(__file__).resolve().parent.parent
TABLE = PROJECT / "results" / "versions.csv"
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}


def requirements() -> list[str]:
    """The names of what the project and its tests ask for, as pyproject.toml lists them, each once."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["test"]
    return list(dict.fromkeys(re.split(r"[<>=!~ ]", one)[0] for one in asked))


def install(which: str, folder: Path) -> Path:
    """An environment with these versions -> its Python. CalledProcessError if they do not fit together."""
    python = folder / which / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run(["uv", "venv", "--clear", folder / which], check=True)
    how = ["--python", python, "--resolution", RESOLUTIONS[which], "--editable", f"{PROJECT}[test]"]
    subprocess.run(["uv", "pip", "install", *how], check=True)
    return python


def versions(python: Path) -> dict[str, str]:
    """The version of each requirement in an environment."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    found = subprocess.run([python, "-c", code, *requirements()], check=True, capture_output=True, text=True)
    return dict(zip(requirements(), found.stdout.split(), strict=True))


def tests(python: Path, files: list[str]) -> str:
    """Run tests -> how many passed, of how many: "12 of 13"."""
    done = subprocess.run([python, "-m", "pytest", *files], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    *_, summary = done.stdout.splitlines() or [""]
    count = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", summary)}
    return f"{count.get('passed', 0)} of {sum(count.values())}"


def pages(python: Path, numbers: list[str], runs: Path) -> dict[str, str]:
    """Run pages on digits, all without numbers -> what `compared` says."""
    only = ["--only", *numbers] if numbers else []
    subprocess.run([python, "tools/run_notebooks.py", "-p", "runs_dir", runs, *only], cwd=PROJECT)
    every = [path.name[:2] for path in sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))]
    return compared(numbers or every, runs)


def compared(wanted: list[str], runs: Path) -> dict[str, str]:
    """Of these pages, how many left figures in a folder of runs, and how many agree in all of them."""
    left = {file.stem: pd.read_csv(file) for file in runs.glob("digits/*/reference/*.csv")}
    off = {page: table[table["agrees"] != "yes"] for page, table in left.items() if page in wanted}
    for page, table in off.items():
        if len(table):
            print(f"page {page}:", table.drop(columns=["settings", "how"]).to_string(index=False), sep="\n")
    agree = sum(not len(table) for table in off.values())
    return {"pages that ran": f"{len(off)} of {len(wanted)}", "pages that agree": f"{agree} of {len(wanted)}"}


def tried(which: str, given: argparse.Namespace) -> pd.Series:
    """What came out for one environment, which is removed afterwards."""
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        python, machine = install(which, Path(place)), f"{surroundings()['machine']['cpu']}, {platform.system()}"
        known = versions(python)
        found = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine}
        found |= {"Python": sys.version.split()[0], "tests passed": tests(python, given.tests)}
        found |= pages(python, given.pages, Path(place) / "runs")
    return pd.Series(found | known, name=which)


def keep(found: list[pd.Series]) -> None:
    """Put what came out into the table, a column for each environment, and print it."""
    table = pd.read_csv(TABLE, index_col="what", dtype=str) if TABLE.is_file() else pd.DataFrame()
    for column in found:
        table = table.reindex(column.index).assign(**{column.name: column})
    table = table.reindex(columns=list(RESOLUTIONS)).rename_axis("what")
    with atomic(TABLE) as draft:
        table.to_csv(draft)
    print(table.to_string())


@command
def main() -> int:
    """Try what the command line names, both without names; 1 if a test failed or a page does not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", metavar="oldest|newest", help="without: both")
    parser.add_argument("--tests", nargs="*", default=[], metavar="FILE", help="without: all but those of the pages")
    parser.add_argument("--pages", nargs="*", default=[], metavar="NN", help="without: all")
    parser.add_argument("--folder", type=Path, help="where the environments are; without: the system's for such things")
    given = parser.parse_args()
    if unknown := set(given.which) - set(RESOLUTIONS):
        parser.error(f"{', '.join(unknown)}: it must be oldest or newest.")
    if shutil.which("uv") is None:
        parser.error("uv is not installed; `pip install uv` does that.")
    given.tests = given.tests or [f"--ignore={PROJECT / 'tests' / 'notebooks'}"]
    found = [tried(which, given) for which in given.which or RESOLUTIONS]
    keep(found)
    wrong = [text for column in found for text in column[["tests passed", "pages that agree"]]]
    return int(any(len(set(text.split(" of "))) > 1 for text in wrong))


if __name__ == "__main__":
    sys.exit(main())
