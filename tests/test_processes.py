import subprocess
import sys
from types import SimpleNamespace

import pytest
import several
import torch

from hhlib import runs
from hhlib.training import processes


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
    three = SimpleNamespace(num_processes=3)
    processes.check_batch_size(6, three)
    with pytest.raises(ValueError, match="batch_size is 20, but it must divide by the 3 processes"):
        processes.check_batch_size(20, three)
