"""What `make test` does, in stages: each with its time, and a last line with all of them.

    python tools/stages.py             # lint, notebooks, types, unit tests, pages
    python tools/stages.py -k index    # the first three, and the tests that these words choose, as pytest reads them
    python tools/stages.py --strip     # takes out of the notebooks what must not be committed, and checks nothing

A stage that fails does not stop the others. The last line names it, and the exit code is then 1. The pages run beside
the other stages, because they are one long chain, which keeps only one core busy; what they print comes last.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = [str(path.relative_to(PROJECT)) for path in sorted(PROJECT.glob("notebooks/**/[!.]*.ipynb"))]
FORBIDDEN = "metadata.papermill metadata.widgets cell.metadata.papermill cell.metadata.execution"
FORBIDDEN += " metadata.language_info.version"
STRIP = ["nbstripout", "--extra-keys", FORBIDDEN]
CORES = ["-n", "logical", "--maxprocesses", "4", "--dist", "loadfile"]
BESIDE = "pages"  #: the stage that runs beside the others

Stages = dict[str, list[list[str]]]  #: the commands of each stage, each a module of Python and its arguments


def stages(chosen: list[str]) -> Stages:
    """The stages, in their order; `chosen` are arguments of pytest, which stand in the place of all tests."""
    found = {
        "lint": [["ruff", "check", "."], ["ruff", "format", "--check", "."]],
        "notebooks": [[*STRIP, "--verify", *NOTEBOOKS]],
        "types": [["pyrefly", "check", "--python-interpreter-path", sys.executable, "--min-severity", "error"]],
    }
    if chosen:
        return found | {"tests": [["pytest", *CORES, *chosen]]}
    return found | {
        "unit tests": [["pytest", *CORES, "--ignore=tests/notebooks"]],
        BESIDE: [["pytest", "tests/notebooks"]],
    }


def run(commands: list[list[str]], output: int | None = None) -> tuple[bool, float, str]:
    """Run the commands of a stage -> whether all went well, seconds, and what they printed if `output` is a pipe."""
    began, well, said = time.perf_counter(), True, ""
    threads = os.environ | {"OMP_NUM_THREADS": "1"}  # several tests run side by side
    for command in commands:
        how = dict(cwd=PROJECT, env=threads, stdout=output, stderr=output and subprocess.STDOUT, text=True)
        done = subprocess.run([sys.executable, "-m", *command], **how)
        well, said = well and done.returncode == 0, said + (done.stdout or "")
    return well, time.perf_counter() - began, said


def run_all(found: Stages) -> int:
    """Run all stages, and say at the end how long each took -> 0, or 1 if one failed."""
    began = time.perf_counter()
    with ThreadPoolExecutor(max_workers=1) as aside:
        pages = aside.submit(run, found[BESIDE], subprocess.PIPE) if BESIDE in found else None
        outcome = {}
        for name in found:
            print(f"--- {name}", flush=True)
            outcome[name] = pages.result() if name == BESIDE else run(found[name])
            print(outcome[name][2], end="", flush=True)
    said = (f"{name} {'' if well else 'FAILED after '}{seconds:.0f} s" for name, (well, seconds, _) in outcome.items())
    print(f"--- {', '.join(said)}; together {time.perf_counter() - began:.0f} s")
    return int(not all(well for well, _, _ in outcome.values()))


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(run_all({"strip": [[*STRIP, *NOTEBOOKS]]} if words == ["--strip"] else stages(words)))
