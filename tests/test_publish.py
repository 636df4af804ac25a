"""Executed notebooks as pages for a browser."""

import re

import nbformat
import pytest


@pytest.fixture
def publish(from_tools):
    return from_tools("publish")


def with_progress_bar(page):
    """A page whose last code cell has shown a progress bar, which is a widget."""
    cell = [cell for cell in page.cells if cell.cell_type == "code"][-1]
    bar = {"application/vnd.jupyter.widget-view+json": {"model_id": "a", "version_major": 2, "version_minor": 0}}
    cell.outputs = [nbformat.v4.new_output("display_data", bar | {"text/plain": "encoding: 100%"})]
    state = {"a": {"model_name": "HBoxModel", "model_module": "@jupyter-widgets/controls", "state": {}}}
    kind = "application/vnd.jupyter.widget-state+json"
    page.metadata["widgets"] = {kind: {"state": state, "version_major": 2, "version_minor": 0}}
    return page


@pytest.fixture
def folder(publish, tmp_path):
    """Pages 3, 4 and 6 as if they had been executed, in a run's folder."""
    target = tmp_path / "digits" / "a run" / "notebooks"
    target.mkdir(parents=True)
    for path in publish.NOTEBOOKS:
        if path.stem[:2] in ("03", "04", "06"):
            nbformat.write(with_progress_bar(nbformat.read(path, as_version=4)), target / path.name)
    assert [name[:2] for name in publish.publish(target)] == ["03", "04", "06"]
    (target.parent / "index.html").touch()
    return target


def test_formulas_become_mathml_and_code_keeps_its_dollars(publish):
    text = publish.with_formulas("cost `$5` and $x_k$\n\n```\n$HOME\n```\n$$\\sum_k x_k$$")
    assert "`$5`" in text
    assert "```\n$HOME\n```" in text
    assert text.count("<math") == 2
    assert text.count('display="block"') == 1
    assert "$x_k$" not in text


def test_every_formula_of_the_pages_can_be_drawn(publish):
    for path in publish.NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                assert not re.search(r"\\[a-zA-Z]{3}", re.sub(r"`[^`]*`", "", publish.with_formulas(cell.source))), (
                    path.stem
                )


def test_links_lead_to_pages_that_were_executed_and_to_files_that_exist(folder):
    for page in folder.glob("*.html"):
        links = re.findall(r'<a href="([^"]+)"', page.read_text())
        assert "../index.html" in links
        here = [link.split("#")[0].replace("%20", " ") for link in links if not re.match(r"\w+:|#", link)]
        assert all((folder / link).exists() for link in here), here
    fourth = (folder / "04_retrieval_evaluation.html").read_text()
    assert 'href="03_gpu_training.html">← 3.' in fourth
    assert re.search(r'href="06_code_space.html">6\.[^<]* →', fourth)
    assert "05_reading_metrics.ipynb" in fourth  # was not executed: the notebook itself


def test_a_page_asks_nothing_of_the_network(folder):
    for page in folder.glob("*.html"):
        assert not re.findall(
            r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']?(?:https?:)?//[^>]*""", page.read_text()
        )
        assert not re.findall(r"https?://[^\s\"']+\.js", page.read_text())
        assert "@import" not in re.sub(r"@import url\(data:", "", page.read_text())


def test_collapsed_cells_fold(folder):
    notebook = nbformat.read(folder / "03_gpu_training.ipynb", as_version=4)
    hidden = sum(bool(cell.metadata.get("jupyter", {}).get("source_hidden")) for cell in notebook.cells)
    assert (folder / "03_gpu_training.html").read_text().count("<summary>code of this cell") == hidden
