"""The exercises: from one source with solutions to what a student gets, and the proof that the checks can tell.

    python tools/exercises.py [NN]...

A source, notebooks/exercises/solutions/NN_name.ipynb, is a notebook in nbgrader's cell format. After the cell of a
solution stand raw cells tagged `wrong`: plausible wrong answers, each with a comment that says what is wrong. The
command runs every source in four ways or more (solved, empty, and the wrong answers) and prints which checks passed.
"""

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

FOLDER = Path(__file__).resolve().parent.parent / "notebooks" / "exercises"
SOURCES = sorted((FOLDER / "solutions").glob("[0-9]*.ipynb"))
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def read(path: Path) -> NotebookNode:
    """A source as it is."""
    return nbformat.read(path, as_version=4)


def is_wrong(cell: NotebookNode) -> bool:
    """Whether a cell is a wrong answer."""
    return "wrong" in cell.metadata.get("tags", [])


def solved(source: NotebookNode) -> NotebookNode:
    """The source without its wrong answers: what nbgrader calls the source."""
    return nbformat.from_dict(source | {"cells": [cell for cell in source.cells if not is_wrong(cell)]})


def empty(source: NotebookNode) -> NotebookNode:
    """What a student gets: no solution, no hidden check, no wrong answer."""
    given = solved(nbformat.from_dict(source))
    for preprocessor in (ClearSolutions(), ClearHiddenTests()):
        given, _ = preprocessor.preprocess(given, {})
    return given


def wrong(source: NotebookNode, number: int) -> NotebookNode:
    """The source with the wrong answer of this number, from 0, in each exercise; the last one where it has fewer."""
    given, answer = solved(nbformat.from_dict(source)), None
    for cell in source.cells:
        if cell.metadata.get("nbgrader", {}).get("solution") and cell.cell_type == "code":
            answer, seen = cell.metadata.nbgrader.grade_id, 0
        elif is_wrong(cell):
            seen += 1
            if seen <= number + 1:
                target = next(c for c in given.cells if c.metadata.get("nbgrader", {}).get("grade_id") == answer)
                original = next(c for c in source.cells if c.metadata.get("nbgrader", {}).get("grade_id") == answer)
                target.source = replaced(original.source, cell.source)
    return given


def replaced(source: str, answer: str) -> str:
    """A cell's text with another answer between the marks of its solution, indented as the marks are."""
    before, rest = source.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    margin = before.rpartition("\n")[2]
    return before + f"\n{margin}".join(answer.splitlines()) + after


def checks(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Run a notebook's code in this process -> each automatic check and why it failed, "" if it passed."""
    names = {"__name__": "__main__"}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        error = ""
        try:
            exec(compile(cell.source, cell.get("id", "cell"), "exec"), names)  # noqa: S102, the project's own code
        except Exception:  # what a student's answer does wrong is the answer's business
            error = traceback.format_exc(limit=-1).strip().splitlines()[-1]
        facts = cell.metadata.get("nbgrader", {})
        if facts.get("grade") and not facts.get("solution"):
            yield facts["grade_id"], error


def proof(path: Path) -> dict[str, dict[str, str]]:
    """By check: what became of it, solved, empty and with each of three wrong answers."""
    source, table = read(path), {}
    variants = {
        "solved": solved(source),
        "empty": with_hidden(source),
        **{f"wrong {i + 1}": wrong(source, i) for i in range(3)},
    }
    for name, notebook in variants.items():
        for check, error in checks(notebook):
            table.setdefault(check, {})[name] = error
    return table


def with_hidden(source: NotebookNode) -> NotebookNode:
    """What a student gets, with the hidden checks put back, as the autograder does."""
    given, _ = ClearSolutions().preprocess(solved(nbformat.from_dict(source)), {})
    return given


def main() -> int:
    """Print the proof of the sources named by number, or of all; the exit code is 1 if a check could not tell."""
    numbers, bad = sys.argv[1:], 0
    for path in SOURCES:
        if numbers and path.stem.split("_")[0] not in numbers:
            continue
        for check, results in proof(path).items():
            told = not results["solved"] and all(error for name, error in results.items() if name != "solved")
            bad += not told
            print(f"{path.stem} {check}: {'tells' if told else 'CANNOT TELL'}")
            for name, error in {} if told else results.items():
                print(f"    {name}: {error or 'passed'}")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
