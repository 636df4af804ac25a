"""Loader and cache: the same images by every way."""

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hhlib import data
from hhlib.data import cache as caching


@pytest.fixture
def pool(tmp_path):
    """30 pictures on disk, of 2 classes, each of one random colour."""
    rng = np.random.default_rng(0)
    for i in range(30):
        path = tmp_path / f"pictures/{'ab'[i % 2]}/{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((7, 9, 3), rng.integers(0, 256, 3), dtype=np.uint8)).save(path)
    return data.folder_pool(tmp_path / "pictures", size=4)


def everything(pool):
    return data.Part(pool, np.arange(len(pool.labels)))


def test_loader_gives_whole_batches_in_order(pool):
    part = everything(pool)
    batches = list(data.loader(part, batch_size=8))
    assert [len(index) for _, _, index in batches] == [8, 8, 8, 6]
    images, labels, index = (torch.cat(column) for column in zip(*batches, strict=True))
    assert images.dtype == torch.uint8
    assert torch.equal(images, part.batch(range(30))[0])
    assert torch.equal(labels, part.labels)
    assert index.tolist() == list(range(30))


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_pictures_travel_to_processes_that_share_no_memory(pool, tmp_path, start):
    data.write_list(tmp_path / "train.txt", pool.paths, pool.labels.numpy())
    listed = data.read_list(tmp_path / "train.txt", root=pool.images.root)
    part = everything(replace(pool, images=listed.images(4)))
    loader = torch.utils.data.DataLoader(part, 16, collate_fn=tuple, num_workers=1, multiprocessing_context=start)
    assert torch.equal(torch.cat([images for images, _, _ in loader]), pool.images[:])


def test_shuffled_loader_meets_each_image_once_and_drops_the_rest(pool):
    index = torch.cat(
        [index for _, _, index in data.loader(everything(pool), batch_size=8, shuffle=True, drop_last=True)]
    )
    assert len(index) == len(set(index.tolist())) == 24


def test_looking_at_images_draws_no_random_number(pool):
    before = torch.get_rng_state()
    list(data.loader(everything(pool), batch_size=8))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_broken_picture_is_named_by_the_loader_too(pool):
    pool.images.file(3).write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a/06.png: .*06.png"):
        list(data.loader(everything(pool), batch_size=8))


def test_scaling_on_the_device_is_bilinear_and_comes_before_the_numbers(pool):
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    out = data.normalise(images, mean, std, size=8)
    assert out.shape == (2, 3, 8, 8)
    # a sample between two pixels, a quarter of a pixel from the first: weights 3/4 and 1/4 along each side
    a = images.double() / 255
    inside = 0.75 * (0.75 * a[..., 0, 0] + 0.25 * a[..., 0, 1]) + 0.25 * (0.75 * a[..., 1, 0] + 0.25 * a[..., 1, 1])
    expected = (inside - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(out[..., 1, 1].double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(data.normalise(images, mean, std, size=2).mean(), out.mean(), atol=0.05, rtol=0)
    assert torch.equal(data.normalise(images, mean, std, size=4), data.normalise(images, mean, std))


def test_a_split_can_be_trained_and_encoded_at_another_size(tmp_path):
    from hhlib import retrieval, runs, settings, training

    split = data.load("digits", size=16)
    assert split.image_size == 16
    assert split.query.pool.images.shape[-1] == 32
    tiny = "net.embed_dims=16,32,64 net.num_heads=2,2,2 net.depths=1,1,1"
    chosen = settings.read(tiny, bits=8, epochs=1, batch_size=200, learning_rate=1e-3, validation=0.0)
    run = training.fit(split, runs.Run(tmp_path), chosen)
    net, facts = run.model(), run.record["data"]
    assert net.img_size == 16
    z = retrieval.encode(net, split.query, mean=facts["mean"], std=facts["std"])
    assert z.shape == (200, 8)


# --- cache -------------------------------------------------------------------------------------------------------


def test_cache_holds_the_decoded_pictures_and_is_made_once(pool, tmp_path, monkeypatch):
    expected = pool.images[:]
    first = data.cached(pool, tmp_path / "cache")
    assert isinstance(first.images, torch.Tensor)
    assert torch.equal(first.images, expected)
    monkeypatch.setattr(data.ImageFiles, "_open", None)  # nothing is opened again
    again = data.cached(pool, tmp_path / "cache", check=True)
    assert torch.equal(again.images, expected)
    again.images[0] = 7  # the file stays as it is
    assert torch.equal(data.cached(pool, tmp_path / "cache", check=True).images, expected)
    assert torch.equal(data.Part(again, [3, 5]).batch([1])[0][0], expected[5])


def test_cache_goes_on_where_it_was_stopped(pool, tmp_path, monkeypatch):
    expected, real, opened = pool.images[:], data.ImageFiles._open, []

    def stops_at_20(self, row):
        if len(opened) == 20:
            raise KeyboardInterrupt
        opened.append(row)
        return real(self, row)

    monkeypatch.setattr(caching, "BLOCK", 4)
    monkeypatch.setattr(data.ImageFiles, "_open", stops_at_20)
    with pytest.raises(KeyboardInterrupt):
        data.cached(pool, tmp_path / "cache")
    opened.clear()
    monkeypatch.setattr(data.ImageFiles, "_open", lambda self, row: opened.append(row) or real(self, row))
    assert torch.equal(data.cached(pool, tmp_path / "cache").images, expected)
    assert sorted(opened) == list(range(20, 30))


def test_cache_of_other_pictures_is_refused(pool, tmp_path):
    data.cached(pool, tmp_path / "cache")
    with pytest.raises(ValueError, match=f"{tmp_path}/cache is a cache of other pictures"):
        data.cached(data.folder_pool(pool.images.root, size=5), tmp_path / "cache")
    with pytest.raises(TypeError, match="in memory already"):
        data.cached(data.load("digits").query.pool, tmp_path / "other")
    pool.images.file(3).unlink()
    with pytest.raises(FileNotFoundError, match=r"a/06.png: there is no file .*/pictures/a/06.png"):
        data.cached(pool, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_only_pictures_that_changed_are_decoded_again(pool, tmp_path, monkeypatch):
    data.cached(pool, tmp_path / "cache")
    Image.new("RGB", (3, 3), (1, 2, 3)).save(pool.images.file(4))
    expected, real, opened = pool.images[:], data.ImageFiles._open, []
    monkeypatch.setattr(data.ImageFiles, "_open", lambda self, row: opened.append(row) or real(self, row))
    assert torch.equal(data.cached(pool, tmp_path / "cache").images, expected)
    assert opened == [4]


def damage(file):
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "images.npy").unlink(),
        lambda folder: (folder / "marks.npy").unlink(),
        lambda folder: (folder / "cache.json").unlink(),
        lambda folder: (folder / "cache.json").write_text(""),
        lambda folder: (folder / "marks.npy").write_bytes(b""),
        lambda folder: (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:-500]),
        lambda folder: (folder / "images.npy").write_bytes(b""),
        lambda folder: np.save(folder / "images.npy", np.load(folder / "images.npy").astype(np.int64)),
        lambda folder: np.save(folder / "marks.npy", np.load(folder / "marks.npy").astype(np.float64)),
        lambda folder: (folder / "marks.npy").write_bytes(b"\x93NUMPY\x01\0\x10\0{'descr': '<u8\n("),  # no header
        lambda folder: np.savez((folder / "marks.npy").open("wb"), marks=np.zeros(3)),
        lambda folder: (folder / "cache.json").write_text("[" * 100_000),
    ],
)
def test_a_cache_that_lost_something_is_made_whole_again(pool, tmp_path, harm):
    data.cached(pool, tmp_path / "cache")
    harm(tmp_path / "cache")
    assert torch.equal(data.cached(pool, tmp_path / "cache", check=True).images, pool.images[:])


def test_a_changed_byte_is_found_on_request(pool, tmp_path):
    data.cached(pool, tmp_path / "cache")
    damage(tmp_path / "cache/images.npy")
    with pytest.raises(ValueError, match="cache: picture 29"):
        data.cached(pool, tmp_path / "cache", check=True)


def test_a_finished_cache_is_only_read(pool, tmp_path, monkeypatch):
    data.cached(pool, tmp_path / "cache")
    monkeypatch.setattr(caching, "held", None)
    monkeypatch.setattr(caching, "atomic", None)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert torch.equal(data.cached(pool, tmp_path / "cache").images, pool.images[:])
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}


def test_two_processes_fill_one_cache(pool, tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        found = processes.starmap(data.cached, [(pool, tmp_path / "cache")] * 2)
    assert all(torch.equal(one.images, pool.images[:]) for one in found)


@pytest.mark.skipif(not hasattr(caching.os, "posix_fallocate"), reason="this system cannot reserve room")
def test_cache_on_a_full_disk_leaves_no_file(pool, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        data.cached(pool, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_load_can_cache(pool, tmp_path, monkeypatch):
    from hhlib.data import sources

    monkeypatch.setitem(sources.FILES, "coco", lambda root, size: pool)
    monkeypatch.setitem(data.PROTOCOLS, "coco", data.Protocol(4, 10, "rest", True, "", 16, 10))
    data._in_memory.cache_clear()
    split = data.load("coco", root=tmp_path, size=4, cache=True)
    assert isinstance(split.query.pool.images, torch.Tensor)
    assert (tmp_path / "cache/coco-4/images.npy").is_file()
    data._in_memory.cache_clear()
