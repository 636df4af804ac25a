from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from hhlib import network

GOLDEN = np.load(Path(__file__).parent / "golden" / "released_network.npz")
SMALL = dict(img_size=56, patch_size=1, embed_dims=(16, 32, 64), num_heads=(2, 4, 8), depths=(1, 1, 2))
TOY = dict(img_size=16, patch_size=2, embed_dims=(8, 16, 32), num_heads=(1, 2, 4), depths=(1, 1, 1))


def released_state():
    return {name.removeprefix("state/"): torch.from_numpy(GOLDEN[name]) for name in GOLDEN if name.startswith("state/")}


def released_network():
    net = network.HybridHash(16, **SMALL, variant="released").eval()
    return net, network.load_released(net, released_state())


def toy(**changes):
    torch.manual_seed(0)
    return network.HybridHash(12, **{**TOY, **changes})


def test_released_variant_equals_the_released_code_level_by_level():
    net, report = released_network()
    assert not report.missing
    assert report.unused == ["FcLayer.weight", "FcLayer.bias"]
    with torch.no_grad():
        x = net.patch_embed(torch.from_numpy(GOLDEN["input"]))
        for i, level in enumerate(net.levels):
            x = level(x)
            assert_close(x, torch.from_numpy(GOLDEN[f"level{i}"]), rtol=0, atol=1e-5)
        z = net(torch.from_numpy(GOLDEN["input"]))
    assert_close(torch.tanh(z), torch.from_numpy(GOLDEN["output"]), rtol=0, atol=1e-5)


def test_paper_variant_differs_from_released_only_in_the_block_tokens():
    released, _ = released_network()
    paper = network.HybridHash(16, **SMALL).eval()
    with pytest.warns(UserWarning, match="scrambled block tokens"):
        network.load_released(paper, released_state())
    x = torch.from_numpy(GOLDEN["input"])
    with torch.no_grad():
        first = [net.levels[0](net.patch_embed(x)) for net in (released, paper)]
        assert_close(first[0], first[1])
        assert (released(x) - paper(x)).abs().max() > 1e-3


def test_block_tokens_are_the_mean_vectors_of_the_blocks():
    """Attention over the paper's tokens is a permutation-equivariant function of per-block means."""
    torch.manual_seed(0)
    branch = network.BlockTokenAttention(16, grid=8, pool=4, heads=8, variant="paper")
    x = torch.randn(1, 16, 8, 8)
    shuffled = x.reshape(1, 16, 2, 4, 2, 4).transpose(3, 5).reshape(1, 16, 8, 8)  # transposes inside each block
    assert_close(branch(x), branch(shuffled), rtol=1e-4, atol=1e-6)
    swapped = torch.cat([x[..., 4:], x[..., :4]], dim=-1)  # left and right blocks change places
    tokens = [torch.nn.functional.avg_pool2d(branch(v), 4)[0, :, 0] for v in (x, swapped)]
    assert_close(tokens[0], tokens[1].flip(1), rtol=1e-4, atol=1e-5)


def test_pooling_before_the_1x1_convolution_changes_nothing():
    torch.manual_seed(0)
    module = network.Interaction(8, 16, grid=8, pool=2, heads=8, variant="paper", global_branch=True)
    x = torch.randn(2, 8, 8, 8)
    as_in_the_paper = module.tokens(module.reduce(x))
    assert_close(module.tokens(x, module.reduce), as_in_the_paper, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bits", [1, 12, 64])
@pytest.mark.parametrize("sizes", [{}, {"img_size": 32, "patch_size": 4}, {"img_size": 24, "patch_size": 1}])
@pytest.mark.parametrize("variant", network.VARIANTS)
def test_every_parameter_gets_a_gradient(bits, sizes, variant):
    torch.manual_seed(0)
    net = network.HybridHash(bits, **{**TOY, **sizes}, variant=variant, drop_path_rate=0.0)
    z = net(torch.randn(2, 3, net.img_size, net.img_size))
    assert z.shape == (2, bits)
    z.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_one_token_attention_gives_queries_and_keys_no_gradient():
    net = toy(drop_path_rate=0.0)
    net(torch.randn(2, 3, 16, 16)).square().sum().backward()
    q, k, v = net.hash_layer.tokens.attn.qkv.weight.grad.chunk(3)
    assert max(q.abs().max(), k.abs().max()) < 1e-6 * v.abs().max()  # nothing but rounding, in a fused kernel


def test_attention_is_computed_by_a_fused_kernel_and_means_the_same():
    """PyTorch falls back to a slow path in silence where the shapes do not suit."""
    net, images = toy(drop_path_rate=0.0).eval(), torch.randn(2, 3, 16, 16)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION), torch.inference_mode():
        fused = net(images)  # raises where no such kernel fits
    for module in net.modules():
        if isinstance(module, network.BlockAttention):
            module.fused = False
    with torch.inference_mode():
        torch.testing.assert_close(fused, net(images), rtol=1e-4, atol=1e-6)


def test_finer_block_tokens_and_ablation():
    assert toy(img_size=32, tokens_per_block=4).levels[1].pool.tokens.pos_embed.shape[1] == 64
    full, ablated = toy(), toy(global_branch=False)
    assert ablated(torch.randn(1, 3, 16, 16)).shape == (1, 12)
    gone = {name for name, _ in full.named_parameters()} - {name for name, _ in ablated.named_parameters()}
    assert gone
    assert all(".pool.tokens." in name or ".pool.reduce." in name for name in gone)


def test_the_input_size_can_change_and_only_the_position_embeddings_do():
    net = toy(img_size=16).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.set_input_size(32)
    fresh = toy(img_size=32).eval()
    fresh.load_state_dict(net.state_dict())  # the same shapes as a network built for this size
    x = torch.randn(2, 3, 32, 32)
    assert_close(net(x), fresh(x))
    after = net.state_dict()
    changed = {
        name for name in before if before[name].shape != after[name].shape or (before[name] != after[name]).any()
    }
    assert changed == {f"levels.{i}.pos_embed" for i in range(3)}
    for i in range(3):  # resampling keeps the mean over the image, up to the borders
        name = f"levels.{i}.pos_embed"
        assert_close(after[name].mean(dim=(1, 2)), before[name].mean(dim=(1, 2)), rtol=0, atol=3e-3)
    with pytest.raises(ValueError, match="img_size is 20"):
        net.set_input_size(20)


def test_sizes_of_the_presets():
    """The authors logged 55.57 M at 16 bits, with an unused layer of 512 * 16 + 16 parameters."""
    parameters = sum(p.numel() for p in network.create("base", bits=16).parameters())
    assert round((parameters + 512 * 16 + 16) / 1e6, 2) == 55.57
    assert network.create("micro", bits=64).img_size == 32
    assert [len(level.transformer_encoder) for level in network.create("tiny", bits=8).levels] == [2, 2, 8]


def test_weights_start_truncated_normal_with_zero_biases():
    net = toy(embed_dims=(64, 128, 256))
    assert abs(net.hash_layer.conv_row.weight.std() - 0.02) < 0.002
    assert net.hash_layer.to_bits.bias.abs().max() == 0
    assert net.levels[1].pool.tokens.pos_embed.abs().max() == 0
    assert {name for name, p in net.named_parameters() if name.endswith("bias") and p.abs().max() > 0} == set()


@pytest.mark.parametrize("bits", [0, -1, "many", 12.5, True, 5000, None])
def test_bad_bits_are_refused(bits):
    with pytest.raises(ValueError, match=f"bits is {bits!r}, .* 1 to 1024"):
        network.HybridHash(bits, **TOY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_size": 30}, "img_size is 30 and patch_size 2, .* 4 . patch_size = 8"),
        ({"img_size": 0}, "img_size is 0"),
        ({"img_size": 16.0}, "img_size is 16.0"),
        ({"patch_size": 3}, "patch_size 3, .* = 12"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"embed_dims": (8, 20, 32)}, r"embed_dims\[1\] is 20, .* 8"),
        ({"num_heads": (3, 2, 4)}, r"embed_dims\[0\] is 8, .*num_heads\[0\], 3"),
        ({"depths": (1, 1)}, r"depths is \(1, 1\)"),
        ({"depths": (1, 0, 1)}, r"depths\[1\] is 0, .* from 1 to 256"),
        ({"variant": "fixed"}, "variant is 'fixed', .* paper, released"),
        ({"head": "none"}, "head is 'none', .* linear, normalised, divide"),
        ({"tokens_per_block": 2}, "tokens_per_block is 2"),
        ({"img_size": 24, "patch_size": 2, "tokens_per_block": 4}, "tokens_per_block is 4, .*here 3"),
        ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
    ],
)
def test_bad_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        toy(**changes)


def test_a_network_has_one_name_and_an_unknown_one_lists_the_known_ones():
    assert network.create(name="micro", bits=8, img_size=16).img_size == 16
    with pytest.raises(ValueError, match="network is 'huge', .* base, small, tiny, micro"):
        network.create("huge", bits=8)
    with pytest.raises(TypeError, match="preset"):
        network.create("micro", preset="micro", bits=8)


def test_inside_evaluating_every_module_evaluates_and_afterwards_each_is_as_before():
    net = toy().train()
    net.norm.eval()  # one module in another mode than the rest
    before = [module.training for module in net.modules()]
    with pytest.raises(ZeroDivisionError), network.evaluating(net):
        assert not any(module.training for module in net.modules())
        raise ZeroDivisionError
    assert [module.training for module in net.modules()] == before
    assert sum(before) == len(before) - 1


def test_is_a_timm_model():
    net = timm.create_model("hybridhash_micro", bits=8, img_size=16)
    assert net(torch.randn(1, 3, 16, 16)).shape == (1, 8)
    assert net.forward_features(torch.randn(1, 3, 16, 16)).shape == (1, 256, 2, 2)
    net.reset_classifier(24)
    assert net(torch.randn(1, 3, 16, 16)).shape == (1, 24)
    with pytest.raises(ValueError, match="'micro' .* base, small, tiny"):
        timm.create_model("hybridhash_micro", bits=8, pretrained=True)


def test_pretrained_nest_weights_come_through_timm(tmp_path):
    """A local file stands where the download would be; the rest is the real path."""
    torch.manual_seed(1)
    nest = timm.create_model("nest_tiny_jx")
    save_file(nest.state_dict(), tmp_path / "nest.safetensors")
    with pytest.warns(UserWarning, match="tensors matched; not in the file: .*; not used: head.weight, head.bias"):
        net = timm.create_model(
            "hybridhash_tiny",
            bits=16,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(tmp_path / "nest.safetensors")},
        )
    for name in ("patch_embed.proj.weight", "levels.2.pos_embed", "levels.1.pool.conv.weight", "norm.weight"):
        assert_close(net.state_dict()[name], nest.state_dict()[name])
    x = torch.randn(1, 3, 224, 224)
    assert_close(net.eval().levels[0](net.patch_embed(x)), nest.eval().levels[0](nest.patch_embed(x)))


def test_layers_beyond_the_depth_are_left_out_and_named():
    nest = timm.models.nest.Nest(num_classes=0, **{**TOY, "depths": (1, 1, 3)})
    report = network.load_nest(toy(), nest.state_dict())
    assert all(
        name.startswith(("levels.2.transformer_encoder.1", "levels.2.transformer_encoder.2")) for name in report.unused
    )
    assert {name.split(".")[0] for name in report.missing} == {"hash_layer", "levels"}


@pytest.mark.parametrize(
    "lost", ["norm.weight", "levels.1.pool.global_attention.qkv.weight", "hashlayer_train.conv2.bias"]
)
def test_a_checkpoint_with_a_missing_tensor_is_refused_and_nothing_is_loaded(lost):
    net = network.HybridHash(16, **SMALL, variant="released")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = released_state()
    del state[lost]
    with pytest.raises(ValueError, match="1 of the network's 83 tensors are not in the file"):
        network.load_released(net, state)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_checkpoint_of_another_size_or_with_strangers_is_refused():
    state = released_state()
    other = network.HybridHash(32, **SMALL, variant="released")
    with pytest.raises(ValueError, match=r"hash_layer.to_bits.weight .*\(16, .*\(32"):
        network.load_released(other, state)
    net = network.HybridHash(16, **SMALL, variant="released")
    before = net.norm.weight.clone()
    with pytest.raises(ValueError, match="extra.weight"):
        network.load_released(net, state | {"extra.weight": torch.zeros(1)})
    assert torch.equal(net.norm.weight, before)


@pytest.mark.parametrize("broken", [torch.full((32,), torch.nan), torch.ones(32, dtype=torch.int64)])
def test_weights_that_are_no_finite_numbers_are_refused(broken, tmp_path):
    net, path = toy(), tmp_path / "model.safetensors"
    save_file(net.state_dict() | {"norm.weight": broken}, path)
    with pytest.raises(ValueError, match=f"norm.weight is {broken.dtype}"):
        network.load_weights(net, path)
    assert torch.equal(net.norm.weight, torch.ones(32))


def test_names_that_dataparallel_prefixed_are_understood():
    net = network.HybridHash(16, **SMALL, variant="released")
    report = network.load_released(net, {f"module.{name}": tensor for name, tensor in released_state().items()})
    assert not report.missing
    assert report.unused == ["FcLayer.weight", "FcLayer.bias"]


def test_saved_weights_come_back_and_damaged_ones_are_refused(tmp_path):
    net, path = toy(), tmp_path / "model.safetensors"
    save_file(net.state_dict(), path)
    again = network.HybridHash(12, **TOY)  # other random weights
    network.load_weights(again, path)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in again.state_dict().items())
    with pytest.raises(ValueError, match="model.safetensors does not fit"):
        network.load_weights(toy(embed_dims=(16, 32, 64)), path)
    with pytest.raises(ValueError, match="model.safetensors .*pool.reduce.weight"):
        network.load_weights(toy(global_branch=False), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is .*damaged or cut short"):
        network.load_weights(again, path)


def test_save_pretrained_and_from_pretrained_round_trip(tmp_path):
    net = toy().eval()
    net.save_pretrained(tmp_path)
    again = network.HybridHash.from_pretrained(tmp_path).eval()
    x = torch.randn(1, 3, 16, 16)
    assert_close(net(x), again(x))
    state = net.state_dict()
    del state["norm.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors does not fit .*norm.weight"):
        network.HybridHash.from_pretrained(tmp_path)
