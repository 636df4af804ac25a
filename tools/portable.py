"""A trained network in formats that need no kit, and how far each is from PyTorch in float32.

A folder is written with `network.pt2` (torch.export), `network.onnx`, `network-int8.onnx`, the weights and arguments
that `hh.Encoder.from_pretrained` reads, a model card, and `check.json`, which says what was compared.
"""

import logging
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from origins import origin_of
from torch import Tensor

import hhlib as hh

MOST = 1000  #: images that are compared
CALIBRATION = 200  #: training images from which the ranges of int8 numbers are taken
BATCH = 50  #: images per call
LEAST = 1e-4  #: |z| from which on a bit of an exact form has to be right
PACKAGES = ("torch", "timm", "onnx", "onnxruntime", "onnxscript")
FILES = {
    "network.pt2": "program of torch.export, float32",
    "network.onnx": "ONNX, float32",
    "network-int8.onnx": "ONNX, weights and activations in int8",
    "model.safetensors": "weights for `hh.Encoder`, float32",
    "config.json": "arguments of `hh.Encoder`, and facts of the run",
    "check.json": "what was compared, in full",
}
FLOAT32 = "PyTorch, float32"
#: Forms that are compared: the file that each is in.
FORMS = {
    FLOAT32: "model.safetensors",
    "torch.export": "network.pt2",
    "ONNX": "network.onnx",
    "PyTorch, bf16": "model.safetensors",
    "ONNX, int8": "network-int8.onnx",
}
EXACT = ("torch.export", "ONNX")  #: forms whose bits have to be those of PyTorch

ANY_NUMBER = {"images": {0: torch.export.Dim("n", min=1)}}  #: of images per call

Form = Callable[[Tensor], Tensor]  #: pictures (B, 3, S, S) uint8 -> z (B, K) float32


def write(experiment: hh.Experiment, folder: Path) -> None:
    """Write all files of a trained run's network.

    Raises:
        ValueError: if torch.export or ONNX gives another bit where |z| is at least `LEAST`.
        FileNotFoundError: if the run is not trained, or its pictures are missing.
    """
    packages = {name: version(name) for name in PACKAGES}  # ModuleNotFoundError, before any work, if one is missing
    experiment.need("model.safetensors")
    encoder = hh.encoder.encoder_of(experiment.run)
    images, labels = spread(experiment.split.query, MOST)
    encoder.save_pretrained(folder)  # with a model card that does not yet tell what is found below
    side = images.shape[-1]
    to_torch(encoder, side, folder / "network.pt2")
    to_onnx(encoder, side, folder / "network.onnx")
    to_int8(folder / "network.onnx", spread(experiment.split.train, CALIBRATION)[0], folder / "network-int8.onnx")
    forms = loaded(encoder, folder)
    for few in (1, 7):
        check_exact(forms, images[:few])
    found = hh.runs.surroundings() | {"packages": packages}
    found |= {"side": side, "images": len(images), "bits": encoder.bits, "least": LEAST}
    found["forms"] = compare(forms, images, labels)
    for row in found["forms"]:
        row["bytes"] = (folder / FORMS[row["form"]]).stat().st_size
    hh.runs.write_json(folder / "check.json", found)
    origin = origin_of(experiment.run.parameters["dataset"])
    encoder.generate_model_card(origin=origin, check=found | {"files": FILES}).save(folder / "README.md")


def spread(part: hh.data.Part, most: int) -> tuple[Tensor, Tensor]:
    """At most so many images of a part, evenly over it: pictures (n, 3, S, S) uint8, labels (n, C)."""
    rows = np.linspace(0, len(part) - 1, min(most, len(part))).astype(int)
    images, labels, _ = part.batch(rows)
    return images, labels


def example(side: int) -> tuple[Tensor]:
    """What the encoder is traced with: black pictures, because the program keeps them; two, as one is no variable."""
    return (torch.zeros(2, 3, side, side, dtype=torch.uint8),)


def to_torch(encoder: hh.Encoder, side: int, path: Path) -> None:
    """Write the program that torch.export makes, for pictures of this side."""
    with torch.no_grad():
        torch.export.save(torch.export.export(encoder, example(side), dynamic_shapes=ANY_NUMBER), path)


def to_onnx(encoder: hh.Encoder, side: int, path: Path) -> None:
    """Write the ONNX file, for pictures of this side: input `images`, output `z`."""
    names = dict(input_names=["images"], output_names=["z"])
    how = dict(dynamo=True, dynamic_shapes=ANY_NUMBER, external_data=False, verbose=False)
    with torch.no_grad():
        torch.onnx.export(encoder, example(side), path, **names, **how)


class Calibration(CalibrationDataReader):
    """Pictures (n, 3, S, S) uint8 for `quantize_static`, a batch at a time."""

    def __init__(self, images: Tensor):
        self.batches = iter(images.split(BATCH))

    def get_next(self) -> dict | None:
        """The next batch; None after the last."""
        return next(({"images": batch.numpy()} for batch in self.batches), None)


def to_int8(source: Path, images: Tensor, path: Path) -> None:
    """Write an ONNX file with int8 numbers, a scale per channel; activations have their range on `images`."""
    draft = path.with_suffix(".draft")
    quant_pre_process(source, draft, skip_symbolic_shape=True)  # which cannot follow attention's shapes
    logging.disable(logging.WARNING)  # weights of norms have one axis only, and a warning each
    try:
        quantize_static(draft, path, Calibration(images), per_channel=True, activation_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)
        draft.unlink()


def loaded(encoder: hh.Encoder, folder: Path) -> dict[str, Form]:
    """The forms of `FORMS`, as functions, from their files."""

    def bf16(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return encoder(images)

    program = torch.export.load(folder / "network.pt2").module()
    both = (session(folder / name) for name in ("network.onnx", "network-int8.onnx"))
    return dict(zip(FORMS, (encoder, program, next(both), bf16, next(both)), strict=True))


def session(path: Path) -> Form:
    """An ONNX file as a function, on the CPU with as many threads as PyTorch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    run = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run
    return lambda images: torch.from_numpy(run(None, {"images": images.numpy()})[0])


@torch.inference_mode()
def check_exact(forms: dict[str, Form], images: Tensor) -> None:
    """Raise ValueError unless the exact forms give PyTorch's bits where |z| is at least `LEAST`."""
    z = forms[FLOAT32](images)
    for form in EXACT:
        refuse(form, differences(forms[form](images), z), z.numel())


def refuse(form: str, found: dict, of: int) -> None:
    """Raise ValueError if an exact form gives another bit than PyTorch where |z| is at least `LEAST`."""
    if form in EXACT and found["differing_above"]:
        raise ValueError(
            f"{FORMS[form]} and PyTorch differ in {found['differing_above']:,} of {of:,} bits where |z| is at least "
            f"{LEAST:g}, so nothing is written."
        )


@torch.inference_mode()
def compare(forms: dict[str, Form], images: Tensor, labels: Tensor) -> list[dict]:
    """Encode the images in every form, in turn -> a row for each form, compared with PyTorch in float32.

    Raises:
        ValueError: if an exact form gives another bit where |z| is at least `LEAST`.
    """
    outputs, seconds = ({form: [] for form in forms} for _ in range(2))
    for batch in images.split(BATCH):
        for form, encode in forms.items():
            start = time.perf_counter()
            outputs[form].append(encode(batch))
            seconds[form].append(time.perf_counter() - start)
    whole = {form: torch.cat(parts) for form, parts in outputs.items()}
    rows = []
    for form, z in whole.items():
        ratio = np.median(np.divide(seconds[form], seconds[FLOAT32]))
        found = differences(z, whole[FLOAT32])
        refuse(form, found, z.numel())
        rows.append({"form": form} | found | {"map": score(z, labels), "seconds_ratio": ratio})
    return rows


def differences(z: Tensor, exact: Tensor) -> dict:
    """How outputs (n, K) differ from exact ones, and their bits."""
    differ = (z >= 0) != (exact >= 0)
    return {
        "equal_bits": 1 - differ.double().mean().item(),
        "differing": int(differ.sum()),
        "differing_above": int((differ & (exact.abs() >= LEAST)).sum()),
        "largest_difference": (z - exact).abs().max().item(),
    }


def score(z: Tensor, labels: Tensor) -> float | None:
    """Expected mAP of every second image, over the others; None without labels."""
    if len(z) < 2 or not labels.any():
        return None
    codes, bits, labels = hh.retrieval.pack(z), z.shape[1], labels.numpy()
    return hh.metrics.evaluate(codes[::2], labels[::2], codes[1::2], labels[1::2], bits=bits)["map"]["expected"]
