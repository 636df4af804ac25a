"""Snakemake's Kubernetes plugin, for jobs that share a volume with the process that starts them.

The plugin (read in version 0.5.1) says of itself that nothing is shared, so that Snakemake refuses to start without an
object storage, whatever `shared-fs-usage` says. Here it is told otherwise, and a job starts in the project's folder.
Two more things are changed, because runs of this project would fail without them:

- A container has 64 MB of shared memory, and the processes that open pictures pass batches through it. A job gets a
  volume in memory there, which counts as memory of the job.
- Of a job that failed, the plugin asks for the log of the container before the last, and there is none: jobs are never
  restarted. Kubernetes answers with an error, which would end the whole batch. It is asked for the last one.
"""

import shlex
from dataclasses import replace
from pathlib import Path

import snakemake_executor_plugin_kubernetes as usual
from kubernetes.client import BatchV1Api, CoreV1Api, V1EmptyDirVolumeSource, V1Job, V1Volume, V1VolumeMount
from snakemake_executor_plugin_kubernetes import ExecutorSettings  # noqa: F401, Snakemake reads the options from it
from snakemake_interface_common.exceptions import WorkflowError

common_settings = replace(usual.common_settings, implies_no_shared_fs=False, job_deploy_sources=False)


class Jobs(BatchV1Api):
    """Starts jobs with as much shared memory as memory."""

    def create_namespaced_job(self, namespace: str, body: V1Job, **more):
        """The same job with a volume in memory."""
        pod = body.spec.template.spec
        pod.volumes.append(V1Volume(name="shared-memory", empty_dir=V1EmptyDirVolumeSource(medium="Memory")))
        pod.containers[0].volume_mounts.append(V1VolumeMount(name="shared-memory", mount_path="/dev/shm"))
        return super().create_namespaced_job(namespace, body, **more)


class Pods(CoreV1Api):
    """Reads what the container printed that ran last."""

    def read_namespaced_pod_log(self, *which, previous: bool = False, **more):
        """The log of the container that is there, never that of one before it."""
        return super().read_namespaced_pod_log(*which, **more)


class Executor(usual.Executor):
    """Starts jobs in the folder where Snakemake runs, which must be on a volume that they mount."""

    # The plugin makes these two anew when a token has run out.
    batchapi = property(lambda self: self._jobs, lambda self, api: setattr(self, "_jobs", Jobs(api.api_client)))
    kubeapi = property(lambda self: self._pods, lambda self, api: setattr(self, "_pods", Pods(api.api_client)))

    def __post_init__(self):
        mounted = [str(volume.path) for volume in self.workflow.executor_settings.persistent_volumes]
        if not any(Path.cwd().is_relative_to(path) for path in mounted):
            raise WorkflowError(
                f"the project lies in {Path.cwd()}, but jobs mount {', '.join(mounted) or 'no volume'}: "
                "put it onto the volume, and start the batch where that is mounted under the same path, such as a pod "
                "(see profiles/kubernetes/config.yaml)."
            )
        super().__post_init__()

    def get_job_exec_prefix(self, job) -> str:
        """What a job does first."""
        return f"cd {shlex.quote(str(Path.cwd()))}"
