import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hhlib import metrics


def naive_average_precision(right):
    """The definition, with a loop: mean of the precisions at the right images found."""
    hits, precisions = 0, []
    for rank, good in enumerate(right, start=1):
        if good:
            hits += 1
            precisions.append(hits / rank)
    return sum(precisions) / len(precisions) if precisions else 0.0


def histograms(distance, right, bits):
    n_t = np.bincount(distance, minlength=bits + 1)[None]
    r_t = np.bincount(distance, weights=right, minlength=bits + 1).astype(int)[None]
    return n_t, r_t


@st.composite
def small_rankings(draw):
    n = draw(st.integers(1, 6))
    distance = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    right = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return distance, right, draw(st.none() | st.integers(1, n + 1))


@given(small_rankings())
@settings(max_examples=300)
def test_expected_best_and_worst_equal_enumeration_of_all_orders(case):
    distance, right, k = case
    orders = [p for p in itertools.permutations(range(len(distance))) if all(np.diff(distance[list(p)]) >= 0)]
    values = [naive_average_precision(right[list(p)][:k]) for p in orders]
    ap = metrics.average_precision(*histograms(distance, right, 3), k)
    assert ap["expected"][0] == pytest.approx(np.mean(values), abs=1e-12)
    assert ap["best"][0] == pytest.approx(max(values), abs=1e-12)
    assert ap["worst"][0] == pytest.approx(min(values), abs=1e-12)


def test_best_is_not_simply_relevant_first_where_the_cut_divides_a_group():
    """Ranks: right | wrong | a right and a wrong one tied, cut at 3. Finding the second right image lowers AP@3."""
    ap = metrics.average_precision(*histograms(np.array([0, 1, 2, 2]), np.array([1, 0, 1, 0]), 2), 3)
    assert ap["best"][0] == 1.0
    assert ap["worst"][0] == pytest.approx((1 + 2 / 3) / 2)
    assert ap["expected"][0] == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)


@pytest.mark.parametrize(
    ("right", "value"), [([1, 0, 1], (1 + 2 / 3) / 2), ([0, 0, 1], 1 / 3), ([0, 0], 0.0), ([1, 1], 1.0)]
)
def test_average_precision_of_lists_by_hand(right, value):
    assert metrics.ranked_average_precision(np.array([right], dtype=bool))[0] == pytest.approx(value)


def random_case(seed, bits=10, queries=7, database=50, classes=4):
    rng = np.random.default_rng(seed)
    codes = [rng.choice([-1, 1], (n, bits)) for n in (queries, database)]
    labels = [(rng.random((n, classes)) < 0.35).astype(np.uint8) for n in (queries, database)]
    return codes[0], labels[0], codes[1], labels[1]


def naive_map(qc, ql, dc, dl, topk=None):
    """Per query: dot product, stable sort, average precision; the field's loop with a stable sort."""
    values = []
    for code, label in zip(qc, ql, strict=True):
        distance = (qc.shape[1] - dc @ code) / 2
        right = (dl @ label > 0)[np.argsort(distance, kind="stable")]
        values.append(naive_average_precision(right[:topk]))
    return np.mean(values)


@given(st.integers(0, 10_000), st.none() | st.integers(1, 60))
@settings(max_examples=40)
def test_database_order_equals_the_naive_loop_and_lies_between_the_bounds(seed, topk):
    case = random_case(seed)
    scores = metrics.evaluate(*case, topk=topk)["map"]
    assert scores["database_order"] == pytest.approx(naive_map(*case, topk=topk), abs=1e-12)
    for name in ("expected", "database_order"):
        assert scores["worst"] - 1e-12 <= scores[name] <= scores["best"] + 1e-12


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_expected_ignores_database_order_bit_order_and_flipped_bits(seed):
    qc, ql, dc, dl = random_case(seed)
    rng = np.random.default_rng(seed)
    reference = metrics.evaluate(qc, ql, dc, dl, topk=20)["map"]
    order, bits, signs = rng.permutation(len(dc)), rng.permutation(qc.shape[1]), rng.choice([-1, 1], qc.shape[1])
    for changed in [
        (qc, ql, dc[order], dl[order]),
        (qc[:, bits], ql, dc[:, bits], dl),
        (qc * signs, ql, dc * signs, dl),
    ]:
        scores = metrics.evaluate(*changed, topk=20)["map"]
        for name in ("expected", "best", "worst"):
            assert scores[name] == pytest.approx(reference[name], abs=1e-12)


def test_blocks_do_not_change_the_result(monkeypatch):
    case = random_case(3)
    whole = metrics.evaluate(*case)
    monkeypatch.setattr(metrics, "_BLOCK_PAIRS", 60)  # one query a block
    blocked = metrics.evaluate(*case)
    assert whole["map"] == blocked["map"]
    assert (whole["histogram"]["all"] == blocked["histogram"]["all"]).all()


@pytest.mark.parametrize("bits", [1, 7, 8, 64, 65, 130])
def test_packed_codes_give_the_same_as_signs(bits):
    qc, ql, dc, dl = random_case(bits, bits=bits)
    packed = metrics.evaluate(metrics.pack_signs(qc), ql, metrics.pack_signs(dc), dl, bits=bits)
    assert packed["map"] == metrics.evaluate(qc, ql, dc, dl)["map"]
    distance = metrics.hamming(metrics.pack_signs(qc), metrics.pack_signs(dc))
    assert (distance == (bits - qc @ dc.T) // 2).all()


def test_zero_counts_as_plus_one_and_class_numbers_as_one_hot():
    qc, dc = np.array([[0.0, -1.0]]), np.array([[1.0, -1.0], [-1.0, 1.0]])
    scores = metrics.evaluate(qc, [1], dc, [1, 0])
    assert scores["histogram"]["all"].tolist() == [[1, 0, 1]]
    assert scores["map"]["expected"] == 1.0


def test_leave_one_out_is_each_image_against_all_others():
    rng = np.random.default_rng(0)
    codes, labels = rng.normal(size=(30, 6)), rng.random((30, 4)) < 0.3
    labels[0] = False  # relevant to nobody, not even to itself
    others = [np.delete(np.arange(30), i) for i in range(30)]
    scores = [
        metrics.evaluate(codes[[i]], labels[[i]], codes[rest], labels[rest])["map"]["expected"]
        for i, rest in enumerate(others)
    ]
    assert metrics.leave_one_out_map(codes, labels) == pytest.approx(np.mean(scores), abs=1e-12)


def test_curves_against_naive_counting():
    qc, ql, dc, dl = random_case(5, bits=6)
    scores = metrics.evaluate(qc, ql, dc, dl)
    distance, right = (6 - qc @ dc.T) // 2, ql @ dl.T > 0
    for r in range(7):
        inside = distance <= r
        precision = [right[q][inside[q]].mean() if inside[q].any() else 0.0 for q in range(len(qc))]
        recall = [right[q][inside[q]].sum() / right[q].sum() if right[q].any() else 0.0 for q in range(len(qc))]
        ball = scores["within_radius"]
        assert ball["precision"][r] == pytest.approx(np.mean(precision))
        assert ball["recall"][r] == pytest.approx(np.mean(recall))
        assert ball["empty"][r] == sum(not row.any() for row in inside)
    rng = np.random.default_rng(0)
    shuffled = [right[q][np.lexsort((rng.random(50), distance[q]))] for q in range(len(qc)) for _ in range(3000)]
    at = scores["at_rank"]
    for position in (0, 5, -1):
        n = at["n"][position]
        assert at["precision"][position] == pytest.approx(np.mean([s[:n].mean() for s in shuffled]), abs=0.01)
    assert at["recall"][-1] == pytest.approx(np.mean(right.any(axis=1)))


def test_extremes():
    codes, same = np.ones((4, 8)), np.array([0, 0, 1, 1])
    tied = metrics.evaluate(codes, same, codes, same)["map"]
    assert tied["best"] == 1.0
    assert tied["worst"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    nobody = metrics.evaluate(codes, np.zeros((4, 2)), codes, np.ones((4, 2)))
    assert nobody["map"] == dict.fromkeys(("expected", "best", "worst", "database_order"), 0.0)
    assert nobody["queries_without_match"] == 4
    everybody = metrics.evaluate(codes, np.ones((4, 2)), codes, np.ones((4, 2)), topk=3)
    assert all(value == pytest.approx(1.0) for value in everybody["map"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 12.5}, "bits is 12.5"),
        ({"topk": 0}, "topk is 0"),
        ({"query_codes": np.ones((2, 3))}, r"database codes have shape \(4, 2\), but 3 bits need \(n, 3\)"),
        ({"query_labels": np.zeros(3, int)}, "there are 2 query codes but 3 rows of query labels"),
        ({"query_labels": np.zeros((2, 9))}, "query labels are 9 wide and database labels 2"),
        ({"query_codes": np.zeros((2, 1), np.uint8), "database_codes": np.zeros((4, 1), np.uint8)}, "give bits="),
    ],
)
def test_bad_input_is_refused(changes, message):
    good = dict(query_codes=np.ones((2, 2)), query_labels=np.ones((2, 2)))
    good |= dict(database_codes=np.ones((4, 2)), database_labels=np.ones((4, 2)))
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(**(good | changes))
