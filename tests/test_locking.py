"""A folder has one writer at a time; who it is can be read, and a killed one is in nobody's way."""

import errno
import os
import re
import subprocess
import sys
import threading

import pytest

import hhlib as hh
from hhlib import data, runs, training
from hhlib.locking import HOLDER as HOLDING
from hhlib.locking import LOCK, Busy, Unwritable, held
from hhlib.settings import read

HOLDER = """
import sys, time
from pathlib import Path
from hhlib.locking import held
with held(Path(sys.argv[1]), "training"):
    print("has it", flush=True)
    time.sleep(600)
"""


def test_the_second_is_refused_until_the_first_is_killed(tmp_path):
    split, run = data.load("shapes", seed=0), runs.Run(tmp_path)
    settings = read(dataset="shapes", bits=8, epochs=1, device="cpu", precision="float32")
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "has it\n"
        said = rf"{tmp_path} is in use: training on .*, process {process.pid}, since 20\d\d-.*; wait until"
        with pytest.raises(Busy, match=said):
            training.fit(split, run, settings, ())
        (tmp_path / "model.safetensors").write_bytes(b"x")
        with pytest.raises(Busy, match=said):
            hh.Experiment(settings, run).evaluate()
        for content in ("", "[]", "{}", '{"doing": 1', "\0"):  # a damaged note of who it is
            (tmp_path / HOLDING).write_text(content)
            with pytest.raises(Busy, match="another process works in it"), held(tmp_path, "scoring", wait=0):
                pass
        assert {path.name for path in tmp_path.iterdir()} == {LOCK, HOLDING, "model.safetensors"}  # nothing was changed
        process.kill()
    with held(tmp_path, "scoring"):
        assert '"scoring"' in (tmp_path / HOLDING).read_text()
    assert not (tmp_path / HOLDING).exists()


def test_a_thread_may_take_its_own_lock_again_and_another_may_not(tmp_path):
    refused = []

    def try_it():
        try:
            with held(tmp_path, "scoring", wait=0):
                pass
        except Busy as error:
            refused.append(str(error))

    with held(tmp_path, "evaluating"):
        with held(tmp_path, "encoding"):
            pass
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert re.search("evaluating on .*", refused[0])


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_the_file_system_knows_no_locks_a_file_stands_for_one(number, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    with held(tmp_path, "training"):  # where it was copied from there are locks, and this leaves its file
        pass
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with held(tmp_path, "training"):
        thread_refused = []
        thread = threading.Thread(target=lambda: thread_refused.append(_is_refused(tmp_path)))
        thread.start()
        thread.join()
    assert thread_refused == [True]
    assert not _is_refused(tmp_path)


def _is_refused(folder):
    try:
        with held(folder, "scoring", wait=0):
            return False
    except Busy:
        return True


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for place in ("file", "file/run", "loop", "x" * 300, "null\0byte"):
        said = "cannot be written to .*; name another place"
        with pytest.raises(Unwritable, match=said) as error, held(tmp_path / place, "training"):
            pass
        assert error.value._render_traceback_() == [str(error.value)]
