"""What makes a picture's code: kept in an index, so that a query is coded as the pictures were.

A coder works in two steps. It *looks* at pictures: a frozen backbone gives vectors, any other network gives its outputs
z at once. Then a head, or the linear map of iterative quantisation, makes outputs z of the vectors.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hhlib import baselines, network, retrieval, runs, training
from hhlib.common import atomic
from hhlib.data import sources
from hhlib.features import Backbone


@dataclass(frozen=True)
class Coder:
    """``coder.outputs(coder.look(images)) -> z (B, K)``; a bit is z >= 0."""

    facts: dict  #: plain values: network, size (pixels), bits, mean, std, flip, precision, and how `net` is built
    net: nn.Module  #: makes z of pictures or, for a frozen backbone, of its vectors
    device: str = "cpu"

    @cached_property
    def backbone(self) -> Backbone | None:
        """The frozen network that looks, None if `net` sees pictures itself."""
        if network.kind(self.facts["network"]) != "frozen":
            return None
        return Backbone(self.facts["network"], self.facts["size"], self.device, self.facts["precision"])

    @cached_property
    def model(self) -> str:
        """What codes depend on, as a digest: codes of different models must never be compared."""
        facts = {name: value for name, value in self.facts.items() if name != "trained"}  # a run may be renamed
        weights = [network.digest(self.net), *([self.backbone.key["weights"]] if self.backbone else [])]
        return hashlib.sha256(json.dumps([facts, weights], sort_keys=True).encode()).hexdigest()

    def look(self, images: Tensor) -> np.ndarray:
        """Pictures (B, 3, S, S) uint8 -> vectors (B, D) float16 or, without a backbone, outputs (B, K) float32."""
        if self.backbone is not None:
            return self.backbone(images).numpy().astype(np.float16)
        names = ("mean", "std", "precision", "flip")
        return retrieval.encode(self.net, images, **{name: self.facts[name] for name in names}).numpy()

    def outputs(self, seen: np.ndarray) -> Tensor:
        """What `look` gives -> z (B, K) float32, on the CPU."""
        if self.backbone is None:
            return torch.from_numpy(np.ascontiguousarray(seen))
        return retrieval.encode(self.net, torch.from_numpy(seen.astype(np.float32)), mean=[], std=[])

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / "model.safetensors") as draft:
            save_file({name: tensor.cpu().contiguous() for name, tensor in self.net.state_dict().items()}, draft)
        runs.write_json(folder / "coder.json", self.facts)


def load(folder: Path, device: str = "auto") -> Coder:
    """The coder of an index. ValueError if its files are damaged."""
    try:
        facts = json.loads((folder / "coder.json").read_text(encoding="utf-8"))
        built = facts["model"]
        net = nn.Linear(**built["linear"]) if "linear" in built else network.create(**built)
        if "linear" in built:
            network.fill(net, load_file(folder / "model.safetensors"))
        else:
            network.load_weights(net, folder / "model.safetensors")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no coder that can be read ({error}).") from error
    device = training.choose_device(device)
    return Coder(facts, net.eval().to(device), device)


def of_run(run: runs.Run, device: str = "auto") -> Coder:
    """A trained network, as a coder."""
    record, device = run.record, training.choose_device(device)
    parameters, data = record["parameters"], record["data"]
    name, bits = parameters["network"], parameters["bits"]
    frozen, small = network.kind(name) == "frozen", parameters["dataset"].split("-")[0] in sources.MEMORY
    size = record["model"].get("img_size") or data.get("image_size")
    size = size or network.input_size(name, picture=32 if small else None)  # runs of older versions do not say it
    flip = bool(parameters["recipe"]["flip_average"] and data.get("flip", True))
    facts = {"network": name, "size": size, "bits": bits, "mean": data["mean"], "std": data["std"], "flip": flip}
    facts |= {"model": record["model"]}
    wanted = "auto" if frozen else parameters["precision"]  # the run's is that of the head
    facts |= {"precision": training.choose_precision(wanted, device), "trained": run.path.name}
    return Coder(facts, run.model().to(device), device)


def looking(name: str, *, bits: int, size: int | None, device: str, precision: str) -> Coder:
    """A frozen backbone whose linear map to `bits` is still to be fitted, see `fitted`."""
    if network.kind(name) != "frozen":
        allowed = "a pretrained network such as lite0, or `run`, a trained one"
        raise ValueError(f"network is {name!r}, which knows nothing before it is trained; it must be {allowed}.")
    device = training.choose_device(device)
    facts = {"network": name, "size": size or network.input_size(name), "bits": bits, "mean": [], "std": []}
    facts |= {"flip": False, "precision": training.choose_precision(precision, device), "trained": None}
    return Coder(facts, nn.Identity(), device)


def fitted(coder: Coder, vectors: np.ndarray, seed: int = 0) -> Coder:
    """The same backbone with the linear map that suits these vectors (n, D): iterative quantisation, or random planes
    where there are too few vectors for it."""
    x, bits = vectors.astype(np.float32), coder.facts["bits"]
    n, D = x.shape
    enough = n >= 2 * bits and bits <= D
    encode = (baselines.itq if enough else baselines.lsh)(x, bits, seed=seed)
    offset = encode(np.zeros((1, D), np.float32))[0]  # (K,); both are affine maps, so this and
    weight = encode(np.eye(D, dtype=np.float32)) - offset  # (D, K) say all
    net = nn.Linear(D, bits)
    net.load_state_dict({"weight": torch.from_numpy(weight.T).float(), "bias": torch.from_numpy(offset).float()})
    built = {"linear": {"in_features": D, "out_features": bits}, "by": "itq" if enough else "random planes"}
    return Coder(coder.facts | {"model": built}, net.eval().to(coder.device), coder.device)
