"""Slides of a small run: what stands on them, beside them, and that nothing overlaps or is too small."""

import re
from itertools import combinations

import nbformat
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_output
from pptx import Presentation
from pptx.util import Pt

import hhlib as hh

PAGE = "04_retrieval_evaluation"
CAPTIONS = {"04_wide": "Query 1, six bits: wide <b>.", "04_tall": "A tall one.", "04_spare": "Never shown."}


@pytest.fixture
def slides(from_tools):
    return from_tools("slides")


@pytest.fixture
def run(tmp_path, slides):
    """A run of page 4 that shows a wide figure below "Ties" and a tall one below "Curves", and keeps a third."""
    run = hh.runs.Run(tmp_path / "digits" / "a run")
    sizes = {"04_wide": (8, 2), "04_tall": (4, 6), "04_spare": (2, 2)}
    for name, caption in CAPTIONS.items():
        run.save_figure(Figure(figsize=sizes[name]), name, caption)
    page = nbformat.read(slides.PROJECT / "notebooks" / f"{PAGE}.ipynb", as_version=4)
    for name, word in (("04_wide", "## Ties"), ("04_tall", "## Curves")):
        place = next(i for i, cell in enumerate(page.cells) if word in cell.source) + 1
        shown = {"text/html": "<figure>", "text/plain": CAPTIONS[name]}
        page.cells[place].outputs = [new_output("display_data", shown)]
    (run.path / "notebooks").mkdir()
    nbformat.write(page, run.path / "notebooks" / f"{PAGE}.ipynb")
    return run.path


@pytest.fixture
def deck(slides, run, tmp_path):
    assert slides.make(run, tmp_path / "slides") == 0
    return list(Presentation(tmp_path / "slides" / f"{PAGE}.pptx").slides)


def test_a_deck_has_title_aims_figures_and_findings_in_the_order_of_the_page(deck):
    titles = [slide.shapes.title.text for slide in deck]
    assert titles[0] == "4. Retrieval and evaluation: how good is a list?"
    assert titles[1:] == ["You will", "Ties: many images at one distance", "Curves", "What we saw"]
    assert deck[1].placeholders[1].text.split("\n")[1] == "Compute average precision by hand"
    findings = deck[-1].placeholders[1].text.split("\n")
    assert findings[0].startswith("Codes are made once.")
    assert findings[-1].startswith("Where it fails: mAP is kind to collapsed codes.")


def test_a_picture_says_what_it_shows_and_the_notes_say_what_the_page_says_around_it(deck):
    for slide, name in ((deck[2], "04_wide"), (deck[3], "04_tall")):
        picture = next(shape for shape in slide.shapes if hasattr(shape, "image"))
        assert picture._element.nvPicPr.cNvPr.get("descr") == CAPTIONS[name]
        assert CAPTIONS[name] in [shape.text_frame.text for shape in slide.shapes if shape.has_text_frame]
    notes = deck[2].notes_slide.notes_text_frame.text
    assert notes.startswith("A code of K bits has only K + 1 distances")
    assert "(mAP) be, at best and at worst?\n\nBest puts the right images first" in notes
    assert deck[3].notes_slide.notes_text_frame.text.startswith("- Precision and recall: recall is")


def test_nothing_overlaps_leaves_the_slide_or_is_too_small_to_read(slides, deck):
    for slide in deck:
        boxes = [(s.left, s.top, s.left + s.width, s.top + s.height) for s in slide.shapes]
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= slides.WIDTH
            assert 0 <= top < bottom <= slides.HEIGHT
        for one, other in combinations(boxes, 2):
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        for shape in slide.shapes:
            for paragraph in shape.text_frame.paragraphs if shape.has_text_frame else ():
                assert paragraph.font.size >= Pt(18)


def test_slides_that_were_edited_stay_unless_they_are_to_be_replaced(slides, run, deck, tmp_path, capsys):
    path = tmp_path / "slides" / f"{PAGE}.pptx"
    path.write_text("edited")
    slides.make(run, path.parent)
    assert path.read_text() == "edited"
    assert "stays as it is; --replace makes it anew" in capsys.readouterr().out
    slides.make(run, path.parent, replace=True)
    assert len(Presentation(path).slides) == len(deck)


def test_a_folder_without_executed_pages_is_refused_and_nothing_is_written(slides, tmp_path):
    with pytest.raises(ValueError, match="nowhere holds no executed page with figures"):
        slides.make(tmp_path / "nowhere", tmp_path / "slides")
    assert not (tmp_path / "slides").exists()


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("## Head\n\nTwo **bold**, *slanted*, `code` and [page 3](03.ipynb).", "Two bold, slanted, code and page 3."),
        (r"$\frac{r}{n}\,\sum_{j=1}^{n} 2 \cdot \theta$", "(r)/(n) Σ_(j=1)^n 2 · θ"),
        ("| a | b |\n|---|---|\n| 1 * 2 | t*t |", "| a | b |\n| 1 * 2 | t*t |"),
    ],
)
def test_markdown_becomes_plain_text(slides, markdown, text):
    assert slides.plain(markdown) == text


def test_no_page_leaves_a_command_of_a_formula_in_its_slides(slides):
    for path in slides.choose(None):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                assert not re.search(r"\\[a-z]|\$|\*\*", slides.plain(cell.source)), path.stem


def test_a_long_list_is_shared_out_in_order(slides):
    points = ["x" * 500, "y" * 500, "z" * 500, "v" * 2000, "w"]
    assert slides.shared_out(points) == [points[:2], points[2:3], points[3:4], points[4:]]
