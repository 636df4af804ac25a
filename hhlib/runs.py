"""What a run leaves on disk, and how to read it: notebooks hand work to each other only through this folder.

runs/<data set>/<method>-<network>-<bits>bits-seed<n>/
    run.json              everything needed to repeat it
    history.csv           one row per epoch; timing.csv: its seconds, apart, so that history is the same in a repeat
    model.safetensors     the chosen weights (best on the validation part)
    training_state.pt     what is needed to resume
    database_codes.npz    codes that an asymmetric method learnt for the database
    codes.npz             packed codes and labels of query and database set, and paths where pictures have them
    metrics.json          the scores
    figures/, notebooks/  what the notebooks drew; their executed copies, as .ipynb and .html
"""

import json
import math
import platform
import shlex
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hhlib import data, losses
from hhlib import network as networks
from hhlib.common import Missing, atomic, resolve
from hhlib.settings import Recipe, Settings, read, words

NAMED = ("dataset", "method", "network", "bits", "seed")  #: what names a run
SCORE = "mAP {expected:.3f} ({worst:.3f} to {best:.3f} by tie order)"  #: how a score is told
RESULTS = Path(__file__).resolve().parent.parent / "results"  #: comes with the kit, wherever a notebook is started
PACKAGES = ("torch", "timm", "accelerate", "faiss-cpu", "scikit-learn", "numpy")


def folder(settings: Settings) -> Path:
    """Where a run with these settings is: <runs_dir>/<data set>/<method>-<network>-<bits>bits-seed<n>."""
    name = settings.named()
    last = "{method}-{network}-{bits}bits-seed{seed}".format(**name).replace(":", "-")
    return resolve(settings.runs_dir) / name["dataset"] / last


def find(root: str | Path = "runs", made: str = "metrics.json", *, deep: bool = False) -> list["Run"]:
    """All runs <root>/<data set>/<run> that have a file (by default: that have been evaluated), in the order of their
    names; deep: all at any depth, with those of batches and kept ones."""
    return [Run(path.parent) for path in sorted(resolve(root).glob(f"**/{made}" if deep else f"*/*/{made}"))]


def table(where: "str | Path | Iterable[Run]" = "runs") -> pd.DataFrame:
    """One row per evaluated run, at any depth below a folder or of those given, see `row`; broken ones are named."""
    found = []
    for run in find(where, deep=True) if isinstance(where, str | Path) else where:
        try:
            found.append(row(run))
        except (LookupError, TypeError, ValueError, OSError) as error:
            print(f"{run.path} is left out: {type(error).__name__}: {error}")
    return pd.DataFrame(found)


def kept(name: str) -> "Run":
    """A run that comes with the kit, results/<name>."""
    return Run(RESULTS / name)


def kept_table(name: str) -> pd.DataFrame:
    """A table that comes with the kit, results/<name>.csv, see results/README.md; empty without that file."""
    file = RESULTS / f"{name}.csv"
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def row(run: "Run") -> dict:
    """What a run was and gave, as plain values: what names it, its split, settings, scores, versions and machine.

    What older versions did not keep is None or NaN. Raises FileNotFoundError, KeyError, ValueError for a broken run.
    """
    record, scores, timing, pages = run.record, run.metrics(), run.path / "timing.csv", run.path / "pages.json"
    parameters, where, facts = record["parameters"], record.get("machine", {}), record.get("data", {})
    history = run.history() if (run.path / "history.csv").is_file() else pd.DataFrame(columns=["validation_map"])
    found = {name: parameters[name] for name in NAMED} | {"family": losses.method(parameters["method"]).family}
    found |= {"variant": json.loads(pages.read_text())["variant"] if pages.is_file() else ""}  # its name in a batch
    found |= {"settings": settings_of(record), "fingerprint": facts.get("fingerprint")}
    found |= {part: facts.get("sizes", {}).get(part) for part in ("query", "train", "database")}
    found |= {kind: scores["map"][kind] for kind in ("expected", "worst", "best")}
    found |= dict(zip(("low", "high"), scores.get("interval", (math.nan, math.nan)), strict=True))
    found |= {"chance": scores.get("chance", math.nan), "topk": scores.get("topk")}
    found |= {"validation": history["validation_map"].max(), "chosen_on": parameters["recipe"]["choose"]}
    found |= {"database_codes_learnt": scores.get("database_codes_learnt", False)}
    found |= {"minutes": pd.read_csv(timing)["seconds"].sum() / 60 if timing.is_file() else math.nan}
    found |= {"epochs": parameters["recipe"]["epochs"], "precision": parameters.get("precision")}
    found |= {name: record.get("packages", {}).get(name) for name in ("torch", "timm")}
    found |= {name: record.get(name) for name in ("python", "git_commit")}
    return found | {name: where.get(name) for name in ("system", "cpu", "cpu_threads", "gpu")}


def settings_of(record: dict) -> str:
    """What differs from the settings that such a run starts from: `hh.open(text, dataset=..., ...)` repeats it."""
    named = {name: record["parameters"][name] for name in NAMED}
    if named["dataset"] not in data.names():  # a folder of pictures, which may be elsewhere now
        named.pop("dataset")
    size = record["model"]["img_size"] if networks.kind(named["network"]) == "tuned" else None
    settings = read(**named, image_size=size, recipe=Recipe(**record["parameters"]["recipe"]))
    return words((name, value) for name, value in settings.changes().items() if name not in named)


def command(settings: Settings) -> str:
    """What trains the run of these settings as page 3 does, in a shell."""
    pairs = [("-p", name, str(value)) for name, value in settings.changes().items() if name != "live"]
    return shlex.join(["python", "tools/run_notebooks.py", *sum(pairs, ()), "--only", "03"])


def write_json(path: Path, content: dict) -> None:
    """Write JSON atomically; NumPy numbers and arrays become plain ones."""
    plain = lambda x: x.tolist() if hasattr(x, "tolist") else str(x)  # noqa: E731
    with atomic(path) as draft:
        draft.write_text(json.dumps(content, indent=1, default=plain))


def surroundings() -> dict:
    """What else a repeat would need: package versions, git commit, machine."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = dict(system=platform.platform(), cpu=_cpu(), cpu_threads=torch.get_num_threads(), gpu=gpu)
    packages = {name: version(name) for name in PACKAGES}
    commit = git.stdout.strip() or None
    return {"python": platform.python_version(), "packages": packages, "git_commit": commit, "machine": machine}


def _cpu() -> str:
    """The processor's name, where the system says it."""
    told = Path("/proc/cpuinfo").read_text() if platform.system() == "Linux" else ""
    return next((x.split(": ")[1] for x in told.splitlines() if x.startswith("model name")), platform.processor())


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
            raise Missing(f"{path} does not exist: {made_by} makes it.")
        return path

    @property
    def state(self) -> str:
        """How far it is, such as "trained for 7 of 30 epochs, not evaluated yet"."""
        if not (self.path / "history.csv").is_file():
            return "not trained yet"
        trained = f"trained for {len(self.history())} of {self.parameters['recipe']['epochs']} epochs"
        if not (self.path / "metrics.json").is_file():
            return f"{trained}, not evaluated yet"
        return f"{trained}, {SCORE.format(**self.metrics()['map'])}"

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

    def model(self) -> networks.Network:
        """The trained network, on the CPU, in evaluation mode."""
        net = networks.create(**self.record["model"])
        networks.load_weights(net, self.need("model.safetensors", "training"))
        return net.eval()

    def codes(self) -> dict[str, np.ndarray]:
        """Packed codes and labels: query_codes, query_labels, database_codes, database_labels, bits; query_paths
        and database_paths, text, where pictures have paths."""
        with np.load(self.need("codes.npz", "evaluation"), allow_pickle=False) as stored:
            return dict(stored)

    def database_codes(self) -> np.ndarray | None:
        """Packed codes (n, bytes) that an asymmetric method learnt for the database; None for other methods."""
        path = self.path / "database_codes.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            return stored["codes"]

    def save_codes(self, name: str = "codes.npz", /, **arrays: Any) -> None:
        """Store what `codes` reads or, as database_codes.npz with the array "codes", what `database_codes` reads."""
        with atomic(self.path / name) as draft:
            np.savez_compressed(draft, **arrays)

    def save_metrics(self, scores: dict, **more) -> None:
        """Store what `metrics` reads: the scores of `metrics.evaluate` without its arrays over queries, and `more`."""
        write_json(self.path / "metrics.json", {k: v for k, v in scores.items() if k not in ("histogram", "ap")} | more)

    def save_figure(self, figure, name: str, caption: str = "") -> None:
        """Keep a figure as figures/<name>.png, with its caption as the picture's description."""
        with atomic(self.path / "figures" / f"{name}.png") as draft:
            figure.savefig(draft, dpi=150, bbox_inches="tight", metadata={"Description": caption})
