"""The HybridHash network: a NesT backbone, interaction modules between its levels, a hash layer on top.

Paper: He & Wei, "HybridHash: Hybrid Convolutional and Self-Attention Deep Hashing for Image Retrieval", ICMR 2024,
arXiv 2405.07524. Backbone: Zhang et al., "Nested Hierarchical Transformer", AAAI 2022, arXiv 2105.12723, taken from
timm (`timm.models.nest.Nest`, Apache-2.0); this file adds only what HybridHash adds.

Letters used for shapes: B images, S image side, p patch, g = S/p grid, T blocks a level (16, 4, 1), b = g/4 block edge
in tokens, N = b*b tokens a block, C channels, H heads, K bits, t block tokens along an edge.

Two variants, because the released code is not what the paper describes:

- ``"paper"``: each block token is the mean feature vector of one block, as the paper says.
- ``"released"``: the pooled map (B, C, t, t) is *reshaped* to (B, t*t, C) without moving the channels last, so each
  "token" is a slice through several channels' maps. Needed only to use weights trained with the authors' code.
"""

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import LayerNorm, LayerNorm2d
from timm.models import register_model
from timm.models.nest import Attention, Nest
from torch import Tensor, nn

from hhlib.common import check_bits, check_choice

VARIANTS = ("paper", "released")


#: Sizes by name. base: as the authors ran it (their class default has 20 layers in the last level, their training
#: script 15); small and tiny: NesT-S and NesT-T, for which pretrained weights exist; micro: ours, for CPUs.
PRESETS = {
    "base": dict(img_size=224, patch_size=4, embed_dims=(128, 256, 512), num_heads=(4, 8, 16), depths=(2, 2, 15)),
    "small": dict(img_size=224, patch_size=4, embed_dims=(96, 192, 384), num_heads=(3, 6, 12), depths=(2, 2, 20)),
    "tiny": dict(img_size=224, patch_size=4, embed_dims=(96, 192, 384), num_heads=(3, 6, 12), depths=(2, 2, 8)),
    "micro": dict(
        img_size=32,
        patch_size=2,
        embed_dims=(64, 128, 256),
        num_heads=(2, 4, 8),
        depths=(1, 1, 4),
        drop_path_rate=0.1,
    ),
}


class BlockTokenAttention(nn.Module):
    """Global branch: one token a block (or four), self-attention among the tokens, back to the grid.

    Paper, "interaction module"; multi-head attention without qkv bias, norm or residual, heads merged as in NesT.

    Args:
        dim: channels C.
        grid: side of the incoming map, in tokens.
        pool: side of the square that one block token averages; b for one token a block, b/2 for four.
        heads: attention heads; divides `dim`.
        variant: "paper" or "released", see the module's docstring.
    """

    def __init__(self, dim: int, grid: int, pool: int, heads: int, variant: str):
        super().__init__()
        self.pool, self.variant = pool, variant
        self.pos_embed = nn.Parameter(torch.zeros(1, (grid // pool) ** 2, dim))
        self.attn = Attention(dim, heads, qkv_bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, h) -> (B, C, h, h)."""
        x = F.avg_pool2d(x, self.pool)  # (B, C, t, t)
        B, C, t, _ = x.shape
        if self.variant == "released":
            tokens = x.reshape(B, t * t, C)  # the scramble: channels were not moved last
        else:
            tokens = x.flatten(2).transpose(1, 2)  # (B, t*t, C)
        tokens = self.attn((tokens + self.pos_embed)[:, None])[:, 0]  # timm's attention wants a block axis
        x = tokens.transpose(1, 2).reshape(B, C, t, t)
        return F.interpolate(x, scale_factor=self.pool, mode="bilinear", align_corners=False)


class Interaction(nn.Module):
    """Interaction module in front of levels 1 and 2: local + global, then halve the grid.

    Takes the place of timm's ConvPool and keeps its names (`conv`, `norm`), so that NesT weights fit.

    Args:
        c_in, c_out: channels before and after.
        grid: side of the incoming map, in tokens.
        pool, heads, variant: see `BlockTokenAttention`.
        global_branch: False leaves out the global branch and nothing else, a fair ablation: the 3x3 convolution,
            which pretrained weights fill, stays.
    """

    def __init__(self, c_in: int, c_out: int, grid: int, pool: int, heads: int, variant: str, global_branch: bool):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel_size=3, padding=1)
        self.norm = LayerNorm2d(c_out, eps=1e-6)
        if global_branch:
            self.reduce = nn.Conv2d(c_in, c_out, kernel_size=1, bias=False)
            self.tokens = BlockTokenAttention(c_out, grid, pool, heads, variant)
        self.global_branch = global_branch

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, h) -> (B, C_out, h/2, h/2)."""
        y = self.conv(x)  # (B, C_out, h, h)
        if self.global_branch:
            y = y + self.tokens(self.reduce(x))
        return F.max_pool2d(self.norm(y), kernel_size=3, stride=2, padding=1)  # (B, C_out, h/2, h/2)


class HashLayer(nn.Module):
    """From the last feature map to K real numbers, one a bit. No squashing: each loss brings its own.

    With one token a block, the global branch attends over a single token: its softmax is 1, so the branch is a linear
    map of the mean feature vector, added everywhere.
    """

    def __init__(self, dim: int, bits: int, grid: int, pool: int, heads: int, variant: str):
        super().__init__()
        self.conv_row = nn.Conv2d(dim, dim, kernel_size=(1, 3), padding=(0, 1))
        self.conv_column = nn.Conv2d(dim, dim, kernel_size=(3, 1), padding=(1, 0))
        self.tokens = BlockTokenAttention(dim, grid, pool, heads, variant)
        self.to_bits = nn.Conv2d(dim, bits, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, b, b) -> z (B, K)."""
        x = self.conv_column(self.conv_row(x)) + self.tokens(x)  # (B, C, b, b)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)  # (B, C, ceil(b/2), ceil(b/2))
        return self.to_bits(x).mean(dim=(2, 3))  # (B, K)


class HybridHash(Nest, PyTorchModelHubMixin, library_name="hhlib", license="apache-2.0", tags=["deep-hashing"]):
    """HybridHash on timm's NesT. ``net(images) -> z``; the binary code is ``z >= 0``.

    Args:
        bits: code length K, 1 to 1024.
        img_size: side S of the square input, in pixels; a multiple of 4 * patch_size.
        patch_size: side p of a patch, in pixels.
        embed_dims: channels of the three levels; the last two divide by `interaction_heads`.
        num_heads: attention heads of the three levels; each divides its level's channels.
        depths: transformer layers of the three levels.
        variant: "paper" (true block tokens) or "released" (the authors' scrambled ones).
        interaction_heads: heads of the attention among block tokens.
        drop_path_rate: stochastic depth of the last layer, rising linearly from 0 at the first; 0 to below 1.
        tokens_per_block: 1 as released, or 4 (the finer pooling that the authors' code mentions; needs an even b).
        global_branch: False leaves out the interaction modules' global branch, for ablations.
        in_chans: channels of the input image.

    Raises:
        ValueError: for a bad value, in one sentence that says what is allowed.
    """

    def __init__(
        self,
        bits: int,
        *,
        img_size: int = 224,
        patch_size: int = 4,
        embed_dims: tuple[int, int, int] = (128, 256, 512),
        num_heads: tuple[int, int, int] = (4, 8, 16),
        depths: tuple[int, int, int] = (2, 2, 15),
        variant: str = "paper",
        interaction_heads: int = 8,
        drop_path_rate: float = 0.5,
        tokens_per_block: int = 1,
        global_branch: bool = True,
        in_chans: int = 3,
    ):
        check_bits(bits)
        _check_sizes(img_size, patch_size, embed_dims, num_heads, depths, interaction_heads)
        edge = img_size // patch_size // 4  # b
        _check_choices(variant, tokens_per_block, edge, drop_path_rate)
        super().__init__(
            img_size=img_size,
            in_chans=in_chans,
            patch_size=patch_size,
            num_levels=3,
            embed_dims=tuple(embed_dims),
            num_heads=tuple(num_heads),
            depths=tuple(depths),
            num_classes=0,
            drop_path_rate=drop_path_rate,
            norm_layer=LayerNorm,
        )
        self.bits, self.variant, self.img_size = bits, variant, img_size
        self._head_arguments = dict(
            grid=edge, pool=edge // math.isqrt(tokens_per_block), heads=interaction_heads, variant=variant
        )
        for i in (1, 2):
            self.levels[i].pool = Interaction(
                embed_dims[i - 1],
                embed_dims[i],
                global_branch=global_branch,
                **self._head_arguments | dict(grid=edge * 2 ** (3 - i)),
            )
        self.hash_layer = HashLayer(embed_dims[-1], bits, **self._head_arguments)
        self.init_weights()  # truncated normal with std 0.02, zero biases, as in NesT

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, b, b) -> z (B, K); the features themselves if `pre_logits`."""
        return x if pre_logits else self.hash_layer(x)

    def get_classifier(self) -> nn.Module:
        """The hash layer."""
        return self.hash_layer

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new, random hash layer of `num_classes` bits (timm's name for "another task, same backbone")."""
        self.bits = check_bits(num_classes)
        self.hash_layer = HashLayer(self.num_features, self.bits, **self._head_arguments).to(self.norm.weight.device)


def _check_sizes(img_size, patch_size, embed_dims, num_heads, depths, interaction_heads) -> None:
    for name, values in [("embed_dims", embed_dims), ("num_heads", num_heads), ("depths", depths)]:
        if len(tuple(values)) != 3 or min(values) < 1:
            raise ValueError(f"{name} is {values!r}, but it must be three positive whole numbers, one a level.")
    if patch_size < 1 or img_size < 1 or img_size % (4 * patch_size):
        raise ValueError(
            f"img_size is {img_size} and patch_size {patch_size}, but img_size must be a multiple of "
            f"4 * patch_size = {4 * patch_size}, so that the first level splits into 4 x 4 blocks."
        )
    for level, (dim, heads) in enumerate(zip(embed_dims, num_heads, strict=True)):
        if dim % heads:
            raise ValueError(f"embed_dims[{level}] is {dim}, but it must divide by num_heads[{level}] = {heads}.")
        if level and dim % interaction_heads:
            raise ValueError(f"embed_dims[{level}] is {dim}, but it must divide by interaction_heads = {interaction_heads}.")


def _check_choices(variant: str, tokens_per_block: int, edge: int, drop_path_rate: float) -> None:
    check_choice("variant", variant, VARIANTS)
    if tokens_per_block not in (1, 4) or (tokens_per_block == 4 and edge % 2):
        raise ValueError(
            f"tokens_per_block is {tokens_per_block!r}, but it must be 1, or 4 where the block edge (here {edge}) is even."
        )
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate is {drop_path_rate!r}, but it must be at least 0 and below 1.")


# --- by name -------------------------------------------------------------------------------------------------------


def names() -> list[str]:
    """The presets' names."""
    return list(PRESETS)


def create(preset: str, *, bits: int, **overrides) -> HybridHash:
    """Build a preset: ``create("micro", bits=32, img_size=64)``. `overrides` are arguments of `HybridHash`."""
    return HybridHash(bits, **{**PRESETS[check_choice("network", preset, PRESETS)], **overrides})


def _entry(preset, pretrained, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **kwargs) -> HybridHash:
    """What timm.create_model calls: our preset, filled with timm's NesT weights if `pretrained`."""
    net = create(preset, **kwargs)
    if pretrained:
        source = f"nest_{preset}_jx"
        nest = timm.create_model(
            source, pretrained=True, pretrained_cfg_overlay=pretrained_cfg_overlay, cache_dir=cache_dir
        )
        warnings.warn(f"{source} into hybridhash_{preset}: {load_nest(net, nest.state_dict())}", stacklevel=3)
    return net


@register_model
def hybridhash_base(pretrained: bool = False, **kwargs) -> HybridHash:
    """HybridHash as the authors ran it, at 224 x 224; `pretrained` fills the backbone with NesT-B's weights."""
    return _entry("base", pretrained, **kwargs)


@register_model
def hybridhash_small(pretrained: bool = False, **kwargs) -> HybridHash:
    """HybridHash on NesT-S at 224 x 224."""
    return _entry("small", pretrained, **kwargs)


@register_model
def hybridhash_tiny(pretrained: bool = False, **kwargs) -> HybridHash:
    """HybridHash on NesT-T at 224 x 224."""
    return _entry("tiny", pretrained, **kwargs)


@register_model
def hybridhash_micro(pretrained: bool = False, **kwargs) -> HybridHash:
    """HybridHash for 32 x 32 images and CPUs; there are no pretrained weights of this size."""
    if pretrained:
        raise ValueError("hybridhash_micro has no pretrained weights; those exist for base, small and tiny.")
    return _entry("micro", pretrained, **kwargs)


# --- weights -------------------------------------------------------------------------------------------------------


@dataclass
class MatchReport:
    """What a load of weights did: names of tensors, in the network's naming (`unused`: in the file's)."""

    matched: list[str]
    missing: list[str]  #: in the network, not in the file: these stay as they were
    unused: list[str] = field(default_factory=list)  #: in the file, with no place in the network

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing)
        text = f"{len(self.matched)} of {total} tensors matched"
        for what, names in [("not in the file", self.missing), ("not used", self.unused)]:
            if names:
                text += f"; {what}: {_shorten(names)}"
        return text


def _shorten(names: list[str], most: int = 6) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


#: Released names -> ours; the first rule that fits a name is applied. Everything else has timm's NesT names in both.
RELEASED_NAMES = {
    "pool.conv_glo.": "pool.reduce.",
    "hashlayer_train.convS1.": "hash_layer.conv_row.",
    "hashlayer_train.convS2.": "hash_layer.conv_column.",
    "hashlayer_train.conv2.": "hash_layer.to_bits.",
    "hashlayer_train.global_attention.pos_embed_glo": "hash_layer.tokens.pos_embed",
    "hashlayer_train.global_attention.": "hash_layer.tokens.attn.",
    "pool.global_attention.pos_embed_glo": "pool.tokens.pos_embed",
    "pool.global_attention.": "pool.tokens.attn.",
}


def _our_name(released: str) -> str:
    name = released.removeprefix("module.")  # left by DataParallel
    for theirs, ours in RELEASED_NAMES.items():
        if theirs in name:
            return name.replace(theirs, ours)
    return name


def load_released(net: HybridHash, state_dict: dict[str, Tensor]) -> MatchReport:
    """Fill `net` with a checkpoint of the authors' code (`torch.load(..., weights_only=True)`).

    ``FcLayer.*``, which no forward pass of that code uses, is dropped and named in the report. Everything else must
    fit exactly, or nothing is loaded: a non-strict load that hid missing weights is how mAP 0.32 to 0.61 came about.

    Raises:
        ValueError: if a tensor of the network is missing, one of the file has no place, or a shape differs.
    """
    if net.variant != "released":
        warnings.warn(
            f'weights trained by the released code expect its scrambled block tokens, but this network is variant="{net.variant}"; '
            'build it with variant="released" to get the released outputs.',
            stacklevel=2,
        )
    report = _fill(net, {_our_name(name): tensor for name, tensor in state_dict.items()}, may_miss=())
    strangers = [name for name in report.unused if not name.startswith("FcLayer.")]
    if strangers:
        raise ValueError(f"the checkpoint has tensors that this network has no place for: {_shorten(strangers)}.")
    return report


def load_nest(net: HybridHash, state_dict: dict[str, Tensor]) -> MatchReport:
    """Fill the backbone of `net` with the weights of timm's `Nest`, as the authors do with NesT-B.

    Patch embedding, transformer layers, position embeddings, 3x3 convolutions and norms load; the 1x1 convolutions,
    block-token attention and hash layer are new and stay random. Layers beyond `depths` are left out and reported.
    The authors' NesT weights were trained with asymmetric "SAME" padding; this network, like the released one, pads
    symmetrically.

    Raises:
        ValueError: if any tensor of the backbone is missing or has another shape; nothing is loaded then.
    """
    return _fill(net, dict(state_dict), may_miss=("hash_layer.", ".pool.reduce.", ".pool.tokens."))


def _fill(net: nn.Module, state: dict[str, Tensor], may_miss: tuple[str, ...]) -> MatchReport:
    """Copy `state` into `net`, all or nothing; tensors with a part of `may_miss` in their name may be absent."""
    own = net.state_dict()
    report = MatchReport(
        matched=[name for name in own if name in state],
        missing=[name for name in own if name not in state],
        unused=[name for name in state if name not in own],
    )
    lost = [name for name in report.missing if not any(part in name for part in may_miss)]
    if lost:
        raise ValueError(f"{len(lost)} of the network's {len(own)} tensors are not in the file: {_shorten(lost)}.")
    for name in report.matched:
        if own[name].shape != state[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)} in the file, but this network needs {tuple(own[name].shape)}."
            )
    net.load_state_dict({**own, **{name: state[name] for name in report.matched}})
    return report


def load_weights(net: HybridHash, path: Path) -> MatchReport:
    """Fill `net` from a `.safetensors` file of this kit. Every tensor must fit, or nothing is loaded.

    Raises:
        ValueError: if the file is cut short or damaged, or belongs to a network of another size.
    """
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}).") from error
    try:
        report = _fill(net, state, may_miss=())
    except ValueError as error:
        raise ValueError(f"{path} does not fit this network: {error}") from error
    if report.unused:
        raise ValueError(f"{path} does not fit this network: it also holds {_shorten(report.unused)}.")
    return report
