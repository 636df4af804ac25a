"""Facts about the project itself: layers, notebooks as committed, requirements."""

import ast
import re
import statistics
import tomllib
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from hhlib import losses, settings
from hhlib.runs import kept_table

PROJECT = Path(__file__).parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
COMMON = ["dataset", "method", "network", "bits", "seed", "data_dir", "runs_dir", "settings", "live"]
FLOORS = [
    {"common"},
    {"reading", "locking", "compiled"},
    {"data", "network", "losses", "metrics"},
    {"settings"},
    {"records"},
    {"runs", "plots"},
    {"features"},
    {"training", "retrieval", "attention", "explain", "baselines"},
    {"encoder"},
    {"index"},
    {"widgets"},
    {"bar"},
    {"experiment"},
    {"reference"},
    {"shell"},
]


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hhlib":
            parts = node.module.split(".")[1:]
            yield from parts[:1] or [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("hhlib."))


@pytest.mark.parametrize("path", sorted((PROJECT / "hhlib").rglob("*.py")), ids=lambda p: str(p.relative_to(PROJECT)))
def test_imports_point_down_only(path):
    room = path.relative_to(PROJECT / "hhlib").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    floor = next(i for i, rooms in enumerate(FLOORS) if room in rooms)
    below = set().union(*FLOORS[:floor])
    same_floor = FLOORS[floor] if "training" in FLOORS[floor] else set()  # training encodes to validate
    assert set(imported_rooms(path)) - {room} <= below | same_floor


def test_the_library_is_thin():
    """It was 6,884 lines before pretrained backbones came in, 7,599 before own pictures, index, shell and export did,
    9,480 before the bar of each page and the comparison with reference values did, and 9,617 before every file that
    may come from a stranger was read within bounds, folders were locked and faults were told in a sentence; 10,896
    before Muon was quick on every processor and the end of a terminal was heard.
    """
    lines = {path: len(path.read_text().splitlines()) for path in (PROJECT / "hhlib").rglob("*.py")}
    assert sum(lines.values()) <= 10_960
    assert max(lines.values()) <= 300


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestNotebook:
    def test_is_committed_clean(self, path):
        notebook = nbformat.read(path, as_version=4)
        assert "widgets" not in notebook.metadata
        assert "papermill" not in notebook.metadata
        for cell in notebook.cells:
            if cell.cell_type == "code":
                assert cell.outputs == []
                assert cell.execution_count is None

    def test_parameters_are_a_documented_interface(self, path):
        notebook = nbformat.read(path, as_version=4)
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        assert first.metadata["tags"] == ["parameters"]
        for line in first.source.splitlines():
            assert re.fullmatch(r"\w+: (str|int|float|bool) = \S+  # .+", line), line
        found = papermill.inspect_notebook(str(path))
        assert [name for name in found if name in COMMON] == COMMON
        assert len(found) <= 10
        helps, usual = settings.helps(), settings.Settings()
        for name, parameter in found.items():
            assert parameter["help"] == helps.get(name, parameter["help"])  # one help text per name
            if name in helps:
                assert ast.literal_eval(parameter["default"]) == getattr(usual, name)

    def test_has_the_parts_a_reader_expects(self, path):
        notebook = nbformat.read(path, as_version=4)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        for part in (
            "**You will**",
            "**Comes from**",
            "**Needs**",
            "**Makes**",
            "**Takes**",
            "## What we saw",
            "**Exercises**",
            "**Reading**",
        ):
            assert part in text, part
        assert "Where it fails" in text

    def test_is_short_and_portable(self, path):
        cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        code = [cell.source for cell in cells]
        lines = [len(_lines(source)) for source in code]
        assert len([cell for cell in cells if not _collapsed(cell)]) <= 15
        assert sum(lines) <= 250
        assert max(lines) <= 30
        assert statistics.median(lines) <= 8
        for word in (r"^%", r"^!", r"\.cuda\(\)", r"sys\.path", r"/home/", r"/root/", r"/tmp/"):
            assert not re.search(word, "\n".join(code), re.MULTILINE), word
        for word in (r"\bmean=", r"\bstd\b", r"hh\.common", r"import json", r"plt\.show"):  # the experiment knows
            assert not re.search(word, "\n".join(code)), word

    def test_every_figure_has_a_caption(self, path):
        shown = [call for call in _calls(path) if call.func.attr == "show"]
        assert len(shown) >= 3
        for call in shown:
            assert len(call.args) == 3, ast.unparse(call)

    def test_no_text_of_a_figure_is_too_small(self, path):
        code = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        assert all(float(size) >= 8 for size in re.findall(r"(?:fontsize|labelsize)=([\d.]+)", code))

    def test_says_how_long_it_takes_to_read(self, path):
        takes = re.search(r"\*\*Takes\*\* about (\d+) minutes to read", prose(path.name))
        assert int(takes[1]) == minutes_to_read(path)
        row = next(x for x in (PROJECT / "README.md").read_text().splitlines() if f"(notebooks/{path.name})" in x)
        assert row.split("|")[3].strip() == takes[1]


def _collapsed(cell):
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


def _lines(source):
    return [line for line in source.splitlines() if line.strip()]


def _calls(path):
    """The calls of a page to methods of an experiment named `ex`."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ex.show", "ex.explore"):
                    yield node


def minutes_to_read(path):
    """150 words and 10 lines of open code a minute, and a minute per figure; to the nearest 5."""
    cells = nbformat.read(path, as_version=4).cells
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    lines = sum(len(_lines(cell.source)) for cell in cells if cell.cell_type == "code" and not _collapsed(cell))
    return 5 * round((words / 150 + lines / 10 + len(list(_calls(path)))) / 5)


def test_one_comment_says_the_same_in_every_notebook_type_included():
    types = {}
    for path in NOTEBOOKS:
        for name, parameter in papermill.inspect_notebook(str(path)).items():
            assert types.setdefault(name, parameter["inferred_type_name"]) == parameter["inferred_type_name"]


@pytest.mark.parametrize("name", ["tuning", "fair", "unseen"])
def test_every_row_of_a_table_names_its_run_and_commit(name):
    rows = kept_table(name)
    trained = rows[rows["method"].isin(losses.names())]
    assert set(trained["method"]) == set(losses.names(nested=False))
    for row in trained.to_dict("records"):
        run = settings.read(row["run"])
        assert {key: row[key] for key in run.named()} == run.named()
        assert re.fullmatch("[0-9a-f]{40}", row["git_commit"])


def test_the_best_of_five_trainings_is_used():
    tried = dict(list(kept_table("tuning").groupby(["dataset", "method"])))
    for row in kept_table("fair").query("bits == 32").to_dict("records"):  # some hyper-parameters grow with the length
        rows = tried[row["dataset"], row["method"]]
        assert len(rows) == 5
        best = [settings.read(text).recipe for text in rows[rows["expected"] == rows["expected"].max()]["run"]]
        used = settings.read(row["run"]).recipe
        assert (used.learning_rate, used.loss) in [(recipe.learning_rate, recipe.loss) for recipe in best]


def prose(page):
    """What a page says between its cells."""
    cells = nbformat.read(PROJECT / "notebooks" / page, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_the_lowest_loss_of_a_half_empty_bank_is_that_of_page_13():
    """Codes of different classes as far apart as all can be; rows of zeros count as dissimilar and cost ln 2."""
    bits, classes, alpha, rows, images = 16, 10, 0.5, 10_000, 5_000
    far = np.log1p(np.exp(-alpha * bits / (classes - 1)))
    dissimilar = images * (classes - 1) / classes
    near = np.log1p(np.exp(-alpha * bits))
    lowest = near + (dissimilar * far + (rows - images) * np.log(2)) / (dissimilar + rows - images)
    assert f"cannot fall below {lowest:.3f} at 16 bits" in prose("13_reproduction.ipynb")


def test_the_log_reports_its_best_evaluation():
    """Each of the four lengths: four evaluations, a report, the loss of two epochs; a last epoch below the best."""
    log = kept_table("published")
    log = log[log["source"].str.startswith("authors' log")]
    for _, rows in log.groupby("bits"):
        kinds = dict(list(rows.groupby("kind")))
        steps = pd.concat([kinds["after the epoch"], kinds["last epoch"]]).set_index("epoch")["value"]
        (reported,) = kinds["best on the queries"].to_dict("records")
        assert list(steps.index) == [3, 6, 9, 12]
        assert (steps.idxmax(), steps.max()) == (reported["epoch"], reported["value"])
        assert list(kinds["training loss"]["epoch"]) == [1, 12]


SEEDS = {"recipe": 3, "why": 1, "ablations": 3, "trunk": 2, "prices": 3, "full": 1}  #: of each table of variants


@pytest.mark.parametrize("name", SEEDS)
def test_every_variant_was_run_as_the_table_of_variants_says(name, from_tools):
    """Each with its commit and with settings that train it again."""
    from_tools("control")  # makes the network known to timm
    rows = kept_table(name).fillna({"run": ""})  # digits as the kit does it needs no words
    for row in rows.to_dict("records"):
        assert re.fullmatch("[0-9a-f]{40}", row["git_commit"])
        run = settings.read(row["run"])
        assert (run.dataset, run.seed) == (row["dataset"], row["seed"])
    seeds = rows.groupby(["dataset", "variant"])["seed"].nunique()
    assert set(seeds) == {SEEDS[name]}
    listed = tomllib.loads((PROJECT / "tools" / "variants.toml").read_text())[name]["variants"]
    assert set(rows["variant"]) == set(listed)


def requirements(lines):
    return {re.sub(r"\s", "", line).lower().replace("_", "-") for line in lines}


def test_conda_and_pip_ask_for_the_same():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = requirements(project["dependencies"] + project["optional-dependencies"]["test"])
    listed = re.findall(r"^ {6}- (.+)$", (PROJECT / "environment.yml").read_text(), re.MULTILINE)
    assert requirements(line for line in listed if not line.startswith("--")) == wanted
    assert f"python{project['requires-python']}" in (PROJECT / "environment.yml").read_text()


def test_every_requirement_is_pinned_without_addresses():
    pins = (PROJECT / "constraints.txt").read_text()
    assert "://" not in pins
    assert "@" not in pins
    names = {line.split("==")[0].lower().replace("_", "-") for line in pins.split()}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"] + project["optional-dependencies"]["test"]:
        assert re.split(r"[>=<]", requirement)[0].lower().replace("_", "-") in names
