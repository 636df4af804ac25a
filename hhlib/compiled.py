"""numba's compiler, so that its loops run in every process: without a place for its cache, in threads, after a fork."""

import os
from collections.abc import Callable
from functools import cache, wraps
from pickle import UnpicklingError
from threading import Lock

import numba

_process: int | None = None  #: in which a loop first ran on several cores; those that are forked from it know it, too


def compiled(*, parallel: bool = False, **how) -> Callable[[Callable], Callable]:
    """A decorator that compiles a function; `how` is what `numba.njit` takes, too.

    The result is kept on disk where numba finds a folder for it, so that the next process need not compile. One call
    runs at a time: it uses all cores anyway, and numba's own threads, where there is no OpenMP, end the process if two
    Python threads call them at once. In a process that is forked after a call on several cores, the function is
    compiled once more, for one core: GNU's OpenMP would end that process.
    """

    def decorate(function: Callable) -> Callable:
        @cache
        def made(**more) -> Callable:
            try:
                return numba.njit(**how | more)(function)
            except RuntimeError:  # numba finds no folder that it may write to
                return made(**more | {"cache": False})

        @wraps(function)
        def call(*arguments):
            with _lock(os.getpid()):
                if parallel and _forked():
                    return made(parallel=False)(*arguments)
                try:
                    return made(parallel=parallel, cache=True)(*arguments)
                except (OSError, EOFError, UnpicklingError):  # what was kept is damaged, or the disk is full
                    return made(parallel=parallel)(*arguments)

        return call

    return decorate


def _forked() -> bool:
    global _process
    _process = _process or os.getpid()
    return _process != os.getpid()


@cache
def _lock(process: int) -> Lock:
    """One per process: a forked one could inherit a lock that nobody releases."""
    return Lock()
