"""Sessions in this process's memory: for tests and trials. A restart signs everybody out."""

from __future__ import annotations

from collections.abc import Callable

from proxy.core import record as rules
from proxy.core.record import Row
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
