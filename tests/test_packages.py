"""Licences and vulnerabilities of the packages: how licences are read, and what the kept table says."""

import json
import subprocess
from importlib.metadata import distributions
from types import SimpleNamespace

import pandas as pd
import pytest


@pytest.fixture
def tool(from_tools):
    return from_tools("audit")


def installed(folder, metadata, licence=None):
    """A package in a folder, as pip leaves it."""
    place = folder / "thing-1.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: thing\nVersion: 1\n{metadata}\n")
    (place / "RECORD").write_text("thing-1.dist-info/LICENSE,,\n" if licence else "")
    if licence:
        (place / "LICENSE").write_text(licence)
    (found,) = distributions(path=[str(folder)])
    return found


@pytest.mark.parametrize(
    ("metadata", "licence", "name"),
    [
        ("License-Expression: MIT OR Apache-2.0", None, "MIT OR Apache-2.0"),
        ("Classifier: License :: OSI Approved :: Apache Software License\nLicense: odd", None, "Apache-2.0"),
        ("License: BSD 3-Clause", None, "BSD-3-Clause"),
        ("License: UNKNOWN", "MIT License\n\nCopyright", "MIT"),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)", None, "GNU General Public"),
        ("", None, "none named"),
    ],
)
def test_a_licence_is_read_where_it_stands(tool, tmp_path, metadata, licence, name):
    found = tool.licence(installed(tmp_path, metadata, licence))
    assert found.startswith(name)
    assert tool.allowed(found) == (name not in ("GNU General Public", "none named"))


def test_of_several_licences_one_must_be_allowed_or_all(tool):
    assert tool.allowed("GPL-3.0-only OR MIT")
    assert tool.allowed("(BSD-3-Clause AND MIT) OR GPL-3.0-only")
    assert not tool.allowed("GPL-3.0-only AND MIT")
    assert not tool.allowed("AGPL-3.0-or-later")


def test_all_licences_of_the_kept_table_are_allowed_and_it_speaks_of_the_pins(tool):
    table = pd.read_csv(tool.TABLE, dtype=str)
    assert [row.package for row in table.itertuples() if not tool.allowed(row.licence)] == []
    pinned = table[table["pinned"] == "yes"]
    assert len(pinned) > 200
    assert dict(zip(pinned["package"], pinned["version"], strict=True)).items() <= tool.pins().items()


def answer(monkeypatch, text):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=text, stderr="no answer"))


def test_vulnerabilities_are_told_a_line_each(tool, monkeypatch):
    weak = {"id": "CVE-1", "fix_versions": ["2.1", "3.0"]}
    found = [{"name": "a", "version": "2.0", "vulns": [weak, weak | {"id": "X", "fix_versions": []}]}]
    answer(monkeypatch, json.dumps({"dependencies": [*found, {"name": "b", "skip_reason": "not there"}]}))
    assert tool.weaknesses({"a": "2.0"}, "pypi") == ["a 2.0: CVE-1, mended in 2.1, 3.0", "a 2.0: X, not mended yet"]


def test_a_service_that_is_not_reached_has_an_exit_code_of_its_own(tool, monkeypatch, tmp_path, capsys):
    answer(monkeypatch, "")
    monkeypatch.setattr(tool, "TABLE", tmp_path / "licences.csv")
    monkeypatch.setattr(tool, "table", lambda: pd.DataFrame([{"package": "a", "version": "1", "licence": "MIT"}]))
    monkeypatch.setattr("sys.argv", ["audit.py", "--only", "torch"])
    assert tool.main() == 3
    assert "not reached" in capsys.readouterr().out
    assert pd.read_csv(tool.TABLE)["package"].tolist() == ["a"]
