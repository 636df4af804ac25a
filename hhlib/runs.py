"""What a run leaves on disk, and how to read it: notebooks hand work to each other only through this folder.

runs/<data set>/<method>-<network>-<bits>bits-seed<n>/
    run.json              everything needed to repeat it
    history.csv           one row per epoch; timing.csv: its seconds, apart, so that history is the same in a repeat
    model.safetensors     the chosen weights (best on the validation part)
    training_state.pt     what is needed to resume
    database_codes.npz    codes that an asymmetric method learnt for the database
    codes.npz             packed codes and labels of query and database set, and paths where pictures have them
    metrics.json          the scores
    .lock                 held by the one process that trains or evaluates; .lock-holder.json says who that is
    figures/, notebooks/  what the notebooks drew; their executed copies, as .ipynb and .html
"""

import json
import math
import platform
import shlex
import subprocess
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hhlib import data, losses
from hhlib import network as networks
from hhlib.common import Missing, atomic, resolve
from hhlib.metrics.packing import check_packed
from hhlib.reading import read_arrays, read_json, read_table, reading
from hhlib.records import check_codes, check_record, check_scores
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
    names; deep: all at any depth, with those of batches and kept ones. Those with broken records are named and left
    out, so that they spoil no other run."""
    found = [Run(path.parent) for path in sorted(resolve(root).glob(f"**/{made}" if deep else f"*/*/{made}"))]
    also = {"metrics.json": Run.metrics, "history.csv": Run.history}.get(made, lambda run: None)
    return [run for run in found if _unbroken(run, lambda run: (run.record, also(run)))]


def table(where: "str | Path | Iterable[Run]" = "runs") -> pd.DataFrame:
    """One row per evaluated run, at any depth below a folder or of those given, see `row`; broken ones are named."""
    chosen = find(where, deep=True) if isinstance(where, str | Path) else where
    return pd.DataFrame([found for run in chosen if (found := _unbroken(run, row))])


def _unbroken(run: "Run", look: Callable[["Run"], Any]) -> Any:
    """What is seen when one looks at a run; None, and a line that names it, if its files are missing or broken."""
    try:
        return look(run)
    except (LookupError, TypeError, ValueError, OSError) as error:
        print(f"{run.path} is left out: {error}")
        return None


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
    record, scores, pages = run.record, run.metrics(), run.path / "pages.json"
    parameters, where, facts = record["parameters"], record.get("machine", {}), record.get("data", {})
    history = run.history() if (run.path / "history.csv").is_file() else pd.DataFrame(columns=["validation_map"])
    with reading(run.path / "run.json", "the record of a run"):
        found = {name: parameters[name] for name in NAMED} | {"family": losses.method(parameters["method"]).family}
        variant = read_json(pages, "what a batch says of a run")["variant"] if pages.is_file() else ""
        found |= {"variant": variant}  # its name in a batch
        found |= {"settings": settings_of(record), "fingerprint": facts.get("fingerprint")}
        found |= {part: facts.get("sizes", {}).get(part) for part in ("query", "train", "database")}
        found |= {kind: scores["map"][kind] for kind in ("expected", "worst", "best")}
        found |= dict(zip(("low", "high"), scores.get("interval", (math.nan, math.nan)), strict=True))
        found |= {"chance": scores.get("chance", math.nan), "topk": scores.get("topk")}
        found |= {"validation": history["validation_map"].max(), "chosen_on": parameters["recipe"]["choose"]}
        found |= {"database_codes_learnt": scores.get("database_codes_learnt", False)}
        found |= {"minutes": run.seconds() / 60}
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
        draft.write_text(json.dumps(content, indent=1, default=plain), encoding="utf-8")


def surroundings() -> dict:
    """What else a repeat would need: package versions, git commit, machine; None for what cannot be found out."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = dict(system=platform.platform(), cpu=_cpu(), cpu_threads=torch.get_num_threads(), gpu=gpu)
    packages = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "packages": packages, "git_commit": _commit(), "machine": machine}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # conda may know a package by another name
        return None


def _commit() -> str | None:
    """The commit of the repository that keeps this file; None without git, and in a repository of something else."""
    here = Path(__file__)
    for command in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
        try:
            git = subprocess.run(["git", *command], capture_output=True, text=True, cwd=here.parent)
        except OSError:
            return None
        if git.returncode:
            return None
    return git.stdout.strip() or None


def _cpu() -> str:
    """The processor's name, where the system says it."""
    file = Path("/proc/cpuinfo")
    told = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    names = (x.partition(": ")[2] for x in told.splitlines() if x.startswith("model name"))
    return next(names, platform.processor())


class Run:
    """A run folder. Methods that read raise FileNotFoundError, which says what makes the missing file, or ValueError
    for one that is damaged; both name it."""

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
        path = self.need("run.json", "training")
        record = read_json(path, "the record of a run")
        with reading(path, "the record of a run"):
            check_record(record)
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
        numbers = ("epoch", "loss", "validation_map")
        return read_table(self.need("history.csv", "training"), "the history of a training", numbers)

    def seconds(self) -> float:
        """How long the training took; NaN if that was not kept."""
        path = self.path / "timing.csv"
        return read_table(path, "the times of epochs", ["seconds"])["seconds"].sum() if path.is_file() else math.nan

    def metrics(self) -> dict:
        """The scores."""
        path = self.need("metrics.json", "evaluation")
        scores = read_json(path, "the scores of a run")
        with reading(path, "the scores of a run"):
            check_scores(scores)
        return scores

    def model(self) -> networks.Network:
        """The trained network, on the CPU, in evaluation mode."""
        record, weights = self.record, self.need("model.safetensors", "training")
        with reading(self.path / "run.json", "the record of a network"):
            net = networks.create(**record["model"])
        networks.load_weights(net, weights)
        return net.eval()

    def codes(self) -> dict[str, np.ndarray]:
        """Packed codes and labels: query_codes, query_labels, database_codes, database_labels, bits; query_paths
        and database_paths, text, where pictures have paths."""
        path = self.need("codes.npz", "evaluation")
        found = read_arrays(path, "the codes of a run")
        with reading(path, "the codes of a run"):
            check_codes(found)
        return found

    def database_codes(self) -> np.ndarray | None:
        """Packed codes (n, bytes) that an asymmetric method learnt for the database; None for other methods."""
        path = self.path / "database_codes.npz"
        if not path.is_file():
            return None
        codes = read_arrays(path, "the codes of a database")["codes"]
        with reading(path, "the codes of a database"):
            return check_packed("codes", codes, self.parameters["bits"])

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
