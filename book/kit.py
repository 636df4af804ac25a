"""What the book needs besides Sphinx: executed pages, local formulas, pages of repository files, pages of `hhlib`."""

import importlib
import inspect
import os
import pkgutil
import re
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import nbformat
from docutils import nodes
from docutils.statemachine import StringList
from latex2mathml.converter import convert
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import hhlib

SHOWN = 200_000  #: bytes; larger files are named, not shown
PICTURES = (".png", ".jpg", ".svg")  #: shown by browsers
BAR = re.compile(r"(`+.+?`+)|\|", re.DOTALL)  #: a bar, or what is between backticks


def setup(app: Sphinx) -> dict:
    """Register everything with Sphinx."""
    app.add_config_value("executed", None, "env", (str,))  # the folder of executed pages, absolute
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.add_directive("room", Room)
    app.connect("builder-inited", write_rooms)
    app.connect("source-read", take_executed)
    app.connect("doctree-read", lead_to_files)
    app.connect("html-collect-pages", file_pages)
    app.connect("autodoc-process-docstring", keep_formulas, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def formula(writer, node) -> None:
    """Write a formula as MathML, which browsers draw by themselves."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    drawn = convert(node.astext(), display=display)
    writer.body.append(f'<span class="formula">{drawn}</span>' if display == "block" else drawn)
    raise nodes.SkipNode


def take_executed(app: Sphinx, docname: str, source: list[str]) -> None:
    """Read the executed copy of a page in place of the page; what is folded in JupyterLab is folded in the book."""
    path = Path(app.srcdir, f"{docname}.ipynb")
    if not path.is_file():
        return
    executed = Path(app.config.executed or "", path.name)
    if docname.count("/") == 1 and app.config.executed and executed.is_file():
        app.env.note_dependency(executed)
        path = executed
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        tags = cell.metadata.setdefault("tags", [])
        if cell.metadata.get("jupyter", {}).get("source_hidden") or "injected-parameters" in tags:
            tags.append("hide-input")
    source[0] = nbformat.writes(notebook)


def lead_to_files(app: Sphinx, page: nodes.document) -> None:
    """Lead links to texts and folders of the repository to pages that show them, see `file_pages`.

    A folder with a README is shown by that, a page of HTML by itself. Other files are left for download.
    """
    root, here = Path(app.srcdir), Path(app.env.doc2path(app.env.docname)).parent
    for link in [*page.findall(addnodes.download_reference), *page.findall(addnodes.pending_xref)]:
        path = Path(os.path.normpath(here / link["reftarget"]))
        led = path.is_dir() or path.suffix == ".html" or is_text(path)
        if link.get("reftype") != "myst" or link.get("refdomain") or not led:
            continue
        name, shows = path.relative_to(root).as_posix(), ""
        if (path / "README.md").is_file():
            target = f"{name}/README.html"
        elif path.suffix == ".html":
            target = name
        else:
            target, shows = f"files/{name}.html", name
        address = "../" * app.env.docname.count("/") + target
        link.replace_self(nodes.reference("", "", *link.children, internal=True, refuri=address, shows=shows))


def file_pages(app: Sphinx) -> Iterator[tuple[str, dict, str]]:
    """A page for each file and folder that a page links, the files in such a folder, and the library's code.

    Yields name, content and template of a page.
    """
    root = Path(app.srcdir)
    links = (link for name in app.env.found_docs for link in app.env.get_doctree(name).findall(nodes.reference))
    linked = {root / link["shows"] for link in links if link.get("shows")} | set(root.glob("hhlib/**/*.py"))
    inside = {path for folder in linked if folder.is_dir() for path in folder.iterdir()}
    for path in sorted(linked | {path for path in inside if is_text(path) and not written_as(app, path)}):
        name = path.relative_to(root).as_posix()
        if is_newer(Path(app.outdir, "files", f"{name}.html"), path, Path(app.confdir, "conf.py"), Path(__file__)):
            continue
        content = listing(app, path) if path.is_dir() else coloured(path)
        yield f"files/{name}", {"title": name, "body": f"<h1>{escape(name)}</h1>\n{content}"}, "page.html"
    for path in (path for path in inside if path.suffix in PICTURES):
        copy = Path(app.outdir, "files", path.relative_to(root))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def is_newer(made: Path, *sources: Path) -> bool:
    """Whether a file was made after the last change of its sources."""
    return made.is_file() and made.stat().st_mtime > max(source.stat().st_mtime for source in sources)


def is_text(path: Path) -> bool:
    """Whether a path is a file of text that is short enough to show."""
    return path.is_file() and path.stat().st_size < SHOWN and b"\0" not in path.read_bytes()


def written_as(app: Sphinx, path: Path) -> str:
    """The name of the book's page that a file is written as, or nothing."""
    name = app.env.path2doc(str(path)) or ""
    return name if name in app.env.found_docs else ""


def listing(app: Sphinx, folder: Path) -> str:
    """The files of a folder as HTML, with links to those that are pages of the book, short texts or pictures."""
    items = []
    for path in sorted(folder.glob("[!.]*")):
        address = ""
        if page := written_as(app, path):
            address = "../" * len(folder.relative_to(app.srcdir).parts) + f"{page}.html"
        elif path.suffix in PICTURES:
            address = f"{folder.name}/{path.name}"
        elif is_text(path):
            address = f"{folder.name}/{path.name}.html"
        name = escape(path.name)
        size = f", {path.stat().st_size / 1000:,.1f} kB" if path.is_file() else ""
        items.append(f'<li><a href="{quote(address)}">{name}</a>{size}</li>' if address else f"<li>{name}{size}</li>")
    return f"<ul>{''.join(items)}</ul>"


def coloured(path: Path) -> str:
    """A file of text as HTML, coloured where Pygments knows its kind; the link to line 7 ends in ``#line-7``."""
    try:
        lexer = get_lexer_for_filename(path.name)
    except ClassNotFound:
        lexer = TextLexer()
    return highlight(path.read_text(encoding="utf-8"), lexer, HtmlFormatter(lineanchors="line"))


def code_of(module: str, name: str) -> str | None:
    """The address of the code of something in the library, as seen from book/api; None for a plain value."""
    thing = importlib.import_module(module)
    for part in name.split("."):
        thing = getattr(thing, part, None)
    thing = getattr(thing, "fget", getattr(thing, "py_func", thing))  # of a property, of a compiled function
    try:
        path, (_, line) = inspect.getsourcefile(inspect.unwrap(thing)), inspect.getsourcelines(thing)
    except (TypeError, OSError):
        return None
    return f"../../files/hhlib/{Path(path).relative_to(Path(hhlib.__file__).parent).as_posix()}.html#line-{line}"


def keep_formulas(app: Sphinx, what: str, name: str, thing: object, options: dict, lines: list[str]) -> None:
    """Keep an indented paragraph, which is a formula or a command, as it is; elsewhere, a bar is only a bar."""
    done, last, kept = [], "", False
    for text in "\n".join(lines).split("\n\n"):
        indented = text.startswith("    ")
        begins = indented and not last.startswith(" ")  # not one more paragraph of what a section lists
        kept = begins or (kept and indented)
        done.append(("::\n\n" if begins else "") + (text if kept else BAR.sub(lambda found: found[1] or r"\|", text)))
        last = text[text.rfind("\n") + 1 :]
    lines[:] = "\n\n".join(done).split("\n")


def write_rooms(app: Sphinx) -> None:
    """Write book/api/<room>.rst for each module and package of `hhlib`, and remove those of rooms that are gone."""
    found = {path.stem for path in Path(app.srcdir, "hhlib").glob("[!_.]*") if path.is_dir() or path.suffix == ".py"}
    folder = Path(app.confdir, "api")
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.rst"):
        if path.stem not in found:
            path.unlink()
    for name in found - {path.stem for path in folder.glob("*.rst")}:
        title = f"hhlib.{name}"
        (folder / f"{name}.rst").write_text(f"{title}\n{'=' * len(title)}\n\n.. room:: {title}\n", encoding="utf-8")


class Room(SphinxDirective):
    """``.. room:: hhlib.data`` documents what the package offers, and then what else is in its modules.

    Everything is described once: at the package if that imports it, otherwise at its module.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Put autodoc's directives in place of this one."""
        door = importlib.import_module(self.arguments[0])
        lines = [f".. py:module:: {door.__name__}", "", *described(door, names := offered(door))]
        at_door = [getattr(door, name) for name in names]
        for module in submodules(door):
            rest = [name for name in offered(module) if getattr(module, name) not in at_door]
            if rest:
                lines += [module.__name__, "-" * len(module.__name__), "", *described(module, rest)]
        self.state_machine.insert_input(StringList(lines, source=door.__file__), door.__file__)
        return []


def submodules(door: ModuleType) -> list[ModuleType]:
    """The modules of a package and of packages inside it; none for a module."""
    found = pkgutil.walk_packages(getattr(door, "__path__", ()), f"{door.__name__}.")
    return [importlib.import_module(module.name) for module in found]


def offered(module: ModuleType) -> list[str]:
    """The documented public names that a module defines or, for a package, imports from its own modules."""
    values = {name for scope, name in ModuleAnalyzer.for_module(module.__name__).find_attr_docs() if not scope}
    below = f"{getattr(module, '__package__' if hasattr(module, '__path__') else '__name__')}."
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (name in values or callable(thing) and f"{getattr(thing, '__module__', '')}.".startswith(below))
    ]


def described(module: ModuleType, names: list[str]) -> list[str]:
    """Lines of reStructuredText: the docstring of a module, and a directive of autodoc per name."""
    lines = [f".. py:currentmodule:: {module.__name__}", "", *inspect.getdoc(module).splitlines(), ""]
    for name in names:
        thing = getattr(module, name)
        kind = "class" if inspect.isclass(thing) else "function" if callable(thing) else "data"
        lines += [f".. auto{kind}:: {module.__name__}::{name}", *["   :members:"] * (kind == "class"), ""]
    return lines
