import contextlib
import gzip
import io
import itertools
import os
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hhlib import data
from hhlib.data import reading

words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="/\\:"), min_size=1)
paths = st.lists(words.map(lambda word: f"images/{word}.jpg"), min_size=1, max_size=8, unique=True)


def write(folder, text, name="train.txt"):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


@pytest.fixture
def pictures(tmp_path):
    """Eight small pictures, a stripe of the number's grey in the middle of each, and three lists of them."""
    root = tmp_path / "pictures"
    (root / "a b").mkdir(parents=True)
    for i in range(8):
        pixels = np.zeros((6, 10, 3), dtype=np.uint8)
        pixels[:, 2:8] = 20 * i
        Image.fromarray(pixels).save(root / f"a b/{i}.png")
    write(tmp_path / "lists", "a b/0.png 1 0\na b/1.png 0 1\n", "test.txt")
    write(tmp_path / "lists", "./a b/2.png 1 0\na b/3.png 1 1\n", "train.txt")
    write(tmp_path / "lists", gzip.compress(b"a b//2.png 1 0\r\na b/4.png 0 1\r\n\r\n", mtime=0), "database.txt.gz")
    return root


def test_a_list_is_read_as_it_stands(tmp_path):
    text = "./x/one.jpg 0 1 0\nsome where/two.jpg 1 0 1\n\n  x//../three.jpg\t0  0 0 \r\n"
    for raw in (text.encode(), gzip.compress(text.encode())):
        listed = data.read_list(write(tmp_path, raw))
        assert listed.paths == ["x/one.jpg", "some where/two.jpg", "three.jpg"]
        assert listed.labels.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
        assert listed.lines.tolist() == [1, 2, 4]
        assert listed.classes == ["0", "1", "2"]
    assert data.read_list(write(tmp_path, text), classes=["a", "b", "c"]).classes == ["a", "b", "c"]


@given(paths=paths, data_=st.data(), width=st.integers(2, 5), suffix=st.sampled_from(["txt", "txt.gz"]))
def test_what_is_written_is_read(tmp_path_factory, paths, data_, width, suffix):
    rows = st.lists(
        st.lists(st.integers(0, 1), min_size=width, max_size=width), min_size=len(paths), max_size=len(paths)
    )
    labels = np.array(data_.draw(rows))
    path = tmp_path_factory.mktemp("lists") / f"list.{suffix}"
    data.write_list(path, paths, labels)
    listed = data.read_list(path)
    assert listed.paths == paths
    assert (listed.labels == labels).all()
    raw = path.read_bytes()
    data.write_list(path, paths, labels)
    assert path.read_bytes() == raw


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "train.txt lists no image"),
        ("\n \n", "train.txt lists no image"),
        ("a.jpg 1 0\nb.jpg 1 0 0\n", "train.txt line 2: there are 3 labels, but 2 are"),
        ("a.jpg 1 0\nb.jpg 1\n", "train.txt line 2: there are 1 labels, but 2 are"),
        ("a.jpg 1 0\n\nb.jpg 1 2\n", "train.txt line 3: a label is '2'"),
        ("a.jpg 1 0\nb.jpg -1 1\n", "train.txt line 2: a label is '-1'"),
        ("a.jpg 1 0\nb.jpg 0.5 1\n", "train.txt line 2: a label is '0.5'"),
        ("a.jpg 1 0\nb.jpg 10 1\n", "train.txt line 2: a label is '10'"),
        ("a.jpg 1.000e+00 0.000e+00\n", "train.txt line 1: a label is '1.000e.00'"),
        ("a.jpg 1 0\n".encode("utf-16"), "train.txt is UTF-16 text, but it must be UTF-8"),
        ("a.jpg 1 0\nb.jpg\n", "train.txt line 2: there is no label after the path"),
        ("a.jpg\n", "train.txt line 1: there is no label after the path"),
        ("a.jpg 1 0\n0 1\n", "train.txt line 2: there are 1 labels, but 2 are"),
        ("a.jpg 1 0\nb.jpg 0 1\n./a.jpg 1 0\n", "train.txt line 3: 'a.jpg' is on line 1"),
        ("../a.jpg 1 0\n", "train.txt line 1: the path '../a.jpg' leaves"),
        ("x/../../a.jpg 1 0\n", "line 1: the path '.*a.jpg' leaves"),
        ("/etc/a.jpg 1 0\n", "line 1: the path '.*a.jpg' leaves"),
        ("C:\\a.jpg 1 0\n", "line 1: the path '.*a.jpg' leaves"),
        (b"a\xff.jpg 1 0\n", "train.txt line 1: the path b'a.xff.jpg' is not UTF-8"),
        (gzip.compress(b"a.jpg 1 0\n" * 50, mtime=0)[:30], "train.txt is a gzip file"),
        (gzip.compress(b"a.jpg 1 0\n", mtime=0)[:-6] + b"xxxxxx", "train.txt is a gzip file"),
        (gzip.compress(b"a.jpg 1 0\n" * 50, mtime=0)[:12] + b"\xff" * 30, "train.txt is a gzip file that is damaged"),
        (gzip.compress(b"x" * 3_000_000, mtime=0), "train.txt line 1 has more than 1,048,576 bytes"),
        (b"a\0.jpg 1 0\n", r"line 1: no file can be called 'a.x00.jpg': too long, a zero byte or no text"),
        (b"a" * 5000 + b".jpg 1 0\n", "line 1: no file can be called 'a{200}[.]{3}'"),
        ("a.jpg 1 " + "9" * 5000, "line 1: a label is '9{200}[.]{3}', but"),
    ],
)
def test_a_broken_list_is_refused_with_file_and_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        data.read_list(write(tmp_path, text))


def test_a_list_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = write(tmp_path, "a.jpg 1 0\n")
    for paths, labels in [(["b.jpg"], [[2, 0]]), (["b.jpg"], [[1, 0], [0, 1]])]:
        with pytest.raises(ValueError, match="labels have shape"):
            data.write_list(path, paths, np.array(labels))
    with pytest.raises(TypeError):
        data.write_list(path, [None], np.array([[1, 0]]))
    assert path.read_text() == "a.jpg 1 0\n"
    assert list(tmp_path.iterdir()) == [path]


def test_three_lists_make_a_split_of_pictures_opened_when_asked_for(pictures, tmp_path):
    split = data.read_lists(tmp_path / "lists", root=pictures, size=4)
    assert split.sizes == {"query": 2, "train": 2, "database": 2}
    images, labels, index = split.train.batch([0, 1])
    assert images.shape == (2, 3, 4, 4)
    assert images.dtype == torch.uint8
    assert images[:, :, 1, 1].tolist() == [[40] * 3, [60] * 3]  # the middle of the stripe
    assert labels.tolist() == [[1, 0], [1, 1]]
    assert split.train.rows[0] == split.database.rows[0]  # the same picture by two spellings
    assert split.image_size == 4
    mean, std = data.channel_statistics(split.train)
    assert mean == pytest.approx([50 / 255] * 3, abs=0.02)


def test_a_split_written_and_read_back_is_equal(pictures, tmp_path):
    split = data.read_lists(tmp_path / "lists", root=pictures, size=4)
    data.write_lists(split, tmp_path / "again")
    again = data.read_lists(tmp_path / "again", root=pictures, size=4)
    assert again.fingerprint() == split.fingerprint()
    digits = data.load("digits", seed=3)
    data.write_lists(digits, tmp_path / "digits")
    again = data.read_lists(tmp_path / "digits", pool=digits.query.pool)
    assert again.fingerprint() == digits.fingerprint() != data.load("digits", seed=4).fingerprint()
    assert again.classes == digits.classes
    for name, part in digits.parts().items():
        assert torch.equal(again.parts()[name].labels, part.labels)


def test_lists_that_contradict_each_other_are_refused_and_can_still_be_audited(pictures, tmp_path):
    lists = tmp_path / "lists"
    read = lambda **how: data.read_lists(lists, root=pictures, size=4, **how)  # noqa: E731
    write(lists, "a b/2.png 1 0\na b/1.png 0 1\n", "test.txt")
    with pytest.raises(ValueError, match="1 of the 2 query images of lists .* train .*a b/2.png"):
        read()
    Image.open(pictures / "a b/1.png").save(pictures / "a b/3.png")  # another name for what query 1 shows
    facts = data.audit(read(check=False), content=True)
    assert facts["same_image"] == {"query/train": 1, "query/database": 1, "train/database": 1}
    assert facts["same_content"] == {"query/train": 1, "query/database": 0, "train/database": 0}
    assert data.audit(read(check=False))["same_content"] is None
    write(lists, "a b/0.png 1 0\na b/2.png 0 1\n", "test.txt")
    with pytest.raises(ValueError, match=r"train.txt line 1: 'a b/2.png' shows 0 here, but 1 in another list; 2 of 6"):
        read()
    write(lists, "a b/0.png 1 0 0\n", "test.txt")
    with pytest.raises(ValueError, match=r"test.txt has 3 labels .* train.txt has 2"):
        read()
    (lists / "test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"test.txt is missing .and test.txt.gz"):
        read()


def test_a_missing_or_broken_picture_is_named_with_file_and_line(pictures, tmp_path):
    split = data.read_lists(tmp_path / "lists", root=pictures, size=4)
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole, "JPEG")
    for raw in (whole.getvalue()[:-200], b"no picture", b""):
        (pictures / "a b/3.png").write_bytes(raw)
        with pytest.raises(ValueError, match=r"train.txt line 2: .*3.png"):
            split.train.batch([0, 1])
    (pictures / "a b/3.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"train.txt line 2: .*{pictures}/a b/3.png"):
        split.train.batch([1])


def test_grey_and_transparent_pictures_get_three_channels(tmp_path):
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        Image.new(mode, (5, 9)).save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"))
    files = data.ImageFiles(tmp_path, ["x.png", "x.tif"], 8)
    assert files[:].shape == files.shape == (2, 3, 8, 8)
    assert files[[]].shape == (0, 3, 8, 8)
    assert files[1].shape == (3, 8, 8)


def test_byte_order_marks_blank_last_lines_and_class_numbers(tmp_path):
    lists = tmp_path / "lists"
    for name in ("test", "train", "database"):
        write(lists, f"\ufeff{name}.jpg 1 0\r\n", f"{name}.txt")
    write(lists, "\ufeffcat\ndog\n\n", "classes.txt")
    split = data.read_lists(lists)
    assert split.classes == ["cat", "dog"]
    assert split.train.pool.path(split.train.rows[0]) == "train.jpg"
    with pytest.raises(ValueError, match="train.txt has one number per line"):
        data.read_list(write(tmp_path, "a.jpg 0\nb.jpg 1\n"))
    write(lists, b"caf\xe9\ndog\n", "classes.txt")
    with pytest.raises(ValueError, match="classes.txt is not UTF-8"):
        data.read_lists(lists)


def test_two_lines_for_one_image_are_refused_whatever_they_call_it(tmp_path):
    labels = torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8)
    pool = data.Pool(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), labels, ["a", "b"], True, paths=["z/x.jpg", "z/y.jpg"])
    lists = tmp_path / "named"
    write(lists, "y.jpg 0 1\n", "test.txt")
    write(lists, "x.jpg 1 0\n", "train.txt")
    write(lists, "m/x.jpg 1 0\nn/x.jpg 1 0\n", "database.txt")
    with pytest.raises(ValueError, match="database.txt line 2: 'z/x.jpg' is on line 1"):
        data.read_lists(lists, pool=pool)


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", " x.jpg", "x\ny.jpg", "a//x.jpg", "a\\x.jpg"])
def test_paths_that_would_not_come_back_are_not_written(tmp_path, name):
    with pytest.raises(ValueError, match="train.txt: the path .* (leaves|would not be read back)"):
        data.write_list(tmp_path / "train.txt", [name], np.array([[1, 0]]))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match=f"{path} is a folder, a pipe or a device, but it must be a file"):
            data.read_list(path)


def test_a_text_is_read_in_pieces_up_to_a_bound(tmp_path, monkeypatch):
    """Blank lines take no memory, however many a gzip file holds; unpacked bytes are counted while they are read."""
    path = write(tmp_path, gzip.compress(b"a.jpg 1 0\n" + b"\n" * 300_000 + b"b.jpg 0 1"))
    monkeypatch.setattr(reading, "PIECE", 1 << 13)
    tracemalloc.start()
    assert data.read_list(path).lines.tolist() == [1, 300_002]
    assert tracemalloc.get_traced_memory()[1] < 500_000  # all lines at once would take 2.4 MB
    tracemalloc.stop()
    monkeypatch.setattr(reading, "MOST_TEXT", 100_000)
    with pytest.raises(ValueError, match="train.txt has more than the 100,000 bytes unpacked that are read"):
        data.read_list(path)
    with pytest.raises(ValueError, match="classes.txt has 5 bytes, but at most 4 are read"):
        reading.read_bytes(write(tmp_path, "a\nb\nc", "classes.txt"), 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\ndog\ncat\n", "classes.txt line 3: 'cat' is on line 1 already"),
        ("cat\n\ndog\n", "classes.txt line 2: no name"),
        ("cat\ndog\nemu\n", "line 1: there are 2 labels, but 3 are expected"),
    ],
)
def test_class_names_are_one_per_line_and_each_once(pictures, tmp_path, text, message):
    write(tmp_path / "lists", text, "classes.txt")
    with pytest.raises(ValueError, match=message):
        data.read_lists(tmp_path / "lists", root=pictures)


@pytest.mark.parametrize("name", ["cat\ndog", "cat\u2028dog", "", " cat"])
def test_class_names_that_would_not_come_back_are_not_written(tmp_path, name):
    pool = data.Pool(
        torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.eye(3, dtype=torch.uint8), ["a", "b", name], True
    )
    part = data.Part(pool, [0])
    split = data.Split("x", 0, data.PROTOCOLS["digits"], part, part, part)
    with pytest.raises(ValueError, match="classes.txt: the class .* would not be read back"):
        data.write_lists(split, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- lists of pictures that a data set has, with columns in any order ----------------------------------------------


@pytest.fixture
def known():
    """Six pictures of four classes that are not in alphabetical order; no two classes are on the same pictures."""
    labels = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0]])
    pixels = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)
    return data.Pool(pixels, labels.to(torch.uint8), ["sea", "ape", "fox", "cat"], True, [f"{i}.jpg" for i in range(6)])


def lists_of(folder, pool, order, change=None):
    """Lists of two pictures each, whose columns are the pool's classes in this order."""
    labels = pool.labels.numpy()[:, order]
    for row in change or ():
        labels[row] = 1 - labels[row]
    for start, name in enumerate(["test.txt", "train.txt", "database.txt"]):
        rows = slice(2 * start, 2 * start + 2)
        data.write_list(folder / name, pool.paths[rows], labels[rows])
    return folder


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))][::5])
@pytest.mark.parametrize("named", [True, False])
def test_columns_are_matched_by_name_or_by_the_labels_themselves(tmp_path, known, order, named):
    lists = lists_of(tmp_path, known, list(order))
    if named:
        (lists / "classes.txt").write_text("\n".join(known.classes[i] for i in order))
    alphabetical = list(order) == [1, 3, 2, 0]
    silent = named or alphabetical or list(order) == [0, 1, 2, 3]
    with contextlib.nullcontext() if silent else pytest.warns(UserWarning, match="in the only order in which"):
        split = data.read_lists(lists, pool=known)
    assert split.classes == known.classes
    assert torch.equal(split.train.labels, known.labels[2:4])
    how = "by their names" if named else "in alphabetical order" if alphabetical else "in the only order"
    assert how in split.protocol.about or list(order) == [0, 1, 2, 3]


def test_labels_that_differ_in_every_order_are_named(tmp_path, known):
    says = (
        "'3.jpg' shows sea and ape and fox here, but cat in the data set; 1 of 6 lines differ, with the columns in al"
    )
    with pytest.raises(ValueError, match=f"train.txt line 2: {says}phabetical order .read_lists without pool= takes"):
        data.read_lists(lists_of(tmp_path, known, [1, 3, 2, 0], change=[3]), pool=known)
    (tmp_path / "classes.txt").write_text("ape\nsea\nfox\ncat")  # names decide, even where the labels would agree
    with pytest.raises(ValueError, match="with the columns by their names"):
        data.read_lists(lists_of(tmp_path, known, [1, 3, 2, 0]), pool=known)


def test_an_order_that_two_classes_could_share_is_not_guessed(tmp_path, known):
    alike = replace(known, labels=known.labels[:, [0, 1, 2, 2]])
    with pytest.raises(ValueError, match="lines differ"):
        data.read_lists(lists_of(tmp_path, alike, [3, 0, 2, 1]), pool=alike)
    narrow = replace(known, labels=known.labels[:, :3], classes=known.classes[:3])
    with pytest.raises(ValueError, match="train.txt has 4 labels per line, but the data set has 3 classes"):
        data.read_lists(lists_of(tmp_path, known, [0, 1, 2, 3]), pool=narrow)
