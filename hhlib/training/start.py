"""What a training starts from: parts of the split, statistics of its images, the network's arguments."""

import numpy as np

from hhlib import data, losses
from hhlib import network as networks
from hhlib.settings import Settings


def statistics(part: data.Part, name: str) -> tuple[list[float], list[float]]:
    """Mean and spread of each channel, both in 0..1, that a network's pictures are normalised with: a pretrained one's
    own, otherwise those of the part. Empty for vectors, which the head standardises."""
    known = networks.facts_of(name)
    if networks.kind(name) == "frozen":
        return [], []
    return (known.mean, known.std) if known else data.channel_statistics(part)


def model_of(split: data.Split, settings: Settings) -> dict:
    """What `network.create` needs to build the network of a run."""
    recipe, head = settings.recipe, losses.method(settings.method).head
    if networks.kind(settings.network) == "frozen":
        size = dict(dim=split.query.pool.images.shape[1], hidden=recipe.hidden, dropout=recipe.dropout)
    else:
        size = dict(img_size=split.image_size, drop_path_rate=recipe.drop_path)
    model = dict(name=settings.network, bits=settings.bits) | size
    return model | ({} if head == "linear" else {"head": head}) | recipe.net


def parts(split: data.Split, settings: Settings) -> tuple[data.Part, data.Part]:
    """What is trained on, and what is held out to choose the epoch.

    Asymmetric methods learn a code for each database image, so the database is what they train on, and none of it can
    be held out: they keep the last epoch. A validation part that the data set gives is used as it is.
    """
    if losses.method(settings.method).family == "asymmetric":
        return split.database, split.database.subset(np.arange(0))
    part, held = split.train, split.validation
    if held is None or not settings.recipe.validation:
        part, held = data.hold_out(split.train, settings.recipe.validation, settings.seed)
    return (part, held) if len(held) > 1 else (split.train, held.subset(np.arange(0)))  # one has none to be near to


def check(split: data.Split, settings: Settings) -> None:
    """Raise ValueError unless split and settings fit together."""
    split.need_labels()
    data.check_disjoint(split)
    recipe, kind = settings.recipe, networks.kind(settings.network)
    if recipe.pretrained:
        networks.check_pretrained(settings.network)
    if (kind == "frozen") != bool(split.vectors_of):
        wanted = "vectors, see hhlib.features" if kind == "frozen" else "pictures"
        raise ValueError(f"network is {settings.network!r}, which needs a split of {wanted}.")
    if kind != "hybridhash" and recipe.small_epochs:
        raise ValueError(f"small_epochs is {recipe.small_epochs}, but it must be 0 for network {settings.network!r}.")
    labels, asymmetric = split.train.labels, losses.method(settings.method).family == "asymmetric"
    if recipe.balanced and (asymmetric or (labels.sum(dim=1) != 1).any()):
        raise ValueError("balanced is true, but it needs one label per image, and a method that is not asymmetric.")
    if kind == "frozen" and not recipe.pretrained:
        raise ValueError(f"pretrained is false, but the frozen backbone {settings.network} has to be pretrained.")
    if recipe.choose == "queries" and asymmetric:
        raise ValueError(f"choose is 'queries', but {settings.method} is asymmetric: it must be validation.")
    if kind == "frozen":
        if recipe.flip_average:
            raise ValueError("flip_average is true, but a frozen backbone's vectors have no mirror images.")
        return
    size = split.image_size
    for name in ("shift", "erase"):
        if getattr(recipe, name) >= size:
            raise ValueError(f"{name} is {getattr(recipe, name)}, but images of {size} pixels allow 0 to {size - 1}.")
    step = 4 * (networks.PRESETS.get(settings.network, {}) | recipe.net).get("patch_size", 1)
    if recipe.small_epochs and size % (2 * step):
        raise ValueError(f"small_epochs is {recipe.small_epochs}, but half of image_size {size} is not a multiple of "
                         f"{step}, as network {settings.network} needs; set it to 0.")  # fmt: skip
