"""A SLURM of two nodes on this machine, of which nothing is left when it ends. `try_slurm.py` uses it.

It needs Debian's packages slurm-wlm and munge, and root. All daemons listen on 127.0.0.1 only, on free ports, with a
key of their own, and write into one folder; there is no accounting database and no cgroup. Each node has one core, 4 GB
and one GPU that does not exist: it shows that a request for a GPU reaches SLURM.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PROGRAMS = (*DAEMONS, "sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol")
NODES = ("n1", "n2")

CONFIGURATION = """
ClusterName=trial
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
# Without a database, what ended is known for as long as slurmctld remembers it.
MinJobAge=86400
KillWait=5
"""
NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000 Gres=gpu:1\n"
GPUS = "NodeName=n[1-2] Name=gpu File=/dev/null\n"
# The SLURM executor starts a job with srun, and without SLURM_CONF in its environment.
SRUN = '#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {srun} "$@"\n'


def missing() -> str:
    """What this machine lacks, as a sentence; "" if nothing."""
    if os.geteuid() != 0:
        return "a private SLURM starts jobs as SLURM does, which only root may."
    if lacking := [name for name in PROGRAMS if not shutil.which(name)]:
        return f"{', '.join(lacking)} not found; on Debian: apt-get install slurm-wlm munge."
    return ""


class Cluster:
    """The daemons, while the `with` block runs; `environment` makes SLURM's commands speak to them."""

    def __init__(self, folder: Path):
        self.folder, self.daemons = folder, []
        self.environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf"}
        self.environment["PATH"] = f"{folder}/bin:{os.environ['PATH']}"

    def __enter__(self):
        self._write()
        try:
            self._start("munged", "--foreground", *(f"--{name}={self.folder / file}" for name, file in MUNGE.items()))
            wait_for((self.folder / "munge.socket").exists, 20, "munged")
            self._start("slurmctld", "-D", "-c")
            for name in NODES:
                self._start("slurmd", "-D", "-N", name)
            wait_for(lambda: self.run("sinfo", "-h", "-o", "%D %t", check=False).split() == ["2", "idle"], 60, "nodes")
        except BaseException as error:
            words = self._last_words()
            self.__exit__()
            if isinstance(error, TimeoutError):
                raise RuntimeError(f"{error}\n{words}") from error
            raise
        return self

    def __exit__(self, *_):
        """End every job and every daemon."""
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)  # an impatient second Ctrl-C must not leave a daemon
        self.run("scancel", "--user", "root", check=False)
        with suppress(TimeoutError):
            wait_for(lambda: not self.run("squeue", "-h", check=False), 20, "jobs to end")
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in reversed(self.daemons):
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        for daemon in self.daemons:
            daemon.wait()

    def run(self, *command: str, check: bool = True) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.rstrip()

    def processes(self) -> list[int]:
        """All processes that were started with `environment`, jobs included."""
        mark, found = f"{self.folder}/bin:".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it ended meanwhile
                if mark in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def _write(self) -> None:
        ports = free_ports(1 + len(NODES))
        text = CONFIGURATION.format(folder=self.folder, port=ports[0])
        text += "".join(NODE.format(name=name, port=port) for name, port in zip(NODES, ports[1:], strict=True))
        text += f"PartitionName=trial Nodes={','.join(NODES)} Default=YES MaxTime=60 State=UP\n"
        (self.folder / "slurm.conf").write_text(text, encoding="utf-8")
        (self.folder / "gres.conf").write_text(GPUS, encoding="utf-8")
        self.folder.chmod(0o711)  # munged wants its socket to be reachable
        key = self.folder / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        for name in ("state", "bin"):
            (self.folder / name).mkdir()
        srun = self.folder / "bin" / "srun"
        srun.write_text(SRUN.format(folder=self.folder, srun=shutil.which("srun")), encoding="utf-8")
        srun.chmod(0o755)

    def _last_words(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(
            line for path in self.folder.glob("*.log") for line in path.read_text(encoding="utf-8").splitlines()[-5:]
        )

    def _start(self, *command: str) -> None:
        """Start a daemon in a session of its own, which Ctrl-C does not reach: it ends after the jobs."""
        with (self.folder / f"{command[0]}.log").open("a", encoding="utf-8") as log:
            kind = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
            self.daemons.append(subprocess.Popen(command, env=self.environment, **kind))


MUNGE = {
    "key-file": "key",
    "socket": "munge.socket",
    "pid-file": "munged.pid",
    "log-file": "munged.log",
    "seed-file": "munged.seed",
}


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for(condition, seconds: float, what: str):
    """Wait until `condition()` is true; -> what it gave. TimeoutError after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}.")
        time.sleep(0.5)
    return found
