"""A batch on Kubernetes: the jobs that Snakemake's plugin makes, as far as that can be seen without a cluster."""

import copy
import re
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def tool(from_tools):
    return from_tools("try_kubernetes")


@pytest.fixture
def batch(tool):
    """The batch that the kept job belongs to."""
    return tool.batches.read("batches/imagenet.yml", "data_dir=/volume/data lists=/volume/lists")


@pytest.fixture
def kept():
    """Made by `python tools/try_kubernetes.py` with the settings above and `--keep results/kubernetes.yaml`."""
    return yaml.safe_load((PROJECT / "results" / "kubernetes.yaml").read_text())


def container(job):
    return job["spec"]["template"]["spec"]["containers"][0]


def test_a_batch_posts_one_job_a_run_through_the_plugin(tool, tmp_path):
    """Jobs that the server calls failed end Snakemake; the plugin could read their logs and remove them."""
    file = tmp_path / "two.yml"
    file.write_text("bits: [8, 16]\nresources: {threads: 2, mem_mb: 3000, gpu: 1}\n")
    text = "data_dir='/volume/my pictures'"
    rendered = tool.render(str(file), text)
    assert tool.check(rendered, tool.batches.read(file, text)) == [], rendered.said
    assert len(rendered.jobs) == 2
    assert container(rendered.jobs[0])["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert rendered.code == 1
    assert len(re.findall(r"^Job \S+ failed", rendered.said, re.MULTILINE)) == 2  # one does not stop the other
    assert {("delete", "batch", "jobs"), ("get", "", "pods/log")} < rendered.calls
    assert "0 of 2 runs are finished" in rendered.said


def test_the_kept_job_is_what_batch_and_profile_ask_for(tool, kept, batch):
    assert tool.invalid(kept) == []
    assert tool.unlike(kept, batch.resources) == []
    assert tool.run_of(kept) in [job.folder for job in batch.jobs]
    assert container(kept)["resources"]["limits"] == {
        "cpu": "4000m",
        "memory": "32000M",
        "ephemeral-storage": "4000M",
        "nvidia.com/gpu": "1",
    }


def change(job, what):
    inside = container(job)
    pod = job["spec"]["template"]["spec"]
    {
        "unknown name": lambda: inside.update(gpus=1),
        "no number": lambda: job["spec"].update(backoffLimit="none"),
        "other image": lambda: inside.update(image="python:3.11"),
        "no GPU": lambda: inside["resources"]["limits"].pop("nvidia.com/gpu"),
        "no volume": lambda: inside["volumeMounts"].pop(1),
        "no shared memory": lambda: inside["volumeMounts"].pop(2),
        "elsewhere": lambda: inside["args"].__setitem__(1, inside["args"][1].removeprefix("cd /volume/hybridhash && ")),
        "restarts": lambda: pod.update(restartPolicy="OnFailure"),
        "long name": lambda: job["metadata"].update(name="x" * 64),
        "other run": lambda: inside["args"].__setitem__(1, inside["args"][1].replace("16bits", "17bits")),
        "once more": lambda: None,
    }[what]()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("unknown name", "'gpus' was unexpected"),
        ("no number", "'none' is not of type 'integer'"),
        ("other image", "the image: python:3.11, not registry"),
        ("no GPU", "the limits: "),
        ("no volume", "the volumes: {}, not {'hybridhash': '/volume'}"),
        ("no shared memory", "the shared memory: None"),
        ("elsewhere", "the command: "),
        ("restarts", "restarts: ('OnFailure', 0)"),
        ("long name", "is no name for Kubernetes"),
        ("other run", "jobs were posted for the runs "),
        ("once more", "jobs were posted for the runs "),
    ],
)
def test_a_job_that_is_not_as_asked_is_named(tool, batch, kept, what, sentence):
    jobs = [copy.deepcopy(kept) for _ in batch.jobs]
    run = tool.run_of(kept)
    for job, other in zip(jobs, batch.jobs, strict=True):
        container(job)["args"][1] = container(job)["args"][1].replace(run, other.folder)
    assert tool.check(tool.Rendered(jobs, set(), 1, ""), batch) == []
    change(jobs[0], what)
    jobs += jobs[:1] if what == "once more" else []
    found = tool.check(tool.Rendered(jobs, set(), 1, ""), batch)
    assert found
    assert all(sentence in text for text in found[:1])


def test_what_the_cluster_needs_is_valid_and_belongs_together(tool):
    parts = {part["kind"]: part for part in tool.manifests()}
    assert [tool.invalid(part) for part in parts.values()] == [[]] * 5
    pod, options = parts["Pod"]["spec"], tool.profile()
    assert pod["containers"][0]["image"] == options["container-image"]
    claim, path = options["kubernetes-volume-persistent-volumes"][0].split(":")
    assert parts["PersistentVolumeClaim"]["metadata"]["name"] == claim
    assert pod["volumes"] == [{"name": claim, "persistentVolumeClaim": {"claimName": claim}}]
    assert pod["containers"][0]["volumeMounts"] == [{"name": claim, "mountPath": path}]


def test_a_right_that_is_missing_is_named(tool, batch):
    found = tool.check(tool.Rendered([], {("create", "batch", "jobs"), ("patch", "", "pods")}, 1, ""), batch)
    assert found[1:] == ["cluster.yaml gives no right to patch pods."]
