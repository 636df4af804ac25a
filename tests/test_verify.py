"""What is kept fits together, and what does not is noticed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hhlib.runs import kept_table

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def verify(from_tools):
    return from_tools("verify")


@pytest.fixture
def row():
    return kept_table("runs").set_index("folder", drop=False).loc["digits-32bits"].copy()


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(PROJECT / "results" / "digits-32bits", tmp_path / "digits-32bits")
    return tmp_path / "digits-32bits"


def test_kept_codes_give_the_kept_scores(verify, row, folder):
    check, line = verify.verify(folder, row)
    assert check.faults == []
    assert check.compared > 400
    assert line.startswith(f"{check.compared} numbers")


def test_one_wrong_bit_is_noticed(verify, row, folder):
    codes = dict(np.load(folder / "codes.npz"))
    codes["database_codes"][0, 0] ^= 1
    np.savez_compressed(folder / "codes.npz", **codes)
    check, _ = verify.verify(folder, row)
    assert any(fault.startswith("metrics.json.map.expected is 0.99359") for fault in check.faults)
    assert any(fault.startswith("results/runs.csv.expected is 0.99359") for fault in check.faults)


def test_one_wrong_score_is_noticed(verify, row, folder):
    scores = json.loads((folder / "metrics.json").read_text())
    scores["lookup"]["recall"] += 1e-8
    (folder / "metrics.json").write_text(json.dumps(scores))
    check, _ = verify.verify(folder, row)
    assert [fault.split(" is ")[0] for fault in check.faults] == ["metrics.json.lookup.recall"]


def test_a_run_without_codes_is_named_and_no_fault(verify, row, folder):
    (folder / "codes.npz").unlink()
    check, line = verify.verify(folder, row)
    assert (check.compared, check.faults, line) == (0, [], "no codes kept")


def test_tables_have_rows_about_a_kept_run(verify):
    row = kept_table("runs").set_index("folder").loc["cifar10-64bits"]
    found = verify.rows_about(verify.settings_of(row), row["git_commit"])
    assert [name for name, _ in found] == ["cifar10.csv", "full.csv"]
