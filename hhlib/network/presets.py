"""Networks by name: here (`create("micro", bits=32)`) and in timm (`timm.create_model("hybridhash_base", bits=32)`).

A name says which of three kinds a network is: a size of HybridHash ("micro"); "timm:" and the name of a network, all
of which is trained, with HybridHash's hash layer on top ("timm:lite0"); or the name of a pretrained network alone,
which stays as it is and gets a head ("lite0").
"""

import warnings
from collections.abc import Iterable
from typing import Any, get_type_hints

from timm.models import is_model, register_model

from hhlib.common import nearest
from hhlib.network.backbones import LITE0, Facts, facts, known_backbones, pretrained
from hhlib.network.heads import Head, TimmHash
from hhlib.network.model import HybridHash
from hhlib.network.weights import MatchReport, fill, load_nest

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
#: Arguments of a network that are not options, because other settings say what they are.
SET_ELSEWHERE = ("bits", "img_size", "in_chans", "drop_path_rate", "backbone", "dim", "hidden", "dropout")
BUILT = {"hybridhash": HybridHash, "tuned": TimmHash, "frozen": Head}  #: class by kind
Network = HybridHash | Head | TimmHash  #: of any kind
TUNED = "timm:"  #: before the name of a network that is trained as a whole


def names() -> list[str]:
    """The sizes of HybridHash."""
    return list(PRESETS)


def kind(name: str) -> str:
    """What a network's name asks for: "hybridhash", "tuned" or "frozen". ValueError if there is no such network."""
    if not isinstance(name, str):
        raise ValueError(f"network is {name!r}, but it must be a name.")
    if name in PRESETS:
        return "hybridhash"
    tuned = name.startswith(TUNED)
    backbone = name.removeprefix(TUNED) if tuned else name
    if backbone not in known_backbones() and not (tuned and is_model(backbone)):
        allowed = f"{', '.join(PRESETS)}, {LITE0}, timm's name of a pretrained model, or {TUNED} and any model's name"
        hint = nearest(name, [*PRESETS, *known_backbones(), *(TUNED + known for known in known_backbones())])
        raise ValueError(f"network is {name!r}, but it must be {allowed}.{hint}")
    return "tuned" if tuned else "frozen"


def options(name: str) -> dict[str, Any]:
    """What settings may change of a network, as net.stem=conv: each option's name and type, see the network's class."""
    built = BUILT[kind(name)]
    return {option: hint for option, hint in get_type_hints(built.__init__).items() if option not in SET_ELSEWHERE}


def check_options(name: str, given: Iterable[str]) -> None:
    """Raise ValueError if a network has no option of a name; its values are checked when the network is built."""
    for option in given:
        if option not in (known := options(name)):
            hint = nearest(option, known)
            raise ValueError(f"net.{option} is no option of network {name}; those are {', '.join(known)}.{hint}")


def check_hybridhash(name: str) -> None:
    """Raise ValueError unless a network is a HybridHash, for pages that look at its levels and attention."""
    if kind(name) != "hybridhash":
        raise ValueError(
            f"network is {name!r}, but this page looks inside HybridHash: it must be {', '.join(PRESETS)}."
        )


def facts_of(name: str) -> Facts | None:
    """What is known of the pretrained network that a network's name asks for; None for sizes of HybridHash."""
    return None if kind(name) == "hybridhash" else facts(name.removeprefix(TUNED), weights=False)


def create(name: str, *, bits: int, **arguments) -> Network:
    """Build a network by name, with random weights; `arguments` are those of its class.

    ``create("micro", bits=32, img_size=64)``, ``create("lite0", bits=32, dim=1280)``, ``create("timm:lite0", bits=8)``
    """
    what = kind(name)
    usual = PRESETS.get(name, {}) | (dict(backbone=name.removeprefix(TUNED)) if what == "tuned" else {})
    return BUILT[what](bits, **usual | arguments)


def check_pretrained(name: str) -> None:
    """Raise ValueError if there are no pretrained weights for the network of this name."""
    if name.removeprefix(TUNED) not in (PRETRAINED if kind(name) == "hybridhash" else known_backbones()):
        having = f"{', '.join(PRETRAINED)}, {LITE0} and many of timm's models"
        raise ValueError(f"network {name!r} has no pretrained weights; those exist for {having}.")


def load_pretrained(net: HybridHash | TimmHash, name: str, **source) -> MatchReport:
    """Fill the backbone of `net` with pretrained weights: timm's NesT of its size, as the authors do, see `load_nest`;
    or those of the timm model that it is.

    NesT's weights were trained on the 1,000 labelled classes of ImageNet at 224 pixels; for another image side, the
    position embeddings are resampled. They are downloaded, unless `source`, for `timm.create_model`, says otherwise.
    ValueError if there are none of this size or they do not fit, ConnectionError if they cannot be downloaded.
    """
    check_pretrained(name)
    if isinstance(net, TimmHash):  # its hash layer stays random
        whole = pretrained(name.removeprefix(TUNED), size=net.img_size)
        whole.reset_classifier(0)
        return fill(net.backbone, whole.state_dict())
    side = net.img_size
    nest = pretrained(f"nest_{name}_jx", **source)
    net.set_input_size(nest.levels[0].block_size * 4 * net.patch_size)
    report = load_nest(net, nest.state_dict())
    net.set_input_size(side)
    return report


def _register(name: str) -> None:
    """Make a network known to timm as `hybridhash_NAME`; ``pretrained=True`` fills it with timm's NesT weights."""

    def entry(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **kwargs):
        net = create(name, **kwargs)
        if pretrained:
            source = dict(pretrained_cfg_overlay=pretrained_cfg_overlay, cache_dir=cache_dir)
            report = load_pretrained(net, name, **{key: value for key, value in source.items() if value is not None})
            warnings.warn(f"nest_{name}_jx into hybridhash_{name}: {report}", stacklevel=3)
        return net

    entry.__name__ = f"hybridhash_{name}"
    register_model(entry)


for _name in PRESETS:
    _register(_name)
