"""What every room of the library needs: checks that fail in one sentence, safe writing, where the project lies."""

import numbers
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_BITS = 1024


def check_bits(bits: int) -> int:
    """Return `bits` if it is a usable code length, a whole number from 1 to 1024; raise ValueError otherwise."""
    return check_whole("bits", bits, 1, MAX_BITS)


def check_whole(name: str, value: int, least: int, most: int | None = None) -> int:
    """Return `value` if it is a whole number from `least` to `most` (None: no limit); raise ValueError otherwise."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {value!r}, but it must be a whole number {allowed}.")
    return int(value)


def check_above(name: str, value: float, least: float = 0.0) -> float:
    """Return `value` if it is above `least`; raise ValueError otherwise."""
    if not isinstance(value, numbers.Real) or not value > least:
        raise ValueError(f"{name} is {value!r}, but it must be above {least:g}.")
    return value


def check_at_least(name: str, value: float, least: float = 0.0) -> float:
    """Return `value` if it is at least `least`; raise ValueError otherwise."""
    if not isinstance(value, numbers.Real) or not value >= least:
        raise ValueError(f"{name} is {value!r}, but it must be at least {least:g}.")
    return value


def check_share(name: str, value: float) -> float:
    """Return `value` if it is at least 0 and below 1; raise ValueError otherwise."""
    if not isinstance(value, numbers.Real) or not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}, but it must be at least 0 and below 1.")
    return value


def check_choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`; raise ValueError, listing them, otherwise."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(map(str, allowed))}.")
    return value


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` only when all went well; a crash leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def project_folder() -> Path:
    """The nearest folder, from the current one upwards, that holds `notebooks/`; the current one if none does.

    A notebook's relative paths start here, so that it finds the same files from JupyterLab (which starts it in its
    own folder) and from papermill (which starts it wherever it was called).
    """
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "notebooks").is_dir()), here)


def resolve(path: str | Path) -> Path:
    """An absolute path; a relative one starts at the project's folder."""
    return project_folder() / Path(path).expanduser()
