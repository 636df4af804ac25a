"""The field's protocols by name, and how a split is drawn from a seed."""

import numpy as np

from hhlib.common import check_whole
from hhlib.data.splits import Part, Pool, Protocol, Split, check_disjoint

_IN_DATABASE = "The training images stand in the database."

#: name -> rule. digits and shapes are ours; the others are the field's (HashNet, Cao et al., ICCV 2017, and the code
#: bases after it).
PROTOCOLS = {
    "digits": Protocol(
        200, 1_000, "rest", True, "1,797 handwritten digits; training images are not in the database.", 597
    ),
    "shapes": Protocol(
        300, 1_200, "rest", False, "Drawn pictures with one to three labels each; three disjoint parts.", 2_000
    ),
    "cifar10": Protocol(1_000, 5_000, "rest", True, "Training images are not in the database.", 54_000),
    "cifar10-1": Protocol(1_000, 5_000, "rest+train", True, "The 5,000 training images stand in the database.", 59_000),
    "cifar10-2": Protocol(10_000, 50_000, "train", True, "The database is the training set itself.", 50_000),
    "nuswide_21": Protocol(
        2_100, 10_500, "rest+train", True, f"NUS-WIDE, its 21 most frequent concepts. {_IN_DATABASE}", 193_734, 5_000
    ),
    "nuswide_21_m": Protocol(
        2_100,
        10_500,
        "rest+train",
        True,
        f"The same concepts on NUS-WIDE-m, another collection of the pictures. {_IN_DATABASE}",
        None,
        5_000,
    ),
    "nuswide_81_m": Protocol(
        5_000, 10_000, "rest+train", False, f"NUS-WIDE-m, all 81 concepts. {_IN_DATABASE}", 168_692, 5_000
    ),
    "imagenet": Protocol(
        5_000, 13_000, "rest+train", True, f"100 classes; validation images ask. {_IN_DATABASE}", 128_503, 1_000
    ),
    "coco": Protocol(
        5_000, 10_000, "rest+train", False, f"MS-COCO 2014, 80 categories. {_IN_DATABASE}", 117_218, 5_000
    ),
}


def draw(name: str, pool: Pool, protocol: Protocol, seed: int) -> Split:
    """Draw a split from a pool. The same seed gives the same split on every machine; each part keeps the pool's order.

    By class: each class in turn gives its share, from images that no class has taken yet. Where images have several
    labels the rarest class chooses first, because it has the least to choose from.

    Raises:
        ValueError: if the seed is no whole number, the pool is too small, or a query stands in another part.
    """
    rng = np.random.default_rng(check_whole("seed", seed, 0))
    labels = pool.labels.numpy()
    may_ask = np.ones(len(labels), dtype=bool) if pool.held_out is None else pool.held_out.numpy()
    may_teach = np.ones(len(labels), dtype=bool) if pool.held_out is None else ~may_ask
    groups = _groups(labels) if protocol.by_class else [np.arange(len(labels))]
    q, t = protocol.query // len(groups), protocol.train // len(groups)
    query, train, taken = [], [], np.zeros(len(labels), dtype=bool)
    for rows in groups:
        rows = rng.permutation(rows[~taken[rows]])
        asking = rows[may_ask[rows]][:q]
        taken[asking] = True
        teaching = rows[may_teach[rows] & ~taken[rows]][:t]
        taken[teaching] = True
        if len(asking) < q or len(teaching) < t:
            each = " a class, but a class has" if protocol.by_class else ", but there are"
            raise ValueError(f"{name} needs {q} query and {t} training images{each} {len(asking)} and {len(teaching)}.")
        query.append(asking)
        train.append(teaching)
    rest = [np.flatnonzero(~taken & may_teach)]
    database = {"rest": rest, "rest+train": rest + train, "train": train}[protocol.database]
    split = Split(
        name, seed, protocol, *(Part(pool, np.sort(np.concatenate(rows))) for rows in (query, train, database))
    )
    check_disjoint(split)
    return split


def _groups(labels: np.ndarray) -> list[np.ndarray]:
    """Rows of each class, rarest class first where images have several labels: (n, C) -> C arrays."""
    one_label = (labels.sum(axis=1) == 1).all()
    order = range(labels.shape[1]) if one_label else np.argsort(labels.sum(axis=0, dtype=np.int64), kind="stable")
    return [np.flatnonzero(labels[:, column]) for column in order]


def deviations(split: Split, protocol: Protocol) -> list[str]:
    """Where a split's sizes are not those of a protocol: a sentence for each."""
    wanted = {"query": protocol.query, "train": protocol.train, "database": protocol.size}
    return [
        f"{part} has {split.sizes[part]:,} images, but the protocol has {size:,}"
        for part, size in wanted.items()
        if size is not None and split.sizes[part] != size
    ]
