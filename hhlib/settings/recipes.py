"""Where trainings start: by data set, by method, or as the authors did."""

from dataclasses import replace

from hhlib import data, losses
from hhlib.common import check_choice
from hhlib.settings.fields import Recipe

#: Photographs of 224 pixels: batch, epochs and shift of the released code, our optimizer. Not run yet.
_PHOTOGRAPHS = dict(epochs=12, batch_size=64, learning_rate=1e-4, shift=16, validate_every=3)
_CIFAR10 = dict(epochs=64, batch_size=64, learning_rate=5e-4, warmup=0.08, erase=8, drop_path=0.1, validate_every=5)

#: What each data set changes in `Recipe`. Those of digits, shapes and cifar10 were found on two CPU cores with the
#: micro network; cifar10-2 has 50,000 training images, and its recipe takes one hour on those cores.
RECIPES = {
    "digits": dict(shift=3),
    "shapes": dict(epochs=20, batch_size=16, validate_every=5),
    "cifar10": _CIFAR10 | dict(small_epochs=10),
    "cifar10-1": _CIFAR10 | dict(small_epochs=10),
    "cifar10-2": _CIFAR10 | dict(epochs=20, small_epochs=8, validation=0.04, validate_every=4),
}

#: What the authors' training script and their one log show, for photographs and in mixed precision. They choose the
#: epoch on the queries; add choose=queries for that. For CIFAR-10 they neither shift nor mirror.
RELEASED = dict(epochs=12, batch_size=64, optimizer="rmsprop", learning_rate=2.5e-5, schedule="constant") | dict(
    weight_decay=1e-5, clip=0.0, shift=16, drop_path=0.5, pretrained=True, validate_every=3
)


def recipe_for(dataset: str, *, method: str = "hybridhash", network: str = "micro", start: str = "ours") -> Recipe:
    """The recipe that a training starts from.

    A folder of pictures starts as photographs do or, with the micro network, which is made for small pictures, as
    CIFAR-10. Some methods start from other hyper-parameters than their publication's or from a share of the learning
    rate, see `losses.Method`.

    Args:
        start: "ours", found for this data set, or "released", the authors'.
    """
    if check_choice("recipe", start, ("ours", "released")) == "released":
        return Recipe(**RELEASED | (dict(shift=0, flip=False) if dataset in RECIPES else {}))
    small = network == "micro" and dataset not in data.names()
    recipe, wants = Recipe(**RECIPES.get(dataset, _CIFAR10 if small else _PHOTOGRAPHS)), losses.method(method)
    rate = recipe.learning_rate * wants.learning_rate_share
    return replace(recipe, learning_rate=rate, loss=dict(wants.recommended))
