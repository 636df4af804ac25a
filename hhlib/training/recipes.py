"""How to train: numbers with a name, and the machine they run on."""

import json
from dataclasses import dataclass, field, fields, replace

import torch

from hhlib import losses
from hhlib.common import check_above, check_at_least, check_choice, check_share, check_whole

CHOICES = {"validation": "validation_map", "queries": "query_map"}  #: column of the history that chooses the epoch
OPTIMIZERS = ("adamw", "rmsprop")
SCHEDULES = ("one_cycle", "constant")


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the training images, in total.
        small_epochs: how many of them, at the start, see the images at half their side: a third to half of the time
            each on a CPU, and the early epochs learn as much. Position embeddings are resampled at the change.
        batch_size: images a step.
        learning_rate: highest value of the schedule.
        schedule: "one_cycle" rises during `warmup` and falls along a cosine; "constant" does neither.
        optimizer: "adamw" or, as released, "rmsprop".
        weight_decay: of AdamW, for matrices and kernels only; of RMSprop, for all parameters, added to the gradient.
        clip: largest norm of the gradient; longer ones are shortened to it. 0 for no limit.
        warmup: share of all steps during which the learning rate rises, 0 to below 1.
        shift: random shift, in pixels each way.
        flip: whether to mirror one image in two, where that leaves the data set's classes as they are.
        erase: side of the square that is covered in each image, in pixels; 0 for none.
        loss: hyper-parameters of the loss that differ from its own defaults.
        drop_path: stochastic depth of the last layer, 0 to below 1.
        pretrained: whether to start from NesT's ImageNet weights, where the network's size has them.
        micro_batches: the batch goes through the network in that many pieces, one in memory at a time, with the loss
            of the whole batch; see `MicroBatches`. A step takes about a third longer.
        checkpointing: keep only the layers' inputs, and compute the rest again when the gradient needs it.
        compile: let `torch.compile` rewrite the network. It costs minutes at the start and gained nothing on a CPU.
        validation: share of the training images held out to choose the epoch, 0 to below 1; 0 keeps the last epoch.
        validate_every: epochs between two looks at the validation part.
        choose: which epoch is kept: the best on the "validation" part, or, as the released code does, on the "queries".
            The second makes a score better than it is (`runs.optimism` says by how much), and is for showing that.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    small_epochs: int = 0
    optimizer: str = "adamw"
    schedule: str = "one_cycle"
    weight_decay: float = 0.05
    clip: float = 1.0
    warmup: float = 0.2
    shift: int = 4
    flip: bool = True
    erase: int = 0
    drop_path: float = 0.0
    pretrained: bool = False
    micro_batches: int = 1
    checkpointing: bool = False
    compile: bool = False
    loss: dict = field(default_factory=dict)
    validation: float = 0.1
    validate_every: int = 5
    choose: str = "validation"

    def __post_init__(self):
        for name in ("epochs", "batch_size", "validate_every", "micro_batches"):
            check_whole(name, getattr(self, name), 1)
        for name in ("shift", "erase"):
            check_whole(name, getattr(self, name), 0)
        check_whole("small_epochs", self.small_epochs, 0, self.epochs - 1)
        check_above("learning_rate", self.learning_rate)
        for name in ("clip", "weight_decay"):
            check_at_least(name, getattr(self, name))
        for name, allowed in {"choose": CHOICES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}.items():
            check_choice(name, getattr(self, name), allowed)
        for name in ("warmup", "drop_path", "validation"):
            check_share(name, getattr(self, name))
        for name in ("flip", "pretrained", "checkpointing", "compile"):
            check_choice(name, getattr(self, name), (False, True))


#: For photographs at 224 pixels: batch, epochs and shift of the released code, our optimizer. Not run yet.
_PHOTOGRAPHS = Recipe(epochs=12, batch_size=64, learning_rate=1e-4, shift=16, validate_every=3)

_CIFAR10 = Recipe(
    epochs=64,
    small_epochs=10,
    batch_size=64,
    learning_rate=5e-4,
    warmup=0.08,
    erase=8,
    drop_path=0.1,
    loss={"alpha": 0.15},
)

#: Where to start, by data set. Those of digits, shapes and cifar10 were found on two CPU cores with the micro network.
RECIPES = {
    "digits": Recipe(epochs=15, batch_size=20, learning_rate=1e-3, shift=3, validate_every=4),
    "shapes": Recipe(epochs=20, batch_size=16, learning_rate=1e-3, validate_every=5),
    "cifar10": _CIFAR10,
    # All 50,000 training images, for one hour on those two cores.
    "cifar10-2": replace(_CIFAR10, epochs=20, small_epochs=8, validation=0.04, validate_every=4),
    "nuswide_21": _PHOTOGRAPHS,
    "nuswide_21_m": _PHOTOGRAPHS,
    "nuswide_81_m": _PHOTOGRAPHS,
    "imagenet": _PHOTOGRAPHS,
    "coco": _PHOTOGRAPHS,
}


#: What the authors' training script and their one log show, for photographs and in mixed precision. They choose the
#: epoch on the queries; add choose="queries" for that. For CIFAR-10 they neither shift nor mirror (`recipe_for`).
RELEASED = Recipe(
    epochs=12,
    batch_size=64,
    learning_rate=2.5e-5,
    optimizer="rmsprop",
    schedule="constant",
    weight_decay=1e-5,
    clip=0.0,
    shift=16,
    drop_path=0.5,
    pretrained=True,
    validate_every=3,
)
NAMES = ("ours", "released")

#: What a method needs besides: its share of the data set's learning rate. With all of it, the triplet loss of dnnh
#: puts all digits on one code (expected mAP 0.109).
LEARNING_RATE_SHARE = {"dnnh": 0.3, "dnnh_nested": 0.3}


def recipe_for(
    dataset: str, *, name: str = "ours", method: str = "hybridhash", loss: str = "", more: str = "", **changes
) -> Recipe:
    """The data set's recipe with `changes`; those that are 0 keep its value. small_epochs keeps its share.

    The recipes' own hyper-parameters of the loss are those found for hybridhash; other methods start from their
    defaults, and some from a share of the learning rate (`LEARNING_RATE_SHARE`).

    Args:
        dataset: its name.
        name: "ours", found for this data set, or "released", the authors'.
        method: the objective.
        loss: its hyper-parameters, as a JSON object such as '{"alpha": 0.2}', on top of the recipe's.
        more: fields of `Recipe`, as a JSON object such as '{"weight_decay": 0.01}', on top of everything.
        changes: fields of `Recipe`.

    Raises:
        ValueError: for a bad value, or `loss` or `more` that are no such object or name what does not exist.
    """
    recipe = _named(check_choice("recipe_name", name, NAMES), dataset)
    changes = {name: value for name, value in changes.items() if value}
    epochs = check_whole("epochs", changes.get("epochs", recipe.epochs), 1)
    small = recipe.small_epochs * epochs // recipe.epochs
    own = recipe.loss if method == "hybridhash" else {}
    given = _json_object("loss", loss, {"alpha": 0.2})
    losses.check_hyperparameters(method, given)
    if name == "ours":
        recipe = replace(recipe, learning_rate=recipe.learning_rate * LEARNING_RATE_SHARE.get(method, 1))
    recipe = replace(recipe, **{"small_epochs": small, "loss": own | given} | changes)
    return replace(recipe, **_fields(more))


def _named(name: str, dataset: str) -> Recipe:
    start = dataset.split("-")[0]
    if name == "ours":
        return RECIPES.get(dataset, RECIPES[start])
    return RELEASED if RECIPES[start] is _PHOTOGRAPHS else replace(RELEASED, shift=0, flip=False)


def _json_object(name: str, text: str, example: dict) -> dict:
    try:
        given = json.loads(text or "{}")
    except json.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        raise ValueError(f"{name} is {text!r}, but it must be a JSON object such as {json.dumps(example)}, or empty.")
    return given


def _fields(more: str) -> dict:
    """Fields of a recipe, except those that a notebook's other parameters set."""
    given = _json_object("more", more, {"weight_decay": 0.01})
    known = [field.name for field in fields(Recipe) if field.name != "loss"]
    for name in given:
        check_choice("a name in more", name, known)
    return given


def choose_device(device: str) -> str:
    """ "auto" is CUDA if there is a GPU, else the CPU. Asking for CUDA without one is an error, not a slow run."""
    check_choice("device", device, ("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch sees no CUDA GPU here; choose auto or cpu.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def choose_precision(precision: str, device: str) -> str:
    """ "auto" is bf16 where the hardware multiplies it natively; elsewhere, bf16 runs but is slower than float32."""
    check_choice("precision", precision, ("auto", "float32", "bf16"))
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    cpu = torch.cpu.get_capabilities()
    return "bf16" if cpu.get("avx512_bf16") or cpu.get("amx_bf16") else "float32"
