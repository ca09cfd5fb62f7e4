"""Takes turns with the engine that asks, on a core that both share.

Each question wakes us, and the system interrupts the engine for it, although it would have asked for
others at once: two switches a question, and two programs that take the caches from each
other. A batch process (sched(7), SCHED_BATCH) interrupts nobody: the engine goes on until
it waits for us, and then its questions are answered together. That is worth it while there are many.
While there are few it would only make people wait for others on the core (docs/adr/0008).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

log = logging.getLogger("nightporter")

BUSY = 0.1
"""Of a core that we use: some 8,000 questions a second."""
CALM = 0.05
EVERY_S = 0.5


class Turns:
    """See the module's docstring.

    Args:
        used_s: CPU seconds of this process so far.
        policy: reads how the system schedules us.
        schedule: has it schedule us so; OSError where that is forbidden.
    """

    def __init__(
        self,
        used_s: Callable[[], float] = time.process_time,
        policy: Callable[[], int] = lambda: os.sched_getscheduler(0),
        schedule: Callable[[int], None] = lambda policy: os.sched_setscheduler(0, policy, os.sched_param(0)),
    ) -> None:
        self._used_s = used_s
        self._schedule = schedule
        self._before_s = used_s()
        self._patient = False
        # Linux only; and an operator who has chosen otherwise knows why.
        self._ours = hasattr(os, "SCHED_BATCH") and policy() == os.SCHED_OTHER

    def look(self, passed_s: float) -> None:
        """Be patient or not from now on, by what the last seconds took.

        Args:
            passed_s: since the last look.
        """
        used_s = self._used_s()
        share, self._before_s = (used_s - self._before_s) / passed_s, used_s
        patient = share > (CALM if self._patient else BUSY)
        if patient == self._patient or not self._ours:
            return
        try:
            self._schedule(os.SCHED_BATCH if patient else os.SCHED_OTHER)
        except OSError as error:  # a sandbox that forbids it
            log.info("scheduling_unchanged", extra={"error": error.strerror})
            self._ours = False
            return
        self._patient = patient

    async def run(self) -> None:
        """Look twice a second until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(EVERY_S)
            self.look(loop.time() - began)
