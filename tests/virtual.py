"""Virtual time: an event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START = 1_800_000_000.0


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits and no timer is set: a deadlock")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module's docstring. Threads and sockets do not belong here."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class LoopClock:
    """`Clock` on the running virtual loop.

    Args:
        wall_off_s: how wrong this machine's wall clock is.
    """

    def __init__(self, loop: VirtualLoop, wall_off_s: float = 0.0) -> None:
        self._loop = loop
        self.wall_off_s = wall_off_s

    def now(self) -> float:
        return START + self._loop.time() + self.wall_off_s

    def monotonic(self) -> float:
        return self._loop.time()


def run_virtual(work: Coroutine[Any, Any, T] | Any) -> T:
    """Run `work` (a coroutine, or a callable that takes the loop) in virtual time."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        coroutine = work(loop) if callable(work) else work
        return loop.run_until_complete(coroutine)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        asyncio.set_event_loop(None)
        loop.close()
