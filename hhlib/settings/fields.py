"""The fields, each with its default, its help text and its check, and the recipes that trainings start from."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hhlib import common, data, losses
from hhlib import network as networks
from hhlib.common import at_least, check_above, check_choice, check_settings, check_share, check_whole, one_of, setting

CHOICES = {"validation": "validation_map", "queries": "query_map"}  #: column of the history that chooses the epoch
SCHEDULES = ("one_cycle", "constant")
_SEED = partial(check_whole, least=0, most=2**32 - 1)  # of scikit-learn, the narrowest
DOTTED = ("loss", "net")  #: fields of a recipe whose values have names of their own: loss.alpha, net.stem


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are for small pictures; `RECIPES` says what data sets change."""

    epochs: int = setting(15, "passes over the training images", at_least(1))
    small_epochs: int = setting(0, "first epochs, with images at half their side: quicker", at_least(0))
    batch_size: int = setting(20, "images per step, over all processes", at_least(1))
    optimizer: str = setting("adamw", "adamw, muon, or rmsprop as released", one_of("adamw", "muon", "rmsprop"))
    learning_rate: float = setting(1e-3, "highest value of the schedule; above 0", check_above)
    schedule: str = setting("one_cycle", "one_cycle (rises, then falls as a cosine) or constant", one_of(*SCHEDULES))
    warmup: float = setting(0.2, "share of the steps in which one_cycle rises; 0 to below 1", check_share)
    weight_decay: float = setting(0.05, "adamw: of matrices and kernels; rmsprop: of everything", at_least(0.0))
    clip: float = setting(1.0, "longest gradient; longer ones are scaled down; 0: no limit", at_least(0.0))
    shift: int = setting(4, "random shift of training images each way, in pixels", at_least(0))
    flip: bool = setting(True, "mirror one training image in two, where it keeps its class")
    alternate: bool = setting(False, "mirror each training image in every other epoch, not at random")
    erase: int = setting(0, "side of the square covered in each training image, in pixels", at_least(0))
    paste: bool = setting(False, "cover it with a piece of another image, not with the mean colour")
    balanced: bool = setting(False, "equally many images of each class per batch; needs one label per image")
    hidden: int = setting(512, "frozen backbone: width of the head's hidden layer; 0: none", at_least(0))
    dropout: float = setting(0.5, "frozen backbone: share of numbers set to 0; 0 to below 1", check_share)
    drop_path: float = setting(0.0, "stochastic depth of the last layer; 0 to below 1", check_share)
    pretrained: bool = setting(False, "start from pretrained weights, where they exist")
    micro_batches: int = setting(
        1, "pieces of a batch in memory one by one; same loss, but net.stem=conv normalises each", at_least(1)
    )
    checkpointing: bool = setting(False, "keep only layers' inputs, compute the rest again")
    compile: bool = setting(False, "use torch.compile (no gain was measured on a CPU)")
    average: float = setting(
        0.0, "share of itself that an average of the weights, then kept, has per step; 0: none", check_share
    )
    flip_average: bool = setting(False, "encode an image and its mirror image and add both, where that keeps its class")
    validation: float = setting(0.1, "share of training images held out; 0 keeps the last epoch", check_share)
    validate_every: int = setting(4, "epochs between two looks at the held-out images", at_least(1))
    choose: str = setting("validation", "what chooses the epoch; queries (as released) flatters", one_of(*CHOICES))
    loss: dict = setting(dict, "hyper-parameters of the method that differ from its own defaults")
    net: dict = setting(dict, "what differs from the network of that name, such as net.stem=conv")

    def __post_init__(self):
        check_settings(self)
        check_whole("small_epochs", self.small_epochs, 0, self.epochs - 1)


@dataclass(frozen=True)
class Settings:
    """A run. The first five fields name it; the others say where things are and how they are done."""

    dataset: str = setting(
        "digits", "a name of data/README.md, or a folder of pictures or lists", lambda _, x: data.short_name(x)
    )
    method: str = setting("hybridhash", "training method, one of hh.losses.names()", lambda _, x: losses.method(x))
    network: str = setting(
        "micro", "micro to base, lite0, a timm model (frozen) or timm:NAME (tuned)", lambda _, x: networks.kind(x)
    )
    bits: int = setting(32, "code length, 1 to 1024", partial(check_whole, least=1, most=common.MAX_BITS))
    seed: int = setting(0, "of split and training: same seed and machine, same numbers", _SEED)
    image_size: int | None = setting(None, "side of the images in pixels; none: their own", common.check_side)
    lists: str = setting("", "folder with test.txt, train.txt, database.txt, instead of the seed")
    data_dir: str = setting("data", "folder with downloaded data sets; relative to the project")
    runs_dir: str = setting("runs", "folder for results; relative to the project")
    download: bool = setting(False, "fetch missing data (CIFAR-10: 170 MB, COCO: 20 GB)")
    cache: bool = setting(False, "decode pictures on disk once, into a file below data_dir")
    skip: bool = setting(False, "own pictures: go on without those that cannot be used")
    topk: int | None = setting(None, "cut-off k of mAP@k; none: the protocol's", at_least(1))
    device: str = setting("auto", "auto, cpu, cuda or mps", one_of("auto", "cpu", "cuda", "mps"))
    precision: str = setting("auto", "auto, float32 or bf16", one_of("auto", "float32", "bf16"))
    processes: int = setting(1, "GPUs, or processes on a CPU, that share each batch", at_least(1))
    tensorboard: bool = setting(False, "also write TensorBoard logs into the run's folder")
    resume: bool = setting(True, "resume a stopped run, keep a finished one; false: start afresh")
    live: bool = setting(True, "menus in notebooks; false: plain figures")
    recipe: Recipe = setting(Recipe, "how to train: ours or released, where its fields start")

    def __post_init__(self):
        check_settings(self)
        losses.check_hyperparameters(self.method, self.recipe.loss)
        networks.check_options(self.network, self.recipe.net)

    def named(self) -> dict:
        """What names the run, as run.json keeps it; a folder of pictures by its short name."""
        others = {name: getattr(self, name) for name in ("method", "network", "bits", "seed")}
        return {"dataset": data.short_name(self.dataset)} | others

    def changes(self) -> dict:
        """What differs from the defaults, by the names that `read` takes: {"erase": 0, "loss.alpha": 0.2}."""
        start = recipe_for(self.dataset, method=self.method, network=self.network)
        now, before = vars(self) | vars(self.recipe), vars(Settings()) | vars(start)
        for group in DOTTED:
            for values in (now, before):
                values |= {f"{group}.{name}": value for name, value in values.pop(group).items()}
        return {name: value for name, value in now.items() if name != "recipe" and value != before.get(name)}


#: Photographs of 224 pixels: batch, epochs and shift of the released code, our optimizer. Not run yet.
_PHOTOGRAPHS: dict[str, Any] = dict(epochs=12, batch_size=64, learning_rate=1e-4, shift=16, validate_every=3)
_SMALL: dict[str, Any] = dict(optimizer="muon", learning_rate=2e-3, net=dict(stem="conv"))
_CIFAR10 = _SMALL | dict(epochs=48, batch_size=128, warmup=0.08, erase=8, drop_path=0.1)
_CIFAR10 |= dict(flip_average=True, validate_every=6)
#: What each data set changes in `Recipe`, found with the micro network on two CPU cores; at most an hour there.
RECIPES: dict[str, dict[str, Any]] = {
    "digits": _SMALL | dict(epochs=10, batch_size=40, shift=3),
    "shapes": dict(epochs=20, batch_size=16, validate_every=5),
    "cifar10": _CIFAR10,
    "cifar10-1": _CIFAR10,
    "cifar10-2": _CIFAR10 | dict(epochs=19, small_epochs=6, validation=0.04, validate_every=4),
}

_STILL: dict[str, Any] = dict(shift=0, flip=False)
#: A head on the vectors of a frozen backbone: seconds on two CPU cores.
_HEAD: dict[str, Any] = _STILL | dict(epochs=20, batch_size=64, learning_rate=1e-3, pretrained=True, validate_every=5)
#: A pretrained network trained as a whole: half an hour for CIFAR-10 on two CPU cores.
_TUNED: dict[str, Any] = dict(epochs=12, batch_size=32, learning_rate=5e-4, pretrained=True, drop_path=0.1)

#: What the authors' training script and their one log show, for photographs and in mixed precision. They choose the
#: epoch on the queries; add choose=queries for that. For CIFAR-10 they neither shift nor mirror.
RELEASED: dict[str, Any] = dict(epochs=12, batch_size=64, optimizer="rmsprop", learning_rate=2.5e-5, clip=0.0)
RELEASED |= dict(schedule="constant", weight_decay=1e-5, shift=16, drop_path=0.5, pretrained=True, validate_every=3)


def recipe_for(dataset: str, *, method: str = "hybridhash", network: str = "micro", start: str = "ours") -> Recipe:
    """The recipe that a training starts from.

    A folder of pictures starts as photographs do or, with the micro network, which is made for small pictures, as
    CIFAR-10. Pretrained networks have recipes of their own. Some methods start from other hyper-parameters than their
    publication's or from a share of the learning rate, see `losses.Method`.

    Args:
        start: "ours", found for this data set, or "released", the authors'.
    """
    if check_choice("recipe", start, ("ours", "released")) == "released":
        return Recipe(**RELEASED | (_STILL if dataset in RECIPES else {}))
    small = network == "micro" and dataset not in data.names()
    recipe, wants = Recipe(**RECIPES.get(dataset, _CIFAR10 if small else _PHOTOGRAPHS)), losses.method(method)
    if (kind := networks.kind(network)) == "frozen":
        recipe = Recipe(**_HEAD)
    elif kind == "tuned":
        shown = dict(shift=recipe.shift, flip=recipe.flip, erase=recipe.erase)  # what pictures of this kind allow
        recipe = replace(Recipe(**_TUNED), **shown)
    rate = recipe.learning_rate * wants.learning_rate_share
    parts = dict(recipe.net) if network == "micro" else {}  # other sizes have pretrained weights, which must fit
    return replace(recipe, learning_rate=rate, loss=dict(wants.recommended), net=parts)
