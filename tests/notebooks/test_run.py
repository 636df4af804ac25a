"""Every notebook through papermill at small size: once with plain figures, then with menus on the same run."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from nbclient import NotebookClient
from PIL import Image

import hhlib as hh

PROJECT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
RUNNER = PROJECT / "tools" / "run_notebooks.py"
SMALL = {"bits": 12, "epochs": 1, "erase": 0, "loss.alpha": 0.3, "precision": "float32", "image_size": 32}


def widget_errors(notebook):
    """Errors inside widget callbacks, which neither papermill nor the page would show."""
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    outputs = [o for m in widgets.get("state", {}).values() for o in m["state"].get("outputs", [])]
    return [output["evalue"] for output in outputs if output.get("output_type") == "error"]


def run(pictures, folder, **more):
    """Run all notebooks the way the reader does -> what was printed."""
    given = SMALL | {"dataset": pictures, "tested": 8, "runs_dir": folder} | more
    values = [word for name, value in given.items() for word in ("-p", name, str(value))]
    done = subprocess.run([sys.executable, str(RUNNER), *values], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A data set of one's own: 350 pictures with several labels each, and the three lists."""
    shapes, folder = hh.data.load("shapes"), tmp_path_factory.mktemp("data") / "drawings"
    parts = [part.subset(range(n)) for part, n in zip(shapes.parts().values(), (50, 150, 150), strict=True)]
    split = dataclasses.replace(shapes, query=parts[0], train=parts[1], database=parts[2])
    hh.data.write_lists(split, folder)
    for part in parts:
        for image, row in zip(part.batch(range(len(part)))[0], part.rows.tolist(), strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / part.pool.path(row), "PNG")
    return folder


@pytest.fixture(scope="module")
def plain(pictures, tmp_path_factory):
    """The folder of a run made with plain figures, what was printed, and the executed notebooks."""
    folder = tmp_path_factory.mktemp("runs")
    printed = run(pictures, folder)
    return folder / "drawings" / "hybridhash-micro-12bits-seed0", printed, executed(folder)


def executed(folder):
    """The executed notebooks of the only run in a folder, by name."""
    return {path.stem: nbformat.read(path, as_version=4) for path in folder.glob("*/*/notebooks/*.ipynb")}


def test_the_runner_leaves_pages_figures_scores_and_a_start_page(plain):
    folder, printed, notebooks = plain
    assert f"{folder / 'index.html'}" in printed
    page = (folder / "index.html").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"notebooks/{path.stem}.html" in page
        pictures = sum(
            "image/png" in o.get("data", {}) for c in notebooks[path.stem].cells for o in c.get("outputs", [])
        )
        assert pictures >= 3, path.stem
    scores = json.loads((folder / "metrics.json").read_text())
    assert 0 < scores["map"]["worst"] <= scores["map"]["expected"] <= scores["map"]["best"] <= 1
    for shown in (f"{scores['map']['expected']:.4f}", f"{scores['chance']:.4f}"):
        assert shown in page
    assert len(list((folder / "figures").glob("*.png"))) >= 15


def by_python(pictures, folder):
    hh.open(**SMALL, dataset=pictures, runs_dir=folder).fit(())


def by_train(pictures, folder):
    given = SMALL | {"dataset": pictures, "runs_dir": folder}
    values = [word for name, value in given.items() for word in ("-p", name, str(value))]
    command = [sys.executable, str(RUNNER.with_name("train.py")), *values]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr


def by_papermill(pictures, folder):
    rest = hh.settings.words((name, value) for name, value in SMALL.items() if name != "bits")
    values = dict(dataset=str(pictures), bits=12, settings=rest, runs_dir=str(folder), live=False)
    page = PROJECT / "notebooks" / "03_gpu_training.ipynb"
    papermill.execute_notebook(str(page), str(folder / "out.ipynb"), parameters=values, progress_bar=False)


@pytest.mark.parametrize("way", [by_python, by_train, by_papermill])
def test_one_value_set_in_any_way_gives_the_same_run(way, pictures, plain, tmp_path):
    """As the runner's, to which `make run` hands its arguments (test_settings)."""
    way(pictures, tmp_path)
    records = [json.loads((f / "run.json").read_text()) for f in (plain[0], tmp_path / "drawings" / plain[0].name)]
    assert records[0] == records[1]
    assert records[0]["parameters"]["recipe"]["loss"] == {"alpha": 0.3}


def test_with_menus_no_callback_fails_and_what_is_finished_is_kept(pictures, plain):
    folder = plain[0]
    before = [(folder / name).stat().st_mtime_ns for name in ("model.safetensors", "codes.npz")]
    run(pictures, folder.parent.parent, live="true")
    assert [(folder / name).stat().st_mtime_ns for name in ("model.safetensors", "codes.npz")] == before
    notebooks = executed(folder.parent.parent)
    assert len(notebooks) == len(NOTEBOOKS)
    for name, notebook in notebooks.items():
        assert widget_errors(notebook) == [], name
        assert "widgets" in notebook.metadata, name  # each has something to turn


def test_no_cell_with_menus_is_waited_for_in_vain(monkeypatch):
    """With nbclient's own client, about one cell in ten hangs until its timeout, which is an error."""
    monkeypatch.syspath_prepend(RUNNER.parent)
    from asking import AskingKernelManager

    code = "from ipywidgets import interact\ninteract(lambda x: print(x), x=(0, 9));"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for _ in range(80)])
    NotebookClient(notebook, timeout=60, kernel_manager_class=AskingKernelManager).execute()
    assert all(cell.execution_count for cell in notebook.cells)


def test_the_runner_chooses_by_number(monkeypatch):
    monkeypatch.syspath_prepend(RUNNER.parent)
    from run_notebooks import choose

    assert choose(None) == NOTEBOOKS
    assert [path.name for path in choose(["04", "03"])] == ["03_gpu_training.ipynb", "04_retrieval_evaluation.ipynb"]
    with pytest.raises(ValueError, match="'7'"):
        choose(["7"])


def test_a_notebook_by_itself_refuses_bad_values_and_names_what_is_missing(tmp_path):
    first, fourth = NOTEBOOKS[0], NOTEBOOKS[3]
    for path, values, message in [
        (first, {"dataset": "cifar10", "data_dir": str(tmp_path)}, "lacks data_batch_1"),
        (fourth, {"runs_dir": str(tmp_path), "live": "false"}, "run_notebooks.py .* --only 03"),
    ]:
        with pytest.raises(papermill.PapermillExecutionError, match=message):
            papermill.execute_notebook(
                str(path), str(tmp_path / "out.ipynb"), parameters=values, cwd=str(PROJECT), progress_bar=False
            )
