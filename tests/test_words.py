"""Glossaries hold the words of the pages; glossaries and README say the same in English and in Chinese."""

import json
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
BOOK = PROJECT / "book"
PAGES = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
ENGLISH = re.compile(r"^((?:\*\*[^*\n]+\*\*\n)+)  (.+)$", re.MULTILINE)
CHINESE = re.compile(r"^\*\*[^*\n]+\*\* \((.+)\)\n  (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(\.\./notebooks/(\w+\.ipynb)\)")
#: bold that opens a part of a page, or stresses a word, and defines nothing
PARTS = {"you will", "comes from", "needs", "makes", "takes", "exercises", "reading", "next", "look at", "empty"}
STRESSED = """
off | found | reachable | all | random | another image's map | passes | placed | your own picture | interval |
training loss | validation map | precision and recall | 1/1 | 2/2 | 3/4 | 1 means no choice | above it | on it |
below it | below the line | csq and mdshc | losses without targets | on clothes, hardly | batches of 64 |
scrambled tokens | no augmentation | other queries | look at `cifar10` first | what the paper says |
what we measured | adsh | dch | dpsh
"""
STRESSED = {word.strip() for word in STRESSED.split("|")}


def english() -> dict[str, tuple[str, ...]]:
    """Every term of the English glossary, and the pages that it leads to."""
    found = ENGLISH.findall((BOOK / "glossary.md").read_text())
    return {term: tuple(LINK.findall(text)) for terms, text in found for term in re.findall(r"\*\*(.+)\*\*", terms)}


def chinese() -> dict[str, tuple[str, ...]]:
    """The same of the Chinese glossary, by the English terms that stand beside the Chinese ones."""
    found = CHINESE.findall((BOOK / "glossary.zh.md").read_text())
    return {term: tuple(LINK.findall(text)) for terms, text in found for term in terms.split(", ")}


def prose(path: Path) -> str:
    """A page's text."""
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def bold(path: Path) -> set[str]:
    """The words of up to four that a page sets in bold, without what opens a part or stresses a word."""
    words = {word.strip("*.:?").lower() for word in re.findall(r"\*\*(.+?)\*\*", prose(path))}
    words = {word for word in words if len(word.split()) <= 4 and not word.startswith(("before you", "the ", "a "))}
    return words - PARTS - STRESSED


def test_the_glossary_is_in_order_and_names_each_term_once():
    lists = ENGLISH.findall((BOOK / "glossary.md").read_text())
    first = [re.findall(r"\*\*(.+)\*\*", terms)[0].lower() for terms, _ in lists]
    assert first == sorted(first)
    assert len(english()) == sum(terms.count("\n") for terms, _ in lists)


def test_nothing_of_a_glossary_is_written_in_another_form():
    for name, pattern in (("glossary.md", ENGLISH), ("glossary.zh.md", CHINESE)):
        _, _, inside = (BOOK / name).read_text().partition(":::{glossary}\n")
        assert pattern.sub("", inside).split() == [":::"], name


def test_every_term_leads_to_pages_that_exist():
    names = {path.name for path in PAGES}
    for term, pages in english().items():
        assert pages, term
        assert set(pages) <= names, term


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_word_that_a_page_defines_is_in_the_glossary(path):
    known = {term.lower() for term in english()}
    unknown = {word for word in bold(path) if not {word, word.removesuffix("s")} & known}
    assert not unknown


def test_a_stressed_word_that_no_page_has_is_not_excused():
    text = "\n".join(map(prose, PAGES)).lower()
    assert [word for word in sorted(STRESSED) if not re.search(rf"\*\*\*?{re.escape(word)}[.:]?\*", text)] == []


def test_both_glossaries_have_the_same_terms_and_pages():
    assert list(chinese().items()) == list(english().items())


MYRIADS = {"million": 10**6, "亿": 10**8}


def parts(text: str) -> list[list[str]]:
    """What must be equal in each part of a README, whatever the language: its numbers, code and links, sorted."""
    text = re.sub(r"(\d+) (million|亿)", lambda found: str(int(found[1]) * MYRIADS[found[2]]), text)
    text = text.replace(".zh.md", ".md")
    equal = re.compile(r"`[^`\n]+`|\]\([^)\s]+\)|\d[\d,.]*\d|\d|^#+|<!-- .+ -->", re.MULTILINE)
    return [sorted(equal.findall(part)) for part in text.split("\n\n")]


def code(text: str) -> list[str]:
    """The lines of code of a README, without comments."""
    blocks = re.findall(r"```.*?```|^ {4}[^\n]+$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r" *# .*", "", line) for block in blocks for line in block.split("\n")]


@pytest.fixture
def readmes() -> tuple[str, str]:
    return tuple((PROJECT / name).read_text() for name in ("README.md", "README.zh.md"))


def test_both_readmes_have_the_same_code(readmes):
    ours, theirs = map(code, readmes)
    assert theirs == ours
    assert "    make run" in ours


def test_both_readmes_have_the_same_parts_with_the_same_numbers_code_and_links(readmes):
    ours, theirs = map(parts, readmes)
    for part, other in zip(ours, theirs, strict=True):
        assert other == part
