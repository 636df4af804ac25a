import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hhlib.losses import centers

WIDTHS = (12, 16, 24, 32, 48, 64, 128)
BOUNDS = {
    10: (5, 6, 10, 13, 21, 28, 58),
    21: (4, 6, 9, 12, 19, 26, 56),
    38: (4, 5, 8, 12, 18, 25, 54),
    80: (3, 5, 8, 11, 17, 24, 52),
    81: (3, 5, 8, 11, 17, 24, 52),
    100: (3, 4, 7, 10, 17, 24, 52),
    196: (3, 4, 7, 10, 16, 23, 51),
}


def rng(seed=0):
    return np.random.default_rng(seed)


def test_hadamard_rows_differ_in_half_of_their_bits():
    assert centers.hadamard(4).tolist() == [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    for bits in (2, 8, 64):
        d = centers.distances(centers.hadamard(bits))
        assert (d[~np.eye(bits, dtype=bool)] == bits // 2).all()
    with pytest.raises(ValueError, match="bits is 48, but Sylvester's Hadamard matrix needs a power of two"):
        centers.hadamard(48)


@pytest.mark.parametrize(("bits", "mean"), [(16, 8.2581), (32, 16.2540), (64, 32.2520)])
def test_as_many_classes_as_both_signs_of_the_hadamard_matrix(bits, mean):
    d = centers.distances(centers.csq_centers(bits, 2 * bits, rng()))[~np.eye(2 * bits, dtype=bool)]
    assert (d.min(), d.max()) == (bits // 2, bits)
    assert d.mean() == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize(("bits", "classes", "least", "mean"), [(64, 100, 32, 32.2327), (16, 21, 8, 8.1905)])
def test_centers_of_the_fields_protocols(bits, classes, least, mean):
    H = centers.csq_centers(bits, classes, rng())
    assert centers.least_distance(H) == least
    assert centers.distances(H)[~np.eye(classes, dtype=bool)].mean() == pytest.approx(mean, abs=1e-4)


@given(bits=st.integers(1, 20), classes=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_every_class_has_a_code_of_its_own(bits, classes, seed):
    for make in (centers.csq_centers, centers.different):
        if classes > 2**bits:
            with pytest.raises(ValueError, match=f"num_classes is {classes}, but {bits} bits have only {2**bits}"):
                make(bits, classes, rng(seed))
            continue
        H = make(bits, classes, rng(seed))
        assert H.shape == (classes, bits)
        assert set(np.unique(H)) <= {-1.0, 1.0}
        assert len(np.unique(H, axis=0)) == classes
        assert (make(bits, classes, rng(seed)) == H).all()


def test_random_rows_have_as_many_ones_as_minus_ones():
    assert (centers.csq_centers(48, 100, rng()).sum(axis=1) == 0).all()


@pytest.mark.parametrize(("classes", "bounds"), BOUNDS.items())
def test_bound(classes, bounds):
    assert tuple(centers.bound(bits, classes) for bits in WIDTHS) == bounds


@given(bits=st.integers(1, 12), classes=st.integers(1, 40))
def test_bound_is_the_least_sum_of_binomials_that_fills_the_space(bits, classes):
    d = centers.bound(bits, classes)
    balls = [sum(math.comb(bits, i) for i in range(r)) for r in (d - 1, d)]
    assert balls[0] * classes < 2**bits <= balls[1] * classes


@pytest.mark.parametrize(("bits", "classes"), [(48, 21), (12, 10), (12, 21), (48, 10), (24, 10)])
def test_the_search_reaches_the_bound(bits, classes):
    """48 bits and 21 classes stay 15 apart if centers that converge early are thrown away."""
    H = centers.separated_centers(bits, classes, rng())
    assert H.shape == (classes, bits)
    assert centers.least_distance(H) >= centers.bound(bits, classes)


@pytest.mark.parametrize("bits", [1, 7, 8])
def test_a_single_class_has_no_other_to_keep_away_from(bits):
    assert centers.separated_centers(bits, 1, rng()).shape == (1, bits)
    assert centers.least_distance(centers.separated_centers(bits, 1, rng())) == bits


def test_moving_one_center_satisfies_its_constraints():
    others = centers.csq_centers(24, 9, rng())
    moved = centers._move(others, 24 - 2 * 10, rng())
    assert (others @ moved <= 4).all()


@pytest.mark.parametrize(("bits", "classes"), [(16, 81), (16, 100), (24, 81), (32, 100), (48, 100)])
def test_flipping_single_bits_reaches_the_bound_too(bits, classes):
    start = centers.different(bits, classes, rng(1))
    wanted = centers.bound(bits, classes)
    assert centers.least_distance(start) < wanted
    assert centers.least_distance(centers.flipped(start, wanted, rng())) >= wanted


def test_flipping_keeps_the_best_set_where_the_goal_is_out_of_reach():
    start = centers.hadamard(4)
    found = centers.flipped(start, 3, rng(), steps=200)  # four codes of four bits are 2 apart at most
    best = max(
        min(bin(a ^ b).count("1") for a, b in itertools.combinations(codes, 2))
        for codes in itertools.combinations(range(16), 4)
    )
    assert centers.least_distance(found) == best == 2
