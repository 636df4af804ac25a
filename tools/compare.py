"""Compare all methods on the vectors of one frozen backbone: four tables, with one budget for every method.

    python tools/compare.py -p data_dir data [--datasets cifar10 clothes-validation] [--bits 16 32 64] [--seeds 0 1 2]

1. Tuning: five trainings per method choose its learning rate, then its own hyper-parameter, at 32 bits, on a fifth of
   the training images that is held out. Queries and database are not looked at.
2. results/fair.csv: every method with what was chosen, for all lengths and seeds.
3. results/unseen.csv: the same methods, trained without some classes, search for pictures of those.
4. results/hashing.csv: the codes of 2. beside floats, codes without labels, and a classifier.

What is on disk is not repeated: a comparison that was stopped resumes. `-p` takes settings, as everywhere.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ranking import hashing_rows, without_training
from run_notebooks import parameter_parser
from tqdm import tqdm

import hhlib as hh
from hhlib.common import atomic, command, resolve

FACTORS = (1 / 3, 1.0, 3.0)  #: by which a value is multiplied while tuning
HELD_OUT = 0.2  #: share of the training images that tuning scores
UNSEEN = {"cifar10": 2}  #: classes that training does not see, in `unseen`; 3 for other data sets
#: Where a hyper-parameter that depends on the number of bits starts.
STARTS = {"hybridhash": lambda bits: 10 / bits, "hashnet": lambda bits: 10 / bits, "admh_style": lambda bits: bits / 4}


def settings_of(job: dict) -> hh.settings.Settings:
    """The settings of a job: those of the recipe, with its two factors."""
    where = {name: job[name] for name in hh.runs.NAMED}
    start = hh.settings.read(**where).recipe
    knob = hh.losses.method(job["method"]).knob
    usual = STARTS.get(job["method"], lambda _: start.loss.get(knob, hh.losses.defaults(job["method"])[knob]))(
        job["bits"]
    )
    value = usual * job["knob"]
    changes = {"learning_rate": start.learning_rate * job["rate"]}
    if job["knob"] != 1:
        changes[f"loss.{knob}"] = max(1, round(value)) if isinstance(usual, int) else value
    folder = Path(job["runs_dir"]) / job["table"]
    if job["table"] == "tuning":
        folder = folder / f"rate{job['rate']:.2g}-knob{job['knob']:.2g}"
    return hh.settings.read(hh.settings.words(job["settings"]), **where | changes, runs_dir=str(folder))


@cache
def vectors(dataset: str, network: str, seed: int, settings: tuple) -> hh.data.Split:
    """A data set's vectors, as its protocol splits them."""
    given = dict(dataset=dataset, network=network, seed=seed)
    return hh.open(hh.settings.words(settings), **given).inputs


def inputs_of(job: dict) -> hh.data.Split:
    """The vectors that a job is about."""
    return vectors(job["dataset"], job["network"], job["seed"], tuple(map(tuple, job["settings"])))


def split_of(job: dict) -> tuple[hh.data.Split, hh.data.Part, hh.data.Part]:
    """What a job trains on, and the parts that then ask and are searched."""
    split = inputs_of(job)
    if job["table"] == "tuning":
        rest, held = hh.data.hold_out(split.train, HELD_OUT, job["seed"])
        return replace(split, query=held, train=rest, database=rest), held, held
    if job["table"] == "unseen":
        hidden = torch.zeros(len(split.classes), dtype=torch.bool)
        hidden[unseen_classes(split, job)] = True
        some = {name: (part.labels.bool() & hidden).any(dim=1) for name, part in split.parts().items()}
        rows = {name: np.flatnonzero(shown.numpy()) for name, shown in some.items()}
        query, database = split.query.subset(rows["query"]), split.database.subset(rows["database"])
        known = split.train.subset(np.flatnonzero(~some["train"].numpy()))
        return replace(split, query=query, train=known, database=known), query, database
    return split, split.query, split.database


def unseen_classes(split: hh.data.Split, job: dict) -> np.ndarray:
    """Which classes are left out, drawn by the seed."""
    count = UNSEEN.get(job["dataset"], 3)
    return np.sort(np.random.default_rng([job["seed"], 3]).permutation(len(split.classes))[:count])


def finish(job: dict) -> dict:
    """Train and score what is not on disk yet -> a row."""
    torch.set_num_threads(1)
    settings = settings_of(job)
    run = hh.runs.Run(hh.runs.folder(settings))
    file = run.path / "row.json"
    if file.is_file() and (row := json.loads(file.read_text(encoding="utf-8")))["job"] == job:
        return row
    split, query, database = split_of(job)
    if job["table"] == "tuning":
        settings = replace(settings, recipe=replace(settings.recipe, validation=0.0))
    hh.training.fit(split, run, settings, ())
    encode = partial(hh.retrieval.encode, run.model(), mean=[], std=[])
    codes = hh.retrieval.pack(encode(query))
    if job["table"] == "tuning":
        score = {"expected": hh.metrics.leave_one_out_map(codes, query.labels.numpy(), bits=settings.bits)}
        return keep(run, job, settings, score)
    learnt = run.database_codes() if job["table"] == "fair" else None
    others = hh.retrieval.pack(encode(database)) if learnt is None else learnt
    labels = query.labels.numpy(), database.labels.numpy()
    scores = hh.metrics.evaluate(codes, labels[0], others, labels[1], bits=settings.bits, database_order=False)
    with atomic(run.path / "ap.npy") as draft:
        np.save(draft, scores["ap"]["expected"])
    row = {kind: scores["map"][kind] for kind in ("expected", "worst", "best")}
    row |= dict(zip(("low", "high"), hh.metrics.interval(scores["ap"]["expected"]), strict=True))
    row |= {"chance": hh.metrics.chance(*labels), "distinct_codes": len(np.unique(others, axis=0)) / len(others)}
    if job["table"] == "unseen":
        row |= {"unseen": ", ".join(split.classes[c] for c in unseen_classes(split, job))}
    return keep(run, job, settings, row)


def without_labels_unseen(job: dict) -> list[dict]:
    """How well classes that nobody trained on are found without training: rows for the table."""
    split, query, database = split_of(job)
    named = {name: job[name] for name in ("dataset", "network", "bits", "seed")}
    return [named | row for row in without_training(replace(split, query=query, database=database), job["bits"])]


def keep(run: hh.runs.Run, job: dict, settings: hh.settings.Settings, scores: dict) -> dict:
    """Write the row of a finished run; what resumes it is no longer needed, and hundreds of them fill a disk."""
    seconds = pd.read_csv(run.path / "timing.csv")["seconds"].sum()
    shown = settings.changes().items()
    told = hh.settings.words((name, value) for name, value in shown if name not in ("data_dir", "runs_dir"))
    row = scores | {"seconds": seconds, "git_commit": run.record["git_commit"], "run": told, "job": job}
    hh.runs.write_json(run.path / "row.json", row)
    for state in run.path.glob("training_state*"):
        state.unlink()
    return row


def needed(task: dict) -> list[dict]:
    """The rows of `hashing` for one data set and length."""
    torch.set_num_threads(1)
    rows = hashing_rows(inputs_of(task), task["bits"], {name: Path(folder) for name, folder in task["runs"].items()})
    return [{"dataset": task["dataset"]} | row for row in rows]


def everything(jobs: list[dict], what: str, workers: int, work: Callable[[dict], Any] = finish) -> list:
    """What `work` makes of each job, in their order; several at a time, the slow asymmetric methods first."""
    slow = {m for m in hh.losses.names() if hh.losses.method(m).family == "asymmetric"}
    done: dict[int, Any] = {}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        first = sorted(range(len(jobs)), key=lambda i: jobs[i].get("method") not in slow)
        waiting = {pool.submit(work, jobs[i]): i for i in first}
        for future in tqdm(as_completed(waiting), total=len(jobs), desc=what, unit="run"):
            done[waiting[future]] = future.result()
    return [done[i] for i in range(len(jobs))]


def tune(base: dict, datasets: list[str], methods: list[str], workers: int) -> dict[tuple[str, str], dict]:
    """The best factors of every method on every data set: five trainings each, first the rate, then the knob."""
    best = {pair: dict(rate=1.0, knob=1.0) for pair in product(datasets, methods)}
    kept = []
    for name in ("rate", "knob"):
        tries = [(pair, chosen | {name: factor}) for pair, chosen in best.items() for factor in FACTORS]
        jobs = [base | dict(table="tuning", dataset=d, method=m, bits=32, seed=0) | tried for (d, m), tried in tries]
        rows = everything(jobs, f"tuning {name}", workers)
        kept += rows
        for pair in best:
            scored = [
                (row["expected"], tried) for row, (other, tried) in zip(rows, tries, strict=True) if other == pair
            ]
            best[pair] = max(scored, key=lambda each: each[0])[1]
    write("tuning", kept)
    return best


def write(name: str, rows: list[dict]) -> pd.DataFrame:
    """Keep a table as results/<name>.csv."""
    plain = [{k: job[k] for k in hh.runs.NAMED} | row
             for row in rows for job in [row["job"]]]  # fmt: skip
    table = pd.DataFrame(plain).drop(columns="job")
    return write_table(name, table.drop_duplicates(["dataset", "method", "bits", "seed", "run"]))


def write_table(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The same for a table without jobs."""
    with atomic(resolve("results") / f"{name}.csv") as draft:
        table.round(4).to_csv(draft, index=False)
    return table


def neighbours(fair: list[dict], rows: list[dict], workers: int) -> pd.DataFrame:
    """Mean and spread over seeds, ranked; and whether a method is better than the next below, paired by query."""
    groups: dict[tuple, list[dict]] = {}
    for job, row in zip(fair, rows, strict=True):
        place = job["dataset"], job["bits"], group_of(job["method"])
        groups.setdefault(place, []).append(job | {"expected": row["expected"]})
    tasks = [
        dict(zip(("dataset", "bits", "group"), place, strict=True)) | {"jobs": jobs} for place, jobs in groups.items()
    ]
    return pd.DataFrame(sum(everything(tasks, "neighbours", workers, ranked), []))


def ranked(task: dict) -> list[dict]:
    """The rows of one data set, length and group, best method first."""
    table = pd.DataFrame(task.pop("jobs"))
    mean = table.groupby("method")["expected"].agg(["mean", "std"]).sort_values("mean", ascending=False)
    ap = {m: np.concatenate([ap_of(job) for job in table[table["method"] == m].to_dict("records")]) for m in mean.index}
    found = []
    for place, (method, (average, spread)) in enumerate(mean.iterrows()):
        row = task | dict(place=place + 1, method=method, mean=average, std=spread)
        if place + 1 < len(mean):
            following = mean.index[place + 1]
            row |= {"next": following, "p_value": hh.metrics.compare(ap[method], ap[following])["p_value"]}
        found.append(row)
    return found


def ap_of(job: dict) -> np.ndarray:
    """The average precision of each query of a finished run."""
    return np.load(hh.runs.folder(settings_of(job)) / "ap.npy")


def group_of(method: str) -> str:
    """Which methods may be ranked together."""
    if method.endswith("_style"):
        return "reconstruction"
    return "asymmetric" if hh.losses.method(method).family == "asymmetric" else "compared"


def in_need_of_hashing(base: dict, fair: list[dict], given: argparse.Namespace) -> pd.DataFrame:
    """The table that asks whether hashing is needed, with the runs of the first seed."""
    tasks = []
    for dataset, bits in product(given.datasets, (None, *given.bits)):
        like = dict(dataset=dataset, bits=bits, seed=given.seeds[0])
        runs = {job["method"]: str(hh.runs.folder(settings_of(job))) for job in fair if like.items() <= job.items()}
        tasks.append(base | like | dict(runs=runs))
    return pd.DataFrame(sum(everything(tasks, "do you need hashing", given.workers, needed), []))


def tables(base: dict, given: argparse.Namespace) -> None:
    """Make all tables, each from the one before."""
    for dataset, seed in product(given.datasets, given.seeds):  # before several processes ask for them
        inputs_of(base | dict(dataset=dataset, seed=seed))
    best = tune(base, given.datasets, given.methods, given.workers)

    def jobs(table: str, lengths: list[int]) -> list[dict]:
        each = product(given.datasets, given.methods, lengths, given.seeds)
        return [base | dict(table=table, dataset=d, method=m, bits=k, seed=s) | best[d, m] for d, m, k, s in each]

    fair = jobs("fair", given.bits)
    rows = everything(fair, "table", given.workers)
    write("fair", rows)
    write_table("fair_neighbours", neighbours(fair, rows, given.workers))
    unseen = jobs("unseen", [max(given.bits)])
    table = write("unseen", everything(unseen, "unseen classes", given.workers))
    others = [job for job in unseen if job["method"] == given.methods[0]]
    rows = [baseline for job in others for baseline in without_labels_unseen(job)]
    write_table("unseen", pd.concat([table, pd.DataFrame(rows)]))
    write_table("hashing", in_need_of_hashing(base, fair, given))


@command
def main() -> int:
    """All tables; the exit code is 2 for a request that is wrong."""
    parser = parameter_parser(__doc__)
    parser.add_argument("--datasets", nargs="+", default=["cifar10", "clothes-validation"])
    parser.add_argument("--methods", nargs="+", default=hh.losses.names(nested=False))
    parser.add_argument("--bits", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--network", default="lite0", help="the frozen backbone")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    given = parser.parse_args()
    start = time.perf_counter()
    runs_dir = dict(given.parameter).get("runs_dir", "runs")
    pairs = [[name, value] for name, value in given.parameter if name != "runs_dir"]  # lists, as JSON keeps them
    tables(dict(network=given.network, rate=1.0, knob=1.0, settings=pairs, runs_dir=f"{runs_dir}/compare"), given)
    print(f"done in {(time.perf_counter() - start) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
