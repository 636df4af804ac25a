import numpy as np
import pytest

from hhlib import baselines, data, metrics


def vectors(n=400, d=24, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.linspace(3, 0.3, d) + 5).astype(np.float32)


def test_lsh_bits_differ_as_often_as_the_angle_says():
    mean = np.full(3, 2.0)
    encode = baselines.lsh(np.stack([mean - 1, mean + 1]), 1024, seed=3)
    for degrees in (10, 60, 90, 180):
        angle = np.radians(degrees)
        pair = mean + np.array([[1, 0, 0], [np.cos(angle), np.sin(angle), 0]])
        differ = np.mean(np.diff(encode(pair) >= 0, axis=0))
        assert differ == pytest.approx(degrees / 180, abs=4 * 0.5 / 1024**0.5)


def test_pca_sign_are_the_projections_on_the_directions_of_most_variance():
    x = vectors()
    centred = x - x.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:6]
    z = baselines.pca_sign(x, 6)(x)
    np.testing.assert_allclose(np.abs(z), np.abs(centred @ directions.T), rtol=1e-3, atol=2e-3)


def test_itq_finds_the_cube_that_principal_components_only_span():
    """Corners of a turned cube: all directions have the same variance, so its components are arbitrary."""
    rng = np.random.default_rng(0)
    corners = rng.choice([-1.0, 1.0], (500, 6))
    turn = np.linalg.qr(rng.normal(size=(24, 24)))[0][:6]
    x = (corners @ turn + rng.normal(0, 0.02, (500, 24)) + 5).astype(np.float32)

    def away(z):
        z = z / np.linalg.norm(z, axis=1, keepdims=True) * np.sqrt(6)
        return np.abs(np.abs(z) - 1).mean()

    assert away(baselines.itq(x, 6)(x)) < 0.05
    assert away(baselines.pca_sign(x, 6)(x)) > 0.2


def test_a_class_number_is_as_short_as_can_be_and_as_good_as_its_classifier():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 5, 300)
    x = (np.eye(5)[kind] * 9 + rng.normal(size=(300, 5))).astype(np.float32)
    labels = np.eye(5, dtype=int)[kind]
    z = baselines.class_number(x[:200], labels[:200])(x[200:])
    assert z.shape == (100, 3)
    assert len(np.unique(z, axis=0)) == 5
    assert metrics.evaluate(z, labels[200:], z, labels[200:])["map"]["expected"] == 1.0
    for wrong in (labels * 0, labels * 0 + 1):  # no label, several
        with pytest.raises(ValueError, match="labels"):
            baselines.class_number(x, wrong)


@pytest.mark.parametrize("method", [baselines.pca_sign, baselines.itq])
def test_more_bits_than_components_are_refused(method):
    with pytest.raises(ValueError, match="bits is 25, .* 24 components"):
        method(vectors(), 25)


def test_pixels_are_the_images_in_order():
    part = data.load("digits").query
    x = baselines.pixels(part)
    images = part.batch(range(len(part)))[0]
    assert x.shape == (len(part), 3 * 32 * 32)
    np.testing.assert_allclose(x * 255, images.flatten(1).numpy(), atol=1e-3)
