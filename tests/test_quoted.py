"""Every measured number that a README file or a page quotes is found in results/."""

import pandas as pd
import pytest

from hhlib.runs import kept_table

TRACED = pd.DataFrame([("page", "has 0.634 at 64 bits", "0.634", "cifar10.csv | bits == 64 | expected | mean")])
TRACED.columns = ["file", "quote", "number", "source"]
GIVEN = pd.DataFrame([("p*", "a level of #", "a convention")], columns=["file", "text", "why"])


@pytest.fixture
def quoted(from_tools):
    return from_tools("quoted")


def test_every_measured_number_is_traced_and_right(quoted):
    assert quoted.all_faults() == []


def test_what_was_measured_is_said_once_with_how_and_is_quoted():
    measured, sources = kept_table("measured"), " ".join(kept_table("quoted")["source"])
    assert measured["name"].is_unique
    assert measured["how"].str.len().min() > 7
    assert [name for name in measured["name"] if name not in sources] == []
    assert not kept_table("quoted").duplicated().any()


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("mAP 0.637 to 0.71, of 1,000 queries", ["0.637", "0.71"]),
        ("(12 %), 8 s and 2,489 s; 3 minutes", ["12", "8", "2,489", "3"]),
        ("47 and 28 times, 1 to 3 points", ["47", "28", "1", "3"]),
        ("23, 120 and 28 different codes", ["23", "120", "28"]),
        ("nine minutes, a fifth of the time, twice the time", ["nine", "a fifth", "twice"]),
        ("agree to 1e-6 within -0.5, ±0.25", ["1e-6", "0.5", "0.25"]),
        ("4.0 GiB, 933 MiB, 290 images/s, 6,400 /s", ["4.0", "933", "290", "6,400"]),
        ("in 20\nminutes", ["20"]),
        ("at 64 bits, 5,000 images, page 3, 3x3, Apache-2.0, 10 seeds, arXiv 1705.08562, 0.5.1", []),
        ("`0.5 s` and [a](b_0.5) and $x = 0.5$ and\n\n    0.5 s\n\n```\n0.5\n```\n", []),
        ("<!-- table: a -->\n| 0.5 |\n<!-- end -->\n| 0.6 |", ["0.6"]),
    ],
)
def test_what_looks_measured(quoted, text, numbers):
    assert [text[start:end] for start, end in quoted.measured(text)] == numbers


def test_a_text_that_holds_has_no_faults(quoted):
    text = "It has 0.634 at\n64 bits, at a level of 0.05."
    assert list(quoted.faults("page", text, TRACED, GIVEN)) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("It has 0.634 at 64 bits, at a level of 0.05, and 0.7.", "0.7 is not traced"),
        ("It has 0.643 at 64 bits, at a level of 0.05.", "does not stand there any more"),
        ("It has 0.634 at 64 bits, at no level.", "'a level of #' does not stand there"),
    ],
)
def test_a_text_that_changed_is_noticed(quoted, text, fault):
    assert fault in "\n".join(quoted.faults("page", text, TRACED, GIVEN))


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (dict(source="cifar10.csv | bits == 32 | expected | mean"), "says 0.634, but .* gives 0.629"),
        (dict(source="cifar10.csv | bits == 64 | expected"), "only of 3 values, 3 of them different"),
        (dict(source="cifar10.csv | bits == 48 | expected | mean"), "mean of 0 values"),
        (dict(source="cifar10.csv | bits == 64 | wanted | mean"), "wanted"),
        (dict(source="nothing.csv | all | expected"), "nothing.csv"),
        (dict(number="0.63"), "does not hold 0.63 once"),
    ],
)
def test_a_row_that_does_not_hold_is_noticed(quoted, row, fault):
    found = list(quoted.faults("page", "has 0.634 at 64 bits, a level of 1.0", TRACED.assign(**row), GIVEN))
    assert pd.Series(found).str.contains(fault).any(), found


def test_a_source_is_a_small_sum(quoted):
    scores = kept_table("cifar10").set_index(["bits", "seed"])["expected"]
    one = "cifar10.csv | bits == 64 & seed == 1 | 100 * expected"
    assert quoted.value(one) == pytest.approx(100 * scores[64, 1])
    other = one.replace("64", "32")
    assert quoted.value(f"{one} minus {other} over 2") == pytest.approx(50 * (scores[64, 1] - scores[32, 1]))
    assert quoted.value(f"{one} plus {other}") == pytest.approx(100 * (scores[64, 1] + scores[32, 1]))
    assert quoted.value("cifar10.csv | all | expected | max") == scores.max()
    assert quoted.value("measured.csv | page 3: with a trained network") == 18


@pytest.mark.parametrize(
    ("number", "value", "printed"),
    [
        ("0.637", 0.63688, True),
        ("0.637", 0.6375001, False),
        ("2,489", 2488.7, True),
        ("2489", 2488.7, False),
        ("12", 11.6, True),
        ("nine", 8.79, True),
        ("nine", 9.6, False),
        ("3e-5", 0.00003, True),
        ("a fifth", 0.204, True),
        ("a fifth", 0.25, False),
        ("0.50", 0.5, True),
    ],
)
def test_a_value_is_printed_to_its_digits(quoted, number, value, printed):
    assert quoted.prints(number, value) == printed
