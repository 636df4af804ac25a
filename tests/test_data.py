import itertools
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hhlib import data
from hhlib.data import sources
from hhlib.data.sources import cifar, embedded


def make_cifar(folder, each=1000, seed=0):
    """Six files in the official format: pickled dicts as Python 2 wrote them, random pixels, equal classes."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for name in cifar.FILES:
        numbers = rng.permutation(np.repeat(np.arange(10), each // 10 * 10 // 10)).tolist()
        batch = {"data": rng.integers(0, 256, (len(numbers), 3072), dtype=np.uint8), "labels": numbers}
        batch |= {"batch_label": name, "filenames": [f"{i}.png" for i in range(len(numbers))]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return folder


@pytest.fixture(scope="module")
def cifar_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cifar")
    make_cifar(root / cifar.FOLDER, each=10_000)
    data._in_memory.cache_clear()
    yield root
    data._in_memory.cache_clear()


@pytest.mark.filterwarnings("ignore:.*differ from the official CIFAR-10")
@pytest.mark.parametrize(
    ("name", "sizes", "overlap"),
    [
        ("cifar10", (1_000, 5_000, 54_000), 0),
        ("cifar10-1", (1_000, 5_000, 59_000), 5_000),
        ("cifar10-2", (10_000, 50_000, 50_000), 50_000),
    ],
)
def test_cifar10_protocols(cifar_root, name, sizes, overlap):
    split = data.load(name, root=cifar_root)
    assert tuple(split.sizes.values()) == sizes
    for part in (split.query, split.train):
        assert part.labels.sum(dim=0).tolist() == [len(part) // 10] * 10
    facts = data.audit(split, content=False)
    assert facts["same_image"] == {"query/train": 0, "query/database": 0, "train/database": overlap}
    everything = np.concatenate([part.rows for part in split.parts().values()])
    assert len(np.unique(everything)) == 60_000


def test_cifar10_pixels_and_labels_are_those_of_the_files(cifar_root):
    with pytest.warns(UserWarning, match="data_batch_1"):
        pool = sources.cifar10(cifar_root)
    raw = pickle.loads((cifar_root / cifar.FOLDER / "data_batch_2").read_bytes())
    assert (pool.images[10_000].numpy() == raw["data"][0].reshape(3, 32, 32)).all()
    assert pool.labels[10_000].argmax() == raw["labels"][0]
    assert pool.images.dtype == torch.uint8


def test_cifar10_folder_itself_may_be_given_and_a_missing_one_is_named(cifar_root, tmp_path):
    with pytest.warns(UserWarning, match="differ"):
        assert len(sources.cifar10(cifar_root / cifar.FOLDER).images) == 60_000
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.* lacks data_batch_1, .*download=True"):
        data.load("cifar10", root=tmp_path)


@pytest.mark.filterwarnings("ignore:.*differ from the official CIFAR-10")
def test_a_damaged_or_dangerous_batch_is_refused(tmp_path):
    folder = make_cifar(tmp_path / cifar.FOLDER, each=20)
    good = (folder / "data_batch_3").read_bytes()
    for bad, message in [
        (good[: len(good) // 2], "data_batch_3 is not"),
        (pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [0, 1]}), r"images \(2, 5\) uint8"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 11]}), "labels from 0 to 9"),
        (pickle.dumps({"data": os.system, "labels": []}), "posix.system"),
    ]:
        (folder / "data_batch_3").write_bytes(bad)
        with pytest.raises(ValueError, match=message):
            sources.cifar10(tmp_path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_batch_of_any_protocol_is_read(tmp_path, protocol, order):
    images = np.array(np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8), order=order)
    for labels in ([3, 9], np.array([3, 9]), np.array([3, 9], dtype=">i4")):
        more = {"bytes": b"\xff", "none": None, "flag": True, "tuple": (1, 2, 3, 4), "large": 10**30, "dict": {"a": {}}}
        (tmp_path / "batch").write_bytes(pickle.dumps({"data": images, "labels": labels} | more, protocol=protocol))
        pixels, numbers = cifar.read_batch(tmp_path / "batch")
        assert (pixels == images).all()
        assert (numbers.tolist(), numbers.dtype) == ([3, 9], np.int64)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            b"cnumpy\ndtype\n(U\x02u1I00\nI01\ntR(K\x03U\x01|NJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",
            "is not a CIFAR-10",
        ),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "it has more than 200,000 operations"),  # a memo of 32 GB
        (b"}" + b"N" + b"\x85" * 10_000 + b"NS'x'\ns.", "or more than 100 tuples"),  # too deep to be a key
        (b"N" * 300_000, "it has more than 200,000 operations"),
        (
            b"}(U\x04data]q\x01(h\x01h\x01eU\x06labels]q\x02(h\x02h\x02eu.",
            "holds images  list and 2 labels",
        ),  # of itself
        (b"}N\x85Ns.", "it lacks 'data'"),
        (b"(I1\nI2\nt.", "'tuple' object has no attribute 'items'"),
        (b"s.", "stack underflow"),
        (b"h\x07.", "index 7"),
        (b"cnumpy\nload\n(S'x'\ntR.", "it asks for numpy.load, but only NumPy arrays are read"),
        (b"cos\nsystem\n(S'true'\ntR.", "it asks for os.system"),
        (b"", "pickle exhausted before seeing STOP"),
        (b"\xff", "unknown"),
    ],
)
def test_a_hostile_pickle_is_a_sentence(tmp_path, raw, message):
    (tmp_path / "batch").write_bytes(raw)
    with pytest.raises(ValueError, match=f"{tmp_path}/batch .*{message}"):
        cifar.read_batch(tmp_path / "batch")


@pytest.mark.parametrize(("name", "sizes"), [("digits", (200, 1_000, 597)), ("shapes", (300, 1_200, 2_000))])
def test_embedded_data_sets(name, sizes):
    split = data.load(name, seed=3)
    assert tuple(split.sizes.values()) == sizes
    facts = data.audit(split, content=False)
    assert not any(facts["same_image"].values())
    assert not any(facts["without_label"].values())
    assert split.image_size == 32


def test_digits_are_the_pixels_of_scikit_learn():
    from sklearn.datasets import load_digits

    images = sources.digits().images
    assert images.shape == (1797, 3, 32, 32)
    means = torch.nn.functional.avg_pool2d(images[:, :1].float(), 32).flatten() / 255 * 16
    assert np.abs(means.numpy() - load_digits().images.mean(axis=(1, 2))).max() < 0.1


def test_shapes_carry_a_label_for_each_concept_drawn():
    pool = embedded.shapes(count=400)
    per_image = pool.labels.sum(dim=1)
    assert len(pool.classes) == 12
    assert per_image.min() == 1
    assert per_image.max() == 3
    red = pool.labels[:, [i for i, name in enumerate(pool.classes) if name.startswith("red")]].sum(dim=1) > 0
    pixels = pool.images.float()
    redness = ((pixels[:, 0] > 170) & (pixels[:, 1] < 110) & (pixels[:, 2] < 110)).flatten(1).sum(dim=1)
    assert (redness[red] > 12).all()
    assert (redness[~red] < 4).all()
    assert torch.equal(embedded.shapes(count=400).images, pool.images)


def test_the_seed_makes_the_split():
    first, again, other = (data.load("digits", seed=seed) for seed in (5, 5, 6))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert data.load("digits").fingerprint().startswith("efacfc146caeefdb")  # the same on every machine


def test_parts_give_single_images_and_batches():
    part = data.load("digits").query
    image, labels, index = part[7]
    images, many, indices = part.batch([7, 3])
    assert torch.equal(images[0], image)
    assert torch.equal(many[0], labels)
    assert (index, indices.tolist()) == (7, [7, 3])
    assert torch.equal(part.subset([7])[0][0], image)


def test_validation_is_cut_from_the_training_part_and_keeps_the_balance():
    train = data.load("digits").train
    fit, validation = data.hold_out(train, 0.1, seed=0)
    assert validation.labels.sum(dim=0).tolist() == [10] * 10
    assert sorted(torch.cat([fit.rows, validation.rows]).tolist()) == sorted(train.rows.tolist())
    assert len(data.hold_out(train, 0.0, seed=0)[1]) == 0
    with pytest.raises(ValueError, match="validation is 1.0"):
        data.hold_out(train, 1.0, seed=0)


def test_a_query_in_another_part_is_refused():
    split = data.load("digits")
    for parts in [(split.query, split.query, split.database), (split.query, split.train, split.query)]:
        with pytest.raises(ValueError, match="200 of the 200 query images of leaky"):
            data.check_disjoint(data.Split("leaky", 0, split.protocol, *parts))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "dataset is 'mnist', but it must be one of digits, shapes, cifar10"),
        ({"name": "digits", "seed": -1}, "seed is -1"),
        ({"name": "digits", "seed": 1.5}, "seed is 1.5"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    name = arguments.pop("name")
    with pytest.raises(ValueError, match=message):
        data.load(name, **arguments)


def test_a_pool_too_small_for_the_protocol_is_refused():
    pool = sources.digits()
    with pytest.raises(ValueError, match="100 query and 500 training images per class, .* 100 and 78"):
        data.draw("digits", pool, data.PROTOCOLS["cifar10"], seed=0)


def test_augmentation_shifts_and_mirrors_each_image_by_itself():
    images = torch.arange(4 * 3 * 8 * 8, dtype=torch.uint8).reshape(4, 3, 8, 8)
    draw = lambda **how: data.augment(images, generator=torch.Generator().manual_seed(0), **how)  # noqa: E731
    assert torch.equal(draw(shift=0, flip=False), images)
    for out, image in zip(draw(shift=0, flip=True), images, strict=True):
        assert torch.equal(out, image) or torch.equal(out, image.flip(-1))
    padded = torch.nn.functional.pad(images.float(), (2,) * 4, mode="reflect").to(torch.uint8)
    for out, image in zip(draw(shift=2, flip=False), padded, strict=True):
        windows = [image[:, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
        assert any(torch.equal(out, window) for window in windows)


@settings(max_examples=50)
@given(side=st.integers(1, 8), seed=st.integers(0, 99))
def test_augmentation_covers_one_square_of_each_image_with_its_mean_colour(side, seed):
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).mul(255).to(torch.uint8)
    how = dict(shift=0, flip=False, generator=torch.Generator().manual_seed(seed))
    for out, image in zip(data.augment(images, erase=side, **how), images, strict=True):
        colour = image.float().mean(dim=(1, 2), keepdim=True).to(torch.uint8)
        squares = []
        for top, left in itertools.product(range(-(side // 2), 8 - side // 2), repeat=2):
            covered = image.clone()
            covered[:, max(top, 0) : top + side, max(left, 0) : left + side] = colour
            squares.append(torch.equal(out, covered))
        assert any(squares)


def test_normalised_training_images_have_zero_mean_and_unit_spread():
    train = data.load("shapes").train
    mean, std = data.channel_statistics(train)
    pixels = data.normalise(train.pool.images[train.rows], mean, std).permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(pixels.mean(dim=1), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(pixels.std(dim=1), torch.ones(3), atol=1e-3, rtol=0)
