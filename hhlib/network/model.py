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
from functools import partial

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from timm.layers import LayerNorm, LayerNorm2d
from timm.models.nest import Attention, Nest, resize_pos_embed
from torch import Tensor, nn

from hhlib.common import check_bits, check_choice

VARIANTS = ("paper", "released")
HEADS = ("linear", "normalised", "divide")


class BlockAttention(Attention):
    """timm's attention within blocks, computed the fastest way there is for the occasion.

    PyTorch's fused kernels take four axes, so the blocks go into the batch's axis; with timm's five, PyTorch falls back
    to a path slower than the softmax written out. On a CPU the fused kernel's gradient is slow too, so it is not used
    there (base network, 224 pixels, forward and backward of 8 images: 2.4 s fused, 3.6 s with five axes, 1.5 s written
    out).

    Attributes:
        fused: False writes the softmax out always, for those who want to see it.
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool):
        super().__init__(dim, heads, qkv_bias=qkv_bias)
        self.fused = True
        self.fused_attn = False  # timm's way is the written-out one

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, C) -> (B, T, N, C)."""
        if not self.fused or (torch.is_grad_enabled() and x.device.type == "cpu"):
            return super().forward(x)
        B, T, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B * T, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # (B*T, H, N, C/H) each
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)
        x = x.permute(0, 2, 3, 1).reshape(B, T, N, C)  # NesT merges heads last, so that weights fit
        return self.proj_drop(self.proj(x))


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
        self.attn = BlockAttention(dim, heads, qkv_bias=False)

    def forward(self, x: Tensor, reduce: nn.Module | None = None) -> Tensor:
        """(B, C_in, h, h) -> (B, C, h, h). `reduce`, a 1x1 convolution C_in -> C, may be left out if C_in = C."""
        x = F.avg_pool2d(x, self.pool)  # (B, C_in, t, t)
        if reduce:  # the same as convolving first, as the paper has it, at 1/pool² of the work: both are linear
            x = reduce(x)  # (B, C, t, t)
        B, C, t, _ = x.shape
        if self.variant == "paper":
            x = x.permute(0, 2, 3, 1)  # (B, t, t, C); the released code forgets this step, and so scrambles
        tokens = x.reshape(B, t * t, C)
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
            y = y + self.tokens(x, self.reduce)
        return F.max_pool2d(self.norm(y), kernel_size=3, stride=2, padding=1)  # (B, C_out, h/2, h/2)


class DivideAndEncode(nn.Module):
    """K slices of r features each, and one linear map a slice: each bit sees its own features only.

    Lai et al., "Simultaneous Feature Learning and Hash Coding with Deep Neural Networks", CVPR 2015, section 3.2.
    """

    def __init__(self, bits: int, slice_length: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(bits, slice_length) / math.sqrt(slice_length))
        self.bias = nn.Parameter(torch.zeros(bits))

    def forward(self, features: Tensor) -> Tensor:
        """(B, K * r) -> (B, K)."""
        slices = F.relu(features).unflatten(1, self.weight.shape)  # (B, K, r)
        return (slices * self.weight).sum(dim=2) + self.bias


class HashLayer(nn.Module):
    """From the last feature map to K real numbers, one a bit. No squashing: each loss brings its own.

    With one token a block, the global branch attends over a single token: its softmax is 1, so the branch is a linear
    map of the mean feature vector, added everywhere.

    Args:
        head: what comes last, one of `HEADS`: "linear" (the paper's), "normalised" (over the batch, bit by bit) or
            "divide" (see `DivideAndEncode`); the losses say which they need.
    """

    SLICE = 50  #: features a bit of the "divide" head, as in the network files of its authors

    def __init__(self, dim: int, bits: int, grid: int, pool: int, heads: int, variant: str, head: str):
        super().__init__()
        self.conv_row = nn.Conv2d(dim, dim, kernel_size=(1, 3), padding=(0, 1))
        self.conv_column = nn.Conv2d(dim, dim, kernel_size=(3, 1), padding=(1, 0))
        self.tokens = BlockTokenAttention(dim, grid, pool, heads, variant)
        self.to_bits = nn.Conv2d(dim, bits * self.SLICE if head == "divide" else bits, kernel_size=1)
        lasts = {"linear": nn.Identity, "normalised": partial(nn.BatchNorm1d, bits)}
        lasts["divide"] = partial(DivideAndEncode, bits, self.SLICE)
        self.last = lasts[head]()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, b, b) -> z (B, K)."""
        x = self.conv_column(self.conv_row(x)) + self.tokens(x)  # (B, C, b, b)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)  # (B, C, ceil(b/2), ceil(b/2))
        return self.last(self.to_bits(x).mean(dim=(2, 3)))  # (B, K)


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
        head: the last step of the hash layer, one of `HEADS`; see `HashLayer`.

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
        head: str = "linear",
    ):
        check_bits(bits)
        _check_sizes(embed_dims, num_heads, depths, interaction_heads)
        edge = _block_edge(img_size, patch_size)  # b
        _check_choices(variant, tokens_per_block, edge, drop_path_rate)
        check_choice("head", head, HEADS)
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
        self.bits, self.variant, self.img_size, self.tokens_per_block = bits, variant, img_size, tokens_per_block
        self.head_kind = head
        self._head_arguments = dict(
            grid=edge, pool=edge // math.isqrt(tokens_per_block), heads=interaction_heads, variant=variant
        )
        for level, dim, heads in zip(self.levels, embed_dims, num_heads, strict=True):
            for layer in level.transformer_encoder:
                layer.attn = BlockAttention(dim, heads, qkv_bias=True)
        for i in (1, 2):
            self.levels[i].pool = Interaction(
                embed_dims[i - 1],
                embed_dims[i],
                global_branch=global_branch,
                **self._head_arguments | dict(grid=edge * 2 ** (3 - i)),
            )
        self.hash_layer = HashLayer(embed_dims[-1], bits, **self._head_arguments, head=head)
        self.init_weights()  # truncated normal with std 0.02, zero biases, as in NesT

    @classmethod
    def _load_as_safetensor(cls, model, model_file, map_location, strict):
        """Used by `from_pretrained`, whose default would let missing tensors pass in silence."""
        return super()._load_as_safetensor(model, model_file, map_location, strict=True)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, b, b) -> z (B, K); the features themselves if `pre_logits`."""
        return x if pre_logits else self.hash_layer(x)

    @torch.no_grad()
    def set_input_size(self, img_size: int) -> None:
        """Change the side of the input image: position embeddings are resampled (new parameters), all else stays.

        Raises:
            ValueError: if the blocks do not fit.
        """
        edge = _block_edge(img_size, self.patch_size)
        finer = edge // math.isqrt(self.tokens_per_block)
        _check_choices(self.variant, self.tokens_per_block, edge, 0.0)
        for level in self.levels:
            old = level.pos_embed  # (1, T, N, C)
            new = resize_pos_embed(old, old.new_empty(1, old.shape[1], edge * edge, 1))
            level.pos_embed = nn.Parameter(new.contiguous())
            level.block_size = edge
        for module in self.modules():
            if isinstance(module, BlockTokenAttention):
                module.pool = finer
        self.patch_embed.set_input_size(img_size)
        self.img_size, self.block_size = img_size, edge
        self._head_arguments |= dict(grid=edge, pool=finer)

    def get_classifier(self) -> nn.Module:
        """The hash layer."""
        return self.hash_layer

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new, random hash layer of `num_classes` bits (timm's name for "another task, same backbone")."""
        self.bits = check_bits(num_classes)
        layer = HashLayer(self.num_features, self.bits, **self._head_arguments, head=self.head_kind)
        self.hash_layer = layer.to(self.norm.weight.device)


def _block_edge(img_size: int, patch_size: int) -> int:
    """Side b of a block in tokens, a quarter of the grid."""
    if patch_size < 1 or img_size < 1 or img_size % (4 * patch_size):
        raise ValueError(
            f"img_size is {img_size} and patch_size {patch_size}, but img_size must be a multiple of "
            f"4 * patch_size = {4 * patch_size}, so that the first level splits into 4 x 4 blocks."
        )
    return img_size // patch_size // 4


def _check_sizes(embed_dims, num_heads, depths, interaction_heads) -> None:
    for name, values in [("embed_dims", embed_dims), ("num_heads", num_heads), ("depths", depths)]:
        if len(tuple(values)) != 3 or min(values) < 1:
            raise ValueError(f"{name} is {values!r}, but it must be three positive whole numbers, one a level.")
    for level, (dim, heads) in enumerate(zip(embed_dims, num_heads, strict=True)):
        if dim % heads:
            raise ValueError(f"embed_dims[{level}] is {dim}, but it must divide by num_heads[{level}] = {heads}.")
        if level and dim % interaction_heads:
            raise ValueError(
                f"embed_dims[{level}] is {dim}, but it must divide by interaction_heads = {interaction_heads}."
            )


def _check_choices(variant: str, tokens_per_block: int, edge: int, drop_path_rate: float) -> None:
    check_choice("variant", variant, VARIANTS)
    if tokens_per_block not in (1, 4) or (tokens_per_block == 4 and edge % 2):
        raise ValueError(
            f"tokens_per_block is {tokens_per_block!r}, but it must be 1, or 4 "
            f"where the block edge (here {edge}) is even."
        )
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate is {drop_path_rate!r}, but it must be at least 0 and below 1.")
