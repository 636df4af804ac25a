"""A kernel manager whose client cannot miss the end of a cell with menus.

While nbclient waits for a cell's reply, each output inside a widget makes it send on the same socket. ZeroMQ signals
an arriving message once, and sending uses the signal up: a reply that comes in that moment lies unread while the
client waits without end (github.com/jupyter/nbclient/issues/312). Asking the socket again finds it.
"""

import asyncio
import math
import time
from contextlib import suppress
from queue import Empty

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from traitlets import Type

from hhlib.training.stopping import StopRequest

ASK_AGAIN = 0.2  #: seconds


class AskingChannel(AsyncZMQSocketChannel):
    """A channel that asks its socket again every `ASK_AGAIN` seconds, instead of trusting the signal alone."""

    async def get_msg(self, timeout: float | None = None) -> dict:
        """The next message; raises `queue.Empty` if there is none for `timeout` seconds."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, end - time.monotonic())
            try:
                return await super().get_msg(min(ASK_AGAIN, left))
            except Empty:
                if left <= ASK_AGAIN:
                    raise


class AskingClient(AsyncKernelClient):
    """A client that asks on the channel where the replies to cells come in."""

    shell_channel_class = Type(AskingChannel)


class AskingKernelManager(AsyncKernelManager):
    """What papermill and nbclient take as `kernel_manager_class`."""

    client_factory = Type(AskingClient)
    latest: "AskingKernelManager | None" = None  #: of the page that runs

    def __init__(self, **how):
        super().__init__(**how)
        AskingKernelManager.latest = self


class PageStop(StopRequest):
    """Within a ``with``, the first signal that asks to end interrupts the page that runs; a second ends it at once.

    A kernel is in a group of processes of its own, so a signal to the runner does not reach it by itself. A training
    then finishes its step and keeps what is done, see `hhlib.training.stopping`.
    """

    def _ask(self, number: int, frame) -> None:
        super()._ask(number, frame)
        with suppress(RuntimeError):  # no page is waited for, at this moment; see `check`
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(lambda: loop.create_task(self._interrupt()))

    async def _interrupt(self) -> None:
        with suppress(RuntimeError):  # it has ended meanwhile
            await AskingKernelManager.latest.interrupt_kernel()

    def check(self, **_) -> None:
        """Raise KeyboardInterrupt if the page was asked to stop: called before each of its cells."""
        if self.received is not None:
            raise KeyboardInterrupt
