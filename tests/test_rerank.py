"""Codes beside floats: every way to search is scored alike."""

import numpy as np
import pytest
import torch

import hhlib as hh
from hhlib import data


@pytest.fixture
def tool(from_tools):
    return from_tools("rerank")


@pytest.fixture
def ways(tool):
    """Fifteen queries and forty-five images of four classes: vectors of 6 numbers, and outputs for 16 bits."""
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    pool = data.Pool(x, torch.eye(4, dtype=torch.uint8)[torch.arange(60) % 4], list("abcd"), flip=False)
    parts = [data.Part(pool, np.arange(*ends)) for ends in ((0, 15), (15, 60), (15, 60))]
    protocol = data.Protocol(15, 45, "train", by_class=False, about="made up")
    comparison = tool.Comparison(data.Split("made up", 0, protocol, *parts))
    directions = np.random.default_rng(0).normal(size=(6, 16))
    return tool.Ways(comparison, {"query": comparison.query @ directions, "database": comparison.database @ directions})


def test_scores_are_those_of_a_naive_loop(ways):
    rows = np.stack([np.random.default_rng(i).permutation(45)[:10] for i in range(15)])
    labels, others = (part.argmax(axis=1) for part in ways.right)
    ap, right = [], []
    for label, found in zip(labels, rows, strict=True):
        hits, precisions = 0, []
        for rank, row in enumerate(found, 1):
            if others[row] == label:
                hits += 1
                precisions.append(hits / rank)
        ap.append(np.mean(precisions) if precisions else 0)
        right.append(hits / 10)
    assert ways.scored(rows) == pytest.approx({"map@10": np.mean(ap), "precision@10": np.mean(right)})


def test_codes_are_scored_as_the_mean_over_tie_orders(ways):
    row = ways.by_codes()
    distances = hh.metrics.hamming(ways.codes["query"], ways.codes["database"])
    orders = []
    for seed in range(300):
        luck = np.random.default_rng(seed).random(distances.shape)
        orders.append(ways.scored(np.lexsort((luck, distances), axis=1)[:, :10]))
    for score in ("map@10", "precision@10"):
        assert row[score] == pytest.approx(np.mean([each[score] for each in orders]), abs=0.005)
    assert row["memory_bytes"] == 2


@pytest.mark.parametrize("name", ["z", "vectors"])
def test_sorting_everything_again_is_the_search_by_floats(ways, name):
    """With as many first results as there are images, codes no longer matter."""
    exact, again = ways.by_floats(name, "float16"), ways.sorted_again(name, 45)
    for score in ("map@10", "precision@10"):
        assert again[score] == pytest.approx(exact[score], abs=1e-9)
    assert (again["memory_bytes"], again["more_bytes"]) == (2, exact["memory_bytes"])


def test_the_first_results_are_those_by_code(ways, tool):
    """With no more of them than are scored, sorting again changes AP but not which images are found."""
    found = hh.retrieval.search(ways.codes["query"], ways.index, k=tool.K)[1]
    assert ways.sorted_again("z", tool.K)["precision@10"] == pytest.approx(ways.scored(found)["precision@10"])
