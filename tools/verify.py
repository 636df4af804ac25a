"""Recompute what was kept: the scores of all kept codes, and the rows of tables that are about the same runs.

    python tools/verify.py                             # seconds; a line a run, exit code 1 if anything differs
    python tools/verify.py --encode -p data_dir data   # minutes; also encodes again, where network and data are at hand

Stored scores must come out to 1e-9, rows of a table to the digits that it has. Codes that are encoded again on another
processor may differ in a few bits, so their score may move by 0.001.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import control  # noqa: F401, makes the network known to timm that some rows are about
import numpy as np
import pandas as pd
from run_notebooks import parameter_parser
from tables import PROJECT, RUNS

import hhlib as hh
from hhlib.common import command

CLOSE = 1e-9
ENCODED = 1e-3
SCORES = ("expected", "worst", "best")


class Check:
    """Counts comparisons, and keeps a sentence about each that fails."""

    def __init__(self):
        self.compared, self.faults = 0, []

    def same(self, what: str, stored, found, within: float = CLOSE) -> None:
        """Compare two numbers, or all that two nests of dicts and lists hold."""
        if isinstance(stored, dict):
            for name, value in stored.items():
                self.same(f"{what}.{name}", value, found[name], within)
        elif isinstance(stored, list):
            for place, (value, other) in enumerate(zip(stored, found, strict=True)):
                self.same(f"{what}[{place}]", value, other, within)
        else:
            self.compared += 1
            numbers = all(isinstance(value, int | float) for value in (stored, found))
            if abs(stored - found) > within if numbers else stored != found:
                self.faults.append(f"{what} is {stored}, but comes out as {found}")


def evaluated(run: hh.runs.Run, every: int = 1) -> dict:
    """The scores of a run's kept codes, of every n-th image of the database, and what is kept beside them."""
    codes, stored = run.codes(), run.metrics()
    query, query_labels = codes["query_codes"], codes["query_labels"]
    database, labels = (codes[f"database_{what}"][::every] for what in ("codes", "labels"))
    how = dict(bits=int(codes["bits"]), topk=stored["topk"], **stored["policy"])
    scores = hh.metrics.evaluate(query, query_labels, database, labels, **how)
    ap = pd.Series(scores.pop("ap")["expected"])
    scores |= dict(chance=hh.metrics.chance(query_labels, labels, topk=stored["topk"]))
    scores |= dict(interval=hh.metrics.interval(ap), distinct_codes=len(np.unique(database, axis=0)))
    scores |= dict(by_class=ap.groupby(query_labels.argmax(axis=1)).mean())
    return json.loads(json.dumps(scores, default=lambda array: array.tolist()))  # plain, as metrics.json is


def check_scores(run: hh.runs.Run, row: pd.Series, check: Check) -> None:
    """metrics.json and the run's row of runs.csv against the codes."""
    stored, found = run.metrics(), evaluated(run)
    check.same("metrics.json", {name: value for name, value in stored.items() if name in found}, found)
    low, high = found["interval"]
    known = {kind: found["map"][kind] for kind in SCORES} | dict(chance=found["chance"], low=low, high=high)
    known |= dict(distinct_codes=found["distinct_codes"])
    check.same(RUNS, row[list(known)].to_dict(), known)
    classes = run.path / "classes.csv"
    if classes.is_file():
        by_name = dict(zip(run.record["data"]["classes"], found["by_class"], strict=True))
        for line in pd.read_csv(classes).itertuples():
            check.same(f"classes.csv, {line[1]}", line.expected, by_name[line[1]], 0.0005 + CLOSE)


def rows_about(settings: hh.settings.Settings, commit: str) -> Iterator[tuple[str, pd.Series]]:
    """Rows of the tables that are about a run: the same settings, made by the same commit."""
    for file in sorted((PROJECT / "results").glob("*.csv")):
        table = pd.read_csv(file)
        if not {"run", "git_commit", "expected"} <= set(table):
            continue
        for _, row in table[table["git_commit"] == commit].fillna({"run": ""}).iterrows():
            if hh.settings.read(row["run"]) == settings:
                yield file.name, row


def check_rows(run: hh.runs.Run, settings: hh.settings.Settings, check: Check) -> int:
    """The rows of tables that are about a run against its codes -> how many there are."""
    rows = list(rows_about(settings, run.record["git_commit"]))
    for name, row in rows:
        database = len(run.codes()["database_codes"])
        found = evaluated(run, every=database // int(row.get("searched", database)))
        known = {kind: found["map"][kind] for kind in SCORES} | dict(distinct_codes=found["distinct_codes"])
        stored = {kind: float(row[kind]) for kind in known if kind in row}
        check.same(name, stored, known, 0.00005 + CLOSE)
    return len(rows)


def check_encoding(ex: hh.Experiment, check: Check) -> str:
    """Encode again what a kept network saw, if its data are at hand -> what came of it."""
    if not ex.has("model.safetensors"):
        return "no network kept"
    try:
        parts = {part: hh.retrieval.pack(ex.encode(part)) for part in ("query", "database")}
    except FileNotFoundError as error:
        return f"not encoded again: {error}"
    stored, bits = ex.run.codes(), ex.settings.bits
    differ = [hh.retrieval.unpack(parts[p], bits) != hh.retrieval.unpack(stored[f"{p}_codes"], bits) for p in parts]
    score = ex.score(parts["query"], parts["database"])["map"]["expected"]
    check.same("expected, encoded again", ex.run.metrics()["map"]["expected"], score, ENCODED)
    return f"encoded again: {sum(d.sum() for d in differ):,} of {sum(d.size for d in differ):,} bits differ"


def settings_of(row: pd.Series) -> hh.settings.Settings:
    """The settings of a row of runs.csv."""
    named = {name: str(row[name]) for name in hh.runs.NAMED}
    return hh.settings.read(row["settings"] if isinstance(row["settings"], str) else "", **named)


def verify(folder: Path, row: pd.Series, data_dir: str | None = None) -> tuple[Check, str]:
    """Check a kept run -> the comparisons, and a line that says what was done."""
    run, check = hh.runs.Run(folder), Check()
    if not (folder / "codes.npz").is_file():
        return check, "no codes kept"
    start = time.perf_counter()
    check_scores(run, row, check)
    settings = settings_of(row)
    rows = check_rows(run, settings, check)
    again = data_dir and check_encoding(hh.Experiment(replace(settings, data_dir=data_dir, live=False), run), check)
    encoded = f"; {again}" if again else ""
    seconds = time.perf_counter() - start
    return check, f"{check.compared} numbers, {rows} rows of tables among them{encoded} ({seconds:.1f} s)"


@command
def main() -> int:
    """Check every kept run; the exit code is 1 if anything differs, 2 for a request that is wrong."""
    parser = parameter_parser(__doc__)
    parser.add_argument("--encode", action="store_true", help="also encode again what the kept networks saw")
    given = parser.parse_args()
    unknown = [name for name, _ in given.parameter if name != "data_dir"]
    if unknown:
        print(f"verify takes the setting data_dir only, not {unknown[0]}.", file=sys.stderr)
        return 2
    data_dir = dict(given.parameter).get("data_dir", "data") if given.encode else None
    checks = []
    for _, row in pd.read_csv(PROJECT / RUNS).iterrows():
        check, line = verify(PROJECT / "results" / row["folder"], row, data_dir)
        checks.append(check)
        print(f"{row['folder']}: {line}", *check.faults, sep="\n  ", flush=True)
    faults, runs = sum(len(check.faults) for check in checks), sum(check.compared > 0 for check in checks)
    print(f"{sum(c.compared for c in checks)} numbers of {runs} of {len(checks)} kept runs compared; {faults} differ.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
