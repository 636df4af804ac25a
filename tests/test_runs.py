import json

import numpy as np
import pandas as pd
import pytest

from hhlib import common, runs

GOOD = dict(dataset="digits", method="hybridhash", network="micro", bits=32, seed=0)


def test_the_folder_is_named_after_the_parameters(tmp_path):
    assert runs.folder(**GOOD, root=tmp_path) == tmp_path / "digits" / "hybridhash-micro-32bits-seed0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "mnist"}, "dataset is 'mnist', but it must be one of digits"),
        ({"method": "magic"}, "method is 'magic', but it must be one of hybridhash"),
        ({"network": "huge"}, "network is 'huge', but it must be one of base, small, tiny, micro"),
        ({"bits": 0}, "bits is 0"),
        ({"bits": -1}, "bits is -1"),
        ({"bits": "many"}, "bits is 'many'"),
        ({"bits": 12.5}, "bits is 12.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        runs.folder(**{**GOOD, **changes})


def test_relative_paths_start_at_the_project_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    for place in (".", "notebooks", "notebooks/deep"):
        monkeypatch.chdir(tmp_path / place)
        assert runs.Run("runs/x").path == tmp_path / "runs" / "x"


def test_a_missing_file_says_which_notebook_makes_it(tmp_path):
    run = runs.Run(tmp_path)
    for read, maker in [
        (run.history, "03_gpu_training"),
        (run.model, "03_gpu_training"),
        (run.codes, "04_retrieval_evaluation"),
        (run.metrics, "04_retrieval_evaluation"),
    ]:
        with pytest.raises(FileNotFoundError, match=rf"is not there: it is made by notebook {maker}"):
            read()


def test_codes_and_metrics_come_back(tmp_path):
    run = runs.Run(tmp_path / "digits" / "name")
    codes = dict(query_codes=np.arange(6, dtype=np.uint8).reshape(3, 2), bits=np.array(12))
    run.save_codes(**codes)
    assert {name: array.tolist() for name, array in run.codes().items()} == {
        name: array.tolist() for name, array in codes.items()
    }
    assert runs.find(tmp_path) == []
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
    for seed, expected in [(0, 0.5), (1, 0.7)]:
        run = runs.Run(runs.folder(dataset="digits", method="csq", network="micro", bits=12, seed=seed, root=tmp_path))
        parameters = dict(dataset="digits", method="csq", network="micro", bits=12, seed=seed)
        parameters["recipe"] = {"loss": {}, "epochs": 3}
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


def test_optimism_is_what_choosing_on_the_queries_adds():
    history = pd.DataFrame({"validation_map": [0.5, np.nan, 0.8, 0.7], "query_map": [0.4, 0.99, 0.6, 0.65]})
    assert runs.optimism(history) == pytest.approx(5.0)  # 0.65, less 0.60 of the epoch that validation chose
    assert np.isnan(runs.optimism(history[["validation_map"]]))
    assert np.isnan(runs.optimism(history[1:2]))
