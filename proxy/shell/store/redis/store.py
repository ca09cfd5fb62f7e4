"""The store's contract on Redis: asks the scripts, understands what they answer.

Every rule is in `lua/`, run by Redis in one go; `core/record.py` is their reference. Reads that
are asked for in one turn of the loop go out together.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from proxy.core import record as rules
from proxy.core.answers import (
    AcquireAnswer,
    Ask,
    Changed,
    Commit,
    CommitAnswer,
    Committed,
    CondemnAnswer,
    Condemned,
    FailedLately,
    Gone,
    Granted,
    Held,
    Snapshot,
    Tally,
    Unresolved,
)
from proxy.core.seal import random_id
from proxy.core.session import INTENT_KEEP_S, Outcome, Record, ended, unresolved
from proxy.errors import StoreUnavailable
from proxy.shell.store.coherence import Coherence
from proxy.shell.store.listeners import Listeners
from proxy.shell.store.marks import unless_marked
from proxy.shell.store.redis.channel import Channel
from proxy.shell.store.redis.codec import lease_until, pack_outcome, pack_record, unpack_record
from proxy.shell.store.redis.link import Call, Link, Plain
from proxy.shell.store.redis.options import LinkOptions
from proxy.shell.store.redis.primaries import Primaries
from proxy.shell.store.redis.scripts import script

log = logging.getLogger("nightporter.store")

T = TypeVar("T")

BATCH = 128
"""Most reads in one round trip."""


class RedisStore:
    """See the module's docstring. `start` before use.

    Args:
        link: the connections.
        prefix: of every key and channel.
        monotonic: this process's clock that never jumps.
        observe: told Redis's time with every answer to a write.
        clock: the store's time in tests; None = Redis's own.

    Attributes:
        coherence: until when changes made elsewhere are known to have been heard.
    """

    def __init__(
        self,
        link: Link,
        *,
        prefix: str = "np:",
        monotonic: Callable[[], float] = time.monotonic,
        observe: Callable[[float], None] = lambda now: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._observe = observe
        self._clock = clock
        self._sender = random_id()
        self._listeners = Listeners()
        self._reads: list[tuple[str, asyncio.Future[Snapshot]]] = []
        self._running: set[asyncio.Task[Any]] = set()
        self._steady: list[asyncio.Task[None]] = []
        self.coherence = Coherence(0.0)
        self._channel = Channel(
            link,
            prefix=prefix,
            sender=self._sender,
            coherence=self.coherence,
            monotonic=monotonic,
            heard=self._heard,
            renewed=self._renewed,
        )

    def start(self) -> None:
        """Subscribe, until `close`. Redis may be away."""
        self._steady.append(asyncio.get_running_loop().create_task(self._channel.run()))

    @property
    def problem(self) -> str:
        return self._link.complaints.word

    def listen(self, on_change: Callable[[str], None]) -> None:
        self._listeners.add(on_change)

    # -- operations --

    async def create(self, key: str, record: Record) -> None:
        for name in filter(None, (record.user, record.op_session)):
            # First, and one after the other: in a cluster each is elsewhere, and a session that is on no
            # list could not be ended through it.
            place, name_bytes = self._list(name)
            call = self._call("enlist", place, name_bytes + _member(key), repr(record.end))
            await self._told(call)
        reply = await self._write("create", key, pack_record(record), record.tokens, record.who)
        if reply[0] == b"exists":
            raise ValueError(f"session {key[:12]} exists already")

    async def not_before(self, record: Record) -> float:
        marks = (await self._link.run_all([self._marks()]))[0]
        if isinstance(marks, StoreUnavailable):
            raise marks
        return await self._marked(record, marks)

    async def note(self, name: str, keep_s: float, at: float = 0.0) -> float:
        place = f"{self._prefix}note:{name}"
        reply = await self._told(self._call("note", place, repr(keep_s), repr(at)))
        return float(reply[3])

    async def noted(self, name: str) -> float:
        reply = await self._link.run(self._call("noted", f"{self._prefix}note:{name}"))
        return float(reply[3])

    async def mark(self, user: str, keep_s: float) -> float:
        return await self._mark(user, "", keep_s)

    async def sessions_of(self, name: str) -> list[str]:
        place, name_bytes = self._list(name)
        reply = await self._link.run(self._call("listed", place, name_bytes))
        return [_key(member) for member in reply[3:]]

    async def tally(self) -> list[Tally]:
        counts: Counter[Tally] = Counter()
        async for keys in self._link.scan(f"{self._prefix}{{????????????????*}}"):
            for start in range(0, len(keys), BATCH):
                calls = [self._call("read", key.decode()) for key in keys[start : start + BATCH]]
                live: list[Record] = []
                for reply in await self._link.run_all(calls):
                    if isinstance(reply, StoreUnavailable):
                        raise reply
                    record = _record(reply) if reply[0] == b"found" else None
                    if record is not None and not record.tombstone:
                        mark = await self.not_before(record)
                        live += [record] if not ended(record, float(reply[1]), mark) else []
                for tally in rules.tallied(live):
                    counts[msgspec.structs.replace(tally, count=0)] += tally.count
        return [msgspec.structs.replace(tally, count=count) for tally, count in counts.items()]

    async def read(self, key: str) -> Snapshot:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Snapshot] = loop.create_future()
        if not self._reads:
            loop.call_soon(self._send_reads)
        self._reads.append((key, future))
        return await future

    async def acquire(self, key: str, ask: Ask) -> AcquireAnswer:
        reply = await self._write(
            "acquire",
            key,
            *(ask.attempt, ask.holder, ask.gen, ask.rt, repr(ask.lease_s), repr(INTENT_KEEP_S)),
            safely=ask.durable,
        )
        now = float(reply[1])
        match reply[0]:
            case b"gone":
                return _gone(reply)
            case b"held":
                return Held(lease_until(reply[3]) - now, now)
            case b"changed":
                return Changed(_record(reply), now)
            case b"failed":
                record = _record(reply)
                outcome = rules.binding(record, now)
                assert outcome is not None
                return FailedLately(outcome, record, now)
            case _:
                if reply[-1] is False:
                    await self.abandon(key, ask.attempt, None)
                    raise StoreUnavailable(
                        "Redis's replicas did not confirm a lease in time: bring them back"
                    )
                return Granted(_record(reply), now)

    async def renew(self, key: str, attempt: str, lease_s: float) -> bool:
        reply = await self._write("renew", key, attempt, repr(lease_s))
        return reply[0] == b"ours"

    async def commit(self, key: str, write: Commit) -> CommitAnswer:
        reply = await self._write(
            "commit",
            key,
            *(write.attempt, write.consumed_rt, write.acquired_gen, write.tokens, write.rt),
            *(repr(write.due), pack_outcome(write.outcome)),
            safely=True,
        )
        now = float(reply[1])
        match reply[0]:
            case b"gone":
                return _gone(reply)
            case b"changed":
                return Changed(_record(reply), now)
            case _:
                return await unless_marked(self, key, Committed(_record(reply), now))

    async def abandon(self, key: str, attempt: str, outcome: Outcome | None, *, release: bool = True) -> None:
        packed = pack_outcome(outcome) if outcome is not None else b""
        await self._write("abandon", key, attempt, packed, "1" if release else "0")

    async def condemn(self, key: str, attempt: str, gen: str, outcome: Outcome) -> CondemnAnswer:
        reply = await self._write("condemn", key, attempt, gen, pack_outcome(outcome), repr(INTENT_KEEP_S))
        now = float(reply[1])
        match reply[0]:
            case b"gone":
                return _gone(reply)
            case b"changed":
                return Changed(_record(reply), now)
            case b"unresolved":
                record = _record(reply)
                others = unresolved(record, attempt, now)
                return Unresolved(record, max(intent.at for intent in others) + INTENT_KEEP_S, now)
            case _:
                return Condemned(_record(reply), now)

    async def identify(self, key: str, gen: str, who: bytes, who_id: str) -> bool:
        reply = await self._write("identify", key, gen, who, who_id)
        return reply[0] == b"written"

    async def touch(self, key: str, seen: float) -> None:
        await self._write("touch", key, repr(seen))

    async def end(self, key: str, reason: str, keep_s: float) -> Record | None:
        reply = await self._write("end", key, reason, repr(keep_s), safely=True)
        return _record(reply) if reply[0] == b"ended" else None

    async def spend_flow(self, flow_id: str, keep_s: float) -> bool:
        call = self._call("spend", f"{self._prefix}flow:{flow_id}", repr(keep_s), random_id())
        reply = await self._told(call)
        return reply[0] == b"spent"

    async def announce(self, replica: str, keys: Sequence[str], keep_s: float) -> list[tuple[str, ...]]:
        call = self._call("announce", f"{self._prefix}replicas", replica, " ".join(keys), repr(keep_s))
        reply = await self._told(call)
        return [tuple(words.decode().split()) for words in reply[3:]]

    async def close(self) -> None:
        for task in self._steady:
            task.cancel()
        await asyncio.gather(*self._steady, return_exceptions=True)
        if self._running:
            await asyncio.wait(self._running)
        await self._link.close()

    # -- asking --

    def _call(self, name: str, key: str, *args: str | bytes) -> Call:
        now = repr(self._clock()) if self._clock is not None else ""
        return Call(script(name), key, (now, f"{self._prefix}changed", self._sender, *args))

    def _list(self, name: str) -> tuple[str, bytes]:
        """Where a list of sessions is, and its name there."""
        digest = hashlib.sha256(name.encode()).digest()[:16]
        return f"{self._prefix}of:{digest.hex()[:3]}", digest

    def _marks(self) -> Plain:
        """Everybody's mark, and the time of the newest user's mark: without a newer one nobody looks."""
        place = f"{self._prefix}{{mark}}"
        return Plain(("MGET", f"{place}:all", f"{place}:newest"))

    async def _marked(self, record: Record, marks: list[bytes | None]) -> float:
        everybody, newest = (float(mark or 0.0) for mark in marks)
        if not record.user or newest <= record.born:
            return everybody
        place = f"{self._prefix}{{mark}}:{record.user}"
        own = (await self._link.run_all([Plain(("GET", place))]))[0]
        if isinstance(own, StoreUnavailable):
            raise own
        return max(everybody, float(own or 0.0))

    async def _mark(self, user: str, at: str, keep_s: float) -> float:
        """Write a mark.

        Args:
            at: store time as text; "" = now.
        """
        place = f"{self._prefix}{{mark}}"
        told = f"user:{user}" if user else "*"
        call = self._call("mark", f"{place}:{user or 'all'}", at, repr(keep_s), told)
        reply = await self._whole(self._link.run(call, safely=True))
        if user:
            call = self._call("mark", f"{place}:newest", reply[3], repr(keep_s), "")
            await self._whole(self._link.run(call, safely=True))
        self._listeners.tell(told if user else "")
        return float(reply[3])

    def _session(self, key: str) -> str:
        return f"{self._prefix}{{{key}}}"

    async def _told(self, call: Call) -> list[Any]:
        """Run a script that is about no session that anybody holds open."""
        reply = await self._whole(self._link.run(call))
        self._observe(float(reply[1]))
        return reply

    async def _write(self, name: str, key: str, *args: str | bytes, safely: bool = False) -> list[Any]:
        return await self._whole(self._written(key, self._call(name, self._session(key), *args), safely))

    async def _written(self, key: str, call: Call, safely: bool) -> list[Any]:
        try:
            reply = await self._link.run(call, safely=safely)
        except StoreUnavailable:
            # It may have happened: whoever holds something of this session reads it again.
            self._listeners.tell(key)
            raise
        self._observe(float(reply[1]))
        if reply[2]:
            self._listeners.tell(key)
        return reply

    async def _whole(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run `operation` to its end, whatever becomes of the caller's task."""
        task = asyncio.get_running_loop().create_task(operation)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def _send_reads(self) -> None:
        reads, self._reads = self._reads, []
        for start in range(0, len(reads), BATCH):
            task = asyncio.get_running_loop().create_task(self._read_all(reads[start : start + BATCH]))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _read_all(self, reads: list[tuple[str, asyncio.Future[Snapshot]]]) -> None:
        calls = [self._call("read", self._session(key)) for key, _ in reads]
        marks, *replies = await self._link.run_all([self._marks(), *calls])
        answers = [self._snapshot(reply, marks) for reply in replies]
        for (_, future), answer in zip(reads, await asyncio.gather(*answers), strict=True):
            if future.done():  # nobody waits any more
                continue
            if isinstance(answer, StoreUnavailable):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _snapshot(self, reply: Any, marks: Any) -> Snapshot | StoreUnavailable:
        for answer in (reply, marks):
            if isinstance(answer, StoreUnavailable):
                return answer
        try:
            now = float(reply[1])
            if reply[0] != b"found":
                return Snapshot(None, now)
            record = _record(reply)
            return Snapshot(record, now, await self._marked(record, marks))
        except StoreUnavailable as error:
            return error

    def _renewed(self) -> None:
        """The subscription is new: anything may have been missed before."""
        self._listeners.tell("")

    def _heard(self, words: list[str]) -> None:
        """Another process's message: a key, and the reason if its session is over."""
        if words[0] == "*":
            self._listeners.tell("")
        elif len(words) > 1 and not words[0].startswith("user:"):
            self._listeners.tell(f"ended:{words[0]}")
        else:
            self._listeners.tell(words[0])


def _record(reply: list[Any]) -> Record:
    try:
        return unpack_record(reply[3], reply[4], reply[5])
    except msgspec.DecodeError as error:
        # Nobody is signed out by what we cannot read: the version that wrote it can.
        raise StoreUnavailable("Redis holds a session that a newer version wrote, or damaged") from error


def _gone(reply: list[Any]) -> Gone:
    return Gone(reply[3].decode(), float(reply[1]))


def _member(key: str) -> bytes:
    """A session's key as a list holds it: half as long where it is what it should be, hexadecimal."""
    try:
        return bytes.fromhex(key) if len(key) == 64 else b":" + key.encode()
    except ValueError:
        return b":" + key.encode()


def _key(member: bytes) -> str:
    return member[1:].decode() if member[:1] == b":" and len(member) != 32 else member.hex()


def beside(options: LinkOptions, monotonic: Callable[[], float]) -> RedisStore:
    """A store for an operator's command: it listens to nobody."""
    link = Link(options, Primaries(one=options.address.kind != "cluster", monotonic=monotonic))
    return RedisStore(link, prefix=options.prefix, monotonic=monotonic)
