"""Runs and splits for others: what is written can be read by the formats' own libraries, and says what is so."""

import hashlib
import json
import shutil
import socket
import sys
import zipfile
from pathlib import Path

import mlcroissant
import numpy as np
import pytest
import torch
from PIL import Image
from rocrate.rocrate import ROCrate

import hhlib as hh
from hhlib import data

PROJECT = Path(__file__).parent.parent
KEPT = PROJECT / "results" / "digits-32bits"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Neither writing nor reading back asks a server for anything, such as a JSON-LD context."""

    def refuse(*_):
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def tools(from_tools):
    return from_tools("export"), from_tools("croissant")


@pytest.fixture
def command(tools, monkeypatch, capsys):
    """``command("run", FOLDER, TARGET)`` -> exit code, what was printed, what was printed as an error."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["export.py", *map(str, words)])
        code = tools[0].main()
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def run(tmp_path):
    """The kept run on digits, with what else a fresh run has."""
    folder = tmp_path / "a run"
    shutil.copytree(KEPT, folder)
    for name in ("training_state.pt", "model.safetensors", "notebooks/03 training.ipynb", "notebooks/03 training.html"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    (folder / "figures").mkdir()
    (folder / "07_flips.png").rename(folder / "figures" / "07_flips.png")
    return folder


@pytest.fixture
def crate(run, command, tmp_path):
    assert command("run", run, tmp_path / "crate") == (0, f"{tmp_path / 'crate'}\n", "")
    return ROCrate(tmp_path / "crate")


def files(crate):
    return {entity["name"]: entity for entity in crate.get_by_type("File")}


def values(crate, kind):
    """Name -> value of one kind of PropertyValue."""
    found = (entity for entity in crate.get_by_type("PropertyValue") if entity.id.startswith(f"#{kind}-"))
    return {entity["name"]: entity["value"] for entity in found}


def test_every_file_of_a_crate_is_described_and_is_as_described(crate, run):
    root = Path(crate.source)
    there = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert there - {"ro-crate-metadata.json"} == set(files(crate))
    for name, entity in files(crate).items():
        raw = (root / name).read_bytes()
        assert raw == (run / name).read_bytes()
        assert entity["sha256"] == hashlib.sha256(raw).hexdigest()
        assert entity["contentSize"] == str(len(raw))
        assert entity["description"]
        assert entity["encodingFormat"]


def test_what_takes_part(crate):
    names = set(files(crate))
    assert {"run.json", "history.csv", "timing.csv", "metrics.json", "model.safetensors"} < names
    assert {"figures/07_flips.png", "notebooks/03 training.ipynb"} < names
    assert not {"training_state.pt", "notebooks/03 training.html"} & names
    caption = files(crate)["figures/07_flips.png"]["description"]
    assert caption == "Images, and the bits that flip when a square is covered; white: none."


def test_a_zip_is_the_same_crate(run, command, tmp_path):
    assert command("run", run, tmp_path / "crate.zip")[0] == 0
    assert command("run", run, tmp_path / "crate")[0] == 0
    with zipfile.ZipFile(tmp_path / "crate.zip") as packed:
        for name in packed.namelist():
            if not name.endswith("/"):
                assert packed.read(name) == (tmp_path / "crate" / name).read_bytes()
    assert set(files(ROCrate(tmp_path / "crate.zip"))) == set(files(ROCrate(tmp_path / "crate")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a run", "crate", "crate.zip"]  # no drafts are left


def test_the_parameters_are_those_of_run_json(crate):
    written = json.loads((KEPT / "run.json").read_text())["parameters"]
    found = values(crate, "parameter")
    recipe = written.pop("recipe")
    assert found.pop("loss.alpha") == "none"
    assert recipe.pop("loss") == {"alpha": None}
    assert found.pop("net.stem") == recipe.pop("net")["stem"]
    assert found == written | recipe


def test_the_description_of_the_action_repeats_the_run(crate):
    (action,) = crate.get_by_type("CreateAction")
    settings = hh.settings.read(action["description"])
    parameters = hh.runs.Run(KEPT).parameters
    assert vars(settings.recipe) == parameters["recipe"]
    assert settings.named() == {name: parameters[name] for name in settings.named()}


def test_the_action_leads_from_data_and_software_to_files_and_scores(crate):
    record, scores = (json.loads((KEPT / name).read_text()) for name in ("run.json", "metrics.json"))
    (action,) = crate.get_by_type("CreateAction")
    assert crate.root_dataset["mentions"] == action
    assert set(files(crate).values()) < set(action["result"])
    assert action["instrument"]["identifier"]["value"] == record["git_commit"]
    packages = {package["name"]: package["version"] for package in action["instrument"]["softwareRequirements"]}
    assert packages == record["packages"] | {"python": record["python"]}
    assert record["data"]["fingerprint"] in action["object"][0]["identifier"]
    assert values(crate, "data")["train images"] == 1000
    assert values(crate, "machine")["system"] == record["machine"]["system"]
    assert "startTime" not in action  # run.json does not know when
    assert "endTime" not in action
    found = values(crate, "score")
    assert {kind: found[f"mAP {kind}"] for kind in ("expected", "best", "worst")}.items() <= scores["map"].items()
    assert found["mAP by chance"] == scores["chance"]
    assert set(found) == {entity["name"] for entity in crate.root_dataset["variableMeasured"]}


def test_the_crate_says_what_its_profile_demands(crate):
    root = crate.root_dataset
    assert crate.metadata["conformsTo"] == "https://w3id.org/ro/crate/1.1"
    assert root["conformsTo"].id == "https://w3id.org/ro/wfrun/process/0.5"
    assert root["license"].id == "https://spdx.org/licenses/Apache-2.0"
    assert all(root[name] for name in ("name", "description", "datePublished"))
    assert {entity.id for entity in root["hasPart"]} == {entity.id for entity in files(crate).values()}


def test_a_run_that_was_not_scored_has_no_scores(run, command, tmp_path):
    (run / "metrics.json").unlink()
    assert command("run", run, tmp_path / "crate")[0] == 0
    assert values(ROCrate(tmp_path / "crate"), "score") == {}


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in KEPT.parent.glob("*/run.json")))
def test_every_kept_run_can_be_exported(folder, tools, tmp_path):
    import crate

    crate.write(hh.runs.Run(KEPT.parent / folder), tmp_path)
    names = set(files(ROCrate(tmp_path)))
    assert names == {path.name for path in (KEPT.parent / folder).iterdir()}


def read_back(target, split):
    """What mlcroissant makes of an exported split: the labels of each part, after checking that it finds no fault."""
    found = mlcroissant.Dataset(jsonld=target / "croissant.json")
    assert not found.metadata.issues.errors
    (identity,) = found.records("split")
    assert identity["split/fingerprint"] == split.fingerprint()
    rows = list(found.records("classes"))
    assert [row["classes/number"] for row in rows] == list(range(len(split.classes)))
    assert [row["classes/name"] for row in rows] == split.classes
    for name, part in split.parts().items():
        lines = list(found.records(name))
        assert np.array_equal([line[f"{name}/labels"] for line in lines], part.labels)
        if part.pool.paths:
            assert [line[f"{name}/path"].decode() for line in lines] == [part.pool.paths[row] for row in part.rows]
        else:
            assert [line[f"{name}/row"] for line in lines] == part.rows.tolist()
    for file in found.metadata.file_objects:
        if file.sha256:
            assert file.sha256 == hashlib.sha256((target / file.content_url).read_bytes()).hexdigest()
    return found


def test_labels_read_by_mlcroissant_are_those_of_the_split(command, tmp_path):
    target = tmp_path / "out"
    assert command("dataset", "-p", "dataset", "digits", "-p", "seed", 3, target) == (0, f"{target}\n", "")
    found = read_back(target, data.load("digits", seed=3))
    assert not found.metadata.issues.warnings
    assert "Drawn from seed 3" in found.metadata.description
    assert next(iter(found.records("split")))["split/seed"] == 3
    names = {path.name for path in target.iterdir()}
    assert names == {"croissant.json", "query.csv", "train.csv", "database.csv"}  # no pictures


@pytest.fixture
def pictures(tmp_path):
    """Twenty pictures in class folders whose names are hard for CSV."""
    for name in ("None", "1", 'a, "b"; c'):
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (4, 4)).save(tmp_path / "own" / name / f"{number}, x.png")
    return tmp_path / "own"


def test_a_folder_of_pictures_is_named_by_paths(pictures, command, tmp_path):
    code, out, _ = command("dataset", "-p", "dataset", pictures, "-p", "data_dir", tmp_path, tmp_path / "out")
    assert code == 0
    assert "license" in out  # nobody but its owner knows it
    found = read_back(tmp_path / "out", data.load(pictures, root=tmp_path))
    assert str(tmp_path) not in (tmp_path / "out" / "croissant.json").read_text()
    assert found.metadata.name == "own, seed 0"


def test_given_lists_have_no_seed(pictures, command, tmp_path):
    data.write_lists(data.load(pictures, seed=5, root=tmp_path), pictures)
    assert command("dataset", "-p", "dataset", pictures, tmp_path / "out")[0] == 0
    found = read_back(tmp_path / "out", data.load(pictures))
    assert "Given lists" in found.metadata.description
    assert "split/seed" not in next(iter(found.records("split")))


@pytest.mark.filterwarnings("ignore:.*are taken as the split")
def test_a_tree_that_is_split_already_has_no_seed(pictures, command, tmp_path):
    for part in ("train", "test"):
        shutil.copytree(pictures, tmp_path / "tree" / part)
    assert command("dataset", "-p", "dataset", tmp_path / "tree", "-p", "data_dir", tmp_path, tmp_path / "out")[0] == 0
    found = read_back(tmp_path / "out", data.load(tmp_path / "tree", root=tmp_path))
    assert "Given lists" in found.metadata.description


@pytest.mark.parametrize("name", data.names())
def test_every_known_data_set_says_where_it_comes_from(name, tools, tmp_path):
    labels = torch.from_numpy((np.arange(32)[:, None] >> np.arange(5) & 1).astype(np.uint8))  # none to five each
    paths = None if name.split("-")[0] in data.sources.MEMORY else [f"{row}.jpg" for row in range(32)]
    pool = data.Pool(labels, labels, list("abcde"), True, paths)
    parts = (data.Part(pool, rows) for rows in np.array_split(np.arange(32), 3))
    split = data.Split(name, 0, data.PROTOCOLS[name], *parts)
    assert tools[1].write(split, tmp_path) == []
    found = read_back(tmp_path, split)
    archives = data.sources.archives(name)[1]
    based_on = json.loads((tmp_path / "croissant.json").read_text()).get("isBasedOn", [])
    assert based_on == [archive.url for archive in archives]
    sums = {file.content_url: file.md5 for file in found.metadata.file_objects if file.md5}
    assert sums == {archive.url: archive.md5 for archive in archives if archive.md5}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "{}/nothing", "{}/out"], "nothing/run.json does not exist: training makes it."),
        (["run", "-p", "runs_dir", "{}", "{}/out"], "run.json does not exist; this makes it: python tools/"),
        (["run", KEPT, "{}"], "exists already, but it must be a new folder or a new file that ends in .zip."),
        (["run", KEPT, "{}/out", "-p", "bits", "8"], "and -p both say which run, but only one of them may."),
        (["run", "-p", "bit", "8", "{}/out"], "there is no setting 'bit'. Did you mean 'bits'?"),
        (["dataset", "digits", "{}/out"], "a data set is named by -p dataset digits."),
        (["dataset", "-p", "dataset", "digit", "{}/out"], "Did you mean 'digits'?"),
        (["dataset", "-p", "data_dir", "{}", "-p", "dataset", "cifar10", "{}/out"], "lacks data_batch_1"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence(words, says, command, tmp_path):
    code, out, error = command(*(str(word).format(tmp_path) for word in words))
    assert (code, out) == (2, "")
    assert says in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named_with_the_command_that_installs_it(command, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "crate", raising=False)
    monkeypatch.setitem(sys.modules, "rocrate.model", None)
    code, out, error = command("run", KEPT, tmp_path / "out")
    assert (code, out) == (2, "")
    assert error.startswith("rocrate is not installed; this installs it: python -m pip install ")
