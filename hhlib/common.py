"""What every room of the library needs: checks that fail in one sentence, safe writing, where the project is."""

import dataclasses
import difflib
import errno
import math
import numbers
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

MAX_BITS = 1024
MAX_SIDE = 2048  #: of a picture, in pixels: far more than networks see, and one picture still takes only 50 MB
#: Of a network: ten times those of the largest HybridHash, and 4 GB in float32. Checked before memory is taken, because
#: a file may ask for any number.
MAX_PARAMETERS = 1_000_000_000
#: The numbers of errors with which writing to an open file fails.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class Told:
    """Beside an exception's class: its sentence says all, and a notebook shows it without the lines that led there."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Missing(Told, FileNotFoundError):
    """A file that another page or command makes."""


class Refused(Told, ValueError):
    """Settings that do not fit."""


class Unwritable(Told, OSError):
    """A file that cannot be written: the disk is full, the folder read-only."""


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


check_side = partial(check_whole, least=1, most=MAX_SIDE)  #: ``(name, value)`` -> the value


def check_parameters(what: str, number: int) -> None:
    """Raise ValueError if a network would have more parameters than memory should be taken for."""
    if number > MAX_PARAMETERS:
        raise ValueError(f"{what} has {number:,} parameters, but at most {MAX_PARAMETERS:,} are allowed.")


def check_above(name: str, value: float, least: float = 0.0) -> float:
    """Return `value` if it is a finite number above `least`; raise ValueError otherwise."""
    return _checked(name, value, f"above {least:g}", lambda x: x > least)


def _checked(name: str, value: float, allowed: str, fits) -> float:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not fits(value):
        raise ValueError(f"{name} is {value!r}, but it must be {allowed}.")
    return value


def number(allowed: str, fits: Callable) -> Callable:
    """The check of a finite number for which `fits`; `allowed` says it in words."""
    return partial(_checked, allowed=allowed, fits=fits)


check_share = number("at least 0 and below 1", lambda x: 0 <= x < 1)  #: ``(name, value)`` -> the value


def check_choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`; otherwise raise ValueError, listing them and naming the nearest."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(map(str, allowed))}."
                         f"{nearest(value, allowed)}")  # fmt: skip
    return value


def nearest(word: object, known: Iterable[str]) -> str:
    """The end of a message, such as " Did you mean 'bits'?"; empty where no known word is like this one."""
    found = difflib.get_close_matches(str(word), [str(name) for name in known], n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def setting(default, help: str, check: Callable | None = None):
    """A field of a dataclass of settings: its default, its help text and, if need be, ``check(name, value)``."""
    how: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    return dataclasses.field(**how, kw_only=True, metadata={"help": help, "check": check})


def one_of(*allowed: str) -> Callable:
    """The check of a setting that has a few possible values."""
    return partial(check_choice, allowed=allowed)


def at_least(least: float) -> Callable:
    """The check of a number with a smallest value; whole if `least` is an int."""
    whole = isinstance(least, int)
    return partial(check_whole, least=least) if whole else number(f"at least {least:g}", lambda x: x >= least)


def check_settings(given) -> None:
    """Check each `setting` of a dataclass instance, by its own check or by its type; ValueError in one sentence."""
    types = get_type_hints(type(given))
    for field in dataclasses.fields(given):
        check_setting(field, getattr(given, field.name), types[field.name])


def check_setting(field: dataclasses.Field, value, kind) -> None:
    """Check a value for a field of this type, such as ``float | None``."""
    kinds = tuple(get_origin(kind) or kind for kind in get_args(kind) or (kind,))
    if value is None and type(None) in kinds:
        return
    if check := field.metadata.get("check"):
        check(field.name, value)
    elif not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        words = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
        wanted = " or ".join(words.get(kind, kind.__name__) for kind in kinds if kind is not type(None))
        raise ValueError(f"{field.name} is {value!r}, but it must be {wanted}.")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to, which replaces `path` only if everything went well; a crash leaves the old file.

    Raises:
        Unwritable: if it cannot be written, with the system's reason.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        with saving(draft, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield draft
            os.replace(draft, path)
    finally:
        with suppress(OSError):
            draft.unlink()


@contextmanager
def saving(file: Path, named: Path | None = None) -> Iterator[None]:
    """Around what saves a file: if that fails, `Unwritable` says why; `named` is what the sentence calls the file."""
    try:
        yield
    except Unwritable:
        raise
    except Exception as error:
        if reason := _unwritable(file, error):
            raise Unwritable(f"{named or file} cannot be written ({reason}); what was there before is kept.") from error
        raise


def _unwritable(file: Path, error: Exception) -> str:
    """Why a file cannot be written, in the system's words; "" if something else went wrong."""
    if isinstance(error, OSError):
        named = error.filename is not None and Path(str(error.filename)).is_relative_to(file.parent)
        full = error.filename is None and (error.errno in FULL or type(error) is OSError)  # NumPy gives no number
        return (error.strerror or str(error)) if named or full else ""
    if "os error" in str(error):  # safetensors
        return str(error)
    try:  # PyTorch does not say what is wrong: another file beside shows whether the disk is full
        with tempfile.TemporaryFile(dir=file.parent) as other:
            other.write(bytes(1 << 20))
    except OSError as full:
        return full.strerror or ""
    return ""


def ending() -> tuple[signal.Signals, ...]:
    """The signals that ask a process to end: of Ctrl-C, SIGTERM, of a terminal that is closed; not what it ignores."""
    hang_up = getattr(signal, "SIGHUP", None)  # which Windows does not have, and `nohup` makes ignored
    heard = () if hang_up is None or signal.getsignal(hang_up) == signal.SIG_IGN else (hang_up,)
    return (signal.SIGINT, signal.SIGTERM, *heard)


def end(number: int, _frame: object = None) -> NoReturn:
    """Leave because of a signal."""
    quiet(number)
    sys.exit(128 + number)


def quiet(number: int | None = None) -> None:
    """Print to nowhere from now on, if the reader of the output has left or the signal of this number says so."""
    if number not in (signal.SIGINT, signal.SIGTERM):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # a notebook's is no file
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def command(does: Callable[..., int], name: str = "") -> Callable[..., int]:
    """A function that does what a command line asks for -> exit code; whatever stops it is told in one sentence.

    2 for what cannot be done, 141 if nobody reads the output any more, 128 and its number after a signal of `ending`,
    which lets `finally` keep what is done: 130 after Ctrl-C, 143 after SIGTERM. `name` comes before the sentence.
    """

    @wraps(does)
    def told(*arguments) -> int:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding does not have
        with suppress(ValueError):  # not the main thread
            for number in ending()[1:]:
                signal.signal(number, end)
        try:
            code = does(*arguments)
            print(end="", flush=True)
            return code
        except BrokenPipeError:
            quiet()  # Python would complain when it ends
            return 141
        except (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError) as error:
            print(f"{name}{str(error) or type(error).__name__}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stop:
            print(f"{name}{stop if stop.args else 'stopped; the same command resumes it.'}", file=sys.stderr)
            return 128 + signal.SIGINT

    return told


def project_folder() -> Path:
    """The nearest folder, from the current one upwards, that holds `notebooks/` and `hhlib/`; else the current one.

    Every relative path starts here, so that a notebook finds the same files from JupyterLab (which starts it in its
    own folder) and from papermill (which starts it wherever it was called).
    """
    here = Path.cwd()
    marks = ("notebooks", "hhlib")
    return next((f for f in (here, *here.parents) if all((f / mark).is_dir() for mark in marks)), here)


def resolve(path: str | Path) -> Path:
    """An absolute path; a relative one starts at the project's folder."""
    return project_folder() / Path(path).expanduser()
