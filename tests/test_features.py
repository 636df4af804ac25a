"""Pretrained backbones, their vectors on disk, and what is trained on top of them."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

import hhlib as hh
from hhlib import data, features, network


@pytest.fixture(scope="module")
def lite0():
    return features.Backbone("lite0", 32)


@pytest.fixture
def split():
    """Three hundred digits, as a split of pictures."""
    pool = data.load("digits").query.pool
    few = data.split_pool(
        replace(pool, images=pool.images[:300], labels=pool.labels[:300]), query=60, train=140, seed=0
    )
    assert set(few.parts()) == {"query", "train", "database"}
    return few


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "number"), [("china.jpg", 698), ("flower.jpg", 985)])  # palace, daisy
def test_lite0_knows_imagenet(name, number):
    """scikit-learn's two photographs: a temple and a flower. Chance is 1 in 1,000."""
    picture = pil_to_tensor(Image.fromarray(load_sample_image(name)))
    x = center_crop(resize(picture, [256]), [224]).float()[None]
    with torch.inference_mode():
        likely = network.pretrained("lite0")((x - 127) / 128).softmax(dim=1)[0]
    assert int(likely.argmax()) == number
    assert likely[number] > 0.2


def test_lite0_is_filled_strictly():
    net = network.pretrained("lite0")
    assert network.digest(net).startswith("5e984df5")
    assert network.facts_of("lite0").license == "apache-2.0"
    assert not net.training


def test_digest_changes_with_any_weight():
    net = nn.Linear(3, 2)
    before = network.digest(net)
    with torch.no_grad():
        net.bias[1] += 1e-6
    assert network.digest(net) != before


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"])
def test_a_timm_model_is_taken_from_what_was_fetched_before(name, hub):
    plain = name.removeprefix("timm:")
    known = network.facts_of(name)
    torch.manual_seed(0)
    there = timm.create_model(plain)
    hub(known.hub, there)
    found = network.pretrained(plain)
    assert network.digest(found) == network.digest(there)


def test_a_hub_out_of_reach_is_said_in_a_sentence(hub):
    with pytest.raises(ConnectionError, match="resnet18.a1_in1k .* cannot be reached .*lite0 needs no download"):
        network.pretrained("resnet18.a1_in1k")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("lit0", "'lite0'"), ("resnet5", "'resnet50'"), ("timm:lite", "'timm:lite0'"), ("mikro", "'micro'")],
)
def test_an_unknown_network_is_refused_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=f"network is '{name}', .*Did you mean {hint}"):
        hh.open(network=name)


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_vectors_are_the_backbones_pooled_features(lite0, split):
    images = split.query.batch(range(3))[0]
    with torch.inference_mode():
        expected = lite0.net.forward_features((images.float() - 127) / 128).mean(dim=(2, 3))
    torch.testing.assert_close(lite0(images), expected, rtol=1e-4, atol=1e-5)


def test_pictures_are_scaled_as_the_backbone_wants_them(split):
    images = split.query.batch(range(2))[0]
    bicubic = nn.functional.interpolate(images.float(), size=(64, 64), mode="bicubic", align_corners=False)
    large = features.Backbone("lite0", 64)
    with torch.inference_mode():
        expected = large.net.forward_features((bicubic.clamp(0, 255) - 127) / 128).mean(dim=(2, 3))
    torch.testing.assert_close(large(images), expected, atol=1e-3, rtol=1e-3)


class Counting(features.Backbone):
    """Counts the pictures it looks at; can be stopped."""

    seen = 0
    stop_after = None

    def _look(self, images):
        if self.stop_after is not None and Counting.seen >= self.stop_after:
            raise KeyboardInterrupt
        Counting.seen += len(images)
        return super()._look(images)


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setattr(Counting, "seen", 0)
    monkeypatch.setattr("hhlib.data.cache.BLOCK", 64)
    return Counting("lite0", 32)


def test_vectors_are_computed_once_for_all_splits(counting, split, tmp_path):
    first = counting.split(split, tmp_path)
    assert Counting.seen == len(split.query.pool.labels)
    other = data.split_pool(split.query.pool, query=50, train=100, seed=1)
    second = counting.split(other, tmp_path)
    assert Counting.seen == len(split.query.pool.labels)
    assert first.query.pool.images.dtype == torch.float16
    assert torch.equal(first.query.pool.images, second.query.pool.images)
    row = int(other.query.rows[0])
    direct = counting(split.query.pool.images[row][None])[0]
    torch.testing.assert_close(second.query[0][0].float(), direct, atol=2e-3, rtol=2e-3)


def test_a_stopped_extraction_is_completed_not_repeated(counting, split, tmp_path, monkeypatch):
    monkeypatch.setattr(Counting, "stop_after", 128)
    with pytest.raises(KeyboardInterrupt):
        counting.split(split, tmp_path)
    assert Counting.seen == 128
    monkeypatch.setattr(Counting, "stop_after", None)
    counting.split(split, tmp_path)
    assert Counting.seen == len(split.query.pool.labels)


def test_a_changed_picture_is_looked_at_again(counting, split, tmp_path):
    before = counting.split(split, tmp_path).query.pool.images.clone()
    images = split.query.pool.images.clone()
    images[7] = 255 - images[7]
    pool = replace(split.query.pool, images=images)
    after = counting.pool(pool, tmp_path).images
    assert Counting.seen == len(images) + 1
    assert not torch.equal(before[7], after[7])
    assert torch.equal(before[8:], after[8:])


def test_a_changed_file_is_looked_at_again(counting, tmp_path):
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), "red").save(tmp_path / "own" / name)
    pool = data.folder_pool(tmp_path / "own", size=32)
    counting.pool(pool, tmp_path / "kept")
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "own" / "a/2.png")
    changed = counting.pool(pool, tmp_path / "kept").images
    assert Counting.seen == 5
    assert torch.equal(changed[0], changed[2])
    assert not torch.equal(changed[0], changed[1])


def test_other_weights_and_sizes_have_vectors_of_their_own(counting, split, tmp_path):
    counting.split(split, tmp_path)
    with torch.no_grad():
        changed = Counting("lite0", 32)
        next(changed.net.parameters())[0] *= 2
    changed.split(split, tmp_path)
    Counting("lite0", 40).split(split, tmp_path)
    assert Counting.seen == 3 * len(split.query.pool.labels)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3


def test_what_is_no_picture_is_refused(lite0):
    with pytest.raises(ValueError, match=r"\(2, 3, 32, 32\) torch.float32, but they must be"):
        lite0(torch.zeros(2, 3, 32, 32))


# --- networks on top --------------------------------------------------------------------------------------------------


def test_a_head_is_what_its_docstring_says():
    torch.manual_seed(0)
    head = network.Head(6, dim=5, hidden=4, dropout=0.3).eval()
    x = torch.randn(7, 5)
    standardise, _, first, norm, _, _, last, _ = head.layers
    torch.testing.assert_close(head(x), last(norm(first(standardise(x))).relu()))
    linear = network.Head(6, dim=5, hidden=0).eval()
    assert [type(layer) for layer in linear.layers] == [nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.Identity]


@pytest.mark.parametrize("head", network.HEADS)
@pytest.mark.parametrize("hidden", [0, 8])
def test_every_head_gives_k_numbers(head, hidden):
    net = network.Head(12, dim=20, hidden=hidden, head=head)
    assert net(torch.randn(4, 20, dtype=torch.float16)).shape == (4, 12)


@pytest.mark.parametrize("name", ["lite0", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet18"])
def test_the_hash_layer_fits_any_feature_map(name):
    net = network.create(f"timm:{name}", bits=9).eval()
    x = torch.randn(2, 3, net.img_size, net.img_size)
    with torch.inference_mode():
        feature_map = net.forward_features(x)
        z = net(x)
    assert feature_map.shape[1] == net.backbone.num_features
    assert feature_map.shape[2] == feature_map.shape[3]
    assert z.shape == (2, 9)


def test_tokens_go_back_to_their_places():
    net = network.create("timm:vit_tiny_patch16_224", bits=4).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        tokens = net.backbone.forward_features(x)[:, 1:]  # without the class token
        feature_map = net.forward_features(x)
    torch.testing.assert_close(feature_map[0, :, 3, 5], tokens[0, 3 * 14 + 5])


def test_load_pretrained_fills_the_backbone_and_names_the_match():
    net = network.create("timm:lite0", bits=4, img_size=64)
    report = network.load_pretrained(net, "timm:lite0")
    assert report.missing == []
    assert report.unused == []
    theirs = network.pretrained("lite0").state_dict()
    own = net.backbone.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own)


# --- from settings to a score -----------------------------------------------------------------------------------------

QUICK = "epochs=2 image_size=32 device=cpu precision=float32"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return dict(dataset="digits", bits=12, data_dir=str(tmp_path_factory.mktemp("data")))


@pytest.mark.parametrize("method", hh.losses.names(nested=False))
def test_every_method_trains_on_vectors(method, shared, tmp_path):
    ex = hh.open(QUICK, method=method, network="lite0", runs_dir=str(tmp_path), **shared)
    ex.fit(())
    scores = ex.evaluate()
    assert scores["map"]["expected"] > 1.2 * scores["chance"]
    assert ex.run.model()(torch.zeros(2, 1280)).shape == (2, 12)


def test_new_pictures_go_the_same_way(shared, tmp_path):
    ex = hh.open(QUICK, network="lite0", runs_dir=str(tmp_path), **shared)
    ex.fit(())
    z = ex.encode("query")[:3]
    pictures = ex.split.query.batch(range(3))[0]
    torch.testing.assert_close(ex.encode(pictures), z, atol=0.02, rtol=0.02)  # vectors on disk are float16
    for row, picture in enumerate(pictures):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{row}.png")
    torch.testing.assert_close(ex.encode([tmp_path / f"{row}.png" for row in range(3)]), z, atol=0.02, rtol=0.02)
    torch.testing.assert_close(ex.encode(ex.split.query.subset([2])), z[2:], atol=1e-5, rtol=1e-5)
    shown, vectors, _ = ex.pictures("query", [0, 1, 2])
    assert torch.equal(shown, pictures)
    torch.testing.assert_close(ex.net(vectors), z, atol=0.02, rtol=0.02)


def test_a_run_on_other_vectors_is_not_resumed(shared, tmp_path):
    how = dict(network="lite0", runs_dir=str(tmp_path), **shared)
    hh.open(QUICK, **how).fit(())
    with pytest.raises(ValueError, match="holds a run with image_size = 32, but 64"):
        hh.open(QUICK.replace("32 ", "64 "), **how).fit(())


def test_a_whole_pretrained_network_is_tuned(shared, tmp_path):
    ex = hh.open(QUICK.replace("epochs=2", "epochs=1"), network="timm:lite0", runs_dir=str(tmp_path), **shared)
    ex.fit(())
    assert ex.run.path.name == "hybridhash-timm-lite0-12bits-seed0"
    assert ex.evaluate()["map"]["expected"] > 0.2
    assert ex.run.record["data"]["mean"] == [127 / 255] * 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(network="lite0", pretrained=False), "pretrained is false"),
        (dict(network="timm:lite0", small_epochs=1), "small_epochs is 1"),
    ],
)
def test_what_does_not_fit_a_pretrained_network_is_refused(given, said, shared, tmp_path):
    with pytest.raises(ValueError, match=said):
        hh.open(QUICK, runs_dir=str(tmp_path), **shared, **given).fit(())


def test_vectors_take_half_the_bytes_of_floats(counting, split, tmp_path):
    counting.split(split, tmp_path)
    file = next(tmp_path.glob("*/images.npy"))
    assert np.load(file, mmap_mode="r").nbytes == 2 * 1280 * len(split.query.pool.labels)
