import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import hhlib as hh
from hhlib import data


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """40 cats, 20 dogs, 10 emus, as a folder of folders; and what has no business there."""
    root = tmp_path_factory.mktemp("animals")
    for name, count, grey in [("cat", 40, 50), ("dog", 20, 100), ("emu", 10, 150)]:
        (root / name / "deep").mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (9, 6), (grey + i,) * 3).save(root / name / ("deep" if i % 2 else "") / f"{i:02d}.PNG")
    (root / "notes.txt").write_text("no picture")
    (root / ".cache").mkdir()
    (root / ".cache" / "x.png").write_bytes(b"")
    return root


@pytest.fixture
def table(tmp_path):
    """Ten pictures with none, one or two of three labels."""
    for i in range(10):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    labels = ["sun", "sea", "sun;sea", "", "sun; sky", "sky", "sky", "sun", "sea", "sea"]
    text = "path,photographer,labels\n" + "".join(f"{i}.png,me,{label}\n" for i, label in enumerate(labels))
    (tmp_path / "table.csv").write_text("\ufeff" + text)
    return tmp_path / "table.csv"


def test_a_folder_of_folders_is_a_pool_with_class_names(animals):
    pool = data.folder_pool(animals, size=4)
    assert pool.classes == ["cat", "dog", "emu"]
    assert pool.labels.sum(dim=0).tolist() == [40, 20, 10]
    assert pool.images[pool.paths.index("dog/deep/03.PNG")].unique().tolist() == [103]


def test_a_split_has_three_parts_and_numbers_are_exact(animals):
    pool = data.folder_pool(animals, size=4)
    split = data.split_pool(pool, query=7, train=35)
    assert split.sizes == {"query": 7, "train": 35, "database": 28}
    everything = torch.cat([part.rows for part in split.parts().values()])
    assert sorted(everything.tolist()) == list(range(70))
    again, other = (data.split_pool(pool, query=7, train=35, seed=seed) for seed in (0, 1))
    assert split.fingerprint() == again.fingerprint() != other.fingerprint()
    with_train = data.split_pool(pool, query=7, train=35, train_in_database=True)
    assert with_train.sizes["database"] == 63
    facts = data.audit(split, content=True)
    assert set(facts["same_image"].values()) == {0}


@settings(max_examples=50)
@given(query=st.integers(1, 30), train=st.integers(1, 30), seed=st.integers(0, 9))
def test_whole_numbers_are_met_exactly(animals, query, train, seed):
    split = data.split_pool(data.folder_pool(animals), query=query, train=train, seed=seed)
    assert split.sizes == {"query": query, "train": train, "database": 70 - query - train}


def test_a_table_has_several_labels_a_picture_and_pictures_without(table):
    pool = data.table_pool(table, size=4)
    assert pool.classes == ["sea", "sky", "sun"]
    assert pool.labels[:5].tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 1]]
    assert pool.images[7].unique().tolist() == [7]
    assert data.audit(data.split_pool(pool, query=2, train=4))["without_label"] is not None


def test_unseen_classes_are_seen_by_queries_and_database_only(animals, table):
    pool = data.folder_pool(animals)
    split = data.split_unseen(pool, unseen=["dog", "emu"], query=6)
    assert split.sizes == {"query": 6, "train": 40, "database": 24}
    assert split.train.labels.sum(dim=0).tolist() == [40, 0, 0]
    assert split.query.labels[:, 0].sum() == 0
    drawn = data.split_unseen(pool, unseen=0.34, query=2, seed=1)
    assert (drawn.train.labels.sum(dim=0) > 0).sum() == 2
    mixed = data.split_unseen(data.table_pool(table), unseen=["sky"], query=1)
    assert mixed.train.rows.tolist() == [0, 1, 2, 7, 8, 9]  # 4 shows sun and sky, 3 nothing: both are left out
    assert sorted(mixed.query.rows.tolist() + mixed.database.rows.tolist()) == [5, 6]


def test_own_pictures_train_and_search_end_to_end(animals, tmp_path):
    where = dict(dataset=str(animals), runs_dir=str(tmp_path / "runs"), data_dir=str(tmp_path / "data"), device="cpu")
    ex = hh.open("bits=8 epochs=1 batch_size=8 image_size=16 erase=0 shift=1 small_epochs=0", **where)
    ex.fit()
    score = ex.evaluate()["map"]["expected"]
    assert 0 < score <= 1
    kept = ex.run.codes()
    for name in ("query", "database"):
        part = ex.split.parts()[name]
        assert kept[f"{name}_paths"].tolist() == part.paths
        assert len(kept[f"{name}_codes"]) == len(part)
    assert ex.run.record["data"]["classes"] == ["cat", "dog", "emu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(query=0, train=5), "query is 0, .* from 1 to 69"),
        (dict(query=1.5, train=5), "query is 1.5"),
        (dict(query=True, train=5), "query is True"),
        (dict(query="10", train=5), "query is '10'"),
        (dict(query=5, train=5, seed=-1), "seed is -1"),
        (dict(query=5, train=-1), "train is -1"),
        (dict(query=0.001, train=5), "query is 0.001 of 70, which is none"),
        (dict(query=35, train=35), "query and train take 35 . 35 of 70"),
    ],
)
def test_bad_numbers_are_refused(animals, arguments, message):
    with pytest.raises(ValueError, match=message):
        data.split_pool(data.folder_pool(animals), **arguments)


def test_bad_classes_are_refused(animals):
    pool = data.folder_pool(animals)
    for unseen, message in [
        (["fox"], "unseen names 'fox', but the classes are cat, dog, emu"),
        (["cat", "dog", "emu"], "unseen names 3 of 3 classes"),
        ([], "unseen names 0 of 3 classes"),
        ("fox", "unseen names 'fox'"),
    ]:
        with pytest.raises(ValueError, match=message):
            data.split_unseen(pool, unseen=unseen, query=2)


def test_bad_folders_are_refused(tmp_path):
    lonely = tmp_path / "one"
    (lonely / "deep").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path}/nowhere"):
        data.folder_pool(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"{lonely} holds no pictures"), pytest.warns(UserWarning, match="deep"):
        data.folder_pool(lonely)
    for name in ("1.png", "2.png"):
        Image.new("L", (4, 4)).save(lonely / "deep" / name)
    with pytest.raises(ValueError, match=r"shows 1 classes .deep., but needs two"):
        data.folder_pool(lonely)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("file,labels\n0.png,sun\n", ValueError, r"table.csv has the columns .*file.*labels"),
        ("", ValueError, r"table.csv has the columns \[\], but it needs path and labels"),
        (
            "path,labels,path\n0.png,sun,1.png\n",
            ValueError,
            "has the columns .*, but it needs path and labels, once each",
        ),
        (
            'path,labels\n0.png,"sun\n1.png,sea\n',
            ValueError,
            "table.csv line 3: a path or label goes over several lines",
        ),
        ("path,labels\n0.png," + "x" * 200_000, ValueError, "table.csv line 2 is not CSV .field larger than"),
        ("path,labels\n0\0.png,sun\n", ValueError, "table.csv line 2"),
        ("path,labels\n0.png,sun\n,sea\n", ValueError, "table.csv line 3: no path"),
        ("path,labels\n0.png,sun\n0.png,sea\n", ValueError, "table.csv line 3: 0.png is on line 2"),
        ("path,labels\n0.png,sun\n99.png,sea\n", FileNotFoundError, "table.csv line 3: there is no file .*99.png"),
        ("path,labels\n0.png,sun\n./0.png,sea\n", ValueError, "table.csv line 3: 0.png is on line 2"),
        ("path,labels\n0.png,sun\n../1.png,sea\n", ValueError, "table.csv line 3: the path '../1.png' leaves"),
        ("path,labels\n0.png,sun,sea\n", ValueError, "table.csv line 2: more fields"),
        ("path,labels\n0.png,s\udcffn\n", ValueError, "table.csv is not UTF-8 text"),
        ("path,labels\n0.png,sun\n1.png,sun\n", ValueError, r"shows 1 classes .sun."),
        ("path,labels\n0.png,\n1.png,\n", ValueError, r"shows 0 classes"),
    ],
)
def test_bad_tables_are_refused_with_their_line(table, text, error, message):
    table.write_text(text, errors="surrogateescape")
    with pytest.raises(error, match=message):
        data.table_pool(table)


def test_a_table_and_its_lists_tell_the_same(table, tmp_path):
    split = data.split_pool(data.table_pool(table, size=4), query=2, train=4)
    data.write_lists(split, tmp_path / "lists")
    again = data.read_lists(tmp_path / "lists", root=table.parent, size=4)
    assert again.fingerprint() == split.fingerprint()


def test_one_strange_picture_is_too_few(table):
    pool = data.table_pool(table)
    with pytest.raises(ValueError, match="only 0 pictures"):
        data.split_unseen(replace(pool, labels=torch.ones_like(pool.labels)), unseen=["sky"], query=1)
    assert data.split_unseen(pool, unseen="sky", query=1).sizes["query"] == 1


# --- a folder as a data set --------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder; the tests run where JupyterLab starts a notebook."""
    for name in ("notebooks", "hhlib"):
        (tmp_path / "kit" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "kit/notebooks")
    return tmp_path / "kit"


def test_a_folder_of_class_folders_is_a_data_set(animals, tmp_path):
    split = data.load(animals, seed=3, size=16, root=tmp_path)
    drawn = data.split_pool(data.folder_pool(animals, size=16), query=0.1, train=0.5, seed=3)
    assert split.fingerprint() == drawn.fingerprint()
    assert (split.name, split.seed, split.image_size, split.flip) == (animals.name, 3, 16, True)
    assert torch.equal(split.query[2][0], drawn.query[2][0])
    sizes = data.load(str(animals), query=5, train=20, root=tmp_path).sizes
    assert sizes == {"query": 5, "train": 20, "database": 45}
    assert data.load(animals, root=tmp_path).image_size == 224
    with pytest.raises(ValueError, match="query is 70"):
        data.load(animals, query=70, root=tmp_path)


@pytest.mark.parametrize("extension", ["", ".gz"])
def test_a_folder_of_lists_is_a_data_set(animals, tmp_path, extension):
    split = data.split_unseen(data.folder_pool(animals, size=4), unseen=["emu"], query=0.2)
    folder = tmp_path / "lists"
    shutil.copytree(animals, folder)
    data.write_lists(split, folder)
    for name in ("test.txt", "train.txt", "database.txt"):
        labels = data.read_list(folder / name).labels
        data.write_list(folder / (name + extension), data.read_list(folder / name).paths, labels)
        if extension:
            (folder / name).unlink()
    loaded = data.load(folder, seed=9, size=4)
    assert loaded.fingerprint() == split.fingerprint()
    assert (loaded.name, loaded.seed, loaded.classes) == ("lists", 9, ["cat", "dog", "emu"])
    assert torch.equal(loaded.train[3][0], split.train[3][0])
    (folder / f"train.txt{extension}").unlink()
    with pytest.raises(FileNotFoundError, match=f"{folder}/train.txt"):  # not drawn from its class folders instead
        data.load(folder)


def test_lists_may_lie_beside_a_folder_of_pictures_and_pictures_may_be_cached(animals, tmp_path):
    split = data.split_pool(data.folder_pool(animals, size=4), query=9, train=20, seed=5)
    data.write_lists(split, tmp_path / "lists")
    listed = data.load(animals, lists=tmp_path / "lists", size=4, root=tmp_path, cache=True)
    assert (listed.name, listed.fingerprint()) == (animals.name, split.fingerprint())
    assert isinstance(listed.query.pool.images, torch.Tensor)
    assert torch.equal(listed.query[0][0], split.query[0][0])
    assert (tmp_path / "cache" / f"{animals.name}-4" / "images.npy").is_file()


def test_a_relative_folder_starts_at_the_project_and_a_known_name_wins(animals, project):
    shutil.copytree(animals, project / "pets")
    shutil.copytree(animals, project / "digits")
    for path in ("pets", "notebooks/../pets/", Path("pets"), project / "pets"):
        split = data.load(path, size=4)
        assert (split.name, data.short_name(path)) == ("pets", "pets")
        assert split.query.pool.images.file(0).samefile(project / "pets/cat/00.PNG")
    assert data.load("digits").classes == [str(i) for i in range(10)]
    assert data.short_name("digits") == "digits"
    for path in ("./digits", Path("digits"), project / "digits"):
        split = data.load(path, size=4)
        assert (split.name, split.classes) == ("digits-folder", ["cat", "dog", "emu"])
        assert data.short_name(path) == "digits-folder"


@pytest.mark.parametrize("load", [data.load, data.short_name])
@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("digit", ["'digit'", "digits, shapes, cifar10", "kit/digit ", "Did you mean 'digits'?"]),
        (Path("pets/none"), ["'pets/none'", "digits, shapes", "kit/pets/none "]),
        ("", ["''", "digits, shapes"]),
        (None, ["'None'", "digits, shapes"]),
        ("file.txt", ["'file.txt'", "kit/file.txt is neither"]),
        ("gone.csv", ["'gone.csv'", "a .csv table", "kit/gone.csv is not there"]),
    ],
)
def test_what_is_neither_a_name_nor_a_folder_is_refused(project, load, dataset, words):
    (project / "file.txt").write_text("a file is no folder")
    with pytest.raises(ValueError, match="dataset is ") as caught:
        load(dataset)
    assert all(word in str(caught.value) for word in words), caught.value


def test_every_relative_folder_starts_at_the_project(animals, table, project):
    """From `notebooks/`, where a page runs: what one function writes, the others find."""
    digits = data.load("digits")
    data.write_lists(digits, "digits-seed0")
    assert sorted(path.parent for path in project.rglob("*.txt")) == [project / "digits-seed0"] * 4
    assert data.load("digits", lists="digits-seed0").fingerprint() == digits.fingerprint()
    assert data.read_lists("digits-seed0", pool=digits.query.pool).fingerprint() == digits.fingerprint()
    data.write_list("one.txt", ["cat/00.PNG"], np.array([[1, 0]]))
    shutil.copytree(animals, project / "data/animals")
    listed = data.read_list("one.txt", root="data/animals")
    assert (listed.source, listed.root) == (project / "one.txt", project / "data/animals")
    assert listed.images(4)[0].unique().tolist() == [50]
    assert data.ImageFiles("data/animals", ["cat/00.PNG"], 4)[torch.tensor([0])].shape == (1, 3, 4, 4)  # not one image
    assert data.ImageFiles("data/animals", ["cat/00.PNG"], 4)[0].unique().tolist() == [50]
    pool = data.folder_pool("data/animals", size=4)
    data.cached(pool, "cache")
    assert (project / "cache/images.npy").is_file()
    shutil.copytree(table.parent, project / "table", ignore=shutil.ignore_patterns("kit"))
    assert data.table_pool("table/table.csv", root="table", size=4).images[7].unique().tolist() == [7]
    for call in (data.folder_pool, data.table_pool, data.read_list, data.read_lists):
        with pytest.raises(FileNotFoundError, match=str(project / "nowhere")):
            call("nowhere")
