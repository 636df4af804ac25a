"""Search among 1, 10 and 100 million codes of 64 bits: how long an index takes to build, its memory, speed and recall.

    python benchmarks/scale.py [--codes 1000000 10000000 100000000] [--only file flat ivf hash hnsw] [--minutes 5]
    python benchmarks/scale.py --draw        # only the figure, benchmarks/scale.png, from results/scale.csv
    python benchmarks/scale.py --compare     # only results/scale_codes.csv: how like the real codes the made ones are

So many real codes are not at hand. They are made from the 54,000 kept ones of results/cifar10-lite0-64bits, see `Like`,
and written in blocks to runs/scale/; the queries are the 1,000 real ones. "file" searches the memory map of that file
without building anything. Each index is built in a process of its own, which is stopped after `--minutes`; its row then
says so. results/scale.csv gets a row per index and effort as soon as it is measured. What is there is not measured
again: a benchmark that was stopped resumes, and a row that is to be measured again must be deleted first.

Memory is what the process holds (VmRSS; peak: VmHWM) beyond what it held after imports and a small search. The pages of
a mapped file count, although the system may take them back. Linux only.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from threading import Timer

import faiss
import numpy as np
import pandas as pd

import hhlib as hh
from hhlib.common import atomic, check_choice, check_whole, resolve

KEPT = "cifar10-lite0-64bits"
SIZES = (1_000_000, 10_000_000, 100_000_000)
EFFORTS = {"file": (None,), "flat": (None,), "ivf": (1, 4, 16, 64), "hash": (1, 8, 16, 24), "hnsw": (4, 16, 64, 256)}
K = 10  #: results per query
BATCH = 100  #: queries asked together
SECONDS = 20  #: for each measurement of speed; a slow index is asked fewer queries
BLOCK = 1_000_000  #: codes made at a time
NEIGHBOURS = 100  #: among which `Like` draws
TABLE, FIGURE = hh.runs.RESULTS / "scale.csv", Path(__file__).with_suffix(".png")


class Like:
    """Codes that are distributed as real ones, as many as wanted.

    Three quarters of the real codes occur more than once: drawn, such a code is repeated as it is. A code that occurs
    once says that there are many more around it: it is crossed with one of its `NEIGHBOURS` nearest other codes, drawn
    at random, and each bit in which the two differ comes from either, so that bits change as often as they do among
    similar pictures. The idea is that of SMOTE (Chawla et al., JAIR 2002), and the share of codes that occur once is
    Good's and Turing's estimate of the probability that the next code is a new one.
    """

    def __init__(self, codes: np.ndarray):
        """codes: (n, 8) uint8, the real ones."""
        self.codes = np.ascontiguousarray(codes).view(np.uint64)[:, 0]
        self.distinct, of, times = np.unique(self.codes, return_inverse=True, return_counts=True)
        once = times[of] == 1
        self.place = np.where(once, np.cumsum(once) - 1, -1)  # (n,) row of `near`, -1 for a code that is repeated
        _, near = faiss.knn_hamming(packed(self.codes[once]), packed(self.distinct), NEIGHBOURS + 1)
        self.near = near[:, 1:]  # without the code itself, the only one at distance 0

    def draw(self, n: int, seed: int) -> np.ndarray:
        """n codes (n, 8) uint8."""
        rng = np.random.default_rng([0, seed])
        row = rng.integers(len(self.codes), size=n)
        codes, place = self.codes[row], self.place[row]
        new = place >= 0
        other = self.distinct[self.near[place[new], rng.integers(NEIGHBOURS, size=new.sum())]]
        codes[new] ^= (codes[new] ^ other) & rng.integers(2**64, size=len(other), dtype=np.uint64)
        return packed(codes)


def packed(codes: np.ndarray) -> np.ndarray:
    """(n,) uint64 -> (n, 8) uint8."""
    return np.ascontiguousarray(codes)[:, None].view(np.uint8)


def codes_file(n: int) -> Path:
    """n made codes, (n, 8) uint8 as .npy, written in blocks unless they are there; more codes begin like fewer."""
    path = resolve("runs/scale") / f"codes-{n}.npy"
    if not path.is_file():
        like = Like(hh.runs.kept(KEPT).codes()["database_codes"])
        with atomic(path) as draft:
            codes = np.lib.format.open_memmap(draft, "w+", np.uint8, (n, 8))
            for block, start in enumerate(range(0, n, BLOCK)):
                codes[start : start + BLOCK] = like.draw(BLOCK, seed=block)[: n - start]
            codes.flush()
    return path


def exact_distances(n: int) -> np.ndarray:
    """Distances (1000, K) of the nearest of n made codes, found once and kept."""
    path = codes_file(n).with_name(f"exact-{n}.npy")
    if not path.is_file():
        found, _ = hh.retrieval.search(queries(), np.load(codes_file(n), mmap_mode="r"), k=K)
        with atomic(path) as draft:
            np.save(draft, found)
    return np.load(path)


def queries() -> np.ndarray:
    """The real codes that ask, (1000, 8) uint8."""
    return hh.runs.kept(KEPT).codes()["query_codes"]


# ---- one index, in a process of its own


def measure(kind: str, n: int, efforts: list[int | None], threads: int) -> Iterator[dict]:
    """Build an index of n made codes and search it with each effort: a row each."""
    faiss.omp_set_num_threads(threads)
    exact, asked = exact_distances(n), queries()
    hh.retrieval.search(asked[:BATCH], asked, k=K)  # libraries take what they need
    before = memory(forget=True)["VmRSS"]
    codes = np.load(codes_file(n), mmap_mode="r")
    start = time.perf_counter()
    index = codes if kind == "file" else hh.retrieval.build_index(codes, kind)
    row = {"codes": n, "index": kind, "build_seconds": time.perf_counter() - start}
    del codes
    for effort in efforts:
        if effort:
            hh.retrieval.set_effort(index, effort)
        speed = speeds(index, asked, exact)
        held = {name: value - before for name, value in memory().items()}
        size = {"mib": held["VmRSS"] / 2**20, "peak_mib": held["VmHWM"] / 2**20}
        yield row | {"effort": effort} | speed | size | {"times_codes": held["VmRSS"] / (8 * n)}


def speeds(index, asked: np.ndarray, exact: np.ndarray) -> dict:
    """Queries per second, in batches and one at a time, and recall@K against exact distances (q, K).

    The mean of as many batches, or queries, as `SECONDS` allow, at least three.
    """
    found, times = [], {"batch": [], "alone": []}
    for way, size, most in (("batch", BATCH, len(asked)), ("alone", 1, BATCH)):
        while (done := len(times[way]) * size) < most and (len(times[way]) < 3 or sum(times[way]) < SECONDS):
            start = time.perf_counter()
            distances, _ = hh.retrieval.search(asked[done : done + size], index, k=K)
            times[way].append((time.perf_counter() - start) / size)
            found += [distances] if way == "batch" else []
    distances = np.concatenate(found)
    recall = hh.retrieval.recall_of(distances, exact[: len(distances)])
    return {f"{way}_per_second": 1 / np.mean(t) for way, t in times.items()} | {"recall": recall}


def memory(forget: bool = False) -> dict[str, int]:
    """VmRSS and VmHWM of this process, in bytes; forget: the peak so far."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return {line[0][:-1]: 1024 * int(line[1]) for line in lines if line[0] in ("VmRSS:", "VmHWM:")}


# ---- all of them


def complete(n: int, kind: str, minutes: float, threads: int) -> None:
    """Measure the rows of an index that results/scale.csv lacks, in a process that has so many minutes."""
    table = so_far()
    there = table[(table["codes"] == n) & (table["index"] == kind)] if len(table) else table
    noted = len(there) and there["note"].notna().any()
    done = {effort if pd.notna(effort) else None for effort in there.get("effort", ())}
    efforts = [effort for effort in EFFORTS[kind] if effort not in done]
    if noted or not efforts:
        return
    exact_distances(n)
    task = json.dumps({"kind": kind, "n": n, "efforts": efforts, "threads": threads})
    with subprocess.Popen([sys.executable, __file__, "--measure", task], stdout=subprocess.PIPE, text=True) as child:
        clock = Timer(60 * minutes, child.kill)
        clock.start()
        rows = [keep(json.loads(line), threads) for line in child.stdout]
        in_time = clock.is_alive()
        clock.cancel()
    if child.returncode and in_time:
        raise SystemExit(f"{kind} with {n:,} codes ended with exit code {child.returncode}.")
    if not rows and not in_time:
        keep({"codes": n, "index": kind, "note": f"not built within {minutes:g} minutes"}, threads)


def so_far() -> pd.DataFrame:
    """The rows that were measured before."""
    return pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame()


def keep(row: dict, threads: int) -> dict:
    """Add a row to results/scale.csv, with what it was measured on, and say it."""
    about = hh.runs.surroundings()
    row = {"codes": None, "index": None, "effort": None} | row | {"note": row.get("note"), "threads": threads}
    row |= {"machine": about["machine"]["cpu"], "faiss": version("faiss-cpu"), "numpy": version("numpy")}
    table = pd.concat([so_far(), pd.DataFrame([row | {"git_commit": about["git_commit"]}])])
    table["place"] = table["index"].map(list(EFFORTS).index)
    table = table.sort_values(["codes", "place", "effort"]).drop(columns="place").astype({"effort": "Int64"})
    with atomic(TABLE) as draft:
        table.round(4).to_csv(draft, index=False)
    print(*(f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items() if value is not None), sep=", ", flush=True)  # fmt: skip
    return row


# ---- how like real codes they are, and the figure


def compare(sizes: list[int]) -> None:
    """Write results/scale_codes.csv: the real codes, as many made ones, and more made ones."""
    kept = hh.runs.kept(KEPT).codes()["database_codes"]
    rows = [{"made": False} | facts(kept), {"made": True} | facts(Like(kept).draw(len(kept), seed=0))]
    real, made = rows[0]["histogram"], rows[1]["histogram"]
    rows[1]["differs"] = np.abs(real - made).sum() / 2
    for n in sizes:
        codes = np.load(codes_file(n), mmap_mode="r")
        distances = exact_distances(n)
        row = {"codes": n, "made": True, "distinct": len(np.unique(codes.view(np.uint64)))}
        rows.append(row | {"nearest": distances[:, 0].mean(), "tenth": distances[:, -1].mean()})
    table = pd.DataFrame(rows).drop(columns="histogram")
    first = ["codes", "made", "distinct"]
    with atomic(hh.runs.RESULTS / "scale_codes.csv") as draft:
        table[first + [name for name in table if name not in first]].round(4).to_csv(draft, index=False)
    print(table.to_string(index=False))


def facts(codes: np.ndarray) -> dict:
    """How many codes are distinct, how far the queries are from them, and how many are tied with the tenth nearest."""
    distances = hh.metrics.hamming(queries(), codes)  # (1000, n)
    nearest = np.partition(distances, [0, K - 1], axis=1)[:, [0, K - 1]]  # (1000, 2)
    tied = (distances == nearest[:, 1:]).mean()
    found = {"codes": len(codes), "distinct": len(np.unique(codes, axis=0)), "nearest": nearest[:, 0].mean()}
    found |= {"tenth": nearest[:, 1].mean(), "tied": tied}
    return found | {"histogram": np.bincount(distances.ravel(), minlength=65) / distances.size}


def draw() -> None:
    """Write the figure: queries per second over recall, a panel per number of codes."""
    import matplotlib

    matplotlib.use("Agg")
    table = so_far().dropna(subset="recall")
    sizes = sorted(table["codes"].unique())
    hh.plots.theme()
    size = min(hh.plots.WIDEST, 2 + 2.2 * len(sizes)), 3.4
    figure, axes = hh.plots.plt.subplots(1, len(sizes), figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax, n in zip(axes.flat, sizes, strict=True):
        for i, kind in enumerate(EFFORTS):
            rows = table[(table["codes"] == n) & (table["index"] == kind)]
            if len(rows):  # an empty line upsets the layout
                look = dict(color=f"C{i}", marker="sDo^v"[i], label=kind, clip_on=False, zorder=3)
                ax.plot(rows["recall"], rows["batch_per_second"], **look)
        ax.set(xlabel=f"recall@{K} (share found)", title=f"{n / 1e6:g} million codes", yscale="log")
    axes[0, 0].set_ylabel(f"queries per second,\nin batches of {BATCH}")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(EFFORTS))
    with atomic(FIGURE) as draft:
        figure.savefig(draft, dpi=150)


def main() -> int:
    """What the command line asks for; the exit code is 2 for a request that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", nargs="+", type=int, default=SIZES, help="how many are searched")
    parser.add_argument("--only", nargs="+", default=list(EFFORTS), metavar="INDEX", help=", ".join(EFFORTS))
    parser.add_argument("--minutes", type=float, default=5, help="for each index, building and all its searches")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--draw", action="store_true", help="only draw the figure")
    parser.add_argument("--compare", action="store_true", help="only compare made codes with real ones")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    faiss.omp_set_num_threads(given.threads)
    try:
        for kind, n in ((kind, n) for kind in given.only for n in given.codes):
            check_choice("index", kind, EFFORTS)
            check_whole("codes", n, K)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if given.measure:  # by `complete`, in a process of its own
        for row in measure(**json.loads(given.measure)):
            print(json.dumps(row), flush=True)
    elif given.compare:
        compare(given.codes)
    else:
        for n, kind in () if given.draw else ((n, kind) for n in given.codes for kind in given.only):
            complete(n, kind, given.minutes, given.threads)
        draw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
