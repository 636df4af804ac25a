import json
import subprocess

import numpy as np
import pytest

from hhlib import common, runs, settings


def test_the_folder_is_named_after_the_settings(tmp_path):
    given = settings.read(method="csq", bits=16, seed=3, runs_dir=tmp_path)
    assert runs.folder(given) == tmp_path / "digits" / "csq-micro-16bits-seed3"


def test_relative_paths_start_at_the_project_wherever_one_is(tmp_path, monkeypatch):
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    (tmp_path / "hhlib").mkdir()
    for place in (".", "notebooks", "notebooks/deep"):
        monkeypatch.chdir(tmp_path / place)
        assert runs.Run("runs/x").path == tmp_path / "runs" / "x"


def test_a_folder_called_notebooks_alone_is_no_project(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "exp1").mkdir()
    monkeypatch.chdir(tmp_path / "exp1")
    assert runs.Run("runs/x").path == tmp_path / "exp1" / "runs" / "x"


def test_a_missing_file_says_what_makes_it(tmp_path):
    run = runs.Run(tmp_path)
    for read, file, maker in [
        (run.history, "history.csv", "training"),
        (run.model, "run.json", "training"),
        (run.codes, "codes.npz", "evaluation"),
        (run.metrics, "metrics.json", "evaluation"),
    ]:
        with pytest.raises(FileNotFoundError, match=rf"{file} .*{maker}"):
            read()


def test_codes_and_metrics_come_back(tmp_path):
    run = runs.Run(tmp_path / "digits" / "name")
    runs.write_json(run.path / "run.json", {"parameters": {}})
    codes = dict(query_codes=16 * np.arange(6, dtype=np.uint8).reshape(3, 2), bits=np.array(12))
    codes |= dict(
        database_codes=codes["query_codes"][:2],
        query_labels=np.eye(3, dtype=bool),
        database_labels=np.eye(3, dtype=bool)[:2],
    )
    run.save_codes(**codes)
    assert {name: array.tolist() for name, array in run.codes().items()} == {
        name: array.tolist() for name, array in codes.items()
    }
    assert runs.find(tmp_path) == []
    assert [found.path for found in runs.find(tmp_path, "codes.npz")] == [run.path]
    score = {"expected": np.float64(0.5), "worst": 0.4, "best": 0.6}
    scores = {"map": score, "histogram": {"all": np.ones((3, 13))}, "ap": {}, "bits": 12}
    run.save_metrics(scores, chance=0.1)
    assert run.metrics() == {"map": score, "bits": 12, "chance": 0.1}
    assert [found.path for found in runs.find(tmp_path)] == [run.path]


def test_a_crash_while_writing_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "run.json"
    runs.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), common.atomic(path) as draft:
        draft.write_text("half of")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def evaluated(path, seed=0, expected=0.5, **recipe):
    """A run folder as an older version left it: no facts of the data, no machine."""
    run = runs.Run(path)
    parameters = dict(dataset="digits", method="csq", network="micro", bits=12, seed=seed)
    parameters["recipe"] = {"loss": {}, "epochs": 3} | recipe
    runs.write_json(path / "run.json", {"parameters": parameters, "git_commit": "abc"})
    (path / "timing.csv").write_text("epoch,seconds\n1,20.0\n2,30.0\n3,40.0\n")
    run.save_metrics({"map": dict(expected=expected, worst=0.1, best=0.9, database_order=0.5)})
    return run


def test_the_table_has_one_row_for_each_evaluated_run(tmp_path):
    runs.write_json(tmp_path / "digits" / "csq-micro-12bits-seed7" / "run.json", {})  # not evaluated yet
    assert runs.table(tmp_path).empty
    evaluated(tmp_path / "digits" / "csq-micro-12bits-seed0")
    deep = tmp_path / "batch" / "0123abcd" / "digits" / "csq-micro-12bits-seed1"
    evaluated(deep, seed=1, expected=0.7, loss={"quantisation": 0.05}, flip=False)
    runs.write_json(deep / "pages.json", {"variant": "stiff"})
    table = runs.table(tmp_path).set_index("seed").sort_index()
    assert table["expected"].tolist() == [0.5, 0.7]
    assert table["minutes"].tolist() == [1.5, 1.5]
    assert set(table["family"]) == {"central"}
    assert table["variant"].tolist() == ["", "stiff"]
    again = settings.read(table.loc[1, "settings"], dataset="digits", method="csq", bits=12)
    assert again.recipe.loss["quantisation"] == 0.05
    assert not again.recipe.flip


def test_runs_that_cannot_be_read_are_named_and_left_out(tmp_path, capsys):
    evaluated(tmp_path / "digits" / "good")
    for name, file, content in [
        ("no_record", "run.json", None),
        ("cut_short", "metrics.json", '{"map": {"exp'),
        ("old", "metrics.json", '{"mAP": 0.5}'),
        ("odd", "run.json", '{"parameters": {"dataset": "digits", "method": "none", "recipe": {}}}'),
        ("list", "run.json", "[1, 2]"),
        ("packages", "run.json", '{"parameters": {"dataset": "digits", "method": "csq", "recipe": {}}, "packages": 3}'),
    ]:
        path = evaluated(tmp_path / "digits" / name).path / file
        path.unlink() if content is None else path.write_text(content)
    assert len(runs.table(tmp_path)) == 1
    said = capsys.readouterr().out
    for name in ("no_record", "cut_short", "old", "odd", "list", "packages"):
        assert f"{name} is left out: " in said


def test_the_commit_is_that_of_a_repository_that_keeps_the_kit_and_none_without_git(tmp_path, monkeypatch):
    file = tmp_path / "thesis" / "site-packages" / "runs.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    monkeypatch.setattr(runs, "__file__", str(file))
    git = ["git", "-C", str(tmp_path / "thesis"), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git[:3], "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a thesis"], check=True)
    assert runs.surroundings()["git_commit"] is None  # a repository of something else
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "the kit"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert runs.surroundings()["git_commit"] == head
    monkeypatch.setenv("PATH", str(tmp_path))
    found = runs.surroundings()
    assert found["git_commit"] is None
    assert found["packages"]["numpy"] == np.__version__


@pytest.mark.parametrize("folder", sorted((common.resolve("results")).glob("*/run.json")), ids=lambda p: p.parent.name)
def test_the_settings_of_a_kept_run_are_those_it_was_trained_with(folder):
    run = runs.Run(folder.parent)
    named = {name: run.parameters[name] for name in runs.NAMED}
    again = settings.read(runs.settings_of(run.record), **named)
    assert json.loads(json.dumps(vars(again.recipe))) == run.parameters["recipe"]
    assert again.image_size == {"timm:lite0": 160}.get(again.network)


def test_a_record_from_an_older_version_is_read_with_its_old_defaults(tmp_path):
    run = runs.Run(tmp_path)
    record = {"parameters": {"recipe": {"epochs": 3}}, "model": {"preset": "micro", "bits": 12}}
    runs.write_json(tmp_path / "run.json", record)
    assert run.record["model"] == {"name": "micro", "bits": 12}
    assert run.parameters["recipe"]["optimizer"] == "adamw"
    assert run.parameters["recipe"]["epochs"] == 3
