"""The comparison of methods on frozen vectors: a finished run is not repeated, and scores are those of the metrics."""

import json

import numpy as np
import pytest
import torch

import hhlib as hh
from hhlib import data

JOB = dict(table="fair", dataset="digits", method="csq", network="lite0", bits=8, seed=0, rate=1.0, knob=1.0)


@pytest.fixture
def tools(from_tools):
    return from_tools("compare"), from_tools("ranking")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where vectors and runs are kept."""
    return tmp_path_factory.mktemp("compare")


@pytest.fixture
def job(folder):
    quick = {"data_dir": str(folder), "image_size": "32", "epochs": "1", "validation": "0"}
    return JOB | dict(settings=[list(pair) for pair in quick.items()], runs_dir=str(folder / "runs"))


def written(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("table", ["tuning", "fair", "unseen"])
def test_a_finished_run_is_not_repeated(table, tools, job, folder):
    compare, _ = tools
    first = compare.finish(job | {"table": table})
    before = written(folder / "runs")
    again = compare.finish(json.loads(json.dumps(job | {"table": table})))
    assert again == json.loads(json.dumps(first))
    assert written(folder / "runs") == before


def test_a_row_of_the_table_is_what_its_settings_give(tools, job, folder):
    compare, _ = tools
    row = compare.finish(job)
    where = dict(data_dir=str(folder), runs_dir=str(folder / "again"))
    ex = hh.open(row["run"], **where)
    ex.fit(())
    assert ex.evaluate()["map"]["expected"] == pytest.approx(row["expected"], abs=1e-9)


def test_unseen_classes_are_asked_for_and_searched_but_not_shown(tools, job):
    compare, _ = tools
    job = job | {"table": "unseen"}
    split, query, database = compare.split_of(job)
    hidden = compare.unseen_classes(split, job)
    assert len(hidden) == 3
    for part in (query, database):
        assert set(part.labels.argmax(dim=1).tolist()) == set(hidden)
    assert not set(split.train.labels.argmax(dim=1).tolist()) & set(hidden)


def test_tuning_holds_out_training_images_and_never_sees_a_query(tools, job):
    compare, _ = tools
    whole = compare.vectors("digits", "lite0", 0, tuple(map(tuple, job["settings"])))
    split, held, _ = compare.split_of(job | {"table": "tuning"})
    rows = {name: set(part.rows.tolist()) for name, part in whole.parts().items()}
    assert set(split.train.rows.tolist()) | set(held.rows.tolist()) == rows["train"]
    assert not set(split.train.rows.tolist()) & set(held.rows.tolist())
    assert not rows["query"] & rows["train"]
    assert len(held) == len(whole.train) // 5


@pytest.fixture
def comparison(tools):
    """Forty vectors, ten of which ask for the rest."""
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    pool = data.Pool(x, torch.eye(4, dtype=torch.uint8)[torch.arange(40) % 4], list("abcd"), flip=False)
    parts = [data.Part(pool, np.arange(*ends)) for ends in ((0, 10), (10, 40), (10, 40))]
    protocol = data.Protocol(10, 30, "train", by_class=False, about="made up")
    return tools[1].Comparison(data.Split("made up", 0, protocol, *parts))


def test_a_ranking_of_floats_is_scored_as_the_metrics_score_codes(tools, comparison):
    """On signs of 64 random directions, whose ties the ranking breaks by chance, between worst and best."""
    z = [x @ np.random.default_rng(0).normal(size=(6, 64)) for x in (comparison.query, comparison.database)]
    a, b = (hh.retrieval.pack(part) for part in z)
    right = comparison.right["query"], comparison.right["database"]
    scores = hh.metrics.evaluate(a, right[0], b, right[1], bits=64, database_order=True)["map"]
    found = comparison.scored(lambda rows: np.argsort(hh.metrics.hamming(a[rows], b), axis=1, kind="stable"))
    assert found["map"] == pytest.approx(scores["database_order"], abs=1e-9)


def test_only_the_first_hundred_are_sorted_again(tools):
    _, ranking = tools
    rng = np.random.default_rng(0)
    order = np.stack([rng.permutation(150) for _ in range(3)])
    query, database = rng.normal(size=(3, 4)), rng.normal(size=(150, 4))
    found = ranking.reranked(order, query, database)
    assert (found[:, 100:] == order[:, 100:]).all()
    for i in range(3):
        assert set(found[i, :100]) == set(order[i, :100])
        assert (np.diff(database[found[i, :100]] @ query[i]) <= 1e-12).all()
