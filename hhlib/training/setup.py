"""What training needs before its first step: the machine, the optimizer, the schedule."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState
from timm.optim.muon import Muon
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

from hhlib.common import check_choice
from hhlib.losses import Method
from hhlib.settings import Recipe
from hhlib.training.scale.micro_batches import MicroBatches
from hhlib.training.scale.processes import replicas, several, share_normalisation, together

LAUNCH = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}  #: torchrun gives a process all of these
LEFT_OVER = re.compile(r"(LOCAL_)?(RANK|WORLD_SIZE)|(PMI|MPI|OMPI|MV2)_\w*(RANK|SIZE)\w*")


def devices() -> list[str]:
    """What PyTorch can compute on here, the fastest first: "cuda", "mps" (Apple's GPUs), and always "cpu"."""
    return ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]


def choose_device(device: str, here: Sequence[str] = ()) -> str:
    """ "auto" is the first of `here`, by default of `devices()`. Asking for a GPU that is not there is an error, not a
    slow run."""
    check_choice("device", device, ("auto", "cpu", "cuda", "mps"))
    here = here or devices()
    if device not in ("auto", *here):
        raise ValueError(f"device is {device!r}, but PyTorch sees none here; choose auto or {' or '.join(here)}.")
    return here[0] if device == "auto" else device


def choose_precision(precision: str, device: str, cpu=torch.cpu) -> str:
    """ "auto" is bf16 where the hardware multiplies it natively; elsewhere bf16 works but is slower than float32.

    On Apple's GPUs, where it was never measured, "auto" is float32.
    cpu: says what a CPU can do. In PyTorch 2.10 it does not, and "auto" is then float32.
    """
    check_choice("precision", precision, ("auto", "float32", "bf16"))
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    can = cpu.get_capabilities() if device == "cpu" and hasattr(cpu, "get_capabilities") else {}
    return "bf16" if can.get("avx512_bf16") or can.get("amx_bf16") else "float32"


def accelerator_for(device: str, precision: str, seed: int) -> Accelerator:
    """accelerate's view of the machine; it also shuffles, from a seed, and shares each batch out to the processes."""
    AcceleratorState._reset_state(reset_partial_state=True)  # a notebook may have trained on another device before
    loading = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=seed, non_blocking=True, split_batches=True)
    mixed = "bf16" if precision == "bf16" else "no"
    with without_left_overs():
        return Accelerator(cpu=device == "cpu", mixed_precision=mixed, dataloader_config=loading)


@contextmanager
def without_left_overs() -> Iterator[None]:
    """Hide what would lead accelerate astray: settings of its own, which are not those of the recipe, and variables
    that mpirun or srun left to what they started, such as Jupyter. Only a complete launch means several processes."""
    launched = os.environ.keys() >= LAUNCH
    wrong = [x for x in os.environ if x.startswith("ACCELERATE_") or (not launched and LEFT_OVER.fullmatch(x))]
    hidden = {name: os.environ.pop(name) for name in wrong}
    if several := sorted(f"{name}={value}" for name, value in hidden.items() if "SIZE" in name and value != "1"):
        print(f"{', '.join(several)} without {', '.join(sorted(LAUNCH))} is no launch: this trains in one process.")
    try:
        yield
    finally:
        os.environ.update(hidden)


def reseed(*numbers: int) -> torch.Generator:
    """Seed PyTorch with these numbers; -> another generator, with the same seed, for what is drawn on the CPU."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def optimizer_for(net: nn.Module, loss: Method, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, in which matrices and kernels decay, but not biases, norms and position embeddings; Muon; or RMSprop.

    Muon turns the step of a matrix (or a kernel, one row per output) into an orthogonal one, so that all its directions
    learn at one speed; what is no matrix learns by AdamW at a quarter of the rate.
    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop([*net.parameters(), *loss.parameters()], lr=rate, weight_decay=decay)
    parameters = [*net.named_parameters(), *loss.named_parameters()]  # some losses have parameters too
    decays = [p for name, p in parameters if p.ndim > 1 and "pos_embed" not in name]
    stays = [p for name, p in parameters if p.ndim == 1 or "pos_embed" in name]
    groups = [{"params": decays, "weight_decay": decay}, {"params": stays, "weight_decay": 0.0}]
    if recipe.optimizer == "muon":
        kind = Muon if quick_bfloat16(next(net.parameters()).device) else PortableMuon
        return kind(groups, lr=rate, nesterov=True, betas=(0.9, 0.99), fallback_lr_scale=0.25)
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def quick_bfloat16(device: torch.device) -> bool:
    """Whether PyTorch multiplies matrices of bfloat16, as Muon does, with instructions made for that."""
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"


class PortableMuon(Muon):
    """Muon for processors on which PyTorch multiplies bfloat16 number by number, 25 times slower than float32."""

    def step(self, closure: Callable | None = None) -> Tensor | None:
        """Change the parameters."""
        with Float32Products():
            return super().step(closure)


class Float32Products(TorchFunctionMode):
    """Within a ``with``, products of matrices of bfloat16 are summed in float32 and then rounded, as special
    instructions do too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in (torch.addmm, torch.baddbmm):
            return func(*args, **kwargs)
        into = kwargs.pop("out", None)
        product = func(*(matrix.float() for matrix in args), **kwargs)
        return product.to(args[0].dtype) if into is None else into.copy_(product)


def schedule_for(optimizer: torch.optim.Optimizer, images: int, recipe: Recipe) -> LRScheduler:
    """The learning rate of each step, with so many images per epoch."""
    if recipe.schedule == "constant":
        return ConstantLR(optimizer, factor=1.0)
    steps = recipe.epochs * max(1, images // recipe.batch_size)
    rise = recipe.warmup if recipe.warmup * steps > 1 else 0.0  # OneCycleLR divides by zero where it rises for one step
    return OneCycleLR(optimizer, max_lr=recipe.learning_rate, total_steps=steps, pct_start=rise)


def ready(net: nn.Module, accelerator: Accelerator, recipe: Recipe) -> nn.Module:
    """The network on its device, in its precision, with what saves time and memory switched on."""
    if recipe.checkpointing and hasattr(net, "set_grad_checkpointing"):  # small networks have nothing to save
        net.set_grad_checkpointing()
    channels_last(net)
    if several():
        share_normalisation(net)
    return accelerator.prepare_model(net, evaluation_mode=True)  # the replicas of several processes are ours


def for_training(net: nn.Module, accelerator: Accelerator, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """The network as a step calls it, in micro-batches and compiled where asked for; -> z of the whole batch, although
    each of several processes gives its own share of the images."""
    if recipe.micro_batches > 1:
        net = MicroBatches(net, recipe.micro_batches, accelerator)
    net = replicas(net, accelerator)
    net = torch.compile(net) if recipe.compile else net
    return (lambda images: together(net(images))) if several() else net


def channels_last(net: nn.Module) -> None:
    """Store convolution kernels channels-last; skip position embeddings, which merely happen to be 4-D."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def moving_copy(net: nn.Module, decay: float | None) -> AveragedModel | None:
    """A copy of the network that follows it slowly, keeping this share of itself at each step; None without a share."""
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None


def resize(net: nn.Module, side: int, optimizer: torch.optim.Optimizer, copies: Iterable[AveragedModel]) -> None:
    """Let the network expect images of another side; its new position embeddings take the place of the old ones."""
    old = [level.pos_embed for level in net.levels]
    net.set_input_size(side)
    new = {id(before): level.pos_embed for before, level in zip(old, net.levels, strict=True)}
    for group in optimizer.param_groups:
        group["params"] = [new.get(id(parameter), parameter) for parameter in group["params"]]
    for before in old:
        optimizer.state.pop(before, None)
    for copy in copies:
        copy.module.set_input_size(side)
