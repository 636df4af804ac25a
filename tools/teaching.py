"""The tables of the lecturer's guide, book/teaching.md, which `tables.py` makes anew.

How long a session takes follows from the pages and the exercises that it has. What is written by hand, the name of a
session, its pages and what it assumes, stays as it is.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nbformat
from generated import kept, markdown, minutes_to_read
from publish import NOTEBOOKS, opening

SOURCES = NOTEBOOKS[0].parent / "exercises" / "solutions"
HEADING = re.compile(r"^## (?:(\d+)\. )?(.+) \(([^()]+), (\d+) points?(?:, [^()]+)?\)$", re.MULTILINE)
PAGE = re.compile(r"\(\.\./notebooks/(\w+)\.ipynb\)")
HEAD = "session", "pages", "assumes", "minutes to read", "seconds to compute", "exercises in class", "at home"


@dataclass
class Exercise:
    """An exercise as its source has it.

    Attributes:
        number: "1", or "prediction".
        takes: in words.
        points: what it can bring.
        read: whether a person reads the answer.
        wrong: what is wrong with each of the wrong answers.
    """

    number: str
    title: str
    takes: str
    points: int
    read: bool
    wrong: list[str]

    @property
    def minutes(self) -> float:
        """How long it takes; without end if it says neither minutes nor an hour."""
        found = re.fullmatch(r"(\d+) minutes?|(an hour)", self.takes)
        return float("inf") if not found else 60 if found[2] else int(found[1])


def exercises_of(source: Path) -> list[Exercise]:
    """The exercises of a source; none if there is no such file."""
    found = []
    if not source.is_file():
        return found
    for cell in nbformat.read(source, as_version=4).cells:
        for number, title, takes, points in HEADING.findall(cell.source) if cell.cell_type == "markdown" else ():
            found.append(Exercise(number or "prediction", title, takes, int(points), read=False, wrong=[]))
        if "wrong" in cell.metadata.get("tags", []):
            found[-1].wrong.append(cell.source.split("\n")[0].removeprefix("# "))
        facts = cell.metadata.get("nbgrader", {})
        if facts.get("grade") and facts.get("solution"):
            found[-1].read = True
    return found


def exercises(_: str) -> str:
    """What each exercise asks and brings, and what is wrong with its wrong answers: a table for each page."""
    parts = []
    for path in NOTEBOOKS:
        of_page = exercises_of(SOURCES / path.name)
        rows, points = [cells(exercise) for exercise in of_page], sum(exercise.points for exercise in of_page)
        link = f"[{opening(path.stem)[0]}](../notebooks/exercises/{path.name})"
        table = markdown(("exercise", "takes", "points", "wrong answers: what each does, or why it is wrong"), rows)
        parts += [f"{link}, {points} points:\n\n{table}"] if rows else []
    return "\n" + "\n".join(parts) + "\n" if parts else ""


def cells(exercise: Exercise) -> tuple[str, ...]:
    """A line of such a table."""
    name = exercise.title if exercise.number == "prediction" else f"{exercise.number}. {exercise.title}"
    points = f"{exercise.points}, read by a person" if exercise.read else str(exercise.points)
    wrong = " · ".join(exercise.wrong).replace("|", "\\|")
    return name, exercise.takes, points, wrong


def schedule(old: str, longest: int) -> str:
    """The sessions of a course: what is written by hand, and how long its pages and exercises take.

    longest: minutes of an exercise that is done in class.
    """
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in old.strip().splitlines()[2:]]
    return markdown(HEAD, ([*row, *lengths(PAGE.findall(row[1]), longest)] for row in rows))


def lengths(pages: list[str], longest: int) -> Iterator[str]:
    """The last cells of a session."""
    seconds = kept("pages").set_index("page")["seconds"]
    yield str(sum(minutes_to_read(page) for page in pages))
    yield str(sum(int(seconds.get(page, 0)) for page in pages))
    found = {page: exercises_of(SOURCES / f"{page}.ipynb") for page in pages}
    short = {page: [e for e in given if e.minutes <= longest] for page, given in found.items()}
    minutes = sum(e.minutes for given in short.values() for e in given)
    yield f"{numbers(short)} ({minutes} minutes)" if minutes else ""
    yield numbers({page: [e for e in given if e.minutes > longest] for page, given in found.items()})


def numbers(found: dict[str, list[Exercise]]) -> str:
    """Exercises by page and number."""
    given = {page: ", ".join(exercise.number for exercise in of_page) for page, of_page in found.items() if of_page}
    return "; ".join(f"page {int(page[:2])}: {listed}" for page, listed in given.items())


TEACHING: dict[str, Callable[[str], str]] = {
    "lecture": partial(schedule, longest=3),
    "week": partial(schedule, longest=15),
    "semester": partial(schedule, longest=15),
    "exercises": exercises,
}
