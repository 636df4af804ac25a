"""Training in several processes of this machine, one for each GPU, started from a notebook or a script."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hhlib.common import check_whole
from hhlib.data import Split
from hhlib.runs import Run
from hhlib.training.loop import fit
from hhlib.training.processes import check_batch_size
from hhlib.training.recipes import choose_device


def fit_in_processes(processes: int, split: Split, run: Run, *, device: str = "auto", **how) -> Run:
    """`fit`, shared by several processes: one for each GPU, or on a CPU as many as asked for. With 1, `fit` itself.

    The processes are started afresh, not forked: a notebook that has touched its GPU cannot be forked. For several
    machines, start `tools/train.py` on each with torchrun.

    Args:
        processes: how many.
        split, run, device, how: as for `fit`; reports must be such that they can be sent to a process.

    Raises:
        ValueError: for fewer than one process, more than there are GPUs, or a batch that cannot be shared equally.
        RuntimeError: if one of them fails, with its reason; what was kept stays on disk.
    """
    check_whole("processes", processes, 1)
    if processes == 1:
        return fit(split, run, device=device, **how)
    check_batch_size(how["recipe"].batch_size, processes)
    if choose_device(device) == "cuda":
        check_whole("processes", processes, 1, torch.cuda.device_count())
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
            elastic_launch(config, _fit)(split, run, how | {"device": device})
        except ChildFailedError as error:
            _, first = error.get_first_failure()
            reason = first.message["message"] if isinstance(first.message, dict) else first.message
            raise RuntimeError(f"training in {processes} processes failed: {reason}") from error
    return run


def _fit(split: Split, run: Run, how: dict) -> None:
    fit(split, run, **how)
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
