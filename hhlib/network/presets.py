"""Networks by name: here (`create("micro", bits=32)`) and in timm (`timm.create_model("hybridhash_base", bits=32)`)."""

import warnings

import timm
from timm.models import register_model

from hhlib.common import check_choice
from hhlib.network.model import HybridHash
from hhlib.network.weights import load_nest

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


def names() -> list[str]:
    """The presets' names."""
    return list(PRESETS)


def create(preset: str, *, bits: int, **overrides) -> HybridHash:
    """Build a preset: ``create("micro", bits=32, img_size=64)``. `overrides` are arguments of `HybridHash`."""
    return HybridHash(bits, **{**PRESETS[check_choice("network", preset, PRESETS)], **overrides})


def _entry(
    preset, pretrained, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **kwargs
) -> HybridHash:
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
