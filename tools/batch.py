"""Run a batch: every combination of data sets, methods, networks, bits and seeds that a small YAML file lists.

    python tools/batch.py batches/small.yml [-p NAME VALUE]... [--dry-run] [--cores 2]
    python tools/batch.py batches/small.yml --profile slurm        (profiles/slurm; or kubernetes, or your own)

Snakemake runs the jobs, each through the notebooks, as `make run` does. What is finished is not run again, what was
stopped resumes; a job that fails does not stop the others, and is named at the end. `-p` takes settings for all
jobs, as everywhere; a list replaces that of the file: -p bits "16 32". The table of all finished runs is kept as
runs/<file's name>/table.csv, .md, .tex and .png. `--dry-run` lists the jobs and checks data, weights, memory and time.
"""

import argparse
import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from urllib.parse import quote

import yaml
from filelock import FileLock, Timeout
from run_notebooks import PROJECT, choose, parameter_parser

import hhlib as hh
from hhlib.common import check_choice, check_whole, command, nearest

GRID = hh.runs.NAMED  #: a batch runs every combination of these
KEYS = (*GRID, "settings", "pages", "resources")
KINDS = {"pages": list, "resources": dict, "settings": (str, dict)}  #: of the keys that are more than values
RESOURCES = {"threads": 1, "mem_mb": 4000, "runtime": 60, "gpu": 0}  #: of a job; runtime in minutes
#: Settings that say where and how a run is done, but change nothing in its result.
WHERE = ("data_dir", "runs_dir", "download", "cache", "device", "processes", "tensorboard", "resume", "live")


@dataclass(frozen=True)
class Job:
    """One run of a batch."""

    variant: str  #: the name of its settings in the file
    settings: hh.settings.Settings
    pages: tuple[str, ...]  #: numbers of the notebooks

    @cached_property
    def folder(self) -> str:
        """The run's folder; relative to the project, where it is inside.

        A part of its name is made from all settings that can change the result: a run with other settings has another
        folder, so nothing finished is ever overwritten, and a setting that is changed back finds what it had.
        """
        path = hh.runs.folder(self.settings)
        return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)

    @property
    def words(self) -> str:
        """What the command line of `tools/job.py` gets."""
        values = hh.settings.words(self.settings.changes().items())
        return shlex.join(["--variant", self.variant, "--only", *self.pages, "-p", "settings", values])

    @property
    def log(self) -> str:
        """What its `job.log` holds, of every start; "" before the first."""
        path = PROJECT / self.folder / "job.log"
        return path.read_text(errors="replace", encoding="utf-8") if path.is_file() else ""

    @property
    def counts(self) -> tuple[int, int]:
        """How often it was started, and how often it ended well, by its log."""
        return self.log.count("job started"), len(re.findall(r"job ended .* exit code 0\b", self.log))

    @property
    def finished(self) -> bool:
        """Whether all its pages have been executed."""
        return (PROJECT / self.folder / "pages.json").is_file()

    def __str__(self) -> str:
        name = self.settings.named()
        text = "{dataset}: {method}, {network} network, {bits} bits, seed {seed}".format(**name)
        return f"{text}, {self.variant}" if self.variant else text


@dataclass(frozen=True)
class Batch:
    """What a file asks for."""

    name: str
    jobs: list[Job]
    resources: dict

    @property
    def scored(self) -> bool:
        """Whether its pages make scores, and so a table."""
        return "04" in self.jobs[0].pages

    @property
    def folder(self) -> str:
        """Where the table is kept."""
        return f"{self.jobs[0].settings.runs_dir.rsplit('/', 2)[0]}/{self.name}"


def read(path: str | Path, given: str = "") -> Batch:
    """A batch from its file and from settings that count for all jobs, as text: "data_dir=/big bits=16,32".

    Raises:
        FileNotFoundError: without such a file.
        ValueError: for what is no YAML, a key or a page that does not exist, a value that does not fit, or jobs that
            are the same.
    """
    path = PROJECT / path
    content = _content(path)
    try:
        return _read(path.stem, content, given)
    except ValueError as error:
        raise ValueError(f"{path}{', or the command line' if given else ''}: {error}") from error


def _read(name: str, content: dict, given: str) -> Batch:
    """A batch of this name from what its file holds."""
    own = dict(hh.settings.reading.split(given))
    grid = {name: _values(name, own.pop(name, content.get(name, _usual(name)))) for name in GRID}
    variants = content.get("settings") or ""
    variants = variants if isinstance(variants, dict) else {"": variants}
    pages = tuple(str(page).zfill(2) for page in content.get("pages", ("03", "04")))
    choose(list(pages))
    jobs = [
        Job(name, _settings(text, own, dict(zip(GRID, values, strict=True))), pages)
        for values in product(*grid.values())
        for name, text in variants.items()
    ]
    first = {}
    for job in jobs:
        if first.setdefault(job.folder, job) is not job:
            raise ValueError(f"the same run is asked for twice: {first[job.folder]}; {job}.")
    return Batch(name, jobs, _resources(content.get("resources") or {}))


def _content(path: Path) -> dict:
    """The file as a dict with known keys."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no batch {path}; batches/ holds those that come with the kit.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold names and values, such as bits: [16, 32].")
    for key, value in content.items():
        if key not in KEYS:
            raise ValueError(f"{path} has {str(key)[:99]!r}, but it may have {', '.join(KEYS)}.{nearest(key, KEYS)}")
        if value is not None and not isinstance(value, KINDS.get(key, object)):
            raise ValueError(f"{path} has {key}: {str(value)[:99]}, but it must be as in batches/small.yml.")
    return content


def _usual(name: str) -> object:
    return getattr(hh.settings.Settings(), name)


def _values(name: str, given: object) -> list[str]:
    """One value, a list, or text with commas or blanks between values -> a list without repeats."""
    values = given if isinstance(given, list) else str(given).replace(",", " ").split()
    found = list(dict.fromkeys(map(str, values)))
    if not found:
        raise ValueError(f"{name} is empty, but a batch needs at least one.")
    return found


def _settings(text: str, own: dict, named: dict) -> hh.settings.Settings:
    """The settings of one job, in a folder named by them."""
    values = dict(hh.settings.reading.split(text)) | own  # the last one counts
    settings = hh.settings.read(hh.settings.words(values.items()), **named)
    decides = {key: value for key, value in _unusual(settings).items() if key not in (*WHERE, *GRID)}
    decides |= {"recipe": _unusual(settings.recipe)}
    digest = hashlib.sha256(str(sorted(decides.items(), key=str)).encode()).hexdigest()[:8]
    return replace(settings, runs_dir=f"{settings.runs_dir}/batch/{digest}")


def _unusual(given: hh.settings.Settings | hh.settings.Recipe) -> dict:
    """What differs from the defaults: so a setting that a later version adds moves no run."""
    usual = vars(type(given)())
    return {name: value for name, value in vars(given).items() if value != usual[name]}


def _resources(given: dict) -> dict:
    for name, value in given.items():
        check_choice("resources", name, RESOURCES)
        check_whole(name, value, 0 if name == "gpu" else 1)
    return RESOURCES | given


def snakemake(given: argparse.Namespace, text: str) -> int:
    """Run Snakemake on the project's Snakefile; -> its exit code."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile"), "--nolock"]
    command += ["--workflow-profile", f"profiles/{given.profile}", "--config", f"batch={given.file}"]
    if text:  # Snakemake reads values as YAML, which would take quotes off, and makes None of an empty one
        command += [f"settings={quote(text, safe='/=,:')}"]
    if given.profile == "default":
        command += ["--cores", str(given.cores or os.cpu_count())]
    here = str(Path(sys.executable).parent)  # so that `python` is this one in every job
    path = os.pathsep.join([here, os.environ.get("PATH", "")])
    plugin = os.pathsep.join([f"{PROJECT}/profiles/{given.profile}", os.environ.get("PYTHONPATH", "")])
    surroundings = os.environ | {"PATH": path, "PYTHONPATH": plugin.rstrip(os.pathsep)}  # a profile may bring a plugin
    return together([*command, *given.more], cwd=PROJECT, env=surroundings)


def together(command: list[str], **how) -> int:
    """Run a command -> its exit code. What asks this process to end reaches the command and all that it started, as
    Ctrl-C in a terminal does, and is raised once they have ended.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job would inherit that it is ignored
    try:
        process, stop = subprocess.Popen(command, start_new_session=True, **how), None
    finally:
        signal.signal(signal.SIGINT, before)
    while process.returncode is None:
        try:
            process.wait()
        except (KeyboardInterrupt, SystemExit) as asked:
            stop = asked
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.killpg(process.pid, signal.SIGINT)
    if stop is not None:
        raise stop
    return process.returncode


def report(batch: Batch) -> None:
    """Say which jobs are not finished, and why."""
    missing = [job for job in batch.jobs if not job.finished]
    print(f"\n{len(batch.jobs) - len(missing)} of {len(batch.jobs)} runs are finished.", end="")
    table = f" The table: {batch.folder}/table.md" if batch.scored else ""
    print(" The same command runs the others:" if missing else table)
    for job in missing:
        print(f"  {job}: {_reason(job)}")


def _reason(job: Job) -> str:
    """What the log of a job says last, and where it is."""
    path = PROJECT / job.folder / "job.log"
    if not path.is_file():
        return "not started"
    lines = [line for line in job.log.splitlines() if line.strip()]
    failed = [line for line in lines[-20:] if " failed: " in line]
    return f"{(failed or lines or ['stopped'])[-1]} ({path})"


def parse() -> argparse.Namespace:
    """The command line; what it does not know goes to Snakemake."""
    parser = parameter_parser(__doc__)
    parser.add_argument("file", help="such as batches/small.yml")
    parser.add_argument("--profile", default="default", help="a folder of profiles/: default, slurm, kubernetes")
    parser.add_argument("--cores", type=int, help="cores of this machine to use; default: all")
    parser.add_argument("--dry-run", action="store_true", help="list and check, but run nothing")
    given, given.more = parser.parse_known_args()
    return given


@command
def main() -> int:
    """Run a batch; -> 0, 1 if a job failed, 2 for a request that is wrong."""
    os.chdir(PROJECT)
    given = parse()
    text = hh.settings.words(given.parameter)
    batch = read(given.file, text)
    check_choice("profile", given.profile, [path.name for path in sorted((PROJECT / "profiles").iterdir())])
    if given.dry_run:
        from preflight import check

        return check(batch)
    try:
        with FileLock(_lock(batch), timeout=0):  # let go by the system when this process ends, however it ends
            code = snakemake(given, text)
    except Timeout:
        raise RuntimeError(f"another process runs a batch of this project ({_lock(batch)}).") from None
    report(batch)
    return int(code != 0)


def _lock(batch: Batch) -> Path:
    path = PROJECT / batch.folder / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    sys.exit(main())
