"""A batch that is killed at random moments, and started again, repeats no finished job.

    python benchmarks/batch_kills.py [batches/small.yml] [--kills 3] [-p NAME VALUE]...

`tools/batch.py` is started, killed with SIGKILL after a random time (in turn with all its children, and without its
jobs, which then outlive it), and started again; the last start ends by itself. Then the logs of the jobs are counted:
each job must have ended exactly once, and only jobs that a kill interrupted may have started more than once. The runs
land in a fresh folder, which stays if something is wrong.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "tools"))

import batch as batches  # noqa: E402, from the folder above
import psutil  # noqa: E402


def start(command: list[str]) -> subprocess.Popen:
    """The batch, in a session of its own."""
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, start_new_session=True)


def kill(process: subprocess.Popen, everything: bool) -> int:
    """SIGKILL to the batch and Snakemake, and to all their children too if asked for; -> how many were killed."""
    family = psutil.Process(process.pid).children(recursive=True)
    chosen = [process.pid, *(p.pid for p in family if everything or "snakemake" in " ".join(p.cmdline()))]
    for pid in chosen:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return len(chosen)


def main() -> int:
    """Kill, start again, count; 1 if a job was repeated or is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", default="batches/small.yml")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--longest", type=float, default=150, help="seconds until a kill, at most")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    given = parser.parse_args()
    place = PROJECT / "runs" / f"kills-{os.getpid()}"
    pairs = [*given.p, ["runs_dir", str(place)]]
    command = [sys.executable, "tools/batch.py", given.file, *sum((["-p", *pair] for pair in pairs), [])]
    jobs = batches.read(given.file, " ".join(f"{name}={value}" for name, value in pairs)).jobs
    began, rng = time.perf_counter(), random.Random()
    for number in range(given.kills):
        process, after = start(command), rng.uniform(20, given.longest)
        try:
            process.wait(timeout=after)
            print("it ended before it could be killed; use more jobs or a smaller --longest")
            return 1
        except subprocess.TimeoutExpired:
            killed = kill(process, everything=number % 2 == 0)
        done = f"{sum(job.finished for job in jobs)} of {len(jobs)} jobs finished"
        print(f"kill {number + 1} after {after:.0f} s: {killed} processes; {done}", flush=True)
    code = start(command).wait()
    found = [job.counts for job in jobs]
    again = [started for started, _ in found if started > 1]
    minutes = (time.perf_counter() - began) / 60
    table = place / Path(given.file).stem / "table.csv"
    print(f"last start: exit code {code}; {minutes:.1f} minutes in all; table made: {table.is_file()}")
    print(f"{len(jobs)} jobs; started more than once: {len(again)}; ended more or less than once: "
          f"{sum(ended != 1 for _, ended in found)}")  # fmt: skip
    good = code == 0 and all(ended == 1 for _, ended in found)
    if good:
        shutil.rmtree(place)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
