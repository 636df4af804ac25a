"""One job of a batch: the notebooks of one run, then `pages.json` in its folder, which says that they are done.

    python tools/job.py --variant ours --only 03 04 -p settings "dataset=digits bits=16"

It takes what `run_notebooks.py` takes, and the name that the batch's file has for these settings. It prints a line with
the time when it starts and one when it ends, for the job's log.
"""

import argparse
import sys
import time

import run_notebooks

import hhlib as hh


def main() -> int:
    """Run the notebooks; -> the exit code of `run_notebooks`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--variant", default="")
    own, sys.argv[1:] = parser.parse_known_args()
    start = time.perf_counter()
    _say("started")
    code = run_notebooks.main()
    if code == 0:
        given = run_notebooks.parse()
        run = hh.open(hh.settings.words(run_notebooks.sort_out(given.parameter)[0])).run
        done = {"variant": own.variant, "pages": given.only, "seconds": time.perf_counter() - start}
        hh.runs.write_json(run.path / "pages.json", done)
    _say(f"ended after {time.perf_counter() - start:.0f} s with exit code {code}")
    return code


def _say(what: str) -> None:
    print(f"job {what}, {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
