"""How to make a batch fit the memory, found by trying."""

from dataclasses import replace

from accelerate.utils import find_executable_batch_size

from hhlib.data import Split
from hhlib.settings import Settings
from hhlib.training.trainer import Trainer


def find_micro_batches(split: Split, settings: Settings) -> int:
    """The fewest micro-batches, 1, 2, 4, ..., with which a step of the recipe fits the GPU's memory, found by trying.

    Use the answer as the setting `micro_batches`. Before training on several GPUs, ask with a batch_size of one GPU's
    share. A CPU's memory cannot be tried out: Linux ends a process that uses too much.

    Raises:
        RuntimeError: if not even one image fits.
    """
    batch = size = min(settings.recipe.batch_size, len(split.train))

    def halve() -> int:
        nonlocal size
        size //= 2
        return size

    def number(size: int) -> int:
        recipe = replace(settings.recipe, micro_batches=-(-batch // size), small_epochs=0, pretrained=False)
        trainer = Trainer(split, replace(settings, recipe=recipe))
        trainer.net.train()
        trainer.step(next(trainer.batches(0)))
        return recipe.micro_batches

    return find_executable_batch_size(number, starting_batch_size=batch, reduce_batch_size_fn=halve)()
