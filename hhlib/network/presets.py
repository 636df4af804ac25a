"""Networks by name: here (`create("micro", bits=32)`) and in timm (`timm.create_model("hybridhash_base", bits=32)`)."""

import warnings

import timm
from timm.models import register_model

from hhlib.common import check_choice
from hhlib.network.model import HybridHash
from hhlib.network.weights import MatchReport, load_nest

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

PRETRAINED = ("base", "small", "tiny")  #: the presets of NesT's sizes


def names() -> list[str]:
    """The presets' names."""
    return list(PRESETS)


def create(name: str, *, bits: int, **overrides) -> HybridHash:
    """Build a network by name: ``create("micro", bits=32, img_size=64)``. `overrides` are arguments of `HybridHash`."""
    return HybridHash(bits, **{**PRESETS[check_choice("network", name, PRESETS)], **overrides})


def check_pretrained(preset: str) -> None:
    """Raise ValueError if there are no pretrained weights of this size."""
    if preset not in PRETRAINED:
        raise ValueError(f"hybridhash_{preset} has no pretrained weights; those exist for {', '.join(PRETRAINED)}.")


def load_pretrained(net: HybridHash, preset: str, **source) -> MatchReport:
    """Fill the backbone of `net` with timm's NesT weights of its size, as the authors do; see `load_nest`.

    The weights were trained on the 1,000 classes of ImageNet with labels, at 224 pixels: for another image side, the
    position embeddings are resampled. `source` goes to `timm.create_model`; without it, they come from the model hub.

    Raises:
        ValueError: if there are none of this size, or they do not fit.
        ConnectionError: if they cannot be fetched.
    """
    check_pretrained(preset)
    name, side = f"nest_{preset}_jx", net.img_size
    try:
        nest = timm.create_model(name, pretrained=True, **source)
    except OSError as error:
        raise ConnectionError(f"the pretrained weights {name} could not be fetched: {error}") from error
    net.set_input_size(nest.levels[0].block_size * 4 * net.patch_size)
    report = load_nest(net, nest.state_dict())
    net.set_input_size(side)
    return report


def _entry(
    preset, pretrained, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **kwargs
) -> HybridHash:
    """What timm.create_model calls: our preset, filled with timm's NesT weights if `pretrained`."""
    net = create(preset, **kwargs)
    if pretrained:
        report = load_pretrained(net, preset, pretrained_cfg_overlay=pretrained_cfg_overlay, cache_dir=cache_dir)
        warnings.warn(f"nest_{preset}_jx into hybridhash_{preset}: {report}", stacklevel=3)
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
    return _entry("micro", pretrained, **kwargs)
