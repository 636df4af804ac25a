"""Every notebook with menus: errors inside widget callbacks, which neither papermill nor the page would show."""

import nbformat
from nbclient import NotebookClient
from pages import NOTEBOOKS, drawings, executed, run


def widget_errors(notebook):
    """What widget callbacks raised."""
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    outputs = [o for m in widgets.get("state", {}).values() for o in m["state"].get("outputs", [])]
    return [output["evalue"] for output in outputs if output.get("output_type") == "error"]


def test_with_menus_no_callback_fails(tmp_path):
    run(drawings(tmp_path / "data" / "drawings"), tmp_path, live="true")
    notebooks = executed(tmp_path)
    assert len(notebooks) == len(NOTEBOOKS)
    for name, notebook in notebooks.items():
        assert widget_errors(notebook) == [], name
        assert "widgets" in notebook.metadata, name  # each has something to turn


def test_no_cell_with_menus_is_waited_for_in_vain(from_tools):
    """With nbclient's own client, about one cell in ten hangs until its timeout, which is an error."""
    manager = from_tools("asking").AskingKernelManager
    code = "from ipywidgets import interact\ninteract(lambda x: print(x), x=(0, 9));"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for _ in range(80)])
    NotebookClient(notebook, timeout=60, kernel_manager_class=manager).execute()
    assert all(cell.execution_count for cell in notebook.cells)
