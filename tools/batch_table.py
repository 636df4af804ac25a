"""One table of many runs: a row per run as CSV; means over seeds as Markdown and LaTeX; a figure.

    python tools/batch_table.py TARGET RUN_FOLDER ...        writes TARGET.csv, .md, .tex and .png

Folders without scores are left out; broken ones too, and those are named.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import pandas as pd

import hhlib as hh
from hhlib.common import atomic, command

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


def figure(table: pd.DataFrame) -> plt.Figure:
    """mAP by bits, a panel per data set, a line per method (and network, if there are several); bars span the seeds."""
    hh.plots.theme()
    several = table["network"].nunique() > 1
    lines = table.assign(line=table["method"] + (", " + table["network"] if several else ""))
    sets = list(lines.groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        1, len(sets), figsize=(min(8.4, 1.6 + 3.4 * len(sets)), 3.4), sharey=True, squeeze=False
    )
    for ax, (name, runs) in zip(axes[0], sets, strict=True):
        for line, scores in runs.groupby("line", sort=False):
            over = scores.groupby("bits")["expected"].agg(["mean", "min", "max"])
            reach = [(over["mean"] - over["min"]).clip(lower=0), (over["max"] - over["mean"]).clip(lower=0)]
            ax.errorbar(over.index, over["mean"], reach, marker="o", capsize=3, label=line)
        ax.axhline(runs["chance"].mean(), color="0.6", linestyle=":", label="chance")
        ax.set(title=name, xticks=sorted(runs["bits"].unique()), xlabel="bits", ylim=(0, 1.02))
    axes[0, 0].set_ylabel("expected mAP")
    axes[0, -1].legend(fontsize=8)
    return figure


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
            draft.write_text(text, encoding="utf-8")
    with atomic(target.with_suffix(".png")) as draft:
        figure(table).savefig(draft, dpi=150, bbox_inches="tight")
    return table


@command
def main() -> int:
    """Write the table, if any run has scores."""
    target, *folders = sys.argv[1:]
    if not any((Path(folder) / "metrics.json").is_file() for folder in folders):
        print("no run has scores yet, so there is no table.")
        return 0
    table = write(target, folders)
    print(f"{len(table)} runs in {target}.csv; means over seeds in {target}.md and .tex, drawn in {target}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
