"""Collect what `tools/export.py network` found about exported networks into results/exports.csv.

    python tools/export.py network results/cifar10-2-64bits runs/exports/cifar10-2-64bits
    python benchmarks/exports.py runs/exports/*

Each folder's `check.json` gives a row for each form; the folder's name is that of the run.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).resolve().parent.parent / "results"
FORM = {"form": "form", "equal_bits": "equal_bits", "differing_above": "differing_above_1e-4", "map": "map"}
FORM |= {"seconds_ratio": "seconds_ratio", "bytes": "bytes"}  #: field of a form -> column


def rows(folder: Path) -> list[dict]:
    """The rows of an exported network."""
    check = json.loads((folder / "check.json").read_text(encoding="utf-8"))
    run = {"run": folder.name, "images": check["images"], "side": check["side"], "bits": check["bits"]}
    where = check["packages"] | {"cpu": check["machine"]["cpu"], "threads": check["machine"]["cpu_threads"]}
    where |= {"git_commit": check["git_commit"]}
    return [run | {column: form[field] for field, column in FORM.items()} | where for form in check["forms"]]


def main() -> None:
    """Write the table of the folders on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    table = pd.DataFrame([row for folder in parser.parse_args().folders for row in rows(folder)])
    table.to_csv(RESULTS / "exports.csv", index=False, float_format="%.6g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
