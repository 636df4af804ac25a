"""An index whose writers are killed at random moments opens in its old state or in the new one, and loses nothing.

    python benchmarks/index_kills.py [--kills 20] [--pictures 600]

Pictures of noise are indexed in a process that is killed with SIGKILL after a random time, up to that which a whole
build takes, or four times that of a change: while it encodes, writes blocks or segments, or replaces
index.json. First builds are killed, then changes that add a tenth of the pictures and remove half as many. After each
kill the index is opened and its pictures are compared with those before and those after the change; then the change is
repeated to its end. At last the codes are compared with those that an index gives that was never disturbed.
"""

import argparse
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import hhlib as hh
from hhlib.index import encoding

BLOCK = 32  #: pictures per block, so that kills fall between blocks too
HOW = dict(network="lite0", bits=64, size=64, device="cpu", workers=0, precision="float32")


def paint(folder: Path, numbers: range) -> None:
    """Pictures of noise, each from its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")


def bring(folder: Path, where: Path, connection) -> None:
    """Build or update the index, in a process of its own."""
    encoding.BLOCK = BLOCK
    hh.network.pretrained("lite0")  # loaded before the clock starts
    connection.send("ready")
    connection.recv()
    index = hh.index.build(folder, where=where, **HOW)
    connection.send(index.report.encoded)


def start(folder: Path, where: Path):
    """The process, once it is ready, and the connection that starts it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=bring, args=(folder, where, there))
    process.start()
    here.recv()
    here.send("go")
    return process, here


def finish(folder: Path, where: Path) -> tuple[float, int]:
    """Let a change end by itself -> seconds, pictures that were encoded."""
    process, connection = start(folder, where)
    began = time.perf_counter()
    encoded = connection.recv()
    seconds = time.perf_counter() - began
    process.join()
    return seconds, encoded


def killed(folder: Path, where: Path, after: float) -> None:
    """Start a change and kill it after so many seconds."""
    process, _ = start(folder, where)
    time.sleep(after)
    process.kill()
    process.join()


def state(where: Path) -> set[str] | None:
    """The pictures of an index, None if there is none yet."""
    try:
        return set(hh.index.open(where, device="cpu").paths)
    except FileNotFoundError:
        return None


def names(folder: Path) -> set[str]:
    """The pictures of a folder."""
    return {path.name for path in folder.iterdir()}


def main() -> int:
    """Kill, look, repeat; 1 if an index was in a third state or its codes differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=600)
    given = parser.parse_args()
    rng, home, good = random.Random(), Path(tempfile.mkdtemp()), True
    folder, where, tenth = home / "pictures", home / "index", given.pictures // 10
    paint(folder, range(given.pictures))
    seconds, _ = finish(folder, home / "undisturbed")
    print(f"a first build of {given.pictures} pictures takes {seconds:.1f} s", flush=True)
    for number in range(given.kills // 2):
        after = rng.uniform(0, seconds)
        killed(folder, where, after)
        found = state(where)
        good &= found in (None, names(folder))
        which = "no index yet" if found is None else "the whole index"
        print(f"kill {number + 1} of a first build after {after:.2f} s: {which}", flush=True)
        if found:
            shutil.rmtree(where)
    _, encoded = finish(folder, where)
    print(f"then it ends by itself and encodes the last {encoded}", flush=True)
    seconds, last = 0.0, given.pictures
    for number in range(given.kills // 2, given.kills):
        old = names(folder)
        paint(folder, range(last, last + tenth))
        for name in rng.sample(sorted(old), tenth // 2):
            (folder / name).unlink()
        last += tenth
        seconds = seconds or finish(folder, shutil.copytree(where, home / "timed"))[0]
        after = rng.uniform(0, 4 * seconds)
        killed(folder, where, after)
        found = state(where)
        good &= found in (old, names(folder))
        which = {True: "the new state", False: "the old state"}[found == names(folder)]
        _, encoded = finish(folder, where)
        print(f"kill {number + 1} of a change after {after:.2f} s: {which}; then {encoded} were encoded", flush=True)
    end, first = (hh.index.open(place, device="cpu") for place in (where, home / "undisturbed"))
    z = first.encode([folder / path for path in end.paths]).z.numpy()
    differ = (hh.retrieval.unpack(end.codes, 64) > 0) != (z >= 0)
    good &= end.model == first.model and set(end.paths) == names(folder) and not differ[abs(z) >= 1e-4].any()
    print(f"{len(end)} pictures; bits that differ from an undisturbed index's: {differ.sum()} of {differ.size}")
    shutil.rmtree(home)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
