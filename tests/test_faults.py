"""Faults of the machine and of its user: the right answer or one sentence, and nothing is lost.

`benchmarks/faults.py` tries those that take longer.
"""

import ast
import io
import json
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import several
import torch
from safetensors.torch import save_file
from test_index import build, pictures  # noqa: F401, the second is a fixture

from hhlib import common, data, runs, training
from hhlib.compiled import compiled
from hhlib.metrics import evaluate
from hhlib.training.setup import accelerator_for
from hhlib.training.stopping import Stopped

PROJECT = Path(__file__).parent.parent
LARGE = torch.zeros(200_000)  # 800 KB


@pytest.fixture
def full():
    """``with full(bytes):`` no file grows beyond this: as on a full disk, writing fails in the middle."""
    resource = pytest.importorskip("resource")

    class Full:
        def __init__(self, most):
            self.most = most

        def __enter__(self):
            self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.before[1]))

        def __exit__(self, *_):
            resource.setrlimit(resource.RLIMIT_FSIZE, self.before)

    return Full


@pytest.mark.parametrize(
    "write",
    [
        lambda file: torch.save(LARGE, file),
        lambda file: save_file({"a": LARGE}, file),
        lambda file: np.savez(file, a=LARGE),
        lambda file: file.write_text("a" * 800_000),
    ],
    ids=["torch", "safetensors", "npz", "text"],
)
def test_what_does_not_fit_on_the_disk_is_told_and_the_old_file_stays(write, full, tmp_path):
    file = tmp_path / "state.npz"
    file.write_text("old")
    told = r"state.npz cannot be written \(.+\); what was there before is kept[.]"
    with full(300_000), pytest.raises(common.Unwritable, match=told), common.atomic(file) as draft:
        write(draft)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_other_errors_pass_through_and_a_folder_that_cannot_be_made_is_named(tmp_path):
    with pytest.raises(KeyError), common.atomic(tmp_path / "a.json"):
        raise KeyError("a")
    with pytest.raises(FileNotFoundError, match="elsewhere"), common.atomic(tmp_path / "a.json"):
        Path("/nowhere/elsewhere").read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(common.Unwritable, match=r"file/run/a.json cannot be written \(Not a directory\)"):
        runs.write_json(tmp_path / "file" / "run" / "a.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_training_that_cannot_save_goes_on_where_it_was(full, tmp_path):
    split, how, run = several.small_digits(), several.how(epochs=1, small_epochs=0), runs.Run(tmp_path / "run")
    with full(50_000), pytest.raises(common.Unwritable, match="cannot be written"):
        training.fit(split, run, how, ())
    training.fit(split, run, how, ())
    whole = training.fit(split, runs.Run(tmp_path / "whole"), how, ())
    assert run.history().equals(whole.history())


def test_an_index_that_does_not_fit_is_told_and_can_be_built_later(pictures, full, tmp_path):  # noqa: F811
    with full(100_000), pytest.raises(common.Unwritable, match="index/encoder/model.safetensors cannot be written"):
        build(pictures, tmp_path / "index")
    index = build(pictures, tmp_path / "index")
    before = index.codes
    (pictures / "red" / "new.png").write_bytes((pictures / "red" / "00.png").read_bytes())
    with full(1_000), pytest.raises(common.Unwritable, match=r"codes.npy cannot be written|index.json"):
        index.update(workers=1)
    assert (build(pictures, tmp_path / "index").codes.shape, len(before)) == ((37, 2), 36)


def commanded(does, capsys):
    """Exit code and what was said on standard error."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run with nohup
        return common.command(does, "tool: ")(), capsys.readouterr().err
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raising(error):
    def does():
        raise error

    return does


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("bits is 0."), 2, "tool: bits is 0.\n"),
        (common.Unwritable("a cannot be written."), 2, "tool: a cannot be written.\n"),
        (MemoryError(), 2, "tool: MemoryError\n"),
        (KeyboardInterrupt(), 130, "tool: stopped; the same command resumes it.\n"),
        (Stopped("stopped after epoch 1 of 2."), 130, "tool: stopped after epoch 1 of 2.\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_command_tells_what_stops_it_in_one_line(error, code, said, capsys):
    assert commanded(raising(error), capsys) == (code, said)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_lets_a_command_keep_what_is_done(number, code, capsys):
    kept = []

    def does():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            kept.append("done")

    with pytest.raises(SystemExit) as ended:
        commanded(does, capsys)
    assert (ended.value.code, kept) == (code, ["done"])


def test_a_command_ends_quietly_when_its_reader_has_left(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert commanded(lambda: print("a line"), capsys)[0] == 141


def test_a_name_that_the_terminal_cannot_show_is_no_error(monkeypatch, capsys):
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stdout", out)
    assert commanded(lambda: print("Äpfel 苹果") or 0, capsys)[0] == 0
    assert out.buffer.getvalue() == "Äpfel \\u82f9\\u679c\n".encode("latin-1")


def texts_in_the_systems_encoding(path):
    """Calls that read or write text and do not say in which encoding: (line, call)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and "encoding" not in {keyword.arg for keyword in node.keywords}:
            name, given = ast.unparse(node.func).split(".")[-1], ast.unparse(node)
            modes = [x.value for x in ast.walk(node) if isinstance(x, ast.Constant) and isinstance(x.value, str)]
            opens = name == "open" and not re.match(r"Image|hh|tarfile|archive|os|hh\.index|index", given)
            if (name, len(node.args)) in {("read_text", 0), ("write_text", 1)} or (
                opens and not any(re.fullmatch("[rwaxt+]*b[+]?", mode) for mode in modes)
            ):
                yield node.lineno, given


@pytest.mark.parametrize("folder", ["hhlib", "tools", "benchmarks", "book"])
def test_no_text_is_read_or_written_in_the_encoding_of_the_system(folder):
    paths = sorted((PROJECT / folder).rglob("*.py"))
    assert {path.name: found for path in paths if (found := [*texts_in_the_systems_encoding(path)])} == {}


def test_no_check_is_an_assertion_which_python_can_leave_out():
    tools = [path for path in (PROJECT / "tools").rglob("*.py") if path.name != "fuzz_readers.py"]  # each is a finding
    for path in [*(PROJECT / "hhlib").rglob("*.py"), *tools]:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        assert not [node.lineno for node in nodes if isinstance(node, ast.Assert)], path


def test_no_process_is_started_to_open_pictures(pictures):  # noqa: F811
    part = data.Part(data.folder_pool(pictures, size=8), np.arange(36))
    assert data.loader(part, batch_size=8).num_workers == 0


SUM = "def add(a, b):\n    return a + b\n"


def test_a_loop_is_compiled_where_there_is_no_place_for_a_cache():
    found = {}
    exec(compile(SUM, "<nowhere>", "exec"), found)  # numba has no place for a function without a file
    assert compiled()(found["add"])(1, 2) == 3


def test_a_loop_is_compiled_where_its_cache_is_damaged_or_cannot_be_written(full, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("first", "second"):
        (tmp_path / f"{name}_sum.py").write_text(SUM)
    import first_sum
    import second_sum

    with full(100):
        assert compiled()(first_sum.add)(1, 2) == 3
    assert not [*tmp_path.rglob("first_sum*.nbi")]
    assert compiled()(second_sum.add)(1, 2) == 3
    (kept,) = tmp_path.rglob("second_sum*.nbi")
    kept.write_bytes(b"")
    assert compiled()(second_sum.add)(1, 2) == 3


def score(_=None):
    z = np.sign(np.random.default_rng(0).standard_normal((60, 8)))
    labels = np.arange(60) % 3
    return evaluate(z[:20], labels[:20], z[20:], labels[20:], database_order=False)["map"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_process_that_is_forked_after_a_loop_on_several_cores_gives_the_same_score():
    before = score()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map_async(score, [0]).get(timeout=300) == [before]


@pytest.mark.parametrize(
    "left",
    [
        {"LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"PMI_SIZE": "4", "PMI_RANK": "3"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_TORCH_DEVICE": "meta"},
    ],
    ids=lambda left: next(iter(left)),
)
def test_what_a_launcher_left_over_is_no_launch(left, monkeypatch, capsys):
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    found = accelerator_for("cpu", "float32", 0)
    assert (found.num_processes, found.gradient_accumulation_steps, found.device.type) == (1, 1, "cpu")
    assert {name: os.environ[name] for name in left} == left
    said = capsys.readouterr().out
    assert said.count("is no launch: this trains in one process.\n") == any("SIZE" in name for name in left)


#: Everything at once: ASCII, no HOME, no folder for temporary files, numba without OpenMP.
ODD = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HOME": "/nowhere", "TMPDIR": "/nowhere"}
ODD |= {"NUMBA_THREADING_LAYER": "workqueue", "OMP_NUM_THREADS": "abc"}
TRIED = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import hhlib as hh

rng = np.random.default_rng(0)
z, labels = rng.standard_normal((200, 8)), rng.integers(0, 3, 200)
score = lambda _: hh.metrics.evaluate(z[:50], labels[:50], z[50:], labels[50:], database_order=False)["map"]["expected"]
with ThreadPoolExecutor(4) as threads:
    scores = [*threads.map(score, range(40))]
try:
    refused = hh.open(bits=0)
except ValueError as error:
    refused = str(error)
split = hh.data.load("digits")
split.query.pool.classes[0] = "\\u82f9\\u679c"
hh.data.write_lists(split, sys.argv[1])
classes = (Path(sys.argv[1]) / "classes.txt").read_bytes().decode("utf-8").split()
print(json.dumps({"scores": scores, "refused": refused, "class": classes[0], "encoding": sys.stdout.encoding}))
"""


def test_an_odd_environment_changes_nothing(tmp_path):
    environment = os.environ | ODD | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", TRIED, tmp_path], capture_output=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert found["encoding"] != "utf-8"
    assert len(set(found["scores"])) == 1
    assert found["refused"] == "bits is 0, but it must be a whole number from 1 to 1024."
    assert found["class"] == "苹果"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, None), (signal.SIGTERM, 143)])
def test_a_signal_to_the_runner_reaches_its_page(number, code, from_tools, tmp_path, capsys):
    """The kernel sends it to the runner, whose child it is."""
    runner, kept = from_tools("run_notebooks"), tmp_path / "kept.txt"
    first = f"import os, pathlib, time\ntry:\n    os.kill(os.getppid(), {int(number)}); time.sleep(60)\n"
    first += f"except KeyboardInterrupt:\n    pathlib.Path({str(kept)!r}).write_text('kept')\n"
    cells = [nbformat.v4.new_code_cell(text) for text in ("bits = 8", first, f"os.remove({str(kept)!r})")]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "page.ipynb")
    before = signal.getsignal(number)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as ended:
        runner.execute(tmp_path / "page.ipynb", tmp_path / "run", {"bits": 9})
    assert signal.getsignal(number) is before
    assert kept.read_text() == "kept"  # the page caught it, and its next cell did not run
    said = str(ended.value) if code is None else capsys.readouterr().err
    assert said.strip() == "stopped on page page; run this again to resume."
    assert getattr(ended.value, "code", None) == code
    assert (tmp_path / "run" / "notebooks" / "page.ipynb").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_a_batch_reaches_its_jobs_and_is_raised_once_they_have_ended(number, from_tools, tmp_path, capsys):
    kept, before = tmp_path / "kept.txt", signal.getsignal(number)
    job = f"import os, time\ntry:\n    os.kill({os.getpid()}, {int(number)}); time.sleep(60)\n"
    job += f"except KeyboardInterrupt:\n    time.sleep(0.3); open({str(kept)!r}, 'w').write('kept')\n"
    try:
        if number != signal.SIGINT:
            signal.signal(number, common.end)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a script
        with pytest.raises((KeyboardInterrupt, SystemExit)) as ended:
            from_tools("batch").together(["sh", "-c", f"{shlex.join([sys.executable, '-c', job])}; exit 1"])
    finally:
        signal.signal(number, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert kept.read_text() == "kept"
    assert getattr(ended.value, "code", None) == (None if number == signal.SIGINT else 128 + number)
