"""A small residual network without any attention, as a control for HybridHash: `network=timm:resnet10s`.

Importing this module makes it known to timm; the kit puts HybridHash's hash layer on top, as on any network of timm.
Ten 3 x 3 convolutions, of the kind that records for CIFAR-10 are made with; pictures of 32 pixels become maps of 4 x 4.
"""

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn


def convolution(channels: int, out: int, *, pool: bool = False) -> nn.Sequential:
    """3 x 3 convolution, halved by maximum if `pool`, normalised over the batch, GELU."""
    half = [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, bias=False), *half, nn.BatchNorm2d(out), nn.GELU())


class Residual(nn.Module):
    """x + two convolutions of x, of the same size."""

    def __init__(self, channels: int):
        super().__init__()
        self.two = nn.Sequential(convolution(channels, channels), convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return x + self.two(x)


class ResNet10(nn.Module):
    """Pictures (B, 3, S, S) -> feature map (B, 8 w, S / 8, S / 8), by `forward_features`; w: channels at full size."""

    def __init__(self, w: int = 32, num_classes: int = 0, in_chans: int = 3):
        super().__init__()
        stages = [convolution(in_chans, w)]  # S
        for channels in (w, 2 * w, 4 * w):  # S / 2, S / 4, S / 8
            stages += [convolution(channels, 2 * channels, pool=True), Residual(2 * channels)]
        self.stages, self.num_features = nn.Sequential(*stages), 8 * w
        self.head = nn.Linear(8 * w, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 8 w, S / 8, S / 8)."""
        return self.stages(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, classes), or (B, 8 w) without classes."""
        return self.head(self.forward_features(x).mean(dim=(2, 3)))


default_cfgs = generate_default_cfgs({"resnet10s.untrained": dict(input_size=(3, 32, 32), num_classes=0)})


@register_model
def resnet10s(
    pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **options
) -> ResNet10:
    """timm's entry; there are no pretrained weights."""
    net = ResNet10(**options)
    net.default_cfg = net.pretrained_cfg = pretrained_cfg
    return net
