"""Values that would give a silently wrong number: each is refused, by name and value, or scored right."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hhlib import metrics, retrieval

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 60)
SIGNS = RNG.choice([-1, 1], (4, 16))[LABELS]  # a code per class,
SIGNS[RNG.random((60, 16)) < 0.1] *= -1  # with 10 % of its bits flipped
TABLE = np.eye(4, dtype=int)[LABELS]
QUERY, DATABASE = slice(0, 12), slice(12, 60)
GOOD = dict(query_codes=SIGNS[QUERY], query_labels=LABELS[QUERY])
GOOD |= dict(database_codes=SIGNS[DATABASE], database_labels=LABELS[DATABASE])


def naive_map(query_codes, query_labels, database_codes, database_labels):
    """Codes as lists of -1 and +1, labels as sets, ties in database order, one query after the other."""
    scores = []
    for code, wanted in zip(query_codes, query_labels, strict=True):
        distance = [sum(a != b for a, b in zip(code, other, strict=True)) for other in database_codes]
        hits, precisions = 0, []
        for rank, j in enumerate(sorted(range(len(distance)), key=distance.__getitem__), start=1):
            if wanted & database_labels[j]:
                hits += 1
                precisions.append(hits / rank)
        scores.append(sum(precisions) / hits if hits else 0.0)
    return sum(scores) / len(scores)


RIGHT = naive_map(
    SIGNS[QUERY].tolist(), [{c} for c in LABELS[QUERY]], SIGNS[DATABASE].tolist(), [{c} for c in LABELS[DATABASE]]
)


def both(part, values):
    """The codes or the labels of queries and database at once."""
    return {f"query_{part}": values[QUERY], f"database_{part}": values[DATABASE]}


def put(values, row, value):
    """The same, with another value at the start of a row."""
    changed = np.array(values, dtype=float)
    changed[(row, 0)[: changed.ndim]] = value
    return changed


def sigmoid(x):
    return 1 / (1 + np.exp(-2.0 * x))


PACKED = np.packbits(SIGNS > 0, axis=1)

# What is changed in GOOD -> what the message must contain, or None where the score must be the right one.
CALLS = {
    "nothing": ({}, None),
    "codes: bool": (both("codes", SIGNS > 0), None),
    "codes: bool beside signs": ({"query_codes": SIGNS[QUERY] > 0}, None),
    "codes: float16 network outputs": (both("codes", (SIGNS * 0.3).astype(np.float16)), None),
    "codes: torch, half precision, with gradient": (
        both("codes", torch.tensor(SIGNS, dtype=torch.bfloat16, requires_grad=True)),
        None,
    ),
    "codes: lists": (both("codes", SIGNS.tolist()), None),
    "codes: packed": (both("codes", PACKED) | {"bits": 16}, None),
    "codes: packed, stored by column": (both("codes", np.asfortranarray(PACKED)) | {"bits": 16}, None),
    "codes: every second column": (both("codes", np.repeat(SIGNS, 2, axis=1)[:, ::2]), None),
    "codes: 0 and 1": (both("codes", (SIGNS + 1) // 2), "query codes are 0 and 1, .*2 [*] codes - 1"),
    "codes: 0.0 and 1.0": (both("codes", (SIGNS + 1) / 2), "query codes are 0 and 1"),
    "codes: 0 and 1 in the database": ({"database_codes": (SIGNS[DATABASE] + 1) // 2}, "database codes are 0 and 1"),
    "codes: 0 and 1 beside bool": (
        {"query_codes": SIGNS[QUERY] > 0, "database_codes": (SIGNS[DATABASE] + 1) // 2},
        "database codes are 0 and 1",
    ),
    "codes: outputs of a sigmoid": (both("codes", sigmoid(SIGNS)), "lowest number is 0.119"),
    "codes: 1 and 2": (both("codes", (SIGNS + 3) // 2), "lowest number is 1"),
    "codes: all ones against all zeros": (
        {"query_codes": np.ones((12, 16)), "database_codes": np.zeros((48, 16))},
        "lowest number is 0",
    ),
    "codes: uint16": (both("codes", (SIGNS + 3).astype(np.uint16)), "query codes have dtype uint16"),
    "codes: all NaN": (both("codes", SIGNS * np.nan), "query codes have nan in row 0"),
    "codes: one NaN": ({"database_codes": put(SIGNS[DATABASE], 7, np.nan)}, "database codes have nan in row 7"),
    "codes: one infinity": ({"query_codes": put(SIGNS[QUERY], 3, -np.inf)}, "query codes have -inf in row 3"),
    "codes: complex": ({"query_codes": SIGNS[QUERY] + 0j}, "query codes have dtype complex128"),
    "codes: text": (both("codes", SIGNS.astype(str)), "query codes have dtype <U"),
    "codes: None": ({"query_codes": None}, "query codes have dtype object"),
    "codes: one row": ({"query_codes": SIGNS[0]}, r"query codes have shape \(16,\)"),
    "codes: no query": ({"query_codes": SIGNS[:0], "query_labels": LABELS[:0]}, r"query codes have shape \(0, 16\)"),
    "codes: no database": (
        {"database_codes": SIGNS[:0], "database_labels": LABELS[:0]},
        r"database codes have shape \(0, 16\)",
    ),
    "codes: no bits": (both("codes", SIGNS[:, :0]), "bits is 0"),
    "codes: unequal lengths": ({"query_codes": SIGNS[QUERY, :8]}, r"database codes have shape \(48, 16\), but 8 bits"),
    "codes: another length than bits": ({"bits": 12}, r"query codes have shape \(12, 16\), but 12 bits"),
    "packed: without bits": (both("codes", PACKED), "give bits="),
    "packed: spare bits set": (both("codes", PACKED) | {"bits": 12}, "bits is 12, but row"),
    "packed: too few bits": (both("codes", PACKED) | {"bits": 8}, r"query codes are \(12, 2\) uint8, but 8 bits"),
    "packed: too many bits": (both("codes", PACKED) | {"bits": 17}, r"query codes are \(12, 2\) uint8, but 17 bits"),
    "packed: beside dense": ({"query_codes": PACKED[QUERY], "bits": 16}, r"database codes are \(48, 16\) int64"),
    "packed: as int64": (both("codes", PACKED.astype(int)), "lowest number is"),
    "labels: table": (both("labels", TABLE), None),
    "labels: bool table": (both("labels", TABLE > 0), None),
    "labels: float table": (both("labels", TABLE.astype(float)), None),
    "labels: torch": (both("labels", torch.tensor(LABELS)), None),
    "labels: torch table": (both("labels", torch.tensor(TABLE, dtype=torch.float32)), None),
    "labels: lists": (both("labels", LABELS.tolist()), None),
    "labels: whole floats": (both("labels", LABELS.astype(float)), None),
    "labels: uint8": (both("labels", LABELS.astype(np.uint8)), None),
    "labels: numbers beside a table": ({"query_labels": TABLE[QUERY]}, None),
    "labels: counted from 10": (both("labels", LABELS + 10), None),
    "labels: a column": (both("labels", LABELS[:, None]), r"query labels are \(12, 1\) int64"),
    "labels: a column of 0 and 1": (both("labels", TABLE[:, :1]), r"query labels are \(12, 1\) int64"),
    "labels: counted from -1": (both("labels", LABELS - 1), "query labels have -1 in row"),
    "labels: halves": (both("labels", LABELS / 2), "query labels have [01].5 in row"),
    "labels: NaN as a number": ({"query_labels": put(LABELS[QUERY], 2, np.nan)}, "query labels have nan in row 2"),
    "labels: infinity": ({"query_labels": put(LABELS[QUERY], 2, np.inf)}, "query labels have inf in row 2"),
    "labels: identifiers": (
        {"query_labels": put(LABELS[QUERY], 2, 2**40)},
        "query labels have 1099511627776.0 in row 2",
    ),
    "labels: bool numbers": (both("labels", LABELS > 1), r"query labels are \(12,\) bool"),
    "labels: names": (both("labels", np.array(list("abcd"))[LABELS]), "query labels have dtype <U1"),
    "labels: one for all": ({"query_labels": 3}, r"query labels are \(\) int64"),
    "labels: three axes": (both("labels", TABLE[:, None]), r"query labels are \(12, 1, 4\)"),
    "labels: -1 and +1": (both("labels", 2 * TABLE - 1), "query labels have -1 in row 0"),
    "labels: -1 and +1 in int8": (both("labels", (2 * TABLE - 1).astype(np.int8)), "query labels have -1 in row 0"),
    "labels: soft": (both("labels", 0.9 * TABLE + 0.025), "query labels have 0.025 in row 0|have 0.925 in row 0"),
    "labels: NaN in a table": (
        {"database_labels": put(TABLE[DATABASE], 5, np.nan)},
        "database labels have nan in row 5",
    ),
    "labels: 2": ({"database_labels": put(TABLE[DATABASE], 5, 2)}, "database labels have 2.0 in row 5"),
    "labels: 255 in uint8": (both("labels", (255 * TABLE).astype(np.uint8)), "query labels have 255 in row 0"),
    "labels: fewer rows": ({"query_labels": LABELS[:11]}, "12 query codes but 11 rows of query labels"),
    "labels: more rows": ({"database_labels": LABELS}, "48 database codes but 60 rows of database labels"),
    "labels: unequal widths": ({"database_labels": TABLE[DATABASE, :3]}, r"\[4, 3\] wide"),
    "labels: a number past the table": (
        {"query_labels": TABLE[QUERY], "database_labels": LABELS[DATABASE] + 1},
        r"\[4, 5\] wide",
    ),
    "topk: 0": ({"topk": 0}, "topk is 0"),
    "topk: a float": ({"topk": 5.0}, "topk is 5.0"),
    "topk: true": ({"topk": True}, "topk is True"),
    "denominator": ({"denominator": "hits"}, "denominator is 'hits'"),
    "device: unknown": ({"device": "tpu"}, "device is 'tpu'"),
    "device: not here": ({"device": "cuda:99"}, "device is 'cuda:99'"),
}


@pytest.mark.parametrize(("changes", "message"), CALLS.values(), ids=CALLS)
def test_a_hostile_call_is_refused_or_scored_right(changes, message):
    if message is None:
        assert metrics.evaluate(**(GOOD | changes))["map"]["database_order"] == pytest.approx(RIGHT, abs=1e-12)
        return
    with pytest.raises(ValueError, match=message) as refused:
        metrics.evaluate(**(GOOD | changes))
    assert re.fullmatch(r"[^\n]+[.?]", str(refused.value)), "one sentence"


@pytest.mark.parametrize("value", [-1.5, 0, 1, 7])
def test_codes_that_are_all_one_constant_are_all_tied(value):
    codes = np.full((60, 16), value)
    found = metrics.evaluate(**(GOOD | both("codes", codes)))["map"]
    assert found["expected"] == pytest.approx(metrics.chance(LABELS[QUERY], LABELS[DATABASE]), abs=1e-12)


def test_one_class_alone_is_found_by_everybody():
    assert metrics.evaluate(SIGNS, [0] * 60, SIGNS, [0] * 60)["map"] == pytest.approx(
        dict.fromkeys(("expected", "best", "worst", "database_order"), 1.0)
    )


def test_spare_bits_no_longer_reach_the_compiled_loops():
    """Distances beyond `bits` used to be counted outside the tables: heap corruption, or an mAP of 946,458,504.99."""
    labels = np.zeros((3500, 80), np.uint8)
    a, b = np.full((500, 1), 255, np.uint8), np.zeros((3000, 1), np.uint8)
    for call in (metrics.evaluate, metrics.count):
        with pytest.raises(ValueError, match="bits is 1, but row 0 of the query codes"):
            call(a, labels[:500], b, labels[500:], bits=1)
    full = np.full((4, 8), 255, np.uint8)
    with pytest.raises(ValueError, match="bits is 60, but row 0 of the query codes"):
        metrics.evaluate(full, labels[:4], full, labels[:4], bits=60)


@given(st.integers(1, 130), st.integers(0, 10_000))
@settings(max_examples=20)
def test_packed_codes_with_clean_spare_bits_equal_dense_codes(bits, seed):
    rng = np.random.default_rng(seed)
    packed = rng.integers(0, 256, (30, -(-bits // 8)), np.uint8)
    packed[:, -1] &= 256 - (1 << (-bits % 8))
    signs = [[1 if code[k // 8] >> (7 - k % 8) & 1 else -1 for k in range(bits)] for code in packed.tolist()]
    assert metrics.unpack_signs(packed, bits).tolist() == signs
    dense, labels = np.array(signs), rng.integers(0, 3, 30)
    dense[0, 0], packed[0, 0] = -1, packed[0, 0] & 127  # at least one -1, since codes without one are refused
    assert (metrics.pack_signs(dense > 0) == packed).all()
    pair = (labels[:5], labels[5:])
    from_packed = metrics.evaluate(packed[:5], pair[0], packed[5:], pair[1], bits=bits)
    from_dense = metrics.evaluate(dense[:5], pair[0], dense[5:], pair[1])
    assert from_packed["map"] == from_dense["map"]
    assert (from_packed["histogram"]["all"] == from_dense["histogram"]["all"]).all()
    assert metrics.leave_one_out_map(packed, labels, bits=bits) == metrics.leave_one_out_map(dense, labels)
    np.testing.assert_equal(metrics.code_quality(packed, bits=bits), metrics.code_quality(dense))


# --- the other doors -----------------------------------------------------------------------------------------------

DOORS = {
    "pack: 0 and 1": (lambda: metrics.pack_signs((SIGNS + 1) // 2), "codes are 0 and 1"),
    "pack: NaN": (lambda: metrics.pack_signs(put(SIGNS, 4, np.nan)), "codes have nan in row 4"),
    "pack: packed": (lambda: metrics.pack_signs(PACKED), "codes have dtype uint8"),
    "pack: one code": (lambda: metrics.pack_signs(SIGNS[0]), r"codes have shape \(16,\)"),
    "pack: nothing": (lambda: metrics.pack_signs(SIGNS[:0]), r"codes have shape \(0, 16\)"),
    "retrieval.pack: 0 and 1": (lambda: retrieval.pack(torch.tensor(SIGNS > 0).float()), "codes are 0 and 1"),
    "retrieval.pack: NaN": (lambda: retrieval.pack(torch.tensor(put(SIGNS, 4, np.nan))), "codes have nan in row 4"),
    "unpack: wrong width": (lambda: metrics.unpack_signs(PACKED, 17), r"codes are \(60, 2\) uint8, but 17 bits"),
    "unpack: spare bits": (lambda: metrics.unpack_signs(PACKED, 9), "bits is 9, but row"),
    "unpack: signs": (lambda: metrics.unpack_signs(SIGNS, 16), r"codes are \(60, 16\) int64"),
    "retrieval.unpack: wrong width": (lambda: retrieval.unpack(PACKED, 24), r"codes are \(60, 2\) uint8, but 24 bits"),
    "hamming: unequal widths": (lambda: metrics.hamming(PACKED, PACKED[:, :1]), r"codes b are \(60, 1\) uint8"),
    "hamming: signs": (lambda: metrics.hamming(SIGNS, SIGNS), r"codes a are \(60, 16\) int64"),
    "hamming: int64": (lambda: metrics.hamming(PACKED, PACKED.astype(int)), r"codes b are \(60, 2\) int64"),
    "hamming: one code": (lambda: metrics.hamming(PACKED[0], PACKED), r"codes a have shape \(2,\)"),
    "hamming: nothing": (lambda: metrics.hamming(PACKED, PACKED[:0]), r"codes b have shape \(0, 2\)"),
    "quality: 0 and 1": (lambda: metrics.code_quality((SIGNS + 1) // 2), "codes are 0 and 1"),
    "quality: sigmoid": (lambda: metrics.code_quality(sigmoid(SIGNS)), "lowest number is 0.119"),
    "quality: NaN": (lambda: metrics.code_quality(put(SIGNS, 4, np.nan)), "codes have nan in row 4"),
    "quality: one code": (lambda: metrics.code_quality(SIGNS[:1]), r"codes have shape \(1, 16\)"),
    "quality: packed without bits": (lambda: metrics.code_quality(PACKED), "give bits="),
    "quality: spare bits": (lambda: metrics.code_quality(PACKED, bits=12), "bits is 12, but row"),
    "quality: another length": (
        lambda: metrics.code_quality(SIGNS, bits=12),
        r"codes have shape \(60, 16\), but 12 bits",
    ),
    "leave one out: sigmoid": (lambda: metrics.leave_one_out_map(sigmoid(SIGNS), LABELS), "lowest number is 0.119"),
    "leave one out: NaN": (lambda: metrics.leave_one_out_map(put(SIGNS, 4, np.nan), LABELS), "codes have nan in row 4"),
    "leave one out: a column": (lambda: metrics.leave_one_out_map(SIGNS, LABELS[:, None]), r"labels are \(60, 1\)"),
    "leave one out: one image": (
        lambda: metrics.leave_one_out_map(SIGNS[:1], LABELS[:1]),
        r"codes have shape \(1, 16\)",
    ),
    "leave one out: spare bits": (lambda: metrics.leave_one_out_map(PACKED, LABELS, bits=12), "bits is 12, but row"),
    "chance: soft": (lambda: metrics.chance(TABLE * 0.5, TABLE), "query labels have 0.5 in row 0"),
    "chance: nobody": (lambda: metrics.chance(LABELS[:0], LABELS), r"query labels are \(0,\)"),
    "chance: topk": (lambda: metrics.chance(LABELS, LABELS, topk=0), "topk is 0"),
    "by class: NaN": (lambda: metrics.by_class(put(np.ones(60), 4, np.nan), TABLE), "scores ap have nan in row 4"),
    "by class: -1 and +1": (lambda: metrics.by_class(np.ones(60), 2 * TABLE - 1), "labels have -1 in row 0"),
    "by class: rows": (lambda: metrics.by_class(np.ones(59), TABLE), "59 scores ap but 60 rows of labels"),
    "interval: NaN": (lambda: metrics.interval([0.1, np.nan, 0.3]), "scores ap have nan in row 1"),
    "interval: one query": (lambda: metrics.interval(np.ones(1)), r"scores ap have shape \(1,\)"),
    "interval: level": (lambda: metrics.interval(np.arange(4), level=95), "level is 95"),
    "interval: resamples": (lambda: metrics.interval(np.ones(4), resamples=5), "resamples is 5"),
    "compare: NaN": (lambda: metrics.compare([0.1, 0.2], [0.1, np.nan]), "scores b have nan in row 1"),
    "compare: other queries": (lambda: metrics.compare(np.arange(4), np.arange(3)), "4 scores a and 3 scores b"),
    "AP: more relevant than there are": (lambda: metrics.average_precision([[1, 2]], [[2, 0]]), "0 <= r_t <= n_t"),
    "AP: half images": (lambda: metrics.average_precision([[1.5, 2]], [[1, 0]]), "whole numbers"),
    "AP: shapes": (lambda: metrics.average_precision([[1, 2]], [[1]]), r"n_t \(1, 2\) and r_t \(1, 1\)"),
    "AP: topk": (lambda: metrics.average_precision([[1, 2]], [[1, 0]], 0), "topk is 0"),
    "RAMAP: negative": (lambda: metrics.ramap([[1, 2]], [[-1, 0]]), "0 <= r_t <= n_t"),
    "conventions: rows": (
        lambda: metrics.conventions.deephash_pytorch(SIGNS, TABLE, SIGNS[:9], TABLE, topk=5),
        "60 and 9 codes but 60 and 60 rows",
    ),
}


@pytest.mark.parametrize(("call", "message"), DOORS.values(), ids=DOORS)
def test_every_other_function_refuses_as_well(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "codes", [np.full((1, 9), 0.5), np.array([[0.2, 0.7]]), np.ones((3, 9)), np.zeros((3, 9), int)]
)
def test_packing_takes_outputs_that_happen_to_have_no_negative_number(codes):
    assert (metrics.unpack_signs(metrics.pack_signs(codes), codes.shape[1]) == 1).all()


def test_an_interval_of_equal_scores_is_a_point_and_class_numbers_do_for_by_class():
    assert metrics.interval(torch.full((9,), 0.5)) == (0.5, 0.5)
    ap = RNG.random(60)
    naive = [np.mean([a for a, c in zip(ap, LABELS, strict=True) if c == k]) for k in range(4)]
    assert metrics.by_class(ap, LABELS) == pytest.approx(naive)
    assert metrics.by_class(ap, TABLE) == pytest.approx(naive)
