"""Executed notebooks as pages for a browser: readable on a phone and without a network, linked to each other."""

import os
import re
from functools import cache
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from hhlib.common import atomic

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted((HERE.parent / "notebooks").glob("[0-9]*.ipynb"))
#: code, which keeps its dollars, or a formula between two dollars or one
FORMULA = re.compile(r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|\$(?P<line>[^$\n]+?)\$", re.DOTALL)
WIDGET = "application/vnd.jupyter.widget-view+json"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s]+)(?=\))")


@cache
def opening(name: str) -> tuple[str, str]:
    """What a page is called, its heading; and what it promises, the first sentence below."""
    first = nbformat.read(HERE.parent / "notebooks" / f"{name}.ipynb", as_version=4).cells[0].source
    heading, text = first.split("\n", 1)
    text = re.sub(r"[*`]|\[(.+?)\]\(.+?\)", r"\1", text.strip())
    return heading.lstrip("# "), re.split(r"(?<=[.?!])\s", text)[0]


def with_formulas(text: str) -> str:
    """Markdown with its LaTeX formulas as MathML, which browsers draw by themselves."""

    def drawn(found: re.Match) -> str:
        if found["code"]:
            return found["code"]
        inside = found["block"] or found["line"]
        return convert(inside, display="block" if found["block"] else "inline")

    return FORMULA.sub(drawn, text)


def with_links(text: str, folder: Path, pages: list[str]) -> str:
    """Markdown whose links lead to executed pages, and to the project's files from where the page is."""

    def led(found: re.Match) -> str:
        path, *place = found[0].split("#", 1)
        target = HERE.parent / "notebooks" / path
        if target.stem in pages and target.suffix == ".ipynb":
            return "#".join([f"{target.stem}.html", *place])
        return "#".join([Path(os.path.relpath(target.resolve(), folder)).as_posix(), *place])

    return LINK.sub(led, text)


def executed(path: Path) -> nbformat.NotebookNode:
    """A notebook. ValueError if it is none, or was cut short."""
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no notebook, or is cut short; run the page again.") from error


def publish(folder: Path) -> list[str]:
    """Write every executed page of a folder as .html, in reading order -> their names."""
    names = [path.stem for path in NOTEBOOKS if (folder / path.name).is_file() and _whole(folder / path.name)]
    exporter = HTMLExporter(template_name="page", extra_template_basedirs=[str(HERE)])
    for place, name in enumerate(names):
        notebook = executed(folder / f"{name}.ipynb")
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = with_formulas(with_links(cell.source, folder.resolve(), names))
            else:
                cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        notebook.metadata.pop("widgets", None)  # of progress bars, which a page would fetch a library for
        around = {"before": names[place - 1] if place else "", "after": "".join(names[place + 1 : place + 2])}
        around |= {f"{where}_title": opening(other)[0] for where, other in around.items() if other}
        notebook.metadata["title"], _ = opening(name)
        body, _ = exporter.from_notebook_node(notebook, resources=around)
        with atomic(folder / f"{name}.html") as draft:
            draft.write_text(body, encoding="utf-8")
    return names


def _whole(path: Path) -> bool:
    """Whether an executed page can be read; one that was being written when the disk was full, or at a kill, cannot."""
    try:
        executed(path)
    except ValueError as error:
        print(f"{error} It is left out.")
        return False
    return True
