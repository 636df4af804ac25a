"""A trained network with all that comes before it, as one module: for an index, to use it elsewhere, to export it.

    encoder = hh.encoder.encoder_of(ex.run)
    z = encoder(images)  # (n, 3, S, S) uint8 -> (n, K); a bit is z >= 0
    encoder.save_pretrained("folder")

``hh.Encoder.from_pretrained("folder")`` is the same encoder, without the run.
"""

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData
from torch import Tensor, nn

from hhlib import features, network, retrieval
from hhlib.common import check_choice, check_side
from hhlib.data import check_pictures, sources
from hhlib.reading import read_json, reading
from hhlib.records import check_centre
from hhlib.runs import Run

CARD = Path(__file__).with_name("card.md")  #: template of the model card
SCORES = ("map", "topk", "chance", "split", "remarks")  #: of metrics.json, for the model card


class Encoder(nn.Module, network.Published, library_name="hhlib", tags=["deep-hashing", "image-retrieval"]):
    """From pictures to codes: ``encoder(images) -> z``; a bit is z >= 0. `encoder_of` makes one of a run.

    It scales and normalises pictures itself, and gives what `Experiment.encode` does. `save_pretrained` writes weights,
    arguments and a model card into a folder, from which `from_pretrained` makes it again.

    Args:
        model: arguments of `network.create`: name, bits ...
        mean, std: of the channels, in 0..1; empty for a frozen backbone, which has its own.
        size: side to which pictures are scaled for a frozen backbone, in pixels; None for other networks.
        flip: whether z is the mean of the outputs for a picture and for its mirror image.
        precision: "float32" or, quicker where the hardware multiplies it, "bf16".
        about: facts for the model card, see `facts_for_card`.
    """

    def __init__(
        self,
        model: dict[str, Any],
        *,
        mean: list[float],
        std: list[float],
        size: int | None = None,
        flip: bool = False,
        precision: str = "float32",
        about: dict[str, Any] | None = None,
    ):
        super().__init__()
        check_centre(mean, std)
        if not isinstance(about, dict | None):
            raise ValueError(f"about is {about!r}, but it must be names and values.")
        self.net = network.create(**model)
        self.mean, self.std, self.flip, self.about = mean, std, flip, {} if about is None else about
        self.model, self.precision = model, check_choice("precision", precision, features.PRECISIONS)
        self.known = network.facts_of(model["name"])
        frozen = network.kind(model["name"]) == "frozen"
        if not frozen and not mean:
            raise ValueError(f"mean is {mean!r}, but {model['name']} needs the three numbers of its training pictures.")
        self.size = size if frozen else self.net.img_size
        size = check_side("size", self.size)  # pyrefly: ignore[bad-argument-type], which refuses None
        self.backbone = network.bare(model["name"], size) if frozen else None
        if self.backbone is not None and self.backbone.num_features != model["dim"]:
            raise ValueError(f"dim is {model['dim']}, but {model['name']} gives {self.backbone.num_features} numbers.")
        self.eval()

    @property
    def bits(self) -> int:
        """Code length K."""
        return self.net.bits

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @torch.no_grad()  # with gradients, attention takes another way on a CPU, which rounds otherwise
    def forward(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) uint8, of any side S -> z (B, K) float32. ValueError if they are not such pictures."""
        seen = self.see(images)
        return seen if self.backbone is None else self.net(seen).float()

    def see(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) uint8 -> a frozen backbone's vectors (B, D) float32; z (B, K) of other networks."""
        check_pictures(images)
        bf16 = torch.autocast(images.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with bf16:
            if self.backbone is None:
                return retrieval.outputs_of(self.net, images, self.mean, self.std, self.flip)
            return features.vectors_of(self.backbone, images, self.known, self.size)  # pyrefly: ignore[bad-argument-type]

    @torch.inference_mode()
    def look(self, images: Tensor) -> np.ndarray:
        """`see` for many pictures, in batches: the costly step, whose result is worth keeping.

        -> (n, D) float16, like the vectors that a head is trained on, or z (n, K) float32. FloatingPointError if a
        number is not finite.
        """
        seen = torch.cat([self.see(some.to(self.device)).cpu() for some in images.split(features.BATCH)])
        seen = seen if self.backbone is None else seen.half()  # before the check: some numbers may be too large for it
        if bad := int((~seen.isfinite()).any(dim=1).sum()):
            raise FloatingPointError(f"the network's outputs for {bad} of {len(seen)} images are not finite numbers.")
        return seen.numpy()

    @torch.inference_mode()
    def outputs(self, seen: np.ndarray) -> Tensor:
        """What `look` gives -> z (n, K) float32, on the CPU: the head on the vectors, if there is a backbone."""
        z = torch.from_numpy(np.array(seen, dtype=np.float32))
        return z if self.backbone is None else self.net(z.to(self.device)).float().cpu()

    def digest(self, *, looking: bool = False) -> str:
        """What codes depend on, as a digest: codes of different encoders must never be compared.

        looking: only what the result of `look` depends on.
        """
        how = [self.mean, self.std, self.size, self.flip, self.precision]
        if looking and self.backbone is not None:
            facts = [self.model["name"], how, network.digest(self.backbone)]
        else:
            facts = [self.model, how, network.digest(self)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def generate_model_card(self, **more) -> ModelCard:
        """The model card, which `save_pretrained` writes.

        more: what `card.md` shows beside the facts of the run: `origin` of the data, `files`, `check` of the formats.
        """
        license = self.known.license if self.known else "apache-2.0"
        about: dict[str, Any] = self._hub_mixin_info.model_card_data.to_dict() | dict(license=license)
        data = ModelCardData(**about)
        centre = (self.known.mean, self.known.std) if self.known and self.backbone else (self.mean, self.std)
        parameters = sum(x.numel() for x in self.parameters())
        shown: dict[str, Any] = dict(encoder=self, license=license, parameters=parameters)
        shown |= {name: [round(x, 4) for x in values] for name, values in zip(("mean", "std"), centre, strict=True)}
        return ModelCard.from_template(data, template_str=CARD.read_text(encoding="utf-8"), **shown, **more)


def encoder_of(run: Run, *, precision: str = "float32") -> Encoder:
    """The encoder of a trained run, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: if the run has no weights.
        ValueError: if its weights do not fit, or if it was trained on vectors of another backbone or size.
    """
    weights, record = run.need("model.safetensors", "training"), run.record
    data, parameters = record["data"], record["parameters"]
    name, dataset = parameters["network"], parameters["dataset"].split("-")[0]
    size = None
    if network.kind(name) == "frozen":  # runs of older versions say neither the size nor whether pictures are mirrored
        size = data.get("image_size") or network.input_size(name, picture=32 if dataset in sources.MEMORY else None)
    flip = bool(parameters["recipe"]["flip_average"] and data.get("flip", dataset not in sources.DRAWN))
    how = dict(mean=data["mean"], std=data["std"], size=size, flip=flip, precision=precision)
    with reading(run.path / "run.json", "the record of a network"):
        found = Encoder(record["model"], **how, about=facts_for_card(run))
    network.load_weights(found.net, weights)
    if size is not None:
        see_with(found, features.Backbone(name, size), trained_on=data["vectors_of"])
    return found


def load(folder: Path) -> Encoder:
    """What `save_pretrained` wrote, on the CPU. FileNotFoundError or ValueError if a file is missing or damaged."""
    file = folder / "config.json"
    config = read_json(file, "the description of an encoder")
    with reading(file, "the description of an encoder"):
        found = Encoder(**config)
    network.load_weights(found, folder / "model.safetensors")
    return found


def see_with(encoder: Encoder, backbone: features.Backbone, *, trained_on: str | None = None) -> None:
    """Fill an encoder's backbone with pretrained weights. ValueError if the head belongs to others."""
    tags = [backbone.tag(precision) for precision in features.PRECISIONS]
    if trained_on not in (None, *tags):
        raise ValueError(
            f"the head was trained on vectors of {trained_on}, but {backbone.name} with pictures of {backbone.size} "
            f"pixels gives {' or '.join(tags)}."
        )
    inner: nn.Module = encoder.backbone  # pyrefly: ignore[bad-assignment], as of every encoder that needs one
    own = inner.state_dict()  # all but the classifier
    network.fill(inner, {name: x for name, x in backbone.net.state_dict().items() if name in own})


def facts_for_card(run: Run) -> dict[str, Any]:
    """What a model card says of a run, as plain values: its parameters, data, versions, and scores if it has any."""
    record = run.record
    facts = {name: record[name] for name in ("parameters", "data", "packages", "git_commit")}
    if not (run.path / "metrics.json").is_file():
        return facts
    scores = run.metrics()
    return facts | {"scores": {name: scores.get(name) for name in SCORES}}
