"""Every notebook through papermill, in order, at small size: with plain figures, and then each figure with menus."""

import json
import re
import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import papermill
import pytest
from nbclient import NotebookClient
from pages import AGAIN, NOTEBOOKS, PROJECT, RUNNER, SMALL, drawings, executed, run, with_menus
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

import hhlib as hh


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return drawings(tmp_path_factory.mktemp("data") / "drawings")


@pytest.fixture(scope="module")
def plain(pictures, tmp_path_factory):
    """The folder of a run, what was printed, and the executed notebooks."""
    folder = tmp_path_factory.mktemp("runs")
    printed = run(pictures, folder, runner=with_menus(tmp_path_factory.mktemp("project")))
    return folder / "drawings" / "hybridhash-micro-12bits-seed0", printed, executed(folder)


def test_the_runner_leaves_pages_figures_scores_and_a_start_page(plain):
    folder, printed, notebooks = plain
    assert f"{folder / 'index.html'}" in printed
    page = (folder / "index.html").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"notebooks/{path.stem}.html" in page
    scores = json.loads((folder / "metrics.json").read_text())
    assert 0 < scores["map"]["worst"] <= scores["map"]["expected"] <= scores["map"]["best"] <= 1
    for shown in (f"{scores['map']['expected']:.3f}", f"{scores['chance']:.3f}", *scores["remarks"]):
        assert shown in page
    assert all((folder / link).is_file() for link in re.findall(r'(?:href|src)="([^"]+)"', page))


def test_every_page_finds_its_reference_values(plain):
    known = hh.runs.kept_table("reference")
    for path in NOTEBOOKS:
        table = pd.read_csv(plain[0] / "reference" / f"{path.stem[:2]}.csv")
        off = table[~table["agrees"].isin(["yes", "tolerance not measured"])]
        assert off.to_dict("records") == [], path.stem
        rows = known[(known["settings"] == table["settings"][0]) & (known["page"] == int(path.stem[:2]))]
        assert set(table["figure"]) == set(rows["figure"])


def test_every_figure_of_a_page_fits_it_and_has_a_text(plain):
    for name, notebook in plain[2].items():
        shown = [o["data"].get("text/html", "") for c in notebook.cells for o in c.get("outputs", []) if "data" in o]
        widths = [int(width) for html in shown for width in re.findall(r'<img [^>]+ width="(\d+)"', html)]
        assert len(widths) >= 3, name
        assert max(widths) <= 100 * hh.plots.WIDEST + 2 * hh.widgets.MARGIN, name
        assert all(re.findall(r' alt="([^"]*)"', "".join(shown))), name


def test_with_menus_no_callback_fails(plain):
    """Neither papermill nor the page would show an error inside a widget's callback."""
    for name, notebook in plain[2].items():
        assert notebook.cells[-1].source == AGAIN
        assert widget_errors(notebook) == [], name
        assert "widgets" in notebook.metadata, name  # each has something to turn


def widget_errors(notebook):
    """What widget callbacks raised."""
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    outputs = [o for m in widgets.get("state", {}).values() for o in m["state"].get("outputs", [])]
    return [output["evalue"] for output in outputs if output.get("output_type") == "error"]


def test_no_cell_with_menus_is_waited_for_in_vain(from_tools):
    """With nbclient's own client, about one cell in ten hangs until its timeout, which is an error."""
    manager = from_tools("asking").AskingKernelManager
    code = "from ipywidgets import interact\ninteract(lambda x: print(x), x=(0, 9));"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for _ in range(80)])
    NotebookClient(notebook, timeout=60, kernel_manager_class=manager).execute()
    assert all(cell.execution_count for cell in notebook.cells)


def test_the_commands_that_fill_the_papers_table_are_batches(plain, from_tools):
    """Each names runs of the base network with pretrained weights, as page 13 looks for."""
    read = from_tools("batch").read
    outputs = [o for cell in plain[2]["13_reproduction"].cells for o in cell.get("outputs", [])]
    commands = re.findall(
        r"^python tools/batch.py (\S+)(.*)$", "".join(o.get("text", "") for o in outputs), re.MULTILINE
    )
    asked = set()
    for file, words in commands:
        for job in read(file, " ".join("=".join(pair) for pair in re.findall(r"-p (\S+) (\S+)", words))).jobs:
            s = job.settings
            assert (s.network, s.recipe.pretrained, s.data_dir) == ("base", True, "DATA")
            asked.add((s.dataset, s.bits, s.recipe.choose))
    assert len(commands) == 6
    assert len(asked) == 3 * 4 * 2


def by_python(pictures, folder, manager):
    hh.open(**SMALL, dataset=pictures, runs_dir=folder).fit(())


def by_train(pictures, folder, manager):
    given = SMALL | {"dataset": pictures, "runs_dir": folder}
    values = [word for name, value in given.items() for word in ("-p", name, str(value))]
    command = [sys.executable, str(RUNNER.with_name("train.py")), *values]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr


def by_papermill(pictures, folder, manager):
    """With the curves that are drawn while it learns; the other ways and the runner's pages draw none."""
    rest = hh.settings.words((name, value) for name, value in SMALL.items() if name != "bits")
    values = dict(dataset=str(pictures), bits=12, settings=rest, runs_dir=str(folder), live=True)
    notebook = papermill.execute_notebook(  # in a folder outside the project: what comes with the kit is found
        str(PROJECT / "notebooks" / "03_gpu_training.ipynb"),
        str(folder / "out.ipynb"),
        parameters=values,
        progress_bar=False,
        cwd=str(folder),
        kernel_manager_class=manager,
    )
    assert widget_errors(notebook) == []


@pytest.mark.parametrize("way", [by_python, by_train, by_papermill])
def test_one_value_set_in_any_way_gives_the_same_run(way, pictures, plain, tmp_path, from_tools):
    """As the runner's, to which `make run` hands its arguments (test_settings)."""
    way(pictures, tmp_path, from_tools("asking").AskingKernelManager)
    records = [json.loads((f / "run.json").read_text()) for f in (plain[0], tmp_path / "drawings" / plain[0].name)]
    assert records[0] == records[1]
    assert records[0]["parameters"]["recipe"]["loss"] == {"alpha": 0.3}


def test_the_runner_chooses_by_number(from_tools):
    choose = from_tools("run_notebooks").choose
    assert choose(None) == NOTEBOOKS
    assert [path.name for path in choose(["04", "03"])] == ["03_gpu_training.ipynb", "04_retrieval_evaluation.ipynb"]
    with pytest.raises(ValueError, match="'7'"):
        choose(["7"])


def test_pages_that_look_inside_hybridhash_are_left_out_for_other_networks(from_tools, capsys):
    runner = from_tools("run_notebooks")
    asking = [path for path in NOTEBOOKS if "check_hybridhash(network)" in path.read_text()]
    assert [path.stem.split("_")[0] for path in asking] == list(runner.INSIDE)
    assert runner.suited(NOTEBOOKS, "small") == NOTEBOOKS
    assert runner.suited(NOTEBOOKS, "timm:lite0") == [path for path in NOTEBOOKS if path not in asking]
    assert asking[-1].stem in capsys.readouterr().out
    with pytest.raises(ValueError, match="looks inside HybridHash: it must be base, small, tiny, micro"):
        runner.suited(asking, "lite0")


def read_by_itself(path, **values):
    """Run the cells of a page in order, until one refuses: without a kernel, which takes long to begin."""
    page, names = parameterize_notebook(load_notebook_node(str(path)), values), {}
    with plt.rc_context():
        for cell in page.cells:
            if cell.cell_type == "code":
                exec(cell.source, names)  # what the reader runs


def test_a_notebook_by_itself_refuses_bad_values_and_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    with pytest.raises(FileNotFoundError, match="lacks data_batch_1"):
        read_by_itself(NOTEBOOKS[1], dataset="cifar10", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="run_notebooks.py .* --only 03"):
        read_by_itself(NOTEBOOKS[4], runs_dir=str(tmp_path), live="false")
