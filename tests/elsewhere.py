"""What a small folder of pictures gives: called by a test, and started by it where everything around is different.

python tests/elsewhere.py PICTURES FOLDER
"""

import hashlib
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import several
import torch

import hhlib as hh

SHORT = "epochs=1 small_epochs=0 validation=0 batch_size=8 image_size=32 shift=2"
FIXED = dict(device="cpu", precision="float32")


def shuffled_folders() -> None:
    """Let the system list the files of a folder in another order, as another file system would."""
    listed, scanned = os.listdir, os.scandir

    class Scanned(list):
        def __enter__(self):
            return iter(self)

        def __exit__(self, *_):
            pass

        def close(self):
            pass

    os.listdir = lambda *where: listed(*where)[::-1]
    os.scandir = lambda *where: Scanned([*scanned(*where)][::-1])


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def facts(pictures: Path, folder: Path) -> dict[str, object]:
    """Split, trained weights, codes and index of a folder of pictures; scores and hits of made codes."""
    where = dict(runs_dir=str(folder), data_dir=str(folder / "data"), live=False)
    ex = hh.open(SHORT, dataset=str(pictures), bits=12, **where, **FIXED)
    weights = ex.fit([]).model().state_dict().values()
    index = hh.index.build(pictures, bits=16, size=32, where=folder / "index", **FIXED)
    found = {"split": ex.split.fingerprint(), "weights": digest(*weights), "paths": [*index.paths]}
    found |= {"codes": digest(ex.encode("database")), "index": digest(index.codes)}
    found |= {"hits": [hit.path.name for hit in index.search(pictures / "a" / "0.png", k=9)]}
    rng = np.random.default_rng(0)  # many ties: 400 codes of 6 bits
    codes, labels = rng.integers(0, 2, (400, 6)).astype(bool), rng.integers(0, 3, 400)
    scores = hh.metrics.evaluate(codes[:50], labels[:50], codes, labels)
    return found | {"map": scores["map"], "curve": digest(*scores["at_rank"].values())}


def step(threads: int) -> list[float]:
    """Loss, outputs and size of each gradient of one step of a training, with so many of PyTorch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    trainer = hh.training.Trainer(several.small_digits(), several.how(batch_size=4, small_epochs=0))
    torch.manual_seed(0)
    loss, z = trainer.step(next(trainer.batches(0)))
    torch.set_num_threads(before)
    return [loss.item(), *z.flatten().tolist(), *(p.grad.norm().item() for p in trainer.net.parameters())]


if __name__ == "__main__":
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002, the old global generator
    torch.manual_seed(1)
    shuffled_folders()
    print(json.dumps([facts(*map(Path, sys.argv[1:])), step(threads=2)]))
