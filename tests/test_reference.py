"""Reference values: what a page says beside its figures, and how tolerances follow from what was measured."""

import nbformat
import pandas as pd
import pytest
from test_project import NOTEBOOKS

import hhlib as hh
from hhlib.runs import kept_table

DIGITS = "dataset=digits method=hybridhash network=micro bits=32 seed=0"


@pytest.fixture
def ex(tmp_path, monkeypatch):
    """An experiment whose first page has four reference values: 10 and 1/3, exact, 0.9 to 0.05, and 2."""
    table = pd.DataFrame({"settings": DIGITS, "page": 1, "figure": ["images", "mAP, best", "third", "open"]})
    table = table.assign(value=[10, 0.9, 0.3333333, 2], float32=[0, 0.05, 0, None], bf16=[0, 0.2, 0, None])
    table["gpu"] = [0, 0.3, 0, None]
    table.to_csv(tmp_path / "reference.csv", index=False)
    monkeypatch.setattr(hh.runs, "RESULTS", tmp_path)
    return hh.open(runs_dir=tmp_path, precision="float32", device="cpu")


def verdicts(ex, **figures):
    """Figure by figure what the page says, and what it left in the run's folder."""
    shown = hh.reference.agree(ex, 1, figures)
    left = pd.read_csv(ex.run.path / "reference" / "01.csv", index_col="figure")
    assert left["agrees"].to_dict() == shown.data["agrees"].to_dict()
    return left["agrees"].to_dict(), shown.caption


def test_a_page_says_in_words_which_figures_agree(ex):
    found, said = verdicts(ex, images=10, mAP={"best": 0.94}, third=1 / 3)
    assert found == {"images": "yes", "mAP, best": "yes", "third": "yes"}
    assert said.startswith("3 of 3")
    assert verdicts(ex, images=10.00005, third=0.33334)[0] == {"images": "no", "third": "no"}  # a count is exact
    found, said = verdicts(ex, open=2.0)
    assert found == {"open": "yes"}
    assert verdicts(ex, open=2.5)[0] == {"open": "tolerance not measured"}
    found, said = verdicts(ex, images=11, mAP={"best": 0.96}, other=1)
    assert found == {"images": "no", "mAP, best": "no", "other": "no reference"}
    assert said.startswith("0 of 3")


def test_the_tolerance_is_that_of_the_precision_of_the_run(ex):
    assert verdicts(ex, mAP={"best": 1.0})[0] == {"mAP, best": "no"}
    other = hh.open(runs_dir=ex.settings.runs_dir, precision="bf16", device="cpu")
    assert verdicts(other, mAP={"best": 1.0})[0] == {"mAP, best": "yes"}
    ex.run.path.mkdir(parents=True, exist_ok=True)
    parts = '{"parameters": {"precision": "float32"}, "machine": {"gpu": "one"}}'
    (ex.run.path / "run.json").write_text(parts)  # trained elsewhere, on a GPU
    assert verdicts(ex, mAP={"best": 1.15})[0] == {"mAP, best": "yes"}


def test_other_settings_have_no_reference_but_other_places_have(ex, tmp_path):
    other = hh.open("loss.alpha=0.2", runs_dir=tmp_path)
    found, said = verdicts(other, images=10)
    assert found == {"images": "no reference"}
    assert f"{DIGITS} loss.alpha=0.2" in said
    assert f"there are values for: {DIGITS}" in said
    elsewhere = hh.open(runs_dir=tmp_path, data_dir=tmp_path, live=False, resume=False)
    assert verdicts(elsewhere, images=10)[0] == {"images": "yes"}


def test_figures_of_another_run_are_looked_up_by_its_settings(ex, tmp_path):
    photographs = hh.open(bits=64)
    table = hh.reference.agree(ex, 1, {"images": 10}, of=photographs)
    assert "bits=64" in table.caption
    assert (ex.run.path / "reference" / "01.csv").is_file()  # a kept run is left as it is


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_page_compares_itself_before_it_says_what_was_seen(path):
    cells = nbformat.read(path, as_version=4).cells
    at = next(i for i, cell in enumerate(cells) if cell.source.startswith("## What we saw"))
    assert f"hh.reference.agree(ex, {int(path.stem[:2])}, " in cells[at - 1].source
    known = kept_table("reference").query("settings == @DIGITS")
    assert (known["page"] == int(path.stem[:2])).sum() >= 3


def measured(**values):
    """Rows of reference_runs.csv for one figure: how -> value."""
    rows = {"settings": DIGITS, "page": 4, "figure": "mAP"}
    return pd.DataFrame([rows | {"how": how.replace("_", " "), "value": x} for how, x in values.items()])


def test_tolerances_are_twice_what_was_measured(from_tools):
    tool = from_tools("reference")
    (row,) = tool.reference(measured(bf16_one=0.9, bf16_two=0.893, float32_one=0.904, seed_1=0.95)).to_dict("records")
    assert row["value"] == 0.9
    assert row["float32"] == pytest.approx(0.008)  # 2 * 0.004
    assert row["bf16"] == pytest.approx(0.02)  # 2 * 0.007, rounded up
    assert row["gpu"] == pytest.approx(0.05)  # another seed


def test_what_no_cpu_changes_is_exact_everywhere(from_tools):
    tool = from_tools("reference")
    (row,) = tool.reference(measured(bf16_one=20, float32_one=20, seed_1=25)).to_dict("records")
    assert (row["float32"], row["bf16"], row["gpu"]) == (0, 0, 0)
    (row,) = tool.reference(measured(bf16_one=20, bf16_two=21)).to_dict("records")
    assert (row["float32"], row["bf16"], row["gpu"]) == (2, 2, 2)  # float32 was not measured: as bf16


def test_one_run_gives_no_tolerance_where_a_network_is_asked(from_tools):
    tool = from_tools("reference")
    rows = measured(bf16_one=20, seed_1=25)
    assert tool.reference(rows)[["float32", "bf16", "gpu"]].isna().all(axis=None)
    assert (tool.reference(rows.assign(page=1))[["float32", "bf16", "gpu"]] == 0).all(axis=None)


@pytest.mark.parametrize(("value", "rounded"), [(0, 0), (0.0123, 0.02), (0.02, 0.02), (3, 3), (11, 20), (0.3, 0.3)])
def test_rounding_up_to_one_digit(from_tools, value, rounded):
    assert from_tools("reference").up(value) == pytest.approx(rounded)


def test_what_stands_is_changed_only_when_asked(from_tools, ex, tmp_path, monkeypatch, capsys):
    tool = from_tools("reference")
    monkeypatch.setattr(tool, "RESULTS", tmp_path / "kept")
    hh.reference.agree(ex, 1, {"images": 10, "third": 1 / 3})
    assert tool.add(ex.run.path, "float32, 1 thread", replace=False)
    before = {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()}
    assert set(before) == {"reference.csv", "reference_runs.csv"}
    assert tool.add(ex.run.path, "float32, 1 thread", replace=False)  # the same again changes nothing
    assert {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()} == before
    hh.reference.agree(ex, 1, {"images": 11, "third": 1 / 3, "new": 5})
    assert not tool.add(ex.run.path, "float32, 1 thread", replace=False)
    said = capsys.readouterr().out
    assert "images" in said
    assert "third" not in said  # only what would change
    assert {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()} == before
    assert tool.add(ex.run.path, "float32, 1 thread", replace=True)
    table = pd.read_csv(tmp_path / "kept" / "reference.csv").set_index("figure")
    assert table["value"].to_dict() == {"images": 11, "third": pytest.approx(1 / 3), "new": 5}


def test_a_run_is_refused_without_figures_or_without_a_kind(from_tools, tmp_path):
    tool = from_tools("reference")
    with pytest.raises(FileNotFoundError, match="run the pages first"):
        tool.left(tmp_path, "bf16")
    with pytest.raises(ValueError, match="must begin with float32, with bf16, or with seed N"):
        tool.left(tmp_path, "AVX2")
