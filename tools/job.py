"""One job of a batch: the notebooks of one run, then `pages.json` in its folder, which says that they are done.

    python tools/job.py --variant ours --only 03 04 -p settings "dataset=digits bits=16"

It takes what `run_notebooks.py` takes, and the name that the batch's file has for these settings. For the job's log, it
prints a line with the time when it starts and one when it ends.
"""

import os
import sys
import time

from run_notebooks import PROJECT, Request, alone, request_parser, run

import hhlib as hh
from hhlib.common import command


@command
def main() -> int:
    """Run the notebooks; -> the exit code of `run_notebooks.py`."""
    os.chdir(PROJECT)
    parser = request_parser(__doc__)
    parser.add_argument("--variant", default="", help="the name of these settings in the batch's file")
    given = parser.parse_args()
    request = Request(given)
    folder = request.experiment.run.path
    with alone(folder):
        if (folder / "pages.json").is_file():  # by a job that outlived the batch that started it
            print("another process has finished this run.")
            return 0
        return timed(request, given)


def timed(request: Request, given) -> int:
    """Run the pages, and write down that they are done."""
    start = time.perf_counter()
    _say("started")
    code = run(request)
    if code == 0:
        done = {"variant": given.variant, "pages": given.only, "seconds": time.perf_counter() - start}
        hh.runs.write_json(request.experiment.run.path / "pages.json", done)
    _say(f"ended after {time.perf_counter() - start:.0f} s with exit code {code}")
    return code


def _say(what: str) -> None:
    print(f"job {what}, {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
