"""Render the Kubernetes jobs of a batch, and check them. This is no cluster: nothing shows that one would run them.

    python tools/try_kubernetes.py [batches/imagenet.yml] [-p NAME VALUE]... [--run] [--keep FILE]

A small server on this machine answers the few requests that Snakemake's plugin sends to a cluster, and keeps the jobs
that `python tools/batch.py FILE --profile kubernetes` posts, from a copy of the project in a temporary folder that
stands for the volume. Each job is checked against Kubernetes' schema and against what the batch and the profile ask
for, and all requests against the rights in profiles/kubernetes/cluster.yaml. The server then reports every job as
failed; with `--run` it runs the job's command on this machine first, without its container, and reports what came out.
`--keep` writes the first job into a file. The exit code is 0, 1 if something is not as it should be, 2 for a request
that is wrong.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import batch as batches
import kubernetes_validate
import yaml
from run_notebooks import PROJECT, parameter_parser

import hhlib as hh

PROFILE = PROJECT / "profiles" / "kubernetes"
COPIED = ("Snakefile", "batches", "hhlib", "notebooks", "profiles", "tools")
LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  #: a name that Kubernetes takes everywhere (RFC 1123)
ASKED = re.compile(r"/apis?/(?:(batch)/)?v1/namespaces/[^/]+/(\w+)(?:/([^/]+))?(?:/(\w+))?")
NO_CLUSTER = "This is no cluster, so the job was not run: it was only posted."


@dataclass
class Cluster:
    """What stands for a cluster: the jobs that were posted, their exit codes, and what was asked for."""

    project: Path  #: the copy of the project, on what stands for the volume
    runs: bool  #: whether to run the commands of jobs
    jobs: dict[str, dict] = field(default_factory=dict)
    codes: dict[str, Future] = field(default_factory=dict)
    calls: set[tuple[str, str, str]] = field(default_factory=set)  #: verb, group, resource
    queue: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def post(self, job: dict) -> None:
        """Take a job, and run its command when those before it have ended."""
        name = job["metadata"]["name"]
        self.jobs[name] = {"apiVersion": "batch/v1", "kind": "Job"} | job  # the request's address said so
        self.codes[name] = self.queue.submit(self.work, job["spec"]["template"]["spec"]["containers"][0])

    def work(self, container: dict) -> int:
        """The exit code of a container, which starts in an empty folder."""
        if not self.runs:
            return 1
        words = [*container["command"], *container["args"]]
        with tempfile.TemporaryDirectory() as empty:
            return subprocess.run(words, cwd=empty, env=environment(self.project)).returncode

    def status(self, name: str) -> dict:
        """A job's status, as Kubernetes tells it."""
        code = self.code(name)
        return {"active": 1} if code is None else {"failed": int(code != 0), "succeeded": int(code == 0)}

    def code(self, name: str) -> int | None:
        """The exit code of a job's container, None while it runs."""
        return self.codes[name].result() if self.codes[name].done() else None

    def pods(self, selector: str) -> list[dict]:
        """The pod of a job, with its container."""
        name = selector.removeprefix("job-name=")
        code = self.code(name)
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
        container = {"name": "snakemake", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        return [{"metadata": {"name": f"{name}-0"}, "status": {"containerStatuses": [container]}}]


class Handler(BaseHTTPRequestHandler):
    """Answers requests of the Kubernetes API, for the cluster that its server has."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Something is to be made."""
        body = self.body()
        if self.asked("create")[1] == "jobs":
            self.server.cluster.post(body)
        self.answer(body)

    def do_GET(self) -> None:
        """Something is asked."""
        cluster, query = self.server.cluster, parse_qs(urlsplit(self.path).query)
        match self.asked("get"):
            case ("batch", "jobs", name, "status"):
                self.answer(cluster.jobs[name] | {"status": cluster.status(name)})
            case ("", "pods", None, None):
                self.answer({"items": cluster.pods(query["labelSelector"][0])})
            case ("", "pods", _, "log") if query.get("previous") == ["true"]:  # as Kubernetes does
                self.answer({"message": "previous terminated container not found"}, 400)
            case ("", "pods", _, "log"):
                self.answer(f"{'See above.' if cluster.runs else NO_CLUSTER}\n")
            case what:
                self.answer({"message": f"not known here: {what}"}, 404)

    def do_DELETE(self) -> None:
        """Something is to be removed."""
        self.body()
        self.asked("delete")
        self.answer({})

    def asked(self, verb: str) -> tuple:
        """-> API group, resource, name, part; noted as a right that is needed."""
        group, resource, name, part = ASKED.fullmatch(urlsplit(self.path).path).groups()
        verb = "list" if verb == "get" and name is None else verb
        self.server.cluster.calls.add((verb, group or "", f"{resource}/{part}" if part else resource))
        return group or "", resource, name, part

    def body(self) -> dict:
        """What was sent."""
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")

    def answer(self, content: dict | str, status: int = 200) -> None:
        """Send JSON, or text as it is."""
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        """Say nothing."""


def environment(project: Path, **more: str) -> dict:
    """That of a process which works in a copy of the project and sees this Python as `python`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path, "PYTHONPATH": str(project), "NO_PROXY": "127.0.0.1"} | more


class Rendered(NamedTuple):
    """What a batch posted; paths are those on the volume of the profile."""

    jobs: list[dict]
    calls: set[tuple[str, str, str]]  #: verb, group, resource
    code: int  #: of the batch
    said: str  #: by the batch


def render(file: str, text: str = "", *, runs: bool = False) -> Rendered:
    """Run a batch in a copy of the project against a server that stands for a cluster; text: settings for all jobs."""
    with tempfile.TemporaryDirectory() as volume:
        project = Path(volume).resolve() / "hybridhash"
        project.mkdir()
        for name in COPIED:
            copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copyfile
            copy(PROJECT / name, project / name)
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.cluster = Cluster(project, runs)
            Thread(target=server.serve_forever, daemon=True).start()
            done = submit(file, text, project, server.server_port)
            server.shutdown()
        jobs = json.dumps(list(server.cluster.jobs.values())).replace(str(project.parent), "/volume")
        return Rendered(json.loads(jobs), server.cluster.calls, done.returncode, done.stdout)


def submit(file: str, text: str, project: Path, port: int) -> subprocess.CompletedProcess:
    """`tools/batch.py` in the copied project, whose folder is mounted instead of the profile's /volume."""
    config = project.parent / "kubeconfig"
    known = {"clusters": [{"name": "none", "cluster": {"server": f"http://127.0.0.1:{port}"}}], "users": []}
    known |= {"contexts": [{"name": "none", "context": {"cluster": "none", "user": ""}}], "current-context": "none"}
    config.write_text(yaml.safe_dump(known))
    (volume,) = profile()["kubernetes-volume-persistent-volumes"]
    command = [sys.executable, "tools/batch.py", file, "--profile", "kubernetes", "--seconds-between-status-checks=1"]
    command += [f"--kubernetes-volume-persistent-volumes={volume.replace('/volume', str(project.parent))}"]
    command += [word for pair in hh.settings.reading.split(text) for word in ("-p", *pair)]
    env = environment(project, KUBECONFIG=str(config))
    return subprocess.run(command, cwd=project, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def profile() -> dict:
    """The profile's options."""
    return yaml.safe_load((PROFILE / "config.yaml").read_text())


def check(rendered: Rendered, batch: batches.Batch) -> list[str]:
    """A sentence for all that is not as the batch, the profile, the cluster's rights and Kubernetes' schema say."""
    runs = sorted(map(run_of, rendered.jobs))
    found = [] if runs == sorted(job.folder for job in batch.jobs) else [f"jobs were posted for the runs {runs}."]
    rights = [rule for part in manifests() if part["kind"] == "Role" for rule in part["rules"]]
    for verb, group, name in sorted(rendered.calls):
        if not any(verb in r["verbs"] and group in r["apiGroups"] and name in r["resources"] for r in rights):
            found.append(f"cluster.yaml gives no right to {verb} {name}.")
    for job in rendered.jobs:
        found += [f"{job['metadata']['name']}: {text}" for text in (*invalid(job), *unlike(job, batch.resources))]
    return found


def manifests() -> list[dict]:
    """What cluster.yaml makes."""
    return list(yaml.safe_load_all((PROFILE / "cluster.yaml").read_text()))


def invalid(resource: dict) -> list[str]:
    """What the newest schema of Kubernetes that is known here says against a resource; unknown names count."""
    try:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def run_of(job: dict) -> str:
    """The folder of the run that a job's command makes; "" if it makes none."""
    words = shlex.split(job["spec"]["template"]["spec"]["containers"][0]["args"][-1])
    target = words[words.index("--target-jobs") + 1] if "--target-jobs" in words else ""
    return target.removeprefix("run:folder=") if target.startswith("run:folder=") else ""


def unlike(job: dict, resources: dict) -> list[str]:
    """What differs from what was asked for."""
    pod, options = job["spec"]["template"]["spec"], profile()
    (container,) = pod["containers"]
    of_all = dict(text.split("=") for text in options["default-resources"])
    limits = {"cpu": f"{resources['threads']}000m", "memory": f"{resources['mem_mb']}M"}
    limits |= {"ephemeral-storage": f"{of_all['disk_mb']}M"}
    limits |= {"nvidia.com/gpu": str(resources["gpu"])} if resources["gpu"] else {}
    requests = limits | {"cpu": f"{resources['threads'] * 950}m"}
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: sources[mount["name"]] for mount in container["volumeMounts"]}
    claims = {source["persistentVolumeClaim"]["claimName"]: path for path, source in mounted.items()
              if "persistentVolumeClaim" in source}  # fmt: skip
    wanted = dict(text.split(":") for text in options["kubernetes-volume-persistent-volumes"])
    start = shlex.split("cd /volume/hybridhash && python -m snakemake --snakefile /volume/hybridhash/Snakefile")
    pairs = {
        "the image": (container["image"], options["container-image"]),
        "the limits": (container["resources"]["limits"], limits),
        "the requests": (container["resources"]["requests"], requests),
        "the volumes": (claims, wanted),
        "the shared memory": (mounted.get("/dev/shm", {}).get("emptyDir"), {"medium": "Memory"}),
        "the command": (shlex.split(container["args"][-1])[: len(start)], start),
        "restarts": ((pod["restartPolicy"], job["spec"]["backoffLimit"]), ("Never", 0)),
    }
    names = [job["metadata"]["name"], container["name"], *sources]
    found = [f"{name!r} is no name for Kubernetes." for name in names if not LABEL.fullmatch(name)]
    return found + [f"{what}: {have}, not {want}." for what, (have, want) in pairs.items() if have != want]


def main() -> int:
    """Render and check what the command line asks for."""
    parser = parameter_parser(__doc__)
    parser.add_argument("file", nargs="?", default="batches/imagenet.yml")
    parser.add_argument("--run", action="store_true", help="run the jobs' commands on this machine, in turn")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="where to write the first job")
    given = parser.parse_args()
    text = hh.settings.words(given.parameter)
    try:
        batch = batches.read(given.file, text)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    rendered = render(given.file, text, runs=given.run)
    problems = check(rendered, batch)
    first = next((yaml.safe_dump(job, sort_keys=False, width=118) for job in rendered.jobs), rendered.said)
    if given.keep and rendered.jobs:
        given.keep.write_text(f"# {given.file}, rendered by tools/try_kubernetes.py; not run on a cluster.\n{first}")
    print(rendered.said if given.run else first)
    for problem in problems:
        print(f"WRONG  {problem}")
    print(
        f"{len(rendered.jobs)} jobs for the {len(batch.jobs)} runs of {given.file}; {len(problems)} things are wrong "
        f"by Kubernetes' schema {kubernetes_validate.latest_version()}, the profile and the batch. "
        "This is no cluster: that one would run them is not shown."
    )
    if given.run:
        print(f"Run on this machine, the batch ended with exit code {rendered.code}.")
    return int(bool(problems) or (given.run and rendered.code != 0))


if __name__ == "__main__":
    sys.exit(main())
