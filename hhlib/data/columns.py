"""Which column of a list's labels is which class of a data set: a convention that no list file states."""

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment


def column_order(
    listed: np.ndarray, known: np.ndarray, names: list[str], classes: list[str]
) -> tuple[np.ndarray, str, np.ndarray]:
    """Match the columns of published lists with the classes of the data set from which their pictures come.

    The first order in which all labels agree is taken: by names, where the lists name the data set's classes; as they
    stand; alphabetical, as in COCO's published lists; and the one in which columns agree with classes, if it is the
    only one.

    Args:
        listed: what the lists say of n images, (n, C) of 0 and 1.
        known: what the data set says of the same images, (n, C) of 0 and 1.
        names: of the lists' columns, C.
        classes: of the data set, C.

    Returns:
        - the column of each class, (C,): ``listed[:, order]`` has the columns of `known`.
        - how it was found, as the end of a sentence; empty for columns that stand in the data set's order.
        - the images whose labels differ even so, (m,) int64: those of the order in which the fewest differ.
    """
    best: tuple[np.ndarray, str, np.ndarray] | None = None
    for order, how in _orders(listed, known, names, classes):
        differ = np.flatnonzero((listed[:, order] != known).any(axis=1))
        if best is None or len(differ) < len(best[2]):
            best = order, how, differ
        if not len(differ):
            break
    return best  # pyrefly: ignore[bad-return], there is always the order in which they stand


def _orders(listed, known, names, classes) -> Iterator[tuple[np.ndarray, str]]:
    """The orders to try; see `column_order`."""
    if names != classes and set(names) == set(classes):
        yield np.array([names.index(name) for name in classes]), "by their names"
        return
    yield np.arange(len(classes)), ""
    if names == classes:
        return
    yield np.argsort(np.argsort(classes)), "in alphabetical order"
    ours, theirs = known.astype(np.float32), listed.astype(np.float32)
    differ = ours.sum(axis=0)[:, None] + theirs.sum(axis=0) - 2 * ours.T @ theirs  # (C, C) images
    if len(np.unique(known, axis=1).T) == len(classes):  # else two classes could change places
        yield linear_sum_assignment(differ)[1], "in the only order in which the labels agree"
