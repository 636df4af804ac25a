"""Write what follows from the kept runs: results/runs.csv, and the tables of README files and of the lecturer's guide;
and what follows from the list of hostile inputs in tests/hostile: results/hostile.csv and the table of SECURITY.md.

    python tools/tables.py            # writes them, and names what changed
    python tools/tables.py --check    # writes nothing; names what is out of date, and then exits with 1

A table stands between <!-- table: NAME --> and <!-- end -->; `PAGES` says what makes it.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from generated import PAGES as READMES
from generated import PROJECT
from teaching import TEACHING

import hhlib as hh
from hhlib.common import command

RUNS, HOSTILE = "results/runs.csv", "results/hostile.csv"
PAGES = READMES | {"book/teaching.md": TEACHING}
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def runs_table() -> pd.DataFrame:
    """One row per kept run, see `hh.runs.row`, with its folder and the number of different codes in its database."""
    runs = [hh.runs.Run(path.parent) for path in sorted(PROJECT.glob("results/*/run.json"))]
    rows = [{"folder": run.path.name} | hh.runs.row(run) | {"distinct_codes": distinct(run)} for run in runs]
    return pd.DataFrame(rows).astype({"distinct_codes": "Int64"})  # whole numbers, where some are empty


def distinct(run: hh.runs.Run) -> int | None:
    """Different codes in the database of a run; None if its codes are not kept."""
    kept = (run.path / "codes.npz").is_file()
    return len(np.unique(run.codes()["database_codes"], axis=0)) if kept else None


def hostile_table() -> pd.DataFrame:
    """One row per hostile input that the tests try: what it claims to be, what is wrong with it, what comes of it."""
    sys.path.insert(0, str(PROJECT / "tests"))
    from hostile import CASES

    rows = [(case.kind, case.what, "refused" if case.says else "used", case.says or case.gives) for case in CASES]
    return pd.DataFrame(rows, columns=["kind", "input", "outcome", "words"]).sort_values("kind", kind="stable")


def filled(text: str, tables: dict[str, Callable]) -> str:
    """A page with its tables made anew. ValueError for a table that nobody makes, and for one that is not there."""
    found = [name for _, name, _, _ in BLOCK.findall(text)]
    if sorted(found) != sorted(tables):
        raise ValueError(f"the page has the tables {sorted(found)}, but tools/tables.py makes {sorted(tables)} for it.")
    return BLOCK.sub(lambda block: block[1] + tables[block[2]](block[3]) + block[4], text)


def everything() -> Iterable[tuple[str, str]]:
    """The files and what they should hold; runs.csv first, because others are made of it."""
    yield RUNS, runs_table().to_csv(index=False)
    yield HOSTILE, hostile_table().to_csv(index=False)
    for name, tables in PAGES.items():
        yield name, filled((PROJECT / name).read_text(encoding="utf-8"), tables)


def out_of_date(write: bool = False) -> list[str]:
    """The files that differ from what the kept runs and tables say; brought up to date if `write`."""
    found = []
    for name, text in everything():
        path = PROJECT / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            found.append(name)
            if write:
                path.write_text(text, encoding="utf-8")
    return found


@command
def main() -> int:
    """Write, or check, what the command line asks for; 1 if a check finds something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    check = parser.parse_args().check
    found = out_of_date(write=not check)
    for name in found:
        print(f"{name} is out of date; python tools/tables.py mends it." if check else f"{name} is written.")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
