"""Make results/reference.csv, which the pages compare their figures with, from what runs left in their folders.

    python tools/reference.py RUN "bf16, 2 threads" [--replace]     # add what a run's pages found, and how it was made

A page leaves its figures in RUN/reference/. results/reference_runs.csv keeps them for each run that was measured, and
says how it differs: in words that begin with float32, with bf16, or with "seed N" for a run with another seed. From it,
each row of results/reference.csv is computed anew:

- value: of the first run of these settings.
- float32: twice the largest distance of a run in float32 from the value; bf16: of a run in either precision.
- gpu: not measured on a GPU. The largest distance of a run with another seed, if that is larger than bf16.

All are rounded up to one digit. Where no CPU gave another value, the tolerance is 0, on a GPU, too. Where only one run
was measured, there is none, except on the pages that ask no network. What stands in the files is not changed without
--replace: old and new are printed, and nothing is written.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from hhlib.common import atomic, command

RESULTS = Path(__file__).resolve().parent.parent / "results"
WHAT = ["settings", "page", "figure"]  #: one figure
PRECISIONS = ("float32", "bf16")
NO_NETWORK = (0, 1, 12, 13)  #: pages


def left(run: Path, how: str) -> pd.DataFrame:
    """What the pages of a run left, with the words that say how it differs.

    Raises:
        ValueError: if the words do not begin as they must.
        FileNotFoundError: if no page left anything.
    """
    seed = re.match(r"seed (\d+)", how)
    if not (seed or how.startswith(PRECISIONS)):
        raise ValueError(f"the words are {how!r}, but they must begin with float32, with bf16, or with seed N.")
    files = sorted((run / "reference").glob("*.csv"))
    if not files:
        raise FileNotFoundError(f"{run / 'reference'} holds no figures: run the pages first.")
    found = pd.concat([pd.read_csv(file).assign(page=int(file.stem)) for file in files])
    if seed:  # beside the run of seed 0
        found["settings"] = found["settings"].str.replace(f" seed={seed[1]}( |$)", r" seed=0\1", regex=True)
    return found.assign(how=how, value=found["yours"])[[*WHAT, "how", "value"]]


def up(value: float) -> float:
    """Rounded up to one digit: 0.0123 -> 0.02."""
    if not value > 0:
        return 0.0
    digit = 10.0 ** np.floor(np.log10(value))
    return float(f"{np.ceil(round(value / digit, 6)) * digit:.0e}")


def reference(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each figure, with its value and its tolerances, from what runs gave."""
    return pd.DataFrame([dict(zip(WHAT, key, strict=True)) | row(rows) for key, rows in runs.groupby(WHAT, sort=False)])


def row(rows: pd.DataFrame) -> dict[str, float]:
    """Value and tolerances of one figure; its rows are in the order in which the runs were measured."""
    value = rows["value"].iloc[0]
    off = (rows["value"] - value).abs().where(lambda far: far > 1e-6 * abs(value), 0.0)  # seven digits are kept
    kind = rows["how"].str.split(r"[ ,]").str[0]
    if kind.isin(PRECISIONS).sum() < 2 and rows["page"].iloc[0] not in NO_NETWORK:
        return {"value": value} | dict.fromkeys([*PRECISIONS, "gpu"], np.nan)
    of = {name: off[kind == name].max() for name in (*PRECISIONS, "seed")}  # NaN without such a run
    float32, bf16 = up(2 * of["float32"]), up(2 * np.nanmax([of["float32"], of["bf16"]]))
    gpu = max(bf16, up(of["seed"])) if bf16 else 0.0
    return {"value": value, "float32": float32 if of["float32"] == of["float32"] else bf16, "bf16": bf16, "gpu": gpu}


def changes(old: pd.DataFrame, new: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The rows of `old` that have other numbers in `new`: both, beside each other."""
    both = old.merge(new, on=keys, suffixes=(" old", " new"))
    numbers = [name for name in old.columns if name not in keys]
    before, after = (both[[f"{name} {when}" for name in numbers]].astype(float) for when in ("old", "new"))
    differ = ~np.isclose(before, after, rtol=1e-6, atol=0, equal_nan=True).all(axis=1)
    return both.loc[differ, [*keys, *(f"{name} {when}" for name in numbers for when in ("old", "new"))]]


def read(name: str, columns: list[str]) -> pd.DataFrame:
    """A table in results/, without rows where there is none yet."""
    file = RESULTS / f"{name}.csv"
    return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=columns)


def add(run: Path, how: str, replace: bool) -> bool:
    """Add a run -> whether the files were written; if not, what they would have changed was printed."""
    old, new = read("reference_runs", [*WHAT, "how", "value"]), left(run, how)
    known, given = (rows.set_index([*WHAT, "how"])["value"] for rows in (old, new))
    known.update(given)
    runs = pd.concat([known, given[~given.index.isin(known.index)]]).astype(float).reset_index()
    table, stands = reference(runs), read("reference", [*WHAT, "value", *PRECISIONS, "gpu"])
    changed = changes(stands, table, WHAT)
    if len(changed):
        print(changed.drop(columns="settings").to_string(index=False))
        if not replace:
            print("Nothing was written: the rows above would change, which --replace allows.")
            return False
    for name, rows in (("reference_runs", runs), ("reference", table)):
        with atomic(RESULTS / f"{name}.csv") as draft:
            rows.to_csv(draft, index=False, float_format="%.7g")
    print(f"{len(new)} figures of {run}, {how}; results/reference.csv has {len(table)} rows.")
    return True


@command
def main() -> int:
    """Add what the command line names; 1 if nothing was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run whose pages were executed")
    parser.add_argument("how", help="how the run differs, such as 'float32, 1 thread, AVX2'")
    parser.add_argument("--replace", action="store_true", help="change rows that stand, too")
    given = parser.parse_args()
    return 0 if add(given.run, given.how, given.replace) else 1


if __name__ == "__main__":
    sys.exit(main())
