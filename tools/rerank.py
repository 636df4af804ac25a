"""What codes save beside floats, what they lose, and what sorting the first results again by floats gains back.

    python tools/rerank.py -p data_dir data [--threads 1]

The kept run results/cifar10-lite0-64bits, 1,000 queries, 54,000 images: exact search by cosine among the backbone's
vectors and among the head's outputs z, by Hamming distance among the codes, and by codes with the first 100 or 1,000
results sorted again by z or by vectors. Writes results/rerank.csv, a row per way:

    first                      how many results are sorted again
    memory_bytes, more_bytes   per image: what every search reads, and what is read for the first results only
    batch_us, alone_us         microseconds per query, all queries asked together, and one at a time
    map@10, precision@10       for codes, the mean over tie orders
    lost, regained             precision@10 below the exact search by these floats, and the share of it won back

The images are in a drawn order, because images sorted by class would make ties look good or bad.
"""

import sys
from collections.abc import Callable, Iterator

import faiss
import numpy as np
import pandas as pd
import torch
from compare import write_table
from ranking import Comparison, fastest
from run_notebooks import parameter_parser

import hhlib as hh
from hhlib.common import command

RUN = "cifar10-lite0-64bits"
K = 10  #: results that are scored
FIRST = (100, 1000)
ALONE = 100  #: queries that are asked one at a time
TYPES = {"float16": "SQfp16", "float32": "Flat"}  #: of the floats, and what faiss calls an index of them


class Ways:
    """Every way to search one split of vectors: each method yields or returns rows of the table."""

    def __init__(self, comparison: Comparison, z: dict[str, np.ndarray]):
        """z: the head's outputs, (1000, bits) of "query" and (54000, bits) of "database", in the comparison's order."""
        self.right = comparison.right["query"], comparison.right["database"]
        both = dict(zip(("query", "database"), comparison.centred, strict=True))
        self.floats = {name: {part: unit(x) for part, x in given.items()} for name, given in
                       (("z", z), ("vectors", both))}  # fmt: skip
        self.bits = z["query"].shape[1]
        self.codes = {part: hh.retrieval.pack(x) for part, x in z.items()}
        self.index = hh.retrieval.build_index(self.codes["database"])

    def rows(self) -> Iterator[dict]:
        """All rows: floats, codes, and codes with their first results sorted again."""
        codes = self.by_codes()
        for name in self.floats:
            exact = {kind: self.by_floats(name, kind) for kind in TYPES}
            yield from exact.values()
            lost = exact["float16"]["precision@10"] - codes["precision@10"]
            yield codes | {"floats": name, "lost": lost}
            for first in FIRST:
                row = self.sorted_again(name, first)
                gain = row["precision@10"] - codes["precision@10"]
                yield row | {"lost": lost - gain, "regained": gain / lost if lost > 0 else np.nan}

    def by_floats(self, name: str, kind: str) -> dict:
        """Exact search by cosine, among numbers of 2 or 4 bytes."""
        query, database = self.floats[name]["query"], self.floats[name]["database"]
        index = faiss.index_factory(database.shape[1], TYPES[kind], faiss.METRIC_INNER_PRODUCT)
        index.train(database)
        index.add(database)
        row = {"floats": name, "way": f"exact, {kind}", "memory_bytes": np.dtype(kind).itemsize * database.shape[1]}
        return row | self.timed(query, lambda asked: index.search(asked, K)[1]) | self.scored(index.search(query, K)[1])

    def by_codes(self) -> dict:
        """Exact search by Hamming distance, scored as the mean over tie orders."""
        found = hh.metrics.evaluate(
            self.codes["query"], self.right[0], self.codes["database"], self.right[1], bits=self.bits, topk=K
        )
        histogram = found["histogram"]
        near = hh.metrics.hits_at(histogram["all"], histogram["relevant"], np.array([K])).mean() / K
        row = {"way": "codes", "memory_bytes": self.codes["database"].shape[1]}
        row |= self.timed(self.codes["query"], lambda asked: hh.retrieval.search(asked, self.index, k=K)[1])
        return row | {"map@10": found["map"]["expected"], "precision@10": near}

    def sorted_again(self, name: str, first: int) -> dict:
        """The first results by code, sorted by the cosine of these floats, of which 2 bytes a number are kept."""
        query = np.hstack([self.codes["query"], self.floats[name]["query"].view(np.uint8)])  # each with its floats
        kept, width = self.floats[name]["database"].astype(np.float16), self.codes["query"].shape[1]

        def search(asked: np.ndarray) -> np.ndarray:
            rows = hh.retrieval.search(asked[:, :width], self.index, k=first)[1]  # (q, first)
            floats = np.ascontiguousarray(asked[:, width:]).view(np.float32)  # (q, D)
            return np.stack([nearest(*each, kept) for each in zip(rows, floats, strict=True)])

        size = {"memory_bytes": width, "more_bytes": 2 * kept.shape[1]}
        row = {"floats": name, "way": "codes, then floats", "first": first} | size
        return row | self.timed(query, search) | self.scored(search(query))

    def timed(self, queries: np.ndarray, search: Callable[[np.ndarray], np.ndarray]) -> dict:
        """Microseconds per query, all together and one at a time."""
        together = fastest(lambda: search(queries)) / len(queries)
        some = [queries[i : i + 1] for i in range(min(ALONE, len(queries)))]
        alone = fastest(lambda: [search(query) for query in some]) / len(some)
        return {"batch_us": 1e6 * together, "alone_us": 1e6 * alone}

    def scored(self, rows: np.ndarray) -> dict:
        """mAP@10 and precision@10 of rows (q, 10); AP is divided by the relevant images found, as in `hh.metrics`."""
        labels, others = (part.astype(np.float32) for part in self.right)
        right = np.einsum("qc,qkc->qk", labels, others[rows]) > 0  # (q, 10)
        hits = np.cumsum(right, axis=1)
        ap = (hits / np.arange(1, K + 1) * right).sum(axis=1) / hits[:, -1].clip(1)
        return {"map@10": ap.mean(), "precision@10": right.mean()}


def unit(x: np.ndarray) -> np.ndarray:
    """Rows (n, D) of length 1, as float32."""
    return np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9), np.float32)


def nearest(rows: np.ndarray, query: np.ndarray, database: np.ndarray) -> np.ndarray:
    """The K of these rows (f,) whose vectors have the largest cosine with a query (D,), best first."""
    cosine = database[rows].astype(np.float32) @ query  # (f,)
    return rows[np.argsort(-cosine, kind="stable")[:K]]


@command
def main() -> int:
    """Write the table; the exit code is 2 for a request that is wrong."""
    parser = parameter_parser(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    faiss.omp_set_num_threads(given.threads)
    torch.set_num_threads(given.threads)
    ex = hh.kept(RUN, live=False, **dict(given.parameter))
    comparison = Comparison(ex.inputs)
    vectors = {"query": comparison.query, "database": comparison.database}
    net = ex.run.model()
    z = {part: hh.retrieval.encode(net, torch.from_numpy(x), mean=[], std=[]).numpy() for part, x in vectors.items()}
    about = hh.runs.surroundings()
    table = pd.DataFrame(Ways(comparison, z).rows())
    table = table.assign(threads=given.threads, machine=about["machine"]["cpu"], faiss=about["packages"]["faiss-cpu"])
    table = table.assign(numpy=about["packages"]["numpy"], git_commit=about["git_commit"])
    print(write_table("rerank", table.astype({"first": "Int64", "more_bytes": "Int64"})).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main())
