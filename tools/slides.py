"""Slides for a lecture, from the figures of a finished run: one .pptx for each page, every part of which can be edited.

    python tools/slides.py                                    # of the run that `make run` leaves, into course/slides
    python tools/slides.py RUN --only 03 04 --out FOLDER      # RUN: the folder of another run

Needs python-pptx: `pip install -e ".[course]"`.

A deck opens with the page's title and what it teaches, shows each figure that the run has kept, and ends with what we
saw. A caption is also its picture's text for a screen reader, and what the page says before and after a figure is in
the notes.
Slides that are there already may have been edited, so they are left alone unless --replace is given.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from pptx import Presentation
from pptx.dml.color import RGBColor
from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
from pptx.util import Inches, Length, Pt
from publish import opening
from run_notebooks import PROJECT, choose, drawn

import hhlib as hh
from hhlib.common import atomic, command

WIDTH, HEIGHT, EDGE = Inches(13.333), Inches(7.5), Inches(0.6)  #: of a slide
GAP, TOP = Inches(0.1), Inches(1.25)  #: between picture and caption; where what is below a title begins
CAPTION, BESIDE = Inches(6.1), Inches(9.4)  #: where captions begin: below, from the top; beside, from the left
TITLE, LIST, TEXT = Pt(30), Pt(22), Pt(18)  #: sizes of letters; nothing is smaller than the last
ROOM = 1100  #: characters of a list that fit on a slide
INK = RGBColor(0x22, 0x22, 0x22)
#: formulas, as far as the pages use them, for slides and notes, which show plain text
LATEX = {r"\\text\{(.*?)\}": r"\1", r"\\sqrt\{(.*?)\}": r"√(\1)", r"\\[td]?frac(\w)(\w)": r"\1/\2"}
LATEX |= {
    r"\\[td]?frac\{(.*?)\}\{(.*?)\}": r"(\1)/(\2)",
    r"\\(?:left|right|bigl|bigr)": "",
    r"\\quad": " ",
    r"\\,": " ",
}
SIGNS = {"theta": "θ", "alpha": "α", "lambda": "λ", "sum": "Σ", "cdot": "·", "times": "×", "ge": "≥", "le": "≤"}
SIGNS |= {"to": "→", "langle": "⟨", "rangle": "⟩", "partial": "∂", "ell": "ℓ", "dots": "...", "top": "T"}


@dataclass
class Figure:
    """A figure of a page: its file, its caption, the heading above it, and the text before and after it."""

    file: Path
    caption: str
    heading: str
    notes: str


@command
def main() -> int:
    """Make the slides that the command line asks for; the exit code is 2 for a request that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="the folder of a finished run")
    parser.add_argument("--out", type=Path, default=PROJECT / "course" / "slides", help="folder for the slides")
    parser.add_argument("--only", nargs="+", metavar="NN", help="numbers of the pages, such as 03 04")
    parser.add_argument("--replace", action="store_true", help="also make slides anew that are there already")
    asked = parser.parse_args()
    usual = hh.open().run.path  # what `make run` leaves
    if not asked.run and not usual.is_dir():
        print(f"no slides, because there is no run in {usual} yet; `make run` makes one.")
        return 0
    try:
        return make(asked.run or usual, asked.out, asked.only, replace=asked.replace)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


def make(run: Path, folder: Path, only: list[str] | None = None, *, replace: bool = False) -> int:
    """Write the slides of a run's pages into a folder, and say of each what was done -> 0.

    Raises:
        ValueError: for a page that does not exist, or a run that has none of them with figures.
    """
    pages = {path.stem: figures(run, path.stem) for path in choose(only) if (run / "notebooks" / path.name).is_file()}
    if not any(pages.values()):
        raise ValueError(f"{run} holds no executed page with figures; `make run` makes one.")
    for name, shown in pages.items():
        target = folder / f"{name}.pptx"
        if not shown:
            print(f"{name} has no figures in this run, so no slides.")
        elif target.exists() and not replace:
            print(f"{target} is there already and stays as it is; --replace makes it anew.")
        else:
            with atomic(target) as draft:
                deck(run, name, shown).save(draft)
            print(f"{target}: {len(shown)} figures")
    return 0


# ---- what a page says


def cells_of(run: Path, name: str) -> list:
    """The cells of an executed page."""
    return nbformat.read(run / "notebooks" / f"{name}.ipynb", as_version=4).cells


def figures(run: Path, name: str) -> list[Figure]:
    """The figures that a run has kept of a page, in the page's order. A figure is known by its caption."""
    kept = {caption: file for file, caption in drawn(run / "figures").items() if file[:3] == f"{name[:2]}_"}
    heading, before, found, waiting = opening(name)[0], "", [], []
    for cell in cells_of(run, name):
        if cell.cell_type == "markdown":
            parts = re.split(r"^## (.+)$", cell.source, flags=re.MULTILINE)  # text, heading, text, heading, text ...
            for figure in waiting:
                figure.notes = "\n\n".join(filter(None, [figure.notes, plain(parts[0])]))
            heading, before, waiting = parts[-2] if len(parts) > 1 else heading, parts[-1], []
        for output in cell.get("outputs", []):
            caption = output.get("data", {}).get("text/plain", "")
            if caption in kept:
                file = run / "figures" / f"{kept.pop(caption)}.png"
                waiting.append(Figure(file, caption, plain(heading), plain(before)))
                found.append(waiting[-1])
    return found


def teaches(run: Path, name: str) -> list[str]:
    """What a page promises below **You will**, point by point."""
    text = "\n".join(cell.source for cell in cells_of(run, name) if cell.cell_type == "markdown")
    points = re.search(r"\*\*You will\*\* (.+)", text)[1].rstrip(".").split(" · ")
    return [plain(point)[0].upper() + plain(point)[1:] for point in points]


def saw(run: Path, name: str) -> list[str]:
    """The list below "What we saw"."""
    text = "\n".join(cell.source for cell in cells_of(run, name) if cell.cell_type == "markdown")
    part = text.partition("## What we saw")[2].partition("**Exercises**")[0]
    return [plain(point) for point in re.findall(r"^- (.+)$", part, re.MULTILINE)]


def plain(text: str) -> str:
    """Markdown as plain text: without headings, links, stars, backticks and formulas' commands."""
    text = re.sub(r"\$\$?(.+?)\$\$?", lambda found: formula(found[1]), text, flags=re.DOTALL)
    text = re.sub(r"^(#+ .*|\|[-|]+\|)\n*", "", text, flags=re.MULTILINE)  # headings, lines below heads of tables
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\*\*|`|(?<![\w*])\*(?=\S)|(?<=\S)\*(?![\w*])", "", text).strip()


def formula(latex: str) -> str:
    """A formula on one line, in plain characters."""
    for pattern, instead in LATEX.items():
        latex = re.sub(pattern, instead, latex, flags=re.DOTALL)
    latex = re.sub(r"\\([a-zA-Z]+)", lambda found: SIGNS.get(found[1], found[1]), latex)
    return re.sub(r"\s+", " ", re.sub(r"[{}]", "", re.sub(r"([_^])\{([^{}]{2,})\}", r"\1(\2)", latex))).strip()


# ---- slides


def deck(run: Path, name: str, shown: list[Figure]):
    """A page's slides."""
    slides = Presentation()
    slides.slide_width, slides.slide_height = WIDTH, HEIGHT
    title, first = opening(name)
    slides.core_properties.title = title
    add_title(slides, title, plain(first))
    add_list(slides, "You will", teaches(run, name), LIST)
    for figure in shown:
        add_figure(slides, figure)
    *most, last = shared_out(saw(run, name))
    for part in most:
        add_list(slides, "What we saw", part, TEXT)
    add_list(slides, "What we saw", last, TEXT)
    return slides


def shared_out(points: list[str]) -> list[list[str]]:
    """Points, a list for each slide that they need."""
    parts = [[]]
    for point in points:
        if sum(map(len, parts[-1])) + len(point) > ROOM and parts[-1]:
            parts.append([])
        parts[-1].append(point)
    return parts


def add_title(slides, title: str, below: str) -> None:
    """The first slide."""
    slide = slides.slides.add_slide(slides.slide_layouts[0])
    place(slide.shapes.title, Inches(2), Inches(2))
    write(slide.shapes.title, [title], Pt(40))
    place(slide.placeholders[1], Inches(4.1), Inches(2))
    write(slide.placeholders[1], [below], LIST)


def add_list(slides, title: str, points: list[str], size: Length) -> None:
    """A slide with a list."""
    slide = titled(slides, title, layout=1)
    place(slide.placeholders[1], TOP, HEIGHT - TOP - EDGE)
    write(slide.placeholders[1], points, size, gap=Pt(8))


def add_figure(slides, figure: Figure) -> None:
    """A slide with a figure, as large as it can be, and its caption below it, or beside it if it is tall."""
    slide = titled(slides, figure.heading, layout=5)
    picture = slide.shapes.add_picture(str(figure.file), 0, 0)
    tall = picture.width < 1.5 * picture.height
    across, down = (BESIDE - EDGE - GAP, HEIGHT - TOP - GAP) if tall else (WIDTH - 2 * EDGE, CAPTION - TOP - GAP)
    scale = min(across / picture.width, down / picture.height)
    picture.width, picture.height = int(picture.width * scale), int(picture.height * scale)
    picture.left, picture.top = EDGE + (across - picture.width) // 2, TOP + (down - picture.height) // 2
    picture._element.nvPicPr.cNvPr.set("descr", figure.caption)  # python-pptx has no name for it
    left, top = (BESIDE, TOP) if tall else (EDGE, CAPTION)
    box = slide.shapes.add_textbox(left, top, WIDTH - EDGE - left, HEIGHT - top - GAP)
    write(box, [figure.caption], TEXT)
    if not tall:
        box.text_frame.paragraphs[0].alignment = PP_ALIGN.CENTER
    slide.notes_slide.notes_text_frame.text = figure.notes


def titled(slides, title: str, layout: int):
    """A slide of a layout, with its title."""
    slide = slides.slides.add_slide(slides.slide_layouts[layout])
    place(slide.shapes.title, Inches(0.3), Inches(0.85))
    write(slide.shapes.title, [title], TITLE)
    return slide


def place(shape, top: Length, height: Length) -> None:
    """Put a shape where it belongs, from edge to edge."""
    shape.left, shape.top, shape.width, shape.height = EDGE, top, WIDTH - 2 * EDGE, height


def write(shape, lines: list[str], size: Length, gap: Length = 0) -> None:
    """Fill a shape with text, a paragraph for each line, left, from the top."""
    frame = shape.text_frame
    frame.word_wrap, frame.vertical_anchor = True, MSO_ANCHOR.TOP
    for place_in_list, line in enumerate(lines):
        paragraph = frame.paragraphs[0] if not place_in_list else frame.add_paragraph()
        paragraph.text, paragraph.alignment, paragraph.space_after = line, PP_ALIGN.LEFT, gap
        paragraph.font.size, paragraph.font.color.rgb = size, INK


if __name__ == "__main__":
    sys.exit(main())
