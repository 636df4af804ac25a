"""Whether the figures of a page agree with those that the kit keeps for it, in results/reference.csv.

A row has settings, page and figure, the value, and how far off another machine may be: a CPU in float32 or bf16, or a
GPU. `tools/reference.py` writes it; results/README.md says how tolerances were measured.
"""

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
    of = of or ex
    named = of.settings.named() | {"seed": ex.settings.seed}
    where = vars(of.settings).keys() - {"image_size", "lists", "topk"}  # where things are, and how they are done
    settings = words([*named.items(), *((name, x) for name, x in of.settings.changes().items() if name not in where)])
    machine = of.run.record.get("machine", {}) if of.has("run.json") else {}
    how = "gpu" if of.device != "cpu" or machine.get("gpu") else of.precision  # as it was trained
    known = runs.kept_table("reference").query("page == @page")
    kept = known[known["settings"] == settings].set_index("figure")[["value", how]]
    yours = pd.json_normalize(figures, sep=", ").iloc[0].map(float).rename("yours").rename_axis("figure")
    table = yours.to_frame().join(kept.set_axis(["reference", "tolerance"], axis=1))
    off, size = (table["yours"] - table["reference"]).abs(), table["reference"].abs()
    alike = off <= table["tolerance"].fillna(0) + 1e-5 * size * (size % 1 > 0)  # of what is no count, five digits
    cases = [size.isna(), alike, table["tolerance"].isna()]
    table["agrees"] = np.select(cases, ["no reference", "yes", "tolerance not measured"], "no")
    with atomic(ex.run.path / "reference" / f"{page:02d}.csv") as draft:
        table.assign(settings=settings, how=how).to_csv(draft, float_format="%.7g")
    said = f"{(table['agrees'] == 'yes').sum()} of {len(table)} figures agree with the kit's; tolerances are for {how}."
    if kept.empty:
        said = f"No reference for {settings}; there are values for: {'; '.join(known['settings'].unique())}."
    plain = lambda x: "" if pd.isna(x) else f"{x:,.0f}" if x == round(x) else f"{x:,.4g}"  # noqa: E731
    return table.rename_axis(None).style.format(plain, ["yours", "reference", "tolerance"]).set_caption(said)
