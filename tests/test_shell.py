"""The shell's commands, in this process: what they answer, and how they fail."""

import json
from pathlib import Path

import pytest
from test_index import pictures  # noqa: F401, a fixture

from hhlib import shell

QUICK = ["--size", "32", "--workers", "0"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """``run("search", "a.jpg")`` in an empty project -> exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = shell.main([str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_from_a_folder_to_its_pictures(pictures, run, tmp_path):  # noqa: F811
    code, out, _ = run("index", "pictures", "--bits", 16, *QUICK, "--json")
    answer = json.loads(out)
    assert (code, answer["pictures"], answer["encoded"], answer["left_out"]) == (0, 36, 36, {})
    assert answer["index"] == str(tmp_path / "runs" / "pictures" / "index-lite0-16bits")
    code, out, _ = run("search", "pictures/red/03.png", "-k", 3, "--json")
    (found,) = json.loads(out)
    assert found["query"] == str(pictures / "red" / "03.png")
    assert [found["hits"][0][name] for name in ("path", "distance")] == [found["query"], 0]
    assert len(found["hits"]) == 3
    for place in ("pictures", answer["index"]):
        code, out, _ = run("search", "pictures/red/03.png", "pictures/blue/01.png", "--index", place, "--rerank", 20)
        rows = [line.split() for line in out.splitlines() if line.endswith(".png") and line.startswith(" ")]
        assert code == 0
        assert len(rows) == 20
        assert rows[0] == ["0", "1.000", found["query"]]


def test_train_evaluate_and_index_with_the_trained_network(pictures, run, tmp_path):  # noqa: F811
    how = ["-p", "image_size", "32", "-p", "epochs", "2", "-p", "bits", "64", "-p", "data_dir", tmp_path / "data"]
    code, out, err = run("train", "pictures", *how, "--json")
    assert code == 0, err
    made = json.loads(out)
    assert Path(made["run"]) == tmp_path / "runs" / "pictures" / "hashnet-lite0-64bits-seed0"
    assert made["epochs"] == 2
    assert "epoch" in err
    code, out, _ = run("evaluate", "pictures", *how, "--json")
    assert code == 0
    assert 0 < json.loads(out)["map"]["expected"] <= 1
    code, out, err = run("index", "pictures", "--workers", 0)
    assert code == 0, err
    assert "hashnet-lite0-64bits-seed0" in out
    assert "codes by the trained network" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["search", "new.jpg"], "there is no index"),
        (["index", "nowhere"], "there is no folder"),
        (["index", "pictures", "--bits", "0"], "bits is 0"),
        (["train", "nowhere"], "dataset is"),
        (["train", "pictures", "-p", "epoch", "3"], "Did you mean 'epochs'?"),
        (["evaluate", "pictures"], "is not trained; hhlib train pictures, with the same -p, does it"),
        (["index", "pictures", "--run", "runs", "--bits", "32"], "a run has both: leave them out"),
        (["index", "pictures", "--to", "pictures"], "holds other files, but an index needs a folder of its own"),
        (["index", "pictures/red/00.png"], "is a file, but an index is of a folder"),
        (["index", "pictures", "--seed", "-1"], "seed is -1"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(pictures, run, words, told):  # noqa: F811
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith(f"hhlib {words[0]}: ")
