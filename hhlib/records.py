"""What the files of a run must say, checked as soon as they are read: ValueError for what does not fit."""

from collections.abc import Callable

import numpy as np

from hhlib.common import check_bits, check_side, check_whole
from hhlib.metrics.packing import check_packed
from hhlib.settings import Recipe

LEAST_SPREAD = 1e-3  #: of a channel, by which its numbers are divided; training takes one grey level, 0.004, at least


def check_record(record: dict) -> None:
    """Check run.json: whatever of it is used later has the right type, where it is there at all."""
    parameters, data = _part(record, "parameters"), _part(record, "data")
    for name in ("dataset", "method", "network"):
        _check(parameters, name, "text", lambda x: isinstance(x, str))
    check_bits(parameters.get("bits", 1))
    check_whole("seed", parameters.get("seed", 0), 0)
    recipe = _part(parameters, "recipe")
    Recipe(**{name: value for name, value in recipe.items() if name in Recipe.__dataclass_fields__})
    _part(record, "model")
    if "mean" in data or "std" in data:
        check_centre(data["mean"], data["std"])
    _check(data, "classes", "a list of names", lambda x: isinstance(x, list) and all(isinstance(n, str) for n in x))
    _check(data, "fingerprint", "text", lambda x: isinstance(x, str))
    _check(data, "flip", "true or false", lambda x: isinstance(x, bool))
    for name, size in _part(data, "sizes").items():
        check_whole(name, size, 0)
    if data.get("image_size") is not None:
        check_side("image_size", data["image_size"])


def check_centre(mean: list[float], std: list[float]) -> None:
    """Check mean and spread of the channels, in 0..1: three numbers each, or none for a frozen backbone."""
    if not isinstance(mean, list | tuple) or not isinstance(std, list | tuple) or len(mean) != len(std):
        raise ValueError(f"mean is {mean!r} and std {std!r}, but they must be lists of equal length")
    _check({"mean": mean}, "mean", "0 or 3 numbers from 0 to 1", lambda x: _are_numbers(x, (0, 3)))
    allowed = f"0 or 3 numbers from {LEAST_SPREAD:g} to 1"
    _check({"std": std}, "std", allowed, lambda x: _are_numbers(x, (0, 3), LEAST_SPREAD))


def check_scores(scores: dict) -> None:
    """Check metrics.json: its scores are numbers from 0 to 1."""
    for name in {"expected", "worst", "best"} | _part(scores, "map").keys():
        if not _is_share(scores["map"][name]):
            raise ValueError(f"{name} is {str(scores['map'][name])[:80]!r}, but it must be a number from 0 to 1")
    _check(scores, "chance", "a number from 0 to 1", _is_share)
    _check(scores, "interval", "two numbers from 0 to 1", lambda x: _are_numbers(x, (2,)))


def check_codes(found: dict[str, np.ndarray]) -> None:
    """Check codes.npz: packed codes of `bits` bits, and as many labels and paths, where they are there."""
    check_bits(bits := found["bits"].item() if found["bits"].shape == () else found["bits"].tolist())
    for part in ("query", "database"):
        codes = check_packed(f"{part} codes", found[f"{part}_codes"], bits)
        for name, ndim, kinds in ((f"{part}_labels", 2, "biu"), (f"{part}_paths", 1, "U")):
            beside = found.get(name)
            if beside is None:
                continue
            if beside.ndim != ndim or len(beside) != len(codes) or beside.dtype.kind not in kinds:
                raise ValueError(f"{name} are {beside.shape} {beside.dtype}, but there are {len(codes)} {part} codes")


def _part(content: dict, name: str) -> dict:
    """The names and values below a name, {} if there are none."""
    part = content.get(name, {})
    if not isinstance(part, dict):
        raise ValueError(f"{name} is {part!r}, but it must be names and values in braces")
    return part


def _check(content: dict, name: str, allowed: str, fits: Callable) -> None:
    if name in content and not fits(content[name]):
        raise ValueError(f"{name} is {str(content[name])[:80]!r}, but it must be {allowed}")


def _is_share(x) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1


def _are_numbers(x, lengths: tuple[int, ...], least: float = 0.0) -> bool:
    return isinstance(x, list | tuple) and len(x) in lengths and all(_is_share(one) and one >= least for one in x)
