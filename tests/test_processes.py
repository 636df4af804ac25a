import signal
import subprocess
import sys

import pytest
import several
import torch

from hhlib import runs, training
from hhlib.training.scale import processes


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same work on this process, and shared by two that talk through gloo."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run([*command, several.__file__, str(two)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    several.trainings(one)
    return one, two


@pytest.mark.parametrize("method", several.METHODS)
def test_two_processes_train_as_one(method, folders):
    one, two = (runs.Run(folder / method) for folder in folders)
    a, b = one.history(), two.history()
    assert a["loss"].tolist() == pytest.approx(b["loss"].tolist(), rel=1e-5)
    assert a["quantisation_gap"].tolist() == pytest.approx(b["quantisation_gap"].tolist(), rel=1e-5)
    states = [torch.load(run.path / "training_state.pt", weights_only=True) for run in (one, two)]
    for name, tensor in states[0]["loss"].items():  # banks, database codes, learnt centers
        torch.testing.assert_close(tensor, states[1]["loss"][name], rtol=1e-3, atol=1e-3)
    changes = [abs(states[0]["net"][name] - states[1]["net"][name]).max() for name in states[0]["net"]]
    assert max(changes) < 1e-3  # Adam's steps of 1e-4, where a gradient is 0 but for rounding


def test_batches_are_normalised_over_all_processes(folders):
    for (value, gradient), (other, others) in zip(
        several.normalised_steps(), torch.load(folders[1] / "normalised.pt", weights_only=True), strict=True
    ):
        assert value == pytest.approx(other, rel=1e-12)
        torch.testing.assert_close(gradient, others, rtol=1e-9, atol=1e-12)


def test_a_batch_that_cannot_be_shared_is_refused():
    processes.check_batch_size(6, 3)
    with pytest.raises(ValueError, match="batch_size is 20, .* 3 processes"):
        processes.check_batch_size(20, 3)


def test_fit_starts_processes_itself_and_their_batches_may_be_micro_batches(tmp_path, capfd):
    handlers = signal.getsignal(signal.SIGINT)
    patches = dict(
        net=several.LAYERS | dict(stem="patch")
    )  # a convolutional stem normalises each micro-batch by itself
    one = training.fit(several.small_digits(), runs.Run(tmp_path / "one"), several.how(**patches), ())
    two = several.how(processes=2, micro_batches=2, **patches)
    run = training.fit(several.small_digits(), runs.Run(tmp_path / "two"), two)
    assert run.history()["loss"].tolist() == pytest.approx(one.history()["loss"].tolist(), rel=1e-5)
    assert capfd.readouterr().out.count("epoch   2/2") == 1  # one of them speaks
    assert signal.getsignal(signal.SIGINT) is handlers


def test_what_one_of_the_processes_raises_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="training in 2 processes failed: FloatingPointError: the loss is nan"):
        training.fit(several.small_digits(), runs.Run(tmp_path), several.how(processes=2, learning_rate=1e30))


@pytest.mark.parametrize(("number", "message"), [(0, "processes is 0"), (3, "batch_size is 16, .* 3 processes")])
def test_processes_that_cannot_share_the_work_are_refused(number, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        training.fit(several.small_digits(), runs.Run(tmp_path), several.how(processes=number))
    assert list(tmp_path.iterdir()) == []
