"""HybridHash, to learn from, to reproduce and to use. Rooms: network, losses, metrics, data; runs, plots; training,
retrieval, attention, explain, baselines; widgets. Importing this registers the networks with timm, and loads no
plotting library."""

import importlib
import os

import torch

# numba sets OpenMP's number of threads, which is PyTorch's too, when it first runs; with another number, sums are added
# in another order, and a training that was stopped would not end bit-identical.
os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))

from hhlib import network  # noqa: E402, after the line above: numba reads it once

__version__ = "0.1.0"
__all__ = [
    "attention",
    "baselines",
    "data",
    "explain",
    "losses",
    "metrics",
    "network",
    "plots",
    "retrieval",
    "runs",
    "training",
    "widgets",
]


def __getattr__(name: str):
    """Rooms load when first used, so that `import hhlib` stays quick and free of matplotlib and ipywidgets."""
    if name in __all__:
        return importlib.import_module(f"hhlib.{name}")
    raise AttributeError(f"module 'hhlib' has no attribute {name!r}")
