"""What stands for a Kubernetes cluster where there is none: it answers Snakemake's plugin, and keeps its jobs.

with serving(Cluster()) as port: ...        the API, as far as the plugin needs it, at http://127.0.0.1:<port>
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

ASKED = re.compile(r"/apis?/(?:(batch)/)?v1/namespaces/[^/]+/(\w+)(?:/([^/]+))?(?:/(\w+))?")


@dataclass
class Cluster:
    """What stands for a cluster: the jobs that were posted, their exit codes, and what was asked for."""

    environment: dict[str, str] | None = None  #: to run the commands of jobs in; None: they are not run, and fail
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
        if self.environment is None:
            return 1
        words = [*container["command"], *container["args"]]
        with tempfile.TemporaryDirectory() as empty:
            return subprocess.run(words, cwd=empty, env=self.environment).returncode

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
            case ("", "pods", _, "log") if query.get("previous", ["false"])[0].lower() != "false":  # as Kubernetes does
                self.answer({"message": "previous terminated container not found"}, 400)
            case ("", "pods", _, "log"):
                self.answer("This is no cluster, so there is no log.")
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


@contextmanager
def serving(cluster: Cluster) -> Iterator[int]:
    """The port where a cluster answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.cluster = cluster
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
