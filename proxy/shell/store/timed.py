"""Any store, with its operations measured: one wrapper instead of a stopwatch in each."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from proxy.core.answers import AcquireAnswer, Ask, Commit, CommitAnswer, CondemnAnswer, Snapshot, Tally
from proxy.core.session import Outcome, Record
from proxy.errors import StoreUnavailable
from proxy.shell.store.coherence import Coherence
from proxy.shell.store.contract import Store

T = TypeVar("T")


class TimedStore:
    """Passes every call on and reports operation, result and seconds.

    Args:
        inner: the store.
        report: takes the figures.
    """

    def __init__(self, inner: Store, report: Callable[[str, str, float], None]) -> None:
        self._inner = inner
        self._report = report

    @property
    def coherence(self) -> Coherence:
        return self._inner.coherence

    @property
    def problem(self) -> str:
        return self._inner.problem

    def listen(self, on_change: Callable[[str], None]) -> None:
        self._inner.listen(on_change)

    async def _timed(self, operation: str, call: Awaitable[T]) -> T:
        began = time.perf_counter()
        result = "failed"
        try:
            answer: Any = await call
            result = type(answer).__name__.lower()
            return answer
        except StoreUnavailable:
            result = "unavailable"
            raise
        finally:
            self._report(operation, result, time.perf_counter() - began)

    async def create(self, key: str, record: Record) -> None:
        await self._timed("create", self._inner.create(key, record))

    async def read(self, key: str) -> Snapshot:
        return await self._timed("read", self._inner.read(key))

    async def acquire(self, key: str, ask: Ask) -> AcquireAnswer:
        return await self._timed("acquire", self._inner.acquire(key, ask))

    async def renew(self, key: str, attempt: str, lease_s: float) -> bool:
        return await self._timed("renew", self._inner.renew(key, attempt, lease_s))

    async def commit(self, key: str, write: Commit) -> CommitAnswer:
        return await self._timed("commit", self._inner.commit(key, write))

    async def abandon(self, key: str, attempt: str, outcome: Outcome | None, *, release: bool = True) -> None:
        await self._timed("abandon", self._inner.abandon(key, attempt, outcome, release=release))

    async def condemn(self, key: str, attempt: str, gen: str, outcome: Outcome) -> CondemnAnswer:
        return await self._timed("condemn", self._inner.condemn(key, attempt, gen, outcome))

    async def identify(self, key: str, gen: str, who: bytes, who_id: str) -> bool:
        return await self._timed("identify", self._inner.identify(key, gen, who, who_id))

    async def touch(self, key: str, seen: float) -> None:
        await self._timed("touch", self._inner.touch(key, seen))

    async def end(self, key: str, reason: str, keep_s: float) -> Record | None:
        return await self._timed("end", self._inner.end(key, reason, keep_s))

    async def spend_flow(self, flow_id: str, keep_s: float) -> bool:
        return await self._timed("spend_flow", self._inner.spend_flow(flow_id, keep_s))

    async def not_before(self, record: Record) -> float:
        return await self._timed("not_before", self._inner.not_before(record))

    async def note(self, name: str, keep_s: float, at: float = 0.0) -> float:
        return await self._timed("note", self._inner.note(name, keep_s, at))

    async def noted(self, name: str) -> float:
        return await self._timed("noted", self._inner.noted(name))

    async def mark(self, user: str, keep_s: float) -> float:
        return await self._timed("mark", self._inner.mark(user, keep_s))

    async def sessions_of(self, name: str) -> list[str]:
        return await self._timed("sessions_of", self._inner.sessions_of(name))

    async def tally(self) -> list[Tally]:
        return await self._timed("tally", self._inner.tally())

    async def announce(self, replica: str, keys: Sequence[str], keep_s: float) -> list[tuple[str, ...]]:
        return await self._timed("announce", self._inner.announce(replica, keys, keep_s))

    async def close(self) -> None:
        await self._inner.close()
