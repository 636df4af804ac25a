"""Every notebook through papermill, in order, at small size: once with plain figures, once with menus."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from nbclient.exceptions import CellTimeoutError

PROJECT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
CELL_SECONDS = 60  # the longest cell takes a third of it
SMALL = dict(dataset="shapes", bits=12, epochs=1)


def widget_errors(notebook):
    """Errors inside widget callbacks, which neither papermill nor the page would show."""
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    outputs = [o for m in widgets.get("state", {}).values() for o in m["state"].get("outputs", [])]
    return [output["evalue"] for output in outputs if output.get("output_type") == "error"]


def execute(path, target, values):
    """Run a notebook. A cell that waits for ever is started over, at most twice: with menus, the client now and then
    misses the kernel's last message (seen with nbclient 0.11 and ipykernel 7, the kernel idle)."""
    how = dict(parameters=values, cwd=str(PROJECT), progress_bar=False, execution_timeout=CELL_SECONDS)
    for trial in range(3):
        try:
            papermill.execute_notebook(str(path), str(target), **how)
            break
        except CellTimeoutError:
            if trial == 2:
                raise


def run_all(folder, **parameters):
    for path in NOTEBOOKS:
        known = papermill.inspect_notebook(str(path))
        values = {name: value for name, value in parameters.items() if name in known}
        target = folder / path.name
        execute(path, target, values)
        yield path.stem, nbformat.read(target, as_version=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("live")


def test_with_menus_no_callback_fails(folder):
    shown = 0
    for name, notebook in run_all(folder, **SMALL, runs_dir=str(folder), live=True):
        assert widget_errors(notebook) == [], name
        shown += "widgets" in notebook.metadata
    assert shown == len(NOTEBOOKS)  # each has something to turn


def test_the_runner_leaves_pages_figures_scores_and_a_start_page(tmp_path):
    values = [word for name, value in SMALL.items() for word in ("-p", name, str(value))]
    command = [sys.executable, str(PROJECT / "tools" / "run_notebooks.py"), *values, "-p", "runs_dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "shapes" / "hybridhash-micro-12bits-seed0"
    assert f"{run / 'index.html'}" in done.stdout
    page = (run / "index.html").read_text()
    for path in NOTEBOOKS:
        assert f"notebooks/{path.stem}.html" in page
        notebook = nbformat.read(run / "notebooks" / path.name, as_version=4)
        pictures = sum("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", []))
        assert pictures >= 3, path.stem
    scores = json.loads((run / "metrics.json").read_text())
    assert 0 < scores["map"]["worst"] <= scores["map"]["expected"] <= scores["map"]["best"] <= 1
    assert len(list((run / "figures").glob("*.png"))) >= 15


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
    command = [sys.executable, str(PROJECT / "tools" / "run_notebooks.py"), "-p", name, value]
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
