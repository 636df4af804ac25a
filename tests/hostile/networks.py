"""Weights, records and states of trained networks that others send."""

import json
import pickle
import struct
from functools import cache

import torch
from safetensors.torch import save, save_file

import hhlib as hh
from hhlib.runs import Run, surroundings, write_json
from hhlib.training import keeping
from hostile import hostile, refused
from hostile.tables import Calls

SMALL = "net.embed_dims=8,8,8 net.num_heads=1,1,1 net.interaction_heads=1 net.depths=1,1,1"


def fresh_trainer():
    """A training of a small network, at its start."""
    return hh.open(SMALL, dataset="digits", bits=8, device="cpu", precision="float32", live=False).trainer()


@cache
def trainer():
    """The same one for all that do not train."""
    return fresh_trainer()


@cache
def around():
    """What else run.json says."""
    return surroundings()


def small_run(folder):
    """A run with random weights."""
    write_json(folder / "run.json", trainer().record | around())
    save_file(tensors(), folder / "model.safetensors")
    return Run(folder)


def tensors():
    """Its weights."""
    return {name: x.contiguous() for name, x in trainer().net.state_dict().items()}


def weights(folder, change):
    """The network of a run whose weights are changed: bytes, or a function of the tensors."""
    run = small_run(folder)
    raw = change if isinstance(change, bytes) else save(change(tensors()))
    (folder / "model.safetensors").write_bytes(raw)
    return run.model()


def changed(make):
    """One tensor is another."""

    def change(tensors):
        name = next(name for name in tensors if name.endswith("qkv.weight"))
        return tensors | {name: make(tensors[name])}

    return change


def header(**about):
    """A .safetensors file with this header and no numbers."""
    raw = json.dumps(about).encode()
    return struct.pack("<Q", len(raw)) + raw


def poisoned(x):
    """One number of many is not finite."""
    x = x.clone()
    x.view(-1)[3] = float("nan")
    return x


FILE = "model.safetensors"
refused(
    "checkpoint",
    weights,
    [
        ("nothing", b"", FILE),
        ("a pickle that runs a command", pickle.dumps(Calls(exec, "open('harm', 'w')")), FILE),
        ("a header longer than the file", struct.pack("<Q", 2**60) + b"{}", FILE),
        ("a header that is no JSON", struct.pack("<Q", 2) + b"{,", FILE),
        ("numbers behind the end of the file", header(a=dict(dtype="F32", shape=[9], data_offsets=[0, 36])), FILE),
        (
            "a shape that is larger than its numbers",
            header(a=dict(dtype="F32", shape=[2**40], data_offsets=[0, 0])),
            FILE,
        ),
        ("one weight that is not a number", changed(poisoned), "must hold finite"),
        ("infinite weights", changed(lambda x: x / 0), "must hold finite"),
        ("whole numbers", changed(lambda x: x.long()), "torch.int64"),
        ("true and false", changed(lambda x: x > 0), "torch.bool"),
        ("another shape", changed(lambda x: x[:3]), "but it must hold finite"),
        ("a tensor is missing", lambda tensors: dict([*tensors.items()][1:]), "are not in the file"),
        ("a tensor too many", lambda tensors: tensors | {"harm": torch.zeros(1)}, "has no place for: harm"),
        ("weights of another network", lambda _: {"a": torch.zeros(1)}, "are not in the file"),
    ],
)


@hostile("checkpoint", "weights of half precision", gives="the same network, in single precision")
def _(folder):
    found = weights(
        folder, lambda tensors: {name: x.half() if x.is_floating_point() else x for name, x in tensors.items()}
    )
    assert {x.dtype for x in found.parameters()} == {torch.float32}


def record(folder, change):
    """The network of a run whose record says something else of it."""
    run = small_run(folder)
    write_json(folder / "run.json", run.record | {"model": run.record["model"] | change})
    return run.model()


refused(
    "checkpoint",
    record,
    [
        ("a record of a million layers", {"depths": [1, 1, 10**6]}, "depths"),
        ("a record of layers a million wide", {"embed_dims": [8, 8, 10**6]}, "embed_dims"),
        ("a record of pictures of a million pixels a side", {"img_size": 10**6}, "img_size"),
        (
            "a record of a billion bits",
            {"bits": 10**9},
            "bits is 1000000000, but it must be a whole number from 1 to 1024",
        ),
        ("a record of no layers", {"depths": [0, 0, 0]}, "depths"),
        ("a record of two levels", {"depths": [1, 1]}, "it must be three positive whole numbers"),
        ("a record of half a layer", {"depths": [1, 1, 0.5]}, "depths"),
        ("a record of layers that are text", {"depths": "111"}, "depths"),
        ("a record of a negative width", {"embed_dims": [8, -8, 8]}, "embed_dims"),
        ("a record of another head", {"head": "../x"}, "head is '../x', but it must be one of"),
        ("a record of an unknown network", {"name": "../../x"}, "network is '../../x', but it must be"),
        ("a record of an argument that no network has", {"harm": 1}, "harm"),
        ("a record of layers left out with certainty", {"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
    ],
)


def pretrained(folder, change):
    """An encoder whose config.json says something else."""
    (folder / "run").mkdir()
    hh.encoder.encoder_of(small_run(folder / "run")).save_pretrained(folder / "encoder")
    file = folder / "encoder" / "config.json"
    raw = change if isinstance(change, str) else json.dumps(json.loads(file.read_text()) | change)
    file.write_text(raw)
    return hh.encoder.load(folder / "encoder")


refused(
    "checkpoint",
    pretrained,
    [
        ("a configuration that is no JSON", "{", "config.json"),
        ("a configuration that is a list", "[]", "config.json"),
        ("a configuration with another argument", {"harm": 1}, "config.json"),
        ("a configuration without a network", {"model": None}, "config.json"),
        ("a configuration of no precision", {"precision": "int1"}, "precision is 'int1'"),
        ("a configuration of a mean that is no number", {"mean": ["a", 0, 0]}, "config.json"),
    ],
)


def state(folder, change):
    """A training that resumes from a changed state: bytes, or a function of the state."""
    run = small_run(folder)
    keeping.save_state(trainer(), run)
    file = folder / keeping.STATE
    if isinstance(change, bytes):
        file.write_bytes(change)
    else:
        torch.save(change(torch.load(file, weights_only=True)), file)
    keeping.begin(fresh_trainer(), run)


HARM = Calls(exec, "open('harm', 'w')")
refused(
    "state",
    state,
    [
        ("a pickle that runs a command", pickle.dumps(HARM), "training_state.pt cannot be read; use resume=false"),
        ("a state that holds a command", lambda whole: whole | {"history": HARM}, "training_state.pt cannot be read"),
        ("cut short", b"PK\3\4" + bytes(100), "training_state.pt cannot be read"),
        ("nothing", b"", "training_state.pt cannot be read"),
        ("a list", lambda _: [1, 2], "training_state.pt cannot be read"),
        ("no weights", lambda whole: {"history": []}, "training_state"),
    ],
)
