"""Change one thing at a time and train again: what each part of the recipe, of the network and of the loss is worth.

    python tools/variants.py TABLE ... [-p data_dir data] [--seeds 0 1 2] [--workers 2]

TABLE is one of those in `variants.toml`, which says what is changed. Each variant is trained for every data set and
seed, scored, and compared with the first variant of its table, query by query. Two tables are kept:
results/TABLE.csv has a row per run, results/TABLE_gains.csv one per variant. What is on disk is not repeated: a
comparison that was stopped resumes, and tables share the runs that have the same settings. `-p` takes settings, as
everywhere, for all variants.
"""

import argparse
import hashlib
import json
import math
import sys
import tomllib
from itertools import product
from pathlib import Path

import control  # noqa: F401, makes the network known to timm
import numpy as np
import pandas as pd
import torch
from compare import everything, keep, write_table
from run_notebooks import parameter_parser

import hhlib as hh
from hhlib.common import atomic, command

TABLES = tomllib.loads((Path(__file__).parent / "variants.toml").read_text(encoding="utf-8"))
SCORES = ("expected", "worst", "best")
SEARCHED = 10_000  #: every n-th database image is searched, n the largest that leaves so many


def experiment_of(job: dict) -> hh.Experiment:
    """The experiment of a job, in a folder that is named by its settings: tables that share a run find it there."""
    folder = Path(job["runs_dir"]) / hashlib.sha256(job["settings"].encode()).hexdigest()[:12]
    return hh.open(job["settings"], seed=job["seed"], runs_dir=str(folder))


def finish(job: dict) -> dict:
    """Train and score what is not on disk yet -> a row."""
    torch.set_num_threads(1)
    ex = experiment_of(job)
    file = ex.run.path / "row.json"
    if file.is_file() and (row := json.loads(file.read_text(encoding="utf-8")))["job"] == job:
        return row
    ex.fit(())
    parts = {"query": ex.split.query, "database": thinned(ex.split.database, SEARCHED)}
    codes = {name: hh.retrieval.pack(ex.encode(part)) for name, part in parts.items()}
    labels = {name: part.labels.numpy() for name, part in parts.items()}
    case = codes["query"], labels["query"], codes["database"], labels["database"]
    scores, history = hh.metrics.evaluate(*case, bits=ex.settings.bits, database_order=False), ex.run.history()
    with atomic(ex.run.path / "ap.npy") as draft:
        np.save(draft, scores["ap"]["expected"])
    row = {"validation": history["validation_map"].max(), "loss": history["loss"].iloc[-1]}
    row |= {kind: scores["map"][kind] for kind in SCORES} | usual(case, ex.settings.bits)
    row |= evenness(ex) | signal(ex)
    row |= {"searched": len(codes["database"]), "distinct_codes": len(np.unique(codes["database"], axis=0))}
    row |= {"on_queries": optimism(history), "other_queries": other_queries(case, ex.settings.bits)}
    return keep(ex.run, job, ex.settings, row)


def thinned(part: hh.data.Part, wanted: int) -> hh.data.Part:
    """Every n-th image of a part, n the largest that leaves at least `wanted`; all of a small part."""
    return part.subset(np.arange(0, len(part), max(1, len(part) // wanted)))


def evenness(ex: hh.Experiment) -> dict:
    """How even the attention among block tokens is: its entropy, as a share of the largest possible, 0 to 1."""
    if hh.network.kind(ex.settings.network) != "hybridhash":
        return {}
    maps = hh.attention.token_attention(ex.net, ex.pictures("query", range(200))[1])
    found = {level: (hh.attention.entropy(w).mean(), math.log2(w.shape[-1])) for level, w in maps.items()}
    return {f"evenness, {level}": float(bits) / most for level, (bits, most) in found.items() if most}


def signal(ex: hh.Experiment) -> dict:
    """What the loss still tells the training images when training ends, from its own last state.

    ``half of the gradient``: share of the images, longest gradients first, that hold half of it; ``saturated``: of the
    outputs beyond 0.95 after squashing; ``stale``: of the bits in the memory bank that the network would now set
    otherwise (the bank also saw shifted and mirrored images).
    """
    state = torch.load(ex.run.path / "training_state.pt", weights_only=True)["loss"]
    part, loss = hh.training.parts(ex.split, ex.settings)[0], hh.losses.create(**ex.run.record["loss"])
    loss.load_state_dict(state)
    z = ex.encode(part).clone().requires_grad_()  # (N, K)
    found = {"stale": float(((state["U"][: len(z)] >= 0) != (z >= 0)).float().mean())} if "U" in state else {}
    (gradient,) = torch.autograd.grad(loss(z, part.labels, torch.arange(len(part))), z)
    so_far = gradient.norm(dim=1).sort(descending=True).values.cumsum(dim=0)  # (N,)
    found["half of the gradient"] = float((so_far < so_far[-1] / 2).float().mean())
    return found | {"saturated": float((loss.squash(z).abs() > 0.95).float().mean())}


def optimism(history: pd.DataFrame) -> float:
    """By how much choosing the epoch on the queries beats an honest choice, on the held-out images, in mAP.

    The best query score of all epochs, minus that of the epoch with the best validation score; NaN without one of them.
    """
    both = history.dropna(subset=["validation_map", "query_map"]) if "query_map" in history else history[:0]
    if not len(both):
        return math.nan
    return float(both["query_map"].max() - both["query_map"][both["validation_map"].idxmax()])


def usual(case: tuple, bits: int) -> dict:
    """What the usual code prints for these codes and labels, and what it would print with the last image."""
    query, query_labels, database, database_labels = case
    signs = (hh.retrieval.unpack(codes, bits) for codes in (query, database))
    given = next(signs), query_labels, next(signs), database_labels
    score = hh.metrics.conventions.deephash_pytorch
    return {"usual": score(*given, topk=-1), "usual_with_last": score(*given, topk=len(database))}


def other_queries(case: tuple, bits: int, draws: int = 10) -> float:
    """Standard deviation of the mAP when other images ask: queries drawn anew from queries and database together."""
    codes, labels = np.concatenate(case[::2]), np.concatenate(case[1::2])
    scores = []
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(codes))
        asks, searched = order[: len(case[0])], order[len(case[0]) :]
        of = codes[asks], labels[asks], codes[searched], labels[searched]
        scores.append(hh.metrics.evaluate(*of, bits=bits, database_order=False)["map"]["expected"])
    return float(np.std(scores, ddof=1))


def jobs_of(name: str, given: argparse.Namespace) -> dict[tuple, dict]:
    """Every training of a table, by (data set, variant, seed)."""
    table, own = TABLES[name], dict(given.parameter)
    folder = f"{own.pop('runs_dir', 'runs')}/variants"
    jobs = {}
    for (dataset, start), (variant, change) in product(table["start"].items(), table["variants"].items()):
        own_change = change if isinstance(change, str) else change.get(dataset)
        if own_change is None:
            continue
        values = dict(hh.settings.reading.split(f"{start} {own_change}")) | own  # the last one counts
        changes = hh.settings.read(hh.settings.words(values.items()), dataset=dataset).changes()
        base = dict(settings=hh.settings.words(sorted(changes.items())), runs_dir=folder)  # one text for one meaning
        jobs |= {(dataset, variant, seed): base | dict(seed=seed) for seed in given.seeds}
    return jobs


def gains(table: pd.DataFrame, ap: dict[tuple, np.ndarray]) -> pd.DataFrame:
    """One row per variant: means over seeds, and the difference from the first variant with the same seed.

    Args:
        table: a row per run.
        ap: of each run, by (data set, variant, seed), the average precision of every query.
    """
    found = []
    for dataset, of_set in table.groupby("dataset", sort=False):
        first = of_set["variant"].iloc[0]
        base = of_set[of_set["variant"] == first].set_index("seed")
        for variant, runs in of_set.groupby("variant", sort=False):
            runs = runs.set_index("seed")
            row = {"dataset": dataset, "variant": variant, "seeds": len(runs)}
            for kind in ("validation", "expected"):
                row |= {kind: runs[kind].mean(), f"{kind}_std": runs[kind].std()}
                row |= {f"{kind}_gain": (runs[kind] - base[kind]).mean()}
            row |= {"distinct_codes": runs["distinct_codes"].mean()}
            both = [np.concatenate([ap[dataset, v, seed] for seed in runs.index]) for v in (variant, first)]
            found.append(row | ({} if variant == first else {"p_value": hh.metrics.compare(*both)["p_value"]}))
    return pd.DataFrame(found)


def make(name: str, jobs: dict[tuple, dict], workers: int) -> None:
    """Both tables of a comparison."""
    rows = everything(list(jobs.values()), name, workers, finish)
    table = pd.DataFrame([
        dict(zip(("dataset", "variant", "seed"), key, strict=True)) | row for key, row in zip(jobs, rows, strict=True)
    ]).drop(columns="job")  # fmt: skip
    ap = {key: np.load(experiment_of(job).run.path / "ap.npy") for key, job in jobs.items()}
    write_table(name, table)
    write_table(f"{name}_gains", gains(table, ap))


@command
def main() -> int:
    """The tables that are asked for; the exit code is 2 for a request that is wrong."""
    parser = parameter_parser(__doc__)
    parser.add_argument("tables", nargs="+", choices=TABLES, metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    given = parser.parse_args()
    wanted = {name: jobs_of(name, given) for name in given.tables}
    for jobs in wanted.values():
        for job in jobs.values():
            experiment_of(job)  # a setting that is wrong is named before anything is trained
    for name, jobs in wanted.items():
        make(name, jobs, given.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
