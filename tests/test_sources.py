"""Loaders against small files in the exact official format, made here."""

import json
import shutil

import pytest
import torch
from PIL import Image

from hhlib import data
from hhlib.data import protocols, sources
from hhlib.data.sources import imagenet, nuswide
from hhlib.data.splits import Protocol

CONCEPTS = [f"concept{i:02d}" for i in range(81)]


@pytest.fixture(autouse=True)
def fresh():
    data._in_memory.cache_clear()
    yield
    data._in_memory.cache_clear()


def picture(path, grey=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (grey % 256,) * 3).save(path)


def rule(monkeypatch, name, **numbers):
    """The named protocol with numbers that small files can meet."""
    small = Protocol(**(vars(data.PROTOCOLS[name]) | numbers))
    monkeypatch.setitem(protocols.PROTOCOLS, name, small)


# --- NUS-WIDE ----------------------------------------------------------------------------------------------------


@pytest.fixture
def nus(tmp_path):
    """120 images, 81 concepts: concept k is on the images whose number is below 81 - k; none on the last 39.

    As on the official site: backslashes in the image list, Windows line ends, a blank after each flag.
    """
    folder = tmp_path / "nus-wide"
    (folder / "ImageList").mkdir(parents=True)
    (folder / "Groundtruth/AllLabels").mkdir(parents=True)
    names = [f"topic{i % 3}\\{i:04d}_{1000 + i}.jpg" for i in range(120)]
    (folder / "ImageList/Imagelist.txt").write_bytes("\r\n".join(names).encode() + b"\r\n")
    for k, concept in enumerate(CONCEPTS):
        flags = "".join(f"{int(i < 81 - k)} \r\n" for i in range(120))
        (folder / f"Groundtruth/AllLabels/Labels_{concept}.txt").write_bytes(flags.encode())
    for i, name in enumerate(names):
        picture(folder / "Flickr" / name.replace("\\", "/"), grey=i)
    return tmp_path


def test_nuswide_keeps_the_most_frequent_concepts_and_the_images_that_carry_one(nus):
    pool = sources.pool_of("nuswide_21", nus, 4)
    assert pool.classes == CONCEPTS[:21]
    assert len(pool.labels) == 81
    assert pool.labels.sum(dim=0).tolist() == [81 - k for k in range(21)]
    assert pool.labels[70].tolist() == [1] * 11 + [0] * 10
    assert pool.paths[70] == "Flickr/topic1/0070_1070.jpg"
    assert pool.images[70].unique().tolist() == [70]
    everything = nuswide.nuswide(nus, 4)
    assert everything.labels.shape == (81, 81)


def test_nuswide_ties_in_frequency_are_broken_by_name_and_columns_stay_alphabetical(nus):
    rare = nus / "nus-wide/Groundtruth/AllLabels"
    (rare / "Labels_zzz.txt").write_bytes(b"1\n" * 120)
    (rare / f"Labels_{CONCEPTS[5]}.txt").unlink()
    assert nuswide.nuswide(nus, 4, concepts=3).classes == [*CONCEPTS[:2], "zzz"]
    assert len(nuswide.nuswide(nus, 4, concepts=3).labels) == 120


def test_nuswide_m_finds_labels_by_photo_id(nus):
    for i in (3, 77, 100):
        picture(nus / f"nus-wide-m/images/{9 + i}_{1000 + i}_0ab{i}_m.jpg", grey=i)
    pool = sources.pool_of("nuswide_81_m", nus, 4)
    assert pool.paths == ["images/12_1003_0ab3_m.jpg", "images/86_1077_0ab77_m.jpg"]  # number 100 has no label
    assert pool.labels.sum(dim=1).tolist() == [78, 4]
    assert pool.images[1].unique().tolist() == [77]
    assert sources.pool_of("nuswide_21_m", nus, 4).labels.shape == (2, 21)


def test_nuswide_split_gives_each_concept_its_share(nus, monkeypatch):
    rule(monkeypatch, "nuswide_21", query=42, train=21, size=39)
    split = data.load("nuswide_21", root=nus, size=4)
    assert split.sizes == {"query": 42, "train": 21, "database": 39}
    assert (split.query.labels.sum(dim=0) >= 2).all()
    assert (split.train.labels.sum(dim=0) >= 1).all()
    assert data.audit(split)["same_image"] == {"query/train": 0, "query/database": 0, "train/database": 21}
    rule(monkeypatch, "nuswide_21", query=42, train=21, size=40)
    with pytest.warns(UserWarning, match="nuswide_21: database has 39 images, but the protocol has 40"):
        data.load("nuswide_21", root=nus, size=4)


def test_missing_pictures_are_counted_and_left_out(nus):
    shutil.rmtree(nus / "nus-wide/Flickr/topic0")
    with pytest.warns(UserWarning, match=r"lacks 27 of the pictures of NUS-WIDE .81 .*Flickr/"):
        pool = sources.pool_of("nuswide_21", nus, 4)
    assert len(pool.labels) == 54
    assert pool.images[0].unique().tolist() == [1]
    shutil.rmtree(nus / "nus-wide/Flickr")
    with pytest.raises(FileNotFoundError, match="holds none of the pictures of NUS-WIDE .* data/README.md says where"):
        sources.pool_of("nuswide_21", nus, 4)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "Groundtruth/AllLabels/Labels_concept07.txt",
            b"1\n0\n",
            "concept07.txt has 2 lines, but the image list has 120",
        ),
        (
            "Groundtruth/AllLabels/Labels_concept07.txt",
            b"1\n" * 119 + b"2\n",
            "concept07.txt line 120: '2', but it must",
        ),
        (
            "Groundtruth/AllLabels/Labels_concept07.txt",
            b"1\n10\n" * 60,
            "concept07.txt line 2: '10', but it must be 0 or",
        ),
        (
            "Groundtruth/AllLabels/Labels_concept07.txt",
            b"\xff\n" * 120,
            "concept07.txt line 1: .*, but it must be 0 or 1",
        ),
        ("Groundtruth/AllLabels/Labels_extra.txt", b"1\n" * 120, "holds 82 files Labels_.* 81"),
        (
            "ImageList/Imagelist.txt",
            b"a\\1_1.jpg\n..\\b.jpg\n",
            "Imagelist.txt line 2: '../b.jpg' is not a relative path",
        ),
        ("ImageList/Imagelist.txt", b"a\\1_1.jpg\n\nc\n", "Imagelist.txt line 2: '' is not a relative path"),
    ],
)
def test_bad_nuswide_files_are_refused(nus, file, content, message):
    (nus / "nus-wide" / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        sources.pool_of("nuswide_21", nus, 4)


def test_missing_nuswide_files_are_named(nus):
    with pytest.raises(FileNotFoundError, match="nus-wide-m/images holds no pictures of NUS-WIDE-m"):
        sources.pool_of("nuswide_81_m", nus, 4)
    picture(nus / "nus-wide-m/images/holiday.jpg")
    with pytest.raises(ValueError, match="holiday.jpg: its name should be <number>_<photo id>_<secret>_m.jpg"):
        sources.pool_of("nuswide_81_m", nus, 4)
    shutil.rmtree(nus / "nus-wide/Groundtruth")
    with pytest.raises(
        FileNotFoundError, match=r"AllLabels .*folder of concept files.*load.'nuswide_21', download=True."
    ):
        sources.pool_of("nuswide_21", nus, 4)


# --- COCO --------------------------------------------------------------------------------------------------------


@pytest.fixture
def coco_root(tmp_path):
    """80 categories with COCO's gaps in their ids; 12 training and 8 validation images, of which some show nothing."""
    ids = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    categories = [{"id": i, "name": f"thing{i}", "supercategory": "x"} for i in reversed(ids)]
    for year, count in (("train2014", 12), ("val2014", 8)):
        images = [{"id": 100 + i, "file_name": f"COCO_{year}_{100 + i:012d}.jpg", "width": 6} for i in range(count)]
        notes = [
            {"id": i, "image_id": 100 + i, "category_id": ids[k], "segmentation": [[0.5] * 8], "iscrowd": k % 2}
            for i in range(0, count, 2)  # every other image
            for k in (0, 0, 11 + i)
        ]
        content = {"info": {}, "licenses": [], "images": images, "annotations": notes, "categories": categories}
        (tmp_path / "coco/annotations").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"coco/annotations/instances_{year}.json").write_text(json.dumps(content))
        for i, image in enumerate(images):
            picture(tmp_path / "coco" / year / image["file_name"], grey=i)
    return tmp_path


def test_coco_pools_both_years_and_leaves_out_images_without_a_label(coco_root):
    pool = sources.pool_of("coco", coco_root, 4)
    assert len(pool.labels) == 6 + 4
    assert pool.classes[:2] == ["thing1", "thing2"]
    assert pool.classes[11] == "thing13"
    assert len(pool.classes) == 80
    assert pool.labels[1].nonzero().flatten().tolist() == [0, 13]
    assert pool.paths[7] == "val2014/COCO_val2014_000000000102.jpg"
    assert pool.images[7].unique().tolist() == [2]


def test_coco_split(coco_root, monkeypatch):
    rule(monkeypatch, "coco", query=3, train=4, size=7)
    split = data.load("coco", root=coco_root, size=4)
    assert split.sizes == {"query": 3, "train": 4, "database": 7}
    assert split.protocol.topk == 5_000
    with pytest.raises(ValueError, match=r"coco needs 5000 query and 10000 training images, but there are 10 and 0"):
        monkeypatch.undo()
        data.load("coco", root=coco_root)


def test_published_coco_lists_have_their_columns_in_alphabetical_order(coco_root, tmp_path, monkeypatch):
    rule(monkeypatch, "coco", query=2, train=3, size=3)
    pool = sources.pool_of("coco", coco_root, 4)
    column = [pool.classes.index(name) for name in sorted(pool.classes)]  # thing1, thing10, thing11, thing13, ...
    for name, rows in (("test", [6, 7]), ("train", [0, 1, 2]), ("database", [3, 4, 5])):
        data.write_list(tmp_path / f"{name}.txt", [pool.paths[row] for row in rows], pool.labels[rows][:, column])
    split = data.load("coco", root=coco_root, lists=tmp_path, size=4)
    assert torch.equal(split.database.labels, pool.labels[3:6])
    assert split.classes == pool.classes


def test_bad_coco_files_are_refused(coco_root):
    file = coco_root / "coco/annotations/instances_val2014.json"
    good = json.loads(file.read_text())
    for change, message in [
        ({"images": None}, "instances_val2014.json is not an annotation file of COCO"),
        ({"categories": good["categories"][1:]}, "names image 100, category 90|name different categories"),
        ({"annotations": [{"image_id": 7, "category_id": 1}]}, "an annotation names image 7, category 1, which is not"),
        (
            {"images": [{"id": 100, "file_name": "../x.jpg"}], "annotations": []},
            r"the picture '../x.jpg' is not in val2014 itself",
        ),
        ({"images": [*good["images"], good["images"][0]]}, "an id or a file_name is there twice"),
        ({"images": [*good["images"], good["images"][0] | {"id": 7}]}, "an id or a file_name is there twice"),
        ({"images": [{"id": 100, "file_name": 5}]}, "TypeError: file_name is 5"),
        ({"images": [{"id": 100, "file_name": "\ud800.jpg"}], "annotations": []}, "no file can be called '.*ud800"),
        ({"categories": [*good["categories"], {"id": 1000, "name": "thing1"}]}, "an id or a name is there twice"),
        ({"categories": [{"id": i, "name": str(i)} for i in (1, "2")]}, "is not an annotation file of COCO .TypeError"),
        ({"annotations": [{"image_id": [], "category_id": 1}]}, "names image|is not an annotation file"),
        ({"annotations": [7]}, "is not an annotation file of COCO .TypeError"),
    ]:
        file.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=message):
            sources.pool_of("coco", coco_root, 4)
    file.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="instances_val2014.json is not an annotation file of COCO .RecursionError"):
        sources.pool_of("coco", coco_root, 4)
    file.write_text(json.dumps(good)[:-50])
    with pytest.raises(ValueError, match="instances_val2014.json is not an annotation file of COCO .JSONDecodeError"):
        sources.pool_of("coco", coco_root, 4)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"missing: .*instances_val2014.json; data.load.'coco', download=True."):
        data.load("coco", root=coco_root)


def test_pictures_and_classes_that_no_table_can_hold_are_refused(coco_root):
    file = coco_root / "coco/annotations/instances_val2014.json"
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(70_000)]
    categories = [{"id": i, "name": str(i)} for i in range(70_000)]
    file.write_text(json.dumps({"images": images, "categories": categories, "annotations": []}))
    with pytest.raises(ValueError, match="has 70,000 classes and 70,000 pictures; their product may be 4,294,967,296"):
        sources.pool_of("coco", coco_root, 4)


def test_annotations_of_nothing_are_refused(coco_root):
    for file in (coco_root / "coco/annotations").iterdir():
        file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    with pytest.raises(ValueError, match="none of the pictures of MS-COCO 2014 has a label"):
        sources.pool_of("coco", coco_root, 4)


# --- ImageNet ----------------------------------------------------------------------------------------------------


@pytest.fixture
def imagenet_root(tmp_path):
    """100 class folders with 4 training and 1 validation picture each, and folders of other classes."""
    for number, synset in enumerate([*imagenet.SYNSETS, "n99999999"]):
        for i in range(4):
            picture(tmp_path / f"imagenet/train/{synset}/{synset}_{i}.JPEG", grey=number)
        picture(tmp_path / f"imagenet/val/{synset}/ILSVRC2012_val_{number:08d}.JPEG", grey=number)
        (tmp_path / f"imagenet/train/{synset}/readme.txt").write_text("no picture")
    return tmp_path


def test_imagenet_queries_are_validation_images(imagenet_root, monkeypatch):
    rule(monkeypatch, "imagenet", query=100, train=200, size=400)
    split = data.load("imagenet", root=imagenet_root, size=4)
    assert split.sizes == {"query": 100, "train": 200, "database": 400}
    assert all(split.query.pool.path(row).startswith("val/") for row in split.query.rows)
    assert all(split.query.pool.path(row).startswith("train/") for row in split.database.rows)
    assert split.train.labels.sum(dim=0).tolist() == [2] * 100
    numbers = split.database.labels.argmax(dim=1)
    assert torch.equal(split.database.batch(range(400))[0][:, 0, 0, 0], numbers.to(torch.uint8))
    assert data.audit(split)["problems"] == []
    assert (len(set(split.classes)), split.classes[:2], split.classes[-1]) == (
        100,
        ["cock", "indigo bunting"],
        "earthstar",
    )


def test_the_synsets_are_those_of_the_published_lists():
    assert len(set(imagenet.SYNSETS)) == 100
    assert sorted(imagenet.SYNSETS) == imagenet.SYNSETS
    assert (imagenet.SYNSETS[0], imagenet.SYNSETS[33]) == ("n01514668", "n02256656")


def test_published_lists_find_pictures_in_class_folders_by_name(imagenet_root, monkeypatch, tmp_path):
    rule(monkeypatch, "imagenet", query=1, train=1, size=2)
    first, other = imagenet.SYNSETS[0], imagenet.SYNSETS[1]
    one, two = ("1 " + "0 " * 99).strip(), ("0 1 " + "0 " * 98).strip()
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "test.txt").write_text(f"./val_image/ILSVRC2012_val_00000001.JPEG {two}\n")
    (lists / "train.txt").write_text(f"./image/{first}_2.JPEG {one}\n")
    (lists / "database.txt").write_text(f"./image/{first}_2.JPEG {one}\n./image/{other}_0.JPEG {two}\n")
    split = data.load("imagenet", root=imagenet_root, size=4, lists=lists)
    assert [split.query.pool.path(row) for row in split.train.rows] == [f"train/{first}/{first}_2.JPEG"]
    assert split.query[0][0].unique().tolist() == [1]
    assert split.protocol.topk == 1_000
    (lists / "train.txt").write_text(f"./image/{first}_9.JPEG {one}\n")
    with pytest.raises(ValueError, match=r"train.txt line 1: the data set has no image 'image/n01514668_9.JPEG'"):
        data.load("imagenet", root=imagenet_root, size=4, lists=lists)


def test_missing_class_folders_are_counted(imagenet_root):
    shutil.rmtree(imagenet_root / "imagenet/val" / imagenet.SYNSETS[4])
    with pytest.raises(FileNotFoundError, match=r"val lacks pictures in 1 of 100 .* n01632458 .val must"):
        sources.pool_of("imagenet", imagenet_root, 4)
    shutil.rmtree(imagenet_root / "imagenet/train")
    with pytest.raises(FileNotFoundError, match="train lacks pictures in 100 of 100"):
        sources.pool_of("imagenet", imagenet_root, 4)


@pytest.mark.parametrize("name", [name for name in data.names() if name not in ("digits", "shapes")])
def test_data_that_is_not_there_says_so(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*(download=True|data/README.md)"):
        data.load(name, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_protocols_are_those_of_the_table():
    table = {name: (p.query, p.train, p.size, p.topk) for name, p in data.PROTOCOLS.items()}
    assert table == {
        "digits": (200, 1_000, 597, None),
        "shapes": (300, 1_200, 2_000, None),
        "clothes": (372, 3_068, 3_068, None),
        "clothes-validation": (341, 3_068, 3_068, None),
        "cifar10": (1_000, 5_000, 54_000, None),
        "cifar10-1": (1_000, 5_000, 59_000, None),
        "cifar10-2": (10_000, 50_000, 50_000, None),
        "nuswide_21": (2_100, 10_500, 195_834 - 2_100, 5_000),
        "nuswide_21_m": (2_100, 10_500, None, 5_000),
        "nuswide_81_m": (5_000, 10_000, 173_692 - 5_000, 5_000),
        "imagenet": (5_000, 13_000, 128_503, 1_000),
        "coco": (5_000, 10_000, 122_218 - 5_000, 5_000),
    }
