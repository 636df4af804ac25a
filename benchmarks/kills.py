"""Kill a training without warning, again and again, and see whether it ends as if nothing had happened.

    python benchmarks/kills.py [--kills 20] [--method hybridhash] [--epochs 6] [--seed 0]

Trains the micro network on digits with `tools/train.py`, once in one go, then in processes that get SIGKILL at random
moments of the time the first one took, and are started again, until so many were killed. A training that comes to its
end in between is followed by another. Weights, history, state and codes of the query set are compared bit for bit.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from hhlib import data, retrieval, runs

PROJECT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Count the kills; 1 if anything differs."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        whole, seconds = Path(folder) / "whole", time.perf_counter()
        train(arguments, whole)
        longest = time.perf_counter() - seconds
        moments, killed, differences = random.Random(arguments.seed), 0, []
        while killed < arguments.kills:
            again, ended = Path(folder) / f"from{killed}", False
            while not ended:
                moment = moments.uniform(0, longest) if killed < arguments.kills else None
                ended = train(arguments, again, moment)
                killed += not ended
            differences += compare(only_run(whole), only_run(again))
            print(f"{killed} kills; differences: {', '.join(differences) or 'none'}", flush=True)
    return int(bool(differences))


def train(arguments: argparse.Namespace, folder: Path, seconds: float | None = None) -> bool:
    """Start or go on with a training, and kill it after so many seconds -> whether it came to its end before."""
    values = dict(method=arguments.method, epochs=arguments.epochs, bits=16, device="cpu", runs_dir=folder)
    words = [word for name, value in values.items() for word in ("-p", name, str(value))]
    process = subprocess.Popen([sys.executable, PROJECT / "tools" / "train.py", *words], stdout=subprocess.DEVNULL)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    if process.returncode:
        raise RuntimeError(f"the training in {folder} failed with exit code {process.returncode}.")
    return True


def only_run(folder: Path) -> runs.Run:
    """The run in a folder that holds one."""
    return runs.Run(next(folder.glob("*/*")))


def compare(a: runs.Run, b: runs.Run) -> list[str]:
    """What of two runs is not the same, bit for bit."""
    files = ["history.csv", "model.safetensors"]
    different = [name for name in files if (a.path / name).read_bytes() != (b.path / name).read_bytes()]
    states = [torch.load(run.path / "training_state.pt", weights_only=True) for run in (a, b)]
    for part in ("net", "loss"):
        same = all(torch.equal(tensor, states[1][part][name]) for name, tensor in states[0][part].items())
        different += [] if same else [f"state of the {part}"]
    query, facts = data.load("digits").query, a.record["data"]
    codes = [retrieval.encode(run.model(), query, mean=facts["mean"], std=facts["std"]) for run in (a, b)]
    return different + ([] if torch.equal(*codes) else ["codes"])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--method", default="hybridhash")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
