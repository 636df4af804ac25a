"""A JupyterLab and a Chromium for the tests of this folder, on a copy of the pages; `make browser` runs them."""

import ast
import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

import hhlib as hh

PROJECT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # cells out of sight stay in the page
}


def pytest_addoption(parser):
    parser.addoption("--screenshots", type=Path, default=PROJECT / "runs" / "browser", help="where they are kept")
    parser.addoption("--runs", type=Path, default=PROJECT / "runs", help="where a default run may be; else it is made")


def pytest_configure():
    if importlib.util.find_spec("playwright") is None:
        pytest.exit("the pages are not tested in a browser: playwright is not installed.", returncode=0)
    if CHROMIUM is None:
        pytest.exit("the pages are not tested in a browser: there is no Chromium.", returncode=0)


class ByPage(LoadScopeScheduling):
    """Gives all tests of a page to one process, which runs it once (xdist's loadgroup does nothing with pytest 9.2)."""

    def _split_scope(self, nodeid: str) -> str:
        page = re.search(r"\[.*?(\d\d_\w+)", nodeid)
        return page[1] if page else nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config, log):
    return ByPage(config, log)


def pytest_collection_modifyitems(items):
    """What takes longest begins first."""
    items.sort(key=lambda item: item.path.stem != "test_training")


def pytest_terminal_summary(terminalreporter, config):
    terminalreporter.write_line(f"screenshots are in {config.getoption('screenshots')}")


@pytest.fixture(scope="session")
def runs(tmp_path_factory, request):
    """A runs_dir with the default run, finished, and another one; all processes of the tests share it."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "runs"
    given = hh.open(runs_dir=str(request.config.getoption("runs")))
    own = hh.open(runs_dir=str(folder))
    with FileLock(f"{folder}.lock"):
        if not own.has("metrics.json"):
            if given.has("metrics.json") and given.has("training_state.pt"):
                shutil.copytree(given.run.path, own.run.path, ignore=shutil.ignore_patterns("notebooks", "figures"))
            other = hh.open("epochs=1", bits=8, runs_dir=str(folder))
            for ex in (own, other):
                ex.fit(())
                ex.evaluate()
    return folder


class Server(NamedTuple):
    """A JupyterLab: the folder of its pages, its address, and the word that opens it."""

    home: Path
    address: str
    token: str


@pytest.fixture(scope="session")
def server(tmp_path_factory, runs):
    """A JupyterLab whose settings, data and pages are its own."""
    home = tmp_path_factory.mktemp("home")
    for name, text in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for path in NOTEBOOKS:
        copy_page(path, home / path.name, data_dir="~/data", runs_dir=str(runs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, token = f"http://127.0.0.1:{port}", secrets.token_hex()
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "share", "JUPYTER_RUNTIME_DIR": "runtime", "HOME": ""}
    places |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = os.environ | {name: str(home / place) for name, place in places.items()}
    options = [f"--ServerApp.root_dir={home}", f"--ServerApp.tornado_settings={limits()}", "--allow-root"]
    options += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    options += ["--no-browser", "--LabApp.expose_app_in_browser=True"]
    with (home / "lab.log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        environment |= {"PYTHONPATH": str(PROJECT)}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(f"{address}/api/status?token={token}", process)
        yield Server(home, address, token)
    finally:
        process.terminate()
        process.wait()


def limits() -> dict:
    """What `make lab` gives the server, so that large photographs reach the upload button."""
    return ast.literal_eval(re.search("^LARGE := ({.*})", (PROJECT / "Makefile").read_text(), re.MULTILINE)[1])


def copy_page(path: Path, target: Path, **parameters) -> None:
    """A copy of a page whose parameters have other values."""
    page = nbformat.read(path, as_version=4)
    first = next(cell for cell in page.cells if "parameters" in cell.metadata.get("tags", []))
    lines = {line.split(":")[0]: line for line in first.source.splitlines()}
    lines |= {name: f"{name}: {type(value).__name__} = {value!r}" for name, value in parameters.items()}
    first.source = "\n".join(lines.values())
    nbformat.write(page, target)


def wait_for(address: str, process: subprocess.Popen) -> None:
    """Wait until a server answers."""
    while process.poll() is None:
        try:
            urllib.request.urlopen(address).close()
        except urllib.error.URLError:
            time.sleep(0.1)
        else:
            return
    raise ChildProcessError("JupyterLab did not start.")


@pytest.fixture(scope="session")
def browser():
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def opened(server, browser, request):
    """``with opened("00_why_hashing.ipynb") as lab:`` opens a page, and closes it with its kernel."""
    from lab import Lab

    screenshots = request.config.getoption("screenshots")
    screenshots.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def open_page(name):
        tab = browser.new_page(viewport={"width": 1280, "height": 1000})
        try:
            lab = Lab(tab, f"{server.address}/lab/tree/{name}?reset&token={server.token}", screenshots)
            yield lab
            lab.end()
        finally:
            tab.close()

    return open_page
