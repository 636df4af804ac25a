import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([3, 8, 12, 40]))
@settings(max_examples=40)
def test_search_equals_a_stable_sort_also_among_ties(seed, k, bits):
    rng = np.random.default_rng(seed)
    query, database = (retrieval.pack(rng.standard_normal((n, bits))) for n in (5, 40))
    distances, rows = retrieval.search(query, database, k=k)
    expected = metrics.hamming(query, database)
    order = np.argsort(expected, axis=1, kind="stable")[:, :k]
    assert (rows == order).all()
    assert (distances == np.take_along_axis(expected, order, axis=1)).all()


def test_encoding_in_batches_equals_one_forward_pass():
    torch.manual_seed(0)
    net = network.create("micro", bits=8).eval()
    part = data.load("digits").query.subset(range(23))
    mean, std = data.channel_statistics(part)
    z = retrieval.encode(net, part, mean=mean, std=std, batch_size=10)
    with torch.no_grad():
        whole = net(data.normalise(part.batch(range(23))[0], mean, std))
    torch.testing.assert_close(z, whole, rtol=1e-4, atol=1e-5)


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
    recalls = [
        retrieval.recall_of(retrieval.search(queries, retrieval.build_index(database, kind, effort=e), k=20)[0], exact)
        for e in (1, 24)
    ]
    assert recalls[0] < recalls[1]


def test_recall_counts_any_image_at_the_last_distance():
    exact, found = np.array([[0, 1, 2]]), np.array([[1, 2, 3]])
    assert retrieval.recall_of(found, exact) == pytest.approx(2 / 3)


def test_bad_searches_are_refused(clustered):
    database, queries = clustered
    for arguments, message in [
        ((database, "tree"), "index is 'tree', but it must be one of flat, hash, ivf, hnsw"),
        ((database.astype(int),), r"codes are \(5000, 8\) int64, but an index needs packed codes"),
    ]:
        with pytest.raises(ValueError, match=message):
            retrieval.build_index(*arguments)
    with pytest.raises(ValueError, match="effort is 0"):
        retrieval.build_index(database, "ivf", effort=0)
    with pytest.raises(ValueError, match="query codes are 4 bytes wide and database codes 8"):
        retrieval.search(queries[:, :4], database, k=1)
    with pytest.raises(ValueError, match="k is 5001, but it must be a whole number from 1 to 5000"):
        retrieval.search(queries, database, k=5001)
