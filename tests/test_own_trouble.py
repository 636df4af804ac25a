"""What `data.load` makes of a folder or a table of own pictures, and what it says of those that cannot be used."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from hhlib import data, metrics, runs, settings, training


@pytest.fixture
def made(tmp_path):
    """``made("cat/1.png", ...)`` is a folder with these pictures, each of one grey value of its own."""

    def make(*names):
        for name in names:
            path = tmp_path / "own" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = len([*(tmp_path / "own").rglob("*.png")])
            Image.new("L", (4, 4), grey).save(path, "PNG")
        return tmp_path / "own"

    return make


@pytest.fixture
def load(tmp_path):
    """`data.load` that keeps its verdicts in a folder of the test."""
    return lambda *arguments, **how: data.load(*arguments, root=tmp_path / "data", size=4, query=0.3, **how)


def names(*folders, each=3):
    return [f"{folder}/{i}.png" for folder in folders for i in range(each)]


def test_a_tree_is_the_given_split(made, load):
    root = made(*names("train/cat", "train/dog"), *names("test/cat", "test/dog", each=2))
    with pytest.warns(UserWarning, match="its folders test, train are taken as the split; the database is"):
        split = load(root)
    assert split.sizes == {"query": 4, "train": 6, "database": 6}
    assert split.query.paths == ["test/cat/0.png", "test/cat/1.png", "test/dog/0.png", "test/dog/1.png"]
    assert (split.classes, split.name, split.validation) == (["cat", "dog"], "own", None)
    assert torch.equal(split.database.rows, split.train.rows)
    assert split.query.labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_a_tree_may_have_a_database_of_its_own_and_a_validation_part_chooses_the_epoch(made, load):
    folders = [f"{part}/{name}" for part in ("Training", "val", "query", "gallery") for name in ("cat", "dog")]
    with pytest.warns(UserWarning, match="its folders Training, gallery, query, val are taken as the split[.]"):
        split = load(made(*names(*folders)), cache=True)
    assert {path.split("/")[0] for path in split.database.paths} == {"gallery"}
    assert {path.split("/")[0] for path in split.validation.paths} == {"val"}
    assert split.validation.pool is split.query.pool  # the cached pictures
    given = settings.read(bits=8, validation=0.5)
    learns, held = training.parts(split, given)
    assert (learns.paths, held.paths) == (split.train.paths, split.validation.paths)
    assert len(training.parts(split, settings.read(bits=8, validation=0.0))[1]) == 0  # the last epoch is kept
    assert len(training.parts(split, settings.read(bits=8, method="adsh"))[1]) == 0


def test_validation_pictures_ask_where_no_others_do(made, load):
    root = made(*names("train/cat", "train/dog", "dev/cat", "dev/dog"))
    with pytest.warns(UserWarning, match="its folders dev, train"):
        split = load(root)
    assert {path.split("/")[0] for path in split.query.paths} == {"dev"}
    assert split.validation is None


def test_a_given_validation_part_is_in_the_fingerprint(made, load):
    root = made(*names("train/cat", "train/dog", "test/cat", "test/dog", "val/cat", "val/dog"))
    with pytest.warns(UserWarning, match="are taken"):
        before = load(root)
    (root / "val/cat/0.png").unlink()
    with pytest.warns(UserWarning, match="are taken"):
        after = load(root)
    assert before.fingerprint() != after.fingerprint()


def test_pictures_without_labels_are_a_data_set_that_nothing_can_score(made, load, tmp_path):
    split = load(made(*(f"{i:02d}.png" for i in range(40))))
    assert (split.classes, tuple(split.query.labels.shape)) == ([], (len(split.query), 0))
    assert sum(split.sizes.values()) == 40
    sentence = "own has no labels, so there is nothing to train or to score; a folder with a folder per class has them"
    with pytest.raises(ValueError, match=sentence):
        training.fit(split, runs.Run(tmp_path / "run"), settings.read(bits=8))
    with pytest.raises(ValueError, match=sentence):
        data.audit(split)
    with pytest.raises(ValueError, match="no labels"):
        data.similar_share(split.query, split.database)
    with pytest.raises(ValueError, match="labels have shape"):
        data.write_lists(split, tmp_path / "lists")
    z = np.ones((len(split.query), 8))
    with pytest.raises(ValueError, match="query labels are"):
        metrics.evaluate(z, split.query.labels, z, split.query.labels)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def troubled(made):
    """Three classes, and one of each thing that cannot be used."""
    root = made(*names("cat", "dog", each=20), "emu/0.png", "loose.png", "cat/cut.png")
    (root / "cat/cut.png").write_bytes((root / "cat/cut.png").read_bytes()[:-20])
    (root / "dog/eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    (root / "dog/gone.png").symlink_to("/nowhere/gone.png")
    (root / "dog/empty.png").write_bytes(b"")
    (root / "dog/new.heic").write_bytes(b"x")
    return root


def test_all_that_cannot_be_used_is_said_at_once(troubled, load):
    with pytest.raises(ValueError, match="skip=true") as caught:
        load(troubled)
    for words in (
        "links that lead nowhere (1: dog/gone.png)",
        "empty files (1: dog/empty.png)",
        "HEIC files, which must be converted to JPEG or PNG (1: dog/new.heic)",
        "pictures that are damaged or cut short (1: cat/cut.png)",
        "pictures that are no JPEG, PNG, ",
        "pictures that are in no class folder (1: loose.png)",
        "classes with one picture (1: emu/0.png)",
    ):
        assert words in str(caught.value)


def test_with_skip_the_same_is_a_warning_and_the_rest_is_used(troubled, load):
    with pytest.warns(UserWarning, match=r"dog/gone.png.*cat/cut.png.*They are left out"):
        split = load(troubled, skip=True)
    assert sum(split.sizes.values()) == 40
    assert split.classes == ["cat", "dog"]


def test_what_is_wrong_by_its_name_alone_stops_a_pool_too(troubled):
    with pytest.raises(ValueError, match="links that lead nowhere"):
        data.folder_pool(troubled)
    with pytest.warns(UserWarning, match="They are left out"):
        assert len(data.folder_pool(troubled, skip=True).paths) == 42  # no picture is opened


def test_a_picture_is_checked_once_until_it_changes(made, load, tmp_path):
    root = made(*names("cat", "dog", each=20))
    load(root)
    file = root / "cat/7.png"
    whole, date = file.read_bytes(), file.stat()
    file.write_bytes(bytes(len(whole)))
    os.utime(file, ns=(date.st_atime_ns, date.st_mtime_ns))
    load(root)  # of the same size and date, so it is not opened again
    file.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"damaged or cut short .1: cat/7.png"):
        load(root)
    with pytest.raises(ValueError, match=r"damaged or cut short .1: cat/7.png"):  # what is wrong is not forgotten
        load(root)
    Image.new("L", (4, 4)).save(root / "cat/7.png")
    verdicts = tmp_path / "data/cache/own-checked.npy"
    huge = {"descr": "<u8", "fortran_order": False, "shape": (1 << 44,)}
    with verdicts.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, huge)  # 140 TB that are not there
    for harm in (verdicts.read_bytes(), b"broken", b"PK\3\4", b""):
        verdicts.write_bytes(harm)
        assert sum(load(root).sizes.values()) == 40


def test_classes_that_differ_only_in_case_are_named(made, load):
    with pytest.warns(UserWarning, match="the classes Cat, cat differ only in case"):
        load(made(*names("Cat", "cat", "dog", each=9)))


def test_a_table_is_a_data_set(made, load, tmp_path):
    root = made(*(f"{i:02d}.png" for i in range(40)))
    lines = [f"{i:02d}.png,{'sun' if i % 2 else 'sea;sun'}" for i in range(40)]
    table = root / "animals.csv"
    table.write_text("\n".join(["path,labels", *lines]))
    split = load(table)
    assert (split.name, data.short_name(table)) == ("animals", "animals")
    assert split.classes == ["sea", "sun"]
    drawn = data.split_pool(data.table_pool(table, size=4), query=0.3, train=0.5)
    assert split.fingerprint() == drawn.fingerprint()
    data.write_lists(split, tmp_path / "lists")
    assert load(table, seed=5, lists=tmp_path / "lists").fingerprint() == split.fingerprint()
    (root / "03.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"animals.csv has pictures that are no JPEG.*1: 03.png"):
        load(table)
    (root / "05.png").unlink()
    (root / "06.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"line 7: there is no file .*05.png, and 1 more pictures are missing"):
        load(table)
    with pytest.warns(UserWarning, match="1 more pictures are missing; they are left out"):
        left = load(table, skip=True)
    assert sum(left.sizes.values()) == 37
    row = left.query.pool.paths.index("08.png")
    assert left.query.pool.images[row].unique().tolist() == [8]  # rows, labels and pictures moved together
    assert left.query.pool.labels[row].tolist() == [1, 1]


def test_pages_that_need_labels_are_left_out_where_there_are_none(made, from_tools, capsys):
    runner, flat = from_tools("run_notebooks"), made(*(f"{i}.png" for i in range(9)))

    def with_labels(numbers, **how):
        return [path.stem[:2] for path in runner.with_labels(runner.choose(numbers), settings.read(**how))]

    assert with_labels(["00", "03", "12"], dataset=str(flat)) == ["00"]
    printed = capsys.readouterr().out
    assert printed == f"left out, because {flat} has no labels: 03_gpu_training 12_lists_and_folders\n"
    with pytest.raises(ValueError, match="own has no labels, but these pages need them; `hhlib index FOLDER`"):
        with_labels(["03"], dataset=str(flat))
    assert with_labels(["00", "03"], dataset="digits") == ["00", "03"]
    assert with_labels(["03"], dataset=str(flat), lists="lists") == ["03"]
    made(*names("cat", "dog"))
    assert with_labels(["03"], dataset=str(flat)) == ["03"]
    assert capsys.readouterr().out == ""
