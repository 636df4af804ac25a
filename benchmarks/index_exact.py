"""An index of 10,000 CIFAR-10 images, by Python and by the shell, against a comparison with every image.

    python benchmarks/index_exact.py [--images 10000] [-p data_dir data]

The images are written as files, in a folder per class, and indexed by `hhlib index`. 100 others ask: the ten nearest of
`hhlib search` and of `Index.search` must be those of a plain sort of all distances, with ties by the cosine of the
vectors. Then 100 images are added and 50 removed; only the new ones may be encoded, and the search must be exact again.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import hhlib as hh

SIZE = 112  #: pixels; the images have 32


def write(part: hh.data.Part, rows: np.ndarray, folder: Path, classes: list[str]) -> list[Path]:
    """Images of a part as files, in a folder per class."""
    files = []
    for row, image, label in zip(rows, *part.batch(rows)[:2], strict=True):
        files.append(folder / classes[int(label.argmax())] / f"{row:05d}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(files[-1])
    return files


def shell(*words: object) -> dict | list:
    """What a command of `hhlib` answers."""
    command = [sys.executable, "-m", "hhlib.shell", *map(str, words), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def brute_force(index: hh.index.Index, queries: list[Path]) -> list[list[tuple[Path, int]]]:
    """The ten nearest images of each query, by a sort of all distances and, among equal ones, of all cosines."""
    files = [index.root / path for path in index.paths]
    asked, stored = index.encode(queries), index.encode(files)
    distance = hh.metrics.hamming(hh.retrieval.pack(asked.z), hh.retrieval.pack(stored.z))  # (100, n)
    units = [x.astype(np.float32) / np.linalg.norm(x.astype(np.float32), axis=1, keepdims=True)
             for x in (asked.vectors, stored.vectors)]  # fmt: skip
    order = np.lexsort((-units[0] @ units[1].T, distance), axis=1)[:, :10]
    return [[(files[row], int(d[row])) for row in rows] for rows, d in zip(order, distance, strict=True)]


def equal(index: hh.index.Index, queries: list[Path]) -> float:
    """The share of queries whose ten nearest images and distances are those of the brute force."""
    expected = brute_force(index, queries)
    found = [[hit[:2] for hit in hits] for hits in index.search(queries, k=10)]
    return np.mean([a == b for a, b in zip(found, expected, strict=True)])


def main() -> int:
    """Index, compare, change, compare; 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    given = parser.parse_args()
    split = hh.data.load("cifar10", root=dict(given.p).get("data_dir"))
    home, rows = Path(tempfile.mkdtemp()), np.arange(given.images)
    folder, classes = home / "images", split.classes
    write(split.database, rows, folder, classes)
    queries = write(split.query, np.arange(100), home / "queries", classes)
    start = time.perf_counter()
    made = shell("index", folder, "--network", "lite0", "--size", SIZE, "--to", home / "index")
    print(f"{made['encoded']:,} images encoded by the shell in {time.perf_counter() - start:.0f} s", flush=True)
    index = hh.index.open(home / "index")
    shares = [equal(index, queries)]
    told = shell("search", *queries, "--index", home / "index")
    python = [[str(hit.path) for hit in hits] for hits in index.search(queries, k=10)]
    told = [[hit["path"] for hit in one["hits"]] for one in told]
    shares.append(np.mean([a == b for a, b in zip(told, python, strict=True)]))
    new = write(split.train, np.arange(100), home / "new", classes)
    added, removed = index.add(new), index.remove([folder / path for path in index.paths[:50]])
    shares.append(equal(index, queries))
    print(f"added: {added.encoded} encoded; removed: {removed.removed}, {removed.encoded} encoded; {len(index):,} left")
    text = "ten nearest as by brute force: {:.0%} of queries; by the shell: {:.0%}; after the changes: {:.0%}"
    print(text.format(*shares))
    shutil.rmtree(home)
    good = min(shares) == 1 and (added.encoded, removed.encoded, len(index)) == (100, 0, given.images + 50)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
