"""Whether pictures can be opened, found out before any work starts, and once for each picture."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from hhlib.common import atomic
from hhlib.data.files import DECODER, Unusable, fact_of, read_picture, threads

BLOCK = 512  # pictures between two moves of the bar


def unusable(root: Path, paths: Sequence[str], verdicts: Path) -> dict[str, list[str]]:
    """Open every picture at a small scale -> those that cannot be used, by their reason, as `Scan.trouble` has them.

    `verdicts` is a file that keeps which pictures were fine, by path, size and date: they are not opened again.
    """
    facts = np.array([_fact(root, path) for path in paths], dtype=np.uint64)
    fine = np.empty(0, dtype=np.uint64)
    with suppress(Exception):  # none yet, or damaged: all are opened
        kept = np.load(verdicts, mmap_mode="r", allow_pickle=False)  # mapped: a damaged head takes no memory
        fine = kept if kept.dtype == np.uint64 else fine
    good = np.isin(facts, fine)  # (n,) bool
    todo, wrong = np.flatnonzero(~good), {}
    try:
        with tqdm(total=len(todo), desc="checking", unit="picture", delay=1) as bar:
            for rows in np.split(todo, range(BLOCK, len(todo), BLOCK)):
                found = threads(os.getpid()).map(lambda row: _reason(root / paths[row]), rows)
                for row, reason in zip(rows, found, strict=True):
                    good[row] = not reason
                    if reason:
                        wrong.setdefault(reason, []).append(paths[row])
                bar.update(len(rows))
    finally:  # even after Ctrl-C
        if good[todo].any():
            with suppress(OSError), atomic(verdicts) as draft, draft.open("wb") as file:  # read-only: opened next time
                np.save(file, facts[good])
    return wrong


def _fact(root: Path, path: str) -> int:
    """A number that changes with a picture's path, size or date, and with the decoder; 0 where there is no file."""
    try:
        return fact_of(root / path, DECODER, path)
    except OSError:
        return 0


def _reason(path: Path) -> str:
    """Why a picture cannot be used, "" if it can."""
    try:
        read_picture(path, 8)
    except Unusable as error:
        return error.reason
    return ""
