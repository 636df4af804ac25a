"""Vectors of pictures from a frozen, pretrained backbone: computed once, kept on disk, shared by all runs."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from hhlib import network
from hhlib.common import check_choice, check_whole, resolve
from hhlib.data import ImageFiles, KeptRows, Pool, Split, check_pictures, facts_of, normalise
from hhlib.data.files import DECODER

BATCH = 128  # pictures per pass
PRECISIONS = ("float32", "bf16")


def vectors_of(net: nn.Module, images: Tensor, known: network.Facts, size: int) -> Tensor:
    """Pictures (B, 3, S, S) uint8 -> vectors (B, D) float32 by the pooling of a timm network.

    `known` says how it wants its pictures, `size` is the side to which they are scaled, in pixels.
    """
    x = images.float()
    if x.shape[-1] != size:
        how = dict(interpolation=InterpolationMode(known.interpolation), antialias=size < x.shape[-1])
        x = resize(x, [size, size], **how).clamp(0, 255)  # (B, 3, size, size)
    x = normalise(x, known.mean, known.std).contiguous(memory_format=torch.channels_last)
    return net.forward_head(net.forward_features(x), pre_logits=True).float()  # pyrefly: ignore[not-callable], of timm


@dataclass(frozen=True)
class Backbone:
    """A pretrained network that only looks: ``backbone(images) -> vectors``, with its own mean, spread and scaling."""

    name: str  #: "lite0", or timm's name of a model
    size: int  #: side to which pictures are scaled, in pixels
    device: str = "cpu"
    precision: str = "float32"  #: or "bf16", quicker where the hardware multiplies it

    def __post_init__(self):
        check_whole("image_size", self.size, 1)
        check_choice("precision", self.precision, PRECISIONS)

    @cached_property
    def net(self) -> nn.Module:
        """The network; loaded when first used. ConnectionError if its weights are out of reach."""
        net = network.pretrained(self.name, size=self.size)
        return net.to(self.device).to(memory_format=torch.channels_last)

    @property
    def dim(self) -> int:
        """Numbers D of a vector."""
        return self.net.num_features  # pyrefly: ignore[bad-return], of timm

    @cached_property
    def key(self) -> dict:
        """What vectors depend on, beside the pictures; the weights by their SHA-256."""
        about = {"backbone": self.name, "weights": network.digest(self.net), "size": self.size}
        return about | {"precision": self.precision}

    def tag(self, precision: str) -> str:
        """The backbone's name and a digest of what vectors of this precision depend on, as a run keeps them."""
        key = json.dumps(self.key | {"precision": precision})
        return f"{self.name} {hashlib.sha256(key.encode()).hexdigest()[:12]}"

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) uint8 -> vectors (B, D) float32, on the CPU.

        Raises:
            ValueError: if they are not such pictures.
        """
        check_pictures(images)
        vectors = [self._look(some) for some in images.split(BATCH)]
        return torch.cat(vectors) if vectors else torch.empty(0, self.dim)

    def _look(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 -> (B, D), by the backbone's own pooling."""
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16"):
            # pyrefly: ignore[bad-argument-type], of no HybridHash
            return vectors_of(self.net, images.to(self.device), network.facts_of(self.name), self.size).cpu()

    def pool(self, pool: Pool, folder: str | Path) -> Pool:
        """The same pool with vectors (n, D) float16 in place of pictures: memory-mapped, kept below `folder`.

        Vectors that are on disk are not computed again, unless their picture has changed; other weights or another size
        have a folder of their own. A stopped extraction is completed by the next.

        Raises:
            ConnectionError: if the weights are out of reach.
            ValueError: if vectors on disk are damaged, or a picture is.
            OSError: if the disk has too little space.
        """
        images = pool.images
        # the pictures' names or, without any, their number: one folder serves every split of a data set
        on_disk = isinstance(images, ImageFiles)
        names = [f"decoder {DECODER}", *(pool.paths or ())] if on_disk else [str(tuple(images.shape))]
        key = self.key | {"pictures": hashlib.sha256("\n".join(names).encode()).hexdigest()}
        name = f"{self.name}-{self.size}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}"
        shape = (len(pool.labels), self.dim)
        kept = KeptRows(resolve(folder) / name, key, shape, np.float16, facts_of(images), f"{self.name} looks")
        return replace(pool, images=kept.get(lambda rows: self(images[torch.as_tensor(rows)]).numpy()))

    def split(self, split: Split, folder: str | Path) -> Split:
        """The same split with vectors in place of pictures, see `pool`; the parts of one pool share one file."""
        vectors = self.pool(split.query.pool, folder)
        return split.moved(vectors, network_size=self.size, vectors_of=self.tag(self.precision))
