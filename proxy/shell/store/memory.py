"""The store for tests and trials: rows in a dictionary, gone with the process.

`EmbeddedStore` is the contract over the pure rules of `core/record.py`, for stores that only
this process uses; the SQLite store takes it over and says merely where a row lives.
"""

from __future__ import annotations

import heapq
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from proxy.core import record as rules
from proxy.core.record import Entry, Step, Word
from proxy.core.session import Outcome, Record
from proxy.shell.store.contract import (
    Ask,
    Changed,
    Commit,
    Committed,
    Condemned,
    FailedLately,
    Gone,
    Granted,
    Held,
    Snapshot,
    Unresolved,
)

Rule = Callable[[Entry | None, float], Step]
"""An operation with its arguments bound: row and store time in, row and answer out."""

PURGE_ROWS = 32
"""Most expired rows that one call clears away."""

_log = logging.getLogger(__name__)


class EmbeddedStore(ABC):
    """The contract (`Store`) for a store that no other process changes.

    Args:
        clock: store time, Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._listeners: list[Callable[[str], None]] = []

    @abstractmethod
    async def _apply(self, key: str, rule: Rule, *, reads: bool = False) -> tuple[Step, float]:
        """Run `rule` on the row under `key`, keep what it made of it, tell the listeners.

        Args:
            reads: the rule never changes the row.
        Returns:
            The rule's step, and the store time that it saw.
        """

    @abstractmethod
    async def spend_flow(self, flow_id: str, keep_s: float) -> bool: ...

    @abstractmethod
    async def close(self) -> None: ...

    @property
    def coherent(self) -> bool:
        return True

    def listen(self, on_change: Callable[[str], None]) -> None:
        self._listeners.append(on_change)

    def _tell(self, key: str) -> None:
        for on_change in self._listeners:
            try:
                on_change(key)
            except Exception:
                _log.exception("a listener of the session store failed")

    async def create(self, key: str, record: Record) -> None:
        step, _ = await self._apply(key, partial(rules.create, record=record))
        if step.word is Word.EXISTS:
            raise ValueError("this session key exists already: the id was not drawn at random")

    async def read(self, key: str) -> Snapshot:
        step, now = await self._apply(key, _look, reads=True)
        return Snapshot(None if step.entry is None else step.entry.record, now)

    async def acquire(self, key: str, ask: Ask) -> Granted | Changed | Held | FailedLately | Gone:
        rule = partial(
            rules.acquire,
            attempt=ask.attempt,
            holder=ask.holder,
            gen=ask.gen,
            rt=ask.rt,
            lease_s=ask.lease_s,
        )
        step, now = await self._apply(key, rule)
        if step.word is Word.HELD:
            return Held(step.at - now, now)
        if step.entry is None or step.word is Word.GONE:
            return Gone(step.reason, now)
        record = step.entry.record
        if step.word is Word.GRANTED:
            return Granted(record, now)
        if step.outcome is not None:
            return FailedLately(step.outcome, record, now)
        return Changed(record, now)

    async def renew(self, key: str, attempt: str, lease_s: float) -> bool:
        step, _ = await self._apply(key, partial(rules.renew, attempt=attempt, lease_s=lease_s))
        return step.word is Word.DONE

    async def commit(self, key: str, write: Commit) -> Committed | Changed | Gone:
        rule = partial(
            rules.commit,
            attempt=write.attempt,
            consumed_rt=write.consumed_rt,
            acquired_gen=write.acquired_gen,
            tokens=write.tokens,
            rt=write.rt,
            due=write.due,
            outcome=write.outcome,
        )
        step, now = await self._apply(key, rule)
        if step.entry is None or step.word is Word.GONE:
            return Gone(step.reason, now)
        if step.word is Word.COMMITTED:
            return Committed(step.entry.record, now)
        return Changed(step.entry.record, now)

    async def abandon(self, key: str, attempt: str, outcome: Outcome | None, *, release: bool = True) -> None:
        await self._apply(key, partial(rules.abandon, attempt=attempt, outcome=outcome, release=release))

    async def condemn(
        self, key: str, attempt: str, gen: str, outcome: Outcome
    ) -> Condemned | Unresolved | Changed | Gone:
        rule = partial(rules.condemn, attempt=attempt, gen=gen, outcome=outcome)
        step, now = await self._apply(key, rule)
        if step.entry is None or step.word is Word.GONE:
            return Gone(step.reason, now)
        record = step.entry.record
        if step.word is Word.CONDEMNED:
            return Condemned(record, now)
        if step.word is Word.UNRESOLVED:
            return Unresolved(record, step.at, now)
        return Changed(record, now)

    async def identify(self, key: str, gen: str, who: bytes, who_id: str) -> bool:
        step, _ = await self._apply(key, partial(rules.identify, gen=gen, who=who, who_id=who_id))
        return step.word is Word.DONE

    async def touch(self, key: str, seen: float) -> None:
        await self._apply(key, partial(rules.touch, seen=seen))

    async def end(self, key: str, reason: str, keep_s: float) -> Record | None:
        before: list[Entry | None] = []

        def rule(entry: Entry | None, now: float) -> Step:
            before.append(entry)
            return rules.end(entry, now, reason=reason, keep_s=keep_s)

        await self._apply(key, rule)
        return None if before[-1] is None else before[-1].record


def _look(entry: Entry | None, now: float) -> Step:
    return Step(entry, Word.DONE)


class MemoryStore(EmbeddedStore):
    """Rows in a dictionary. Each operation runs without an await, hence alone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._rows: dict[str, Entry] = {}
        self._flows: dict[str, float] = {}
        self._row_ends: list[tuple[float, str]] = []
        self._flow_ends: list[tuple[float, str]] = []

    async def _apply(self, key: str, rule: Rule, *, reads: bool = False) -> tuple[Step, float]:
        now = self._clock()
        self._purge(now)
        entry = rules.living(self._rows.get(key), now)
        step = rule(entry, now)
        if step.entry is not None and step.entry is not entry:
            self._rows[key] = step.entry
            if entry is None or entry.keep_until != step.entry.keep_until:
                heapq.heappush(self._row_ends, (step.entry.keep_until, key))
        if step.tell:
            self._tell(key)
        return step, now

    async def spend_flow(self, flow_id: str, keep_s: float) -> bool:
        now = self._clock()
        self._purge(now)
        if now < self._flows.get(flow_id, now):
            return False
        self._flows[flow_id] = now + keep_s
        heapq.heappush(self._flow_ends, (now + keep_s, flow_id))
        return True

    async def close(self) -> None:
        """Nothing to release."""

    def _purge(self, now: float) -> None:
        """Forget what is over; a row whose end moved since is found again under its new end."""
        for _ in range(PURGE_ROWS):
            if not self._row_ends or self._row_ends[0][0] > now:
                break
            _, key = heapq.heappop(self._row_ends)
            if key in self._rows and self._rows[key].keep_until <= now:
                del self._rows[key]
        for _ in range(PURGE_ROWS):
            if not self._flow_ends or self._flow_ends[0][0] > now:
                break
            _, flow_id = heapq.heappop(self._flow_ends)
            if self._flows.get(flow_id, now + 1) <= now:
                del self._flows[flow_id]
