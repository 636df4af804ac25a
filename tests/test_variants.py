"""One change at a time: what is trained is what the table says, and gains are between runs of the same seed."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import hhlib as hh

#: In which tables, and under what name, the same CIFAR-10 runs stand.
SHARED = {
    "recipe": "convolutional stem",
    "why": "hybridhash",
    "ablations": "all parts",
    "prices": "as the kit does it",
}


@pytest.fixture
def variants(from_tools):
    return from_tools("variants")


def given(folder, seeds=(0,)):
    quick = dict(runs_dir=str(folder), epochs="1", validate_every="1", batch_size="50", image_size="16")
    return SimpleNamespace(parameter=list(quick.items()), seeds=list(seeds))


def test_every_variant_of_every_table_can_be_read_and_differs_from_the_others(variants, tmp_path):
    for name in variants.TABLES:
        jobs = variants.jobs_of(name, SimpleNamespace(parameter=[], seeds=[0]))
        settings = [variants.experiment_of(job).settings for job in jobs.values()]
        told = [hh.settings.words(s.changes().items()) for s in settings]
        assert len(set(told)) == len(told), name
        recipes = [(s.dataset, s.method, s.network, s.bits, str(s.recipe)) for s in settings]
        assert len(set(recipes)) == len(recipes), name


def test_a_row_is_what_its_settings_give_and_is_not_made_twice(variants, tmp_path):
    job = variants.jobs_of("prices", given(tmp_path))["digits", "scrambled tokens", 0]
    row = variants.finish(job)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert variants.finish(job)["expected"] == row["expected"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    ex = hh.open(row["run"], runs_dir=str(tmp_path / "again"))
    assert ex.settings.recipe.net == {"stem": "conv", "variant": "released"}
    ex.fit(())
    assert ex.evaluate()["map"]["expected"] == pytest.approx(row["expected"], abs=1e-9)
    assert row["searched"] == len(ex.split.database)
    assert row["worst"] <= row["usual_with_last"] <= row["best"]
    assert 0 < row["evenness, level 1"] <= 1
    for share in ("half of the gradient", "saturated", "stale"):
        assert 0 <= row[share] <= 1
    assert row["half of the gradient"] <= 0.5
    assert 0 < row["other_queries"] < 0.1


def test_every_nth_image_is_searched_and_at_least_as_many_as_wanted(variants):
    part = hh.data.load("digits").database  # 597 images
    assert variants.thinned(part, 199).rows.tolist() == part.rows[::3].tolist()
    assert len(variants.thinned(part, 200)) == 299
    assert len(variants.thinned(part, 10_000)) == 597


def test_tables_share_the_runs_that_have_the_same_settings(variants):
    """The convolutional stem of the first table is where the others start."""
    jobs = {name: variants.jobs_of(name, SimpleNamespace(parameter=[], seeds=[0])) for name in variants.TABLES}
    starts = [jobs[name]["cifar10", first, 0] for name, first in SHARED.items()]
    assert all(job == starts[0] for job in starts[1:])


def test_gains_are_of_the_same_seed(variants):
    """Two seeds far apart, and a variant that gains 0.1 with each: the gain is 0.1, whatever the seeds' spread."""
    both = [("digits", v, s) for v in "ab" for s in (0, 1)]
    ap = {(d, v, s): np.linspace(0, 1, 50) * 0.2 + 0.5 * s + 0.1 * (v == "b") for d, v, s in both}
    rows = []
    for key, values in ap.items():
        row = dict(zip(("dataset", "variant", "seed"), key, strict=True)) | dict(validation=0.5, distinct_codes=5)
        rows.append(row | dict(expected=values.mean()))
    table = variants.gains(pd.DataFrame(rows), ap).set_index("variant")
    assert table.loc["b", "expected_gain"] == pytest.approx(0.1)
    assert table.loc["b", "expected_std"] == pytest.approx(0.5 / 2**0.5)
    assert table.loc["b", "p_value"] < 0.001
    assert np.isnan(table.loc["a", "p_value"])


def test_optimism_is_what_choosing_on_the_queries_adds(variants):
    history = pd.DataFrame({"validation_map": [0.5, np.nan, 0.8, 0.7], "query_map": [0.4, 0.99, 0.6, 0.65]})
    assert variants.optimism(history) == pytest.approx(0.05)  # 0.65, less 0.60 of the epoch that validation chose
    assert np.isnan(variants.optimism(history[["validation_map"]]))
    assert np.isnan(variants.optimism(history[1:2]))
