"""The lecturer's guide: its minutes are README's, its sessions fit, and its tables say what the exercises say."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

PROJECT = Path(__file__).parent.parent
GUIDE = (PROJECT / "book" / "teaching.md").read_text()
PAGE = re.compile(r"notebooks/(\w+)\.ipynb")
ROOM = {"lecture": 90, "week": 4 * 60, "semester": 2 * 90}  #: minutes, of the lecture as a whole and of each session


def sessions(name: str) -> list[list[str]]:
    """The lines of a schedule, as cells."""
    table = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", GUIDE, re.DOTALL)[1]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


@pytest.fixture
def readme() -> dict[str, tuple[int, int]]:
    """What README says of each page: minutes to read, seconds to compute."""
    rows = re.findall(
        r"\(notebooks/(\w+)\.ipynb\) \| .* \| (\d+) \| (\d+) \|$", (PROJECT / "README.md").read_text(), re.MULTILINE
    )
    return {page: (int(minutes), int(seconds)) for page, minutes, seconds in rows}


@pytest.mark.parametrize("name", ROOM)
def test_minutes_and_seconds_are_those_of_the_readme(name, readme):
    for row in sessions(name):
        pages = PAGE.findall(row[1])
        assert pages
        assert int(row[3]) == sum(readme[page][0] for page in pages)
        assert int(row[4]) == sum(readme[page][1] for page in pages)


@pytest.mark.parametrize("name", ROOM)
def test_reading_and_exercises_in_class_fit_into_a_session(name):
    taken = [int(row[3]) + int((re.findall(r"\((\d+) minutes\)", row[5]) or [0])[0]) for row in sessions(name)]
    assert (sum(taken) if name == "lecture" else max(taken)) <= ROOM[name]


@pytest.mark.parametrize("name", ROOM)
def test_a_page_comes_after_those_that_it_builds_on_or_the_session_says_what_it_assumes(name):
    known = set()
    for row in sessions(name):
        known |= {*PAGE.findall(row[1]), *PAGE.findall(row[2])}
        for page in PAGE.findall(row[1]):
            text = json.loads((PROJECT / "notebooks" / f"{page}.ipynb").read_text())["cells"][1]["source"]
            needed = re.search(r"\*\*Comes from\*\* (.*)", "".join(text))[1]
            assert set(re.findall(r"\((\w+)\.ipynb\)", needed)) <= known, page


def test_the_long_course_has_every_page_once():
    taught = [page for row in sessions("semester") for page in PAGE.findall(row[1])]
    assert sorted(taught) == sorted(path.stem for path in (PROJECT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture
def teaching(from_tools):
    return from_tools("teaching")


@pytest.fixture
def source(tmp_path) -> Path:
    """A prediction, an exercise with two wrong answers, and one that a person reads and that takes long."""
    wrong = {"tags": ["wrong"]}
    notebook = new_notebook()
    notebook.cells = [
        new_markdown_cell("# Exercises to page 4\n\n## Quiz"),
        new_markdown_cell("## Predict before you run (3 minutes, 1 point)\n\nHow many?"),
        new_raw_cell("# counts twice\nprediction = 2", metadata=wrong),
        new_markdown_cell("The answer.\n\n## 1. The size |u| (20 minutes, 3 points)\n\nWrite it."),
        new_raw_cell("# takes |u| for u\nreturn u", metadata=wrong),
        new_raw_cell("# forgets the mean\nreturn 1", metadata=wrong),
        new_markdown_cell("## 2. Why? (an hour or an afternoon, 2 points, read by a person)"),
        new_code_cell(metadata={"nbgrader": {"grade": True, "solution": True, "grade_id": "why"}}),
    ]
    nbformat.write(notebook, tmp_path / "04.ipynb")
    return tmp_path / "04.ipynb"


def test_exercises_are_read_from_their_source(teaching, source):
    first, second, third = teaching.exercises_of(source)
    assert (first.number, first.minutes, first.wrong) == ("prediction", 3, ["counts twice"])
    assert teaching.cells(second) == ("1. The size |u|", "20 minutes", "3", "takes \\|u\\| for u · forgets the mean")
    assert teaching.cells(third) == ("2. Why?", "an hour or an afternoon", "2, read by a person", "")
    assert third.minutes == float("inf")
    assert (
        teaching.numbers({"04_x": [first, second], "05_y": [], "06_z": [third]}) == "page 4: prediction, 1; page 6: 2"
    )


def test_a_page_without_a_source_has_no_exercises(teaching, tmp_path):
    assert teaching.exercises_of(tmp_path / "none.ipynb") == []


def test_a_schedule_keeps_what_is_written_by_hand(teaching):
    old = "| a | b | c |\n|---|---|---|\n| one | [0](../notebooks/00_why_hashing.ipynb) | nothing | 99 | | | |\n"
    new = teaching.schedule(old, longest=0).splitlines()
    assert new[0] == "| " + " | ".join(teaching.HEAD) + " |"
    assert new[2].startswith("| one | [0](../notebooks/00_why_hashing.ipynb) | nothing | 15 | ")


def test_links_of_the_guide_lead_to_files():
    for link in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", GUIDE):
        assert (PROJECT / "book" / link).is_file(), link
