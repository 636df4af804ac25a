"""The field's protocols by name, and how a split is drawn: by a protocol, from own pictures, or with unseen classes."""

import hashlib
import numbers
import unicodedata
from collections.abc import Iterable

import numpy as np

from hhlib.common import check_whole
from hhlib.data.splits import Part, Pool, Protocol, Split, check_disjoint, given_split, hold_out

_IN = "The training images are in the database."
_AGAIN = "rest+train"
_SAME = "The database is the training set itself."

#: name -> rule. digits and shapes are ours; the others are the field's (HashNet, Cao et al., ICCV 2017, and the code
#: bases after it).
PROTOCOLS = {
    "digits": Protocol(200, 1000, "rest", True, "1,797 handwritten digits; three disjoint parts.", 597),
    "shapes": Protocol(300, 1200, "rest", False, "Drawn pictures, one to three labels; three disjoint parts.", 2000),
    "cifar10": Protocol(1000, 5000, "rest", True, "Training images are not in the database.", 54_000),
    "cifar10-1": Protocol(1000, 5000, _AGAIN, True, "The 5,000 training images are in the database.", 59_000),
    "cifar10-2": Protocol(10_000, 50_000, "train", True, "The database is the training set itself.", 50_000),
    "nuswide_21": Protocol(2100, 10_500, _AGAIN, True, f"NUS-WIDE, its 21 commonest concepts. {_IN}", 193_734, 5000),
    "nuswide_21_m": Protocol(2100, 10_500, _AGAIN, True, f"The same concepts on NUS-WIDE-m. {_IN}", None, 5000),
    "nuswide_81_m": Protocol(5000, 10_000, _AGAIN, False, f"NUS-WIDE-m, all 81 concepts. {_IN}", 168_692, 5000),
    "imagenet": Protocol(5000, 13_000, _AGAIN, True, f"100 classes; queries: validation images. {_IN}", 128_503, 1000),
    "clothes": Protocol(372, 3068, "train", False, "Queries: the published test part. " + _SAME, 3068),
    "clothes-validation": Protocol(341, 3068, "train", False, "Queries: the validation part. " + _SAME, 3068),
    "coco": Protocol(5000, 10_000, _AGAIN, False, f"MS-COCO 2014, 80 categories. {_IN}", 117_218, 5000),
}


def draw(name: str, pool: Pool, protocol: Protocol, seed: int) -> Split:
    """Draw a split from a pool. The same seed gives the same split on every machine; each part keeps the pool's order.

    By class: each class in turn gives its share, from images that no class has taken yet. Where images have several
    labels the rarest class chooses first, because it has the fewest to choose from.
    Raises ValueError if the seed is not a whole number, the pool is too small, or a query is in another part.
    """
    rng = np.random.default_rng(check_whole("seed", seed, 0))
    if pool.published:
        return _as_published(name, pool, protocol, seed)
    labels = pool.labels.numpy()
    anyone = np.ones(len(labels), dtype=bool)
    may_ask, may_teach = (anyone, anyone) if pool.held_out is None else (pool.held_out.numpy(), ~pool.held_out.numpy())
    order = range(labels.shape[1])
    if (labels.sum(axis=1) != 1).any():  # several labels
        order = np.argsort(labels.sum(axis=0, dtype=np.int64), kind="stable")
    groups = [np.flatnonzero(labels[:, c]) for c in order] if protocol.by_class else [np.arange(len(labels))]
    q, t = protocol.query // len(groups), protocol.train // len(groups)
    query, train, taken = [], [], np.zeros(len(labels), dtype=bool)
    for rows in groups:
        rows = rng.permutation(rows[~taken[rows]])
        query.append(rows[may_ask[rows]][:q])
        taken[query[-1]] = True
        train.append(rows[may_teach[rows] & ~taken[rows]][:t])
        taken[train[-1]] = True
        found = len(query[-1]), len(train[-1])
        if found != (q, t):
            each = " per class, but a class has" if protocol.by_class else ", but there are"
            raise ValueError(f"{name} needs {q} query and {t} training images{each} {found[0]} and {found[1]}.")
    rest = [np.flatnonzero(~taken & may_teach)]
    database = {"rest": rest, "rest+train": rest + train, "train": train}[protocol.database]
    parts = (Part(pool, np.sort(np.concatenate(rows))) for rows in (query, train, database))
    split = Split(name, seed, protocol, *parts)
    check_disjoint(split)
    return split


def _as_published(name: str, pool: Pool, protocol: Protocol, seed: int) -> Split:
    """Seed 0: the published parts. Other seeds draw as many from all pictures, each class its share."""
    if seed == 0:
        query, train = (Part(pool, pool.published[part]) for part in ("query", "train"))
    else:
        everything = Part(pool, np.arange(len(pool.labels)))
        others, query = hold_out(everything, protocol.query / len(everything), seed)
        train = others if protocol.train >= len(others) else hold_out(others, protocol.train / len(others), seed)[1]
    split = Split(name, seed, protocol, query, train, train)
    check_disjoint(split)
    return split


def deviations(split: Split, protocol: Protocol) -> list[str]:
    """Where a split's sizes are not those of a protocol: a sentence for each."""
    wanted = {"query": protocol.query, "train": protocol.train, "database": protocol.size}
    return [
        f"{part} has {split.sizes[part]:,} images, but the protocol has {size:,}"
        for part, size in wanted.items()
        if size is not None and split.sizes[part] != size
    ]


def split_pool(
    pool: Pool, *, query: int | float, train: int | float, seed: int = 0, name: str = "own", train_in_database=False
) -> Split:
    """Draw a split of own pictures by their paths; the database is the rest.

    Seed and path give each picture a number u in 0..1, and the numbers say where it belongs. With shares (float, above
    0 and below 1), it is a query if u < query, and a training picture if u < query + train: a new picture moves no
    other, and parts have about these shares. With whole numbers of pictures (int), those with the smallest u are
    queries, the next smallest training pictures: the number is exact, so a new picture can push one out.
    `seed` is at least 0. With `train_in_database` the training pictures are in the database too; scores are then a
    little too good. Raises ValueError if a number is out of range, or a part would be empty.
    """
    total = len(pool.labels)
    q, t = _count("query", query, total), _count("train", train, total)
    if q + t >= total:
        raise ValueError(f"query and train take {q} + {t} of {total} pictures, but the database needs some too.")
    u = _drawn(map(pool.path, range(total)), seed)
    asks = _lowest(u, query)
    u[asks] = np.inf
    teaches = _lowest(u, train, above=query if query < 1 else q / total)
    kept = ~asks if train_in_database else ~asks & ~teaches
    parts = (Part(pool, np.flatnonzero(mask)) for mask in (asks, teaches, kept))
    return given_split(name, *parts, about="Drawn from own pictures.", seed=seed)


def split_unseen(
    pool: Pool, *, unseen: list[str] | float, query: int | float, seed: int = 0, name: str = "unseen"
) -> Split:
    """Train on some classes; query and search only others, which the network has never seen.

    The usual protocols ask whether codes tell known classes apart; this one asks whether that carries over. Pictures
    with labels of both kinds are left out. (Sablayrolles et al., "How should we evaluate supervised hashing?", 2017.)
    `unseen` names the classes that training must not see, or gives their share of all classes (drawn by `seed` and
    their names). `query` is how many of their pictures are queries, as a number or a share, drawn as by `split_pool`;
    the others are the database. Raises ValueError for an unknown class, or if no class is left on one side.
    """
    classes = pool.classes
    check_whole("seed", seed, 0)
    if isinstance(unseen, numbers.Real):
        drawn = _lowest(_drawn(classes, seed), _count("unseen", unseen, len(classes)))
        unseen = [classes[i] for i in np.flatnonzero(drawn)]
    unseen = [unseen] if isinstance(unseen, str) else list(unseen)  # pyrefly: ignore[bad-argument-type], no number
    for given in unseen:
        if given not in classes:
            raise ValueError(f"unseen names {given!r}, but the classes are {', '.join(classes)}.")
    hidden = np.isin(classes, unseen)
    if hidden.all() or not hidden.any():
        raise ValueError(f"unseen names {hidden.sum()} of {len(classes)} classes, but some must be on each side.")
    labels = pool.labels.numpy().astype(bool)
    has_hidden, has_known = labels[:, hidden].any(axis=1), labels[:, ~hidden].any(axis=1)
    strange = np.flatnonzero(has_hidden & ~has_known)
    if len(strange) < 2:
        raise ValueError(f"only {len(strange)} pictures show unseen classes alone, but there must be 2 or more.")
    _count("query", query, len(strange))
    asks = _lowest(_drawn(map(pool.path, strange), seed), query)
    parts = (Part(pool, rows) for rows in (strange[asks], np.flatnonzero(has_known & ~has_hidden), strange[~asks]))
    about = "Queries and database show only classes that training never sees."
    return given_split(name, *parts, about=about, seed=seed)


def _drawn(names: Iterable[str], seed: int) -> np.ndarray:
    """A number in 0..1 for each name, (n,) float64: the same on every machine, whatever other names there are."""
    start = f"{check_whole('seed', seed, 0)} "
    texts = (unicodedata.normalize("NFC", start + name).encode() for name in names)  # macOS writes names otherwise
    raw = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(raw, dtype="<u8") / 2**64


def _lowest(u: np.ndarray, wanted: int | float, above: float = 0.0) -> np.ndarray:
    """Which numbers (n,) are below `above` plus a share or, for a whole number, the smallest so many: (n,) bool."""
    if not isinstance(wanted, numbers.Integral):
        return u < above + wanted
    lowest = np.zeros(len(u), dtype=bool)
    lowest[np.argsort(u, kind="stable")[:wanted]] = True
    return lowest


def _count(name: str, wanted: int | float, total: int) -> int:
    """A number of pictures or a share of them -> a number."""
    whole = isinstance(wanted, numbers.Integral)
    usable = isinstance(wanted, numbers.Real) and not isinstance(wanted, bool)
    if not usable or not (1 <= wanted < total if whole else 0 < wanted < 1):
        raise ValueError(f"{name} is {wanted!r}, but it must be a number from 1 to {total - 1}, or a share like 0.1.")
    count = int(wanted) if whole else round(float(wanted) * total)
    if not count:
        raise ValueError(f"{name} is {wanted!r} of {total}, which is none.")
    return count
