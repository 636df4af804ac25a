"""What a folder of pictures holds, by names alone."""

import os

import pytest

from hhlib import data


@pytest.fixture
def made(tmp_path):
    """``made("cat/1.jpg", ...)`` is a folder with these files of a byte each; a name that ends in / is a folder."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.write_bytes(b"x")
        return tmp_path

    return make


def test_the_first_folder_is_the_label(made):
    found = data.scan(made("dog/b/2.PNG", "cat/1.jpg", "cat/deep/er/3.webp"))
    assert found.paths == ["cat/1.jpg", "cat/deep/er/3.webp", "dog/b/2.PNG"]
    assert found.labels == [["cat"], ["cat"], ["dog"]]
    assert found.parts is None
    assert (found.trouble, found.ignored) == ({}, {})


def test_loose_pictures_have_no_label(made):
    root = made("2.jpg", "1.jpg")
    assert data.scan(root).labels == [[], []]
    assert data.scan(made("cat/3.jpg")).labels == [[], [], ["cat"]]


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (["train", "test"], ["train", "query"]),
        (["Training", "TESTING"], ["train", "query"]),
        (["train", "val"], ["train", "validation"]),
        (["train", "dev", "query", "gallery"], ["train", "validation", "query", "database"]),
        (["train", "validation", "test", "database"], ["train", "validation", "query", "database"]),
        (["train", "database"], None),  # nobody asks
        (["test", "val"], None),  # nobody learns
        (["train", "test", "ship"], None),  # vehicles
    ],
)
def test_a_tree_is_known_by_all_of_its_first_folders(made, folders, parts):
    found = data.scan(made(*(f"{folder}/cat/{i}.jpg" for i, folder in enumerate(folders)), "notes/read.txt"))
    order = [found.paths.index(f"{folder}/cat/{i}.jpg") for i, folder in enumerate(folders)]
    assert (found.parts and [found.parts[i] for i in order]) == parts
    assert [found.labels[i] for i in order] == [["cat"] if parts else [folder] for folder in folders]


def test_in_a_tree_a_picture_outside_the_class_folders_has_no_label(made):
    found = data.scan(made("train/cat/1.jpg", "test/2.jpg", "3.jpg"))
    assert found.paths == ["3.jpg", "test/2.jpg", "train/cat/1.jpg"]
    assert (found.labels, found.parts) == ([[], [], ["cat"]], ["", "query", "train"])


def test_junk_and_other_files_are_no_pictures_and_are_named(made):
    junk = [".git/1.jpg", "cat/._1.jpg", "cat/.DS_Store", "@eaDir/cat/1.jpg", "__MACOSX/cat/1.jpg", "cat/Thumbs.db"]
    junk += ["Desktop.ini", "#recycle/1.jpg", "$RECYCLE.BIN/1.jpg", "System Volume Information/1.jpg"]
    found = data.scan(made("cat/1.jpg", "lost+found/", "empty/inner/", "cat/cat.csv", "cat/name", *junk))
    assert (found.paths, found.trouble) == (["cat/1.jpg"], {})
    system = ["#recycle", "$RECYCLE.BIN", "@eaDir", "Desktop.ini", "System Volume Information", "__MACOSX"]
    assert found.ignored == {
        "hidden files and folders": [".git", "cat/.DS_Store", "cat/._1.jpg"],
        "files and folders of the system": sorted([*system, "cat/Thumbs.db", "lost+found"]),
        "files of other types": ["cat/cat.csv", "cat/name"],
        "folders without pictures": ["empty"],
    }


def test_what_cannot_be_used_is_named_by_its_reason(made):
    root = made("cat/1.jpg", "cat/2.HEIC", "cat/3.dng", "cat/4.psd")
    (root / "cat/empty.png").write_bytes(b"")
    (root / "cat/gone.jpg").symlink_to("/nowhere/gone.jpg")
    (root / "cat/itself.jpg").symlink_to(root / "cat/itself.jpg")
    (root / "dog").symlink_to("/nowhere/dog")
    os.mkfifo(root / "cat/pipe.jpg")
    found = data.scan(root)
    assert found.paths == ["cat/1.jpg"]
    assert found.trouble == {
        "links that lead nowhere": ["cat/gone.jpg", "cat/itself.jpg", "dog"],
        "empty files": ["cat/empty.png"],
        "pipes or devices": ["cat/pipe.jpg"],
        "HEIC files, which must be converted to JPEG or PNG": ["cat/2.HEIC"],
        "RAW files, which must be converted to JPEG or PNG": ["cat/3.dng"],
        "Photoshop files, which must be converted to JPEG or PNG": ["cat/4.psd"],
    }


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_named(made):
    root = made("cat/1.jpg", "dog/1.jpg")
    (root / "dog").chmod(0)
    assert data.scan(root).trouble == {"folders that cannot be read": ["dog"]}


def test_names_that_are_no_text_are_named(made):
    root = made("cat/1.jpg", "cat/b\udcff.jpg")
    found = data.scan(root)
    assert found.trouble == {"files whose names are not UTF-8": ["cat/b\udcff.jpg"]}
    assert data.told(found.trouble) == "files whose names are not UTF-8 (1: cat/b\\udcff.jpg)"


def test_what_a_terminal_would_obey_is_escaped():
    found = {"empty files": ["cat/\x1b[2J\n.jpg", "\u202egpj.cat", "\u00e4\u732b.jpg"]}
    assert data.told(found) == r"empty files (3: cat/\x1b[2J\n.jpg, \u202egpj.cat, \u00e4\u732b.jpg)".replace(
        r"\u00e4\u732b", "\u00e4\u732b"
    )


def test_a_class_written_in_two_normal_forms_is_one(made):
    found = data.scan(made("\u00c4pfel/1.jpg", "A\u0308pfel/2.jpg"))
    assert found.labels == [["\u00c4pfel"]] * 2


def test_each_folder_is_entered_once_by_its_own_path(made):
    root = made("zebra/deep/1.jpg", "zebra/2.jpg")
    (root / "ape").symlink_to(root / "zebra/deep", target_is_directory=True)
    (root / "zebra/loop").symlink_to(root, target_is_directory=True)
    (root / "cat.jpg").symlink_to(root / "zebra/2.jpg")
    found = data.scan(root)
    assert found.paths == ["cat.jpg", "zebra/2.jpg", "zebra/deep/1.jpg"]
    assert found.ignored == {"links to folders that are looked at already": ["ape", "zebra/loop"]}


def test_reasons_are_told_with_counts_and_the_first_names():
    found = {"empty files": ["a.jpg"], "links that lead nowhere": [f"{i}.jpg" for i in range(2000)], "nothing": []}
    assert data.told(found) == "empty files (1: a.jpg); links that lead nowhere (2,000: 0.jpg, 1.jpg, 2.jpg, ...)"


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path}/none"):
        data.scan(tmp_path / "none")
