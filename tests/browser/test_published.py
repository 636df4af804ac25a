"""What `make run` leaves to read, in a browser: start page and executed page, in a wide window and a narrow one."""

import subprocess
import sys

import pytest
from conftest import PROJECT


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The start page of a run, of which one page was executed."""
    runner, folder = PROJECT / "tools" / "run_notebooks.py", tmp_path_factory.mktemp("published")
    subprocess.run([sys.executable, runner, "--only", "00", "-p", "runs_dir", folder], check=True, capture_output=True)
    (page,) = folder.rglob("index.html")
    return page


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_window_need_no_network_and_lead_to_each_other(start, browser, width, request):
    tab, asked = browser.new_page(viewport={"width": width, "height": 1000}), []
    tab.on("request", lambda what: asked.append(what.url))
    tab.goto(start.as_uri())
    screenshots = request.config.getoption("screenshots")
    for name, link in [("start", "0. Why hashing"), ("page", "all pages and results"), ("back", "0. Why hashing")]:
        tab.screenshot(path=screenshots / f"published-{name}-{width}.png", full_page=True)
        assert tab.evaluate("() => document.documentElement.scrollWidth") == width
        assert all(tab.locator("img").evaluate_all("pictures => pictures.map(picture => picture.alt)"))
        tab.get_by_role("link", name=link).first.click()
        tab.wait_for_load_state()
    tab.close()
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
