"""A run's folder through long random sequences of training, stops, kills, losses and damage.

Whatever happened, a training that ends gives the weights and the history of one that was never disturbed, bit for bit,
and a score is that of the weights beside it. Anything else is refused; without damage only other settings are.

`pytest tests/test_run_machine.py --hypothesis-profile long` takes minutes.
"""

import hashlib
import json
import os
import shutil
import signal
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import pytest
import several
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from moments import Moments

import hhlib as hh

EPOCHS, RATES = 3, (1e-3, 2e-2)
LEARNS = dict(bits=8, epochs=EPOCHS, small_epochs=0, batch_size=20, validate_every=1, validation=0.3, net=several.SMALL)
FILES = ["run.json", "training_state.pt", "training_state.previous.pt", "model.safetensors", "history.csv"]
FILES += ["codes.npz", "metrics.json"]
REFUSALS = ValueError, FileNotFoundError, zipfile.BadZipFile

rates = st.sampled_from(RATES)
names = st.sampled_from(FILES)


class Small(hh.Experiment):
    """A twentieth of digits."""

    split = several.small_digits()


def experiment(folder: Path, rate: float, **how) -> Small:
    """A training with one of the rates, in a folder."""
    return Small(several.how(**LEARNS | how, learning_rate=rate), hh.runs.Run(folder))


@cache
def undisturbed() -> tuple[dict, dict]:
    """(rate, number of epochs) -> weights and history; weights -> score."""
    whole, scores = {}, {}
    for rate in RATES:
        with tempfile.TemporaryDirectory() as home:
            now = experiment(Path(home) / "run", rate)

            def keep(progress, now=now, rate=rate, home=home):
                other = shutil.copytree(now.run.path, Path(home) / str(len(progress.history)))
                weights = digest(other)
                whole[rate, len(progress.history)] = weights, (other / "history.csv").read_text()
                scores[weights] = experiment(other, rate).evaluate()["map"]["expected"]

            now.fit([keep])
    assert len(scores) > len(RATES)
    return whole, scores


def digest(folder: Path) -> str:
    """Of the weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


class Machine(RuleBasedStateMachine):
    """`hurt`: file -> what damage or loss has left of it."""

    def __init__(self):
        super().__init__()
        undisturbed()
        self.home = Path(tempfile.mkdtemp())
        self.folder = self.home / "run"
        self._hurt = {}

    def teardown(self):
        shutil.rmtree(self.home)

    def bytes(self, name: str) -> bytes | None:
        """A file's content, None without the file."""
        file = self.folder / name
        return file.read_bytes() if file.is_file() else None

    @property
    def hurt(self) -> set[str]:
        """The files that are still as damage has left them."""
        return {name for name, left in self._hurt.items() if self.bytes(name) == left}

    def rate(self) -> float:
        """Whose run this is, by its record."""
        return json.loads((self.folder / "run.json").read_text())["parameters"]["recipe"]["learning_rate"]

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(self, rate: float, resume: bool, stop: int = EPOCHS) -> None:
        """Train, and stop after some epochs as the stop button would."""

        def report(progress):
            if len(progress.history) == stop < EPOCHS:
                os.kill(os.getpid(), signal.SIGINT)

        try:
            experiment(self.folder, rate, resume=resume).fit([report])
        except KeyboardInterrupt:
            assert stop < EPOCHS

    def refused(self, rate: float, resume: bool) -> bool:
        """Whether the folder holds a run that another rate must not continue."""
        whole = (self.folder / "training_state.pt").is_file() and "run.json" not in self.hurt
        return resume and whole and self.rate() != rate

    @rule(rate=rates, resume=st.booleans(), stop=st.integers(1, EPOCHS))
    def train(self, rate, resume, stop):
        if self.refused(rate, resume):
            with pytest.raises(ValueError, match="holds a run with recipe.learning_rate"):
                self.fit(rate, resume, stop)
            return
        try:
            self.fit(rate, resume, stop)
        except REFUSALS:
            assert resume
            assert self.hurt
            return
        number = len(hh.runs.Run(self.folder).history())
        weights, history = undisturbed()[0][rate, number]
        assert number >= stop
        assert self.bytes("history.csv").decode() == history
        if "model.safetensors" not in self.hurt or self.bytes("model.safetensors") is None:
            assert digest(self.folder) == weights

    @rule(rate=rates, resume=st.booleans(), write=st.integers(0, 60))
    def train_killed(self, rate, resume, write):
        """A training is killed just before a write; all that it wrote until then stays."""
        if self.refused(rate, resume) or self.hurt:
            return
        with Moments(self.folder, self.home / "killed", wanted=write) as moments:
            self.fit(rate, resume)
        if moments.copies:
            shutil.rmtree(self.folder)
            moments.copies[0].rename(self.folder)

    # --- scores -------------------------------------------------------------------------------------------------------

    @rule(rate=rates)
    def evaluate(self, rate):
        ex = experiment(self.folder, rate)
        if not ex.has("model.safetensors"):
            with pytest.raises(FileNotFoundError, match="model.safetensors does not exist"):
                ex.evaluate()
            return
        try:
            found = ex.evaluate()["map"]["expected"]
        except REFUSALS:
            assert self.hurt
            return
        scores = undisturbed()[1]
        assert found in scores.values()
        assert "model.safetensors" in self.hurt or found == scores[digest(self.folder)]

    # --- losses -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.folder.is_dir())
    @rule(name=names)
    def delete(self, name):
        (self.folder / name).unlink(missing_ok=True)
        self._hurt[name] = None

    @precondition(lambda self: self.folder.is_dir())
    @rule(name=names)
    def cut_short(self, name):
        if raw := self.bytes(name):
            (self.folder / name).write_bytes(raw[: len(raw) // 2])
            self._hurt[name] = raw[: len(raw) // 2]

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_mixed(self):
        """Record, weights, history and scores are of one run."""
        there = {name for name in FILES if self.bytes(name) is not None} - self.hurt
        whole, scores = undisturbed()
        if "run.json" in there:
            own = [found for (rate, _), found in whole.items() if rate == self.rate()]  # weights, history
            assert "model.safetensors" not in there or digest(self.folder) in {weights for weights, _ in own}
            assert "history.csv" not in there or self.bytes("history.csv").decode() in {text for _, text in own}
        if there >= {"model.safetensors", "metrics.json"}:
            assert json.loads(self.bytes("metrics.json"))["map"]["expected"] == scores[digest(self.folder)]


TestRun = Machine.TestCase
TestRun.settings = settings(max_examples=settings.default.max_examples // 16)  # each has many steps
