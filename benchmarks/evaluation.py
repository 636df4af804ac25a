"""How long scoring takes: `metrics.evaluate` against the loop of the field's code, in one run.

    python benchmarks/evaluation.py [--rounds 3] [--figure FILE]

The plain way goes through queries one by one: a dot product with all database codes, an argsort, the precisions at the
hits. It is what most published code does (in float32; labels too are compared by a dot product). It is timed over the
first 200 queries and scaled up. Codes are random with a class signal, at the sizes of the
protocols; both ways must agree where no tie is cut or reordered, which is checked first.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

from hhlib import metrics

PROTOCOLS = {  # name: queries, database, classes, labels per image, cut-off
    "CIFAR-10": (1_000, 54_000, 10, 1, None),
    "ImageNet-100": (5_000, 128_503, 100, 1, 1_000),
    "NUS-WIDE": (5_000, 168_692, 81, 3, 5_000),
}
BITS = 64


def main() -> None:
    """Check that the two agree, time them on each protocol, and show how the cost grows."""
    arguments = parse()
    agree()
    for name, (queries, database, classes, labels, topk) in PROTOCOLS.items():
        protocol(name, make(queries, database, classes, labels), topk, arguments.rounds)
    memory()
    growth(arguments.rounds, arguments.figure)


def plain(codes, labels, database_codes, database_labels, topk) -> float:
    """mAP@k the usual way; codes (n, K) of -1 and +1, labels multi-hot, all float32."""
    scores = []
    for code, label in zip(codes, labels, strict=True):
        relevant = database_labels @ label > 0
        order = np.argsort(0.5 * (BITS - database_codes @ code))
        hits = np.flatnonzero(relevant[order][:topk]) + 1.0
        scores.append((np.arange(1, len(hits) + 1) / hits).mean() if len(hits) else 0.0)
    return float(np.mean(scores))


def make(queries: int, database: int, classes: int, labels: int):
    """Random codes (n, K) float32 of -1 and +1 that lie near those of their classes, and multi-hot labels float32."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, BITS))
    found = []
    for n in (queries, database):
        flags = np.zeros((n, classes), np.float32)
        for _ in range(labels):
            flags[np.arange(n), rng.integers(0, classes, n)] = 1
        codes = np.where(flags @ centres + rng.normal(0, 1.5, (n, BITS)) >= 0, 1, -1).astype(np.float32)
        found += [codes, flags]
    return found


def agree() -> None:
    """One list a query, without a tie: both must give the same mAP."""
    rng = np.random.default_rng(0)
    steps = np.where(np.arange(BITS) < np.arange(1, BITS + 1)[:, None], -1, 1)[rng.permutation(BITS)]
    case = np.ones((20, BITS)), rng.random((20, 9)) < 0.2, steps, rng.random((BITS, 9)) < 0.2
    for topk in (None, 10):
        ours = metrics.evaluate(*case, topk=topk)["map"]
        theirs = plain(*(part.astype(np.float32) for part in case), topk)
        assert all(abs(value - theirs) < 1e-6 for value in ours.values())
    print("both ways give the same mAP where there are no ties")


def protocol(name, case, topk, rounds: int) -> None:
    """Time both ways on one protocol; prints seconds and ratios."""
    codes, labels, database_codes, database_labels = case
    packed = metrics.pack_signs(codes), labels, metrics.pack_signs(database_codes), database_labels
    timed = min(len(codes), 200)
    ways = {
        "plain loop": lambda: plain(codes[:timed], labels[:timed], database_codes, database_labels, topk),
        "expected, best, worst": lambda: bounds(packed, topk),
        "all of evaluate": lambda: metrics.evaluate(*packed, bits=BITS, topk=topk),
    }
    seconds = {way: [] for way in ways}
    for _ in range(rounds):
        for way, call in ways.items():
            call()  # each finds its own threads and data as a second call would
            start = time.perf_counter()
            call()
            seconds[way].append(time.perf_counter() - start)
    median = {way: float(np.median(times)) for way, times in seconds.items()}
    median["plain loop"] *= len(codes) / timed
    print(f"\n{name}: {len(codes):,} queries x {len(database_codes):,} images, {labels.shape[1]} classes, "
          f"{BITS} bits, mAP@{topk or 'all'}")  # fmt: skip
    for way, value in median.items():
        note = f"  (from {timed} queries)" if way == "plain loop" else f"  ratio {median['plain loop'] / value:.0f}"
        print(f"  {way:24s}{value:8.2f} s{note}")


def memory() -> None:
    """Peak memory of a fresh process that scores the ImageNet protocol from packed codes and class numbers (Linux).

    VmHWM, because ru_maxrss starts at the peak of the process that started this one.
    """
    code = (
        "import numpy as np; from hhlib import metrics; rng = np.random.default_rng(0); "
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024; before = peak(); "
        "q, d = (rng.integers(0, 256, (n, 8), dtype=np.uint8) for n in (5_000, 128_503)); "
        "a, b = (rng.integers(0, 100, n) for n in (5_000, 128_503)); "
        "metrics.evaluate(q, a, d, b, bits=64, topk=1_000); print(f'{before:.0f} {peak():.0f}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = done.stdout.split()
    print(f"\npeak memory of the ImageNet protocol in a fresh process: {after} MiB, {before} of them imports")


def bounds(packed, topk):
    """Only what the headline needs."""
    counts = metrics.count(*packed, BITS)
    return metrics.average_precision(counts.n_t, counts.r_t, topk)


def growth(rounds: int, figure: str | None) -> None:
    """1,000 queries against 125,000 to a million codes: seconds should grow in proportion."""
    sizes, seconds = [125_000, 250_000, 500_000, 1_000_000], []
    print("\n1,000 queries, 64 bits, 10 classes: everything but database order")
    codes, labels, database_codes, database_labels = make(1_000, sizes[-1], 10, 1)
    packed, database = metrics.pack_signs(codes), metrics.pack_signs(database_codes)
    del codes, database_codes
    for n in sizes:
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            metrics.evaluate(packed, labels, database[:n], database_labels[:n], bits=BITS, database_order=False)
            times.append(time.perf_counter() - start)
        seconds.append(float(np.median(times)))
        print(f"  {n:9,} codes {seconds[-1]:6.2f} s  {1e9 * seconds[-1] / n / 1_000:.2f} ns a pair")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  peak memory {peak:.0f} MiB (imports and making the codes included)")
    if figure:
        draw(sizes, seconds, figure)


def draw(sizes, seconds, figure: str) -> None:
    """Seconds over database size, with the straight line through the last point."""
    import matplotlib

    matplotlib.use("Agg")
    from hhlib import plots

    plots.theme()
    canvas, ax = plots.plt.subplots(figsize=(5, 3))
    ax.plot(sizes, np.array(sizes) * seconds[-1] / sizes[-1], color="#949494", linestyle=":", label="in proportion")
    ax.plot(sizes, seconds, marker="o", label="measured")
    ax.set(xlabel="database codes", ylabel="seconds", ylim=(0, None), title="1,000 queries, 64 bits")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.legend()
    canvas.savefig(figure, dpi=150)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--figure", help="where to save a picture of the growth")
    return parser.parse_args()


if __name__ == "__main__":
    main()
