"""The Redis store that outlives a failover: what was acknowledged and then lost is written again.

Redis replicates behind its answers, so a new primary may lack the last writes. See `memory.py`
for what is remembered and `primaries.py` for how a change is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from msgspec.structs import replace

from proxy.core.answers import (
    AcquireAnswer,
    Ask,
    Changed,
    Commit,
    CommitAnswer,
    Committed,
    CondemnAnswer,
    Gone,
    Granted,
    Snapshot,
)
from proxy.core.session import Ended, Outcome, Record
from proxy.errors import StoreUnavailable
from proxy.shell.store.redis.link import Link
from proxy.shell.store.redis.memory import Memory
from proxy.shell.store.redis.options import LinkOptions
from proxy.shell.store.redis.primaries import Primaries
from proxy.shell.store.redis.store import BATCH, RedisStore

log = logging.getLogger("nightporter.store")

AGAIN_S = 0.2
"""Pause before another look at what was written, while Redis does not answer."""


class SteadfastStore(RedisStore):
    """See the module's docstring.

    Args:
        link, prefix, monotonic, observe, clock: see `RedisStore`.
        primaries: knows when a failover may have lost something.
    """

    def __init__(
        self,
        link: Link,
        primaries: Primaries,
        *,
        prefix: str = "np:",
        monotonic: Callable[[], float] = time.monotonic,
        observe: Callable[[float], None] = lambda now: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(link, prefix=prefix, monotonic=monotonic, observe=observe, clock=clock)
        self._primaries = primaries
        self._memory = Memory(monotonic)
        self._look = asyncio.Event()
        self._doubtful: set[str] = set()
        self._all_doubtful = False
        primaries.changed = self._doubt_all

    def start(self) -> None:
        """Subscribe, and watch for failovers, until `close`. Redis may be away."""
        super().start()
        self._steady.append(asyncio.get_running_loop().create_task(self._repair()))

    # -- operations --

    async def read(self, key: str) -> Snapshot:
        snapshot = await super().read(key)
        if snapshot.record is None:
            return snapshot
        record = await self._restored(key, snapshot.record)
        return Snapshot(record, snapshot.now, snapshot.not_before)

    async def acquire(self, key: str, ask: Ask) -> AcquireAnswer:
        while True:
            if hold_s := self._primaries.hold_s:
                # Those who remember what the failover lost write it again first.
                await asyncio.sleep(hold_s)
            answer = await super().acquire(key, ask)
            if not self._primaries.hold_s:  # else it was found out on the way: ask again, as the same attempt
                break
        match answer:
            case Granted():
                newer = await self._restored(key, answer.record)
                if newer.gen == answer.record.gen and not newer.tombstone:
                    return answer
                await self.abandon(key, ask.attempt, None)
                return Changed(newer, answer.now)
            case Changed():
                return Changed(await self._restored(key, answer.record), answer.now)
            case Gone():
                return self._noted(key, answer)
            case _:
                return answer

    async def commit(self, key: str, write: Commit) -> CommitAnswer:
        over = write
        while True:
            self._memory.sends(key, write)
            answer = await super().commit(key, over)
            match answer:
                case Committed():
                    self._memory.wrote(key, write)
                    return answer
                case Gone():
                    return self._noted(key, answer)
                case Changed(record):
                    # Meanwhile somebody may have said an ancestor again, or the very version we came from.
                    came_back = over is not write and record.gen == write.acquired_gen
                    if not came_back and not self._memory.follows(key, record.gen, write):
                        self._memory.saw(key, record)
                        return answer
            # The store went back behind the version that this reply came from: over the ancestor then.
            log.warning("store_went_back", extra={"session": key[:12]})
            over = _over(write, record)

    async def condemn(self, key: str, attempt: str, gen: str, outcome: Outcome) -> CondemnAnswer:
        answer = await super().condemn(key, attempt, gen, outcome)
        match answer:
            case Changed():
                return Changed(await self._restored(key, answer.record), answer.now)
            case Gone():
                return self._noted(key, answer)
            case _:
                return answer

    async def mark(self, user: str, keep_s: float) -> float:
        at = await super().mark(user, keep_s)
        self._memory.marked(user, at, keep_s)
        return at

    async def end(self, key: str, reason: str, keep_s: float) -> Record | None:
        before = await super().end(key, reason, keep_s)
        if before is not None:
            self._memory.ended(key, before.tombstone or reason, keep_s)
        return before

    # -- what others did, and what a failover lost --

    def _heard(self, words: list[str]) -> None:
        if words[0] == "*" or words[0].startswith("user:"):
            self._memory.marked(words[0].partition(":")[2], _number(words[-1]))
        elif len(words) > 1:
            self._memory.ended(words[0], words[1])
        elif self._primaries.unsettled and self._memory.has_written(words[0]):
            # Somebody said a version again that may come before ours, over one that we did not know.
            self._doubt(words[0])
        super()._heard(words)

    def _renewed(self) -> None:
        super()._renewed()
        if self._primaries.unsettled:
            self._doubt_all()

    def _doubt_all(self) -> None:
        self._all_doubtful = True
        self._doubt(*self._memory.written(), *self._memory.endings())

    def _doubt(self, *keys: str) -> None:
        self._doubtful.update(keys)
        self._look.set()

    def _noted(self, key: str, gone: Gone) -> Gone:
        if gone.reason != Ended.ABSENT:
            self._memory.ended(key, gone.reason)
        return gone

    async def _restored(self, key: str, record: Record) -> Record:
        """The record as it ought to be: what we know that a failover lost is written again.

        Raises:
            StoreUnavailable: something is lost and could not be written.
        """
        memory = self._memory
        if record.tombstone:
            memory.ended(key, record.tombstone)
            return record
        if ending := memory.returned(key):
            log.warning("ending_said_again", extra={"session": key[:12], "reason": ending.reason})
            await super().end(key, ending.reason, ending.keep_s)
            return replace(record, tombstone=ending.reason, intents=())
        # Again, because others say their commits again, too: what ours met may be another ancestor.
        while (write := memory.lost(key, record)) is not None:
            log.warning("commit_said_again", extra={"session": key[:12]})
            answer = await super().commit(key, _over(write, record))
            if isinstance(answer, Gone):
                return replace(record, tombstone=self._noted(key, answer).reason, intents=())
            record = answer.record
        memory.saw(key, record)
        return record

    async def _repair(self) -> None:
        """After a change of primary, look at everything that we wrote or saw end lately; and at single
        sessions that others wrote again."""
        while True:
            await self._look.wait()
            self._look.clear()
            keys, self._doubtful = list(self._doubtful), set()
            everything, self._all_doubtful = self._all_doubtful, False
            if everything:
                self._listeners.tell("")
            try:
                for user, mark in self._memory.marks() if everything else ():
                    await self._mark(user, repr(mark.at), mark.keep_s)
                for start in range(0, len(keys), BATCH):
                    await asyncio.gather(*(self.read(key) for key in keys[start : start + BATCH]))
            except StoreUnavailable:
                await asyncio.sleep(AGAIN_S)
                self._all_doubtful = self._all_doubtful or everything
                self._doubt(*keys)
            except Exception:
                log.exception("repair_failed")


def _over(write: Commit, record: Record) -> Commit:
    """The same tokens, written over this record."""
    return replace(write, consumed_rt=record.rt, acquired_gen=record.gen)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return 0.0  # no message of ours


def open_redis(
    options: LinkOptions,
    monotonic: Callable[[], float],
    observe: Callable[[float], None] = lambda now: None,
) -> SteadfastStore:
    """A store on this Redis, started; nothing waits for Redis to answer.

    Args:
        monotonic: this process's clock that never jumps.
        observe: told the store's time with every answer.
    """
    primaries = Primaries(one=options.address.kind != "cluster", monotonic=monotonic)
    link = Link(options, primaries)
    store = SteadfastStore(link, primaries, prefix=options.prefix, monotonic=monotonic, observe=observe)
    store.start()
    return store
