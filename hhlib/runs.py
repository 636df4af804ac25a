"""What a run leaves on disk, and how to read it: notebooks hand work to each other only through this folder.

runs/<data set>/<method>-<network>-<bits>bits-seed<n>/
    run.json              everything needed to repeat it
    history.csv           one line an epoch; timing.csv: its seconds, apart, so that history is the same in a re-run
    model.safetensors     the chosen weights (best on the validation part)
    training_state.pt     where training stands, to go on from
    database_codes.npz    codes that an asymmetric method learnt for the database
    codes.npz             packed codes and labels of query and database set
    metrics.json          the scores
    figures/, notebooks/  what the notebooks drew; their executed copies, as .ipynb and .html
"""

import json
import math
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hhlib import network as networks
from hhlib.common import atomic, check_bits, check_choice, check_whole, resolve
from hhlib.data import PROTOCOLS
from hhlib.losses import METHODS

PACKAGES = ("torch", "timm", "accelerate", "faiss-cpu", "scikit-learn", "numpy")


def check_parameters(*, method: str, network: str, bits: int, seed: int) -> None:
    """Check the values that, with a data set, name a run; raise ValueError in one sentence at the first bad one."""
    check_choice("method", method, METHODS)
    check_choice("network", network, networks.PRESETS)
    check_bits(bits)
    check_whole("seed", seed, 0)


def folder(*, dataset: str, method: str, network: str, bits: int, seed: int, root: str | Path = "runs") -> Path:
    """Where a run with these values lives. A relative `root` starts at the project's folder."""
    check_choice("dataset", dataset, PROTOCOLS)
    check_parameters(method=method, network=network, bits=bits, seed=seed)
    return resolve(root) / dataset / f"{method}-{network}-{bits}bits-seed{seed}"


def find(root: str | Path = "runs") -> list["Run"]:
    """All runs under a folder that have been evaluated, in the order of their names."""
    return [Run(path.parent) for path in sorted(resolve(root).glob("*/*/metrics.json"))]


def table(root: str | Path = "runs") -> pd.DataFrame:
    """One row for each evaluated run under a folder: what it was, its scores, its median seconds an epoch."""
    return pd.DataFrame([_row(run) for run in find(root)])


def optimism(history: pd.DataFrame) -> float:
    """Points of mAP (hundredths) that choosing the epoch on the queries adds to an honest choice, on the validation
    part: the best query score of all epochs, less that of the epoch with the best validation score.

    NaN where the history lacks one of the two.
    """
    both = history.dropna(subset=["validation_map", "query_map"]) if "query_map" in history else history[:0]
    if not len(both):
        return math.nan
    return 100 * float(both["query_map"].max() - both["query_map"][both["validation_map"].idxmax()])


def _row(run: "Run") -> dict:
    record, scores = run.record, run.metrics()
    parameters, timing = record["parameters"], run.path / "timing.csv"
    names = ("dataset", "method", "network", "bits", "seed")
    row = {name: parameters[name] for name in names} | {"family": METHODS[parameters["method"]].family}
    row |= {kind: scores["map"][kind] for kind in ("expected", "worst", "best")}
    row["chosen_on"] = parameters["recipe"].get("choose", "validation")
    row["database_codes_learnt"] = scores.get("database_codes_learnt", False)
    row["seconds_an_epoch"] = pd.read_csv(timing)["seconds"].median() if timing.is_file() else math.nan
    row |= {"loss": json.dumps(parameters["recipe"]["loss"]), "epochs": parameters["recipe"]["epochs"]}
    return row | {"git_commit": record["git_commit"]}


def write_json(path: Path, content: dict) -> None:
    """Write JSON atomically; NumPy numbers and arrays become plain ones."""
    with atomic(path) as draft:
        draft.write_text(
            json.dumps(content, indent=1, default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x))
        )


def surroundings() -> dict:
    """What else a repeat would need: package versions, git commit, machine."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "git_commit": git.stdout.strip() or None,
        "machine": {
            "system": platform.platform(),
            "cpu_threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


class Run:
    """A run folder. Reading methods raise FileNotFoundError, saying which notebook makes what is missing."""

    def __init__(self, path: str | Path):
        self.path = resolve(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def need(self, name: str, made_by: str) -> Path:
        """The path of a file of this run, which must be there."""
        path = self.path / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: it is made by {made_by}, run with the same parameters.")
        return path

    @property
    def record(self) -> dict:
        """All of run.json: parameters, model, data, versions, machine."""
        return json.loads(self.need("run.json", "notebook 03_gpu_training").read_text())

    @property
    def parameters(self) -> dict:
        """What the run was asked to do: data set, method, network, bits, seed and the training recipe."""
        return self.record["parameters"]

    def history(self) -> pd.DataFrame:
        """One row an epoch."""
        return pd.read_csv(self.need("history.csv", "notebook 03_gpu_training"))

    def metrics(self) -> dict:
        """The scores."""
        return json.loads(self.need("metrics.json", "notebook 04_retrieval_evaluation").read_text())

    def model(self) -> networks.HybridHash:
        """The trained network, on the CPU, in evaluation mode."""
        net = networks.create(**self.record["model"])
        networks.load_weights(net, self.need("model.safetensors", "notebook 03_gpu_training"))
        return net.eval()

    def codes(self) -> dict[str, np.ndarray]:
        """Packed codes and labels: query_codes, query_labels, database_codes, database_labels, bits."""
        with np.load(self.need("codes.npz", "notebook 04_retrieval_evaluation"), allow_pickle=False) as stored:
            return dict(stored)

    def database_codes(self) -> np.ndarray | None:
        """Packed codes (n, bytes) that an asymmetric method learnt for the database; None for other methods."""
        path = self.path / "database_codes.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            return stored["codes"]

    def save_database_codes(self, packed: np.ndarray) -> None:
        """Store what `database_codes` reads."""
        with atomic(self.path / "database_codes.npz") as draft:
            np.savez_compressed(draft, codes=packed)

    def save_codes(self, **arrays: np.ndarray) -> None:
        """Store what `codes` reads."""
        with atomic(self.path / "codes.npz") as draft:
            np.savez_compressed(draft, **arrays)

    def save_metrics(self, scores: dict, **more) -> None:
        """Store what `metrics` reads: the scores of `metrics.evaluate` without its arrays over queries, and `more`."""
        write_json(self.path / "metrics.json", {k: v for k, v in scores.items() if k not in ("histogram", "ap")} | more)

    def save_figure(self, figure, name: str) -> None:
        """Keep a figure as figures/<name>.png."""
        with atomic(self.path / "figures" / f"{name}.png") as draft:
            figure.savefig(draft, dpi=150, bbox_inches="tight")
