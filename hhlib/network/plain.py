"""A small residual network without attention, with HybridHash's hash layer: the control for "is it the network?"."""

import torch.nn.functional as F
from torch import Tensor, nn

from hhlib.common import check_bits, check_choice, check_whole
from hhlib.network.parts import HEADS, HashLayer, small_weights


class ResNet9(nn.Module):
    """Eight 3x3 convolutions, two residual pairs among them, then the hash layer: ``net(images) -> z``.

    At its usual width it does about as much arithmetic per image as HybridHash's micro network. He et al., "Deep
    Residual Learning for Image Recognition", CVPR 2016; arranged as in Page, "How to Train Your ResNet", 2018.

    Args:
        bits: code length K, 1 to 1024.
        img_size: side S of the square images in pixels, a multiple of 8.
        width: channels w after the first convolution; they double three times.
        head: the last step of the hash layer, one of `HEADS`.
    """

    def __init__(self, bits: int, *, img_size: int = 32, width: int = 32, head: str = "linear"):
        super().__init__()
        if check_whole("img_size", img_size, 8) % 8:
            raise ValueError(f"img_size is {img_size}, but resnet9 halves it three times: it must be a multiple of 8.")
        check_choice("head", head, HEADS)
        self.bits, self.img_size, w, b = check_bits(bits), img_size, check_whole("width", width, 1), img_size // 8
        first, second, third = Convolution(3, w), Convolution(w, 2 * w, pool=2), Convolution(2 * w, 4 * w, pool=2)
        fourth = Convolution(4 * w, 8 * w, pool=2)
        self.body = nn.Sequential(first, second, Residual(2 * w), third, fourth, Residual(8 * w))
        self.hash_layer = HashLayer(8 * w, bits, grid=b, pool=b, heads=8, variant="paper", head=head)
        small_weights(self.hash_layer)

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) -> the last feature map (B, 8 w, S/8, S/8)."""
        return self.body(images)

    def forward_head(self, features: Tensor) -> Tensor:
        """The last feature map -> z (B, K)."""
        return self.hash_layer(features)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> z (B, K), before squashing."""
        return self.forward_head(self.forward_features(images))


class Convolution(nn.Module):
    """3x3 convolution, max pooling, normalisation over the batch, GELU: (B, c, S, S) -> (B, c', S/pool, S/pool)."""

    def __init__(self, c_in: int, c_out: int, *, pool: int = 1):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.gelu(self.norm(F.max_pool2d(self.conv(x), self.pool)))


class Residual(nn.Module):
    """Two convolutions whose result is added to their input: (B, C, S, S) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.pair = nn.Sequential(Convolution(channels, channels), Convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x + self.pair(x)
