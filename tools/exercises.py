"""The exercises: from one source with solutions to what a student gets, and the proof that the checks can tell.

    python tools/exercises.py [NN]...            # the proof, for all pages or for some
    python tools/exercises.py --write [NN]...    # writes what a student gets, notebooks/exercises/NN_name.ipynb

A source, notebooks/exercises/solutions/NN_name.ipynb, is a notebook in nbgrader's cell format. After the cell of a
solution stand raw cells tagged `wrong`: plausible wrong answers, each with a comment that says what is wrong. Texts
tagged `explanation` say why the solution is right. Students get neither. The proof runs every source in five ways
(solved, empty, and with three wrong answers) and prints which checks passed. Links in a source are written for the
student's notebook, one folder higher. `make course` does the same with nbgrader itself. After a change of a source:
`make strip`, `ruff format .`, and then --write.
"""

import argparse
import contextlib
import io
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

from hhlib.common import atomic, command

FOLDER = Path(__file__).resolve().parent.parent / "notebooks" / "exercises"
SOURCES = sorted((FOLDER / "solutions").glob("[0-9]*.ipynb"))
WRONG = ("wrong1", "wrong2", "wrong3")  #: made students who hand in wrong answers
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def read(path: Path) -> NotebookNode:
    """A source as it is."""
    return nbformat.read(path, as_version=4)


def is_wrong(cell: NotebookNode) -> bool:
    """Whether a cell is a wrong answer."""
    return "wrong" in cell.metadata.get("tags", [])


def is_explanation(cell: NotebookNode) -> bool:
    """Whether a cell says why the solution is right."""
    return "explanation" in cell.metadata.get("tags", [])


def solved(source: NotebookNode) -> NotebookNode:
    """The source without its wrong answers and explanations: what nbgrader calls the source."""
    kept = [cell for cell in source.cells if not (is_wrong(cell) or is_explanation(cell))]
    return nbformat.from_dict(source | {"cells": kept})


def empty(source: NotebookNode) -> NotebookNode:
    """What a student gets: no solution, no hidden check, no wrong answer, no explanation."""
    given, _ = ClearHiddenTests().preprocess(unanswered(source), {})
    return given


def unanswered(source: NotebookNode) -> NotebookNode:
    """What a student gets, with the hidden checks that the grading puts back."""
    given, _ = ClearSolutions().preprocess(solved(copied(source)), {})
    return given


def copied(notebook: NotebookNode) -> NotebookNode:
    """A copy, without what the cells printed."""
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return copy


def wrong(source: NotebookNode, number: int) -> NotebookNode:
    """The source with the wrong answer of this number, from 0, in each exercise; the last one where it has fewer."""
    given = solved(copied(source))
    answers, offered, answer = {facts(cell).get("grade_id"): cell for cell in given.cells}, {}, None
    for cell in source.cells:
        if facts(cell).get("solution") and cell.cell_type == "code":
            answer = facts(cell)["grade_id"]
        elif is_wrong(cell):
            offered.setdefault(answer, []).append(cell.source)
    for answer, texts in offered.items():
        answers[answer].source = replaced(answers[answer].source, texts[min(number, len(texts) - 1)])
    return given


def facts(cell: NotebookNode) -> dict:
    """What nbgrader knows of a cell: `grade_id`, `grade`, `solution`, `locked`, `points`."""
    return cell.metadata.get("nbgrader", {})


def replaced(source: str, answer: str) -> str:
    """A cell's text with another answer between the marks of its solution, indented as the marks are."""
    before, rest = source.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    margin = before.rpartition("\n")[2]
    return before + f"\n{margin}".join(answer.splitlines()) + after


def variants(source: NotebookNode) -> dict[str, NotebookNode]:
    """What made students hand in, by name: `solved`, `empty` and wrong answers; with the hidden checks."""
    made = {"solved": solved(copied(source)), "empty": unanswered(source)}
    return made | {name: wrong(source, number) for number, name in enumerate(WRONG)}


def is_check(cell: NotebookNode) -> bool:
    """Whether a cell is checked by running it."""
    return bool(facts(cell).get("grade")) and not facts(cell).get("solution")


def checks(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Run a notebook's code in this process -> each automatic check and why it failed, "" if it passed."""
    names = {"__name__": "__main__"}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        error = ""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, cell.get("id", "cell"), "exec"), names)  # the project's own code
        except Exception:  # what a student's answer does wrong is the answer's business
            error = traceback.format_exc(limit=-1).strip().splitlines()[-1]
        if is_check(cell):
            yield facts(cell)["grade_id"], error


def proof(path: Path) -> dict[str, dict[str, str]]:
    """By check: what became of it, solved, empty and with each of three wrong answers."""
    table = {}
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))  # the notebooks import quiz.py from their folder
    for name, notebook in variants(read(path)).items():
        for check, error in checks(notebook):
            table.setdefault(check, {})[name] = error
    return table


def tells(results: dict[str, str]) -> bool:
    """Whether a check lets the solution pass, and nothing else."""
    return not results["solved"] and all(error for name, error in results.items() if name != "solved")


def chosen(numbers: list[str]) -> list[Path]:
    """The sources of the pages named by number, such as "04"; all if none is named. ValueError for an unknown one."""
    known = {path.stem.split("_")[0]: path for path in SOURCES}
    unknown = sorted(set(numbers) - set(known))
    if unknown:
        raise ValueError(f"no exercises for page {', '.join(unknown)}; there are {', '.join(known)}.")
    return [known[number] for number in numbers or known]


def student_copy(path: Path) -> str:
    """The file that a student gets, as it is committed; cells are numbered as nbstripout does."""
    given = empty(read(path))
    for number, cell in enumerate(given.cells):
        cell.id = str(number)
    return nbformat.writes(given) + "\n"


@command
def main() -> int:
    """Write the student's notebooks, or print the proof; the exit code is 1 if a check could not tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="NN", help="numbers of pages, such as 04; all if none is named")
    parser.add_argument("--write", action="store_true", help="write the notebooks that a student gets")
    given, bad = parser.parse_args(), 0
    try:
        sources = chosen(given.pages)
    except ValueError as error:
        parser.error(str(error))
    for path in sources:
        if given.write:
            with atomic(FOLDER / path.name) as file:
                file.write_text(student_copy(path), encoding="utf-8")
            print(f"notebooks/exercises/{path.name}")
            continue
        for check, results in proof(path).items():
            bad += not tells(results)
            print(f"{path.stem} {check}: {'tells' if tells(results) else 'CANNOT TELL'}")
            for name, error in {} if tells(results) else results.items():
                print(f"    {name}: {error or 'passed'}")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
