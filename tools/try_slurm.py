"""Show that a batch runs on SLURM, also when a run, a node or the batch itself is taken away.

    apt-get install slurm-wlm munge        (Debian; as root)
    python tools/try_slurm.py

It starts a SLURM of two nodes on this machine (`private_slurm.py`) and runs a batch of eight small runs on it; one run
is cancelled and one node drained, and the same command is given again. Then a batch of two runs is killed while SLURM
works on them, and given again. It exits with 0 if all checks hold, 1 if not, and 2 if this machine cannot run it. All
it writes lies in a temporary folder, which is removed at the end, also after Ctrl-C. It takes 20 minutes on two cores
that have other work too.
"""

import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import batch as batches
import psutil
from private_slurm import Cluster, missing, wait_for

PROJECT = batches.PROJECT
BATCH = """\
dataset: {datasets}
method: [hybridhash, csq]
network: [micro]
bits: {bits}
seed: [{seed}]
settings: epochs=2 validate_every=1
pages: ["03", "04"]
resources: {{threads: 1, mem_mb: 3000, runtime: 20, gpu: 1}}
"""
GRID = BATCH.format(datasets="[digits, shapes]", bits="[16, 32]", seed=0)
PAIR = BATCH.format(datasets="[digits]", bits="[16]", seed=1)
#: SLURM has no accounting database here, and these runs are shorter than those of a real batch.
OPTIONS = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5", "--drop-metadata")
LIMIT = 3600  #: seconds that one call of the batch may take
FIELDS = ("JobID", "State", "NodeList", "tres-per-job", "StartTime", "EndTime", "Comment")
INTRODUCTION = """\
Batches on a SLURM of two nodes, n1 and n2, which was started on this machine for them. Each node has one core and one
GPU that does not exist, so that SLURM sees the batch's request for one. Below, PROJECT stands for the project's folder,
PYTHON for that of Python, and TRIAL for the temporary folder that holds all runs. Lines that begin with | come from the
batch (without the one that names this machine); what they say about an account is the SLURM executor's guess at one:
here there are none."""


class Trial:
    """Batches on a private cluster, and what was found about them."""

    def __init__(self, cluster: Cluster):
        self.cluster, self.folder = cluster, cluster.folder
        self.checks: list[bool] = []
        self.process: subprocess.Popen | None = None
        self.lines: list[str] = []  #: what the batch printed last
        self.jobs: list[batches.Job] = []  #: of the batch at hand
        self.known: list[batches.Job] = []  #: of all batches

    def play(self) -> bool:
        """The whole story; -> whether all checks hold."""
        self.say(INTRODUCTION)
        self.slurm("sinfo", "--version")
        self.slurm("sinfo", "-N", "-o", "%N %T %c %m %G")
        self.title("A batch of eight runs; one run is cancelled and one node drained")
        self.prepare("grid", GRID)
        killed, seen, kept = self.first_call()
        self.slurm("scontrol", "update", "nodename=n2", "state=resume")
        self.slurm("sinfo", "-N", "-o", "%N %T")
        self.title("The same command again")
        self.second_call(killed, seen, kept)
        self.title("A batch of two runs; the batch is killed, SLURM goes on, and the batch is started again")
        self.prepare("pair", PAIR)
        self.killed_batch()
        self.title(f"{sum(self.checks)} of {len(self.checks)} checks hold")
        return all(self.checks)

    def prepare(self, name: str, text: str) -> None:
        """Write a batch's file."""
        self.file = self.folder / f"{name}.yml"
        self.file.write_text(text, encoding="utf-8")
        self.say(f"\n{self.file}:")
        self.say(text, "  ")
        self.jobs = batches.read(self.file, f"runs_dir={self.folder}/runs").jobs
        self.known += self.jobs

    def first_call(self) -> tuple[batches.Job, set, dict]:
        """One run is cancelled, one node drained.

        Returns:
            The cancelled run, SLURM's numbers of the jobs so far, and when each finished run was finished.
        """
        self.start()
        victim = wait_for(lambda: self.at_work("n1"), LIMIT, "a run that trains on n1")
        killed = self.job_of(victim)
        self.say(f"\n{killed} trains on n1. It is cancelled:")
        self.queue_table()
        self.slurm("scancel", victim["JobID"])
        self.say("\nNode n2 is drained: it finishes what it has begun, and gets nothing new.")
        self.slurm("scontrol", "update", "nodename=n2", "state=drain", "reason=trial")
        before = {row["JobID"] for row in self.queue() if row["State"] != "PENDING"}
        time.sleep(3)
        self.queue_table()
        self.slurm("sinfo", "-N", "-o", "%N %T %E")
        code = self.end()
        self.slurm("sinfo", "-N", "-o", "%N %T %E")
        rows = self.queue_table("all")
        after = [row for row in rows if row["JobID"] not in before]
        state = next(row["State"] for row in rows if row["JobID"] == victim["JobID"])
        self.say()
        self.check(f"the batch ended with exit code 1 (it was {code})", code == 1)
        self.check(f"SLURM calls the cancelled job CANCELLED (it is {state})", state == "CANCELLED")
        self.check("every job asked SLURM for one GPU", all(row["tres-per-job"] == "gres:gpu:1" for row in rows))
        on_n1 = [row for row in after if row["NodeList"] == "n1"]
        self.check(f"all {len(after)} jobs that started after draining ran on n1", after and on_n1 == after)
        self.check("the cancelled run is the only one that is not finished", self.unfinished() == [killed])
        named = [job for job in self.jobs if any(line.startswith(f"  {job}: ") for line in self.lines)]
        self.check("the batch names it as the only one that is missing", named == [killed])
        return killed, {row["JobID"] for row in rows}, self.finished()

    def second_call(self, killed: batches.Job, seen: set, kept: dict) -> None:
        """The same command again, on both nodes."""
        self.start()
        code = self.end()
        new = [self.job_of(row) for row in self.queue_table("all") if row["JobID"] not in seen]
        self.say()
        self.check(f"the batch ended with exit code 0 (it was {code})", code == 0)
        self.check("one new SLURM job ran, that of the cancelled run", new == [killed])
        self.check("all runs are finished", not self.unfinished())
        self.check("those of the first call were not touched", kept.items() <= self.finished().items())
        starts, ends, once = self.counted()
        self.check("by the job logs, every run ended exactly once", ends == once)
        self.check("every run started once, the cancelled one twice", starts == once | {killed.folder: 2})
        table = self.folder / "runs" / "grid" / "table.csv"
        rows = len(table.read_text(encoding="utf-8").splitlines()) - 1 if table.is_file() else 0
        self.check(f"the table has a row for each run ({rows} rows)", rows == len(self.jobs))

    def killed_batch(self) -> None:
        """The batch ends without a word, as when the login node goes down; its SLURM jobs go on."""
        self.start()
        wait_for(lambda: self.at_work("n1") and self.at_work("n2"), LIMIT, "two runs that train")
        self.stop()
        self.say("\nBoth runs train. The batch and its Snakemake were killed (SIGKILL), and are started again:")
        self.queue_table()
        self.start()
        code = self.end()
        rows = [row for row in self.queue_table("all") if self.job_of(row) in self.jobs]
        self.say()
        self.check(f"the batch ended with exit code 0 (it was {code})", code == 0)
        completed = [row for row in rows if row["State"] == "COMPLETED"]
        self.check(f"SLURM's {len(rows)} jobs for the two runs all completed", completed == rows)
        starts, ends, once = self.counted()
        self.check("by the job logs, every run started once and ended once", starts == ends == once)

    def start(self) -> None:
        """Start the batch."""
        command = ["tools/batch.py", str(self.file), "--profile", "slurm", "-p", "runs_dir", f"{self.folder}/runs"]
        command += [*OPTIONS, "--slurm-logdir", f"{self.folder}/logs"]
        self.say(f"\n$ python {shlex.join(command)}")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        self.process = subprocess.Popen([sys.executable, *command], cwd=PROJECT, env=self.cluster.environment, **pipes)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        """Print what the batch prints, and keep it."""
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if not line.startswith("host: "):  # the name of this machine
                self.say(line, "| ")

    def end(self) -> int:
        """Wait for the batch; -> its exit code."""
        code = self.process.wait(LIMIT)
        self.reader.join()
        return code

    def stop(self) -> None:
        """End the batch, if it runs, without its leave."""
        if self.process and self.process.poll() is None:
            batch = psutil.Process(self.process.pid)
            for process in (batch, *batch.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.end()

    def at_work(self, node: str) -> dict | None:
        """The SLURM job on a node, if its run has trained an epoch."""
        if self.process.poll() is not None:
            raise RuntimeError("the batch ended before it could be disturbed.")
        running = [row for row in self.queue() if row["State"] == "RUNNING" and row["NodeList"] == node]
        return next((row for row in running if "epoch" in self.job_of(row).log), None)

    def queue(self) -> list[dict]:
        """All of SLURM's jobs, those that have ended too."""
        text = self.cluster.run("squeue", "-h", "-t", "all", "-O", ",".join(f"{name}:|" for name in FIELDS))
        return [dict(zip(FIELDS, line.split("|"), strict=False)) for line in text.splitlines()]

    def queue_table(self, states: str = "PD,R,CG") -> list[dict]:
        """Print SLURM's queue; -> `queue()`."""
        self.slurm("squeue", "-t", states, "-S", "i", "-o", "%.5i %.10T %.8N %.8M %k")
        return self.queue()

    def job_of(self, row: dict) -> batches.Job:
        """The run that a SLURM job is for; its comment ends with the run's folder."""
        return next(job for job in self.known if row["Comment"].endswith(job.folder.replace("/", "_")))

    def counted(self) -> tuple[dict, dict, dict]:
        """Starts and ends of each run, by its job log, and what they are when each is one; printed too."""
        starts, ends = ({job.folder: job.counts[place] for job in self.jobs} for place in (0, 1))
        for job in self.jobs:
            self.say(f"  {job}: started {starts[job.folder]}, ended {ends[job.folder]}")
        return starts, ends, {job.folder: 1 for job in self.jobs}

    def unfinished(self) -> list[batches.Job]:
        """The runs without a last file."""
        return [job for job in self.jobs if not job.finished]

    def finished(self) -> dict[str, int]:
        """When the last file of each finished run was written."""
        paths = {job.folder: PROJECT / job.folder / "pages.json" for job in self.jobs}
        return {folder: path.stat().st_mtime_ns for folder, path in paths.items() if path.is_file()}

    def slurm(self, *command: str) -> None:
        """Run a command of SLURM and show it."""
        self.say(f"\n$ {shlex.join(command)}")
        if output := self.cluster.run(*command):
            self.say(output, "  ")

    def check(self, text: str, holds: bool) -> None:
        """Say whether something holds, and keep it for the end."""
        self.checks.append(bool(holds))
        self.say(f"  {'yes' if holds else 'NO '}  {text}")

    def title(self, text: str) -> None:
        """Begin a part of the log."""
        self.say(f"\n=== {time.strftime('%H:%M:%S')} {text} ===")

    def say(self, text: str = "", begin: str = "") -> None:
        """Print, with short names for folders."""
        for path, name in ((self.folder, "TRIAL"), (PROJECT, "PROJECT"), (sys.prefix, "PYTHON")):
            text = text.replace(str(path), name).replace(str(path).replace("/", "_"), name)
        for line in text.splitlines() or [""]:
            print((begin + line).rstrip(), flush=True)


def main() -> int:
    """Run the trial; -> 0 if all held, 1 if not, 2 if this machine cannot run it."""
    if lack := missing():
        print(lack, file=sys.stderr)
        return 2
    for name in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: everything is stopped and removed
        signal.signal(name, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="slurm-") as folder, Cluster(Path(folder)) as cluster:
            trial = Trial(cluster)
            try:
                return int(not trial.play())
            finally:
                trial.stop()
    except KeyboardInterrupt:
        print("stopped; the private SLURM and its folder are gone.", file=sys.stderr)
        return 130
    except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
