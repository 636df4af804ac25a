"""Weights from elsewhere, loaded all or nothing, with a report of what matched.

Users of the released code got mAP 0.32 to 0.61 because a non-strict load hid weights that were missing.
"""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hhlib.network.model import HybridHash


@dataclass
class MatchReport:
    """What a load of weights did: names of tensors, in the network's naming (`unused`: in the file's)."""

    matched: list[str]
    missing: list[str]  #: in the network, not in the file: these stay as they were
    unused: list[str] = field(default_factory=list)  #: in the file, with no place in the network

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing)
        text = f"{len(self.matched)} of {total} tensors matched"
        for what, names in [("not in the file", self.missing), ("not used", self.unused)]:
            if names:
                text += f"; {what}: {_shorten(names)}"
        return text


def _shorten(names: list[str], most: int = 6) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


#: Released names -> ours; the first rule that fits a name is applied. Everything else has timm's NesT names in both.
RELEASED_NAMES = {
    "pool.conv_glo.": "pool.reduce.",
    "hashlayer_train.convS1.": "hash_layer.conv_row.",
    "hashlayer_train.convS2.": "hash_layer.conv_column.",
    "hashlayer_train.conv2.": "hash_layer.to_bits.",
    "hashlayer_train.global_attention.pos_embed_glo": "hash_layer.tokens.pos_embed",
    "hashlayer_train.global_attention.": "hash_layer.tokens.attn.",
    "pool.global_attention.pos_embed_glo": "pool.tokens.pos_embed",
    "pool.global_attention.": "pool.tokens.attn.",
}


def _our_name(released: str) -> str:
    name = released.removeprefix("module.")  # left by DataParallel
    for theirs, ours in RELEASED_NAMES.items():
        if theirs in name:
            return name.replace(theirs, ours)
    return name


def load_released(net: HybridHash, state_dict: dict[str, Tensor]) -> MatchReport:
    """Fill `net` with a checkpoint of the authors' code (`torch.load(..., weights_only=True)`).

    ``FcLayer.*``, which no forward pass of that code uses, is dropped and named in the report. Everything else must
    fit exactly, or nothing is loaded: a non-strict load that hid missing weights is how mAP 0.32 to 0.61 came about.

    Raises:
        ValueError: if a tensor of the network is missing, one of the file has no place, or a shape differs.
    """
    if net.variant != "released":
        warnings.warn(
            "weights trained by the released code expect its scrambled block tokens, but this network is "
            f'variant="{net.variant}"; build it with variant="released" to get the released outputs.',
            stacklevel=2,
        )
    report = _fill(net, {_our_name(name): tensor for name, tensor in state_dict.items()}, may_miss=())
    strangers = [name for name in report.unused if not name.startswith("FcLayer.")]
    if strangers:
        raise ValueError(f"the checkpoint has tensors that this network has no place for: {_shorten(strangers)}.")
    return report


def load_nest(net: HybridHash, state_dict: dict[str, Tensor]) -> MatchReport:
    """Fill the backbone of `net` with the weights of timm's `Nest`, as the authors do with NesT-B.

    Patch embedding, transformer layers, position embeddings, 3x3 convolutions and norms load; the 1x1 convolutions,
    block-token attention and hash layer are new and stay random. Layers beyond `depths` are left out and reported.
    The authors' NesT weights were trained with asymmetric "SAME" padding; this network, like the released one, pads
    symmetrically.

    Raises:
        ValueError: if any tensor of the backbone is missing or has another shape; nothing is loaded then.
    """
    return _fill(net, dict(state_dict), may_miss=("hash_layer.", ".pool.reduce.", ".pool.tokens."))


def _fill(net: nn.Module, state: dict[str, Tensor], may_miss: tuple[str, ...]) -> MatchReport:
    """Copy `state` into `net`, all or nothing; tensors with a part of `may_miss` in their name may be absent."""
    own = net.state_dict()
    report = MatchReport(
        matched=[name for name in own if name in state],
        missing=[name for name in own if name not in state],
        unused=[name for name in state if name not in own],
    )
    lost = [name for name in report.missing if not any(part in name for part in may_miss)]
    if lost:
        raise ValueError(f"{len(lost)} of the network's {len(own)} tensors are not in the file: {_shorten(lost)}.")
    for name in report.matched:
        if own[name].shape != state[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)} in the file, "
                f"but this network needs {tuple(own[name].shape)}."
            )
    net.load_state_dict({**own, **{name: state[name] for name in report.matched}})
    return report


def load_weights(net: HybridHash, path: Path) -> MatchReport:
    """Fill `net` from a `.safetensors` file of this kit. Every tensor must fit, or nothing is loaded.

    Raises:
        ValueError: if the file is cut short or damaged, or belongs to a network of another size.
    """
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}).") from error
    try:
        report = _fill(net, state, may_miss=())
    except ValueError as error:
        raise ValueError(f"{path} does not fit this network: {error}") from error
    if report.unused:
        raise ValueError(f"{path} does not fit this network: it also holds {_shorten(report.unused)}.")
    return report
