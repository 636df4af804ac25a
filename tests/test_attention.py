import copy

import pytest
import torch
from timm.models.nest import Attention, blockify
from torch.testing import assert_close

from hhlib import attention, network


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return network.create("micro", bits=8).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def softmax_attention(module, x):
    """Written out: softmax(q k' / sqrt(d)), from the layer's input (B, T, N, C)."""
    B, T, N, C = x.shape
    q, k, _ = module.qkv(x).reshape(B, T, N, 3, module.num_heads, -1).permute(3, 0, 4, 1, 2, 5)
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)  # (B, H, T, N, N)


@pytest.mark.parametrize("name", network.names())
def test_captured_attention_equals_a_direct_softmax(name):
    """In the very pass that is explained, with fused kernels on, layer by layer; with fewer layers, for speed."""
    torch.manual_seed(0)
    net = network.create(name, bits=8, depths=(1, 1, 2)).eval()
    images, inputs = torch.randn(1, 3, net.img_size, net.img_size), {}
    hooks = [
        module.register_forward_pre_hook(lambda _, x, name=name: inputs.update({name: x[0]}))
        for name, module in net.named_modules()
        if isinstance(module, Attention)
    ]
    with torch.no_grad(), attention.capture(net) as maps:
        during = net(images)
        assert all(module.fused for module in net.modules() if isinstance(module, network.BlockAttention))
    for hook in hooks:
        hook.remove()
    assert len(maps) == sum((1, 1, 2)) + 3  # transformer layers, block-token attention
    for name, weights in maps.items():
        assert_close(weights, softmax_attention(net.get_submodule(name), inputs[name]), rtol=0, atol=1e-5)
        assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    with torch.no_grad():
        assert torch.equal(net(images), during)


def test_looking_changes_nothing_and_leaves_nothing_behind(net, images):
    def traces():
        return [(len(m._forward_hooks), len(m._forward_pre_hooks), getattr(m, "fused", None)) for m in net.modules()]

    before, state = net(images), traces()
    attention.block_attention(net, images)
    for gradients in (False, True):
        with pytest.raises(ZeroDivisionError), attention.capture(net, gradients=gradients):
            raise ZeroDivisionError
    assert traces() == state
    assert torch.equal(net(images), before)


@pytest.mark.parametrize("fused", [True, False])
def test_weights_for_gradients_are_those_of_the_pass_that_fused_kernels_would_take(net, images, fused):
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, network.BlockAttention):
            module.fused = fused
    with torch.no_grad(), attention.capture(net) as expected:  # without gradients, a CPU uses fused kernels too
        net(images)
    with torch.no_grad(), attention.capture(net, gradients=True) as found:
        net(images)
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        assert_close(found[name], weights, rtol=0, atol=1e-5)
    assert all(m.fused is fused for m in net.modules() if isinstance(m, network.BlockAttention))


def test_the_outputs_come_from_the_captured_weights(net, images):
    """The gradient by one weight is what a change of that weight does, in float64."""
    net, images, step = copy.deepcopy(net).double(), images.double().requires_grad_(), 1e-4
    layer = net.levels[1].transformer_encoder[0].attn
    with attention.capture(net, gradients=True) as maps:
        z = net(images)
        weights = attention.by_layer(net, maps)[1, 0]
        slope = torch.autograd.grad(z.square().sum(), weights)[0][1, 0, 2, 5, 7]
    found = []
    for change in (step, -step):
        place = torch.zeros_like(weights)
        place[1, 0, 2, 5, 7] = change
        hook = layer.attn_drop.register_forward_hook(lambda _, __, used, place=place: used + place)
        found.append(net(images).square().sum())
        hook.remove()
    assert_close(slope, (found[0] - found[1]) / (2 * step), rtol=1e-4, atol=1e-9)
    assert abs(slope) > 1e-7


def test_an_empty_capture_is_an_error(net):
    with pytest.raises(RuntimeError, match="no attention"), attention.capture(net):
        pass


def test_shapes_and_names(net, images):
    blocks = attention.block_attention(net, images)
    assert list(blocks) == [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3)]
    assert blocks[0, 0].shape == (2, 2, 16, 16, 16)
    assert blocks[2, 3].shape == (2, 8, 1, 16, 16)
    tokens = attention.token_attention(net, images)
    assert {name: tuple(w.shape[2:]) for name, w in tokens.items()} == {
        "level 1": (16, 16), "level 2": (4, 4), "hash layer": (1, 1)
    }  # fmt: skip
    assert (tokens["hash layer"] == 1).all()


def test_the_grid_undoes_the_cutting_into_blocks():
    grid = torch.arange(64.0).reshape(1, 8, 8, 1)
    blocks = blockify(grid, 4)[..., 0]  # (1, T, N)
    assert torch.equal(attention.to_grid(blocks), grid[..., 0])


def test_one_token_sees_its_own_block_only():
    weights = torch.rand(3, 4, 16, 16).softmax(dim=-1)  # (H, T, N, N), 2 x 2 blocks of 4 x 4 tokens
    view = attention.of_token(weights, row=5, column=2)  # block 2 (lower left), token (1, 2)
    assert view.shape == (3, 8, 8)
    assert torch.equal(view[:, 4:, :4].reshape(3, 16), weights[:, 2, 6])
    assert view[:, :4].abs().max() == view[:, :, 4:].abs().max() == 0


def test_a_head_is_one_of_those_there_are_or_their_mean():
    weights = torch.rand(5, 2, 4, 3, 3).softmax(dim=-1)  # (images, H, T, N, N)
    for head in (0, 1, "1"):
        assert torch.equal(attention.of_head(weights, head), weights[:, int(head)])
    assert torch.equal(attention.of_head(weights, "mean"), (weights[:, 0] + weights[:, 1]) / 2)
    for head in (2, 7, -1, "7"):
        with pytest.raises(IndexError, match=f"head is {head}, .* 0 to 1"):
            attention.of_head(weights, head)


def test_received_and_entropy_of_known_attention():
    even, one = torch.full((8, 8), 1 / 8), torch.eye(8)[[0] * 8]
    assert_close(attention.received(even), torch.full((8,), 1 / 8))
    assert attention.received(one).tolist() == [1.0] + [0.0] * 7
    assert attention.entropy(even).item() == pytest.approx(3.0, abs=1e-4)
    assert attention.entropy(one).item() == pytest.approx(0.0, abs=1e-4)


def full_matrix(weights):
    """(B, H, T, N, N) in blocks -> (B, g*g, g*g) among all tokens of the grid, zero between blocks."""
    B, H, T, N, _ = weights.shape
    inside = torch.block_diag(*[torch.ones(N, N)] * T)
    mean = torch.stack([torch.block_diag(*blocks) for blocks in weights.mean(dim=1)]) * inside
    places = attention.to_grid(torch.arange(float(T * N)).view(1, T, N)).flatten().long()  # block order -> grid order
    return mean[:, places][:, :, places]


def test_rollout_is_the_product_of_all_layers(net, images):
    blocks = attention.block_attention(net, images)
    share = torch.full((2, 1, 16), 1 / 16)
    for level, grid in [(2, 4), (1, 8), (0, 16)]:
        for layer in sorted((key[1] for key in blocks if key[0] == level), reverse=True):
            share = share @ (full_matrix(blocks[level, layer]) + torch.eye(grid * grid)) / 2
        if level:
            windows = torch.zeros(grid, grid, 2 * grid, 2 * grid)
            for row in range(grid):
                for column in range(grid):
                    windows[row, column, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1 / 4
            share = share @ windows.view(grid * grid, -1)
    found = attention.rollout(blocks)
    assert found.shape == (2, 16, 16)
    assert_close(found.flatten(1), share[:, 0])
    assert_close(found.sum(dim=(1, 2)), torch.ones(2))


def test_even_attention_rolls_out_evenly(net, images):
    blocks = attention.block_attention(net, images)
    even = {key: torch.full_like(weights, 1 / weights.shape[-1]) for key, weights in blocks.items()}
    assert_close(attention.rollout(even), torch.full((2, 16, 16), 1 / 256))
