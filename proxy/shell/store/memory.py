"""Sessions in this process's memory: for tests and trials. A restart signs everybody out."""

from __future__ import annotations

from collections.abc import Callable

from proxy.core import record as rules
from proxy.core.answers import Snapshot, Tally
from proxy.core.record import Row, tallied
from proxy.core.session import Record, ended
from proxy.shell.store.embedded import Answer, Change, EmbeddedStore

_SWEEP = 64


class MemoryStore(EmbeddedStore):
    """The contract on a dict.

    Args:
        clock: the store's time, Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._rows: dict[str, Row] = {}
        self._spent: dict[str, float] = {}
        self._notes: dict[str, tuple[float, float]] = {}
        self._marks: dict[str, tuple[float, float]] = {}

    async def _change(self, key: str, change: Change[Answer]) -> Answer:
        now = self._clock()
        before = rules.current(self._rows.get(key), now)
        after, answer = change(before, now)
        if after is None:
            self._rows.pop(key, None)
        elif after is not before:
            # Moved to the end: the rows that change least are looked at first by the sweep.
            self._rows.pop(key, None)
            self._rows[key] = after
            self._sweep(now)
        if rules.others_must_know(before, after):
            self._listeners.tell(key)
        return answer

    def _sweep(self, now: float) -> None:
        """Forget a few expired rows with each change, so that memory needs no timer."""
        for key in list(self._rows)[:_SWEEP] if len(self._rows) < 4 * _SWEEP else self._first():
            if rules.current(self._rows[key], now) is None:
                del self._rows[key]

    def _first(self) -> list[str]:
        rows = iter(self._rows)
        return [next(rows) for _ in range(2)]

    async def read(self, key: str) -> Snapshot:
        row, now = await self._change(key, lambda row, now: (row, (row, now)))
        if row is None:
            return Snapshot(None, now)
        return Snapshot(row.record, now, await self.not_before(row.record))

    async def not_before(self, record: Record) -> float:
        now = self._clock()
        marks = (self._marks.get(name, (0.0, 0.0)) for name in {"", record.user})
        return max(at if now < until else 0.0 for at, until in marks)

    async def note(self, name: str, keep_s: float, at: float = 0.0) -> float:
        now = self._clock()
        for old, (_, until) in list(self._notes.items())[:_SWEEP]:
            if now >= until:
                del self._notes[old]
        at = max(at or now, await self.noted(name))
        self._notes[name] = (at, now + keep_s)
        return at

    async def noted(self, name: str) -> float:
        at, until = self._notes.get(name, (0.0, 0.0))
        return at if self._clock() < until else 0.0

    async def mark(self, user: str, keep_s: float) -> float:
        now = self._clock()
        self._marks = {name: mark for name, mark in self._marks.items() if now < mark[1]}
        self._marks[user] = (now, now + keep_s)
        self._listeners.tell(f"user:{user}" if user else "")
        return now

    async def sessions_of(self, name: str) -> list[str]:
        now = self._clock()
        return [
            key
            for key, row in self._rows.items()
            if name and name in (row.record.user, row.record.op_session) and rules.current(row, now)
        ]

    async def tally(self) -> list[Tally]:
        now = self._clock()
        records = [row.record for row in self._rows.values() if rules.current(row, now)]
        marks = [await self.not_before(record) for record in records]
        return tallied(
            record for record, mark in zip(records, marks, strict=True) if not ended(record, now, mark)
        )

    async def spend_flow(self, flow_id: str, keep_s: float) -> bool:
        now = self._clock()
        for spent, until in list(self._spent.items())[:_SWEEP]:
            if now >= until:
                del self._spent[spent]
        if now < self._spent.get(flow_id, 0.0):
            return False
        self._spent[flow_id] = now + keep_s
        return True

    async def close(self) -> None:
        self._rows.clear()
