import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hhlib import metrics
from hhlib.metrics import kernels, pairs


def naive_average_precision(right, k=None, denominator="found"):
    """The definition, with a loop: sum of the precisions at the right images found, divided by how many count."""
    hits, precisions = 0, []
    for rank, good in enumerate(right[:k], start=1):
        if good:
            hits += 1
            precisions.append(hits / rank)
    most = len(right) if k is None else k
    by = {"found": len(precisions), "reachable": min(most, sum(right)), "all": sum(right)}[denominator]
    return sum(precisions) / by if by else 0.0


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


def orders_of(distance):
    return [list(p) for p in itertools.permutations(range(len(distance))) if all(np.diff(distance[list(p)]) >= 0)]


@given(small_rankings(), st.sampled_from(metrics.DENOMINATORS))
@settings(max_examples=500)
def test_expected_best_and_worst_equal_enumeration_of_all_orders(case, denominator):
    distance, right, k = case
    values = [naive_average_precision(right[p], k, denominator) for p in orders_of(distance)]
    ap = metrics.average_precision(*histograms(distance, right, 3), k, denominator)
    assert ap["expected"][0] == pytest.approx(np.mean(values), abs=1e-12)
    assert ap["best"][0] == pytest.approx(max(values), abs=1e-12)
    assert ap["worst"][0] == pytest.approx(min(values), abs=1e-12)


def test_best_is_not_simply_relevant_first_where_the_cut_divides_a_group():
    """Ranks: right | wrong | a right and a wrong one tied, cut at 3. Finding the second right image lowers AP@3."""
    ap = metrics.average_precision(*histograms(np.array([0, 1, 2, 2]), np.array([1, 0, 1, 0]), 2), 3)
    assert ap["best"][0] == 1.0
    assert ap["worst"][0] == pytest.approx((1 + 2 / 3) / 2)
    assert ap["expected"][0] == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)


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


@pytest.mark.parametrize("one_label", [False, True], ids=["several labels", "at most one"])
@pytest.mark.parametrize(("bits", "classes"), [(10, 4), (64, 81), (70, 130)])
def test_compiled_loops_and_matrix_products_count_what_naive_loops_count(bits, classes, one_label):
    qc, ql, dc, dl = random_case(bits, bits=bits, classes=classes)
    if one_label:  # in the database; queries keep several
        dl *= np.arange(classes) == dl.argmax(axis=1)[:, None]
    ql[0], dl[:3] = 0, 0
    compiled = metrics.count(metrics.pack_signs(qc), ql, metrics.pack_signs(dc), dl, bits)
    most = min(ql.sum(axis=1).max(), dl.sum(axis=1).max())
    naive = {name: np.zeros((len(qc), bits + 1)) for name in vars(compiled)} | {"shared": np.zeros((len(qc), most + 1))}
    table = np.zeros((len(qc), bits + 1, most + 1))
    for q in range(len(qc)):
        for j in range(len(dc)):
            t, shared = int((qc[q] != dc[j]).sum()), int((ql[q] & dl[j]).sum())
            naive["n_t"][q, t] += 1
            naive["r_t"][q, t] += shared > 0
            naive["shared_t"][q, t] += shared
            naive["exponential_t"][q, t] += 2.0**shared - 1
            naive["shared"][q, shared] += 1
            table[q, t, shared] += 1
    for name, expected in naive.items():
        np.testing.assert_array_equal(getattr(compiled, name), expected, err_msg=name)
    packed = metrics.pack_signs(qc), ql, metrics.pack_signs(dc), dl
    for block in (60, 1 << 24):  # one query at a time, all at once
        np.testing.assert_array_equal(pairs.count_by_products(*packed, bits, most, "cpu", block), table)


@pytest.mark.parametrize("database", [kernels.BLOCK - 1, kernels.BLOCK, 2 * kernels.BLOCK + 3])
@pytest.mark.parametrize("single", [True, False])
def test_more_images_than_a_block_are_counted_and_walked_as_by_naive_ways(database, single):
    qc, ql, dc, dl = random_case(2, bits=70, queries=3, database=database, classes=70)
    if single:
        ql, dl = (np.eye(70, dtype=int)[labels.argmax(axis=1)] for labels in (ql, dl))
    compiled = metrics.count(qc, ql, dc, dl, 70)
    distance, shared = (70 - qc @ dc.T) // 2, ql.astype(int) @ dl.T
    for q in range(3):
        group = [np.flatnonzero(distance[q] == t) for t in range(71)]
        assert compiled.n_t[q].tolist() == [len(images) for images in group]
        assert compiled.r_t[q].tolist() == [(shared[q, images] > 0).sum() for images in group]
        assert compiled.shared_t[q].tolist() == [shared[q, images].sum() for images in group]
        assert compiled.exponential_t[q].tolist() == [(2.0 ** shared[q, images] - 1).sum() for images in group]
        assert compiled.shared[q].tolist() == np.bincount(shared[q], minlength=compiled.shared.shape[1]).tolist()
    for topk in (None, 900):
        order = metrics.evaluate(qc, ql, dc, dl, topk=topk)["map"]["database_order"]
        assert order == pytest.approx(naive_map(qc, ql, dc, dl, topk=topk), abs=1e-12)


@pytest.mark.parametrize("bits", [1, 7, 8, 64, 65, 130])
def test_packed_codes_give_the_same_as_signs(bits):
    qc, ql, dc, dl = random_case(bits, bits=bits)
    packed = metrics.evaluate(metrics.pack_signs(qc), ql, metrics.pack_signs(dc), dl, bits=bits)
    assert packed["map"] == metrics.evaluate(qc, ql, dc, dl)["map"]
    distance = metrics.hamming(metrics.pack_signs(qc), metrics.pack_signs(dc))
    assert (distance == (bits - qc @ dc.T) // 2).all()
    assert (metrics.unpack_signs(metrics.pack_signs(qc), bits) == qc).all()


def test_zero_counts_as_plus_one_and_class_numbers_as_one_hot():
    qc, dc = np.array([[0.0, -1.0]]), np.array([[1.0, -1.0], [-1.0, 1.0]])
    scores = metrics.evaluate(qc, [1], dc, [1, 0])
    distance = [sum((q >= 0) != (d >= 0) for q, d in zip(qc[0], row, strict=True)) for row in dc]  # 0 and 2
    assert scores["histogram"]["all"].tolist() == [[distance.count(t) for t in range(3)]]
    assert scores["map"]["expected"] == naive_average_precision([1, 0]) == 1.0


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
    packed = metrics.pack_signs(codes)
    assert metrics.leave_one_out_map(packed, labels, bits=6) == metrics.leave_one_out_map(codes, labels)


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
    assert tied["best"] == naive_average_precision([1, 1, 0, 0]) == 1.0
    assert tied["worst"] == pytest.approx(naive_average_precision([0, 0, 1, 1]), abs=1e-12)
    perfect = metrics.average_precision(*2 * [np.array([[4, 1], [30, 1]])])
    assert all((ap == 1.0).all() for ap in perfect.values()), "not a hair above"
    nobody = metrics.evaluate(codes, np.zeros((4, 2)), codes, np.ones((4, 2)))
    assert nobody["map"] == dict.fromkeys(("expected", "best", "worst", "database_order"), 0.0)
    assert nobody["queries_without_match"] == nobody["queries_without_label"] == 4
    everybody = metrics.evaluate(codes, np.ones((4, 2)), codes, np.ones((4, 2)), topk=3)
    assert all(value == pytest.approx(1.0) for value in everybody["map"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 12.5}, "bits is 12.5"),
        ({"topk": 0}, "topk is 0"),
        ({"denominator": "hits"}, "denominator is 'hits', but it must be one of found, reachable, all"),
        ({"no_match": "skip"}, "no_match is 'skip', but it must be one of zero, drop"),
        ({"unlabelled": "skip"}, "unlabelled is 'skip', but it must be one of count, drop"),
        ({"query_labels": np.zeros((2, 2)), "unlabelled": "drop"}, "no query or no database image has a label"),
        ({"query_codes": np.ones((2, 3))}, r"database codes have shape \(4, 2\), but 3 bits need \(n, 3\)"),
        ({"query_labels": np.zeros(3, int)}, "there are 2 query codes but 3 rows of query labels"),
        ({"query_labels": np.zeros((2, 9))}, r"query labels and database labels are \[9, 2\] wide"),
        ({"query_codes": np.zeros((2, 1), np.uint8), "database_codes": np.zeros((4, 1), np.uint8)}, "give bits="),
    ],
)
def test_bad_input_is_refused(changes, message):
    good = dict(query_codes=np.ones((2, 2)), query_labels=np.ones((2, 2)))
    good |= dict(database_codes=np.ones((4, 2)), database_labels=np.ones((4, 2)))
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(**(good | changes))


# --- policies and other code bases ---------------------------------------------------------------------------------


def untied_case(seed):
    """A case in which every database image is at its own distance, so that each code base has one list to score."""
    rng = np.random.default_rng(seed)
    dc = np.where(np.arange(40) < np.arange(1, 41)[:, None], -1, 1)[rng.permutation(40)]  # 1 to 40 bits from all ones
    labels = [(rng.random((n, 6)) < 0.25).astype(int) for n in (5, 40)]
    labels[0][0] = 0  # a query that nothing is relevant to
    return np.ones((5, 40)), labels[0], dc, labels[1]


COMPATIBILITY = [
    (metrics.conventions.deephash_pytorch, {}),
    (partial(metrics.conventions.deephash_pytorch, drop=True), {"no_match": "drop"}),
    (partial(metrics.conventions.deephash_pytorch, drop=True, by="all"), {"denominator": "all", "no_match": "drop"}),
    (partial(metrics.conventions.deephash_pytorch, by="reachable"), {"denominator": "reachable"}),
]


@pytest.mark.parametrize(("theirs", "policy"), COMPATIBILITY, ids=lambda x: getattr(x, "__name__", ""))
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("topk", [1, 7, 40])
def test_every_convention_is_a_choice_of_policies(theirs, policy, seed, topk):
    case = untied_case(seed)
    found = metrics.evaluate(*case, topk=topk, **policy)
    if policy.get("denominator") == "all" and topk < 40:
        # that code base drops queries without any relevant image; a policy drops those without one among the first k
        values = found["ap"]["expected"][found["histogram"]["relevant"].sum(axis=1) > 0]
        assert values.mean() == pytest.approx(theirs(*case, topk=topk), abs=1e-12)
        return
    for name, value in found["map"].items():
        assert value == pytest.approx(theirs(*case, topk=topk), abs=1e-12), name


def test_the_fields_literal_all_drops_the_last_image():
    case = untied_case(0)
    literal = metrics.conventions.deephash_pytorch(*case, topk=-1)
    assert literal == pytest.approx(metrics.evaluate(*case, topk=39)["map"]["expected"], abs=1e-12)
    assert literal != pytest.approx(metrics.evaluate(*case)["map"]["expected"], abs=1e-6)


def test_the_fields_sort_gives_one_of_the_possible_orders():
    case = random_case(7)
    scores = metrics.evaluate(*case, topk=20)["map"]
    assert scores["worst"] <= metrics.conventions.deephash_pytorch(*case, topk=20) <= scores["best"]


def test_unlabelled_images_count_or_are_dropped():
    codes, labels = np.ones((4, 8)), np.array([[1, 0], [0, 1], [0, 0], [1, 0]])
    count, drop = (metrics.evaluate(codes, labels, codes, labels, unlabelled=way) for way in ("count", "drop"))
    assert (count["queries"], count["database"], count["queries_without_label"]) == (4, 4, 1)
    assert (drop["queries"], drop["database"], drop["queries_without_label"]) == (3, 3, 0)
    alone = [0, 1, 3]
    assert drop["map"] == metrics.evaluate(codes[alone], labels[alone], codes[alone], labels[alone])["map"]


# --- gains, radius, codes, statistics ------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=6), st.integers(1, 7))
@settings(max_examples=200)
def test_ndcg_equals_enumeration_of_all_orders(items, k):
    distance, shared = np.array(items).T
    labels = (np.arange(3) < shared[:, None]).astype(int)
    codes = np.where(np.arange(2) < distance[:, None], -1, 1)
    found = metrics.evaluate(np.ones((1, 2)), np.ones((1, 3), int), codes, labels, topk=k)["ndcg"]
    for name, gain in [("shared", shared.astype(float)), ("exponential", 2.0**shared - 1)]:
        discount = 1 / np.log2(np.arange(2, len(gain) + 2)) * (np.arange(len(gain)) < k)
        best = (np.sort(gain)[::-1] * discount).sum()
        values = [(gain[p] * discount).sum() for p in orders_of(distance)]
        assert found[name] == pytest.approx(np.mean(values) / best if best else 0.0, abs=1e-12)


def test_radius_lookup_pooled_curve_and_ramap_by_hand():
    """One query, 3 bits; images at distances 0, 1, 1, 3; right, right, wrong, right."""
    codes = np.array([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [-1, -1, -1]])
    scores = metrics.evaluate(np.ones((1, 3)), [1], codes, [1, 1, 0, 1])
    distance, right = [0, 1, 1, 3], [1, 1, 0, 1]
    balls = [[good for t, good in zip(distance, right, strict=True) if t <= r] for r in range(4)]
    inside = [sum(ball) / len(ball) for ball in balls]
    assert inside == pytest.approx([1, 2 / 3, 2 / 3, 3 / 4])
    assert scores["within_radius"]["precision"] == pytest.approx(inside)
    assert scores["within_radius"]["pooled_recall"] == pytest.approx([sum(ball) / sum(right) for ball in balls])
    assert scores["lookup"] == pytest.approx({"radius": 2, "precision": inside[2], "recall": 2 / 3, "empty": 0})
    assert scores["ramap"]["plain"] == pytest.approx(np.mean(inside))
    buckets = [sum(sum(code) <= r for code in itertools.product([0, 1], repeat=3)) for r in range(4)]
    assert buckets == [1, 4, 7, 8]
    assert scores["ramap"]["with_cost"] == pytest.approx(np.mean(np.array(inside) / buckets))
    assert scores["distance"] == pytest.approx({"similar": np.mean([0, 1, 3]), "dissimilar": 1})


def test_pooled_curve_is_not_the_mean_curve_and_empty_balls_are_counted_apart():
    codes = np.array([[1, 1, 1, 1], [-1, -1, -1, -1]])
    database = np.array([[1, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1]])
    ball = metrics.evaluate(codes, [0, 1], database, [0, 0, 1])["within_radius"]
    distance, right = [[0, 1, 2], [4, 3, 2]], [[1, 1, 0], [0, 0, 1]]
    for r in range(5):
        inside = [[good for t, good in zip(*row, strict=True) if t <= r] for row in zip(distance, right, strict=True)]
        precision = [sum(found) / len(found) for found in inside if found]
        assert ball["empty"][r] == sum(not found for found in inside)
        assert ball["precision"][r] == pytest.approx(sum(precision) / 2)
        assert ball["precision_nonempty"][r] == pytest.approx(np.mean(precision))
        assert ball["pooled_precision"][r] == pytest.approx(np.mean(sum(inside, [])))
    assert ball["empty"].tolist() == [1, 1, 0, 0, 0]
    assert ball["precision"][2] == pytest.approx((2 / 3 + 1) / 2)  # of each query, but 3 of 4 of both
    assert ball["pooled_precision"][2] == pytest.approx(3 / 4)


def test_code_quality_of_codes_known_by_hand():
    every = np.array(list(itertools.product([-1, 1], repeat=3)))
    facts = metrics.code_quality(every)
    assert facts["ones"].tolist() == [0.5] * 3
    assert facts["correlation"] == pytest.approx(np.eye(3))
    assert (facts["buckets"], facts["largest"], facts["constant"]) == (8, 1, 0)
    assert (facts["entropy"], facts["effective_bits"]) == pytest.approx((3, 3))
    copies = metrics.code_quality(np.array([[1, 1, -1], [-1, -1, -1], [1, 1, -1], [-1, -1, -1]]))
    assert copies["correlation"][0] == pytest.approx([1, 1, 0])
    assert (copies["constant"], copies["buckets"], copies["largest"]) == (1, 2, 2)
    assert (copies["entropy"], copies["effective_bits"]) == pytest.approx((1, 1))
    collapsed = metrics.code_quality(np.ones((5, 9)))
    assert (collapsed["entropy"], collapsed["effective_bits"], collapsed["constant"]) == (0, 0, 9)
    packed = metrics.code_quality(metrics.pack_signs(every), bits=3)
    assert packed["entropy"] == facts["entropy"]


def test_code_quality_against_naive_loops():
    codes = np.random.default_rng(0).choice([-1, 1], (40, 5), p=[0.3, 0.7])
    facts = metrics.code_quality(codes)
    seen = [tuple(code) for code in codes.tolist()]
    occupancy = sorted((seen.count(code) for code in set(seen)), reverse=True)
    assert facts["occupancy"].tolist() == occupancy
    assert (facts["buckets"], facts["largest"]) == (len(occupancy), occupancy[0])
    assert facts["entropy"] == pytest.approx(-sum(n / 40 * np.log2(n / 40) for n in occupancy))
    assert facts["ones"] == pytest.approx([sum(code[k] > 0 for code in seen) / 40 for k in range(5)])
    assert facts["correlation"] == pytest.approx(np.corrcoef(codes.T))
    eigenvalues = np.linalg.eigvalsh(np.cov(codes.T))
    assert facts["effective_bits"] == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = metrics.interval(rng.beta(2, 3, 80), resamples=300, seed=seed)
        covered += low <= 2 / 5 <= high
    assert 0.88 <= covered / 200 <= 0.99
    assert metrics.interval(np.full(9, 0.5)) == (0.5, 0.5)


def test_paired_comparison_sees_a_small_steady_gain_that_intervals_hide():
    rng = np.random.default_rng(0)
    b = rng.beta(2, 3, 300)
    a = b + rng.normal(0.01, 0.03, 300)
    assert metrics.interval(a)[0] < metrics.interval(b)[1]  # the two intervals overlap
    better = metrics.compare(a, b)
    assert better["p_value"] < 0.001
    assert better["low"] > 0
    assert better["difference"] == pytest.approx((a - b).mean())
    noise = metrics.compare(b, rng.permutation(b))
    assert noise["p_value"] > 0.05


def test_what_rounding_leaves_between_scores_is_no_difference():
    """Four queries differ, all on one side: 2 of the 2^4 swaps are as extreme, so p is 1/8, up to the luck of draws."""
    b = np.random.default_rng(0).random(200)
    a = b * (1 + 1e-15)
    a[:4] += [0.1, 0.2, 0.03, 0.004]
    assert metrics.compare(a, b)["p_value"] == pytest.approx(1 / 8, abs=0.013)  # four standard errors


def test_chance_is_the_mean_over_all_orders_and_lies_above_the_share():
    query, database = np.array([0, 1]), np.array([0, 0, 1, 1, 1, 1])
    orders = [np.array(p) for p in itertools.permutations(database)]
    mean = np.mean([naive_average_precision(order == q) for q in query for order in orders])
    assert metrics.chance(query, database) == pytest.approx(mean, abs=1e-12)
    assert metrics.chance(query, database) > np.mean([np.mean(database == q) for q in query])


def test_scores_by_class():
    ap, labels = np.array([1.0, 0.5, 0.0]), np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    mean = [np.mean([a for a, row in zip(ap, labels, strict=True) if row[c]]) for c in (0, 1)]
    assert metrics.by_class(ap, labels)[:2] == pytest.approx(mean)
    assert np.isnan(metrics.by_class(ap, labels)[2])
    assert metrics.by_class(ap, [0, 2, 0]) == pytest.approx([0.5, np.nan, 0.5], nan_ok=True)
