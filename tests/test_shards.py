"""A search over shards is one exact search over all their codes."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hhlib import metrics, retrieval

TOOL = Path(__file__).parent.parent / "tools" / "shards.py"
CODES = np.random.default_rng(0).integers(0, 256, (700, 2), dtype=np.uint8)  # 16 bits: many ties
QUERIES = np.random.default_rng(1).integers(0, 256, (9, 2), dtype=np.uint8)


@pytest.fixture
def tool(from_tools):
    return from_tools("shards")


@pytest.fixture
def split(tmp_path):
    """``split(at)`` writes CODES in shards that end at these rows, every second as a folder -> their paths."""

    def write(*at):
        paths = []
        for i, part in enumerate(np.split(CODES, at)):
            path = tmp_path / f"shard{i}"
            if i % 2:
                path.mkdir()
            np.save(path / "codes.npy" if i % 2 else path.with_suffix(".npy"), part)
            paths.append(path if i % 2 else path.with_suffix(".npy"))
        return paths

    return write


@pytest.mark.parametrize("at", [(), (300,), (5, 650)])
def test_it_equals_one_search_up_to_ties(tool, split, at):
    """The last case has a shard of five codes, and one of fifty: fewer than k."""
    paths, k = split(*at), 60
    starts = np.array([0, *at])
    exact, _ = retrieval.search(QUERIES, CODES, k=k)
    with tool.Shards(paths) as shards:
        for _ in range(2):  # its processes serve more than one search
            distances, shard, rows = shards.search(QUERIES, k=k)
            assert (distances == exact).all()
            true = metrics.hamming(QUERIES, CODES)
            assert (np.take_along_axis(true, starts[shard] + rows, axis=1) == distances).all()
    assert all(len(set(line)) == k for line in (starts[shard] + rows).tolist())


def test_neither_the_order_of_shards_nor_their_size_decides_ties(tool, tmp_path):
    """All codes are the same; every shard is chosen about as often as the others, wherever it stands."""
    for name, n in (("a", 50), ("b", 500), ("c", 20)):
        np.save(tmp_path / f"{name}.npy", np.zeros((n, 2), np.uint8))
    paths, queries = [tmp_path / f"{name}.npy" for name in "abc"], np.zeros((300, 2), np.uint8)
    found = []
    for order in (paths, paths[::-1]):
        with tool.Shards(order) as shards:
            _, shard, rows = shards.search(queries, k=10)
        found.append([{(order[s], r) for s, r in zip(*line, strict=True)} for line in zip(shard, rows, strict=True)])
    assert found[0] == found[1]
    share = np.bincount(shard.ravel(), minlength=3) / shard.size
    assert share == pytest.approx([1 / 3] * 3, abs=0.05)  # 3,000 results: over 5 standard deviations


def test_another_seed_is_another_order_of_ties(tool, tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((9, 2), np.uint8))
    one, other = (tool.drawn(tmp_path / "a.npy", seed, (2, 9)) for seed in (0, 1))
    assert (one == tool.drawn(tmp_path / "a.npy", 0, (2, 9))).all()
    assert (one != other).all()
    assert (one != tool.drawn(tmp_path / "b.npy", 0, (2, 9))).all()


def test_what_would_give_wrong_answers_is_refused(tool, split, tmp_path):
    paths = split(300)
    np.save(tmp_path / "wide.npy", np.zeros((3, 8), np.uint8))
    np.save(tmp_path / "numbers.npy", np.zeros((3, 2)))
    for given, message in [
        ([], "at least one"),
        ([paths[0], paths[0]], "each once"),
        ([*paths, tmp_path / "wide.npy"], r"\(2, 2, 8\) bytes"),
        ([tmp_path / "numbers.npy"], "numbers.npy holds no packed codes"),
    ]:
        with pytest.raises(ValueError, match=message):
            tool.Shards(given)
    with tool.Shards(paths) as shards:
        with pytest.raises(ValueError, match=r"\(9, 1\) uint8, .* \(q, 2\)"):
            shards.search(QUERIES[:, :1], k=1)
        with pytest.raises(ValueError, match="k is 701, .* 1 to 700"):
            shards.search(QUERIES, k=701)


def test_the_command_prints_a_line_per_result(split, tmp_path):
    np.save(tmp_path / "queries.npy", QUERIES)
    command = [sys.executable, TOOL, tmp_path / "queries.npy", *split(300), "--k", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    exact, _ = retrieval.search(QUERIES, CODES, k=3)
    assert [int(line["distance"]) for line in lines] == exact.ravel().tolist()
    wrong = subprocess.run([*command[:3], tmp_path / "none.npy"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "none.npy" in wrong.stderr
    assert "Traceback" not in wrong.stderr
