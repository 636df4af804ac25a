# The batch: every combination of data sets, methods, networks, bits and seeds in a small YAML file, as notebooks, runs
# and one table. `python tools/batch.py FILE` calls this, and says the same in one command; plain Snakemake works too:
#
#     snakemake --cores 2 --config batch=batches/small.yml
#
# How it runs is in profiles/: `profiles/default` is used here, `--workflow-profile profiles/slurm` on a cluster.
import os
import shlex
import sys
from urllib.parse import unquote

sys.path.insert(0, workflow.basedir + "/tools")
import batch as batches

os.environ.pop("NUMBA_NUM_THREADS", None)  # hhlib has set it for this process, but a job has its own threads

BATCH = batches.read(config.get("batch", "batches/small.yml"), unquote(str(config.get("settings") or "")))
JOBS = {job.folder: job for job in BATCH.jobs}
TABLE = shlex.join(["python", "tools/batch_table.py", f"{BATCH.folder}/table", *JOBS])


rule all:
    localrule: True
    input:
        expand("{folder}/pages.json", folder=JOBS),
        f"{BATCH.folder}/table.csv" if BATCH.scored else [],


# What is written last says that a run is finished. A run that was stopped resumes from its folder, which stays. Snakemake
# removes a job's outputs and its `log` before it starts it: `update` keeps what a job that outlived its batch has finished
# meanwhile, and the job's log is none of Snakemake's, so that it tells of every start.
rule run:
    output:
        update("{folder}/pages.json"),
    wildcard_constraints:
        folder="|".join(JOBS),
    params:
        words=lambda wildcards: JOBS[wildcards.folder].words,
    threads: BATCH.resources["threads"]
    resources:
        **{name: value for name, value in BATCH.resources.items() if name != "threads" and value},
    shell:
        "python tools/job.py {params.words} >> {wildcards.folder:q}/job.log 2>&1"


rule table:
    localrule: True
    input:
        expand("{folder}/pages.json", folder=JOBS),
    output:
        multiext(f"{BATCH.folder}/table", ".csv", ".md", ".tex", ".png"),
    shell:
        TABLE


onerror:
    # What is finished makes a table too.
    if BATCH.scored:
        shell(TABLE)
