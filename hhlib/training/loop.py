"""The loop. Model choice never looks at the query set: a validation part is cut from the training set."""

import math
import time
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from hhlib import data, losses, metrics, network, retrieval
from hhlib.runs import Run, check_parameters
from hhlib.training.keeping import State, earlier_state, restore, save, save_state, start_afresh
from hhlib.training.processes import check_batch_size, together
from hhlib.training.recipes import Recipe, choose_device, choose_precision
from hhlib.training.reports import Progress, Report, print_line
from hhlib.training.setup import accelerator_for, batch_size, batches, prepare, set_image_side
from hhlib.training.stopping import StopRequest
from hhlib.training.tally import Tally


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
    reports: Iterable[Report] = (print_line,),
    resume: bool = True,
) -> Run:
    """Train a network and leave it in a run folder.

    For several GPUs, see `fit_in_processes`; for several machines, `tools/train.py`.

    Args:
        split: only its training part is looked at; by asymmetric methods, only its database. All of it if the recipe
            chooses on the queries.
        run: the folder; created if need be.
        method, network_name, bits, seed: what the run is named after.
        recipe: how to train.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "float32" or "bf16".
        reports: called with a `Progress` after each epoch; the usual one prints a line.
        resume: go on with an earlier run in this folder, or leave a finished one as it is. False starts afresh.

    Returns:
        `run`, with run.json, history.csv, timing.csv, model.safetensors and training_state.pt.

    Raises:
        ValueError: for a bad value, a query that stands in another part, or if the folder holds a run with other
            parameters.
        ConnectionError: if the recipe wants pretrained weights that cannot be fetched.
        MemoryError: if the GPU's memory is too small for a step.
        FloatingPointError: if the loss is no longer finite; the last state that was kept stays on disk.
        KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, when all that was done is on disk.
    """
    check_parameters(method=method, network=network_name, bits=bits, seed=seed)
    if recipe.pretrained:
        network.check_pretrained(network_name)
    data.check_disjoint(split)
    device = choose_device(device)
    precision = choose_precision(precision, device)
    _check_choice(method, recipe)
    fit_part, validation = parts_of(split, method, recipe, seed)
    parameters = dict(dataset=split.name, method=method, network=network_name, bits=bits, seed=seed)
    record = _record(split, fit_part, validation, parameters, recipe, device, precision)
    accelerator = accelerator_for(device, precision, seed)
    state = _begin(accelerator, run, record, fit_part, recipe, resume)

    facts = dict(mean=record["data"]["mean"], std=record["data"]["std"])
    as_input = partial(network_input, recipe=recipe, flip=split.flip and recipe.flip, size=split.image_size, **facts)
    with StopRequest() as stop:
        for epoch in range(len(state.history), recipe.epochs):
            start = time.perf_counter()
            set_image_side(accelerator, state, split.image_size, epoch, recipe)
            try:
                finished = train_epoch(accelerator, state, epoch, seed, recipe, as_input, fit_part, stop)
            except torch.OutOfMemoryError as error:
                raise MemoryError(_too_large(recipe, split.image_size)) from error
            if not finished:
                save_state(accelerator, state, run)
                stop.leave(f"after step {state.tally.steps} of epoch {epoch + 1}")
            row = {"epoch": epoch + 1} | state.tally.means() | {"learning_rate": state.schedule.get_last_lr()[0]}
            row |= {"validation_map": math.nan, "distinct_codes": math.nan}
            if len(validation) and _is_validated(epoch, recipe):
                row |= _validate(state.net, validation, precision, **facts)
            if recipe.choose == "queries":
                due = _is_validated(epoch, recipe)
                row["query_map"] = _score(state.net, split, precision, **facts) if due else math.nan
            state.history.append(row)
            state.timing.append({"epoch": epoch + 1, "seconds": time.perf_counter() - start})
            state.tally = Tally()
            save(accelerator, state, run, recipe)
            if accelerator.is_main_process:
                progress = _progress(state, recipe)
                for report in reports:
                    report(progress)
            if epoch + 1 < recipe.epochs and stop.asked(0, accelerator.device):
                stop.leave(f"after epoch {epoch + 1}")
    accelerator.wait_for_everyone()  # nobody leaves before everything is on disk
    return run


def _check_choice(method: str, recipe: Recipe) -> None:
    if recipe.choose == "queries" and losses.METHODS[method].family == "asymmetric":
        raise ValueError(
            f"choose is 'queries', but {method} is asymmetric and keeps its last epoch; it must be validation."
        )


def parts_of(split: data.Split, method: str, recipe: Recipe, seed: int) -> tuple[data.Part, data.Part]:
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


def _begin(accelerator: Accelerator, run: Run, record: dict, part: data.Part, recipe: Recipe, resume: bool) -> State:
    """A fresh state, or that of an earlier run in this folder."""
    check_batch_size(batch_size(recipe, part), accelerator.num_processes)
    torch.manual_seed(record["parameters"]["seed"])
    net, objective = network.create(**record["model"]), losses.create(**record["loss"])
    full = net.img_size
    earlier = earlier_state(run, record) if resume else None
    if recipe.pretrained and not earlier:
        accelerator.print(network.load_pretrained(net, record["parameters"]["network"]))
    state = prepare(accelerator, net, objective, part, recipe)
    accelerator.wait_for_everyone()  # all have looked for an earlier run
    if earlier:
        last = len(earlier["history"]) - (not earlier["tally"].get("steps"))  # the epoch it stopped in, or after
        set_image_side(accelerator, state, full, last, recipe)
        restore(state, earlier)
    else:
        objective.prepare(part.labels)
        if accelerator.is_main_process:
            start_afresh(run, record)
    return state


def train_epoch(
    accelerator: Accelerator,
    state: State,
    epoch: int,
    seed: int,
    recipe: Recipe,
    as_input,
    part: data.Part,
    stop: StopRequest,
) -> bool:
    """One pass over the training images, or what a stop has left of it -> whether it came to its end.

    All that is random in a step comes from a seed of that step, so a resumed run draws what an uninterrupted one would
    have drawn. as_input: see `network_input`.
    """
    _reseed(seed, epoch)
    rows = state.loss.start_epoch(epoch)
    if rows is not None:
        state.loader = batches(accelerator, part, recipe, rows)
    state.loader.set_epoch(epoch)
    state.net.train()
    state.loss.train()
    done = state.tally.steps
    for images, labels, index in accelerator.skip_first_batches(state.loader, done) if done else state.loader:
        generator = _reseed(seed, epoch, state.tally.steps, accelerator.process_index)
        images = as_input(images, epoch, generator)  # (B / processes, 3, S, S)
        z, labels, index = (together(x) for x in (state.replicas(images), labels, index))  # (B, ...)
        if state.loss.remembers:
            with torch.inference_mode():
                state.loss.remember(together(state.copy(images)), index)
        loss = state.loss(z, labels, index)
        state.optimizer.zero_grad()
        accelerator.backward(loss)
        if recipe.clip:
            accelerator.clip_grad_norm_([*state.net.parameters(), *state.loss.parameters()], recipe.clip)
        state.optimizer.step()
        state.schedule.step()
        if state.copy is not None:
            state.copy.update_parameters(state.net)
        state.tally.add(loss, z)
        if stop.asked(state.tally.steps, accelerator.device):
            state.tally.check(epoch)
            return False
    state.tally.check(epoch)
    state.loss.end_epoch(epoch, last=epoch + 1 == recipe.epochs)
    return True


def _reseed(*numbers: int) -> torch.Generator:
    """Seed PyTorch with these numbers; -> another generator, with the same seed, for what is drawn on the CPU."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def network_input(
    images: Tensor, epoch: int, generator: torch.Generator, *, recipe: Recipe, flip: bool, size: int, mean, std
) -> Tensor:
    """(B, 3, S, S) uint8 -> augmented, normalised, and in early epochs at half its side."""
    images = data.augment(images, shift=recipe.shift, flip=flip, erase=recipe.erase, generator=generator)
    images = data.normalise(images, mean=mean, std=std, size=size)
    return F.avg_pool2d(images, 2) if epoch < recipe.small_epochs else images


def _too_large(recipe: Recipe, size: int) -> str:
    return (
        f"the GPU's memory is too small for a step with batch_size {recipe.batch_size} and images of {size} pixels: "
        "raise micro_batches (find_micro_batches finds a number), lower batch_size or image_size, take a smaller "
        "network, or precision bf16. The last state stays on disk."
    )


def _is_validated(epoch: int, recipe: Recipe) -> bool:
    """Every few epochs and after the last, once the network sees images of full size."""
    due = (epoch + 1) % recipe.validate_every == 0 or epoch + 1 == recipe.epochs
    return due and epoch >= recipe.small_epochs


def _validate(net: nn.Module, validation: data.Part, precision: str, *, mean, std) -> dict:
    """Expected mAP of the validation images among each other: unseen queries and an unseen database, as in the test.

    Against the training images, whose codes the network has learnt by heart, any network looks better than it is.
    And how many different codes there are for each image: 1 if each has its own, near 0 if all fell on a few.
    """
    z = retrieval.encode(net, validation, mean=mean, std=std, precision=precision).numpy()
    return {
        "validation_map": metrics.leave_one_out_map(z, validation.labels.numpy()),
        "distinct_codes": len(np.unique(retrieval.pack(z), axis=0)) / len(z),
    }


def _score(net: nn.Module, split: data.Split, precision: str, *, mean, std) -> float:
    """Expected mAP of the queries: what notebook 4 measures at the end, looked at during training."""
    pair = []
    for part in (split.query, split.database):
        pair += [retrieval.encode(net, part, mean=mean, std=std, precision=precision).numpy(), part.labels.numpy()]
    return metrics.evaluate(*pair, topk=split.protocol.topk, database_order=False)["map"]["expected"]


def _progress(state: State, recipe: Recipe) -> Progress:
    seconds = [entry["seconds"] for entry in state.timing]
    return Progress(list(state.history), seconds, recipe.epochs, recipe.small_epochs)
