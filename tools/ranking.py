"""Do you need hashing? The same vectors as floats, as codes without labels, as codes of a classifier, and hashed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import faiss
import numpy as np
import torch

import hhlib as hh

DRAWS = 20  #: of random directions
FIRST = 100  #: results that are reranked by floats
BLOCK = 100  #: queries ranked at a time


def hashing_rows(split: hh.data.Split, bits: int | None, runs: dict[str, Path]) -> list[dict]:
    """The rows of the table for one data set and one code length; without a length, those of floats and a classifier.

    `runs` are the folders of trained methods by name. All times are those of one thread.
    """
    faiss.omp_set_num_threads(1)
    comparison = Comparison(split)
    if bits is None:
        return list(comparison.without_codes())
    rows = list(comparison.without_labels(bits))
    return rows + [row for name, folder in runs.items() for row in comparison.method(name, hh.runs.Run(folder), bits)]


def without_training(split: hh.data.Split, bits: int) -> list[dict]:
    """Scores of floats and of codes without labels, for a split of vectors."""
    comparison = Comparison(split)
    rows = [comparison.floats("cosine", *comparison.centred, kind="without labels")]
    rows += list(comparison.without_labels(bits, ways=(False,)))
    return [{"method": row["name"], "expected": row["map"]} for row in rows]


class Comparison:
    """One data set's vectors, and every way to search them."""

    def __init__(self, split: hh.data.Split):
        part = {name: part.batch(range(len(part)))[0].float().numpy() for name, part in split.parts().items()}
        self.split, self.query, self.train, self.database = split, part["query"], part["train"], part["database"]
        labels = {name: part.labels.numpy() for name, part in split.parts().items()}
        self.train_labels, self.right = labels["train"], labels
        # In a shuffled order, because images that are sorted by class would make ties look good or bad.
        self.order = np.random.default_rng(0).permutation(len(self.database))
        self.database = self.database[self.order]
        self.right["database"] = self.right["database"][self.order]
        mean = self.train.mean(axis=0)
        self.centred = self.query - mean, self.database - mean  # for cosines, which depend on the origin

    def without_codes(self) -> Iterator[dict]:
        """Floats, and a classifier that was given the labels."""
        yield self.floats("cosine of the vectors", *self.centred, kind="ceiling without labels")
        classifier = hh.baselines.classifier(self.train, self.train_labels)
        probabilities = [classifier.predict_proba(x).astype(np.float32) for x in (self.query, self.database)]
        yield self.floats("linear classifier: cosine of probabilities", *probabilities, kind="classifier")
        number = hh.baselines.answer(classifier, self.train_labels.shape[1])
        codes = number(self.query), number(self.database)
        for floats in (None, self.centred):
            yield self.codes("class number", *codes, floats, kind="classifier")

    def without_labels(self, bits: int, ways: tuple[bool, ...] = (False, True)) -> Iterator[dict]:
        """Codes that need the vectors only; ways: whether to rerank."""
        x = self.train
        yield from self.drawn(bits, ways)
        encoders: dict[str, Callable] = {"PCA-sign": hh.baselines.pca_sign(x, bits)}
        encoders["PCA, random rotation"] = rotated(x, bits)
        encoders["ITQ"] = hh.baselines.itq(x, bits, starts=1)
        for name, encoder in encoders.items():
            z = encoder(self.query), encoder(self.database)
            for again in ways:
                yield self.codes(name, *z, self.centred if again else None)

    def drawn(self, bits: int, ways: tuple[bool, ...]) -> Iterator[dict]:
        """LSH, as the mean of several draws."""
        rows: dict[bool, list[dict]] = {again: [] for again in ways}
        for seed in range(DRAWS):
            encoder = hh.baselines.lsh(self.train, bits, seed=seed)
            z = encoder(self.query), encoder(self.database)
            for again in ways:
                rows[again].append(self.codes(f"LSH, {DRAWS} draws", *z, self.centred if again else None))
        for some in rows.values():
            mean = {name: np.mean([row[name] for row in some]) for name in ("map", "precision@10", "microseconds")}
            yield some[0] | mean | {"std": np.std([row["map"] for row in some], ddof=1)}

    def method(self, method: str, run: hh.runs.Run, bits: int) -> Iterator[dict]:
        """A trained method: its codes, its codes reranked by z, and z itself as an embedding of floats."""
        net, kind = run.model(), hh.losses.method(method).family
        how = dict(mean=[], std=[])
        z = [hh.retrieval.encode(net, torch.from_numpy(x), **how).numpy() for x in (self.query, self.database)]
        learnt = run.database_codes()
        codes = z[1] if learnt is None else hh.retrieval.unpack(learnt, bits)[self.order]
        yield self.codes(method, z[0], codes, None, kind=kind)
        yield self.codes(method, z[0], codes, z, kind=kind)
        if learnt is None:
            yield self.floats(f"{method}, z as floats", *z, kind=kind) | {"bits": bits}

    def floats(self, name: str, query: np.ndarray, database: np.ndarray, kind: str) -> dict:
        """Ranked by cosine."""
        a, b = (
            np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9)) for x in (query, database)
        )
        index = faiss.IndexFlatIP(b.shape[1])
        index.add(b)
        seconds = fastest(lambda: index.search(a, FIRST))
        scores = self.scored(lambda rows: np.argsort(-(a[rows] @ b.T), axis=1))
        size = {"bytes": 4 * b.shape[1], "microseconds": 1e6 * seconds / len(a)}
        return dict(name=name, kind=kind, bits=None, reranked=False) | scores | size

    def codes(self, name: str, query, database, floats, kind: str = "without labels") -> dict:
        """Ranked by Hamming distance and, with floats, the first `FIRST` of them by cosine."""
        bits = query.shape[1]
        a, b = hh.retrieval.pack(query), hh.retrieval.pack(database)
        index = hh.retrieval.build_index(b)
        seconds = fastest(lambda: hh.retrieval.search(a, index, k=FIRST))
        row = dict(name=name, kind=kind, bits=bits, reranked=floats is not None)
        size = {"bytes": b.shape[1]}
        if floats is None:
            found = hh.metrics.evaluate(
                a, self.right["query"], b, self.right["database"], bits=bits, database_order=False
            )
            near = self.precision(hh.retrieval.search(a, index, k=10)[1])
            return (
                row
                | {"map": found["map"]["expected"], "precision@10": near}
                | size
                | {"microseconds": 1e6 * seconds / len(a)}
            )
        u, v = (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9) for x in floats)

        def order(rows: np.ndarray) -> np.ndarray:
            found = np.argsort(hh.metrics.hamming(a[rows], b), axis=1, kind="stable")
            return reranked(found, u[rows], v)

        first = hh.retrieval.search(a, index, k=FIRST)[1]
        seconds += fastest(lambda: reranked(first, u, v))
        size["bytes"] += 4 * v.shape[1]
        return row | self.scored(order) | size | {"microseconds": 1e6 * seconds / len(a)}

    def scored(self, order: Callable[[np.ndarray], np.ndarray]) -> dict:
        """mAP and precision@10 of a ranking: order(rows of queries) -> rows of the database, best first, (q, n)."""
        ap, ten = [], []
        for rows in np.array_split(np.arange(len(self.query)), -(-len(self.query) // BLOCK)):
            similar = self.right["query"][rows].astype(np.float32) @ self.right["database"].T.astype(np.float32) > 0
            right = np.take_along_axis(similar, order(rows), axis=1)  # (q, n)
            hits = np.cumsum(right, axis=1)
            precision = hits / np.arange(1, right.shape[1] + 1)
            ap += list((precision * right).sum(axis=1) / hits[:, -1].clip(1))
            ten += list(right[:, :10].mean(axis=1))
        return {"map": float(np.mean(ap)), "precision@10": float(np.mean(ten))}

    def precision(self, rows: np.ndarray) -> float:
        """Share of right answers among rows (q, 10)."""
        right = [
            (self.right["database"][found] @ labels > 0).mean()
            for found, labels in zip(rows, self.right["query"], strict=True)
        ]
        return float(np.mean(right))


def rotated(x: np.ndarray, bits: int, *, seed: int = 0) -> hh.baselines.Outputs:
    """The first K principal components, turned at random, so that every bit carries about the same variance.

    The start of ITQ, and already most of what it gains (Gong and Lazebnik, CVPR 2011, section 2.3).
    """
    components = hh.baselines.pca_sign(x, bits)
    R = np.linalg.qr(np.random.default_rng(seed).normal(size=(bits, bits)))[0]  # (K, K)
    return lambda y: components(y) @ R


def reranked(order: np.ndarray, query: np.ndarray, database: np.ndarray) -> np.ndarray:
    """Rows (q, n) with the first `FIRST` sorted by cosine; query and database of length 1."""
    first = order[:, :FIRST]
    cosine = np.einsum("qd,qfd->qf", query, database[first])
    best = np.take_along_axis(first, np.argsort(-cosine, axis=1, kind="stable"), axis=1)
    return np.concatenate([best, order[:, FIRST:]], axis=1)


def fastest(search: Callable[[], object], times: int = 3) -> float:
    """Seconds of the quickest of a few tries."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
