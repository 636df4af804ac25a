"""Search codes that lie in several files or folders, exactly, with a process for each of these shards.

    python tools/shards.py QUERIES.npy SHARD SHARD ... [--k 10] [--seed 0] [--threads 1] > found.csv

A shard is an .npy file of packed codes (n, bytes) uint8, or a folder that holds one called codes.npy; queries are such
a file too. Shards are memory-mapped, so that together they may be larger than memory. In Python:

    with Shards(["a.npy", "b.npy"]) as shards:              # the processes start here, and serve many searches
        distances, shard, rows = shards.search(codes, k=10)

Equal distances are put in an order drawn from `seed` and the shard's name, so that the order in which shards are given
decides nothing. Within a shard, the first rows are offered: codes whose order has a meaning, such as one class after
the other, are to be shuffled when they are written.
"""

import argparse
import csv
import sys
import zlib
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import faiss
import numpy as np

# hhlib is not imported: each process would also load PyTorch, which takes longer and more memory than most shards.

NOTHING = np.iinfo(np.int32).max  #: the distance of what a small shard does not have


class Shards:
    """Several shards that are searched as one; to be used in a `with` statement, which ends their processes."""

    def __init__(self, paths: Iterable[str | Path], *, seed: int = 0, threads: int = 1):
        """paths: of the shards. seed: of the order of equal distances. threads: of each process.

        Raises:
            ValueError: if there are no shards, one is given twice, one holds no packed codes, or their widths differ.
            FileNotFoundError: if one does not exist.
        """
        self.paths, self.seed = [Path(path) for path in paths], seed
        if not self.paths or len(set(self.paths)) < len(self.paths):
            raise ValueError(f"shards are {[str(p) for p in self.paths]}, but they must be at least one, each once.")
        shapes = [codes_of(path).shape for path in self.paths]
        self.sizes, widths = zip(*shapes, strict=True)
        if len(set(widths)) > 1:
            raise ValueError(f"shards have codes of {widths} bytes, but they must be equally wide.")
        self.width = widths[0]
        self.pool = ProcessPoolExecutor(
            len(self.paths), get_context("spawn"), initializer=faiss.omp_set_num_threads, initargs=(threads,)
        )

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, *_) -> None:
        self.pool.shutdown()

    def search(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The k nearest codes of each query, queries (q, bytes) uint8, in all shards together.

        Returns (distances, shard, rows): (q, k) int32 in bits; (q, k) int64, the place in `paths`; (q, k) int64, the
        row in that shard. ValueError if queries are no codes of that width, or there are fewer than k codes.
        """
        if queries.dtype != np.uint8 or queries.ndim != 2 or queries.shape[1] != self.width:
            wanted = f"(q, {self.width}) uint8, packed as the shards are"
            raise ValueError(f"queries are {queries.shape} {queries.dtype}, but they must be {wanted}.")
        if not 1 <= k <= sum(self.sizes):
            raise ValueError(f"k is {k}, but it must be a whole number from 1 to {sum(self.sizes)}.")
        found = list(self.pool.map(search_one, self.paths, *zip(*[(queries, k)] * len(self.paths), strict=True)))
        distances, rows = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))  # (q, shards * k)
        luck = np.concatenate([drawn(path, self.seed, (len(queries), k)) for path in self.paths], axis=1)
        best = np.lexsort((luck, distances), axis=1)[:, :k]  # (q, k)
        return np.take_along_axis(distances, best, axis=1), best // k, np.take_along_axis(rows, best, axis=1)


def drawn(path: Path, seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Random numbers that depend on the seed and on a shard's name, not on its place among the shards."""
    return np.random.default_rng([seed, zlib.crc32(str(path).encode())]).random(shape)


def codes_of(path: Path) -> np.ndarray:
    """The codes of a shard, or of a file of queries, as a memory map (n, bytes) uint8."""
    codes = np.load(path / "codes.npy" if path.is_dir() else path, mmap_mode="r", allow_pickle=False)
    if not isinstance(codes, np.ndarray) or codes.dtype != np.uint8 or codes.ndim != 2 or not codes.size:
        raise ValueError(f"{path} holds no packed codes, which are an array (n, bytes) uint8 in an .npy file.")
    return codes


def search_one(path: Path, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances (q, k) int32 and rows (q, k) int64 of one shard; `NOTHING` and -1 where it has fewer than k codes."""
    codes = codes_of(path)
    there = min(k, len(codes))
    distances, rows = faiss.knn_hamming(np.ascontiguousarray(queries), np.ascontiguousarray(codes), there)
    missing = ((0, 0), (0, k - there))
    return np.pad(distances, missing, constant_values=NOTHING), np.pad(rows, missing, constant_values=-1)


def main() -> int:
    """Print a line per result; the exit code is 2 for a request that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", type=Path)
    parser.add_argument("shards", nargs="+", type=Path)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    given = parser.parse_args()
    try:
        with Shards(given.shards, seed=given.seed, threads=given.threads) as shards:
            distances, shard, rows = shards.search(codes_of(given.queries), k=given.k)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(["query", "place", "distance", "shard", "row"])
    for (query, place), distance in np.ndenumerate(distances):
        lines.writerow([query, place + 1, distance, given.shards[shard[query, place]], rows[query, place]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
