"""The front door: what it knows, what it refuses, and that it gives what the parts give."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import several
import torch
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

import hhlib as hh
from hhlib import data, metrics, retrieval, training


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """A folder of class folders: 60 pictures of three plain colours with a little noise."""
    folder, rng = tmp_path_factory.mktemp("pictures") / "animals", np.random.default_rng(0)
    for number, name in enumerate(("ant", "bee", "cow")):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 60, (40, 50, 3))
            pixels[..., number] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def own(animals, tmp_path_factory):
    """An experiment with these pictures, trained for two epochs."""
    runs_dir = tmp_path_factory.mktemp("runs")
    how = "epochs=2 batch_size=10 image_size=32 device=cpu"
    ex = hh.open(how, dataset=animals, bits=8, runs_dir=runs_dir, data_dir=runs_dir / "data", live=False)
    ex.fit(())
    return ex


def test_opening_needs_no_data_and_no_training(tmp_path):
    ex = hh.open(dataset="cifar10", bits=16, data_dir=tmp_path, runs_dir=tmp_path)
    assert ex.run.path == tmp_path / "cifar10" / "hybridhash-micro-16bits-seed0"
    assert "not trained yet" in repr(ex)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (dict(bits=0), "bits is 0"),
        (dict(dataset="mnist"), "'mnist'"),
        (dict(bitz=3), "'bitz'"),
        (dict(seed=-1), "seed"),
    ],
)
def test_opening_refuses_bad_settings(values, what):
    with pytest.raises(ValueError, match=what):
        hh.open(**values)


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path):
    ex = hh.open(bits=12, runs_dir=tmp_path)
    for ask in (lambda: ex.net, lambda: ex.codes):
        with pytest.raises(FileNotFoundError, match=r"run_notebooks.py -p bits 12 .* --only 03"):
            ask()


def test_a_folder_of_pictures_is_a_data_set(own, animals):
    assert own.run.path.parts[-2:] == ("animals", "hybridhash-micro-8bits-seed0")
    assert own.run.parameters["dataset"] == "animals"
    assert own.split.classes == ["ant", "bee", "cow"]
    assert own.split.sizes == {"query": 4, "train": 28, "database": 28}  # drawn by path, so that shares are met roughly
    own.evaluate()
    table = hh.runs.table(own.settings.runs_dir)
    assert table[["dataset", "method", "bits"]].values.tolist() == [["animals", "hybridhash", 8]]


def test_a_folder_of_lists_is_a_data_set(own, animals, tmp_path):
    lists = tmp_path / "listed"
    data.write_lists(own.split, lists)
    for folder in animals.iterdir():
        (lists / folder.name).symlink_to(folder)
    again = hh.open("image_size=32", dataset=lists, runs_dir=tmp_path / "runs")
    assert again.split.fingerprint() == own.split.fingerprint()
    assert again.run.path.parent.name == "listed"


def test_everything_is_encoded_as_the_parts_would(own, animals):
    facts = own.run.record["data"]
    how = dict(mean=facts["mean"], std=facts["std"], precision=own.precision, flip=True)
    expected = retrieval.encode(own.net, own.split.query, **how)
    assert torch.equal(own.encode("query"), expected)
    pictures, _, _ = own.split.query.batch(range(4))
    files = [animals / own.split.query.pool.path(row) for row in own.split.query.rows.tolist()]
    with Image.open(files[0]) as picture:
        ways = [own.encode(pictures), own.encode(files), own.encode(picture), own.encode(str(files[0]))]
    for z in ways:
        torch.testing.assert_close(z, expected[: len(z)], rtol=1e-2, atol=1e-2)  # other batches, in bf16
    shown, x, titles = own.pictures("query", [0, 1])
    assert shown.shape == x.shape == (2, 3, 32, 32)
    assert titles == [own.split.describe(label) for label in own.split.query.labels[:2]]


def test_a_picture_that_does_not_exist_is_named(own):
    with pytest.raises(FileNotFoundError, match="nobody.jpg"):
        own.encode("/nowhere/nobody.jpg")


def test_codes_are_encoded_once_and_scored(own):
    scores = own.evaluate()
    kept = own.run.codes()
    by_hand = metrics.evaluate(
        retrieval.pack(own.encode("query")), kept["query_labels"],
        retrieval.pack(own.encode("database")), kept["database_labels"], bits=8,
    )  # fmt: skip
    assert scores["map"] == by_hand["map"]
    assert own.run.metrics()["map"] == scores["map"]
    assert scores["chance"] == metrics.chance(kept["query_labels"], kept["database_labels"])
    assert scores["interval"][0] <= scores["map"]["expected"] <= scores["interval"][1]
    before = (own.run.path / "codes.npz").stat().st_mtime_ns
    again = hh.experiment.Experiment(own.settings)
    assert (again.codes["query"] == own.codes["query"]).all()
    assert (own.run.path / "codes.npz").stat().st_mtime_ns == before
    assert own.score(topk=3)["topk"] == 3


def test_an_asymmetric_method_searches_the_codes_it_learnt(tmp_path):
    ex = hh.open("epochs=1 loss.sample=50", method="adsh", bits=8, runs_dir=tmp_path, device="cpu")
    ex.fit(())
    assert (ex.codes["database"] == ex.run.database_codes()).all()
    assert not len(ex.validation)


def test_another_split_than_that_of_the_run_is_refused(own, animals, tmp_path):
    (tmp_path / "runs" / "animals").mkdir(parents=True)
    (tmp_path / "runs" / "animals" / own.run.path.name).symlink_to(own.run.path)
    moved = tmp_path / "animals"
    moved.symlink_to(animals)
    where = dict(bits=8, data_dir=tmp_path / "data")
    other = hh.open("image_size=32", dataset=moved, runs_dir=tmp_path / "runs", **where)
    assert other.split.fingerprint() == own.split.fingerprint()  # a folder may move
    Image.new("RGB", (40, 40)).save(animals / "ant" / "new.png")
    try:
        later = hh.open("image_size=32", dataset=animals, runs_dir=own.settings.runs_dir, **where)
        with pytest.raises(ValueError, match="trained on another split of animals"):
            later.codes  # noqa: B018
    finally:
        (animals / "ant" / "new.png").unlink()


def test_an_untrained_network_is_the_one_that_training_starts_from():
    ex = hh.open(bits=12, device="cpu")
    start = training.Trainer(several.small_digits(), several.how(net={})).net.state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in ex.untrained().state_dict().items())


def test_figures_are_kept_by_name(own, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    own.show(plt.figure(), "one")
    own.show(plt.figure())
    plt.close("all")
    assert shown == [1, 1]
    assert [path.name for path in (own.run.path / "figures").iterdir()] == ["one.png"]


def test_what_is_missing_is_told_in_a_sentence_without_the_lines_that_led_there(own):
    with pytest.raises(FileNotFoundError, match="does not exist; this makes it") as caught:
        own.need("nothing.npz")
    assert caught.value._render_traceback_() == [str(caught.value)]  # what IPython asks an exception for


@pytest.fixture
def bar(monkeypatch):
    """``bar(ex, needs)`` -> the text of the bar, its HTML, and the menu's function and choices."""

    def show(ex, needs=""):
        shown, menus = [], []
        monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
        monkeypatch.setattr("hhlib.widgets.explore", lambda view, live, **choices: menus.append((view, choices)))
        ex.bar(needs)
        return shown, menus

    return show


def test_the_bar_says_what_is_missing_and_offers_other_runs(bar, tmp_path):
    for name, place in (("digits-32bits", "digits"), ("cifar10-64bits", "cifar10")):
        run = hh.runs.kept(name)
        last = "hybridhash-micro-{bits}bits-seed0".format(**run.parameters)
        shutil.copytree(run.path, tmp_path / place / last, ignore=shutil.ignore_patterns("*.safetensors"))
    where = dict(runs_dir=tmp_path, data_dir=tmp_path)
    shown, menus = bar(hh.open(bits=16, **where), "model.safetensors")
    assert "not trained yet" in shown[0]["text/plain"]
    assert (
        f"run_notebooks.py -p bits 16 -p data_dir {tmp_path} -p runs_dir {tmp_path} --only 03" in shown[0]["text/html"]
    )
    ((view, choices),) = menus
    nothing, chosen, other = choices["other_run"]
    assert nothing == ""
    assert (chosen[:36], other[:35]) == ("cifar10, hybridhash, micro, 64 bits,", "digits, hybridhash, micro, 32 bits,")
    view(chosen)  # the lines that it shows open the run, with the settings it was trained with
    _, *lines = shown[-1]["text/plain"].splitlines()
    assert [line.split(":")[0] for line in lines] == ["dataset", "bits", "settings"]
    values = {}
    exec("\n".join(lines), values)
    again = hh.open(values["settings"], dataset=values["dataset"], bits=values["bits"], live=False, **where)
    assert again.run.path == tmp_path / "cifar10" / "hybridhash-micro-64bits-seed0"
    shown, menus = bar(again)
    score = again.run.metrics()["map"]["expected"]
    assert f"mAP {score:.3f}" in shown[0]["text/plain"]
    assert (menus, "Other settings" in shown[0]["text/plain"], "Missing" in shown[0]["text/plain"]) == (
        [],
        False,
        False,
    )
    assert "1 in " in shown[0]["text/plain"]


def test_the_bar_says_where_a_run_differs_from_what_is_asked_for_and_that_it_is_not_finished(bar, own):
    shown, _ = bar(hh.experiment.Experiment(replace(own.settings, recipe=replace(own.settings.recipe, epochs=7))))
    assert "trained with epochs = 2 and not 7." in shown[0]["text/plain"]
    assert own.run.state.startswith("trained for 2 of 2 epochs")
    history = own.run.path / "history.csv"
    whole = history.read_text()
    history.write_text("\n".join(whole.splitlines()[:2]))
    try:
        assert own.run.state.startswith("trained for 1 of 2 epochs")
    finally:
        history.write_text(whole)


def test_a_kept_run_opens_with_its_network_and_codes_without_training(tmp_path):
    ex = hh.kept("cifar10-2-64bits", data_dir=tmp_path)
    assert (ex.settings.dataset, ex.settings.bits) == ("cifar10-2", 64)
    assert ex.net(torch.zeros(1, 3, 32, 32)).shape == (1, 64)
    assert ex.run.codes()["query_codes"].shape == (10_000, 8)
    with pytest.raises(FileNotFoundError, match="no-such-run"):
        hh.kept("no-such-run")


def test_pages_look_at_photographs_where_there_are_some(tmp_path, own, capsys):
    assert own.photographs() is own  # pictures of one's own
    drawn = hh.open(dataset="digits", data_dir=tmp_path)
    assert drawn.photographs() is drawn
    assert "CIFAR-10 is not in" in capsys.readouterr().out


def test_the_table_of_settings_has_every_name_once(own):
    table = hh.settings.table(own.settings)
    assert table.index.is_unique
    assert table.loc["epochs", "value"] == 2
    assert table.loc["loss.alpha", "value"] is None
    assert set(hh.settings.helps()) - {"recipe", "loss", "net"} <= set(table.index)


@pytest.mark.parametrize("cell", ["hh.open('bots=16')", "hh.open(dataset='cifar10', data_dir='nowhere').split"])
def test_what_is_refused_is_one_sentence_in_a_notebook(cell, capsys):
    shell = InteractiveShell.instance()
    shell.run_cell(f"import hhlib as hh; {cell}")
    said = capsys.readouterr().out
    assert said.count("\n") <= 1
    assert "bots" in said or "cifar-10" in said
    InteractiveShell.clear_instance()
