"""Codes made for the benchmark of search are like the real ones, and rows of its table are kept one by one."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hhlib import metrics, runs

KEPT = runs.kept("cifar10-lite0-64bits").codes()


@pytest.fixture(scope="module")
def scale():
    where = spec_from_file_location("scale", Path(__file__).parent.parent / "benchmarks" / "scale.py")
    module = module_from_spec(where)
    where.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def like(scale):
    return scale.Like(KEPT["database_codes"])


def test_made_codes_have_the_statistics_of_the_real_ones(scale, like):
    real, made = (scale.facts(codes) for codes in (KEPT["database_codes"], like.draw(54_000, seed=0)))
    assert made["distinct"] == pytest.approx(real["distinct"], rel=0.1)
    assert made["tied"] == pytest.approx(real["tied"], rel=0.1)
    assert abs(made["tenth"] - real["tenth"]) < 0.2  # bits
    assert np.abs(made["histogram"] - real["histogram"]).sum() / 2 < 0.02


def test_facts_are_those_of_sorted_distances(scale):
    codes = KEPT["database_codes"][:300]
    distances = np.sort(metrics.hamming(KEPT["query_codes"], codes), axis=1)
    found = scale.facts(codes)
    assert found["distinct"] == len({bytes(code) for code in codes})
    assert found["nearest"] == pytest.approx(distances[:, 0].mean())
    assert found["tenth"] == pytest.approx(distances[:, 9].mean())
    assert found["tied"] == pytest.approx(np.mean([(row == row[9]).mean() for row in distances]))


def test_a_made_code_lies_between_a_code_that_occurs_once_and_another(scale, like):
    """On codes placed by hand: 0 occurs twice and is repeated; 1 and 14 (1110 in binary) occur once and are crossed."""
    small = scale.Like.__new__(scale.Like)
    small.codes, small.distinct = np.array([0, 0, 1, 14], np.uint64), np.array([0, 1, 14], np.uint64)
    small.place, small.near = np.array([-1, -1, 0, 1]), np.full((2, scale.NEIGHBOURS), 0)
    drawn = small.draw(4000, seed=0).view(np.uint64)[:, 0]
    assert set(drawn.tolist()) == {0, 1, *range(2, 15, 2)}  # 0 crossed with 14: any of its three bits
    assert (drawn == 1).mean() == pytest.approx(1 / 8, abs=0.03)  # one code of four, and half of its crossings
    assert (like.draw(50, seed=3) == like.draw(50, seed=3)).all()
    assert (like.draw(50, seed=3) != like.draw(50, seed=4)).any()


def test_more_codes_begin_like_fewer(scale, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where codes are kept, outside the project
    monkeypatch.setattr(scale, "BLOCK", 400)
    few, more = (np.load(scale.codes_file(n)) for n in (500, 1000))
    assert (few.shape, few.dtype) == ((500, 8), np.uint8)
    assert (more[:500] == few).all()
    exact = np.sort(metrics.hamming(KEPT["query_codes"], few), axis=1)[:, : scale.K]
    assert (scale.exact_distances(500) == exact).all()


def test_a_row_is_kept_in_its_place_and_only_missing_ones_are_measured(scale, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scale, "TABLE", tmp_path / "scale.csv")
    scale.keep({"codes": 300, "index": "ivf", "effort": 16, "recall": 0.5}, threads=1)
    scale.complete(300, "hnsw", minutes=0.001, threads=1)  # far too little
    for kind in ("hnsw", "ivf"):
        scale.complete(300, kind, minutes=5, threads=1)
    table = pd.read_csv(tmp_path / "scale.csv").replace({np.nan: None})
    assert list(table["index"]) == ["ivf"] * 4 + ["hnsw"]
    assert table["effort"].tolist()[:4] == [1, 4, 16, 64]
    assert table["recall"].tolist()[2] == 0.5  # not measured again
    assert (table["recall"][[0, 1, 3]] > 0).all()
    assert table["note"].tolist()[3:] == [None, "not built within 0.001 minutes"]
    assert table[["machine", "threads", "faiss", "numpy", "git_commit"]].notna().all(axis=None)
