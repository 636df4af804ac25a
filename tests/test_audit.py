import numpy as np
import torch

from hhlib import data


def make(labels, images=None, query=(0,), train=(1,), database=(2,), name="made"):
    labels = torch.as_tensor(labels, dtype=torch.uint8)
    if images is None:
        images = torch.randint(0, 256, (len(labels), 3, 16, 16), generator=torch.Generator().manual_seed(0))
    pool = data.Pool(images.to(torch.uint8), labels, [str(i) for i in range(labels.shape[1])], flip=True)
    protocol = data.Protocol(len(query), len(train), "lists", False, "")
    return data.Split(name, 0, protocol, *(data.Part(pool, np.array(rows)) for rows in (query, train, database)))


def test_the_numbers_of_a_split_counted_by_hand():
    labels = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]]
    facts = data.audit(make(labels, query=[0, 3], train=[1, 4], database=[1, 2, 4, 5]))
    assert facts["sizes"] == {"query": 2, "train": 2, "database": 4}
    assert facts["classes"] == 3
    assert facts["images_per_class"] == {"query": (0, 1.0, 1), "train": (1, 2.0, 2), "database": (1, 2.0, 3)}
    assert facts["labels_per_image"] == {"query": (1.0, 1), "train": (2.5, 3), "database": (1.5, 3)}
    assert facts["without_label"] == {"query": 0, "train": 0, "database": 1}
    assert facts["similar_pairs"] == 3 / 8  # query 0 with rows 1, 4; query 3 with row 4
    assert facts["same_image"] == {"query/train": 0, "query/database": 0, "train/database": 2}
    assert facts["unanswered"] == 0
    assert facts["problems"] == ["1 of 4 database images have no label: they are wrong for every query"]
    assert facts["notes"] == [
        "2 training images are in the database (50.0% of it): scores reward memory",
        "1 classes that training shows are never asked for (1)",
    ]
    assert facts["verdict"] == ("made: 2 / 2 / 4 (query / train / database), no protocol to compare with: 1 thing off.")


def test_copies_and_queries_in_other_sets_are_off():
    images = torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    images[4] = images[0]  # another identity, the same pixels
    split = make(np.eye(5), images, query=[0, 1], train=[2, 1], database=[3, 4])
    facts = data.audit(split)
    assert facts["same_image"] == {"query/train": 1, "query/database": 0, "train/database": 0}
    assert facts["same_content"] == {"query/train": 0, "query/database": 1, "train/database": 0}
    assert facts["problems"] == [
        "1 of 2 queries are in the train set too: the network was told their labels",
        "1 queries have an exact copy under another name in the database set",
        "2 of 2 queries have no right answer in the database and score 0",
    ]
    assert facts["verdict"].endswith("3 things off.")
    assert facts["notes"][0] == "1 classes that queries show are never trained (0)"
    same = make(np.ones((5, 1)), images[[0, 0, 0, 1, 0]], query=[0, 1, 2], train=[3], database=[4])
    facts = data.audit(same)
    assert facts["same_content"] == {"query/train": 0, "query/database": 3, "train/database": 0}
    assert facts["repeats"] == {"query": 3, "train": 0, "database": 0}
    assert data.audit(split, content=False)["same_content"] is None


def test_sizes_are_compared_with_the_named_protocol():
    facts = data.audit(make(np.ones((3, 2))), protocol="cifar10")
    assert facts["problems"] == [
        "query has 1 images, but the protocol has 1,000",
        "train has 1 images, but the protocol has 5,000",
        "database has 1 images, but the protocol has 54,000",
    ]
    assert "against protocol cifar10: 3 things off" in facts["verdict"]
    for name in ("digits", "shapes"):
        facts = data.audit(data.load(name))
        assert facts["problems"] == []
        assert f"against protocol {name}: nothing off" in facts["verdict"]


def test_near_duplicates_survive_scaling_noise_shift_and_mirror_and_others_do_not():
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.normal(size=(40, 3, 6, 6))).float()
    images = torch.nn.functional.interpolate(smooth, size=(64, 64), mode="bicubic").mul(40).add(128).clamp(0, 255)
    images[20] = (images[0] + torch.from_numpy(rng.normal(0, 3, (3, 64, 64)))).clamp(0, 255)
    images[21] = images[1].flip(-1)
    images[22] = images[2].roll(1, -1)
    split = make(np.ones((40, 1)), images, query=range(20), train=[39], database=range(20, 39))
    found = data.near_duplicates(split.query, split.database, threshold=0.98)
    assert {(row, column) for row, column, _ in found} == {(0, 0), (1, 1), (2, 2)}
    assert [similarity for _, _, similarity in found] == sorted((s for *_, s in found), reverse=True)
    assert data.near_duplicates(split.query, split.query) == []  # an image is no duplicate of itself


def test_lists_are_named_by_their_content():
    first, other = data.audit(data.load("digits")), data.audit(data.load("digits", seed=1))
    assert len(first["lists"]["query"]) == 64
    assert all(first["lists"][part] != other["lists"][part] for part in first["lists"])
    relabelled = make([[0, 1], [1, 0], [1, 0]]), make([[1, 0], [1, 0], [1, 0]])
    assert data.audit(relabelled[0])["lists"]["query"] != data.audit(relabelled[1])["lists"]["query"]
