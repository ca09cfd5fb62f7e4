"""Takes turns with the engine that asks, on a core that both share.

Each question wakes us, and the system interrupts the engine for it, although it would have asked for
others at once: two switches a question, and two programs that take the caches from each
other. A batch process (sched(7), SCHED_BATCH) interrupts nobody: the engine goes on until
it waits for us, and then its questions are answered together. That is worth it while there are many.
While there are few it would only make people wait for others on the core (docs/adr/0008).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

log = logging.getLogger("nightporter")

BUSY_HZ = 5_000
"""Questions a second that are known by their bytes; a tenth of a core."""
CALM_HZ = 2_500
EVERY_S = 0.5


class Turns:
    """See the module's docstring.

    Args:
        asked: how many questions were answered so far.
        policy: reads how the system schedules us; OSError where that is not told.
        schedule: has it schedule us so; OSError where that is forbidden.
    """

    def __init__(
        self,
        asked: Callable[[], int],
        policy: Callable[[], int] = lambda: os.sched_getscheduler(0),
        schedule: Callable[[int], None] = lambda policy: os.sched_setscheduler(0, policy, os.sched_param(0)),
    ) -> None:
        self._asked = asked
        self._schedule = schedule
        self._before = asked()
        self._patient = False
        self._ours = False
        try:
            # Linux only; and an operator who has chosen otherwise knows why.
            if hasattr(os, "SCHED_BATCH") and policy() == os.SCHED_OTHER:
                schedule(os.SCHED_OTHER)  # a sandbox that forbids it does so now, not in the first busy hour
                self._ours = True
        except OSError as error:
            log.info("scheduling_unchanged", extra={"error": error.strerror})

    def look(self, passed_s: float) -> None:
        """Be patient or not from now on, by what was asked lately.

        Args:
            passed_s: since the last look.
        """
        asked = self._asked()
        rate_hz, self._before = (asked - self._before) / passed_s, asked
        patient = rate_hz > (CALM_HZ if self._patient else BUSY_HZ)
        if patient == self._patient or not self._ours:
            return
        with contextlib.suppress(OSError):
            self._schedule(os.SCHED_BATCH if patient else os.SCHED_OTHER)
            self._patient = patient

    async def run(self) -> None:
        """Look twice a second until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(EVERY_S)
            self.look(loop.time() - began)
