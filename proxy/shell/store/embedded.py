"""What the two embedded stores share: the rules run under one process, so every change is ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from proxy.core import record as rules
from proxy.core.answers import AcquireAnswer, Ask, Commit, CommitAnswer, CondemnAnswer, Snapshot, Tally
from proxy.core.record import Row
from proxy.core.session import Outcome, Record
from proxy.shell.store.coherence import Coherence
from proxy.shell.store.listeners import Listeners
from proxy.shell.store.marks import unless_marked

Answer = TypeVar("Answer")
Change = Callable[[Row | None, float], tuple[Row | None, Answer]]


class EmbeddedStore(ABC):
    """The contract, on top of one primitive: change one row atomically and durably.

    Subclasses give what is left open here. `_change` also tells the listeners, whatever has
    become of the caller by then, if `rules.others_must_know`.
    """

    def __init__(self) -> None:
        self._listeners = Listeners()
        self.coherence = Coherence()

    @property
    def problem(self) -> str:
        return ""  # whoever asks finds out

    def listen(self, on_change: Callable[[str], None]) -> None:
        self._listeners.add(on_change)

    @abstractmethod
    async def _change(self, key: str, change: Change[Answer]) -> Answer: ...

    async def create(self, key: str, record: Record) -> None:
        if not await self._change(key, lambda row, now: rules.create(row, record)):
            raise ValueError(f"session {key[:12]} exists already")

    async def acquire(self, key: str, ask: Ask) -> AcquireAnswer:
        return await self._change(key, lambda row, now: rules.acquire(row, ask, now))

    async def renew(self, key: str, attempt: str, lease_s: float) -> bool:
        return await self._change(key, lambda row, now: rules.renew(row, attempt, lease_s, now))

    async def commit(self, key: str, write: Commit) -> CommitAnswer:
        answer = await self._change(key, lambda row, now: rules.commit(row, write, now))
        return await unless_marked(self, key, answer)

    async def abandon(self, key: str, attempt: str, outcome: Outcome | None, *, release: bool = True) -> None:
        await self._change(key, lambda row, now: (rules.abandon(row, attempt, outcome, release, now), None))

    async def condemn(self, key: str, attempt: str, gen: str, outcome: Outcome) -> CondemnAnswer:
        return await self._change(key, lambda row, now: rules.condemn(row, attempt, gen, outcome, now))

    async def identify(self, key: str, gen: str, who: bytes, who_id: str) -> bool:
        return await self._change(key, lambda row, now: rules.identify(row, gen, who, who_id))

    async def touch(self, key: str, seen: float) -> None:
        await self._change(key, lambda row, now: (rules.touch(row, seen), None))

    async def end(self, key: str, reason: str, keep_s: float) -> Record | None:
        return await self._change(key, lambda row, now: rules.end(row, reason, keep_s, now))

    @abstractmethod
    async def read(self, key: str) -> Snapshot: ...

    @abstractmethod
    async def not_before(self, record: Record) -> float: ...

    @abstractmethod
    async def note(self, name: str, keep_s: float, at: float = 0.0) -> float: ...

    @abstractmethod
    async def noted(self, name: str) -> float: ...

    @abstractmethod
    async def mark(self, user: str, keep_s: float) -> float: ...

    @abstractmethod
    async def sessions_of(self, name: str) -> list[str]: ...

    @abstractmethod
    async def tally(self) -> list[Tally]: ...

    @abstractmethod
    async def spend_flow(self, flow_id: str, keep_s: float) -> bool: ...

    @abstractmethod
    async def close(self) -> None: ...

    async def announce(self, replica: str, keys: Sequence[str], keep_s: float) -> list[tuple[str, ...]]:
        return [tuple(keys)]  # an embedded store has one process
