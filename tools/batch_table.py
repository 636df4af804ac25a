"""One table of many runs: a row per run as CSV; means over seeds as Markdown and LaTeX; a figure.

    python tools/batch_table.py TARGET RUN_FOLDER ...        writes TARGET.csv, .md, .tex and .png

Folders without scores are left out; broken ones too, and those are named.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import pandas as pd
import seaborn as sns

import hhlib as hh
from hhlib.common import atomic

SAME = ["dataset", "method", "network", "bits"]  #: runs that differ in nothing else are averaged


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per kind of run: mean and standard deviation over seeds, the mean range of tie orders, chance."""
    told = "variant" if (table["variant"] != "").any() else "settings"
    kinds = [*SAME, told] if table[told].nunique() > 1 else SAME
    scores = table.groupby(kinds, sort=False)
    found = scores["expected"].agg(["mean", "std", "count"])
    for name in ("worst", "best", "chance", "minutes"):
        found[name] = scores[name].mean()
    return found.rename(columns={"mean": "mAP", "std": "± over seeds", "count": "seeds"}).reset_index()


def figure(table: pd.DataFrame):
    """mAP by bits, a panel per data set, a line per method; bars span the seeds."""
    hh.plots.theme()
    names = table.assign(run=table["method"] + (", " + table["network"] if table["network"].nunique() > 1 else ""))
    grid = sns.relplot(
        names, x="bits", y="expected", hue="run", col="dataset", kind="line", marker="o", errorbar=("pi", 100),
        err_style="bars", height=3.2, col_wrap=min(3, names["dataset"].nunique()),
    )  # fmt: skip
    lengths = sorted(names["bits"].unique())
    for name, ax in grid.axes_dict.items():
        chance = names[names["dataset"] == name]["chance"].mean()
        ax.axhline(chance, color="0.6", linestyle=":", label="chance")
        ax.set(title=name, xticks=lengths, ylabel="expected mAP", ylim=(0, 1.02))
    return grid.figure


def write(target: str | Path, folders: Iterable[str | Path]) -> pd.DataFrame:
    """Write all four files."""
    runs = [hh.runs.Run(folder) for folder in folders]
    table, target = hh.runs.table(run for run in runs if (run.path / "metrics.json").is_file()), Path(target)
    short = summary(table)
    rounded = short.round(dict.fromkeys(("mAP", "± over seeds", "worst", "best", "chance"), 3) | {"minutes": 1})
    texts = {".csv": table.to_csv(index=False), ".md": rounded.to_markdown(index=False) + "\n"}
    texts |= {".tex": rounded.rename(columns={"± over seeds": r"$\pm$ over seeds"}).to_latex(index=False, escape=False)}
    for suffix, text in texts.items():
        with atomic(target.with_suffix(suffix)) as draft:
            draft.write_text(text)
    with atomic(target.with_suffix(".png")) as draft:
        figure(table).savefig(draft, dpi=150, bbox_inches="tight")
    return table


def main() -> int:
    """Write the table; 1 if no run has scores yet."""
    target, *folders = sys.argv[1:]
    if not any((Path(folder) / "metrics.json").is_file() for folder in folders):
        print("no run has scores yet, so there is no table.", file=sys.stderr)
        return 1
    table = write(target, folders)
    print(f"{len(table)} runs in {target}.csv; means over seeds in {target}.md and .tex, drawn in {target}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
