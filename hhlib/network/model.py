"""The HybridHash network: a NesT backbone, interaction modules between its levels, a hash layer on top.

Paper: He & Wei, "HybridHash: Hybrid Convolutional and Self-Attention Deep Hashing for Image Retrieval", ICMR 2024,
arXiv 2405.07524. Backbone: Zhang et al., "Nested Hierarchical Transformer", AAAI 2022, arXiv 2105.12723, from timm
(`timm.models.nest.Nest`, Apache-2.0); this file adds only what HybridHash adds.

Letters in shapes: B images, S image side, p patch, g = S/p grid, T blocks per level (16, 4, 1), b = g/4 block edge in
tokens, N = b*b tokens per block, C channels, H heads, K bits, t block tokens along an edge.

Two variants, because the released code is not what the paper describes. In "paper", each block token is the mean
feature vector of one block. In "released", the pooled map (B, C, t, t) is *reshaped* to (B, t*t, C) without moving the
channels last, so each "token" is a slice through several channels' maps; use it for weights of the authors' code only.
"""

import itertools
import math

import torch
from timm.models.nest import Nest, resize_pos_embed
from torch import Tensor, nn

from hhlib.common import check_bits, check_choice, check_parameters, check_share, check_side, check_whole
from hhlib.network import parts
from hhlib.network.parts import BlockAttention, BlockTokenAttention, DivideAndEncode, HashLayer, Interaction
from hhlib.network.weights import Published

#: The largest layers and numbers of layers: several times those of any published network of this kind.
MAX_CHANNELS, MAX_DEPTH = 16_384, 256


class HybridHash(Nest, Published, library_name="hhlib", license="apache-2.0", tags=["deep-hashing"]):
    """HybridHash on timm's NesT. ``net(images) -> z``; the binary code is ``z >= 0``.

    Args:
        bits: code length K, 1 to 1024.
        img_size, patch_size: sides S of the square input and p of a patch, in pixels; S must be a multiple of 4 * p.
        embed_dims, num_heads, depths: channels, attention heads (must divide them) and layers of the three levels.
        variant: "paper" (true block tokens) or "released" (the authors' scrambled ones).
        interaction_heads: heads of the attention among block tokens; must divide the channels of the last two levels.
        drop_path_rate: stochastic depth of the last layer, rising linearly from 0 at the first; 0 to below 1.
        tokens_per_block: 1 as released, or 4 (the finer pooling that the authors' code mentions; needs an even b).
        global_branch: False removes the interaction modules' global branch, for ablations.
        stem: what makes the first tokens: "patch", NesT's one convolution per patch, or "conv", see `conv_stem`.
        hash_layer: "paper", or "mean" (mean and one linear map), for ablations.
        in_chans: channels of the input image.
        head: the last step of the hash layer, one of `HEADS`; see `HashLayer`.
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
        stem: str = "patch",
        hash_layer: str = "paper",
        in_chans: int = 3,
        head: str = "linear",
    ):
        check_bits(bits)
        check_choice("variant", variant, parts.VARIANTS)
        check_choice("head", head, parts.HEADS)
        check_choice("stem", stem, parts.STEMS)
        check_choice("hash_layer", hash_layer, parts.HASH_LAYERS)
        check_share("drop_path_rate", drop_path_rate)
        check_whole("in_chans", in_chans, 1, MAX_CHANNELS)
        _check_levels(embed_dims, num_heads, depths, interaction_heads)
        edge, pool = _block_edge(img_size, patch_size, tokens_per_block)
        _check_parameters(bits, embed_dims, depths, edge, in_chans * patch_size**2)
        super().__init__(
            img_size=img_size, in_chans=in_chans, patch_size=patch_size, num_levels=3, embed_dims=embed_dims,
            num_heads=num_heads, depths=depths, num_classes=0, drop_path_rate=drop_path_rate,
        )  # fmt: skip
        self.variant, self.img_size, self.tokens_per_block = variant, img_size, tokens_per_block
        shapes = dict(grid=edge, pool=pool, heads=interaction_heads, variant=variant)
        self._head_arguments = shapes | dict(head=head, kind=hash_layer)
        if stem == "conv":
            self.patch_embed = parts.conv_stem(in_chans, embed_dims[0], patch_size)
        for level, dim, heads in zip(self.levels, embed_dims, num_heads, strict=True):
            for layer in level.transformer_encoder:
                layer.attn = BlockAttention(dim, heads, qkv_bias=True)
        for i in (1, 2):
            shapes |= dict(grid=edge * 2 ** (3 - i))
            self.levels[i].pool = Interaction(*embed_dims[i - 1 : i + 1], global_branch=global_branch, **shapes)
        self.reset_classifier(bits)
        self.init_weights()  # truncated normal with std 0.02, zero biases, as in NesT

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, b, b) -> z (B, K); the features themselves if `pre_logits`."""
        return x if pre_logits else self.hash_layer(x)

    @torch.no_grad()
    def set_input_size(self, img_size: int) -> None:
        """Change the side of the input image: position embeddings are resampled (new parameters), all else stays."""
        edge, pool = _block_edge(img_size, self.patch_size, self.tokens_per_block)
        for level in self.levels:
            old = level.pos_embed  # (1, T, N, C)
            new = resize_pos_embed(old, old.new_empty(1, old.shape[1], edge * edge, 1))
            level.pos_embed = nn.Parameter(new.contiguous())
            level.block_size = edge
        for module in self.modules():
            if isinstance(module, BlockTokenAttention):
                module.pool = pool
        if hasattr(self.patch_embed, "set_input_size"):  # convolutions take any size
            self.patch_embed.set_input_size(img_size)
        self.img_size, self.block_size = img_size, edge
        self._head_arguments |= dict(grid=edge, pool=pool)

    def get_classifier(self) -> nn.Module:
        """The hash layer."""
        return self.hash_layer

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new, random hash layer of `num_classes` bits (timm's name for "another task, same backbone")."""
        self.bits = check_bits(num_classes)
        layer = HashLayer(self.num_features, self.bits, **self._head_arguments)
        self.hash_layer = layer.to(self.norm.weight.device)


def _block_edge(side: int, patch: int, tokens: int) -> tuple[int, int]:
    """Side b of a block, a quarter of the grid, and side of the square that one block token averages, in tokens."""
    unit = 4 * check_side("patch_size", patch)
    if check_side("img_size", side) % unit:
        raise ValueError(
            f"img_size is {side} and patch_size {patch}, but 4 x 4 blocks need a multiple of 4 * patch_size = {unit}."
        )
    b = side // unit
    if tokens not in (1, 4) or (tokens == 4 and b % 2):
        raise ValueError(f"tokens_per_block is {tokens!r}, but it must be 1, or 4 for an even block edge (here {b}).")
    return b, b // math.isqrt(tokens)


def _check_levels(embed_dims, num_heads, depths, interaction_heads) -> None:
    most = {"embed_dims": MAX_CHANNELS, "num_heads": MAX_CHANNELS, "depths": MAX_DEPTH}
    for name, values in [("embed_dims", embed_dims), ("num_heads", num_heads), ("depths", depths)]:
        if not isinstance(values, tuple | list) or len(values) != 3:
            raise ValueError(f"{name} is {values!r}, but it must be three positive whole numbers, one per level.")
        for level, value in enumerate(values):
            check_whole(f"{name}[{level}]", value, 1, most[name])
    check_whole("interaction_heads", interaction_heads, 1, MAX_CHANNELS)
    divisors = [(level, f"num_heads[{level}]", heads) for level, heads in enumerate(num_heads)]
    for level, name, heads in divisors + [(level, "interaction_heads", interaction_heads) for level in (1, 2)]:
        if embed_dims[level] % heads:
            raise ValueError(f"embed_dims[{level}] is {embed_dims[level]}, but {name}, {heads}, must divide it.")


def _check_parameters(bits: int, embed_dims, depths, edge: int, patch: int) -> None:
    """Raise ValueError for a network that is too large, by its largest parts; patch: numbers in a patch of an image."""
    layers = sum(12 * dim**2 * depth for dim, depth in zip(embed_dims, depths, strict=True))  # attention and MLP
    between = sum(10 * a * b + 4 * b**2 for a, b in itertools.pairwise(embed_dims)) + 10 * embed_dims[-1] ** 2
    places = sum(blocks * edge**2 * dim for blocks, dim in zip((16, 4, 1), embed_dims, strict=True))
    first, last = (patch + 30 * embed_dims[0]) * embed_dims[0], DivideAndEncode.SLICE * bits * embed_dims[-1]
    check_parameters("the network", first + layers + between + places + last)
