import json

import numpy as np
import pandas as pd
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
    codes = dict(query_codes=np.arange(6, dtype=np.uint8).reshape(3, 2), bits=np.array(12))
    run.save_codes(**codes)
    assert {name: array.tolist() for name, array in run.codes().items()} == {
        name: array.tolist() for name, array in codes.items()
    }
    assert runs.find(tmp_path) == []
    assert [found.path for found in runs.find(tmp_path, "codes.npz")] == [run.path]
    scores = {"map": {"expected": np.float64(0.5)}, "histogram": {"all": np.ones((3, 13))}, "ap": {}, "bits": 12}
    run.save_metrics(scores, chance=0.1)
    assert run.metrics() == {"map": {"expected": 0.5}, "bits": 12, "chance": 0.1}
    assert [found.path for found in runs.find(tmp_path)] == [run.path]


def test_a_crash_while_writing_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "run.json"
    runs.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), common.atomic(path) as draft:
        draft.write_text("half of")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_table_has_one_row_for_each_evaluated_run(tmp_path):
    for seed, expected, loss in [(0, 0.5, {}), (1, 0.7, {"quantisation": 0.05})]:
        run = runs.Run(tmp_path / "digits" / f"csq-micro-12bits-seed{seed}")
        parameters = dict(dataset="digits", method="csq", network="micro", bits=12, seed=seed)
        parameters["recipe"] = {"loss": loss, "epochs": 3}
        runs.write_json(run.path / "run.json", {"parameters": parameters, "git_commit": "abc"})
        (run.path / "timing.csv").write_text("epoch,seconds\n1,2.0\n2,3.0\n3,9.0\n")
        if seed == 0:
            assert runs.table(tmp_path).empty  # not evaluated yet
        run.save_metrics({"map": dict(expected=expected, worst=0.1, best=0.9, database_order=0.5)})
    table = runs.table(tmp_path)
    assert table["expected"].tolist() == [0.5, 0.7]
    assert table["seed"].tolist() == [0, 1]
    assert table["seconds_an_epoch"].tolist() == [3.0, 3.0]
    assert set(table["family"]) == {"central"}
    assert table["loss"].tolist() == ["", "loss.quantisation=0.05"]


def test_what_differs_from_the_usual_start_is_said():
    assert runs.changed("hybridhash", {"alpha": None}) == ""
    assert runs.changed("hybridhash", {}) == "loss.alpha=0.5"  # as released, and as runs of older versions were
    assert runs.changed("hybridhash", {"alpha": 0.15, "unseen": "skip"}) == "loss.alpha=0.15"


def test_a_record_from_an_older_version_is_read_with_its_old_defaults(tmp_path):
    run = runs.Run(tmp_path)
    record = {"parameters": {"recipe": {"epochs": 3}}, "model": {"preset": "micro", "bits": 12}}
    runs.write_json(tmp_path / "run.json", record)
    assert run.record["model"] == {"name": "micro", "bits": 12}
    assert run.parameters["recipe"]["optimizer"] == "adamw"
    assert run.parameters["recipe"]["epochs"] == 3


def test_optimism_is_what_choosing_on_the_queries_adds():
    history = pd.DataFrame({"validation_map": [0.5, np.nan, 0.8, 0.7], "query_map": [0.4, 0.99, 0.6, 0.65]})
    assert runs.optimism(history) == pytest.approx(5.0)  # 0.65, less 0.60 of the epoch that validation chose
    assert np.isnan(runs.optimism(history[["validation_map"]]))
    assert np.isnan(runs.optimism(history[1:2]))
