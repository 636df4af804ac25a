"""A trained network with all that comes before it, as one module: to use it without its run, and to export it.

hh.encoder.encoder_of(hh.open(dataset="digits", bits=16)).save_pretrained("folder")
z = hh.Encoder.from_pretrained("folder")(images)  # (n, 3, S, S) uint8 -> (n, 16)
"""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
from torch import Tensor, nn

from hhlib import features, network, retrieval
from hhlib.data import check_pictures
from hhlib.experiment import Experiment

CARD = Path(__file__).with_name("card.md")  #: template of the model card
SCORES = ("map", "topk", "chance", "split", "remarks")  #: of metrics.json, for the model card


class Encoder(nn.Module, PyTorchModelHubMixin, library_name="hhlib", tags=["deep-hashing", "image-retrieval"]):
    """From pictures to codes: ``encoder(images) -> z``; a bit is z >= 0. `encoder_of` makes one of a run.

    It scales and normalises pictures itself, and gives what `Experiment.encode` does in float32. `save_pretrained`
    writes weights, arguments and a model card into a folder, from which `from_pretrained` makes it again.

    Args:
        model: arguments of `network.create`: name, bits ...
        mean, std: of the channels, in 0..1; empty for a frozen backbone, which has its own.
        size: side to which pictures are scaled for a frozen backbone, in pixels; None for other networks.
        flip: whether z is the mean of the outputs for a picture and for its mirror image.
        about: facts of the run for the model card, see `facts_for_card`.
    """

    def __init__(
        self,
        model: dict[str, Any],
        *,
        mean: list[float],
        std: list[float],
        size: int | None = None,
        flip: bool = False,
        about: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.net = network.create(**model)
        self.mean, self.std, self.flip, self.about = mean, std, flip, about or {}
        self.known = network.facts_of(model["name"])
        frozen = network.kind(model["name"]) == "frozen"
        self.backbone = network.bare(model["name"], size) if frozen else None
        self.size = size if frozen else self.net.img_size
        self.eval()

    @torch.no_grad()  # with gradients, attention takes another way on a CPU, which rounds otherwise
    def forward(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) uint8, of any side S -> z (B, K) float32. ValueError if they are not such pictures."""
        check_pictures(images)
        if self.backbone is None:
            return retrieval.outputs_of(self.net, images, self.mean, self.std, self.flip)
        return self.net(features.vectors_of(self.backbone, images, self.known, self.size)).float()

    @classmethod
    def _load_as_safetensor(cls, model, model_file, map_location, strict):
        """Used by `from_pretrained`, whose default would silently accept missing tensors."""
        network.load_weights(model, Path(model_file))
        return model.to(map_location)

    def generate_model_card(self, **more) -> ModelCard:
        """The model card, which `save_pretrained` writes.

        more: what `card.md` shows beside the facts of the run: `origin` of the data, `files`, `check` of the formats.
        """
        license = self.known.license if self.known else "apache-2.0"
        data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict() | dict(license=license))
        centre = (self.known.mean, self.known.std) if self.backbone else (self.mean, self.std)
        shown = dict(encoder=self, license=license, parameters=sum(x.numel() for x in self.parameters()))
        shown |= {name: [round(x, 4) for x in values] for name, values in zip(("mean", "std"), centre, strict=True)}
        return ModelCard.from_template(data, template_str=CARD.read_text(), **shown, **more)


def encoder_of(experiment: Experiment) -> Encoder:
    """The encoder of a trained run, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: if the run has no weights.
        ValueError: if its weights do not fit, or if it was trained on vectors of another backbone or size.
    """
    experiment.need("model.safetensors", "03")
    run, backbone = experiment.run, experiment.backbone
    record, about = run.record, facts_for_card(experiment)
    how = {name: record["data"][name] for name in ("mean", "std")}
    how |= dict(flip=bool(record["parameters"]["recipe"]["flip_average"] and experiment.split.flip))
    found = Encoder(record["model"], **how, size=backbone and backbone.size, about=about)
    network.load_weights(found.net, run.path / "model.safetensors")
    if backbone is not None:
        trained_on = record["data"]["vectors_of"]
        if trained_on not in (tags := [backbone.tag(precision) for precision in features.PRECISIONS]):
            raise ValueError(
                f"{run.path} was trained on vectors of {trained_on}, but {backbone.name} with pictures of "
                f"{backbone.size} pixels gives {' or '.join(tags)}; set image_size as in the training."
            )
        own = found.backbone.state_dict()  # all but the classifier
        network.fill(found.backbone, {name: x for name, x in backbone.net.state_dict().items() if name in own})
    return found


def facts_for_card(experiment: Experiment) -> dict[str, Any]:
    """What a model card says of a run, as plain values: its parameters, data, versions, and scores if it has any."""
    record = experiment.run.record
    facts = {name: record[name] for name in ("parameters", "data", "packages", "git_commit")}
    if not experiment.has("metrics.json"):
        return facts
    scores = experiment.run.metrics()
    return facts | {"scores": {name: scores.get(name) for name in SCORES}}
