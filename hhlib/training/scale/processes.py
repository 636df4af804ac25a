"""Several processes, one batch: each sends its share of the images through its copy of the network, and each computes
the loss of the *whole* batch.

So images on different processes are compared too, every memory bank holds every image, and training means the same on
one process as on eight. The price is small: a loss costs a few hundredths of a step.
"""

import gc
import signal
from collections.abc import Callable
from uuid import uuid4

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import patch_environment
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.nn.functional import all_gather
from torch.nn.parallel import DistributedDataParallel

from hhlib.common import ending


def several() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def together(share: Tensor) -> Tensor:
    """The shares (b, ...) of all processes, in their order: -> (b * processes, ...), the same on each.

    Gradients flow back to each share, added up over the processes: all compute the same loss, so with n of them that is
    n times the gradient, and the mean that DistributedDataParallel takes over processes divides by n again. All
    processes must call it, with shares of one shape.
    """
    return torch.cat(all_gather(share.contiguous())) if several() else share


def share_normalisation(net: nn.Module) -> None:
    """Let the network's batch normalisation see the whole batch, not this process's share (PyTorch's needs a GPU)."""

    def gather(norm: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        return (together(inputs[0]),) if norm.training and several() else None

    def own_share(norm: nn.Module, _, out: Tensor) -> Tensor | None:
        return out.chunk(dist.get_world_size())[dist.get_rank()] if norm.training and several() else None

    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.register_forward_pre_hook(gather)
            module.register_forward_hook(own_share)


def replicas(net: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The network itself, or, in several processes, what keeps their copies alike."""
    if not several():
        return net
    gc.collect()  # an earlier wrapper of the same network would average its gradients a second time
    device = [accelerator.local_process_index] if accelerator.device.type == "cuda" else None
    return DistributedDataParallel(net, device_ids=device)


def check_batch_size(batch_size: int, processes: int) -> None:
    """Raise ValueError unless the processes get equal shares of a batch."""
    if batch_size % processes:
        raise ValueError(f"batch_size is {batch_size}, but it must divide by the {processes} processes sharing it.")


def in_processes(processes: int, work: Callable, arguments: tuple) -> None:
    """Call ``work(*arguments)`` in each of several processes, which then know of each other as under torchrun.

    They are started afresh, not forked: a notebook that has touched its GPU cannot be forked.

    Raises:
        RuntimeError: if one of them fails, with its reason.
    """
    here = dict(min_nodes=1, max_nodes=1, nproc_per_node=processes, max_restarts=0, start_method="spawn")
    meeting = dict(run_id=uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0")
    threads = max(1, torch.get_num_threads() // processes)  # numba's must be the same as PyTorch's, see `hhlib`
    handlers = {number: signal.getsignal(number) for number in ending()}
    try:
        with patch_environment(OMP_NUM_THREADS=threads, NUMBA_NUM_THREADS=threads):
            elastic_launch(LaunchConfig(**here, **meeting), _and_leave)(work, arguments)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        reason = first.message["message"] if isinstance(first.message, dict) else first.message
        if "To enable traceback" in reason:  # PyTorch's words for a process that ended before it began
            reason = 'one ended at its start; in a script, what trains must be below `if __name__ == "__main__":`.'
        raise RuntimeError(f"training in {processes} processes failed: {reason}") from error
    finally:  # PyTorch's launcher takes the signals and does not give them back
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _and_leave(work: Callable, arguments: tuple) -> None:
    work(*arguments)
    dist.destroy_process_group()
