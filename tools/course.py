"""A course of the exercises, in nbgrader's layout, and the proof that its grading works. `make course` runs it.

    python tools/course.py                                # all pages: a few minutes
    python tools/course.py 04 05 --no-proof               # some pages; nothing is graded
    python tools/course.py --pages https://example.org/notebooks    # where your students find the pages

Written anew each time are, in course/:

    source/       our notebooks with solutions and hidden checks, from which nbgrader makes
    release/      what students get
    instructor/   the solutions with the wrong answers, each with what is wrong about it
    slides/       by tools/slides.py, from the figures of a finished run; what is there already stays
    proof/        what made students hand in (solved, empty, three with wrong answers), graded by nbgrader in gradebooks
                  of their own, and the table of their scores, scores.csv and scores.md

nbgrader_config.py, gradebook.db, submitted/ and autograded/ are yours: only the exercises are entered in the gradebook.
The exit code is 1 if the solution misses points of a check, or if an empty or wrong notebook gets any; what a person
grades is left out.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
from exercises import FOLDER, WRONG, chosen, facts, is_check, read, solved, variants
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

PROJECT = FOLDER.parent.parent
COURSE = PROJECT / "course"
STUDENTS = ("solved", "empty", *WRONG)
LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)#\s]+)")  # of Markdown, to a file beside it
CONFIG = """# Settings of nbgrader; `nbgrader formgrader` and the other commands start in this folder.
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "hybridhash"
c.Execute.timeout = 120  # seconds a cell may take
c.Execute.iopub_timeout = 60  # seconds until its output has come, on a busy machine
"""


os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # has alembic

warnings.filterwarnings("ignore", category=SAWarning)  # about how nbgrader uses its database


def api(course: Path, proof: str = "") -> NbGraderAPI:
    """nbgrader for a course; with the page of a proof, for its made students, with a gradebook of their own."""
    config = Config()
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.course_id = "hybridhash"
    config.Execute.timeout, config.Execute.iopub_timeout = 120, 60
    config.Execute.extra_arguments = ["--HistoryManager.hist_file=:memory:", "--log-level=ERROR"]  # of kernels
    if proof:
        for step in ("release", "submitted", "autograded"):
            config.CourseDirectory[f"{step}_directory"] = f"proof/{step}"
        (course / "proof" / "gradebooks").mkdir(parents=True, exist_ok=True)
        config.CourseDirectory.db_url = f"sqlite:///{course}/proof/gradebooks/{proof}.db"
    return NbGraderAPI(CourseDirectory(config=config), config=config)


def succeed(result: dict) -> None:
    """RuntimeError with what nbgrader wrote, unless it succeeded."""
    if not result["success"]:
        raise RuntimeError(f"nbgrader failed:\n{result.get('log', '')}\n{result.get('error', '')}")


def moved(notebook: NotebookNode, start: Path, folder: Path, pages: str = "") -> NotebookNode:
    """The notebook, whose links work from `start`, with links that work from `folder`.

    pages: address or folder to which links to pages should lead; by default to this project's.
    """

    def link(found: re.Match) -> str:
        target = (start / found[2]).resolve()
        if pages and target.parent == FOLDER.parent:
            return f"{found[1]}{pages.rstrip('/')}/{target.name}"
        return found[1] + Path(os.path.relpath(target, folder.resolve())).as_posix()

    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(link, cell.source)
    return copy


def emptied(folder: Path) -> Path:
    """The folder, there and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def with_quiz(folder: Path, name: str) -> None:
    """Put the quiz of a page into a folder, where its notebook imports it."""
    shutil.copy(FOLDER / "quiz.py", folder)
    questions = FOLDER / "quiz" / f"{name.split('_')[0]}.toml"
    if questions.is_file():
        (folder / "quiz").mkdir(exist_ok=True)
        shutil.copy(questions, folder / "quiz")


def lay_out(path: Path, course: Path, pages: str = "") -> None:
    """Write one page's source, its release by nbgrader (as deep, so its links work, too), and the instructor's."""
    name, source = path.stem, read(path)
    folder = emptied(course / "source" / name)
    nbformat.write(moved(solved(source), FOLDER, folder, pages), folder / path.name)
    with_quiz(folder, name)
    succeed(api(course).generate_assignment(name))
    (course / "instructor").mkdir(exist_ok=True)
    with_quiz(course / "instructor", name)
    nbformat.write(moved(source, FOLDER, course / "instructor", pages), course / "instructor" / path.name)


def hand_in(path: Path, course: Path) -> None:
    """Write what each made student hands in: the released notebook with the answers of a variant."""
    name = path.stem
    for student, variant in variants(read(path)).items():
        folder = emptied(course / "proof" / "submitted" / student / name)
        answers = {facts(cell)["grade_id"]: cell.source for cell in variant.cells if facts(cell).get("solution")}
        notebook = nbformat.read(course / "release" / name / path.name, as_version=4)
        for cell in notebook.cells:
            if facts(cell).get("solution"):
                cell.source = answers[facts(cell)["grade_id"]]
        with_quiz(folder, name)
        nbformat.write(moved(notebook, course / "release" / name, folder), folder / path.name)


def graded(path: Path, course: Path, students: tuple[str, ...] = STUDENTS) -> pd.DataFrame:
    """Hand in, and grade by nbgrader.

    Returns: one row per check: page, exercise, points, what each made student got, and why the solution failed.
    """
    name = path.stem
    hand_in(path, course)
    grader = api(course, proof=name)
    succeed(grader.generate_assignment(name))
    relink(course / "proof" / "release" / name / path.name, course / "source" / name)
    rows = {facts(c)["grade_id"]: {"points": facts(c)["points"]} for c in read(path).cells if is_check(c)}
    for student in students:
        succeed(grader.autograde(name, student))
        relink(course / "proof" / "autograded" / student / name / path.name, course / "source" / name)
        with Gradebook(grader.coursedir.db_url, "hybridhash") as book:
            for grade in book.find_submission_notebook(name, name, student).grades:
                if grade.name in rows:
                    rows[grade.name][student] = grade.auto_score
    table = pd.DataFrame(rows).T.rename_axis("exercise").reset_index()
    table.insert(0, "page", name)
    return table.assign(solution_failed=[error_of(course, name, check) for check in table["exercise"]])


def relink(path: Path, start: Path) -> None:
    """Mend the links of a notebook into which nbgrader put the texts of the source."""
    notebook = moved(nbformat.read(path, as_version=4), start, path.parent)
    path.chmod(0o644)  # nbgrader lets nobody write what is graded
    nbformat.write(notebook, path)


def error_of(course: Path, name: str, check: str) -> str:
    """What went wrong in a check of the solution as nbgrader ran it; "" if nothing did."""
    notebook = nbformat.read(course / "proof" / "autograded" / "solved" / name / f"{name}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if facts(cell).get("grade_id") == check)
    return "; ".join(f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error")


def failures(table: pd.DataFrame) -> list[str]:
    """What is wrong with the grading, a sentence each; empty if every check can tell."""
    found = []
    for row in table.to_dict("records"):
        where = f"{row['page']} {row['exercise']}"
        if row["solved"] != row["points"]:
            found.append(f"{where}: the solution got {row['solved']:g} of {row['points']:g}. {row['solution_failed']}")
        found += [f"{where}: {student} got {row[student]:g} points." for student in STUDENTS[1:] if row[student]]
    return found


def slides(course: Path, numbers: list[str]) -> None:
    """Write slides with the figures of the run that `make run` leaves; without it, say so."""
    only = ["--only", *numbers] if numbers else []
    subprocess.run([sys.executable, PROJECT / "tools" / "slides.py", "--out", course / "slides", *only], check=True)


def main() -> int:
    """Write the course, and prove it unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="numbers of pages, such as 04; all if none is named")
    parser.add_argument("--no-proof", action="store_true", help="grade no made students")
    parser.add_argument(
        "--pages", default="", metavar="ADDRESS", help="address or folder where students find the pages"
    )
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="pages graded at a time")
    given = parser.parse_args()
    try:
        paths = chosen(given.numbers)
    except ValueError as error:
        parser.error(str(error))
    COURSE.mkdir(exist_ok=True)
    settings = COURSE / "nbgrader_config.py"
    if not settings.exists():
        settings.write_text(CONFIG, encoding="utf-8")
    for path in paths:
        lay_out(path, COURSE, given.pages)
    print(f"{len(paths)} pages are in {COURSE.relative_to(PROJECT)}/: source, release, instructor")
    slides(COURSE, given.numbers)
    if given.no_proof:
        return 0
    emptied(COURSE / "proof")
    tables = []
    with ProcessPoolExecutor(given.jobs) as pool:
        for path, table in zip(paths, pool.map(partial(graded, course=COURSE), paths), strict=True):
            tables.append(table)
            print(f"{path.stem}: {len(STUDENTS)} made students are graded", flush=True)
    return report(pd.concat(tables, ignore_index=True), COURSE / "proof")


def report(table: pd.DataFrame, folder: Path) -> int:
    """Write and print the scores and what is wrong with them -> the exit code."""
    shown = table.drop(columns="solution_failed")
    shown.to_csv(folder / "scores.csv", index=False)
    (folder / "scores.md").write_text(shown.to_markdown(index=False) + "\n", encoding="utf-8")
    print(shown.to_string(index=False))
    wrong = failures(table)
    print(*wrong, sep="\n")
    if not wrong:
        print(f"All {len(table)} checks give the solution its points, and nothing to empty and wrong answers.")
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
