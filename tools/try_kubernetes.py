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
from pathlib import Path
from typing import NamedTuple

import batch as batches
import kubernetes_validate
import yaml
from no_cluster import Cluster, serving
from run_notebooks import PROJECT, parameter_parser

import hhlib as hh
from hhlib.common import command

PROFILE = PROJECT / "profiles" / "kubernetes"
COPIED = ("Snakefile", "batches", "hhlib", "notebooks", "profiles", "tools")
PLACE = "/volume"  #: where the profile's volume is mounted
LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  #: a name that Kubernetes takes everywhere (RFC 1123)


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
        (project / "results").symlink_to(PROJECT / "results")  # pages read kept runs
        cluster = Cluster(environment(project) if runs else None)
        more = [] if runs else ["--no-hooks"]  # without runs, there is no table to make
        with serving(cluster) as port:
            done = submit(file, text, project, port, *more)
        jobs = json.dumps(list(cluster.jobs.values())).replace(str(project.parent), PLACE)
        return Rendered(json.loads(jobs), cluster.calls, done.returncode, done.stdout)


def submit(file: str, text: str, project: Path, port: int, *more: str) -> subprocess.CompletedProcess:
    """`tools/batch.py` in the copied project; the profile's volume is mounted where that lies."""
    config = project.parent / "kubeconfig"
    known = {"clusters": [{"name": "none", "cluster": {"server": f"http://127.0.0.1:{port}"}}], "users": []}
    known |= {"contexts": [{"name": "none", "context": {"cluster": "none", "user": ""}}], "current-context": "none"}
    config.write_text(yaml.safe_dump(known), encoding="utf-8")
    command = [sys.executable, "tools/batch.py", file, "--profile", "kubernetes", "--seconds-between-status-checks=1"]
    command += [word for pair in hh.settings.reading.split(text) for word in ("-p", *pair)]
    command += [*more, f"--kubernetes-volume-persistent-volumes={claim()}:{project.parent}"]
    env = environment(project, KUBECONFIG=str(config))
    return subprocess.run(command, cwd=project, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def profile() -> dict:
    """The profile's options."""
    return yaml.safe_load((PROFILE / "config.yaml").read_text(encoding="utf-8"))


def claim() -> str:
    """The name of the profile's volume. ValueError if it has none, more than one, or one in another place."""
    volumes = profile().get("kubernetes-volume-persistent-volumes", [])
    if len(volumes) != 1 or not volumes[0].endswith(f":{PLACE}"):
        raise ValueError(f"this tool knows one volume that is mounted as {PLACE}, but the profile has {volumes}.")
    return volumes[0].removesuffix(f":{PLACE}")


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
    return list(yaml.safe_load_all((PROFILE / "cluster.yaml").read_text(encoding="utf-8")))


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
    requests = limits | {"cpu": f"{int(resources['threads'] * 0.95 * 1000)}m"}
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: sources[mount["name"]] for mount in container["volumeMounts"]}
    claims = {source["persistentVolumeClaim"]["claimName"]: path for path, source in mounted.items()
              if "persistentVolumeClaim" in source}  # fmt: skip
    start = shlex.split(f"cd {PLACE}/hybridhash && python -m snakemake --snakefile {PLACE}/hybridhash/Snakefile")
    pairs = {
        "the image": (container["image"], options["container-image"]),
        "the limits": (container["resources"]["limits"], limits),
        "the requests": (container["resources"]["requests"], requests),
        "the volumes": (claims, {claim(): PLACE}),
        "the shared memory": (mounted.get("/dev/shm", {}).get("emptyDir"), {"medium": "Memory"}),
        "the command": (shlex.split(container["args"][-1])[: len(start)], start),
        "restarts": ((pod["restartPolicy"], job["spec"]["backoffLimit"]), ("Never", 0)),
    }
    names = [job["metadata"]["name"], container["name"], *sources]
    found = [f"{name!r} is no name for Kubernetes." for name in names if not LABEL.fullmatch(name)]
    return found + [f"{what}: {have}, not {want}." for what, (have, want) in pairs.items() if have != want]


@command
def main() -> int:
    """Render and check what the command line asks for."""
    parser = parameter_parser(__doc__)
    parser.add_argument("file", nargs="?", default="batches/imagenet.yml")
    parser.add_argument("--run", action="store_true", help="run the jobs' commands on this machine, in turn")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="where to write the first job")
    given = parser.parse_args()
    text = hh.settings.words(given.parameter)
    batch, _ = batches.read(given.file, text), claim()
    rendered = render(given.file, text, runs=given.run)
    first = next((yaml.safe_dump(job, sort_keys=False, width=118) for job in rendered.jobs), "")
    if given.keep and first:
        given.keep.write_text(
            f"# {given.file}, rendered by tools/try_kubernetes.py; not run on a cluster.\n{first}", encoding="utf-8"
        )
    print(first if first and not given.run else rendered.said)
    problems = check(rendered, batch)
    for problem in problems:
        print(f"WRONG  {problem}")
    print(f"{len(rendered.jobs)} jobs for the {len(batch.jobs)} runs of {given.file}. Wrong by Kubernetes' schema "
          f"{kubernetes_validate.latest_version()}, the profile or the batch: {len(problems)}.")  # fmt: skip
    print("This is no cluster: nothing shows that one would run them.")
    if given.run:
        print(f"With the jobs' commands run on this machine, the batch ended with exit code {rendered.code}.")
    return int(bool(problems) or (given.run and rendered.code != 0))


if __name__ == "__main__":
    sys.exit(main())
