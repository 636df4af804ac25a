"""The dry run of a batch: what it says of data, weights and costs, and that it starts nothing."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import hhlib as hh


@pytest.fixture
def tools(from_tools):
    return from_tools("batch"), from_tools("preflight")


@pytest.fixture
def lists(tmp_path):
    """A folder of lists and of 12 + 24 + 24 small pictures of two classes."""
    rng = np.random.default_rng(0)
    paths = [f"{part}{i:02d}.png" for part, count in (("q", 12), ("t", 24), ("d", 24)) for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / path)
    for name, letter in (("test", "q"), ("train", "t"), ("database", "d")):
        own = [path for path in paths if path.startswith(letter)]
        labels = np.eye(2, dtype=np.uint8)[np.arange(len(own)) % 2]
        hh.data.write_list(tmp_path / f"{name}.txt", own, labels)
    return tmp_path


def asked(tools, lists, text=""):
    path = lists / "some.yml"
    path.write_text(f"dataset: {lists}\nbits: [8, 12]\nsettings: image_size=32 batch_size=8 epochs=2 {text}\n")
    return tools[1].check(tools[0].read(path, f"runs_dir={lists / 'runs'}"))


def test_a_batch_that_can_run_is_called_ready_and_nothing_is_started(tools, lists, capsys):
    assert asked(tools, lists) == 0
    said = capsys.readouterr().out
    for line in ("2 runs: 0 are finished, 2 are to do", "12 query, 24 train, 24 database", "all 60 pictures are there"):
        assert line in said
    assert "2 such runs" in said  # the length of the code does not count
    assert said.endswith("Ready: the same command without --dry-run runs it.\n")
    assert not (lists / "runs").exists()


def test_a_picture_that_is_missing_or_damaged_is_named(tools, lists, capsys):
    (lists / "d07.png").rename(lists / "elsewhere.png")
    assert asked(tools, lists) == 1
    assert "1 of 60 pictures are missing, first d07.png" in capsys.readouterr().out
    (lists / "d07.png").write_bytes(b"no picture")
    assert asked(tools, lists) == 1
    said = capsys.readouterr().out
    assert "d07.png is no JPEG" in said
    assert said.endswith("Not ready.\n")


def test_weights_that_are_out_of_reach_are_named(tools, lists, hub, capsys):
    path = lists / "some.yml"
    path.write_text(f"dataset: {lists}\nnetwork: tiny\nsettings: pretrained=true\n")
    assert tools[1].check(tools[0].read(path, f"runs_dir={lists / 'runs'}")) == 1
    said = capsys.readouterr().out
    assert "MISSING  the weights of nest_tiny_jx could not be fetched" in said
    assert "the same HF_HOME" in said


def test_the_time_of_a_run_is_that_of_its_steps_and_of_the_images_it_encodes(tools):
    """digits: 200 ask, 597 are searched; of 1,000 training images 100 are held out."""
    ex = hh.open("epochs=10 batch_size=40 validate_every=4", dataset="digits")
    found = tools[1].cost(ex.split, ex.settings, step=2.0, encode=0.5)
    steps, looks = 10 * (900 // 40), 3  # after epochs 4, 8 and 10
    assert found["seconds"] == pytest.approx(2.0 * steps + 0.5 * (looks * 100 + 797))
    on_queries = replace(ex.settings, recipe=replace(ex.settings.recipe, choose="queries", validation=0.0))
    found = tools[1].cost(ex.split, on_queries, step=2.0, encode=0.5)
    assert found["seconds"] == pytest.approx(2.0 * 10 * (1000 // 40) + 0.5 * (looks * 797 + 797))
