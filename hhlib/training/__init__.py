"""Fit a network: one readable loop, on the CPU or a GPU, that can be stopped at any moment and goes on where it was."""

from hhlib.training.loop import fit, train_epoch
from hhlib.training.recipes import RECIPES, Recipe, choose_device, choose_precision, recipe_for

__all__ = ["RECIPES", "Recipe", "choose_device", "choose_precision", "fit", "recipe_for", "train_epoch"]
