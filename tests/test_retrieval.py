import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hhlib import data, metrics, network, retrieval


@pytest.mark.parametrize("bits", [1, 8, 12, 64])
def test_pack_and_unpack(bits):
    z = torch.randn(20, bits, generator=torch.Generator().manual_seed(bits))
    z[0] = 0.0  # a zero counts as +1
    packed = retrieval.pack(z)
    assert packed.shape == (20, -(-bits // 8))
    assert packed.dtype == np.uint8
    assert (retrieval.unpack(packed, bits) == np.where(z.numpy() >= 0, 1, -1)).all()
    assert (retrieval.pack(z.numpy()) == packed).all()


@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([1, 3, 8, 12, 40, 64]))
@settings(max_examples=40)
def test_search_equals_a_stable_sort_also_among_ties(seed, k, bits):
    rng = np.random.default_rng(seed)
    query, database = (retrieval.pack(rng.standard_normal((n, bits))) for n in (5, 40))
    expected = metrics.hamming(query, database)
    order = np.argsort(expected, axis=1, kind="stable")[:, :k]
    for searched in (database, retrieval.build_index(database, "flat")):
        distances, rows = retrieval.search(query, searched, k=k)
        assert (rows == order).all()
        assert (distances == np.take_along_axis(expected, order, axis=1)).all()


def test_encoding_in_batches_equals_one_forward_pass():
    torch.manual_seed(0)
    net = network.create("micro", bits=8).eval()
    part = data.load("digits").query.subset(range(23))
    mean, std = data.channel_statistics(part)
    pictures, _, _ = part.batch(range(23))
    with torch.no_grad():
        whole = net(data.normalise(pictures, mean, std))
    for images in (part, pictures):  # of a split, or new ones
        z = retrieval.encode(net, images, mean=mean, std=std, batch_size=10)
        torch.testing.assert_close(z, whole, rtol=1e-4, atol=1e-5)


class Brightness(nn.Module):
    """One output, the mean of the normalised picture, in evaluation mode; another in training."""

    img_size = 4

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * x.mean(dim=(1, 2, 3))[:, None] + self.training


HOW = dict(mean=[0.5] * 3, std=[0.5] * 3)
PICTURES = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 8, 8)


@pytest.mark.parametrize("training", [True, False])
def test_new_pictures_are_scaled_and_the_mode_of_the_network_is_restored(training):
    net = Brightness().train(training)
    z = retrieval.encode(net, PICTURES, **HOW, batch_size=2)
    assert z.flatten().tolist() == pytest.approx([-1, 1, -0.6])  # 0, 1 and 0.2, less 0.5, by 0.5
    assert net.training is training


@pytest.mark.parametrize(
    ("images", "changes", "error", "message"),
    [
        (PICTURES[:0], {}, ValueError, "0 images"),
        (PICTURES.float(), {}, ValueError, r"\(3, 3, 8, 8\) torch.float32"),
        (PICTURES[0], {}, ValueError, r"\(3, 8, 8\)"),
        (PICTURES[:, :1], {}, ValueError, r"\(3, 1, 8, 8\)"),
        (PICTURES[..., :4], {}, ValueError, r"\(3, 3, 8, 4\)"),
        (PICTURES, {"precision": "float16"}, ValueError, "precision is 'float16', .* float32, bf16"),
        (PICTURES, {"batch_size": 0}, ValueError, "batch_size is 0"),
        (PICTURES, {"std": [0.0] * 3}, FloatingPointError, "3 of 3"),
    ],
)
def test_what_would_give_wrong_codes_is_refused(images, changes, error, message):
    with pytest.raises(error, match=message):
        retrieval.encode(Brightness(), images, **{**HOW, **changes})


def test_an_empty_part_is_refused():
    empty = data.load("digits").query.subset(torch.arange(0))
    with pytest.raises(ValueError, match="0 images"):
        retrieval.encode(Brightness(), empty, **HOW)


def test_the_images_whose_outputs_are_not_finite_are_counted():
    class Logarithm(Brightness):
        def forward(self, x):
            return super().forward(x).log()

    with pytest.raises(FloatingPointError, match="2 of 3"):  # the logarithms of -1, 1 and -0.6
        retrieval.encode(Logarithm(), PICTURES, **HOW)


# --- faster indexes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clustered():
    """5,000 codes of 64 bits around 50 centres, and 40 queries."""
    rng = np.random.default_rng(0)
    centres = rng.random((50, 64)) < 0.5
    draw = lambda n: np.packbits(centres[rng.integers(0, 50, n)] ^ (rng.random((n, 64)) < 0.1), axis=1)  # noqa: E731
    return draw(5000), draw(40)


@pytest.mark.parametrize("kind", retrieval.INDEXES)
def test_an_index_gives_true_distances_in_a_settled_order(clustered, kind):
    database, queries = clustered
    exact, _ = retrieval.search(queries, database, k=10)
    index = retrieval.build_index(database, kind)
    distances, rows = retrieval.search(queries, index, k=10)
    true = metrics.hamming(queries, database)
    for q in range(len(queries)):
        found = rows[q] >= 0
        assert (distances[q][found] == true[q, rows[q][found]]).all()
        pairs = list(zip(distances[q], rows[q], strict=True))
        assert pairs[: found.sum()] == sorted(pairs[: found.sum()])
        assert not found[found.sum() :].any()
    recall = retrieval.recall_of(distances, exact)
    assert recall == 1.0 if kind == "flat" else recall > 0.5


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "hash"])
def test_more_effort_finds_more(clustered, kind):
    database, queries = clustered
    exact, _ = retrieval.search(queries, database, k=20)
    index = retrieval.build_index(database, kind, effort=1)
    few, _ = retrieval.search(queries, index, k=20)
    more, _ = retrieval.search(queries, retrieval.set_effort(index, 24), k=20)
    assert retrieval.recall_of(few, exact) < retrieval.recall_of(more, exact)


def test_all_cells_find_everything(clustered):
    database, queries = clustered
    index = retrieval.build_index(database, "ivf", effort=5000)
    found = retrieval.search(queries, index, k=20)
    assert all((a == b).all() for a, b in zip(found, retrieval.search(queries, database, k=20), strict=True))


def test_the_index_is_exact_until_there_are_many_codes(clustered, monkeypatch):
    most = retrieval.FLAT_UP_TO
    assert [retrieval.kind_for(n) for n in (1, most, most + 1, 10**9)] == ["flat", "flat", "ivf", "ivf"]
    database, _ = clustered
    assert isinstance(retrieval.build_index(database), faiss.IndexBinaryFlat)
    monkeypatch.setattr(retrieval, "FLAT_UP_TO", len(database) - 1)
    assert isinstance(retrieval.build_index(database), faiss.IndexBinaryIVF)


@pytest.mark.parametrize("kind", retrieval.INDEXES)
def test_a_file_is_searched_and_indexed_in_blocks_as_an_array_is(clustered, kind, tmp_path, monkeypatch):
    database, queries = clustered
    np.save(tmp_path / "codes.npy", database)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    exact, from_file = (retrieval.search(queries, codes, k=20) for codes in (database, mapped))
    assert all((a == b).all() for a, b in zip(exact, from_file, strict=True))
    whole = retrieval.search(queries, retrieval.build_index(database, kind), k=20)
    monkeypatch.setattr(retrieval, "BLOCK", 999)
    blocks = retrieval.search(queries, retrieval.build_index(mapped, kind), k=20)
    if kind == "hnsw":  # the graph depends on the order in which codes come
        whole, blocks = (retrieval.recall_of(found[0], exact[0]) for found in (whole, blocks))
        assert blocks == pytest.approx(whole, abs=0.1)
    else:
        assert all((a == b).all() for a, b in zip(whole, blocks, strict=True))


def test_recall_counts_any_image_at_the_last_distance():
    exact, found = np.array([[0, 1, 2]]), np.array([[1, 2, 3]])
    assert retrieval.recall_of(found, exact) == pytest.approx(2 / 3)


def test_bad_searches_are_refused(clustered):
    database, queries = clustered
    for arguments, message in [
        ((database, "tree"), "index is 'tree', .* flat, hash, ivf, hnsw"),
        ((database.astype(int),), r"codes are \(5000, 8\) int64"),
        ((database[:0],), r"codes are \(0, 8\) uint8"),
    ]:
        with pytest.raises(ValueError, match=message):
            retrieval.build_index(*arguments)
    with pytest.raises(ValueError, match=r"codes are \(5000, 8\) int64"):
        retrieval.search(queries, database.astype(int), k=1)
    with pytest.raises(ValueError, match="effort is 0"):
        retrieval.build_index(database, "ivf", effort=0)
    with pytest.raises(ValueError, match="4 bytes .* 8"):
        retrieval.search(queries[:, :4], database, k=1)
    with pytest.raises(ValueError, match="k is 5001, .* 1 to 5000"):
        retrieval.search(queries, database, k=5001)
