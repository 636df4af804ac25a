"""Put a finished run among the kept results: its codes and scores and, if asked, its weights in bf16.

    python tools/keep.py results/cifar10-2-64bits -p dataset cifar10-2 -p bits 64 [--weights]

The settings say which run. Rounding the weights to 8 significant bits halves the file and moves a few outputs across 0,
so codes and scores are made again, from what is kept. Without `--weights`, those of the run are copied.
`tools/verify.py` computes the scores again from the codes.
"""

import shutil
import sys
from pathlib import Path

import torch
from run_notebooks import parameter_parser
from safetensors.torch import load_file, save_file

import hhlib as hh
from hhlib.common import command, resolve

RECORDS = ("run.json", "history.csv", "timing.csv")
SCORES = ("codes.npz", "metrics.json")


def rounded(source: Path, target: Path) -> None:
    """The same weights in bf16; counters stay whole numbers."""
    weights = load_file(source).items()
    save_file({name: x.to(torch.bfloat16) if x.is_floating_point() else x for name, x in weights}, target)


def keep(ex: hh.Experiment, folder: Path, weights: bool) -> dict:
    """Fill a folder with what is kept of a run -> its scores."""
    ex.need("model.safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    for name in RECORDS:
        shutil.copyfile(ex.run.path / name, folder / name)
    if not weights:
        scores = ex.evaluate()
        for name in SCORES:
            shutil.copyfile(ex.run.path / name, folder / name)
        return scores
    rounded(ex.run.path / "model.safetensors", folder / "model.safetensors")
    kept = hh.Experiment(ex.settings, hh.runs.Run(folder))
    (folder / "codes.npz").unlink(missing_ok=True)
    return kept.evaluate()


@command
def main() -> int:
    """Keep what the command line asks for; 2 if it asks for what does not exist."""
    parser = parameter_parser(__doc__)
    parser.add_argument("folder")
    parser.add_argument("--weights", action="store_true")
    given = parser.parse_args()
    scores = keep(hh.open(hh.settings.words(given.parameter)), resolve(given.folder), given.weights)
    print({kind: round(value, 4) for kind, value in scores["map"].items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
