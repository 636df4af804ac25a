"""Settings of all tests."""

import signal
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import settings
from safetensors.torch import save_file

usual = dict(deadline=None)  # how long a case takes says nothing about the code
settings.register_profile("kit", **usual, stateful_step_count=15)
settings.register_profile("long", **usual, stateful_step_count=40, max_examples=4000)  # for test_*_machine.py
settings.load_profile("kit")

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background of a script


@pytest.fixture
def from_tools(monkeypatch):
    """``from_tools("batch")`` is a module of tools/, which is no package."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "tools")
    return import_module


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub out of reach, from which ``hub(repository, net)`` has fetched weights before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens on this port

    def fetched(repository, net):
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        for inner in ("refs", "snapshots/1"):
            (folder / inner).mkdir(parents=True)
        (folder / "refs/main").write_text("1")
        save_file(net.state_dict(), folder / "snapshots/1/model.safetensors")

    return fetched
