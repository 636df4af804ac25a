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


def test_bad_searches_are_refused():
    codes = np.zeros((4, 2), np.uint8)
    with pytest.raises(ValueError, match="k is 5, but it must be a whole number from 1 to 4"):
        retrieval.search(codes, codes, k=5)
    with pytest.raises(ValueError, match="query codes are 1 bytes wide and database codes 2"):
        retrieval.search(codes[:, :1], codes, k=1)


def test_encoding_in_batches_equals_one_forward_pass():
    torch.manual_seed(0)
    net = network.create("micro", bits=8).eval()
    part = data.load("digits").query.subset(range(23))
    mean, std = data.channel_statistics(part)
    z = retrieval.encode(net, part, mean=mean, std=std, batch_size=10)
    with torch.no_grad():
        whole = net(data.normalise(part.batch(range(23))[0], mean, std))
    torch.testing.assert_close(z, whole, rtol=1e-4, atol=1e-5)
