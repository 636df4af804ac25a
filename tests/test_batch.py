"""A batch: what its file may say, where its runs are, what fails and what goes on, and the table."""

import json
import re
import shlex
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import hhlib as hh

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def batch(from_tools):
    return from_tools("batch")


def written(folder, text):
    path = folder / "some.yml"
    path.write_text(text)
    return path


GRID = "dataset: [digits, shapes]\nmethod: [csq, dch]\nbits: [16, 32]\nseed: [0, 1]\nsettings: epochs=2\n"


def test_every_combination_is_a_job_with_a_folder_of_its_own(batch, tmp_path):
    found = batch.read(written(tmp_path, GRID))
    named = {tuple(job.settings.named().values()) for job in found.jobs}
    assert named == {
        (d, m, "micro", k, s) for d in ("digits", "shapes") for m in ("csq", "dch") for k in (16, 32) for s in (0, 1)
    }
    assert len({job.folder for job in found.jobs}) == len(found.jobs) == 16
    assert found.name == "some"
    assert found.folder == "runs/some"
    assert all(job.settings.recipe.epochs == 2 for job in found.jobs)


def test_the_words_of_a_job_are_its_settings(batch, tmp_path):
    """Read back as `tools/job.py` does."""
    text = "settings: {plain: '', stiff: loss.quantisation=0.5 erase=4 flip=false}\nmethod: csq\n"
    for job in batch.read(written(tmp_path, text), "data_dir='a folder'").jobs:
        words = shlex.split(job.words)
        assert words[:2] == ["--variant", job.variant]
        again = hh.settings.read(words[-1])
        assert again == job.settings
        assert hh.runs.folder(again) == PROJECT / job.folder


def test_other_settings_have_another_folder_but_where_they_are_done_does_not_count(batch, tmp_path):
    path = written(tmp_path, "bits: 16\nsettings: epochs=2\n")
    (start,) = batch.read(path).jobs

    def folder(given):
        return batch.read(path, given).jobs[0].folder

    for given in (
        "epochs=3",
        "erase=4",
        "loss.alpha=0.3",
        "image_size=16",
        "topk=10",
        "net.stem=patch",
        "precision=float32",
    ):
        assert folder(given) != start.folder, given
    for given in ("download=true", "device=cpu", "data_dir=elsewhere", "processes=2", "live=false", "epochs=2"):
        assert folder(given) == start.folder, given
    assert folder("runs_dir=other").startswith("other/batch/")
    assert Path(folder("seed=1")).parent == Path(start.folder).parent


def test_settings_from_the_command_line_count_for_all_jobs_and_replace_lists(batch, tmp_path):
    path = written(tmp_path, GRID)
    found = batch.read(path, "bits='8 12' seed=3 epochs=1 method=csq,dch").jobs
    assert {job.settings.bits for job in found} == {8, 12}
    assert {job.settings.seed for job in found} == {3}
    assert {job.settings.recipe.epochs for job in found} == {1}
    assert {job.settings.method for job in found} == {"csq", "dch"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bits: [16, sixteen]", "bits is 'sixteen', but it must be a whole number"),
        ("bits: [16, 0]", "bits is 0, but it must be a whole number from 1 to 1024"),
        ("dataset: digit", "'digit'.* Did you mean 'digits'"),
        ("method: [csq, scq]", "'scq'.* Did you mean 'csq'"),
        ("methods: csq", "has 'methods', but it may have .* Did you mean 'method'"),
        ("settings: epoch=3", "there is no setting 'epoch'.* Did you mean 'epochs'"),
        ("settings: {a: epochs=2, b: epochs=2}", "the same run is asked for twice"),
        ("bits: []", "bits is empty"),
        ("pages: [3, 99]", "there is no notebook '99'"),
        ("resources: {memory: 3}", "resources is 'memory', but it must be one of threads, mem_mb"),
        ("resources: {threads: 0}", "threads is 0, but it must be a whole number of at least 1"),
        ("bits: [16", "is not YAML"),
        ("- bits", "must hold names and values"),
        ("", "must hold names and values"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_sentence(batch, tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        batch.read(written(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.yml"], "there is no batch .*none.yml; batches/ holds those that come with the kit"),
        (
            ["batches/small.yml", "--profile", "slum"],
            "profile is 'slum', but it must be one of .* Did you mean 'slurm'",
        ),
        (["batches/small.yml", "-p", "bit", "16"], ".*there is no setting 'bit'.* Did you mean 'bits'"),
    ],
)
def test_a_call_that_is_wrong_is_refused_before_anything_starts(batch, monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["batch.py", *words])
    monkeypatch.chdir(PROJECT)
    assert batch.main() == 2
    assert re.fullmatch(f"{message}.*\n", capsys.readouterr().err)


@pytest.mark.parametrize("path", sorted((PROJECT / "batches").glob("*.yml")), ids=lambda path: path.stem)
def test_the_batches_that_come_with_the_kit_can_be_read(batch, path):
    assert batch.read(path).jobs


def test_a_job_that_fails_is_named_the_others_go_on_and_none_is_done_twice(batch, tmp_path, monkeypatch, capfd):
    """Page 2 looks inside HybridHash, and has nothing to show of a pretrained network."""
    path = written(tmp_path, "network: [lite0, micro]\npages: [2]\nbits: 12\n")
    words = [str(path), "--cores", "2", "-p", "runs_dir", str(tmp_path / "my runs")]
    monkeypatch.setattr(sys, "argv", ["batch.py", *words])
    monkeypatch.chdir(PROJECT)
    assert batch.main() == 1
    said = capfd.readouterr().out
    assert "1 of 2 runs are finished" in said
    named = next(x for x in said.splitlines() if "digits: hybridhash, lite0 network, 12 bits, seed 0" in x)
    assert "network is 'lite0', but this page looks inside HybridHash" in named
    logs = {name: tmp_path.glob(f"my runs/batch/*/digits/*-{name}-*/job.log") for name in ("lite0", "micro")}
    lite0, micro = (next(found) for found in logs.values())
    assert json.loads((micro.parent / "pages.json").read_text())["pages"] == ["02"]
    assert batch.main() == 1
    assert micro.read_text().count("job started") == micro.read_text().count("job ended") == 1
    assert lite0.read_text().count("network is 'lite0'") == 2


def test_the_table_has_a_row_per_run_and_means_over_seeds(from_tools, tmp_path):
    batch_table = from_tools("batch_table")
    folders = [tmp_path / "digits" / f"csq-micro-{bits}bits-seed{seed}" for bits in (8, 16) for seed in (0, 1, 2)]
    for folder, expected in zip(folders, [0.5, 0.6, 0.7, 0.8, 0.8, 0.8], strict=True):
        bits, seed = int(folder.name.split("-")[2][:-4]), int(folder.name[-1])
        named = dict(dataset="digits", method="csq", network="micro", bits=bits, seed=seed)
        recipe = dict(vars(hh.settings.recipe_for("digits", method="csq")))
        hh.runs.write_json(folder / "run.json", {"parameters": named | {"recipe": recipe}, "model": {}})
        scores = {"map": dict(expected=expected, worst=expected - 0.1, best=expected + 0.1), "chance": 0.1}
        hh.runs.Run(folder).save_metrics(scores)
    table = batch_table.write(tmp_path / "table", [*folders, tmp_path / "digits" / "not-there"])
    plt.close("all")
    assert len(table) == 6
    kept = pd.read_csv(tmp_path / "table.csv")
    assert kept["expected"].tolist() == table["expected"].tolist()
    short = batch_table.summary(table)
    assert short["mAP"].round(9).tolist() == [0.6, 0.8]
    assert short["± over seeds"].round(9).tolist() == [0.1, 0.0]
    assert short["worst"].round(9).tolist() == [0.5, 0.7]
    text = (tmp_path / "table.md").read_text().splitlines()
    assert text[0].split("|")[1:5] == [" dataset   ", " method   ", " network   ", "   bits "]
    assert [cell.strip() for cell in text[2].split("|")[5:7]] == ["0.6", "0.1"]
    assert r"0.600" in (tmp_path / "table.tex").read_text()
    assert (tmp_path / "table.png").stat().st_size > 5000
