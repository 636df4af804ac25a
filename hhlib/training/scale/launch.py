"""Processes of this machine, one for each GPU, started from a notebook or a script."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def in_processes(processes: int, work: Callable, arguments: tuple) -> None:
    """Call ``work(*arguments)`` in each of several processes, which then know of each other as under torchrun.

    They are started afresh, not forked: a notebook that has touched its GPU cannot be forked.

    Raises:
        RuntimeError: if one of them fails, with its reason.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    with _handlers(), _threads(max(1, torch.get_num_threads() // processes)):
        try:
            elastic_launch(config, _and_leave)(work, arguments)
        except ChildFailedError as error:
            _, first = error.get_first_failure()
            reason = first.message["message"] if isinstance(first.message, dict) else first.message
            raise RuntimeError(f"training in {processes} processes failed: {reason}") from error


def _and_leave(work: Callable, arguments: tuple) -> None:
    work(*arguments)
    torch.distributed.destroy_process_group()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Processes started inside get this many threads each. numba's must be the same, see `hhlib`."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(number)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _handlers() -> Iterator[None]:
    """Afterwards, signals do again what they did before: PyTorch's launcher takes them and does not give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
