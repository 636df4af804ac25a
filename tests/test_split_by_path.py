"""Splits of own pictures are drawn by their paths: what belongs where does not depend on the other pictures."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hhlib import data


def pool_of(paths):
    """A pool of black pictures of two classes, which take turns; without paths if there is only their number."""
    n = paths if isinstance(paths, int) else len(paths)
    labels = torch.eye(2, dtype=torch.uint8)[torch.arange(n) % 2]
    named = None if isinstance(paths, int) else paths
    return data.Pool(torch.zeros(n, 3, 1, 1, dtype=torch.uint8), labels, ["a", "b"], True, named)


def number(path, seed=0):
    """The number that seed and path give a picture, in 0..1."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {path}".encode(), digest_size=8).digest(), "little") / 2**64


PATHS = [f"cat/{i}.jpg" for i in range(40)]


def test_a_number_between_0_and_1_says_where_a_picture_belongs():
    split = data.split_pool(pool_of(PATHS), query=0.2, train=0.5, seed=3)
    assert split.query.paths == [path for path in PATHS if number(path, 3) < 0.2]
    assert split.train.paths == [path for path in PATHS if 0.2 <= number(path, 3) < 0.7]
    assert split.database.paths == [path for path in PATHS if number(path, 3) >= 0.7]


def test_the_same_pictures_ask_in_every_version():
    assert data.split_pool(pool_of(PATHS), query=0.1, train=0.5).query.paths == [
        "cat/12.jpg",
        "cat/30.jpg",
        "cat/31.jpg",
    ]


@given(new=st.sets(st.text("abc", min_size=1), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_new_pictures_move_no_other(new, seed):
    how = dict(query=0.3, train=0.3, seed=seed)
    before, after = data.split_pool(pool_of(PATHS), **how), data.split_pool(pool_of(PATHS + sorted(new)), **how)
    for name, part in before.parts().items():
        assert set(after.parts()[name].paths) - new == set(part.paths)


def test_whole_numbers_take_the_smallest():
    order = sorted(PATHS, key=number)
    split = data.split_pool(pool_of(PATHS), query=4, train=10)
    assert sorted(split.query.paths) == sorted(order[:4])
    assert sorted(split.train.paths) == sorted(order[4:14])
    mixed = data.split_pool(pool_of(PATHS), query=0.2, train=10)
    others = [path for path in order if number(path) >= 0.2]
    assert sorted(mixed.train.paths) == sorted(others[:10])
    mixed = data.split_pool(pool_of(PATHS), query=4, train=0.5)
    assert sorted(mixed.train.paths) == sorted(path for path in order[4:] if number(path) < 0.1 + 0.5)


def test_shares_are_met_but_for_chance():
    for seed in range(5):
        sizes = data.split_pool(pool_of(4000), query=0.1, train=0.5, seed=seed).sizes
        assert abs(sizes["query"] - 400) < 5 * np.sqrt(4000 * 0.1 * 0.9)  # five standard deviations
        assert abs(sizes["train"] - 2000) < 5 * np.sqrt(4000 * 0.5 * 0.5)


def test_the_same_name_in_another_normal_form_belongs_to_the_same_part():
    composed, split = [f"caf\u00e9/{i}.jpg" for i in range(20)], [f"cafe\u0301/{i}.jpg" for i in range(20)]
    parts = [data.split_pool(pool_of(paths), query=0.3, train=0.3).parts() for paths in (composed, split)]
    for name, part in parts[0].items():
        assert part.rows.tolist() == parts[1][name].rows.tolist()


def test_pictures_without_paths_are_drawn_by_their_number():
    split = data.split_pool(pool_of(40), query=0.2, train=0.5)
    assert split.query.rows.tolist() == [row for row in range(40) if number(f"{row:06d}") < 0.2]


def test_unseen_classes_and_their_queries_are_drawn_by_names():
    split = data.split_unseen(pool_of(PATHS), unseen=["b"], query=0.3, seed=2)
    strange = PATHS[1::2]
    assert split.query.paths == [path for path in strange if number(path, 2) < 0.3]
    assert split.database.paths == [path for path in strange if number(path, 2) >= 0.3]
    assert split.train.paths == PATHS[::2]
    drawn = data.split_unseen(pool_of(PATHS), unseen=0.5, query=3, seed=2)
    hidden = min("ab", key=lambda name: number(name, 2))
    assert set(drawn.train.paths) == set(PATHS["ab".index(hidden) == 0 :: 2])
    assert len(drawn.query) == 3


def test_a_part_that_would_be_empty_is_refused():
    with pytest.raises(ValueError, match="query would be empty: 3 pictures are too few for these shares"):
        data.split_pool(pool_of(["a", "b", "c"]), query=0.17, train=0.3)  # the smallest number is 0.174
