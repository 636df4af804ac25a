"""Processes of this machine, one for each GPU, started from a notebook or a script."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import torch
from accelerate.utils import patch_environment
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
    threads = max(1, torch.get_num_threads() // processes)  # numba's must be the same as PyTorch's, see `hhlib`
    with _handlers(), patch_environment(OMP_NUM_THREADS=threads, NUMBA_NUM_THREADS=threads):
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
def _handlers() -> Iterator[None]:
    """Afterwards, signals do again what they did before: PyTorch's launcher takes them and does not give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
