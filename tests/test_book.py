"""The book: what is built again, what links lead to, and a small book from beginning to end."""

import shutil
from pathlib import Path

import nbformat
import pytest

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path):
    """A project with one page and its executed copy, a room of the library, and a folder of files."""
    for name in ("book/conf.py", "book/kit.py", "book/static/book.css", "hhlib/common.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, tmp_path / name)
    links = "[code](../hhlib), [files](../kept), [index](../book/index.md#book)"
    text = f"# Page\n\nHalf: $\\frac12$. See {links}."
    folded = nbformat.v4.new_code_cell("draw()", metadata={"jupyter": {"source_hidden": True}})
    python = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), folded], metadata=python)
    html = '<figure><img src="data:image/png;base64,AAAA" alt="six points"></figure>'
    files = {
        "book/index.md": "# Book\n\n```{toctree}\n../notebooks/00_page\napi/common\n```\n",
        "notebooks/00_page.ipynb": nbformat.writes(page),
        "kept/scores.csv": "a,b\n",
        "kept/codes.npz": "\0",
    }
    folded.outputs = [nbformat.v4.new_output("display_data", {"text/html": html})]
    files["executed/00_page.ipynb"] = nbformat.writes(page)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def test_a_small_book(project, from_tools):
    assert from_tools("book").write_site(project, project / "executed", project / "built")
    site = project / "built" / "html"
    written = {path.stem: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    for part in ("<mfrac>", 'alt="six points"', "code of this cell"):
        assert part in written["00_page"]
    for address in ("files/hhlib.html", "files/kept.html", "book/index.html#book"):
        assert f'href="../{address}"' in written["00_page"]
    assert "files/hhlib/common.py.html#line-" in written["common"]
    assert 'id="line-1"' in written["common.py"]
    assert 'href="kept/scores.csv.html"' in written["kept"]
    assert "codes.npz" in written["kept"]
    assert "codes.npz.html" not in written["kept"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="b.html">', None),
        ('<a href="b.html#here">', None),
        ('<a href="folder">', None),
        ('<a href="https://example.org">', None),
        ('<p id="my place"><a href="#my%20place">', None),
        ('<img src="data:image/png;base64,AAAA">', None),
        ('<a href="c.html">', "does not exist"),
        ('<a href="b.html#there">', "has no such place"),
        ('<a href="#there">', "has no such place"),
        ('<script src="https://example.org/x.js"></script>', "without a network"),
        ('<img src="picture.png">', "does not exist"),
    ],
)
def test_links(body, fault, tmp_path, from_tools):
    (tmp_path / "a.html").write_text(body)
    (tmp_path / "b.html").write_text('<p id="here">')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "index.html").write_text("")
    found = from_tools("links").broken(tmp_path)
    assert len(found) == (fault is not None)
    assert all(fault in sentence for sentence in found)


def test_a_digest_changes_with_any_file_name_and_value(tmp_path, from_tools, monkeypatch):
    digest = from_tools("book").digest
    monkeypatch.chdir(tmp_path)
    page, library = Path("page.ipynb"), Path("library")
    page.write_text("1")
    (library / "deep").mkdir(parents=True)
    (library / "deep" / "x.py").write_text("1")
    seen = [digest([page, library], {"bits": 16})]
    (library / "__pycache__").mkdir()
    (library / "__pycache__" / "x.pyc").write_text("made by Python")
    assert digest([page, library], {"bits": 16}) == seen[0]
    seen.append(digest([page, library], {"bits": 32}))
    page.write_text("2")
    seen.append(digest([page, library], {"bits": 32}))
    (library / "deep" / "x.py").write_text("2")
    seen.append(digest([page, library], {"bits": 32}))
    (library / "deep" / "x.py").rename(library / "deep" / "y.py")
    seen.append(digest([page, library], {"bits": 32}))
    assert len(set(seen)) == len(seen)


def test_a_page_that_was_not_executed_to_its_end_is_not_taken(tmp_path, from_tools):
    book = from_tools("book")
    page = tmp_path / "page.ipynb"
    assert not book.is_from(page, "abc")
    nbformat.write(nbformat.v4.new_notebook(), page)
    assert not book.is_from(page, "abc")
    book.mark(page, "abc")
    assert book.is_from(page, "abc")
    assert not book.is_from(page, "abd")


@pytest.mark.parametrize(
    ("docstring", "shown"),
    [
        ("With u,\n\n    L = |u|\n\nand so on.", "With u,\n\n::\n\n    L = |u|\n\nand so on."),
        ("A |b| `c|d` ``e|f``", "A \\|b\\| `c|d` ``e|f``"),
        ("Args:\n    x: one\n\n    y: two", "Args:\n    x: one\n\n    y: two"),
    ],
)
def test_formulas_of_docstrings_stay_as_they_are(docstring, shown, monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "book")
    from kit import keep_formulas

    lines = docstring.split("\n")
    keep_formulas(None, "function", "f", None, {}, lines)
    assert "\n".join(lines) == shown
