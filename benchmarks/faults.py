"""Faults of a machine and of its user, tried one after the other: what is said, the exit code, what is left.

    python benchmarks/faults.py [NAME ...] [--keep results/faults.csv]

Needs Linux, and a user who may mount (`unshare --map-root-user --mount`): full disks are small ones in memory. Each
fault meets a command of the kit or a few lines of Python, in a process of its own, on 26 small pictures. `--keep`
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
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
COLUMNS = ("fault", "what was done", "what was said", "exit code", "what was left")
HOW = "-p dataset $PWD/pictures -p bits 8 -p image_size 32 -p batch_size 4 -p device cpu -p precision float32"
HOW += " -p runs_dir $PWD/runs -p data_dir $PWD/data -p epochs"
TRAIN = f"python tools/train.py {HOW} 3"
PAGE = f"python tools/run_notebooks.py {HOW} {{epochs}} --only {{page}}"
INDEX = "python -m hhlib.shell index pictures --bits 16 --size 32 --to runs/index"
SEARCH = "python -m hhlib.shell search pictures/train/green/3.png --index runs/index -k 15"
SCORE = "from hhlib import metrics; z = [[1, -1], [-1, 1]]; f = lambda _: metrics.evaluate(z, [0, 1], z, [0, 1])"
SCORE += "['map']['expected']; "
EVALUATE = f'python -c "{SCORE} print(f(0))"'
THREADS = f'python -c "{SCORE} from concurrent.futures import ThreadPoolExecutor as P; print(*P(4).map(f, range(40)))"'
FORKED = SCORE.replace(
    "f = lambda _: metrics.evaluate(z, [0, 1], z, [0, 1])['map']['expected']", "a = (z, [0, 1], z, [0, 1])"
)
FORKED += (
    "metrics.evaluate(*a); from multiprocessing import Pool; print(len(Pool(2).starmap(metrics.evaluate, [a] * 4)))"
)
FORKED = f'python -c "{FORKED}"'
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
        for where, count in (("train/red", 10), ("train/green", 10), ("test/red", 3), ("test/green", 3)):
            (folder / "pictures" / where).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "pictures" / where / f"{number}.png")
        (folder / "runs").mkdir()
        for name in ("hhlib", "tools", "notebooks", "results"):
            (folder / name).symlink_to(PROJECT / name)

    def start(self, command: str, **streams: int) -> subprocess.Popen:
        """A command in this place, with its fault; the leader of a group of processes. streams: those of `Popen`."""
        around = {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"} | self.environment
        surroundings = {k: v for k, v in (os.environ | around).items() if v is not None}
        command = re.sub(r"\bpython (?=-|\w+[./])", f"{shlex.quote(sys.executable)} ", command)
        single = "exec " if not re.search("[|;&]{1,2} ", command.split('"')[0]) else ""  # it gets the signals itself
        if "mount" in self.before:  # what is mounted cannot be seen from outside
            single, command = "", f"{command}; code=$?; cp -r runs kept; exit $code"
        text = f"cd {shlex.quote(str(self.folder))} && {self.before or 'true'}\n{single}{command}"
        how = ["unshare", "--map-root-user", "--mount", "bash", "-o", "pipefail", "-c", text]
        into = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace")
        return subprocess.Popen(how, env=surroundings, start_new_session=True, **into | streams)

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
        there = [path for place in ("runs", "kept") for path in self.folder.glob(f"{place}/**/*") if path.is_file()]
        found = [name for name in names if any(path.match(name) for path in there)]
        drafts = [path.name for path in there if re.fullmatch(r"\.\S+\.\d+(\.\w+)?", path.name)]
        return ", ".join(found + [f"DRAFT {name}" for name in drafts]) or "nothing"


def told(said: str, folder: Path) -> str:
    """The last line that was said, without progress and the folder's name; marked if there was a traceback."""
    lines = [line for line in re.split(r"[\r\n]+", said) if line.strip() and not re.search("it/s|picture/s", line)]
    last = lines[-1].replace(f"{folder}/", "").replace(str(folder), ".") if lines else ""
    return f"a traceback, then: {last}" if "Traceback" in said else last


FULL, FULLER = (f"mount -t tmpfs -o size={size}k tmpfs runs" for size in (600, 60))
READ_ONLY = "mount --bind runs runs && mount -o remount,ro,bind runs"
LITTLE_SHARED = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
OLD_PICTURES = (
    "find pictures -name '*.png' | head -10 | xargs touch -d 1969-12-31; touch -d 2150-01-01 pictures/*/red/*"
)
LATIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UMLAUTS = 'for part in train test; do mv pictures/$part/red "pictures/$part/Äpfel 苹果"; done'

ONE = "dataset: digits\nbits: 8\npages: [3]\n"
ONE += "settings: epochs=20 net.embed_dims=8,16,16 net.num_heads=1,1,1 net.depths=1,1,1\n"

Tried = tuple[str, str, int, str]  #: what was done, what was said, exit code, what was left
STATE = ("training_state.pt", "model.safetensors", "history.csv")


def quick(does: str, before: str = "", *left: str, **environment: str | None) -> Callable[[Path], Tried]:
    """A fault that is there before a command starts."""

    def tried(folder: Path) -> Tried:
        place = Place(folder, before, **environment)
        said, code = place.run(does)
        return does, said, code, place.left(*left) if left else ""

    return tried


def stop(number: int, does: str, sign: str, *, group: bool) -> Callable[[Path], Tried]:
    """A signal to a command at work, alone or to all that it started; then the same command again."""

    def tried(folder: Path) -> Tried:
        place = Place(folder)
        said, code = place.stopped(does, number, group=group, sign=sign)
        again, second = place.run(does)
        return does, said, code, f"the same command again, exit code {second}: {again}"

    return tried


def script(how: str, more: str = "") -> Callable[[Path], Tried]:
    """A script without a main guard, where processes start afresh."""

    def tried(folder: Path) -> Tried:
        place = Place(folder)
        (folder / "script.py").write_text(SCRIPT.format(how=how, more=more), encoding="utf-8")
        return "train and index in a script without a main guard", *place.run("python script.py"), place.left(*STATE)

    return tried


def killed_process(folder: Path) -> Tried:
    """One of two training processes is killed."""
    place = Place(folder)
    does = f"{TRAIN} -p processes 2".replace("-p epochs 3", "-p epochs 200")
    process = place.start(does)
    for line in process.stdout:
        if "epoch   2/" in line:
            break
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, encoding="utf-8")
    spawned = [int(child) for child in children.stdout.split()]
    victims = [child for child in spawned if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text("utf-8")]
    os.kill(victims[-1], signal.SIGKILL)
    return does, *place.end(process), place.left(*STATE)


def stopped_batch(folder: Path) -> Tried:
    """A batch gets SIGTERM while its job trains; then the same command again."""
    place, does = Place(folder), "python tools/batch.py $PWD/one.yml -p runs_dir $PWD/runs"
    (folder / "one.yml").write_text(ONE, encoding="utf-8")
    process = place.start(does)
    while not any("trains" in log.read_text(encoding="utf-8") for log in folder.glob("runs/**/job.log")):
        time.sleep(0.1)
    time.sleep(2)
    os.kill(process.pid, signal.SIGTERM)
    said, code = place.end(process)
    (log,) = folder.glob("runs/**/job.log")
    said = f"{said} | the job: {log.read_text(encoding='utf-8').splitlines()[-1].strip()}"
    again, second = place.run(does)
    return does, said, code, f"the same command again, exit code {second}: {again}"


def closed_terminal(folder: Path) -> Tried:
    """The terminal of a training is closed; then the same command again."""
    import pty  # of Linux and macOS

    place, does = Place(folder, 'exec 0<>"$(tty)"'), TRAIN.replace("epochs 3", "epochs 20")
    keyboard, screen = pty.openpty()
    process = place.start(does, stdin=screen, stdout=screen, stderr=screen)  # which opens its terminal, and so owns it
    os.close(screen)
    said = b""
    while b"epoch   1/" not in said:
        said += os.read(keyboard, 1 << 12)
    os.close(keyboard)
    code = process.wait(60)
    again, second = place.run(does)
    return does, "nothing: nobody reads it", code, f"the same command again, exit code {second}: {again}"


FAULTS: dict[str, Callable[[Path], Tried]] = {
    "disk full while training": quick(TRAIN, FULL, *STATE),
    "disk full while indexing": quick(INDEX, FULL, "index.json"),
    "disk full while a page runs": quick(PAGE.format(epochs=1, page="00"), FULLER, "*.ipynb", "*.html"),
    "runs are on a read-only disk: training": quick(TRAIN, READ_ONLY),
    "runs are on a read-only disk: a page": quick(PAGE.format(epochs=1, page="00"), READ_ONLY),
    "runs are on a read-only disk: an index": quick(INDEX, READ_ONLY),
    "/dev/shm of 64 KB: training": quick(TRAIN, LITTLE_SHARED, *STATE),
    "/dev/shm of 64 KB: an index": quick(INDEX, LITTLE_SHARED, "index.json"),
    "processes are spawned": script("spawn"),
    "processes start from a forkserver": script("forkserver"),
    "processes are spawned, two of them train": script("spawn", ", processes=2"),
    "one of two training processes is killed": killed_process,
    "Ctrl-C while training": stop(signal.SIGINT, TRAIN.replace("epochs 3", "epochs 20"), "epoch   1/", group=True),
    "SIGTERM while training": stop(signal.SIGTERM, TRAIN.replace("epochs 3", "epochs 20"), "epoch   1/", group=True),
    "Ctrl-C on the runner": stop(signal.SIGINT, PAGE.format(epochs=20, page="03"), "epoch   1/", group=True),
    "SIGTERM to the runner alone": stop(signal.SIGTERM, PAGE.format(epochs=20, page="03"), "epoch   1/", group=False),
    "SIGTERM to a batch alone": stopped_batch,
    "the terminal is closed while training": closed_terminal,
    "no git, and nothing else on the path": quick(TRAIN, "PATH=/nowhere", *STATE),
    "no HOME, and no place for numba's cache": quick(EVALUATE, HOME="/nowhere", NUMBA_CACHE_DIR="/proc/none"),
    "no HOME: a page": quick(PAGE.format(epochs=1, page="00"), "", "index.html", HOME="/proc/none"),
    "TMPDIR is missing": quick(TRAIN, "", *STATE, TMPDIR="/nowhere"),
    "WORLD_SIZE=2 is left over": quick(TRAIN, "", *STATE, WORLD_SIZE="2"),
    "LOCAL_RANK=0 is left over": quick(TRAIN, "", *STATE, LOCAL_RANK="0"),
    "PMI_SIZE=4 is left over": quick(TRAIN, "", *STATE, PMI_SIZE="4", PMI_RANK="0"),
    "ASCII, names with umlauts: training": quick(TRAIN, UMLAUTS, *STATE, **LATIN),
    "ASCII, names with umlauts: a page": quick(PAGE.format(epochs=1, page="00"), UMLAUTS, "index.html", **LATIN),
    "ASCII, names with umlauts: an index": quick(f"{INDEX} && {SEARCH}", UMLAUTS, **LATIN),
    "the reader of the output leaves": quick(f"{TRAIN} | head -1", "", *STATE),
    "the output goes to a full disk": quick(f"{INDEX} > /dev/full", "", "index.json"),
    "python -O": quick(TRAIN.replace("bits 8", "bits 0"), PYTHONOPTIMIZE="1"),
    "pictures of 1969 and 2150": quick(f"{INDEX} && {INDEX}", OLD_PICTURES),
    "two threads without OpenMP": quick(THREADS, NUMBA_THREADING_LAYER="workqueue"),
    "a fork after a score": quick(FORKED),
    "OMP_NUM_THREADS=abc": quick(EVALUATE, OMP_NUM_THREADS="abc"),
    "OMP_NUM_THREADS=0": quick(EVALUATE, OMP_NUM_THREADS="0"),
}


def main() -> int:
    """Try the faults that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="faults; all without")
    parser.add_argument("--keep", type=Path, help="a table to write")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # what is tried must not inherit that they are ignored
    rows = {}
    if given.keep and given.keep.is_file():
        with given.keep.open(encoding="utf-8", newline="") as file:
            rows = {row["fault"]: row for row in csv.DictReader(file)}
    for name in given.names or FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = dict(zip(COLUMNS, (name, *FAULTS[name](Path(folder).resolve())), strict=True))
        print(name, *list(rows[name].values())[2:], sep="\n    ", flush=True)
        if given.keep:
            with given.keep.open("w", encoding="utf-8", newline="") as file:
                table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                table.writeheader()
                table.writerows(rows[name] for name in FAULTS if name in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
