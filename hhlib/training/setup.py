"""What training needs before its first step: the machine, the optimizer, the schedule, the batches."""

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from hhlib import data, losses
from hhlib.training.keeping import State
from hhlib.training.micro_batches import MicroBatches
from hhlib.training.processes import replicas, several, share_normalisation
from hhlib.training.recipes import Recipe


def accelerator_for(device: str, precision: str, seed: int) -> Accelerator:
    """accelerate's view of the machine; it also shuffles, from a seed, and shares each batch out to the processes."""
    AcceleratorState._reset_state(reset_partial_state=True)  # a notebook may have trained on another device before
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="bf16" if precision == "bf16" else "no",
        dataloader_config=DataLoaderConfiguration(
            use_seedable_sampler=True, data_seed=seed, non_blocking=True, split_batches=True
        ),
    )


def prepare(
    accelerator: Accelerator, net: nn.Module, objective: losses.Method, part: data.Part, recipe: Recipe
) -> State:
    """Optimizer, schedule and batches, placed on the device by accelerate."""
    optimizer = _optimizer(net, objective, recipe)
    schedule = _schedule(optimizer, objective, recipe)
    net.set_grad_checkpointing(recipe.checkpointing)
    channels_last(net)
    if several():
        share_normalisation(net)
    net = accelerator.prepare_model(net, evaluation_mode=True)  # device and precision; the replicas are ours
    optimizer, schedule = accelerator.prepare(optimizer, schedule)
    return State(
        net=net,
        replicas=for_training(net, accelerator, recipe),
        loss=objective.to(accelerator.device),
        optimizer=optimizer,
        schedule=schedule,
        loader=batches(accelerator, part, recipe),
        copy=moving_copy(net, objective),
    )


def for_training(net: nn.Module, accelerator: Accelerator, recipe: Recipe) -> nn.Module:
    """The network as a step calls it: in micro-batches, shared by the processes, compiled; each where asked for."""
    if recipe.micro_batches > 1:
        net = MicroBatches(net, recipe.micro_batches, accelerator)
    net = replicas(net, accelerator)
    return torch.compile(net) if recipe.compile else net


def channels_last(net: nn.Module) -> None:
    """Lay the kernels out as convolutions like them. Not position embeddings: they have four dimensions by chance."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def moving_copy(net: nn.Module, objective: losses.Method) -> AveragedModel | None:
    """The slowly moving copy of the network that the loss asks for, None if it asks for none."""
    if objective.momentum is None:
        return None
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(objective.momentum), use_buffers=True)


def batches(accelerator: Accelerator, part: data.Part, recipe: Recipe, rows=None) -> DataLoader:
    """Shuffled batches of a part, or of some of its rows; the last, smaller one is left out."""
    return accelerator.prepare(
        data.loader(
            part,
            batch_size=batch_size(recipe, part if rows is None else rows),
            shuffle=True,
            drop_last=True,
            device=accelerator.device.type,
            rows=rows,
        )
    )


def batch_size(recipe: Recipe, images) -> int:
    """Images a step, over all processes: the recipe's, or all that there are."""
    return min(recipe.batch_size, len(images))


def set_image_side(accelerator: Accelerator, state: State, full: int, epoch: int, recipe: Recipe) -> None:
    """Let the network expect the image side of this epoch, full or half, if it does not already."""
    side = full // 2 if epoch < recipe.small_epochs else full
    if state.net.img_size == side:
        return
    old = [level.pos_embed for level in state.net.levels]
    state.net.set_input_size(side)
    new = {id(before): level.pos_embed for before, level in zip(old, state.net.levels, strict=True)}
    for group in state.optimizer.param_groups:
        group["params"] = [new.get(id(parameter), parameter) for parameter in group["params"]]
    for before in old:
        state.optimizer.state.pop(before, None)
    if state.copy is not None:
        state.copy.module.set_input_size(side)
    state.replicas = None
    state.replicas = for_training(state.net, accelerator, recipe)


def _optimizer(net: nn.Module, objective: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop([*net.parameters(), *objective.parameters()], lr=rate, weight_decay=decay)
    return torch.optim.AdamW(_parameter_groups(net, objective, recipe), lr=rate, fused=True)


def _schedule(
    optimizer: torch.optim.Optimizer, objective: losses.Method, recipe: Recipe
) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    steps = recipe.epochs * max(1, objective.images_an_epoch // recipe.batch_size)
    rise = recipe.warmup if recipe.warmup * steps > 1 else 0.0  # OneCycleLR divides by zero where it rises for one step
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=steps, pct_start=rise
    )


def _parameter_groups(net: nn.Module, objective: nn.Module, recipe: Recipe) -> list[dict]:
    """Matrices and kernels decay; biases, norms and position embeddings do not. Some losses have parameters too."""
    parameters = [*net.named_parameters(), *objective.named_parameters()]
    decays = [p for name, p in parameters if p.ndim > 1 and "pos_embed" not in name]
    stays = [p for name, p in parameters if p.ndim == 1 or "pos_embed" in name]
    return [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": stays, "weight_decay": 0.0}]
