"""Codes from other networks: a head on a frozen one's vectors, or HybridHash's hash layer on a whole one.

Letters in shapes: B images, D numbers of a vector, K bits, S image side, C channels and b side of the feature map.
"""

import math

import torch
from torch import Tensor, nn

from hhlib.common import check_bits, check_choice, check_parameters, check_share, check_side, check_whole
from hhlib.network.backbones import as_map, bare, facts
from hhlib.network.parts import HEADS, HashLayer, evaluating, last_step


class Head(nn.Module):
    """What is trained on the vectors of a frozen backbone: ``head(vectors) -> z``, before squashing.

        x -> standardise -> [dropout -> linear -> normalise -> ReLU] -> dropout -> linear -> z

    Args:
        bits: code length K, 1 to 1024.
        dim: numbers D of a vector.
        hidden: width of the hidden layer, in brackets above; 0 leaves it out.
        dropout: share of the numbers that are set to 0 while training; 0 to below 1.
        head: the last step, one of `HEADS`; see `HashLayer`.
    """

    img_size = None  #: it sees no pictures

    def __init__(self, bits: int, *, dim: int, hidden: int = 512, dropout: float = 0.5, head: str = "linear"):
        super().__init__()
        self.bits = check_bits(bits)
        check_whole("dim", dim, 1)
        check_whole("hidden", hidden, 0)
        check_share("dropout", dropout)
        check_choice("head", head, HEADS)
        wanted, last = last_step(head, bits)
        check_parameters("the head", dim * (hidden + 2) + (hidden or dim) * wanted)
        layers = [nn.BatchNorm1d(dim, affine=False)]
        if hidden:
            layers += [nn.Dropout(dropout), nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(hidden or dim, wanted), last)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors (B, D) -> z (B, K)."""
        return self.layers(x.float())


class TimmHash(nn.Module):
    """HybridHash's hash layer on the last feature map of a timm model, trained as a whole: ``net(images) -> z``.

    Args:
        bits: code length K, 1 to 1024.
        backbone: "lite0" or timm's name of any model; its weights are random until `load_pretrained`.
        img_size: side S of the square pictures, in pixels; None is the model's own.
        drop_path_rate: stochastic depth of the backbone's last layer, where it has any; 0 to below 1.
        head: the last step of the hash layer, one of `HEADS`.
    """

    def __init__(
        self,
        bits: int,
        *,
        backbone: str,
        img_size: int | None = None,
        drop_path_rate: float = 0.0,
        head: str = "linear",
    ):
        super().__init__()
        known = facts(backbone, weights=False)
        check_share("drop_path_rate", drop_path_rate)
        self.bits = check_bits(bits)
        self.img_size = known.size if img_size is None else check_side("img_size", img_size)
        self.backbone = bare(backbone, self.img_size, drop_path_rate=drop_path_rate or None)
        with torch.no_grad(), evaluating(self.backbone):
            _, C, b, w = self.forward_features(torch.zeros(1, 3, self.img_size, self.img_size)).shape
        if b != w:
            raise ValueError(f"{backbone} makes feature maps of {b} x {w}, but the hash layer needs square ones.")
        self.hash_layer = HashLayer(C, bits, grid=b, pool=b, heads=math.gcd(C, 8), variant="paper", head=head)
        for name, parameter in self.hash_layer.named_parameters():  # as in HybridHash
            if name.endswith("weight") and parameter.ndim > 1 and "last" not in name:
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) -> the feature map (B, C, b, b)."""
        return as_map(self.backbone.forward_features(images), self.backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) -> z (B, K)."""
        return self.hash_layer(self.forward_features(images))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep fewer numbers while training, where the backbone can."""
        if enable:
            self.backbone.set_grad_checkpointing(enable)
