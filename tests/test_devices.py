"""What would happen on devices that the tests may not have: which is chosen, and what is asked of Apple's GPUs."""

import importlib.util
import re
from pathlib import Path

import pytest
import several
import torch
from test_methods import NAMES
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy import INDEX, U, Y, method

from hhlib import explain, network, retrieval, settings, training
from hhlib.training import setup

#: Operations that PyTorch replaces by others where the tensors are not on a CPU.
OF_CPUS = {"_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward"}


class Watch(TorchDispatchMode):
    """Notes which operations PyTorch is asked for, and which of them give float64, which Apple's GPUs do not have."""

    def __init__(self):
        super().__init__()
        self.asked, self.wide = set(), set()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        with self:  # what is made of other operations is looked at in parts
            out = function.decompose(*arguments, **(named or {}))
        if out is not NotImplemented:
            return out
        out = function(*arguments, **(named or {}))
        name = function.name().removeprefix("aten::")
        self.asked.add(name)
        if any(isinstance(x, torch.Tensor) and x.dtype == torch.float64 for x in tree_leaves(out)):
            self.wide.add(name)
        return out


@pytest.fixture(scope="module")
def lacking():
    """Operations with kernels for CPUs and none for Apple's GPUs, by the list from which PyTorch is built."""
    folder = Path(importlib.util.find_spec("torchgen").submodule_search_locations[0])
    text = (folder / "packaged/ATen/native/native_functions.yaml").read_text(encoding="utf-8")
    blocks = {block.split("(")[0].strip(): block for block in text.split("\n- func:")[1:]}
    missing = set()
    for name, block in blocks.items():
        through = re.search(r"structured_delegate: (\S+)", block)
        kernels = re.search(r"\n  dispatch:\n((?:    .*\n)+)", blocks[through[1]] if through else block)
        devices = set(re.findall(r"\w+", " ".join(re.findall(r"^ +(.*?):", kernels[1], re.M)))) if kernels else set()
        if "CPU" in devices and "MPS" not in devices:
            missing.add(name)
    assert "linalg_eig" in missing
    assert not missing & {"mm", "native_layer_norm", "add.Tensor", "select.int"}
    return missing - OF_CPUS


@pytest.fixture(scope="module")
def trainer():
    given = settings.read(bits=12, device="cpu", precision="float32", erase=4, paste=True, batch_size=9, epochs=2)
    return training.Trainer(several.small_digits(), given)


def test_a_step_asks_for_nothing_that_apples_gpus_lack(trainer, lacking):
    batch = next(trainer.batches(0))
    with Watch() as watch:
        trainer.step(batch)
    assert not watch.wide
    assert not watch.asked & lacking


@pytest.mark.parametrize("name", NAMES)
def test_no_method_asks_for_what_apples_gpus_lack(name, lacking):
    torch.manual_seed(0)
    loss = method(name).float()
    assert not any(x.dtype == torch.float64 for x in loss.state_dict().values())
    z = U.float().requires_grad_()
    with Watch() as watch:
        loss.prepare(Y)
        loss.start_epoch(9)
        loss.remember(U.float(), INDEX)
        loss(z, Y, INDEX).backward()
        loss.end_epoch(0, last=False)
    assert watch.wide <= {"lift_fresh"}  # an array on the CPU
    assert not watch.asked & lacking


@pytest.mark.parametrize("name", explain.NAMES)
def test_no_map_asks_for_what_apples_gpus_lack(trainer, name, lacking):
    net, x = trainer.net.eval(), torch.randn(1, 3, 32, 32)
    with Watch() as watch:
        explain.attribution(net, x, explain.code_target(net(x).detach()), name)
    assert not watch.wide
    assert not watch.asked & lacking


@pytest.mark.parametrize("size", [None, 16, 48])
def test_encoding_asks_for_nothing_that_apples_gpus_lack(size, lacking):
    net = network.create("micro", bits=8, img_size=size or 32).eval()
    pictures = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with Watch() as watch:
        retrieval.encode(net, pictures, mean=[0.5] * 3, std=[0.2] * 3, flip=True)
    assert not watch.wide
    assert not watch.asked & lacking


@pytest.mark.parametrize(
    ("asked", "here", "chosen"),
    [
        ("auto", ["cuda", "cpu"], "cuda"),
        ("auto", ["mps", "cpu"], "mps"),
        ("auto", ["cpu"], "cpu"),
        ("cpu", ["mps", "cpu"], "cpu"),
        ("mps", ["mps", "cpu"], "mps"),
    ],
)
def test_the_fastest_device_is_chosen_unless_another_is_named(asked, here, chosen):
    assert training.choose_device(asked, here) == chosen


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device is 'mps', but PyTorch sees none here; choose auto or cuda or cpu."):
        training.choose_device("mps", ["cuda", "cpu"])
    with pytest.raises(ValueError, match="'tpu'"):
        training.choose_device("tpu", ["cpu"])


def test_there_is_always_a_cpu_and_it_is_the_last_choice():
    assert setup.devices()[-1] == "cpu"


def test_apples_gpus_compute_in_float32_unless_asked():
    assert training.choose_precision("auto", "mps") == "float32"
    assert training.choose_precision("bf16", "mps") == "bf16"
