"""Every hostile input does what the list says, refused ones in a sentence, and leaves nothing outside of its folder."""

import os
import re
import resource
import signal
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostile import CASES

SECONDS = 5  #: of a processor for one input, far more than any takes; and ten times as many to wait for
MEMORY = 2 << 30  #: bytes beyond what the process has


@contextmanager
def bounded():
    """An input that takes too long or too much memory fails, and takes nothing else with it."""

    def late(*_):
        raise AssertionError(f"it computed for more than {SECONDS} seconds, or waited for ten times as long")

    linux = sys.platform == "linux"  # elsewhere, addresses cannot be limited
    limit = resource.getrlimit(resource.RLIMIT_AS)
    before = [signal.signal(number, late) for number in (signal.SIGALRM, signal.SIGPROF)]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(10 * SECONDS)
    if linux:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, limit[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for number, handler in zip((signal.SIGALRM, signal.SIGPROF), before, strict=True):
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, limit)


@pytest.mark.usefixtures("from_tools")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.what}")
def test_what_comes_of_a_hostile_input(case, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with warnings.catch_warnings(), bounded():
        warnings.simplefilter("ignore")
        if case.gives:
            case.happens(folder)
        else:
            with pytest.raises((ValueError, OSError), match=re.escape(case.says)) as caught:
                case.happens(folder)
            text = str(caught.value)
            assert len(text.splitlines()) == 1, text
            assert len(text) <= 2000
    assert os.listdir(tmp_path) == ["in"]
    assert not (folder / "harm").exists()


def test_the_list_names_each_input_once_and_says_what_comes_of_it():
    assert len({(case.kind, case.what) for case in CASES}) == len(CASES) >= 100
    for case in CASES:
        assert bool(case.gives) != bool(case.says), case.what
