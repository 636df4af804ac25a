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
    "micro": dict(img_size=32, patch_size=2, embed_dims=(64, 128, 256), num_heads=(2, 4, 8), depths=(1, 1, 4),
                  drop_path_rate=0.1),
}  # fmt: skip
PRETRAINED = ("base", "small", "tiny")  #: networks of NesT's sizes


def names() -> list[str]:
    """The names that `create` knows."""
    return list(PRESETS)


def create(name: str, *, bits: int, **overrides) -> HybridHash:
    """Build a network by name: ``create("micro", bits=32, img_size=64)``; `overrides` are arguments of `HybridHash`."""
    return HybridHash(bits, **{**PRESETS[check_choice("network", name, PRESETS)], **overrides})


def check_pretrained(name: str) -> None:
    """Raise ValueError if there are no pretrained weights for the network of this name."""
    if name not in PRETRAINED:
        raise ValueError(f"network {name!r} has no pretrained weights; those exist for {', '.join(PRETRAINED)}.")


def load_pretrained(net: HybridHash, name: str, **source) -> MatchReport:
    """Fill the backbone of `net` with timm's NesT weights of its size, as the authors do; see `load_nest`.

    The weights were trained on the 1,000 labelled classes of ImageNet at 224 pixels; for another image side, the
    position embeddings are resampled. They are downloaded, unless `source`, for `timm.create_model`, says otherwise.
    ValueError if there are none of this size or they do not fit, ConnectionError if they cannot be downloaded.
    """
    check_pretrained(name)
    side = net.img_size
    try:
        nest = timm.create_model(f"nest_{name}_jx", pretrained=True, **source)
    except OSError as error:
        raise ConnectionError(f"the pretrained weights nest_{name}_jx could not be downloaded: {error}") from error
    net.set_input_size(nest.levels[0].block_size * 4 * net.patch_size)
    report = load_nest(net, nest.state_dict())
    net.set_input_size(side)
    return report


def _register(name: str) -> None:
    """Make a network known to timm as `hybridhash_NAME`; ``pretrained=True`` fills it with timm's NesT weights."""

    def entry(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **kwargs):
        net = create(name, **kwargs)
        if pretrained:
            report = load_pretrained(net, name, pretrained_cfg_overlay=pretrained_cfg_overlay, cache_dir=cache_dir)
            warnings.warn(f"nest_{name}_jx into hybridhash_{name}: {report}", stacklevel=3)
        return net

    entry.__name__ = f"hybridhash_{name}"
    register_model(entry)


for _name in PRESETS:
    _register(_name)
