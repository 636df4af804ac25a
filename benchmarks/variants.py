"""What each variant of `tools/variants.py` costs to train, against the first of its table.

    python benchmarks/variants.py [TABLE ...] [-p data_dir data] [--rounds 5]

A few steps of every variant of a table are timed in turn, at full size and, where its first epochs have half-size
images, at that size too; each round's time of the whole training is divided by that of the first variant in the same
round. Encoding and scoring are left out. The table is kept as results/costs.csv, with median, smallest and largest.
"""

import argparse
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import variants
from compare import write_table

STEPS = 4


def parts_of(job: dict) -> list[tuple]:
    """The trainings that one variant is made of: (trainer, its batches, how many images it sees in all)."""
    ex = variants.experiment_of(job)
    recipe, found = ex.settings.recipe, []
    for epoch, epochs in ((0, recipe.small_epochs), (recipe.small_epochs, recipe.epochs - recipe.small_epochs)):
        if epochs:
            trainer = ex.trainer()
            trainer.set_image_side(epoch)
            trainer.net.train()
            found.append((trainer, list(islice(trainer.batches(0), STEPS)), epochs * len(trainer.part)))
    return found


def seconds(parts: list[tuple]) -> float:
    """Seconds of the whole training, from a few steps."""
    total = 0.0
    for trainer, batches, images in parts:
        start = time.perf_counter()
        for batch in batches:
            trainer.step(batch)
            for copy in trainer.copies():
                copy.update_parameters(trainer.net)
        total += (time.perf_counter() - start) / sum(len(batch[2]) for batch in batches) * images
    return total


def costs_of(name: str, given: argparse.Namespace) -> list[dict]:
    """A row per variant of a table; the first round warms up."""
    jobs = variants.jobs_of(name, given)
    timed = {key: [] for key in jobs}
    parts = {key: parts_of(job) for key, job in jobs.items()}
    for _ in range(given.rounds + 1):
        for key in jobs:
            timed[key].append(seconds(parts[key]))
    rows = []
    for (dataset, variant, _), found in timed.items():
        first = next(key for key in jobs if key[0] == dataset)
        ratios = np.divide(found, timed[first])[1:]
        row = dict(table=name, dataset=dataset, variant=variant, cost=np.median(ratios))
        rows.append(row | dict(low=ratios.min(), high=ratios.max(), seconds=np.median(found[1:])))
    return rows


def main() -> None:
    """Time the tables that are asked for, or all."""
    parser = variants.parameter_parser(__doc__)
    parser.add_argument("tables", nargs="*", default=list(variants.TABLES))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    given.seeds = [0]
    rows = []
    for name in given.tables:
        found = costs_of(name, given)
        print(pd.DataFrame(found).round(2).to_string(index=False))
        rows += found
    table = write_table("costs", pd.DataFrame(rows))
    print(f"{len(table)} rows, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
