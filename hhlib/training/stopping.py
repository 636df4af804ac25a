"""Stopping a training without losing a step."""

import signal
import sys

import torch

from hhlib.common import Told, ending, quiet
from hhlib.training.scale.processes import several, together


class Stopped(Told, KeyboardInterrupt):
    """A training was stopped as it was asked to, and everything that was done is on disk."""


class StopRequest:
    """Within a ``with``, the first signal of `common.ending` only asks to stop; the second stops at once.

    The stop button of a notebook sends SIGINT, as Ctrl-C does. Outside the main thread signals cannot be caught; they
    then do what they always do.
    """

    EVERY = 10  #: steps between two moments at which several processes agree on whether one of them was asked

    def __enter__(self) -> "StopRequest":
        self.received, self._before = None, {}
        try:
            for number in ending():
                self._before[number] = signal.signal(number, self._ask)
        except ValueError:  # not the main thread
            pass
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame) -> None:
        if self.received is not None:
            raise KeyboardInterrupt("stopped at once; what was done since the last checkpoint is lost.")
        self.received = signal.Signals(number)
        quiet(number)
        if sys.stderr.isatty():  # a notebook shows only what `leave` says
            print(f"{self.received.name}: stopping after this step, and keeping what is done.", file=sys.stderr)

    def asked(self, steps: int, device: torch.device) -> bool:
        """Whether to stop now, after so many steps of an epoch; all processes get the same answer."""
        if not several():
            return self.received is not None
        if steps % self.EVERY:
            return False
        return bool(together(torch.tensor([self.received is not None], device=device)).any())

    def leave(self, where: str) -> None:
        """Raise what the signal stands for: KeyboardInterrupt for SIGINT, or SystemExit."""
        text = f"stopped {where}; run this again to resume."
        if self.received not in (None, signal.SIGINT):
            print(text, file=sys.stderr)
            raise SystemExit(128 + self.received)
        raise Stopped(text)
