"""Whether the figures of a page agree with those that the kit keeps for it, in results/reference.csv.

A row has settings, page and figure, the value, and how far off another machine may be: a CPU in float32 or bf16, or a
GPU. `tools/reference.py` writes it; results/README.md says how tolerances were measured.
"""

from html import escape

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from hhlib import runs
from hhlib.common import atomic
from hhlib.experiment import Experiment
from hhlib.settings import words


def agree(ex: Experiment, page: int, figures: dict, of: Experiment | None = None) -> Styler:
    """Compare a page's figures with the kit's, and keep both in the run's reference/<page>.csv.

    figures are numbers by name; a dict of numbers is opened, so {"mAP": {"best": 1.0}} is "mAP, best". `of` is whose
    they are, where the page looks at another run, such as `Experiment.photographs`.
    """
    settings, how = _named(of or ex, ex.settings.seed), _computed(of or ex)
    known = runs.kept_table("reference").query("page == @page")
    kept = known[known["settings"] == settings].set_index("figure")
    table = pd.json_normalize(figures, sep=", ").iloc[0].map(float).rename("yours").rename_axis("figure").to_frame()
    table[["reference", "tolerance"]] = kept[["value", how]].reindex(table.index)
    table["agrees"] = _verdicts(table)
    with atomic(ex.run.path / "reference" / f"{page:02d}.csv") as draft:
        table.assign(settings=settings, how=how).to_csv(draft, float_format="%.7g")
    said = f"{(table['agrees'] == 'yes').sum()} of {len(table)} figures agree with the kit's; tolerances are for {how}."
    if kept.empty:
        said = f"No reference for {settings}; there are values for: {'; '.join(known['settings'].unique())}."
    shown = table.rename_axis(None).style.format(_plain, ["yours", "reference", "tolerance"])
    return shown.format_index(escape="html").set_caption(escape(said))  # a data set may have markup in its name


def _named(ex: Experiment, seed: int) -> str:
    """What decides a page's figures: the settings that differ from the usual ones, but for where things are."""
    where = vars(ex.settings).keys() - {"image_size", "lists", "topk"}
    changed = [(name, value) for name, value in ex.settings.changes().items() if name not in where]
    return words([*(ex.settings.named() | {"seed": seed}).items(), *changed])


def _computed(ex: Experiment) -> str:
    """The column of tolerances for the machine that trained the network: float32, bf16 or gpu."""
    machine = ex.run.record.get("machine", {}) if ex.has("run.json") else {}
    return "gpu" if ex.device != "cpu" or machine.get("gpu") else ex.precision


def _verdicts(table: pd.DataFrame) -> np.ndarray:
    """Of each figure, in words, whether it agrees: counts to the digit, other numbers in five digits at least."""
    off, size = (table["yours"] - table["reference"]).abs(), table["reference"].abs()
    alike = off <= table["tolerance"].fillna(0) + 1e-5 * size * (size % 1 > 0)
    cases = [size.isna(), alike, table["tolerance"].isna()]
    return np.select(cases, ["no reference", "yes", "tolerance not measured"], "no")


def _plain(x) -> str:
    """A number to read: whole ones as they are, others with four digits."""
    return "" if pd.isna(x) else f"{x:,.0f}" if x == round(x) else f"{x:,.4g}"
