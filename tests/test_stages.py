"""Stages of `make test`: all run, and the one that failed is named."""

import re

import pytest

GOOD = [["platform"], ["platform"]]  # a module of Python that prints a line
BAD = [["platform"], ["no_module_of_this_name"]]


@pytest.fixture
def stages(from_tools):
    return from_tools("stages")


@pytest.mark.parametrize("beside", [GOOD, BAD])
@pytest.mark.parametrize("first", [GOOD, BAD])
def test_all_stages_run_and_the_last_line_names_those_that_failed(stages, first, beside, capfd):
    code = stages.run_all({"one": first, "two": GOOD, stages.BESIDE: beside})
    printed = capfd.readouterr().out.splitlines()
    assert code == int(first is BAD or beside is BAD)
    assert [line for line in printed if line.startswith("--- ")][:-1] == ["--- one", "--- two", f"--- {stages.BESIDE}"]
    failed = {
        name: "FAILED after " if commands is BAD else "" for name, commands in (("one", first), ("pages", beside))
    }
    assert re.fullmatch(
        rf"--- one {failed['one']}\d+ s, two \d+ s, pages {failed['pages']}\d+ s; together \d+ s", printed[-1]
    )


def test_chosen_tests_stand_in_the_place_of_all(stages):
    assert list(stages.stages([])) == ["lint", "notebooks", "types", "unit tests", "pages"]
    chosen = stages.stages(["-k", "index"])
    assert list(chosen) == ["lint", "notebooks", "types", "tests"]
    assert chosen["tests"][0][-2:] == ["-k", "index"]


def test_every_notebook_is_checked(stages):
    kinds = [name.rsplit("/", 1)[0] for name in stages.NOTEBOOKS]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ["notebooks", "notebooks/exercises", "notebooks/exercises/solutions"], 15
    )
