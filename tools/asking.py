"""A kernel manager whose client cannot miss the end of a cell with menus.

While nbclient waits for a cell's reply, each output inside a widget makes it send on the same socket. ZeroMQ signals
an arriving message once, and sending uses the signal up: a reply that comes in that moment lies unread while the
client waits without end (github.com/jupyter/nbclient/issues/312). Asking the socket again finds it.
"""

import math
import time
from queue import Empty

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from traitlets import Type

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
