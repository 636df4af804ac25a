"""HybridHash, to learn from, to reproduce and to use. `hh.open(dataset="digits", bits=16)` is the front door.

Importing this registers the networks with timm, and loads no plotting library.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

import torch

# numba sets OpenMP's number of threads, which is PyTorch's too, when it first runs; with another number, sums are added
# in another order, and a training that was stopped would not end bit-identical.
os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))

from hhlib import network as network  # after the line above: numba reads it once

if TYPE_CHECKING:  # what `__getattr__` loads, for editors and type checkers
    # isort: off
    from hhlib import attention, bar, baselines, data, encoder, experiment, explain, features, index, losses, metrics
    from hhlib import plots, reference, retrieval, runs, settings, training, widgets

    # isort: on
    from hhlib.encoder import Encoder
    from hhlib.experiment import Experiment, kept, open

__version__ = "0.1.0"
MODULES = ["attention", "bar", "baselines", "data", "encoder", "experiment", "explain", "features", "index", "losses"]
MODULES += ["metrics", "network", "plots", "reference", "retrieval", "runs", "settings", "training", "widgets"]
__all__ = [*MODULES, "Encoder", "Experiment", "kept", "open"]  # `__getattr__` loads them


def __getattr__(name: str) -> Any:
    """Modules are loaded when first used, so that `import hhlib` is quick and free of matplotlib and ipywidgets."""
    if name in MODULES:
        return importlib.import_module(f"hhlib.{name}")
    if name in ("open", "kept", "Experiment", "Encoder"):
        return getattr(importlib.import_module(f"hhlib.{'encoder' if name == 'Encoder' else 'experiment'}"), name)
    raise AttributeError(f"module 'hhlib' has no attribute {name!r}")
