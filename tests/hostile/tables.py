"""Tables of own pictures, CIFAR-10's pickles, and the annotations of public data sets."""

import json
import pickle

import numpy as np

from hhlib import data
from hhlib.data import sources
from hostile import hostile, put, refused


def table(folder, content):
    """A table of pictures that are there."""
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"x")
    return data.table_pool(put(folder / "own.csv", content))


refused(
    "table",
    table,
    [
        ("nothing", "", "needs path and labels"),
        ("no head", "a.jpg,cat\nb.jpg,dog\n", "needs path and labels"),
        ("no column of labels", "path,class\na.jpg,cat\n", "needs path and labels"),
        ("more fields than the head names", "path,labels\na.jpg,cat,dog\n", "line 2: more fields than the head names"),
        ("a line without a path", "path,labels\n,cat\n", "line 2: no path"),
        ("a path that leaves the root", "path,labels\n../../etc/passwd,cat\n", "leaves the root folder"),
        ("an absolute path", "path,labels\n/etc/passwd,cat\n", "leaves the root folder"),
        ("the same path twice", "path,labels\na.jpg,cat\n./a.jpg,dog\n", "line 3: a.jpg is on line 2 already"),
        ("a picture that is not there", "path,labels\nc.jpg,cat\n", "line 2: there is no file"),
        ("one class", "path,labels\na.jpg,cat\nb.jpg,cat\n", "shows 1 classes (cat), but needs two"),
        ("bytes that are no text", b"path,labels\na\xff.jpg,cat\n", "own.csv is not"),
        ("a zero byte", "path,labels\na\0.jpg,cat\n", "own.csv"),
        ("a field of 200 KB", "path,labels\na.jpg," + "x" * 200_000, "field larger than field limit"),
        ("a quote that is never closed", 'path,labels\n"a.jpg,cat\n', "own.csv"),
        ("a head of 100 KB", "x" * 100_000 + ",labels\n", "needs path and labels"),
        ("a path of 5,000 characters", f"path,labels\n{'x' * 5000},cat\n", "line 2"),
    ],
)


@hostile("table", "a label that a spreadsheet would compute", gives="a class of this name")
def _(folder):
    assert table(folder, "path,labels\na.jpg,=cmd|' /C calc'!A0\nb.jpg,dog\n").classes[0] == "=cmd|' /C calc'!A0"


class Calls:
    """Pickled, it is a call of a function: what a harmful pickle is made of."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def cifar(folder, first):
    """CIFAR-10 whose first file is this; the others are as they should be."""
    images = np.zeros((1, 3072), dtype=np.uint8)
    good = pickle.dumps({"data": images, "labels": [1]}, protocol=2)
    (folder / sources.cifar.FOLDER).mkdir()
    for name in sources.cifar.FILES:
        (folder / sources.cifar.FOLDER / name).write_bytes(good)
    raw = first if isinstance(first, bytes) else pickle.dumps(first, protocol=2)
    (folder / sources.cifar.FOLDER / "data_batch_1").write_bytes(raw)
    pool = sources.cifar10(folder)
    assert len(pool.images) == len(pool.labels)


IMAGES = np.zeros((2, 3072), dtype=np.uint8)
SHAPED = b"cnumpy\ndtype\n(U\x02u1I00\nI01\ntR(K\x03U\x01|NJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb."
NOT = "data_batch_1 is not a CIFAR-10 batch"
refused(
    "pickle",
    cifar,
    [
        ("a command of the shell", b"cos\nsystem\n(S'touch harm'\ntR.", NOT),
        (
            "a command of the shell, in a newer form",
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0atouch harm\x85R.",
            NOT,
        ),
        ("a call of eval", Calls(eval, "open('harm', 'w')"), NOT),
        ("a call of a program", b"csubprocess\nPopen\n(lp0\nS'touch'\naS'harm'\natR.", NOT),
        ("a function behind a dotted name", b"\x80\x04\x8c\x05numpy\x8c\x0bf2py.os.exec\x93.", NOT),
        ("an import that runs code", b"cantigravity\nfly\n.", NOT),
        ("NumPy's own loader of pickles", b"cnumpy\nload\n(S'x.npy'\ntR.", NOT),
        ("nothing", b"", NOT),
        ("cut short", pickle.dumps({"data": IMAGES, "labels": [1, 2]}, protocol=2)[:2000], NOT),
        ("no dict", [1, 2, 3], NOT),
        ("no labels", {"data": IMAGES}, NOT),
        ("labels of 10", {"data": IMAGES, "labels": [1, 10]}, "data_batch_1"),
        ("negative labels", {"data": IMAGES, "labels": [1, -1]}, "data_batch_1"),
        ("labels that are text", {"data": IMAGES, "labels": ["cat", "dog"]}, "data_batch_1"),
        ("labels that are huge", {"data": IMAGES, "labels": [1, 2**70]}, "data_batch_1"),
        ("more labels than pictures", {"data": IMAGES, "labels": [1, 2, 3]}, "data_batch_1"),
        ("pictures of floats", {"data": IMAGES.astype(float), "labels": [1, 2]}, "data_batch_1"),
        ("pictures of another size", {"data": IMAGES[:, :100], "labels": [1, 2]}, "data_batch_1"),
        ("a state of NumPy's types that ends the process", SHAPED, "data_batch_1"),
        ("a name that stands for an object elsewhere", b"Q", "data_batch_1"),
        ("a frame longer than any file", b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "data_batch_1"),
        ("10,000 lists in each other", b"(l" * 10_000 + b".", "data_batch_1"),
    ],
)


def coco(folder, first):
    """COCO's annotations; those of the first year are changed."""
    usual = {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
    usual |= {"images": [{"id": 3, "file_name": "x.jpg"}], "annotations": [{"image_id": 3, "category_id": 1}]}
    (folder / "coco" / "annotations").mkdir(parents=True)
    for year in sources.coco.YEARS:
        (folder / "coco" / year).mkdir()
        (folder / "coco" / year / "x.jpg").write_bytes(b"x")
        content = first if year == sources.coco.YEARS[0] else {}
        raw = content if isinstance(content, str) else json.dumps(usual | content)
        (folder / f"coco/annotations/instances_{year}.json").write_text(raw)
    return sources.coco.coco(folder, 8)


refused(
    "annotations",
    coco,
    [
        ("no JSON", "{", "instances_train2014.json is not an annotation file"),
        ("a list", "[]", "instances_train2014.json is not an annotation file"),
        ("no categories", {"categories": None}, "instances_train2014.json is not an annotation file"),
        (
            "other categories than those of the other year",
            {"categories": [{"id": 1, "name": "cow"}]},
            "different categories",
        ),
        ("an annotation of no picture", {"annotations": [{"image_id": 9, "category_id": 1}]}, "which is not listed"),
        ("a picture in another folder", {"images": [{"id": 3, "file_name": "../x.jpg"}]}, "is not in train2014 itself"),
        ("an id that is a list", {"annotations": [{"image_id": [], "category_id": 1}]}, "instances_train2014"),
        ("10,000 lists in each other", "[" * 10_000, "instances_train2014.json"),
    ],
)


def concepts(folder, first="1\n0\n", images="a\\1.jpg\nb\\2.jpg\n"):
    """NUS-WIDE's files; those of the first concept are changed."""
    place = folder / "AllLabels"
    place.mkdir()
    (folder / "Imagelist.txt").write_text(images)
    for number in range(sources.nuswide.CONCEPTS):
        (place / f"Labels_{number:02d}.txt").write_text(first if number == 0 else "1\n0\n")
    return sources.nuswide.read_concepts(folder, len(sources.nuswide.read_image_list(folder)))


refused(
    "annotations",
    lambda folder, changed: concepts(folder, **changed),
    [
        ("a concept of 2", {"first": "1\n2\n"}, "line 2: '2', but it must be 0 or 1"),
        ("a concept of fewer lines", {"first": "1\n"}, "has 1 lines, but the image list has 2"),
        (
            "a list of pictures with a path that leaves its folder",
            {"images": "a\\..\\..\\1.jpg\n"},
            "is not a relative path",
        ),
    ],
)
