"""Every notebook through papermill, in order, at small size: once with plain figures, once with menus."""

import json
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from nbclient import NotebookClient

PROJECT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
RUNNER = PROJECT / "tools" / "run_notebooks.py"
SMALL = dict(dataset="shapes", bits=12, epochs=1)


def widget_errors(notebook):
    """Errors inside widget callbacks, which neither papermill nor the page would show."""
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    outputs = [o for m in widgets.get("state", {}).values() for o in m["state"].get("outputs", [])]
    return [output["evalue"] for output in outputs if output.get("output_type") == "error"]


def run(folder, **parameters):
    """Run all notebooks the way the reader does -> what was printed."""
    values = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    command = [sys.executable, str(RUNNER), *values, "-p", "runs_dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def executed(folder):
    """The executed notebooks of the only run in a folder, by name."""
    return {path.stem: nbformat.read(path, as_version=4) for path in folder.glob("*/*/notebooks/*.ipynb")}


def test_with_menus_no_callback_fails(tmp_path):
    run(tmp_path, **SMALL, tested=8, live=True)
    notebooks = executed(tmp_path)
    assert len(notebooks) == len(NOTEBOOKS)
    for name, notebook in notebooks.items():
        assert widget_errors(notebook) == [], name
        assert "widgets" in notebook.metadata, name  # each has something to turn


def test_no_cell_with_menus_is_waited_for_in_vain(monkeypatch):
    """With nbclient's own client, about one cell in ten hangs until its timeout."""
    monkeypatch.syspath_prepend(RUNNER.parent)
    from kernels import AskingKernelManager

    code = "from ipywidgets import interact\ninteract(lambda x: print(x), x=(0, 9));"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for _ in range(100)])
    client = NotebookClient(notebook, timeout=60, kernel_manager_class=AskingKernelManager)
    start = time.monotonic()
    client.execute()
    assert time.monotonic() - start < 60  # seconds; a single hang takes as long, all cells together about 10


def test_the_runner_leaves_pages_figures_scores_and_a_start_page(tmp_path):
    printed = run(tmp_path, **SMALL, tested=8)
    folder = tmp_path / "shapes" / "hybridhash-micro-12bits-seed0"
    assert f"{folder / 'index.html'}" in printed
    page = (folder / "index.html").read_text()
    notebooks = executed(tmp_path)
    for path in NOTEBOOKS:
        assert f"notebooks/{path.stem}.html" in page
        pictures = sum(
            "image/png" in o.get("data", {}) for c in notebooks[path.stem].cells for o in c.get("outputs", [])
        )
        assert pictures >= 3, path.stem
    scores = json.loads((folder / "metrics.json").read_text())
    assert 0 < scores["map"]["worst"] <= scores["map"]["expected"] <= scores["map"]["best"] <= 1
    assert len(list((folder / "figures").glob("*.png"))) >= 15


def test_the_runner_chooses_by_number(monkeypatch):
    monkeypatch.syspath_prepend(RUNNER.parent)
    from run_notebooks import choose

    assert choose(None) == NOTEBOOKS
    assert [path.name for path in choose(["04", "03"])] == ["03_gpu_training.ipynb", "04_retrieval_evaluation.ipynb"]
    with pytest.raises(ValueError, match="there is no notebook '7'; there are 01, 02"):
        choose(["7"])


def test_training_without_the_notebook_takes_its_parameters(tmp_path):
    command = [sys.executable, str(RUNNER.with_name("train.py")), "-p", "runs_dir", str(tmp_path)]
    values = [word for name, value in SMALL.items() for word in ("-p", name, str(value))]
    done = subprocess.run([*command, *values], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "shapes" / "hybridhash-micro-12bits-seed0" / "run.json").read_text())
    assert record["parameters"]["recipe"]["epochs"] == 1
    refused = subprocess.run([*command, "-p", "bitz", "3"], capture_output=True, text=True, cwd=PROJECT)
    assert refused.returncode == 2
    assert "no notebook has a parameter 'bitz'" in refused.stderr


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bits", "0", "bits is 0, but it must be a whole number from 1 to 1024."),
        ("bits", "-1", "bits is -1"),
        ("bits", "many", "bits is 'many'"),
        ("bits", "12.5", "bits is 12.5"),
        ("dataset", "mnist", "dataset is 'mnist', but it must be one of digits"),
        ("method", "magic", "method is 'magic'"),
        ("network", "huge", "network is 'huge'"),
        ("bitz", "32", "no notebook has a parameter 'bitz'"),
    ],
)
def test_the_runner_refuses_bad_values_before_any_work(name, value, message, tmp_path):
    command = [sys.executable, str(RUNNER), "-p", name, value]
    done = subprocess.run([*command, "-p", "runs_dir", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_by_itself_refuses_bad_values_and_names_what_is_missing(tmp_path):
    first, fourth = NOTEBOOKS[0], NOTEBOOKS[3]
    for path, values, message in [
        (first, {"bits": 12.5}, "bits is 12.5"),
        (first, {"dataset": "cifar10", "data_dir": str(tmp_path)}, "lacks data_batch_1"),
        (fourth, {"runs_dir": str(tmp_path)}, "it is made by notebook 03_gpu_training"),
    ]:
        with pytest.raises(papermill.PapermillExecutionError, match=message):
            papermill.execute_notebook(
                str(path), str(tmp_path / "out.ipynb"), parameters=values, cwd=str(PROJECT), progress_bar=False
            )
