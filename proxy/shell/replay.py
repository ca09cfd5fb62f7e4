"""A 401 of the app's, held back while somebody asks whether a newer token would help."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.core.gate import Forward
from proxy.shell.site import log
from proxy.wire.response import ResponseHead
from proxy.wire.valve import AUTH

if TYPE_CHECKING:
    from proxy.shell.relay import Relay
    from proxy.shell.upstream import Upstream


class Replay:
    """Asks the verdict's hook, once. Nothing was sent downstream, no byte of a body was read.

    The response stays where it is: its body unread in the connection, which the valve keeps
    from being read, so that the 401 can still be passed on as it came.

    Args:
        relay: whose response it is.
        up: the app's connection.
        head: of the 401.
    """

    __slots__ = ("_head", "_relay", "_task")

    def __init__(self, relay: Relay, up: Upstream, head: ResponseHead) -> None:
        self._relay = relay
        self._head = head
        up.reader.held = True
        up.valve.shut(AUTH)
        relay.down.deadline = relay.down.site.now + relay.down.site.timeouts.decide_s
        self._task = asyncio.get_running_loop().create_task(self._ask())

    def cancel(self) -> None:
        """Nobody waits for the outcome any more."""
        self._task.cancel()

    async def _ask(self) -> None:
        relay = self._relay
        hook = relay.verdict.unauthorized
        assert hook is not None
        again: Forward | None = None
        try:
            again = await hook(self._head.challenge)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        except Exception:
            log.exception(
                "the hook on a 401 failed", extra={"request_id": relay.head.request_id.decode("latin-1")}
            )
        if again is not None:
            relay.replay(again)
        else:
            relay.let_through(self._head)
