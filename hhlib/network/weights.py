"""Weights from elsewhere, loaded all or nothing (ValueError if they do not fit), with a report of what matched.

Users of the released code got mAP 0.32 to 0.61 because a non-strict load hid missing weights.
"""

import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from hhlib.common import saving
from hhlib.reading import Damaged, read_tensors, reading

if TYPE_CHECKING:
    from hhlib.network.model import HybridHash


@dataclass
class MatchReport:
    """What loading weights did: names of tensors as the network has them (`unused`: as the file has them)."""

    matched: list[str]
    missing: list[str]  #: in the network but not in the file; left unchanged
    unused: list[str] = field(default_factory=list)  #: in the file but not in the network

    def __str__(self) -> str:
        text = f"{len(self.matched)} of {len(self.matched) + len(self.missing)} tensors matched"
        for what, names in [("not in the file", self.missing), ("not used", self.unused)]:
            text += f"; {what}: {_shorten(names)}" if names else ""
        return text


def _shorten(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


#: Parts of released names -> ours, replaced in this order. All other names are timm's NesT names in both.
RELEASED_NAMES = {
    "hashlayer_train.": "hash_layer.", "convS1.": "conv_row.", "convS2.": "conv_column.", "conv2.": "to_bits.",
    "conv_glo.": "reduce.", "global_attention.pos_embed_glo": "tokens.pos_embed", "global_attention.": "tokens.attn.",
}  # fmt: skip


def load_released(net: "HybridHash", state_dict: dict[str, Tensor]) -> MatchReport:
    """Fill `net` with a checkpoint of the authors' code (`torch.load(..., weights_only=True)`).

    ``FcLayer.*``, which no forward pass of that code uses, is dropped and named in the report; all else must fit.
    """
    if net.variant != "released":
        text = f'released weights need the scrambled block tokens of variant="released", not variant="{net.variant}".'
        warnings.warn(text, stacklevel=2)
    state = {}
    for name, tensor in state_dict.items():
        if not isinstance(name, str):
            raise ValueError(f"the checkpoint has the name {name!r}, but it must be tensors by their names.")
        name = name.removeprefix("module.")  # added by DataParallel
        for theirs, ours in RELEASED_NAMES.items():
            name = name.replace(theirs, ours)
        state[name] = tensor
    report = fill(net, {name: tensor for name, tensor in state.items() if not name.startswith("FcLayer.")})
    report.unused = [name for name in state if name.startswith("FcLayer.")]
    return report


def load_nest(net: "HybridHash", state_dict: dict[str, Tensor]) -> MatchReport:
    """Fill the backbone of `net` with the weights of timm's `Nest`, as the authors do with NesT-B.

    Patch embedding, transformer layers, position embeddings, 3x3 convolutions and norms are loaded; the 1x1
    convolutions, block-token attention and hash layer are new and stay random. Layers beyond `depths` are left out and
    reported. NesT was trained with asymmetric "SAME" padding; this network, like the released one, pads symmetrically.
    """
    return fill(net, state_dict, may_miss=("hash_layer.", ".pool.reduce.", ".pool.tokens."))


def load_weights(net: nn.Module, path: Path) -> MatchReport:
    """Fill `net` from a `.safetensors` file of this kit; all tensors must fit."""
    state = read_tensors(path)
    try:
        return fill(net, state)
    except ValueError as error:
        raise Damaged(f"{path} does not fit this network: {error}") from error


class Published(PyTorchModelHubMixin):
    """What has `save_pretrained` and `from_pretrained`; the latter checks arguments and weights as everything here."""

    def save_pretrained(self, where: str | Path, **how):
        """Written to a folder: arguments, weights and model card; `Unwritable` if the disk is full or read-only."""
        with saving(Path(where) / "model.safetensors"):
            return super().save_pretrained(where, **how)

    @classmethod
    def from_pretrained(cls, where: str | Path, **how):
        """Made again from a folder, or from a repository of the hub; ValueError if a file there is damaged."""
        file = Path(where) / "config.json"
        with reading(file, "a network's arguments") if file.exists() else nullcontext():
            return super().from_pretrained(where, **how)

    @classmethod
    def _load_as_safetensor(cls, model, model_file, map_location, strict):
        """Used by `from_pretrained`, whose default would silently accept missing tensors."""
        load_weights(model, Path(model_file))
        return model.to(map_location)


def fill(net: nn.Module, state: dict[str, Tensor], *, may_miss: tuple[str, ...] = ()) -> MatchReport:
    """Copy `state` into `net`, all or nothing; with `may_miss`, parts of names, those may be absent, others unused."""
    own = net.state_dict()
    report = MatchReport(
        [n for n in own if n in state], [n for n in own if n not in state], [n for n in state if n not in own]
    )
    if lost := [name for name in report.missing if not any(part in name for part in may_miss)]:
        raise ValueError(f"{len(lost)} of the network's {len(own)} tensors are not in the file: {_shorten(lost)}.")
    if report.unused and not may_miss:
        raise ValueError(f"the file has tensors that this network has no place for: {_shorten(report.unused)}.")
    for name in report.matched:
        theirs, ours = state[name], own[name]
        if not _fits(theirs, ours):
            found = (
                f"{theirs.dtype} of shape {tuple(theirs.shape)}" if isinstance(theirs, Tensor) else repr(theirs)[:80]
            )
            raise ValueError(
                f"{name} is {found} in the file, but it must hold finite {ours.dtype} numbers of shape "
                f"{tuple(ours.shape)}."
            )
    net.load_state_dict(own | {name: state[name] for name in report.matched})
    return report


def _fits(theirs, ours: Tensor) -> bool:
    """Whether a tensor can be copied into another: as many numbers of its kind, which stay finite."""
    if not isinstance(theirs, Tensor) or theirs.layout != torch.strided or theirs.is_quantized or theirs.is_meta:
        return False
    alike = theirs.shape == ours.shape and theirs.is_floating_point() == ours.is_floating_point()
    return alike and bool(theirs.to(ours.dtype).isfinite().all())
