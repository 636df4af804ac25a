"""Faults of a machine and of its user, tried one after the other: what is said, the exit code, what is left.

    python benchmarks/faults.py [NAME ...] [--keep results/faults.csv]

Needs Linux, and a user who may mount (`unshare --map-root-user --mount`): full disks are small ones in memory. Each
fault meets a command of the kit or a few lines of Python, in a process of its own, on twenty small pictures. `--keep`
writes the table; rows of the same name are replaced. What takes no time is in tests/test_faults.py.
"""

import argparse
import csv
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
COLUMNS = ("fault", "what was done", "what was said", "exit code", "what was left")
TRAIN = "python tools/train.py -p dataset pictures -p bits 8 -p image_size 32 -p epochs 3 -p batch_size 4 -p device cpu"
TRAIN += " -p precision float32 -p runs_dir runs -p data_dir data"
PAGE = "python tools/run_notebooks.py -p dataset pictures -p bits 8 -p image_size 32 -p epochs {epochs} -p batch_size 4"
PAGE += " -p precision float32 -p runs_dir runs -p data_dir data --only {page}"
INDEX = "python -m hhlib.shell index pictures --bits 16 --size 32 --to runs/index"
EVALUATE = "python -c 'from hhlib import metrics; z = [[1, -1], [-1, 1]]; print(metrics.evaluate(z, [0, 1], z, [0, 1])[\"map\"][\"expected\"])'"
#: In a script without the line `if __name__ == "__main__":`, where processes start afresh.
SCRIPT = """import multiprocessing; multiprocessing.set_start_method({how!r})
import hhlib as hh
ex = hh.open(dataset="pictures", bits=8, image_size=32, epochs=1, batch_size=4, runs_dir="runs", data_dir="data"{more})
ex.fit(); print(len(hh.index.build("pictures", run=ex.run, where="runs/index")), "pictures are in the index")
"""


class Place:
    """A folder with pictures, where one fault is tried; what is mounted there is gone with the process.

    Attributes:
        folder: with `pictures/`, and `runs/` once something was made.
        before: commands of a shell that make the fault.
        environment: variables that make it; None takes one away.
    """

    def __init__(self, folder: Path, before: str = "", **environment: str | None):
        self.folder, self.before, self.environment = folder, before, environment
        rng = np.random.default_rng(0)
        for name in ("red", "green"):
            (folder / "pictures" / name).mkdir(parents=True)
            for number in range(10):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
        (folder / "runs").mkdir()
        for name in ("hhlib", "tools", "notebooks", "results"):
            (folder / name).symlink_to(PROJECT / name)

    def start(self, command: str) -> subprocess.Popen:
        """A command in this place, with its fault; the leader of a group of processes."""
        around = {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"} | self.environment
        surroundings = {k: v for k, v in (os.environ | around).items() if v is not None}
        python = f"python() {{ {shlex.quote(sys.executable)} \"$@\"; }}\n"
        command = f"exec {shlex.quote(sys.executable)}{command.removeprefix('python')}" if "|" not in command else command
        text = f"{python}cd {shlex.quote(str(self.folder))}\n{self.before}\n{command}"
        how = ["unshare", "--map-root-user", "--mount", "bash", "-o", "pipefail", "-c", text]
        into = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace")
        return subprocess.Popen(how, env=surroundings, start_new_session=True, **into)

    def run(self, command: str) -> tuple[str, int]:
        """What a command said, without its progress, and its exit code."""
        return self.end(self.start(command))

    def end(self, process: subprocess.Popen) -> tuple[str, int]:
        """The same of a command that was started. RuntimeError if it hangs."""
        try:
            said, _ = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "HANGS", process.wait()
        return told(said, self.folder), process.returncode

    def stopped(self, command: str, number: int, *, group: bool, sign: str = "epoch   1/") -> tuple[str, int]:
        """What a command said that got a signal once it had printed a sign of its work; alone, or its whole group."""
        process, lines = self.start(command), []
        for line in process.stdout:
            lines.append(line)
            if sign in line:
                break
        time.sleep(0.3)
        (os.killpg if group else os.kill)(process.pid, number)
        said, code = self.end(process)
        return said or told("".join(lines), self.folder), code

    def left(self, *names: str) -> str:
        """Which of these files or folders are left."""
        found = [name for name in names if [*self.folder.glob(f"runs/**/{name}")]]
        drafts = [path.name for path in self.folder.glob("runs/**/.*.*.*") if path.is_file()]
        return ", ".join(found + [f"DRAFT {name}" for name in drafts]) or "nothing"


def told(said: str, folder: Path) -> str:
    """The last line that was said, without progress and machine paths, and how many lines of a traceback came before."""
    lines = [line for line in re.split(r"[\r\n]+", said) if line.strip() and "it/s" not in line and "picture/s" not in line]
    last = lines[-1].replace(f"{folder}/", "").replace(str(folder), ".") if lines else ""
    return f"TRACEBACK, {last}" if "Traceback" in said else last
