"""What a run leaves on disk, and how to read it: notebooks hand work to each other only through this folder.

runs/<data set>/<method>-<network>-<bits>bits-seed<n>/
    run.json              everything needed to repeat it
    history.csv           one row per epoch; timing.csv: its seconds, apart, so that history is the same in a repeat
    model.safetensors     the chosen weights (best on the validation part)
    training_state.pt     what is needed to resume
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

from hhlib import losses
from hhlib import network as networks
from hhlib.common import atomic, resolve
from hhlib.settings import Recipe, Settings, words

PACKAGES = ("torch", "timm", "accelerate", "faiss-cpu", "scikit-learn", "numpy")


def folder(settings: Settings) -> Path:
    """Where a run with these settings is: <runs_dir>/<data set>/<method>-<network>-<bits>bits-seed<n>."""
    name = settings.named()
    return (
        resolve(settings.runs_dir)
        / name["dataset"]
        / "{method}-{network}-{bits}bits-seed{seed}".format(**name).replace(":", "-")
    )


def find(root: str | Path = "runs", made: str = "metrics.json") -> list["Run"]:
    """All runs below a folder that have a file (by default: that have been evaluated), in the order of their names."""
    return [Run(path.parent) for path in sorted(resolve(root).glob(f"*/*/{made}"))]


def table(root: str | Path = "runs") -> pd.DataFrame:
    """One row per evaluated run below a folder: what it was, its scores, its median seconds per epoch."""
    return pd.DataFrame([_row(run) for run in find(root)])


def kept_table(name: str) -> pd.DataFrame:
    """A table that comes with the kit, results/<name>.csv, see results/README.md; empty without that file."""
    file = resolve(f"results/{name}.csv")
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def optimism(history: pd.DataFrame) -> float:
    """Points of mAP (hundredths) by which choosing the epoch on the queries beats an honest choice, on the validation
    part: the best query score of all epochs, minus that of the epoch with the best validation score.

    NaN where the history lacks one of the two.
    """
    both = history.dropna(subset=["validation_map", "query_map"]) if "query_map" in history else history[:0]
    if not len(both):
        return math.nan
    return 100 * float(both["query_map"].max() - both["query_map"][both["validation_map"].idxmax()])


def _row(run: "Run") -> dict:
    parameters, scores, timing = run.parameters, run.metrics(), run.path / "timing.csv"
    row = {name: parameters[name] for name in ("dataset", "method", "network", "bits", "seed")}
    row |= {"family": losses.method(row["method"]).family}
    row |= {kind: scores["map"][kind] for kind in ("expected", "worst", "best")}
    row["chosen_on"] = parameters["recipe"]["choose"]
    row["database_codes_learnt"] = scores.get("database_codes_learnt", False)
    row["seconds_an_epoch"] = pd.read_csv(timing)["seconds"].median() if timing.is_file() else math.nan
    row |= {"loss": changed(row["method"], parameters["recipe"]["loss"]), "epochs": parameters["recipe"]["epochs"]}
    return row | {"git_commit": run.record["git_commit"]}


def changed(method: str, loss: dict) -> str:
    """Hyper-parameters other than those a training starts from, as settings: "loss.alpha=0.5", or nothing."""
    usual = losses.defaults(method)
    wanted = usual | losses.method(method).recommended
    return words((f"loss.{name}", x) for name, x in sorted((usual | loss).items()) if x != wanted[name])


def write_json(path: Path, content: dict) -> None:
    """Write JSON atomically; NumPy numbers and arrays become plain ones."""
    plain = lambda x: x.tolist() if hasattr(x, "tolist") else str(x)  # noqa: E731
    with atomic(path) as draft:
        draft.write_text(json.dumps(content, indent=1, default=plain))


def surroundings() -> dict:
    """What else a repeat would need: package versions, git commit, machine."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "git_commit": git.stdout.strip() or None,
        "machine": {
            "system": platform.platform(),
            "cpu": _cpu(),
            "cpu_threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _cpu() -> str:
    """The processor's name, where the system says it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor())


class Run:
    """A run folder. Methods that read raise FileNotFoundError, which says what makes the missing file."""

    def __init__(self, path: str | Path):
        self.path = resolve(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def need(self, name: str, made_by: str) -> Path:
        """The path of a file of this run, which must exist."""
        path = self.path / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: {made_by} makes it.")
        return path

    @property
    def record(self) -> dict:
        """All of run.json: parameters, model, data, versions, machine. What older runs lack has its old default."""
        record = json.loads(self.need("run.json", "training").read_text())
        if "recipe" in record["parameters"]:
            record["parameters"]["recipe"] = vars(Recipe()) | record["parameters"]["recipe"]
        if "preset" in record.get("model", {}):
            record["model"]["name"] = record["model"].pop("preset")
        return record

    @property
    def parameters(self) -> dict:
        """What the run was asked to do: data set, method, network, bits, seed and the recipe."""
        return self.record["parameters"]

    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        return pd.read_csv(self.need("history.csv", "training"))

    def metrics(self) -> dict:
        """The scores."""
        return json.loads(self.need("metrics.json", "evaluation").read_text())

    def model(self) -> networks.HybridHash:
        """The trained network, on the CPU, in evaluation mode."""
        net = networks.create(**self.record["model"])
        networks.load_weights(net, self.need("model.safetensors", "training"))
        return net.eval()

    def codes(self) -> dict[str, np.ndarray]:
        """Packed codes and labels: query_codes, query_labels, database_codes, database_labels, bits."""
        with np.load(self.need("codes.npz", "evaluation"), allow_pickle=False) as stored:
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

    def save_figure(self, figure, name: str, caption: str = "") -> None:
        """Keep a figure as figures/<name>.png, with its caption as the picture's description."""
        with atomic(self.path / "figures" / f"{name}.png") as draft:
            figure.savefig(draft, dpi=150, bbox_inches="tight", metadata={"Description": caption})
