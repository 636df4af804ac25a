"""Trying other packages: what is asked for, and what is read from what came out."""

import sys

import pandas as pd
import pytest


@pytest.fixture
def tool(from_tools):
    return from_tools("versions")


def test_every_requirement_is_tried_once(tool):
    found = tool.requirements()
    assert {"torch", "numpy", "huggingface_hub", "pytest"} <= set(found)
    assert len(found) == len(set(found))
    assert not any(set(name) & set("<>=,") for name in found)


def test_the_versions_of_an_environment(tool):
    found = tool.versions(sys.executable)
    assert found["numpy"] == __import__("numpy").__version__
    assert list(found) == tool.requirements()


def test_tests_are_counted_by_their_summary(tool, tmp_path):
    file = tmp_path / "test_two.py"
    file.write_text("def test_good(): pass\ndef test_also(): pass\ndef test_bad(): assert False\n")
    assert tool.tests(sys.executable, [str(file), "-p", "no:cacheprovider"]) == "2 of 3"


def test_pages_count_as_agreeing_only_if_all_their_figures_do(tool, tmp_path, capsys):
    left = tmp_path / "digits" / "one" / "reference"
    left.mkdir(parents=True)
    row = {"figure": "mAP", "yours": 0.9, "settings": "", "how": "bf16"}
    for page, words in {"04": ["yes", "yes"], "05": ["yes", "no"]}.items():
        pd.DataFrame([row | {"agrees": word} for word in words]).to_csv(left / f"{page}.csv", index=False)
    assert tool.compared(["04", "05", "06"], tmp_path) == {"pages that ran": "2 of 3", "pages that agree": "1 of 3"}
    assert "page 05" in capsys.readouterr().out


def test_a_column_is_replaced_and_the_other_stays(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "TABLE", tmp_path / "versions.csv")
    tool.keep([pd.Series({"tests passed": "1 of 2", "torch": "2.6.0"}, name="oldest")])
    tool.keep([pd.Series({"tests passed": "2 of 2", "torch": "2.9.0"}, name="newest")])
    tool.keep([pd.Series({"tests passed": "2 of 2", "torch": "2.6.0"}, name="oldest")])
    table = pd.read_csv(tool.TABLE, index_col="what")
    assert table.loc["tests passed"].to_dict() == {"oldest": "2 of 2", "newest": "2 of 2"}
    assert table.loc["torch"].to_dict() == {"oldest": "2.6.0", "newest": "2.9.0"}
