"""One renewal per session at a time: joins callers, and carries out `core/refresh.py`'s steps.

A flight is a task of its own. Requests wait for its *announcement*; none of them owns it, so
a client that hangs up cancels nothing. The key of a flight is the session's, never a
token's value: two sessions can never share one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct, field

from proxy.core import steps
from proxy.core.session import Outcome, OutcomeKind, Record
from proxy.shell.kit import Kit
from proxy.shell.renewal import Renewal
from proxy.shell.subject import Subject

log = logging.getLogger("nightporter.refresh")


class Flight(Struct, eq=False):
    """One renewal under way.

    Attributes:
        announced: resolves with the first result that waiters may act on.
        changed: set when the session's record changed.
        task: drives the attempt to its end, which may come later.
    """

    announced: asyncio.Future[steps.Result]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Hooks(Struct, frozen=True):
    """What the flight tells others. Both are the session cache's and the metrics' business.

    Attributes:
        examine: called with a result that holds new tokens, before it is announced: checks the
            ID token, updates the identity; may answer `Over`.
        settled: called once per announced result with the outcome's class and code.
    """

    examine: Callable[[Subject, steps.Result], Awaitable[steps.Result]]
    settled: Callable[[str, steps.Result, float], None]


Others = Mapping[tuple[str, str], tuple[Kit, Hooks]]


class SingleFlight:
    """Renewals of all sessions in this process.

    Args:
        kit: what every renewal works with.
        hooks: see `Hooks`.
        max_calls: renewals at once, of each provider.
        others: kit and hooks of further providers, by issuer and client id. All share one store.
    """

    def __init__(self, kit: Kit, hooks: Hooks, max_calls: int, others: Others | None = None) -> None:
        self._kit = kit
        self._hooks = hooks
        self._others = others or {}
        # Of each provider: one that answers slowly holds up nobody else's sessions.
        self._places: defaultdict[tuple[str, str], asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(max_calls)
        )
        self._flights: dict[str, Flight] = {}
        kit.store.listen(self._on_change)

    def __len__(self) -> int:
        return len(self._flights)

    def reconfigure(self, kit: Kit, hooks: Hooks, others: Others | None = None) -> None:
        """Renewals that begin from now on use these; those under way end as they began.

        Args:
            kit: with the same store as before.
        """
        self._kit, self._hooks, self._others = kit, hooks, others or {}

    def _of(self, subject: Subject) -> tuple[Kit, Hooks] | None:
        """Who renews this session; None if its provider was removed: no other one gets its token."""
        if not self._others:
            return self._kit, self._hooks
        return self._others.get(subject.op)

    def join(self, subject: Subject) -> Flight:
        """The flight of this session: the one under way, or a new one."""
        flight = self._flights.get(subject.key)
        if flight is not None:
            return flight
        loop = asyncio.get_running_loop()
        flight = Flight(loop.create_future())
        self._flights[subject.key] = flight
        flight.task = loop.create_task(self._fly(subject, flight))
        return flight

    async def wait(self, flight: Flight, wait_s: float) -> steps.Result | None:
        """The flight's announcement, or None after `wait_s`; a cancelled caller cancels only itself."""
        done, _ = await asyncio.wait([flight.announced], timeout=wait_s)
        return flight.announced.result() if done else None

    async def drain(self, timeout_s: float) -> int:
        """Let the flights under way land, at most `timeout_s`. Returns how many did not."""
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        if not tasks:
            return 0
        _, pending = await asyncio.wait(tasks, timeout=timeout_s)
        return len(pending)

    def _on_change(self, key: str) -> None:
        if key:
            flight = self._flights.get(key.removeprefix("ended:"))
            if flight is not None:
                flight.changed.set()
        else:
            for flight in self._flights.values():
                flight.changed.set()

    async def _fly(self, subject: Subject, flight: Flight) -> None:
        of = self._of(subject)  # once: what begins here ends here, whatever is reconfigured meanwhile
        if of is None:
            outcome = self._outcome(subject.record, "provider_removed", 5.0)
            flight.announced.set_result(steps.Kept(outcome))
            self._flights.pop(subject.key, None)
            return
        kit, hooks = of
        began = kit.clock.monotonic()
        try:
            wait_s = kit.breaker.admit(kit.time.now())
            if wait_s > 0:
                result: steps.Result = steps.Kept(
                    self._outcome(subject.record, kit.breaker.why or "provider_quiet", wait_s)
                )
            else:
                async with self._places[subject.op]:

                    async def announce(early: steps.Result) -> None:
                        await self._announce(kit, hooks, subject, flight, early, began)

                    result = await Renewal(kit, subject, announce, flight.changed).run()
        except Exception:
            # A defect of ours must neither strand the waiters nor end a session.
            log.exception("refresh_failed", extra={"session": subject.key[:12]})
            result = steps.Kept(self._outcome(subject.record, "internal_error", 5.0))
        try:
            await self._announce(kit, hooks, subject, flight, result, began)
        finally:
            self._flights.pop(subject.key, None)

    async def _announce(
        self, kit: Kit, hooks: Hooks, subject: Subject, flight: Flight, result: steps.Result, began: float
    ) -> None:
        """Tell the waiters, once; what comes later only reaches `examine` and the metrics."""
        took_s = kit.clock.monotonic() - began
        if isinstance(result, (steps.Refreshed, steps.Unsaved, steps.Adopted)):
            try:
                result = await hooks.examine(subject, result)
            except Exception:
                log.exception("examine_failed", extra={"session": subject.key[:12]})
        hooks.settled(subject.key, result, took_s)
        if not flight.announced.done():
            flight.announced.set_result(result)

    def _outcome(self, record: Record, code: str, wait_s: float) -> Outcome:
        now = self._kit.time.now()
        return Outcome(OutcomeKind.TRANSIENT, code, record.rt, "", now, now + wait_s)
