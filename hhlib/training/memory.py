"""How to make a batch fit the memory, found by trying."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

from accelerate.utils import find_executable_batch_size

from hhlib import data, losses, network
from hhlib.training.loop import network_input, parts_of, train_epoch
from hhlib.training.recipes import Recipe, choose_device, choose_precision
from hhlib.training.setup import accelerator_for, prepare


def find_micro_batches(
    split: data.Split,
    *,
    method: str,
    network_name: str,
    bits: int,
    recipe: Recipe,
    device: str = "auto",
    precision: str = "auto",
) -> int:
    """In how few micro-batches a batch of the recipe fits the GPU's memory: 1, 2, 4, ..., trying a step with each.

    Put the answer into the recipe: ``replace(recipe, micro_batches=find_micro_batches(...))``. Before training on
    several GPUs, ask with a batch_size of one GPU's share. A CPU's memory cannot be tried out: there, Linux ends a
    process that takes too much.

    Args:
        split: whose images and classes.
        method, network_name, bits, recipe, device, precision: as for `fit`.

    Raises:
        RuntimeError: if not even one image fits.
    """
    batch = size = min(recipe.batch_size, len(split.train))

    def halve() -> int:
        nonlocal size
        size //= 2
        return size

    def number(size: int) -> int:
        trial = replace(recipe, micro_batches=-(-batch // size), small_epochs=0)
        _one_step(split, method, network_name, bits, trial, device, precision)
        return trial.micro_batches

    return find_executable_batch_size(number, starting_batch_size=batch, reduce_batch_size_fn=halve)()


def _one_step(split, method: str, network_name: str, bits: int, recipe: Recipe, device: str, precision: str) -> None:
    """A step of training with images of full size, as `fit` would make it."""
    device = choose_device(device)
    accelerator = accelerator_for(device, choose_precision(precision, device), seed=0)
    part, _ = parts_of(split, method, recipe, seed=0)
    size, classes = split.image_size, len(split.classes)
    net = network.create(network_name, bits=bits, img_size=size, head=losses.METHODS[method].head)
    objective = losses.create(method, bits=bits, num_classes=classes, train_size=len(part), **recipe.loss)
    objective.prepare(part.labels)
    state = prepare(accelerator, net, objective, part, recipe)
    as_input = partial(network_input, recipe=recipe, flip=split.flip, size=size, mean=[0.5] * 3, std=[0.25] * 3)
    after_one = SimpleNamespace(asked=lambda *_: True)
    train_epoch(accelerator, state, 0, 0, recipe, as_input, part, after_one)
