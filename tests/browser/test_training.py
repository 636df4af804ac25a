"""Page 3 as a reader trains on it: stopped, run again, and run again after a restart of the kernel."""

import re

from conftest import NOTEBOOKS, copy_page
from lab import FAST, FIGURE, TROUBLE
from playwright.sync_api import expect


def test_a_training_that_was_stopped_resumes_and_then_is_finished(server, opened, tmp_path):
    name = "training.ipynb"
    copy_page(NOTEBOOKS[3], server.home / name, runs_dir=str(tmp_path), settings="epochs=6", data_dir="~/data")
    with opened(name) as lab:
        cell = lab.cell_of(lab.tab.get_by_text("run = ex.fit("))
        curves, output = cell.locator(FIGURE), cell.locator(".jp-Cell-outputArea")

        lab.command("notebook:run-all-cells")
        expect(curves).to_be_visible(timeout=5 * FAST)  # after the first epoch
        lab.command("notebook:interrupt-kernel")
        lab.wait_until_run()
        lab.screenshot("stopped", cell)
        assert curves.count() == 1
        red = cell.locator(TROUBLE)
        assert re.search("stopped .*resume", "\n".join(red.all_inner_texts()))
        assert sum(part.bounding_box()["height"] for part in red.all()) < 60  # two lines, no traceback

        lab.run()
        lab.screenshot("resumed", cell)
        expect(output).to_contain_text("resumes")
        assert curves.count() == 1
        assert lab.trouble() == []

        lab.restart()
        lab.screenshot("finished", cell)
        expect(output).to_contain_text("finished")
        assert curves.count() == 1
        assert lab.trouble() == []
