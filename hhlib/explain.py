"""Which pixels make the code: maps of an image for one bit, a whole code, or the likeness of two images.

Every map answers one question, a *target* t (B, K): how does the score s = sum over bits of t_k * z_k depend on the
pixels? See `code_target`, `bit_target`, `likeness_target`, `contrast_target`. With tanh(z), flat where a bit is sure,
maps would explain the least sure bits. A map is only as good as its test: `removal_curves` removes what it calls
important and watches the code; it must beat a random map, and another image's. Images x (B, 3, S, S) are normalised, so
that 0 is the mean colour. A network is left as it was, without hooks or gradients.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hhlib import attention
from hhlib.common import check_choice, check_whole
from hhlib.network import HybridHash, evaluating

#: Maps that `attribution` knows; the others must beat the last one.
NAMES = ("occlusion", "gradient", "integrated gradients", "Grad-CAM", "weighted attention", "rollout", "random")
AT_ONCE = 64  #: altered images that go through the network together


def code_target(z: Tensor) -> Tensor:
    """All bits of an image's own code, equally: z (B, K) -> (B, K). Its own score is the mean of |z|."""
    return likeness_target(z)


def bit_target(z: Tensor, bit: int) -> Tensor:
    """One bit, with the sign it has: z (B, K) -> (B, K)."""
    check_whole("bit", bit, 0, z.shape[1] - 1)
    only = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[bit]
    return torch.where(z >= 0, only, -only)  # +1 for 0, as in the code


def likeness_target(other: Tensor) -> Tensor:
    """How much an image's z agrees with another's code: other z (B, K) -> (B, K). If z is ±1, s is 1 - 2 d / K."""
    return torch.where(other >= 0, 1.0, -1.0).to(other.dtype) / other.shape[1]


def contrast_target(this: Tensor, other: Tensor) -> Tensor:
    """Why this code rather than the other's: the signs of `this` where the two differ, divided by how many do.

    Both z (B, K) -> (B, K); all 0 for equal codes. The score of `this` is its mean |z| over the bits that differ.
    """
    differ = (this >= 0) != (other >= 0)
    return torch.where(this >= 0, 1.0, -1.0).to(this.dtype) * differ / differ.sum(dim=1, keepdim=True).clamp(min=1)


def score(z: Tensor, target: Tensor) -> Tensor:
    """z (B, K), target (B, K) -> s (B,)."""
    return (target * z).sum(dim=1)


def attribution(net: HybridHash, x: Tensor, target: Tensor, name: str) -> Tensor:
    """The map of this name, one of `NAMES`: (B, S, S), larger where more of the score comes from."""
    check_choice("map", name, NAMES)
    if name == "rollout":
        return _to_side(attention.rollout(attention.block_attention(net, x)), x.shape[-1])
    if name == "random":
        return _to_side(torch.rand_like(x[:, 0, :: net.patch_size, :: net.patch_size]), x.shape[-1])
    maps = (occlusion, gradient, integrated_gradients, grad_cam, weighted_attention)
    return dict(zip(NAMES[:-2], maps, strict=True))[name](net, x, target)


def gradient(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """How much the score moves with a pixel: |ds/dx|, largest channel; (B, S, S), at least 0. Simonyan et al., 2013."""
    return _slope(net, x, target).abs().amax(dim=1)


def integrated_gradients(net: nn.Module, x: Tensor, target: Tensor, *, steps: int = 16) -> Tensor:
    """What each pixel adds to the score along the straight line from the mean colour to the image: (B, S, S), signed.

    The sum over pixels is s(image) - s(mean colour), up to the error of the sum over steps: 2 to 3 % on average with 16
    steps, for the kit's networks for digits and CIFAR-10. Sundararajan et al., "Axiomatic Attribution for Deep
    Networks", ICML 2017.
    """
    check_whole("steps", steps, 1)
    shares = (torch.arange(steps, device=x.device) + 0.5).view(-1, 1, 1, 1) / steps
    slopes = torch.zeros_like(x)
    for some in shares.split(max(1, AT_ONCE // len(x))):
        blends = (x[:, None] * some).flatten(0, 1)  # (B * some, 3, S, S)
        slope = _slope(net, blends, target.repeat_interleave(len(some), dim=0))
        slopes += slope.unflatten(0, (len(x), -1)).sum(dim=1)
    return (x * slopes / steps).sum(dim=1)


def grad_cam(net: HybridHash, x: Tensor, target: Tensor, *, level: int = 1) -> Tensor:
    """Channels of a level that raise the score, weighted by how much: (B, S, S), 0 to 1 in each image.

    Selvaraju et al., "Grad-CAM", ICCV 2017, by grad-cam. Level 1 is half as fine as 0, but says more about the code.
    """
    from pytorch_grad_cam import GradCAM

    check_whole("level", level, 0, 2)
    with frozen(net):
        cam = GradCAM(model=net, target_layers=[net.levels[level]])
        try:
            scores = [lambda z, t=t: score(z[None], t[None])[0] for t in target]
            return torch.from_numpy(cam(x.clone().requires_grad_(), scores)).to(x)  # pyrefly: ignore[bad-argument-type]
        finally:
            cam.activations_and_grads.release()


def weighted_attention(net: HybridHash, x: Tensor, target: Tensor) -> Tensor:
    """The attention that raises the score, followed down to the patches: (B, S, S), at least 0.

    After Chefer et al., "Generic Attention-model Explainability", ICCV 2021: in each layer, attention times the score's
    gradient by it, negative products cut, mean over heads, added to the identity; layers multiply. They have no levels:
    the way down, and what it leaves out, is that of `attention.rollout`. An even map, the identity's, is subtracted.
    """
    with frozen(net), attention.capture(net, gradients=True) as maps, torch.enable_grad():
        z = net(x.detach().clone().requires_grad_())
        weights = attention.by_layer(net, maps)
        slopes = torch.autograd.grad(score(z, target).sum(), list(weights.values()))
    raising = {key: (w * slope).clamp(min=0).detach() for (key, w), slope in zip(weights.items(), slopes, strict=True)}
    share = 2 ** len(raising) * attention.rollout(raising)  # which halves in every layer
    return _to_side(share - 1 / share[0].numel(), x.shape[-1])


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


@torch.no_grad()
def removal_curves(
    net: HybridHash, x: Tensor, importance: Tensor, *, insertion: bool = False, steps: int = 16, fill: str = "mean"
) -> Tensor:
    """Share of the code's bits that are kept while the image is removed, its most important squares first.

    Petsiuk et al., "RISE", BMVC 2018, with the code in place of a class. What is removed becomes the mean colour or,
    with `fill` "road", what `fill_in` makes of it; with `insertion` the image starts so, and its most important squares
    are put back first. `importance` (B, S, S) is averaged over patches; equal ones are taken in random order.

    Returns (B, steps + 1), from the whole image to none of it (or from none to the whole), in equal steps. A good map
    makes the curve fall at once (deletion) or rise at once (insertion); compare with a random one.
    """
    check_whole("steps", steps, 1)
    ways, between, g = {"mean": torch.mul, "road": fill_in}, [], net.img_size // net.patch_size
    hide = ways[check_choice("fill", fill, ways)]
    rank = _ranks(F.adaptive_avg_pool2d(importance, g).flatten(1))  # (B, g*g)
    with frozen(net):
        ends = [net(x) >= 0, (net(0 * x[:1]) >= 0).expand(len(x), -1)]  # of all, of nothing
        for step in range(1, steps):
            taken = (rank < round(step * g * g / steps)).view(-1, g, g).to(x)
            shown = _to_side(taken if insertion else 1 - taken, x.shape[-1])[:, None]  # (B, 1, S, S)
            between.append(net(hide(x, shown)) >= 0)
    codes = [ends[insertion], *between, ends[not insertion]]  # (B, K) each
    return torch.stack([(code == ends[0]).float().mean(dim=1) for code in codes], dim=1)


def fill_in(x: Tensor, shown: Tensor) -> Tensor:
    """Images (B, 3, S, S) whose pixels with `shown` 0 (B, 1, S, S) become a mean of their neighbours, plus noise.

    Noisy linear imputation: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods"
    (ROAD), ICML 2022, by grad-cam. It solves a sparse system per image. An image with nothing shown becomes 0.
    """
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    filled = (x * shown).float().cpu()
    for image, mask in zip(filled, shown[:, 0].float().cpu(), strict=True):
        if 0 < mask.sum() < mask.numel():
            image.copy_(NoisyLinearImputer()(image, mask))
    return filled.to(x)


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
