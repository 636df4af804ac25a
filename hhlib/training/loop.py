"""The loop. Model choice never looks at the query set: a validation part is cut from the training set."""

import math
import time
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from hhlib import data, losses, metrics, network, retrieval
from hhlib.runs import Run, check_parameters
from hhlib.training.keeping import State, earlier_state, restore, save, start_afresh
from hhlib.training.processes import check_batch_size, replicas, several, share_normalisation, together
from hhlib.training.recipes import Recipe, choose_device, choose_precision


def fit(
    split: data.Split,
    run: Run,
    *,
    method: str,
    network_name: str,
    bits: int,
    recipe: Recipe,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    live: bool = False,
    resume: bool = True,
) -> Run:
    """Train a network and leave it in a run folder.

    Args:
        split: only its training part is looked at; by asymmetric methods, only its database.
        run: the folder; created if need be.
        method, network_name, bits, seed: what the run is named after.
        recipe: how to train.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "float32" or "bf16".
        live: a progress bar instead of a line an epoch.
        resume: go on with an earlier run in this folder, or leave a finished one as it is. False starts afresh.

    Returns:
        `run`, with run.json, history.csv, timing.csv, model.safetensors and training_state.pt.

    Raises:
        ValueError: for a bad value, a query that stands in another part, or if the folder holds a run with other
            parameters.
        FloatingPointError: if the loss is no longer finite; the last epoch's state stays on disk.
    """
    check_parameters(method=method, network=network_name, bits=bits, seed=seed)
    data.check_disjoint(split)
    device = choose_device(device)
    precision = choose_precision(precision, device)
    fit_part, validation = _parts(split, method, recipe, seed)
    parameters = dict(dataset=split.name, method=method, network=network_name, bits=bits, seed=seed)
    record = _record(split, fit_part, validation, parameters, recipe, device, precision)
    mean, std = record["data"]["mean"], record["data"]["std"]
    torch.manual_seed(seed)
    net, objective = network.create(**record["model"]), losses.create(**record["loss"])
    earlier = earlier_state(run, record) if resume else None
    accelerator = _accelerator(device, precision, seed)
    check_batch_size(_batch_size(recipe, fit_part), accelerator)
    state = _prepare(accelerator, net, objective, fit_part, recipe)
    if earlier:
        _set_image_side(accelerator, state, split.image_size, len(earlier["history"]) - 1, recipe)
        restore(state, earlier)
    else:
        objective.prepare(fit_part.labels)
        accelerator.wait_for_everyone()  # all have looked for an earlier run
        if accelerator.is_main_process:
            start_afresh(run, record)

    as_input = partial(data.normalise, mean=mean, std=std, size=split.image_size)
    first = accelerator.is_main_process
    bar = tqdm(total=recipe.epochs, initial=len(state.history), unit="epoch", disable=not (live and first))
    for epoch in range(len(state.history), recipe.epochs):
        start = time.perf_counter()
        _set_image_side(accelerator, state, split.image_size, epoch, recipe)
        row = train_epoch(accelerator, state, epoch, seed, recipe, as_input, split.flip, fit_part)
        if len(validation) and _is_validated(epoch, recipe):
            row["validation_map"] = _validate(state.net, validation, mean, std, precision)
        state.history.append(row)
        state.timing.append({"epoch": epoch + 1, "seconds": time.perf_counter() - start})
        if first:
            save(state, run, recipe)
        bar.update()
        (bar.set_postfix_str if live else accelerator.print)(_progress_line(state, recipe))
    bar.close()
    accelerator.wait_for_everyone()  # nobody leaves before everything is on disk
    return run


def _parts(split: data.Split, method: str, recipe: Recipe, seed: int) -> tuple[data.Part, data.Part]:
    """What is trained on, and what is held out to choose the epoch.

    Asymmetric methods learn a code for each database image, so the database is what they train on, and none of it can
    be held out: they keep the last epoch.
    """
    if losses.METHODS[method].family == "asymmetric":
        return split.database, split.database.subset(np.arange(0))
    return data.hold_out(split.train, recipe.validation, seed)


def _record(split, fit_part, validation, parameters: dict, recipe: Recipe, device: str, precision: str) -> dict:
    """What run.json holds: all that a repeat needs, except the versions and the machine."""
    bits, head = parameters["bits"], losses.METHODS[parameters["method"]].head
    mean, std = data.channel_statistics(fit_part)
    sizes = dict(sizes=split.sizes, trained_on=len(fit_part), validation=len(validation))
    return {
        "parameters": parameters | {"recipe": asdict(recipe), "precision": precision},
        "model": dict(
            preset=parameters["network"], bits=bits, img_size=split.image_size, drop_path_rate=recipe.drop_path
        )
        | ({} if head == "linear" else {"head": head}),
        "loss": dict(name=parameters["method"], bits=bits, num_classes=len(split.classes), train_size=len(fit_part))
        | recipe.loss,
        "data": sizes
        | dict(topk=split.protocol.topk, split_seed=split.seed, fingerprint=split.fingerprint())
        | dict(mean=mean, std=std),
        "device": device,
    }


def _accelerator(device: str, precision: str, seed: int) -> Accelerator:
    """accelerate's view of the machine; it also shuffles, from a seed, and shares each batch out to the processes."""
    AcceleratorState._reset_state(reset_partial_state=True)  # a notebook may have trained on another device before
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="bf16" if precision == "bf16" else "no",
        dataloader_config=DataLoaderConfiguration(
            use_seedable_sampler=True, data_seed=seed, non_blocking=True, split_batches=True
        ),
    )


def _prepare(accelerator: Accelerator, net, objective, part, recipe: Recipe) -> State:
    """Optimizer, schedule and loader, placed on the device by accelerate."""
    optimizer = torch.optim.AdamW(_parameter_groups(net, objective, recipe), lr=recipe.learning_rate, fused=True)
    loader = _loader(accelerator, part, recipe)
    steps = recipe.epochs * max(1, objective.images_an_epoch // recipe.batch_size)
    rise = recipe.warmup if recipe.warmup * steps > 1 else 0.0  # OneCycleLR divides by zero where it rises for one step
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=steps, pct_start=rise
    )
    channels_last(net)
    if several():
        share_normalisation(net)
    net = accelerator.prepare_model(net, evaluation_mode=True)  # device and precision; the replicas are ours
    optimizer, schedule = accelerator.prepare(optimizer, schedule)
    objective = objective.to(accelerator.device)
    return State(
        net, replicas(net, accelerator), objective, optimizer, schedule, loader, moving_copy(net, objective), [], []
    )


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


def _loader(accelerator: Accelerator, part: data.Part, recipe: Recipe, rows=None):
    """Shuffled batches of a part, or of some of its rows; the last, smaller one is left out."""
    return accelerator.prepare(
        data.loader(
            part,
            batch_size=_batch_size(recipe, part if rows is None else rows),
            shuffle=True,
            drop_last=True,
            device=accelerator.device.type,
            rows=rows,
        )
    )


def _batch_size(recipe: Recipe, images) -> int:
    """Images a step, over all processes: the recipe's, or all that there are."""
    return min(recipe.batch_size, len(images))


def _set_image_side(accelerator: Accelerator, state: State, full: int, epoch: int, recipe: Recipe) -> None:
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
    state.replicas = replicas(state.net, accelerator)


def _is_validated(epoch: int, recipe: Recipe) -> bool:
    """Every few epochs and after the last, once the network sees images of full size."""
    due = (epoch + 1) % recipe.validate_every == 0 or epoch + 1 == recipe.epochs
    return due and epoch >= recipe.small_epochs


def _parameter_groups(net: nn.Module, objective: nn.Module, recipe: Recipe) -> list[dict]:
    """Matrices and kernels decay; biases, norms and position embeddings do not. Some losses have parameters too."""
    parameters = [*net.named_parameters(), *objective.named_parameters()]
    decays = [p for name, p in parameters if p.ndim > 1 and "pos_embed" not in name]
    stays = [p for name, p in parameters if p.ndim == 1 or "pos_embed" in name]
    return [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": stays, "weight_decay": 0.0}]


def train_epoch(
    accelerator: Accelerator, state: State, epoch: int, seed: int, recipe: Recipe, as_input, flip: bool, part: data.Part
) -> dict:
    """One pass over the training images -> the epoch's line of the history. as_input: uint8 -> what the net sees."""
    # Seeded by epoch: a resumed run draws what an uninterrupted one would have drawn.
    start = seed * 1_000_003 + epoch
    torch.manual_seed(start)
    rows = state.loss.start_epoch(epoch)  # what the loss draws is the same on all processes,
    if accelerator.process_index:  # what happens to the images is not
        start += accelerator.process_index * 1_000_000_007
        torch.manual_seed(start)
    generator = torch.Generator().manual_seed(start)
    if rows is not None:
        state.loader = _loader(accelerator, part, recipe, rows)
    state.loader.set_epoch(epoch)
    state.net.train()
    state.loss.train()
    total, gap, ones = 0.0, 0.0, 0.0
    for images, labels, index in state.loader:
        images = data.augment(images, shift=recipe.shift, flip=flip, erase=recipe.erase, generator=generator)
        images = as_input(images)
        if epoch < recipe.small_epochs:
            images = F.avg_pool2d(images, 2)  # (B, 3, S/2, S/2)
        z, labels, index = (together(x) for x in (state.replicas(images), labels, index))  # (B, ...), all processes
        if state.loss.remembers:
            with torch.inference_mode():
                state.loss.remember(together(state.copy(images)), index)
        loss = state.loss(z, labels, index)
        state.optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_([*state.net.parameters(), *state.loss.parameters()], recipe.clip)
        state.optimizer.step()
        state.schedule.step()
        if state.copy is not None:
            state.copy.update_parameters(state.net)
        total += loss.detach()
        gap += (1 - torch.tanh(z.detach()).abs()).mean()
        ones += (z.detach() >= 0).float().mean(dim=0)
    state.loss.end_epoch(epoch, last=epoch + 1 == recipe.epochs)
    steps = len(state.loader)
    if not math.isfinite(total):
        raise FloatingPointError(
            f"the loss is {float(total)} in epoch {epoch + 1}; lower learning_rate or use float32."
        )
    return {
        "epoch": epoch + 1,
        "loss": float(total) / steps,
        "learning_rate": state.schedule.get_last_lr()[0],
        "quantisation_gap": float(gap) / steps,
        "bit_balance": float(((ones / steps) - 0.5).abs().mean()),
        "validation_map": math.nan,
    }


def _validate(net: nn.Module, validation: data.Part, mean, std, precision: str) -> float:
    """Expected mAP of the validation images among each other: unseen queries and an unseen database, as in the test.

    Against the training images, whose codes the network has learnt by heart, any network looks better than it is.
    """
    z = retrieval.encode(net, validation, mean=mean, std=std, precision=precision)
    return metrics.leave_one_out_map(z.numpy(), validation.labels.numpy())


def _progress_line(state: State, recipe: Recipe) -> str:
    row, seconds = state.history[-1], [entry["seconds"] for entry in state.timing]
    left = (recipe.epochs - len(seconds)) * sum(seconds) / len(seconds)
    score = "" if math.isnan(row["validation_map"]) else f"  validation mAP {row['validation_map']:.3f}"
    done = f"epoch {row['epoch']:3d}/{recipe.epochs}  loss {row['loss']:.3f}{score}"
    return f"{done}  {seconds[-1]:.1f} s, {left:.0f} s left"
