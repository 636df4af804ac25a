"""The bar at the top of a page: which run it shows, what is missing and what makes it, which other runs there are."""

import json

import jinja2
from IPython import display

from hhlib import data, runs, widgets
from hhlib.settings import Settings

#: In words only, so that no colour is needed, and in the page's own colours, light or dark.
BAR = jinja2.Template(
    """<section aria-label="which run this is" style="border-left: 4px solid #8888; padding-left: 0.8em">
{% for head, said, code in lines %}<p style="margin: 0.2em 0"><b>{{ head }}:</b> {{ said }}</p>
{% if code %}<pre style="white-space: pre-wrap; word-break: normal; padding: 0.4em; background: #8882">{{ code }}</pre>
{% endif %}{% endfor %}</section>""",
    autoescape=True,
)


def show(about: str, run: runs.Run, settings: Settings, needs: str = "") -> None:
    """Show the bar; if the page is live, a menu of other runs below it, which changes no variable of the page.

    about: the run in a sentence; needs: a file of the run that the page cannot do without.
    """
    lines = [("This run", about, "")]
    if (run.path / "run.json").is_file():
        made, asked = run.parameters["recipe"], json.loads(json.dumps(vars(settings.recipe)))  # JSON knows no tuples
        if off := [f"{name} = {made[name]} and not {asked[name]}" for name in asked if made[name] != asked[name]]:
            lines += [("Other settings", f"the run in this folder was trained with {', '.join(off)}.", "")]
    if needs and not (run.path / needs).is_file():
        made_by = f"this page needs {needs}, which page 3 makes; or this command does:"
        lines += [("Missing", made_by, runs.command(settings))]
    table = runs.table(other for other in runs.find(settings.runs_dir) if other.path != run.path)
    name = "{dataset}, {method}, {network}, {bits} bits, seed {seed}: mAP {expected:.3f}"
    others = {name.format_map(row): row for row in table.to_dict("records")}
    if others:
        where = "choose one below" if settings.live else "page 13 compares them"
        lines += [("Other runs", f"{len(others)} in {settings.runs_dir}; {where}.", "")]
    _display(lines)
    if others and settings.live:
        look = lambda other_run: _display([to_open(others[other_run], settings)] if other_run else [])  # noqa: E731
        widgets.explore(look, live=True, other_run=["", *others])


def to_open(row: dict, settings: Settings) -> tuple[str, str, str]:
    """How to open another run, a row of `runs.table`: a heading, a sentence, and lines of the parameters cell."""
    here, notes = settings.named(), {"dataset": "" if row["dataset"] in data.names() else "  # the folder of this name"}
    values = {name: row[name] for name in runs.NAMED if row[name] != here[name]} | {"settings": row["settings"]}
    code = [f"{name}: {type(x).__name__} = {json.dumps(x)}{notes.get(name, '')}" for name, x in values.items()]
    how = "to open it, change these lines of the parameters cell and run the page again:"
    return "Other run", f"{runs.SCORE.format(**row)}; {how}", "\n".join(code)


def _display(lines: list[tuple[str, str, str]]) -> None:
    """Show lines, each a heading, a sentence and code below it or nothing, as HTML and as text."""
    plain = [f"{head}: {said}" + (f"\n{code}" if code else "") for head, said, code in lines]
    display.display({"text/html": BAR.render(lines=lines), "text/plain": "\n".join(plain)}, raw=True)
