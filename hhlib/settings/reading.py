"""From names and values, as text or as Python values, to settings."""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pandas as pd

from hhlib import losses
from hhlib import network as networks
from hhlib.common import Refused, check_whole, nearest
from hhlib.data.reading import brief
from hhlib.settings.fields import DOTTED, Recipe, Settings, recipe_for

WANTED = {bool: "true or false", int: "a whole number", float: "a number", NoneType: "none"}


def helps() -> dict[str, str]:
    """Every setting's name and help text: those of a run, then those of its recipe."""
    return {field.name: field.metadata["help"] for kind in (Settings, Recipe) for field in fields(kind)}


def table(settings: Settings) -> pd.DataFrame:
    """Settings to look at: one row per setting, with its value and its help text."""
    values = vars(settings) | vars(settings.recipe)
    rows = {name: (values[name], text) for name, text in helps().items() if name not in ("recipe", "loss", "net")}
    rows |= {f"net.{name}": (x, "of the network's parts, see hh.network") for name, x in settings.recipe.net.items()}
    loss = losses.defaults(settings.method) | settings.recipe.loss
    own = losses.hyperparameters(settings.method)
    rows |= {f"loss.{name}": (loss[name], field.metadata["help"]) for name, field in own.items()}
    return pd.DataFrame(rows, index=["value", "what it is"], dtype=object).T


def words(values: Iterable[tuple[str, Any]]) -> str:
    """Text for `read`: [("bits", 16), ("net.depths", (1, 1, 2))] -> "bits=16 net.depths=1,1,2"."""
    plain = ((name, ",".join(map(str, x)) if isinstance(x, tuple | list) else x) for name, x in values)
    return shlex.join(f"{name}={value}" for name, value in plain)


def read(text: str = "", **values: Any) -> Settings:
    """Settings from text and from values; everything else has its default, or what the recipe starts from.

    Args:
        text: words of the form name=value, such as "bits=16 loss.alpha=0.2"; blanks need quotes, as in a shell.
        values: Python values, or text to be read as the field's type. `recipe` may be a `Recipe`, or a dict as `loss`
            may; a dotted name needs ``**{"loss.alpha": 0.2}``.

    Raises:
        ValueError: for a name that does not exist, a value that does not fit, or two values for one name.

    >>> read("bits=16 loss.alpha=0.2").recipe.loss
    {'alpha': 0.2}
    """
    try:
        return _read(_by_full_name([*split(text), *values.items()]))
    except ValueError as error:
        raise Refused(brief(error, 900)) from None  # it repeats a value, however long that is


def _read(given: dict[str, Any]) -> Settings:
    start = given.pop("recipe", "ours")
    run = _typed(Settings, {name: given.pop(name) for name in list(given) if name in get_type_hints(Settings)})
    dotted = {name: given.pop(name) for name in list(given) if "." in name}
    changes, settings = _typed(Recipe, given), Settings(**run)
    if not isinstance(start, Recipe):
        start = recipe_for(settings.dataset, method=settings.method, network=settings.network, start=start)
    if "epochs" in changes and "small_epochs" not in changes:  # small epochs keep their share
        changes["small_epochs"] = start.small_epochs * check_whole("epochs", changes["epochs"], 1) // start.epochs
    kinds = {"loss": {name: field.type for name, field in losses.hyperparameters(settings.method).items()}}
    kinds["net"] = networks.options(settings.network)
    changes |= {group: dict(getattr(start, group)) for group in DOTTED}
    for name, value in dotted.items():
        group, _, option = name.partition(".")
        changes[group][option] = typed(name, value, kinds[group].get(option, str))
    return replace(settings, recipe=replace(start, **changes))


def split(text: str) -> list[tuple[str, str]]:
    """Text as names and values: "bits=16 erase=0" -> [("bits", "16"), ("erase", "0")]."""
    try:
        pairs = [word.partition("=") for word in shlex.split(text)]
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"settings is {text!r}, but it must be text such as 'bits=16 loss.alpha=0.2'.") from error
    for name, equals, value in pairs:
        if not equals:
            raise ValueError(f"settings has the word {name + value!r}, but each must be name=value, such as bits=16.")
    return [(name, value) for name, _, value in pairs]


def _by_full_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Values by full name: [("recipe", {"erase": 0}), ("recipe.clip", 2)] -> {"erase": 0, "clip": 2}."""
    found, known = {}, helps()
    for name, value in _opened(pairs):
        if name not in known and name.partition(".")[0] not in DOTTED:
            raise ValueError(f"there is no setting {name!r}.{nearest(name, known)} hh.settings.helps() lists them.")
        if name in found and str(found[name]) != str(value):
            raise ValueError(f"{name} is given twice, as {found[name]!r} and as {value!r}; give it once.")
        found[name] = value
    for group, example in zip(DOTTED, ("loss.alpha=0.2", "net.stem=conv"), strict=True):
        if group in found:
            raise ValueError(f"{group} is {found[group]!r}, but what it holds is set by name, such as {example}.")
    return found


def _opened(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The same pairs, with dicts opened and "recipe." left out."""
    for name, value in pairs:
        name = name.removeprefix("recipe.")
        if isinstance(value, dict) and name in ("recipe", *DOTTED):
            yield from _opened((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _typed(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    return {name: typed(name, value, get_type_hints(kind)[name]) for name, value in values.items()}


def typed(name: str, value: Any, kind: Any) -> Any:
    """A value read as a type, if it is text: ("bits", "16", int) -> 16. Others are returned as they are.

    Raises:
        ValueError: for text that cannot be read so.
    """
    kinds = (kind,) if get_origin(kind) is tuple else get_args(kind) or (kind,)
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or str in kinds:
        return value
    word = value.lower()
    if NoneType in kinds and word == "none":
        return None
    if any(get_origin(one) is tuple for one in kinds):
        return tuple(typed(name, part.strip(), int) for part in value.split(","))
    if bool in kinds and word in ("true", "yes", "1", "false", "no", "0"):
        return word in ("true", "yes", "1")
    if int in kinds and re.fullmatch(r"[+-]?[0-9]{1,99}", value):  # Python itself refuses very long ones
        return int(value)
    if float in kinds and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", word):
        return float(value)
    raise ValueError(
        f"{name} is {value[:99]!r}, but it must be {' or '.join(WANTED[k] for k in kinds if k in WANTED)}."
    )
