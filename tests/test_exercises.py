"""The exercises: only the solution passes the checks, students get what the sources give, quizzes say why."""

import re
import tomllib
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from nbgrader.nbgraderformat import SCHEMA_VERSION, MetadataValidator

PROJECT = Path(__file__).parent.parent
FOLDER = PROJECT / "notebooks" / "exercises"
SOURCES = sorted((FOLDER / "solutions").glob("[0-9]*.ipynb"))
QUIZZES = sorted((FOLDER / "quiz").glob("*.toml"))
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


@pytest.fixture
def exercises(from_tools, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)  # as in JupyterLab, where a notebook imports quiz.py
    return from_tools("exercises")


@pytest.fixture
def quiz(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import quiz

    return quiz


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
class TestExercisesOfAPage:
    def test_only_the_solution_passes(self, path, exercises):
        table = exercises.proof(path)
        assert table
        for check, results in table.items():
            assert results["solved"] == "", check
            passed = [name for name, error in results.items() if name != "solved" and not error]
            assert passed == [], check

    def test_nbgrader_knows_every_cell(self, path, exercises):
        source = exercises.read(path)
        cells = exercises.solved(source).cells
        ids = [exercises.facts(cell)["grade_id"] for cell in cells]
        assert len(set(ids)) == len(ids)
        for cell in cells:
            assert exercises.facts(cell)["schema_version"] == SCHEMA_VERSION
            if exercises.facts(cell)["grade"]:
                assert exercises.facts(cell)["points"] > 0
            if exercises.is_check(cell):
                assert exercises.facts(cell)["locked"]
                assert "### BEGIN HIDDEN TESTS" in cell.source
        MetadataValidator().validate_nb(exercises.solved(source))

    def test_every_answer_has_a_check_and_wrong_answers(self, path, exercises):
        """The check comes after its answer, and before the next."""
        waiting = []
        for cell in exercises.read(path).cells:
            if exercises.is_wrong(cell):
                assert cell.source.startswith("# ")  # what is wrong
                waiting[-1] += 1
            elif exercises.is_check(cell):
                assert len(waiting) == 1
                assert waiting.pop() >= 3
            elif exercises.facts(cell).get("solution") and cell.cell_type == "code":
                waiting.append(0)
        assert waiting == []

    def test_a_student_gets_what_the_source_gives(self, path, exercises):
        copy = FOLDER / path.name
        assert copy.read_text(encoding="utf-8") == exercises.student_copy(path)
        text = copy.read_text(encoding="utf-8")
        for word in ("BEGIN SOLUTION", "HIDDEN TESTS", '"wrong"'):
            assert word not in text

    def test_its_links_lead_somewhere(self, path, exercises):
        text = "\n".join(c.source for c in exercises.read(path).cells if c.cell_type == "markdown")
        links = LINK.findall(text)
        assert f"../{path.name}" in links  # its page
        for link in links:
            assert (FOLDER / link).exists(), link

    def test_its_page_leads_to_it(self, path, exercises):
        page = nbformat.read(PROJECT / "notebooks" / path.name, as_version=4)
        assert f"](exercises/{path.name})" in page.cells[-1].source

    def test_it_asks_its_quiz(self, path, exercises):
        number = path.stem.split("_")[0]
        assert f'quiz("{number}")' in "\n".join(c.source for c in exercises.read(path).cells)
        assert FOLDER / "quiz" / f"{number}.toml" in QUIZZES


def test_there_is_no_student_copy_without_a_source():
    assert [path.name for path in sorted(FOLDER.glob("*.ipynb"))] == [path.name for path in SOURCES]


def test_an_unknown_page_is_refused(exercises):
    with pytest.raises(ValueError, match="no exercises for page 99; there are .*04"):
        exercises.chosen(["04", "99"])


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_every_choice_of_a_quiz_says_why(path):
    questions = tomllib.loads(path.read_text(encoding="utf-8"))["question"]
    assert 4 <= len(questions) <= 6
    for question in questions:
        choices = question["choice"]
        assert set(question) == {"text", "choice"}
        assert 3 <= len(choices) <= 4
        assert 1 <= sum(choice.get("right", False) for choice in choices) < len(choices)
        assert len({choice["text"] for choice in choices}) == len(choices)
        for choice in choices:
            assert set(choice) <= {"text", "right", "because"}
            assert len(choice["because"].split()) >= 4


QUESTIONS = [
    {
        "text": "1 < `2`?",
        "choice": [{"text": "yes", "right": True, "because": "it is"}, {"text": "no", "because": "no"}],
    },
    {
        "text": "Which are even?",
        "choice": [
            {"text": "2", "right": True, "because": "1 times 2"},
            {"text": "3", "because": "odd"},
            {"text": "4", "right": True, "because": "2 times 2"},
        ],
    },
]


class TestQuiz:
    def test_nothing_is_picked_at_first(self, quiz):
        asked = quiz.Quiz(QUESTIONS)
        asked.check()
        assert [answer.value for answer in asked.answers] == ["<p>Not answered yet.</p>"] * 2
        assert "0 of 2 right" in asked.score.value

    def test_says_why_in_words_and_counts(self, quiz):
        asked = quiz.Quiz(QUESTIONS)
        radio, boxes = asked.controls
        radio.index = 1
        boxes.children[0].value = boxes.children[2].value = True
        asked.check()
        assert asked.answers[0].value == "<p><b>Wrong:</b> no</p>"
        assert asked.answers[1].value == "<p><b>Right:</b> 1 times 2<br><b>Right:</b> 2 times 2</p>"
        assert "1 of 2 right" in asked.score.value
        radio.index = 0
        asked.check()
        assert "2 of 2 right" in asked.score.value

    def test_half_of_the_right_boxes_are_not_enough(self, quiz):
        assert quiz.judged(QUESTIONS[1], {0}) == (False, "<b>Right:</b> 1 times 2<br>Not all right answers are ticked.")
        assert quiz.judged(QUESTIONS[1], {0, 1, 2})[0] is False

    def test_every_control_has_a_name(self, quiz):
        radio, boxes = quiz.Quiz(QUESTIONS).controls
        assert radio.options == ("yes", "no")
        assert [box.description for box in boxes.children] == ["2", "3", "4"]
        assert all(isinstance(box, ipywidgets.Checkbox) for box in boxes.children)

    def test_without_a_kernel_answers_unfold(self, quiz):
        text = quiz.as_text(QUESTIONS)
        assert "1 &lt; <code>2</code>?" in text
        assert text.count("<details>") == text.count("</details>") == 2
        assert "<b>Wrong:</b> odd" in text

    @pytest.mark.parametrize(("live", "shown"), [("1", "VBox"), ("0", "HTML")])
    def test_the_environment_says_whether_there_are_buttons(self, quiz, monkeypatch, capsys, live, shown):
        monkeypatch.setenv("QUIZ_LIVE", live)
        quiz.quiz("04")
        assert capsys.readouterr().out.startswith((shown, f"<IPython.core.display.{shown}"))

    def test_an_unknown_page_is_refused(self, quiz):
        with pytest.raises(ValueError, match="no quiz '99'; there are .*04"):
            quiz.quiz("99")


class TestCourse:
    def test_links_work_where_the_copy_lies(self, from_tools, tmp_path):
        course = from_tools("course")
        text = (
            "[page](../04_retrieval_evaluation.ipynb#ties) [net](https://example.org/a) [here](#b) [s](solutions/x.py)"
        )
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
        here = course.moved(notebook, FOLDER, FOLDER / "solutions").cells[0].source
        assert here == text.replace("(../04", "(../../04").replace("(solutions/", "(")
        there = course.moved(notebook, FOLDER, tmp_path, "https://example.org/pages/").cells[0].source
        assert "(https://example.org/pages/04_retrieval_evaluation.ipynb#ties)" in there

    def test_a_check_that_cannot_tell_is_named(self, from_tools):
        course = from_tools("course")
        row = {"page": "04_x", "exercise": "ap-check", "points": 2.0, "solution_failed": ""}
        good = row | {"solved": 2.0, "empty": 0.0, "wrong1": 0.0, "wrong2": 0.0, "wrong3": 0.0}
        told = lambda **other: course.failures(course.pd.DataFrame([good | other]))  # noqa: E731
        assert told() == []
        assert told(solved=1.0, solution_failed="E: no") == ["04_x ap-check: the solution got 1 of 2. E: no"]
        assert told(wrong2=2.0) == ["04_x ap-check: wrong2 got 2 points."]

    @pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # about how nbgrader uses its database
    def test_nbgrader_grades_a_small_page(self, exercises, from_tools, tmp_path):
        course = from_tools("course")
        source = small(tmp_path)
        course.lay_out(source, tmp_path / "course")
        released = (tmp_path / "course" / "release" / "99_small" / "99_small.ipynb").read_text()
        assert "raise NotImplementedError" in released
        assert "7" not in nbformat.reads(released, 4).cells[-1].source  # the hidden check
        (row,) = course.graded(source, tmp_path / "course", ("solved", "wrong1")).to_dict("records")
        assert (row["points"], row["solved"], row["wrong1"]) == (2, 2, 0)
        copies = list((tmp_path / "course").rglob("*.ipynb"))
        assert len(copies) == 3 + 1 + 5 + 2  # source, release, instructor; released, handed in and graded for the proof
        for copy in copies:
            (link,) = LINK.findall(nbformat.read(copy, as_version=4).cells[0].source)
            assert (copy.parent / link).resolve() == PROJECT / "notebooks" / "04_retrieval_evaluation.ipynb"


def small(folder):
    """A source with one exercise, which needs no library."""

    def facts(name, **more):
        known = dict(grade=False, solution=False, locked=False, task=False, schema_version=3)
        return {"nbgrader": known | {"grade_id": name} | more}

    new = nbformat.v4
    answer = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
    check = "assert double(1) == 2\n### BEGIN HIDDEN TESTS\nassert double(7) == 14\n### END HIDDEN TESTS"
    page = "[its page](../04_retrieval_evaluation.ipynb)"
    cells = [
        new.new_markdown_cell(page, metadata=facts("text", locked=True)),
        new.new_code_cell(answer, metadata=facts("double", solution=True)),
        new.new_raw_cell("# adds 1\nreturn x + 1", metadata={"tags": ["wrong"]}),
        new.new_code_cell(check, metadata=facts("double-check", grade=True, locked=True, points=2)),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path = folder / "99_small.ipynb"
    nbformat.write(new.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_students_get_no_explanation(path, exercises):
    given = nbformat.read(path.parent.parent / path.name, as_version=4)
    text = "\n".join(cell.source for cell in given.cells).lower()
    assert "model solution" not in text
    assert "<details>" not in text
    assert any(exercises.is_explanation(cell) for cell in nbformat.read(path, as_version=4).cells)
