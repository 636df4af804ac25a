import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from hhlib import explain, network


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = network.create("micro", bits=8, drop_path_rate=0.0).eval()
    for parameter in net.hash_layer.parameters():  # outputs of some size, as after training
        nn.init.normal_(parameter, std=0.2)
    return net


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def target(net, x):
    with torch.no_grad():
        return explain.code_target(net(x))


class OneSquare(nn.Module):
    """Four bits that all say whether the square of 2 x 2 pixels in row 1, column 2 is bright."""

    img_size, patch_size = 8, 2

    def forward(self, x):
        return x[:, :, 2:4, 4:6].mean(dim=(1, 2, 3))[:, None].expand(-1, 4)


def test_scores():
    z = torch.tensor([[2.0, -1.0, 0.0, -3.0]])
    assert explain.score(z, explain.code_target(z)).item() == (2 + 1 + 0 + 3) / 4
    assert explain.score(z, explain.bit_target(z, 1)).item() == 1
    near, far = torch.tensor([[5.0, -1, 2, -1]]), torch.tensor([[1.0, 2, -1, -1]])
    for other, bits_apart in [(near, 0), (far, 2)]:
        score = explain.score(torch.tensor([[1.0, -1, 1, -1]]), explain.likeness_target(other))
        assert score.item() == 1 - 2 * bits_apart / 4
    with pytest.raises(ValueError, match="bit is 4, .* 0 to 3"):
        explain.bit_target(z, 4)


def test_a_contrast_asks_for_the_bits_that_differ():
    this = torch.tensor([[2.0, -1.0, 0.0, -3.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, -2.0]])
    other = torch.tensor([[1.0, 4.0, -2.0, -1.0], [2.0, 3.0, 0.0, 1.0], [1.0, 1.0, 1.0, 5.0]])
    target = explain.contrast_target(this, other)
    assert target.tolist() == [[0, -1 / 2, 1 / 2, 0], [0, 0, 0, 0], [0, 0, 0, -1]]
    assert explain.score(this, target).tolist() == [(1 + 0) / 2, 0, 2]


class Smooth(nn.Module):
    """A small network without corners, in float64."""

    img_size, patch_size = 4, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.Tanh(), nn.Linear(6, 5)).double()

    def forward(self, x):
        return self.layers(x)


def test_the_gradient_is_the_slope():
    net, x, step = Smooth(), torch.randn(2, 3, 4, 4).double(), 1e-5
    target = explain.code_target(net(x))
    slopes = torch.zeros_like(x)
    with torch.no_grad():
        for place in torch.eye(48).view(48, 3, 4, 4).double():
            up, down = (explain.score(net(x + d * place), target) for d in (step, -step))
            slopes += ((up - down) / (2 * step)).view(2, 1, 1, 1) * place
    assert_close(explain.gradient(net, x, target), slopes.abs().amax(dim=1), rtol=1e-6, atol=1e-9)


def test_integrated_gradients_add_up_to_what_the_image_adds():
    net, x = Smooth(), torch.randn(2, 3, 4, 4).double()
    target = explain.code_target(net(x))
    sums = explain.integrated_gradients(net, x, target, steps=200).sum(dim=(1, 2))
    expected = explain.score(net(x), target) - explain.score(net(0 * x), target)
    assert_close(sums, expected.detach(), rtol=1e-4, atol=1e-6)


def test_occlusion_against_a_loop(net, x, target):
    net, x, target = copy.deepcopy(net).double(), x.double(), target.double()  # scores of 100 and more, near each other
    map_ = explain.occlusion(net, x, target, squares=4)
    with torch.no_grad():
        for row, column in [(0, 0), (2, 3)]:
            covered = x.clone()
            covered[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
            loss = explain.score(net(x), target) - explain.score(net(covered), target)
            assert_close(map_[:, 8 * row + 5, 8 * column + 2], loss)


def test_grad_cam_against_its_formula(net, x, target):
    with torch.enable_grad():
        features = net.levels[0](net.patch_embed(x)).detach().requires_grad_()
        z = net.forward_head(net.norm(net.levels[2](net.levels[1](features)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        slopes = torch.autograd.grad(explain.score(z, target).sum(), features)[0]
    cam = (features * slopes.mean(dim=(2, 3), keepdim=True)).sum(dim=1).clamp(min=0).detach()
    cam = cam - cam.amin(dim=(1, 2), keepdim=True)
    cam = F.interpolate((cam / cam.amax(dim=(1, 2), keepdim=True))[:, None], size=32, mode="bilinear")[:, 0]
    cam = cam - cam.amin(dim=(1, 2), keepdim=True)
    cam = cam / cam.amax(dim=(1, 2), keepdim=True)
    assert_close(explain.grad_cam(net, x, target, level=0), cam, rtol=1e-3, atol=1e-3)


def slopes_of_attention(net, x, target):
    """Attention weights and the score's gradient by them: {(level, layer): two of (B, H, T, N, N)}, by plain hooks."""
    net, used = copy.deepcopy(net), {}

    def keep(weights, key):
        weights.retain_grad()
        used[key] = weights

    for i, level in enumerate(net.levels):
        for j, layer in enumerate(level.transformer_encoder):
            layer.attn.attn_drop.register_forward_hook(lambda _, __, weights, key=(i, j): keep(weights, key))
    explain.score(net(x), target).sum().backward()
    return {key: (weights.detach(), weights.grad) for key, weights in used.items()}


def test_weighted_attention_against_a_loop(net, x, target):
    """From token to token, in blocks of 4 x 4 tokens: 1 block in level 2, 2 x 2 in level 1, 4 x 4 in level 0."""
    found, layers = explain.weighted_attention(net, x, target), slopes_of_attention(net, x, target)
    for image in range(2):
        share = torch.full((4, 4), 1 / 16)
        for level in (2, 1, 0):
            if level < 2:  # a quarter to each of the four tokens below
                share = share.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1) / 4
            for _, layer in sorted((key for key in layers if key[0] == level), reverse=True):
                weights, slope = (tensor[image] for tensor in layers[level, layer])  # (H, T, N, N)
                raising = (weights * slope).clamp(min=0).mean(dim=0)  # (T, N, N)
                share = share + passed_on(share, raising)
        share = share - 1 / 256  # without any attention
        assert_close(found[image, ::2, ::2], share, rtol=1e-3, atol=1e-7)
        assert share.std() > 1e-5  # something to compare


def passed_on(share, raising):
    """What each token of a grid gets from those of its block: (g, g), (T, N, N) -> (g, g)."""
    got, g = torch.zeros_like(share), len(share)
    for row in range(g):
        for column in range(g):
            block = (row // 4) * (g // 4) + column // 4
            to = raising[block, (row % 4) * 4 + column % 4].view(4, 4)
            top, left = row - row % 4, column - column % 4
            got[top : top + 4, left : left + 4] += share[row, column] * to
    return got


def test_attention_that_raises_nothing_has_no_map(net, x, target):
    assert_close(explain.weighted_attention(net, x, 0 * target), torch.zeros(2, 32, 32), rtol=0, atol=1e-6)


def test_removing_the_square_that_matters_first_changes_the_code_at_once():
    net, x = OneSquare(), torch.full((1, 3, 8, 8), -1.0)  # dark; covered, it is 0, which counts as bright
    importance = torch.zeros(1, 8, 8)
    importance[:, 2:4, 4:6] = 1
    first = explain.removal_curves(net, x, importance, steps=16)
    last = explain.removal_curves(net, x, -importance, steps=16)
    assert first.tolist() == [[1.0] + [0.0] * 16]
    assert last.tolist() == [[1.0] * 16 + [0.0]]
    assert explain.removal_curves(net, x, importance, steps=16, insertion=True).tolist() == [[0.0] + [1.0] * 16]
    assert explain.area(first).item() == pytest.approx(1 / 32)
    assert explain.area(last).item() == pytest.approx(31 / 32)


def test_a_square_filled_in_from_around_it_does_not_show():
    """In an image of one colour nothing is missed, until nothing is left to fill in from."""
    net, x = OneSquare(), torch.full((1, 3, 8, 8), -1.0)
    importance = torch.zeros(1, 8, 8)
    importance[:, 2:4, 4:6] = 1
    assert explain.removal_curves(net, x, importance, steps=4, fill="road").tolist() == [[1, 1, 1, 1, 0]]
    assert explain.removal_curves(net, x, importance, steps=4, fill="mean").tolist() == [[1, 0, 0, 0, 0]]


def test_filling_in_keeps_what_is_shown_and_continues_a_slope():
    down, right = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    x = torch.stack([down - 2 * right, 5 + down, 3 * right])[None].repeat(2, 1, 1, 1)
    shown = torch.ones(2, 1, 12, 12)
    shown[0, :, 3:8, 4:9] = 0
    shown[1, :, 2:4, 2:10] = 0
    filled = explain.fill_in(x, shown)
    hidden = (shown == 0).expand_as(x)
    assert torch.equal(filled[~hidden], x[~hidden])
    off = (filled - x)[hidden]
    assert 0.005 < off.std() < 0.02  # noise of 0.01 around the slope
    assert torch.equal(explain.fill_in(x, 0 * shown), 0 * x)
    assert torch.equal(explain.fill_in(x, 0 * shown + 1), x)


def test_the_noise_that_fills_in_follows_the_seed(x):
    shown = torch.ones(2, 1, 32, 32)
    shown[:, :, 8:20, 8:20] = 0
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(explain.fill_in(x, shown))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_equal_squares_go_in_random_order_and_others_in_theirs():
    values = torch.tensor([[1.0, 3.0, 1.0, 2.0]])
    found = set()
    for seed in range(20):
        torch.manual_seed(seed)
        found.add(tuple(explain._ranks(values)[0].tolist()))
    assert found == {(2, 0, 3, 1), (3, 0, 2, 1)}


def traces(net):
    """What a look at the network could leave behind."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()]
    parameters = [(p.requires_grad, p.grad) for p in net.parameters()]
    return hooks, [(m.training, getattr(m, "fused", None)) for m in net.modules()], parameters


@pytest.fixture
def in_training(net):
    """A copy of the network in the middle of a training step."""
    net = copy.deepcopy(net).train()
    for parameter in net.parameters():
        parameter.grad = torch.randn(1).expand(parameter.shape)
    net.norm.weight.requires_grad_(False)
    return net


@pytest.mark.parametrize("name", explain.NAMES)
def test_maps_fit_the_image_and_leave_the_network_as_it_was(name, in_training, x, target):
    before = traces(in_training)
    map_ = explain.attribution(in_training, x, target, name)
    assert map_.shape == (2, 32, 32)
    assert torch.isfinite(map_).all()
    assert same(traces(in_training), before)


class Broken(nn.Module):
    def forward(self, x):
        raise ZeroDivisionError


@pytest.mark.parametrize("name", explain.NAMES[:-1])  # all that ask the network
def test_an_error_on_the_way_leaves_the_network_as_it_was(name, in_training, x, target):
    in_training.hash_layer.last = Broken()
    before = traces(in_training)
    with pytest.raises(ZeroDivisionError):
        explain.attribution(in_training, x, target, name)
    assert same(traces(in_training), before)


def same(after, before):
    """Equal, and the gradients not only equal but the very same."""
    gradients = zip(after[2], before[2], strict=True)
    return after[:2] == before[:2] and all(a[0] == b[0] and a[1] is b[1] for a, b in gradients)


def test_bad_values_are_refused(net, x, target):
    with pytest.raises(ValueError, match="squares is 5, .* 32"):
        explain.occlusion(net, x, target, squares=5)
    with pytest.raises(ValueError, match="map is 'magic', .* occlusion, gradient"):
        explain.attribution(net, x, target, "magic")
    with pytest.raises(ValueError, match="fill is 'grey', .* mean, road"):
        explain.removal_curves(net, x, x[:, 0], fill="grey")
    for function in (explain.integrated_gradients, explain.removal_curves):
        with pytest.raises(ValueError, match="steps is 0"):
            function(net, x, target, steps=0)
