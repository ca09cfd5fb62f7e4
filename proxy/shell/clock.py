"""The clocks: the wall, one that only runs forward, and the store's as we estimate it."""

from __future__ import annotations

import time
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """What every part that needs time is given."""

    def now(self) -> float:
        """Unix seconds of this machine's wall clock; may be wrong and may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps and runs on through suspend."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.time()

    # BOOTTIME counts suspended time too: a lease does not wait for a sleeping laptop. Asked for each
    # request, so no function of ours stands in between.
    monotonic = staticmethod(partial(time.clock_gettime, time.CLOCK_BOOTTIME))


class StoreTime:
    """The store's time between its answers: its last word, carried on by the monotonic clock.

    So a jump of the wall clock moves no expiry, and replicas with different clocks agree.

    Args:
        clock: of this process.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_s = clock.now() - clock.monotonic()

    def observe(self, now: float) -> None:
        """Take over the store's `now` from one of its answers."""
        self._ahead_s = now - self._clock.monotonic()

    def now(self) -> float:
        """Store time, Unix seconds."""
        return self._clock.monotonic() + self._ahead_s

    def to_monotonic(self, at: float) -> float:
        """A store time as a reading of the monotonic clock."""
        return at - self._ahead_s
