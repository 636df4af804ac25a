"""Kill a piece of work without warning, again and again, and see whether it ends as if nothing had happened.

    python benchmarks/kills.py training|features|index|batch [--kills 20] [--longest 60] [--seed 0]

    training   six epochs of a small network on digits, and its scores
    features   what the frozen backbone sees of 640 digits
    index      160 pictures are indexed, 64 are added, and 20 of those removed
    batch      two such runs through two pages, with Snakemake

The work is done once in one go, then in processes that get SIGKILL and are started again, until so many were killed.
Every second kill comes at a random moment of the time that the first process took. The others come just before a
random one of its writes: a file is opened to be written, renamed, linked or removed. In a batch, where other processes
write, these kill the batch and Snakemake, and leave their jobs running. Work that comes to its end in between is
followed by another. After each kill an index must open in one of its known states, or be none yet. What lies on disk in
the end is compared bit for bit with that of the first process. Writes a row of results/kills.csv.
"""

import argparse
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import torch
from PIL import Image

import hhlib as hh
from hhlib.common import atomic
from hhlib.data import cache
from hhlib.index import encoding

PROJECT = Path(__file__).resolve().parent.parent
TABLE = PROJECT / "results" / "kills.csv"
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["hhlib"])  # imported once; each process then is a fork of one that has done nothing else
WRITES = ("os.rename", "os.link", "os.remove")  #: as Python's audit hooks call them
SMALL = dict(embed_dims=(8, 16, 16), num_heads=(1, 1, 1), depths=(1, 1, 1))
BATCH = """
dataset: [digits]
method: [hybridhash, csq]
network: [micro]
bits: [16]
seed: [0]
settings: epochs=6 validate_every=1 net.embed_dims=8,16,16 net.num_heads=1,1,1 net.depths=1,1,1
pages: ["03", "04"]
resources: {threads: 1, mem_mb: 4000, runtime: 20}
"""


class Training:
    """Six epochs of a small network on digits, and its scores."""

    @staticmethod
    def work(folder: Path) -> None:
        """Train, or resume, and evaluate."""
        how = dict(epochs=6, validate_every=1, net=SMALL)
        ex = hh.open(dataset="digits", bits=16, device="cpu", runs_dir=folder, recipe=how)
        ex.fit()
        ex.evaluate()

    @staticmethod
    def result(folder: Path) -> dict:
        """Files by name, and the parts of the state; seconds differ."""
        (path,) = folder.glob("*/*")
        state = torch.load(path / "training_state.pt", weights_only=True)
        state.pop("timing")
        return state | read(path)


class Features:
    """What the frozen backbone sees of 640 digits."""

    @staticmethod
    def work(folder: Path) -> None:
        """Look at what is still to be seen, in small blocks, so that kills fall between them."""
        cache.BLOCK, pool = 64, hh.data.load("digits").query.pool
        pool = replace(pool, images=pool.images[:640], labels=pool.labels[:640])
        hh.features.Backbone("lite0", 32).pool(pool, folder)

    @staticmethod
    def result(folder: Path) -> dict:
        """The vectors, and the marks beside them."""
        (path,) = folder.iterdir()
        return {file.name: file.read_bytes() for file in path.glob("[!.]*")}


class Index:
    """160 pictures are indexed, 64 are added, and 20 of those removed."""

    @staticmethod
    def work(folder: Path) -> None:
        """The three steps, from the first; what is on disk already is not encoded again."""
        encoding.BATCH = encoding.BLOCK = 16
        first, more = pictures(folder.parent)
        how = dict(network="lite0", size=32, device="cpu", workers=0, precision="float32")
        index = hh.index.build(first, where=folder, **how)
        index.add(more)
        index.remove(sorted(more.iterdir())[:20])

    @staticmethod
    def result(folder: Path) -> dict:
        """Code, vector and label of each picture."""
        segments = hh.index.open(folder, device="cpu").store.segments
        rows = ((segment, row) for segment in segments for row in range(len(segment)))
        return {s.paths[r]: (s.codes[r].tobytes(), s.vectors[r].tobytes(), s.labels[r]) for s, r in rows}

    @staticmethod
    def wrong(folder: Path) -> list[str]:
        """An index that was killed is none yet, or as after one of the three steps."""
        first, more = ({*folder.iterdir()} for folder in pictures(folder.parent))
        try:
            index = hh.index.open(folder, device="cpu")
        except FileNotFoundError:
            return []
        there = {index.root / path for path in index.paths}
        known = there in (first, first | more, first | {*sorted(more)[20:]})
        return [] if known else [f"an index of {len(there)} pictures"]


class Batch:
    """Two runs of the small network through two pages, with Snakemake."""

    @staticmethod
    def work(folder: Path) -> None:
        """Start the batch, or go on with it."""
        file = folder.with_suffix(".yml")
        file.write_text(BATCH, encoding="utf-8")
        command = [sys.executable, "tools/batch.py", str(file), "-p", "runs_dir", str(folder)]
        subprocess.run(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    @staticmethod
    def result(folder: Path) -> dict:
        """Of each run its files and how often its job came to its end; a finished job must not be repeated."""
        found = {}
        for path in sorted(file.parent for file in folder.glob("**/pages.json")):
            name = str(path.relative_to(folder))
            found |= {f"{name}/{file}": content for file, content in read(path).items()}
            found[f"{name}/ends"] = (path / "job.log").read_text(encoding="utf-8").count("with exit code 0")
        return found


KINDS = {"training": Training, "features": Features, "index": Index, "batch": Batch}


def read(path: Path) -> dict[str, bytes]:
    """The files of a run that are the same in a repeat."""
    names = ("history.csv", "model.safetensors", "codes.npz", "metrics.json")
    return {name: (path / name).read_bytes() for name in names}


def pictures(home: Path) -> tuple[Path, Path]:
    """Two folders of digits as pictures, made when first asked for: 160, and 64 more."""
    folders = home / "pictures", home / "more"
    if not folders[1].is_dir():
        images = hh.data.load("digits").query.pool.images[:224]  # (224, 3, 32, 32)
        for folder, some in zip(folders, images.split([160, 64]), strict=True):
            folder.mkdir()
            for number, image in enumerate(some):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:03d}.png")
    return folders


def child(kind: str, folder: Path, last: int, connection) -> None:
    """The work, in a process of its own, which kills itself before its write number `last`; says how many it made."""
    made = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal made
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (opened or event in WRITES) and str(arguments[0]).startswith(str(folder)):
            made += 1
            if made == last:
                os.kill(os.getpid(), signal.SIGKILL)

    connection.send("ready")
    connection.recv()
    sys.addaudithook(count)
    KINDS[kind].work(folder)
    connection.send(made)


def attempt(kind: str, folder: Path, *, seconds=None, write: int = 0, family: bool = True) -> tuple[float, int] | None:
    """Start the work or go on with it -> its seconds and writes; None if it was killed.

    seconds: after which it is killed; write: before which it is; family: whether all its child processes die with it.
    """
    here, there = multiprocessing.Pipe()
    process = SERVER.Process(target=child, args=(kind, folder, write, there))
    process.start()
    there.close()
    here.recv()  # everything is imported
    began = time.perf_counter()
    here.send("go")
    try:
        if not here.poll(seconds):
            kill(process.pid, family)
            return None
        return time.perf_counter() - began, here.recv()
    except EOFError:
        return None
    finally:
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"{kind} in {folder} failed with exit code {process.exitcode}.")


def kill(pid: int, family: bool) -> None:
    """SIGKILL to a process and all below it; else only to it, the batch and Snakemake."""
    first = psutil.Process(pid)
    for process in (first, *first.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if family or process == first or {"tools/batch.py", "snakemake"}.intersection(process.cmdline()):
                process.kill()


def plan(kind: str, number: int, rng: random.Random, seconds: float, writes: int) -> dict:
    """How the kill of this number comes."""
    if number % 2 == 0 or kind == "batch":
        return dict(seconds=rng.uniform(0, seconds), family=number % 2 == 0)
    return dict(write=rng.randint(1, writes))


def same(a, b) -> bool:
    """Whether two results are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)  # a score that was not wanted is NaN


def main() -> int:
    """Kill until it is enough; 1 if anything differs."""
    given = parse()
    kind, rng = KINDS[given.what], random.Random(given.seed)
    killed, ends, differences = 0, 0, []
    with tempfile.TemporaryDirectory() as home:
        whole = Path(home) / "whole"
        pictures(whole.parent)
        seconds, writes = attempt(given.what, whole)
        expected, latest = kind.result(whole), min(seconds, given.longest)
        print(f"{given.what}: {seconds:.1f} s and {writes} writes in one go", flush=True)
        while killed < given.kills:
            folder, ended = Path(home) / f"number{ends}", None
            while not ended:
                how = plan(given.what, killed, rng, latest, writes) if killed < given.kills else {}
                ended = attempt(given.what, folder, **how)
                killed += ended is None
                differences += getattr(kind, "wrong", lambda _: [])(folder)
            found, ends = kind.result(folder), ends + 1
            differences += [name for name in expected | found if not same(expected.get(name), found.get(name))]
            print(f"{killed} kills, {ends} ends; differences: {', '.join(differences) or 'none'}", flush=True)
            row = dict(what=given.what, kills=killed, ends=ends, differences=len(differences))
            keep(row | dict(seconds=round(seconds, 1)))
    return int(bool(differences))


def keep(row: dict) -> None:
    """Put a row into the table, in place of an earlier one."""
    row |= {"processor": hh.runs.surroundings()["machine"]["cpu"]}
    old = pd.read_csv(TABLE, dtype=str) if TABLE.is_file() else pd.DataFrame(columns=[*row])
    with atomic(TABLE) as draft:
        pd.concat([old[old["what"] != row["what"]], pd.DataFrame([row])]).sort_values("what").to_csv(draft, index=False)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=KINDS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=math.inf, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
