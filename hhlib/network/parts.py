"""What the network is made of. For the letters in shapes and the two variants, see `hhlib.network.model`."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from timm.models.nest import Attention
from timm.models.vision_transformer_hybrid import ConvStem
from torch import Tensor, nn

VARIANTS = ("paper", "released")
HEADS = ("linear", "normalised", "divide")
STEMS = ("patch", "conv")
HASH_LAYERS = ("paper", "mean")


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it was in before, even after an error."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def conv_stem(c_in: int, dim: int, patch: int) -> ConvStem:
    """Small convolutions in the place of the patch embedding: (B, C_in, S, S) -> (B, dim, g, g).

    A patch of 2 x 2 pixels is 12 numbers, too few to see an edge. Here a 3x3 convolution of all pixels comes first,
    then one of stride 2 per halving. Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021.
    """
    halvings = patch.bit_length() - 1
    if patch != 2**halvings or not halvings:
        raise ValueError(f"patch_size is {patch}, but stem 'conv' needs 2, 4, 8 or another power of 2.")
    channels = (*[dim // 2] * halvings, dim)
    return ConvStem(c_in, halvings + 1, channels, stride=(1, *[2] * halvings), act_layer=nn.GELU)


class BlockAttention(Attention):
    """timm's attention within blocks, computed in the fastest way available; ``fused = False`` writes out the softmax.

    PyTorch's fused kernels take four axes, so blocks are folded into the batch axis; with timm's five, PyTorch falls
    back to a path slower than the written-out softmax. On a CPU the fused kernel's gradient is slow too, so it is not
    used there (base, 224 pixels, 8 images, forward and backward: 2.4 s fused, 3.6 s with five axes, 1.5 s written out).
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool):
        super().__init__(dim, heads, qkv_bias=qkv_bias)
        self.fused = True
        self.fused_attn = False  # makes timm's own forward write it out

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, C) -> (B, T, N, C)."""
        if not self.fused or (torch.is_grad_enabled() and x.device.type == "cpu"):
            return super().forward(x)
        B, T, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B * T, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # (B*T, H, N, C/H) each
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)
        x = x.permute(0, 2, 3, 1).reshape(B, T, N, C)  # NesT merges heads last, so that its weights fit
        return self.proj_drop(self.proj(x))

    def weights(self, x: Tensor) -> Tensor:
        """The attention weights for an input, which fused kernels never form: (B, T, N, C) -> (B, H, T, N, N)."""
        q, k, _ = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)  # (B, H, T, N, C/H) each
        return (q * self.scale @ k.mT).softmax(dim=-1)


class BlockTokenAttention(nn.Module):
    """Global branch: one token per block (or four), self-attention among the tokens, back to the grid.

    Paper, "interaction module"; multi-head attention without qkv bias, norm or residual, heads merged as in NesT.
    Here and below, `dim` is the channels C, which `heads` must divide; `grid` the side of the map, in tokens; `pool`
    the side of the square averaged into one block token: b, or b/2 for four per block; `variant` one of `VARIANTS`.
    """

    def __init__(self, dim: int, grid: int, pool: int, heads: int, variant: str):
        super().__init__()
        self.pool, self.variant = pool, variant
        self.pos_embed = nn.Parameter(torch.zeros(1, (grid // pool) ** 2, dim))
        self.attn = BlockAttention(dim, heads, qkv_bias=False)

    def forward(self, x: Tensor, reduce: nn.Module | None = None) -> Tensor:
        """(B, C_in, h, h) -> (B, C, h, h). `reduce`, a 1x1 convolution C_in -> C, is not needed if C_in = C."""
        x = F.avg_pool2d(x, self.pool)  # (B, C_in, t, t)
        if reduce:  # the paper convolves before pooling: the same, as both are linear, but pool² times the work
            x = reduce(x)  # (B, C, t, t)
        B, C, t, _ = x.shape
        if self.variant == "paper":
            x = x.permute(0, 2, 3, 1)  # (B, t, t, C); the released code omits this step, which scrambles its tokens
        tokens = x.reshape(B, t * t, C)
        tokens = self.attn((tokens + self.pos_embed)[:, None])[:, 0]  # timm's attention expects a block axis
        x = tokens.transpose(1, 2).reshape(B, C, t, t)
        return F.interpolate(x, scale_factor=self.pool, mode="bilinear", align_corners=False)


class Interaction(nn.Module):
    """Interaction module in front of levels 1 and 2: local + global, then halve the grid.

    Replaces timm's ConvPool and keeps its names (`conv`, `norm`), so that NesT weights fit. Without the global branch,
    all else stays, including the 3x3 convolution that pretrained weights fill: a fair ablation.
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
    """K slices of r features each, and one linear map per slice: each bit sees only its own features.

    Lai et al., "Simultaneous Feature Learning and Hash Coding with Deep Neural Networks", CVPR 2015, section 3.2.
    """

    SLICE = 50  #: features r per bit, as in the authors' network files

    def __init__(self, bits: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(bits, self.SLICE) / math.sqrt(self.SLICE))
        self.bias = nn.Parameter(torch.zeros(bits))

    def forward(self, features: Tensor) -> Tensor:
        """(B, K * r) -> (B, K)."""
        slices = F.relu(features).unflatten(1, self.weight.shape)  # (B, K, r)
        return (slices * self.weight).sum(dim=2) + self.bias


def last_step(head: str, bits: int) -> tuple[int, nn.Module]:
    """The last step of a head, one of `HEADS`, to K numbers -> how many features it needs (B, F), and the step."""
    if head == "divide":
        return bits * DivideAndEncode.SLICE, DivideAndEncode(bits)
    return bits, nn.BatchNorm1d(bits) if head == "normalised" else nn.Identity()


class HashLayer(nn.Module):
    """From the last feature map to K real numbers, one per bit. No squashing: each loss brings its own.

    With one token per block, the global branch attends over a single token: its softmax is 1, so the branch is a
    linear map of the mean feature vector, added everywhere. The last step, `head`, is "linear" (the paper's),
    "normalised" (each bit over the batch) or "divide" (`DivideAndEncode`); the losses say which one they need. Of the
    `kind` "mean", for ablations, only the last convolution and the mean are left: one linear map of the mean vector.
    """

    def __init__(self, dim: int, bits: int, grid: int, pool: int, heads: int, variant: str, head: str, kind="paper"):
        super().__init__()
        self.kind = kind
        if kind == "paper":
            self.conv_row = nn.Conv2d(dim, dim, kernel_size=(1, 3), padding=(0, 1))
            self.conv_column = nn.Conv2d(dim, dim, kernel_size=(3, 1), padding=(1, 0))
            self.tokens = BlockTokenAttention(dim, grid, pool, heads, variant)
        features, self.last = last_step(head, bits)
        self.to_bits = nn.Conv2d(dim, features, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, b, b) -> z (B, K)."""
        if self.kind == "paper":
            x = self.conv_column(self.conv_row(x)) + self.tokens(x)  # (B, C, b, b)
            x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)  # (B, C, ceil(b/2), ceil(b/2))
        return self.last(self.to_bits(x).mean(dim=(2, 3)))  # (B, K)
