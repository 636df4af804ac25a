"""Names, captions and outputs that reach a page: what a browser must show as text."""

import contextlib
import importlib
import io
import json
from datetime import UTC, datetime
from unittest.mock import patch

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hhlib import bar, data, plots, reference, runs, settings, widgets
from hhlib.experiment import Experiment
from hostile import hostile
from hostile.pictures import png, rows, saved
from hostile.runs import run_in

SCRIPT = "<script>alert('x')</script>"
ATTRIBUTE = '" onerror="alert(1)'
SHOWN = "&lt;script&gt;alert("


def styled(cell, **names):
    """The HTML of the last table of a cell of the kit's pages, with these names."""
    page, number = cell
    path = next(path for path in tool("publish").NOTEBOOKS if path.name.startswith(page))
    lines = nbformat.read(path, as_version=4).cells[number].source.splitlines()
    return eval(lines[-1], names | {"pd": pd})._repr_html_()


@hostile("page", "class names with a script, in the tables of the pages", gives="shown as text")
def _(folder):
    split = {"rows": {"label": [SCRIPT], "AP": [0.5]}}
    shown = [styled(("04", 32), **split)]
    shown += [styled(("07", 13), table={"a": [0.5]}, titles=[SCRIPT], two=[0])]
    shown += [styled(("07", 23), scores={"a": [0.5]}, titles=[SCRIPT], asked=0, who=[])]
    shown += [styled(("08", 24), table={(SCRIPT, "a"): [0.5]}), styled(("08", 30), rows={(SCRIPT, "a"): {"b": 0.5}})]
    for html in shown:
        assert "&lt;script&gt;" in html
        assert "<script" not in html


@hostile("page", "a data set's name with a script, in the table of reference values", gives="shown as text")
def _(folder):
    run = run_in(folder)
    ex = Experiment(settings.read(runs_dir=folder, lists=SCRIPT, live=False), run)
    html = reference.agree(ex, 3, {SCRIPT: 0.5}).to_html()
    assert "&lt;script&gt;" in html
    assert "<script" not in html


def tool(name):
    """A module of tools/, see tests/conftest.py."""
    return importlib.import_module(name)


@hostile("page", "a caption with a script, and one that ends its attribute", gives="both are shown as text")
def _(folder):
    html = widgets.rendered(plt.figure(figsize=(1, 1)), SCRIPT + ATTRIBUTE)["text/html"]
    assert SHOWN in html
    assert "<script" not in html
    assert 'onerror="' not in html


def barred(run, given):
    """The HTML of the bar of a page."""
    shown = []
    with patch("IPython.display.display", lambda bundle, **_: shown.append(bundle["text/html"])):
        bar.show(f"a run of {SCRIPT}", run, given)
    return "".join(shown)


@hostile("page", "a run's name and folder with a script, in the bar of a page", gives="both are shown as text")
def _(folder):
    run = run_in(folder / "runs" / "digits" / "own")
    html = barred(run, settings.read(runs_dir=folder / SCRIPT.replace("/", "\u2215"), live=False))
    assert SHOWN in html
    assert "<script" not in html


@hostile("page", "settings of a run with a script, in the bar of a page", says="but it must be one of adamw")
def _(folder):
    run = run_in(folder)
    recipe = run.parameters["recipe"] | {"optimizer": SCRIPT}
    runs.write_json(folder / "run.json", run.record | {"parameters": run.parameters | {"recipe": recipe}})
    barred(run, settings.read(runs_dir=folder, live=False))


def start_page(folder, caption="", **scores):
    """The start page of a run with these scores and a figure with this caption."""
    run = run_in(folder / f"set {SCRIPT}".replace("/", "\u2215") / "own", metrics_json=scores)
    (run.path / "notebooks").mkdir()
    (run.path / "figures").mkdir()
    about = PngInfo()
    about.add_text("Description", caption)
    Image.new("RGB", (4, 4)).save(run.path / "figures" / "04_query_1.png", pnginfo=about)
    return tool("run_notebooks").start_page(run.path).read_text(encoding="utf-8")


@hostile("page", "remarks, a folder and a caption with scripts, on the start page", gives="all are shown as text")
def _(folder):
    html = start_page(folder, ATTRIBUTE + SCRIPT, remarks=[SCRIPT])
    assert html.count(SHOWN) >= 3
    assert "<script" not in html
    assert 'onerror="' not in html


@hostile("page", "a figure that is no picture, on the start page", says="04_query_1.png")
def _(folder):
    (folder / "figures").mkdir()
    (folder / "figures" / "04_query_1.png").write_bytes(b"<script>")
    tool("run_notebooks").drawn(folder / "figures")


@hostile("page", "class names that end a script, in the explorer of codes", gives="no tag inside its data")
def _(folder):
    html = tool("explorer").page([{"name": f"</script>{SCRIPT}", "names": ["<!--", SCRIPT]}])
    held = html.split('id="held">')[1].split("</script>")[0]
    assert json.loads(held)[0]["names"] == ["<!--", SCRIPT]
    assert "<" not in held


@hostile("notebook", "printed lines and tables with a script", gives="the page shows them as text")
def _(folder):
    publish = tool("publish")
    page = nbformat.read(publish.NOTEBOOKS[0], as_version=4)
    table = {"text/html": pd.DataFrame({SCRIPT: [SCRIPT]})._repr_html_(), "text/plain": SCRIPT}
    cell = next(cell for cell in page.cells if cell.cell_type == "code")
    cell.outputs = [
        nbformat.v4.new_output("stream", text=SCRIPT),
        nbformat.v4.new_output("display_data", table),
        nbformat.v4.new_output("execute_result", {"text/plain": SCRIPT}),
        nbformat.v4.new_output("error", ename="E", evalue=SCRIPT, traceback=[SCRIPT]),
    ]
    page.cells = [page.cells[0], cell]
    nbformat.write(page, folder / publish.NOTEBOOKS[0].name)
    (name,) = publish.publish(folder)
    html = (folder / f"{name}.html").read_text(encoding="utf-8")
    assert html.count(SHOWN) + html.count("&lt;script&gt;alert(&#39;") >= 4
    assert "<script>alert" not in html


@hostile("notebook", "a page that shows a script as HTML", gives="it is kept: an executed notebook is a program")
def _(folder):
    publish = tool("publish")
    page = nbformat.read(publish.NOTEBOOKS[0], as_version=4)
    cell = next(cell for cell in page.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": SCRIPT})]
    page.cells = [page.cells[0], cell]
    nbformat.write(page, folder / publish.NOTEBOOKS[0].name)
    (name,) = publish.publish(folder)
    assert SCRIPT in (folder / f"{name}.html").read_text(encoding="utf-8")


@hostile("notebook", "a notebook that is not one of the kit's", gives="it is not looked at")
def _(folder):
    (folder / "harm.ipynb").write_text("{}")
    assert tool("publish").publish(folder) == []


@hostile("notebook", "a page that is no notebook", gives="it is named and left out")
def _(folder):
    (folder / "00_why_hashing.ipynb").write_text("{")
    assert tool("publish").publish(folder) == []


@hostile("page", "formulas that LaTeX would run", gives="signs, and no command")
def _(folder):
    made = tool("publish").with_formulas(r"$\input{/etc/passwd} \write18{touch harm}$")
    assert "root:" not in made
    assert "<script" not in made


def drawn(*titles):
    """A figure with these titles, drawn."""
    plots.contact_sheet(np.zeros((len(titles), 3, 8, 8), np.uint8), list(titles)).savefig(io.BytesIO())
    plt.close("all")


@hostile("page", "class names with dollars, in a figure", gives="drawn as they are")
def _(folder):
    drawn("Ba$$in", r"$\frac$", "a $b$ c")


@hostile("page", "class names with line breaks, marks that turn the direction, and of 300 letters", gives="drawn")
def _(folder):
    drawn("a\nb", "\u202eabc", "x" * 300, "")


@hostile("folder", "a class name with a line break, in lists", says="would not be read back as it is")
def _(folder):
    for name in ("a\nb/1.jpg", "a\nb/2.jpg", "c/1.jpg", "c/2.jpg", "d/1.jpg", "d/2.jpg"):
        (folder / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "own" / name).write_bytes(saved())
    pool = data.folder_pool(folder / "own", size=8)
    data.write_lists(data.split_pool(pool, query=2, train=2), folder / "lists")


def uploaded(name, content):
    """What a page prints of a file that is uploaded, and how many pictures reach the view."""
    shown, seen, printed = [], [], io.StringIO()
    with patch("IPython.display.display", lambda *parts: shown.extend(parts)):
        widgets.upload(seen.append, live=True)
    about = dict(name=name, type="image/png", size=len(content), last_modified=datetime.now(UTC))
    with contextlib.redirect_stdout(printed):
        shown[0].value = (about | {"content": memoryview(content)},)
    return printed.getvalue(), len(seen)


for what, content, said in (
    ("a text file", b"not a picture", "no JPEG, PNG"),
    ("a web page with a script", SCRIPT.encode(), "no JPEG, PNG"),
    ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n", "no JPEG, PNG"),
    ("a picture, cut short", saved()[:-40], "damaged or cut short"),
    ("a picture of 196 megapixels", png(14_000, 14_000, rows(1, 1)), "larger than the 179 megapixels"),
    ("nothing", b"", "no JPEG, PNG"),
):

    @hostile("upload", what, gives="a sentence beside the button")
    def _(folder, content=content, said=said):
        printed, seen = uploaded("own.png", content)
        assert f"own.png is {said}" in printed
        assert not seen
        assert printed.count("\n") == 1


@hostile("upload", "a file name with a script", gives="a sentence in plain text")
def _(folder):
    printed, _ = uploaded(SCRIPT, b"")
    assert f"{SCRIPT} is no JPEG" in printed
