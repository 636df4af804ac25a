"""What names a run, and how it is trained; every value is set by the same dotted name everywhere.

    hh.open("erase=0 loss.alpha=0.2", dataset="cifar10", bits=16)
    make run ARGS="-p dataset cifar10 -p bits 16 -p erase 0 -p loss.alpha 0.2"
    python tools/train.py -p dataset cifar10 -p bits 16 -p erase 0 -p loss.alpha 0.2
    papermill notebooks/03_gpu_training.ipynb out.ipynb -p dataset cifar10 -p settings "erase=0 loss.alpha=0.2"

Text is read as the type of the field. A field of the recipe may be written with or without ``recipe.``; ``loss.`` comes
before a hyper-parameter of the method; ``recipe=released`` starts from the authors' recipe.
"""

from hhlib.settings.fields import CHOICES, RECIPES, RELEASED, Recipe, Settings, recipe_for
from hhlib.settings.reading import helps, read, table, words
