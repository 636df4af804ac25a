"""Which pixels make the code: maps of an image for one bit, a whole code, or the likeness of two images.

Every map answers one question, a *target* t (B, K): how does the score s = sum over bits of t_k * tanh(z_k) depend on
the pixels? See `code_target`, `bit_target`, `likeness_target`. A map is only as good as its test: `removal_curves`
removes what it calls important and watches the code; a map must beat a random one. Images x (B, 3, S, S) are
normalised, so that 0 is the mean colour. A network is left as it was, without hooks or gradients.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hhlib import attention
from hhlib.common import check_choice, check_whole
from hhlib.network import evaluating

#: Maps that `attribution` knows; the others must beat the last one.
NAMES = ("rollout", "gradient", "integrated gradients", "Grad-CAM", "occlusion", "random")
AT_ONCE = 64  #: altered images that go through the network together


def code_target(z: Tensor) -> Tensor:
    """All bits of an image's own code, equally: z (B, K) -> (B, K). The same as its likeness to itself."""
    return likeness_target(z)


def bit_target(z: Tensor, bit: int) -> Tensor:
    """One bit, with the sign it has: z (B, K) -> (B, K)."""
    check_whole("bit", bit, 0, z.shape[1] - 1)
    target = torch.zeros_like(z)
    target[:, bit] = torch.where(z[:, bit] >= 0, 1.0, -1.0)  # +1 for 0, as in the code
    return target


def likeness_target(other: Tensor) -> Tensor:
    """How similar an image's code is to another's: other z (B, K) -> (B, K). With codes of ±1, s is 1 - 2 d / K."""
    return torch.where(other >= 0, 1.0, -1.0).to(other.dtype) / other.shape[1]


def score(z: Tensor, target: Tensor) -> Tensor:
    """z (B, K), target (B, K) -> s (B,)."""
    return (target * torch.tanh(z)).sum(dim=1)


def attribution(net: nn.Module, x: Tensor, target: Tensor, name: str) -> Tensor:
    """The map of this name, one of `NAMES`: (B, S, S), larger where more of the score comes from."""
    check_choice("map", name, NAMES)
    if name == "rollout":
        return _to_side(attention.rollout(attention.block_attention(net, x)), x.shape[-1])
    if name == "random":
        return _to_side(torch.rand_like(x[:, 0, :: net.patch_size, :: net.patch_size]), x.shape[-1])
    maps = dict(zip(NAMES[1:-1], (gradient, integrated_gradients, grad_cam, occlusion), strict=True))
    return maps[name](net, x, target)


def gradient(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """How much the score moves with a pixel: |ds/dx|, the largest of the three channels; (B, S, S), at least 0.

    Simonyan et al., "Deep Inside Convolutional Networks", 2013 (arXiv 1312.6034).
    """
    return _slope(net, x, target).abs().amax(dim=1)


def integrated_gradients(net: nn.Module, x: Tensor, target: Tensor, *, steps: int = 16) -> Tensor:
    """What each pixel adds to the score along the straight line from the mean colour to the image: (B, S, S), signed.

    The sum over pixels is s(image) - s(mean colour), up to the error of the sum over steps. That error is large for
    this network, whose norms turn the first trace of an image into full contrast. Sundararajan et al., "Axiomatic
    Attribution for Deep Networks", ICML 2017.
    """
    check_whole("steps", steps, 1)
    shares = (torch.arange(steps, device=x.device) + 0.5).view(-1, 1, 1, 1) / steps
    slopes = torch.zeros_like(x)
    for some in shares.split(max(1, AT_ONCE // len(x))):
        blends = (x[:, None] * some).flatten(0, 1)  # (B * some, 3, S, S)
        slope = _slope(net, blends, target.repeat_interleave(len(some), dim=0))
        slopes += slope.unflatten(0, (len(x), -1)).sum(dim=1)
    return (x * slopes / steps).sum(dim=1)


def grad_cam(net: nn.Module, x: Tensor, target: Tensor, *, level: int = 1) -> Tensor:
    """Channels of a level that raise the score, weighted by how much: (B, S, S), 0 to 1 in each image.

    Selvaraju et al., "Grad-CAM", ICCV 2017, by grad-cam. Level 1 is half as fine as 0, but says more about the code.
    """
    from pytorch_grad_cam import GradCAM

    check_whole("level", level, 0, 2)
    with frozen(net):
        cam = GradCAM(model=net, target_layers=[net.levels[level]])
        try:
            scores = [lambda z, t=t: score(z[None], t[None])[0] for t in target]
            return torch.from_numpy(cam(x.clone().requires_grad_(), scores)).to(x)
        finally:
            cam.activations_and_grads.release()


@torch.no_grad()
def occlusion(net: nn.Module, x: Tensor, target: Tensor, *, squares: int = 8) -> Tensor:
    """What the score loses when a square is covered with the mean colour: (B, S, S), signed.

    Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014. `squares` (per edge) divides S.
    """
    B, _, S, _ = x.shape
    check_whole("squares", squares, 1, S)
    if S % squares:
        raise ValueError(f"squares is {squares}, but it must divide the image side, {S}.")
    hidden = _to_side(torch.eye(squares**2, device=x.device).view(-1, 1, squares, squares), S)
    with frozen(net):
        full, losses = score(net(x), target)[:, None], []
        for some in hidden.split(max(1, AT_ONCE // B)):
            z = net((x[:, None] * (1 - some)).flatten(0, 1))  # (B * some, K)
            losses.append(full - score(z, target.repeat_interleave(len(some), dim=0)).view(B, -1))
    return _to_side(torch.cat(losses, dim=1).view(B, squares, squares), S)


def traverse(net: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, list[Tensor]]:
    """From the whole image down to the block that adds most to the score, then to that block's best child.

    A block adds the sum over its tokens and channels of feature times gradient, to first order; its features also
    contain what came from its neighbours through convolutions and block tokens. The blocks of the levels form a tree
    (1, 4, 16), which is why NesT is nested: Zhang et al., AAAI 2022, section "visual interpretability".

    Returns row and column of the chosen block in levels 2, 1 and 0, which have 1, 2 and 4 along an edge: (B, 3, 2); and
    what every block adds, level by level in the same order: (B, 1, 1), (B, 2, 2), (B, 4, 4).
    """
    with frozen(net), torch.enable_grad():
        last, features = net.forward_intermediates(x.detach().requires_grad_())  # normed; of each level
        slopes = torch.autograd.grad(score(net.forward_head(last), target).sum(), features)
    adds = [(f * slope).sum(dim=1) for f, slope in zip(features, slopes, strict=True)]  # (B, g, g), levels 0 to 2
    blocks = [F.adaptive_avg_pool2d(a, 4 >> i) * a[0].numel() / (4 >> i) ** 2 for i, a in enumerate(adds)][::-1]
    path = [torch.zeros(len(x), 2, dtype=torch.int64, device=x.device)]
    for level in blocks[1:]:
        children = torch.cartesian_prod(torch.arange(2), torch.arange(2)).to(x.device)  # (4, 2)
        rows, columns = (2 * path[-1][:, None] + children).unbind(dim=-1)  # (B, 4) each
        best = level[torch.arange(len(x))[:, None], rows, columns].argmax(dim=1)
        path.append(2 * path[-1] + children[best])
    return torch.stack(path, dim=1), [b.detach() for b in blocks]


@torch.no_grad()
def removal_curves(
    net: nn.Module, x: Tensor, importance: Tensor, *, insertion: bool = False, steps: int = 16
) -> Tensor:
    """Share of the code's bits that are kept while the image is removed, its most important squares first.

    Petsiuk et al., "RISE", BMVC 2018, with the code in place of a class. What is removed is replaced by the mean
    colour; with `insertion`, the image starts as the mean colour and its most important squares are put back first.
    `importance` (B, S, S) is averaged over the network's patches; equally important ones are taken in random order.

    Returns (B, steps + 1), from the whole image to none of it (or from none to the whole), in equal steps. A good map
    makes the curve fall at once (deletion) or rise at once (insertion); compare with a random one.
    """
    check_whole("steps", steps, 1)
    curve, g = [], net.img_size // net.patch_size
    rank = _ranks(F.adaptive_avg_pool2d(importance, g).flatten(1))  # (B, g*g)
    with frozen(net):
        code = net(x) >= 0
        for step in range(steps + 1):
            taken = (rank < round(step * g * g / steps)).view(-1, g, g).to(x)
            shown = _to_side(taken if insertion else 1 - taken, x.shape[-1])[:, None]  # (B, 1, S, S)
            curve.append(((net(x * shown) >= 0) == code).float().mean(dim=1))
    return torch.stack(curve, dim=1)


def area(curve: Tensor) -> Tensor:
    """Area under a removal curve, 0 to 1: (..., steps + 1) -> (...)."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[-1] - 1))


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and no gradients for parameters; afterwards all is as before, even after an error."""
    before = [(p, p.requires_grad, p.grad) for p in net.parameters()]
    try:
        with evaluating(net.requires_grad_(False)):
            yield
    finally:
        for parameter, needs, grad in before:
            parameter.requires_grad_(needs).grad = grad


def _ranks(values: Tensor) -> Tensor:
    """0 for the largest of each row, 1 for the next, ...; equal ones in random order: (B, n) -> (B, n) int64."""
    shuffle = torch.randperm(values.shape[1], device=values.device)
    return shuffle[values[:, shuffle].argsort(dim=1, descending=True, stable=True)].argsort(dim=1)


def _slope(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    with frozen(net), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(score(net(x), target).sum(), x)[0]


def _to_side(values: Tensor, side: int) -> Tensor:
    """(..., g, g) -> (..., S, S), each value a square."""
    return torch.kron(values, values.new_ones(2 * [side // values.shape[-1]]))
