"""The tables of the README files, and results/runs.csv, are what the kept runs say."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

import hhlib as hh
from hhlib import losses
from hhlib.runs import kept_table

PROJECT = Path(__file__).parent.parent
RESULTS = sorted((PROJECT / "results").glob("*/metrics.json"))


def test_every_score_in_the_readme_comes_from_a_kept_run():
    rows = re.findall(r"^\| \[[\w-]+\]\(results/([\w-]+)\) .*$", (PROJECT / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == [path.parent.name for path in RESULTS]
    for path in RESULTS:
        line = next(x for x in (PROJECT / "README.md").read_text().splitlines() if f"(results/{path.parent.name})" in x)
        scores = json.loads(path.read_text())
        run = json.loads((path.parent / "run.json").read_text())
        for kind in ("expected", "worst", "best"):
            assert f"{scores['map'][kind]:.3f}" in line, kind
        assert f"| {run['parameters']['bits']} |" in line


def test_the_table_of_methods_is_quoted_right():
    rows = kept_table("fair").groupby(["method", "dataset", "bits"])["expected"]
    mean, spread = rows.mean(), rows.std()
    quoted = re.findall(r"^\| (\w+) \| (.* ± .*) \|$", (PROJECT / "results" / "README.md").read_text(), re.MULTILINE)
    assert {method for method, _ in quoted} == set(losses.names(nested=False))
    for method, cells in quoted:
        keys = [(method, dataset, bits) for dataset in ("cifar10", "clothes-validation") for bits in (16, 32, 64)]
        assert cells.split(" | ") == [f"{mean[key]:.3f} ± {spread[key]:.3f}" for key in keys], method


@pytest.fixture
def tables(from_tools):
    return from_tools("tables")


def test_nothing_is_out_of_date(tables):
    assert tables.out_of_date() == []


def test_a_number_that_was_typed_into_a_table_is_mended(tables):
    page = (PROJECT / "README.md").read_text()
    typed = page.replace("| 0.637 |", "| 0.673 |")
    assert typed != page
    assert tables.filled(typed, tables.PAGES["README.md"]) == page


def test_words_of_the_table_of_pages_are_left_as_they_stand(tables):
    page = (PROJECT / "README.md").read_text()
    reworded = page.replace("| six points and four bits", "| seven points and four bits")
    assert tables.filled(reworded, tables.PAGES["README.md"]) == reworded != page


def test_a_table_that_nobody_makes_is_refused(tables):
    with pytest.raises(ValueError, match="'of_nobody'"):
        tables.filled("<!-- table: of_nobody -->\n| 1 |\n<!-- end -->", {})


def test_every_kept_run_has_a_row(tables):
    rows = kept_table("runs").set_index("folder")
    assert set(rows.index) == {path.parent.name for path in RESULTS}
    for folder, row in rows.iterrows():
        run = hh.runs.Run(f"results/{folder}")
        assert row["minutes"] == pytest.approx(pd.read_csv(run.path / "timing.csv")["seconds"].sum() / 60)
        assert row["worst"] < row["expected"] < row["best"]
        assert row["low"] < row["expected"] < row["high"]
