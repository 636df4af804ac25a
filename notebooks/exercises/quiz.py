"""The quiz of a page: ``quiz("04")`` asks what quiz/04.toml holds, and says why an answer is right.

It needs no network.
"""

import os
import re
import tomllib
from html import escape
from pathlib import Path

import ipywidgets as widgets
from IPython.display import HTML, display

FOLDER = Path(__file__).resolve().parent / "quiz"
STYLE = """<style>
.quiz .widget-checkbox { height: auto; }
.quiz .widget-radio-box label, .quiz .widget-checkbox label {
  height: auto; white-space: normal; line-height: 1.4; margin-bottom: 4px;
}
.quiz .widget-html-content { line-height: 1.4; }
</style>"""


def quiz(page: str, live: bool | None = None) -> None:
    """Show the questions of a page.

    page: its number, such as "04".
    live: with buttons, which needs a running kernel; false: as text, with answers that unfold. By
        default live, unless the environment variable QUIZ_LIVE is 0.
    Raises ValueError for a page without a quiz.
    """
    if live is None:
        live = os.environ.get("QUIZ_LIVE", "1") != "0"
    asked = questions(page)
    display(Quiz(asked).box if live else HTML(as_text(asked)))


def questions(page: str) -> list[dict]:
    """The questions of a page: each a `text` and its `choice`s.

    A choice has a `text`, a `because` and perhaps `right`.
    Raises ValueError for a page without a quiz.
    """
    file = FOLDER / f"{page}.toml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.toml")))
        raise ValueError(f"there is no quiz {page!r}; there are {known}.")
    return tomllib.loads(file.read_text(encoding="utf-8"))["question"]


def rich(text: str) -> str:
    """Text as HTML, with `code` between backquotes as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def as_text(asked: list[dict]) -> str:
    """The questions as HTML that needs no kernel; each answer unfolds."""
    parts = []
    for number, question in enumerate(asked, start=1):
        choices = "".join(f"<li>{rich(choice['text'])}</li>" for choice in question["choice"])
        answers = "".join(f"<li>{verdict(choice)}</li>" for choice in question["choice"])
        parts.append(
            f"<p><b>Question {number} of {len(asked)}.</b> {rich(question['text'])}</p>"
            f"<ol type='a'>{choices}</ol>"
            f"<details><summary>Answer to question {number}</summary>"
            f"<ol type='a'>{answers}</ol></details>"
        )
    return "".join(parts)


class Quiz:
    """The questions as widgets; `box` holds them all.

    A question with one right choice has radio buttons, one with more has boxes to tick. The button
    "Check" writes below each question what is right or wrong about the chosen answer, and beside
    itself how many are right.
    """

    def __init__(self, asked: list[dict]):
        self.asked = asked
        self.controls = [_control(question) for question in asked]
        self.answers = [widgets.HTML() for _ in asked]
        self.score = widgets.HTML()
        button = widgets.Button(description="Check", tooltip="Check all answers")
        button.on_click(self.check)
        rows = [widgets.HTML(STYLE)]
        for number, question in enumerate(asked, start=1):
            several = " <i>More than one is right.</i>" if _several(question) else ""
            text = f"<b>Question {number} of {len(asked)}.</b> {rich(question['text'])}{several}"
            rows += [widgets.HTML(text), self.controls[number - 1], self.answers[number - 1]]
        self.box = widgets.VBox([*rows, widgets.HBox([button, self.score])])
        self.box.add_class("quiz")

    def check(self, _button: widgets.Button | None = None) -> None:
        """Say what is right or wrong about each answer, and count."""
        right = 0
        for question, control, answer in zip(self.asked, self.controls, self.answers, strict=True):
            good, words = judged(question, chosen(control))
            right += good
            answer.value = f"<p>{words}</p>"
        self.score.value = f"<span role='alert'>{right} of {len(self.asked)} right</span>"


def judged(question: dict, picked: set[int]) -> tuple[bool, str]:
    """Whether these choices, by number, are exactly the right ones -> and why, as HTML."""
    choices = question["choice"]
    wanted = {i for i, choice in enumerate(choices) if choice.get("right")}
    if not picked:
        return False, "Not answered yet."
    each = [verdict(choices[i]) for i in sorted(picked)]
    if picked < wanted:
        each.append("Not all right answers are ticked.")
    return picked == wanted, "<br>".join(each)


def verdict(choice: dict) -> str:
    """Whether a choice is right, and why, as HTML."""
    return f"<b>{'Right' if choice.get('right') else 'Wrong'}:</b> {rich(choice['because'])}"


def chosen(control: widgets.Widget) -> set[int]:
    """The numbers of the choices that are picked, from 0."""
    if isinstance(control, widgets.RadioButtons):
        return set() if control.index is None else {control.index}
    return {i for i, box in enumerate(control.children) if box.value}


def _several(question: dict) -> bool:
    return sum(bool(choice.get("right")) for choice in question["choice"]) > 1


def _control(question: dict) -> widgets.Widget:
    """Something to pick choices with. Their texts are its labels, which a screen reader reads."""
    texts = [choice["text"].replace("`", "") for choice in question["choice"]]
    wide = widgets.Layout(width="100%")
    if _several(question):
        return widgets.VBox(
            [widgets.Checkbox(description=text, indent=False, layout=wide) for text in texts]
        )
    return widgets.RadioButtons(options=texts, index=None, layout=wide)
