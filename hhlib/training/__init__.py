"""Fit a network: one readable loop, on the CPU or a GPU, that can be stopped at any moment and goes on where it was."""

from hhlib.training.launch import fit_in_processes
from hhlib.training.loop import fit, train_epoch
from hhlib.training.memory import find_micro_batches
from hhlib.training.recipes import RECIPES, RELEASED, Recipe, choose_device, choose_precision, recipe_for
from hhlib.training.reports import Progress, TensorBoard, print_line

__all__ = [
    "RECIPES",
    "RELEASED",
    "Progress",
    "Recipe",
    "TensorBoard",
    "choose_device",
    "choose_precision",
    "find_micro_batches",
    "fit",
    "fit_in_processes",
    "print_line",
    "recipe_for",
    "train_epoch",
]
