"""What a run was and gave, as one row of a table."""

import math

import pandas as pd

import hhlib as hh


def row(run: hh.runs.Run) -> dict:
    """A run as plain values: what names it, split, settings, scores, versions, machine. What older runs lack is empty.

    Raises FileNotFoundError without run.json or metrics.json, KeyError or ValueError if they are broken.
    """
    record, scores = run.record, run.metrics()
    named = {name: record["parameters"][name] for name in ("dataset", "method", "network", "bits", "seed")}
    data, where = record["data"], record.get("machine", {})
    found = named | {part: data["sizes"][part] for part in ("query", "train", "database")}
    found |= {"fingerprint": data.get("fingerprint"), "settings": settings_of(record)}
    found |= {"topk": scores.get("topk")} | {kind: scores["map"][kind] for kind in ("expected", "worst", "best")}
    low, high = scores.get("interval", (math.nan, math.nan))
    found |= {"low": low, "high": high, "chance": scores.get("chance", math.nan), "validation": validation(run)}
    found |= {"minutes": minutes(run), "epochs": record["parameters"]["recipe"]["epochs"]}
    found |= {name: record.get("packages", {}).get(name) for name in ("torch", "timm")}
    found |= {"python": record.get("python"), "git_commit": record.get("git_commit")}
    found |= {
        "system": where.get("system"),
        "cpu": where.get("cpu"),
        "threads": where.get("cpu_threads"),
        "gpu": where.get("gpu"),
    }
    return found | {"precision": record["parameters"].get("precision")}


def settings_of(record: dict) -> str:
    """What differs from the settings that such a run starts from, as text: `hh.open(text, dataset=..., bits=...)`."""
    named = {name: record["parameters"][name] for name in ("dataset", "method", "network", "bits", "seed")}
    if named["dataset"] not in hh.data.names():  # a folder of pictures, which may be elsewhere now
        named.pop("dataset")
    size = None
    if hh.network.kind(named["network"]) == "tuned":
        size = record["model"]["img_size"]
    settings = hh.settings.read(**named, image_size=size, recipe=hh.settings.Recipe(**record["parameters"]["recipe"]))
    return hh.settings.words((name, value) for name, value in settings.changes().items() if name not in named)


def validation(run: hh.runs.Run) -> float:
    """The best score of the held-out training images; NaN without any."""
    history = run.history() if (run.path / "history.csv").is_file() else pd.DataFrame()
    return float(history["validation_map"].max()) if "validation_map" in history else math.nan


def minutes(run: hh.runs.Run) -> float:
    """Of training."""
    timing = run.path / "timing.csv"
    return float(pd.read_csv(timing)["seconds"].sum()) / 60 if timing.is_file() else math.nan
