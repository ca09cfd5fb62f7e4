"""A Redis with one replica that lags behind, in virtual time: what a failover loses, it loses for good.

It answers the scripts by name with the rules of `core/record.py`, which the contract suite shows to be
what the scripts do. The store above it is the product's own, whole.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from proxy.core import record as rules
from proxy.core.answers import (
    Ask,
    Changed,
    Commit,
    Committed,
    Condemned,
    FailedLately,
    Gone,
    Granted,
    Held,
    Unresolved,
)
from proxy.core.record import Row
from proxy.core.session import Outcome, OutcomeKind, Record
from proxy.errors import StoreUnavailable
from proxy.shell.store.redis.codec import pack_record, unpack_record
from proxy.shell.store.redis.link import Call, Plain
from proxy.shell.store.redis.primaries import Primaries
from proxy.shell.store.redis.steadfast import SteadfastStore

BEAT_S = 0.2
"""A replica's heartbeat: how soon it talks to Redis again whatever it does."""


class Server:
    """The primary and its replica, seen from outside.

    Args:
        clock: store time, Unix seconds.
        rng: decides how long everything takes.
        lag_s: how far the replica is behind at most.

    Attributes:
        run: which server is the primary; a failover counts it up.
        up: whether anybody answers.
        lost_commits, lost_leases: what failovers have dropped.
        written: set with every renewal that is written: a good moment for a failover.
    """

    def __init__(self, clock: Callable[[], float], rng: random.Random, lag_s: float) -> None:
        self.clock, self.rng, self.lag_s = clock, rng, lag_s
        self.run = 0
        self.up = True
        self._subscribers: dict[FailingLink, SteadfastStore] = {}
        self.lost_commits = 0
        self.lost_leases = 0
        self.written = asyncio.Event()
        self._rows: dict[str, Row] = {}
        self._log: list[tuple[float, str, Row | None]] = []
        self._replica: dict[str, Row] = {}

    def row(self, key: str) -> Row | None:
        return rules.current(self._rows.get(key), self.clock())

    def record(self, key: str) -> Record:
        """A session that is there, as the primary has it."""
        row = self.row(f"np:{{{key}}}")
        assert row is not None
        return row.record

    def put(self, key: str, row: Row | None) -> None:
        """Write on the primary; the replica follows."""
        self._catch_up()
        if row is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = row
        self._log.append((self.clock() + self.rng.random() * self.lag_s, key, row))

    def join(self, link: FailingLink, store: SteadfastStore) -> None:
        """A process's store, on this link, subscribes."""
        self._subscribers[link] = store

    def tell(self, sender: FailingLink, place: str) -> None:
        """Everybody else who is connected hears of a change soon."""
        for link, store in self._subscribers.items():
            if link is not sender:
                asyncio.get_running_loop().call_later(
                    self.rng.random() * 0.05, self._hear, link, store, place
                )

    def _hear(self, link: FailingLink, store: SteadfastStore, place: str) -> None:
        if self.up and link.subscribed == self.run:
            store._heard([place[place.index("{") + 1 : -1]])

    def renew(self, link: FailingLink) -> None:
        """It subscribes anew, soon."""
        run = self.run

        def subscribed() -> None:
            if self.up and run == self.run:
                link.subscribed = run
                self._subscribers[link]._renewed()

        asyncio.get_running_loop().call_later(self.rng.random() * 0.3, subscribed)

    def _catch_up(self) -> None:
        """Replication keeps the order of the writes."""
        while self._log and self._log[0][0] <= self.clock():
            _, key, row = self._log.pop(0)
            self._replica.pop(key, None)
            if row is not None:
                self._replica[key] = row

    async def fail_over(self, away_s: float) -> None:
        """The primary dies; after a while its replica is the primary, without what it had not heard of."""
        self.up = False
        self._catch_up()
        for key, row in self._rows.items():
            old = self._replica.get(key)
            self.lost_commits += old is None or old.record.gen != row.record.gen
            self.lost_leases += row.lease is not None and (old is None or old.lease != row.lease)
        self._rows, self._log = dict(self._replica), []
        await asyncio.sleep(away_s)
        self.run += 1
        self.up = True


class FailingLink:
    """One process's connections to it.

    Args:
        server: who answers.
        primaries: learns who answers.
    """

    def __init__(self, server: Server, primaries: Primaries) -> None:
        self.server, self.primaries = server, primaries
        self._run = self.subscribed = 0

    async def run(self, call: Call, *, safely: bool = False) -> list[Any]:
        reply = (await self.run_all([call]))[0]
        if isinstance(reply, StoreUnavailable):
            raise reply
        return reply

    async def run_all(self, calls: Sequence[Call | Plain], *, wait: int = 0) -> list[Any]:
        server = self.server
        if not server.up:
            return self._broken(calls)
        if self._run != server.run:  # a new connection: who is at its other end?
            self._run = server.run
            self.primaries._note("a failover")  # what `greet` finds out from INFO
            server.renew(self)
        await asyncio.sleep(server.rng.random() * 0.02)
        if not server.up or self._run != server.run:
            return self._broken(calls)
        replies = [self._answer(call) for call in calls]
        await asyncio.sleep(server.rng.random() * 0.02)
        if not server.up or self._run != server.run:
            return self._broken(calls)  # it was done, and nobody hears that
        self.primaries.answered()
        return replies

    async def beat(self) -> None:
        """What the heartbeat does for the store: it talks to Redis all the time."""
        while True:
            await asyncio.sleep(BEAT_S)
            await self.run_all([])

    async def close(self) -> None:
        pass

    def _broken(self, calls: Sequence[Call | Plain]) -> list[Any]:
        self.primaries.broke()
        return [StoreUnavailable("the connection broke")] * len(calls)

    def _answer(self, call: Call | Plain) -> list[Any]:
        if isinstance(call, Plain):
            return [None] * (len(call.command) - 1)  # no marks
        server, now = self.server, self.server.clock()
        before = server.row(call.key)
        after, word, more = _run(call, before, now)
        if after is not before:
            server.put(call.key, after)
            if word == b"committed":
                server.written.set()
        told = int(rules.others_must_know(before, after))
        if told:
            server.tell(self, call.key)
        return [word, repr(now).encode(), told, *more]


def _run(call: Call, row: Row | None, now: float) -> tuple[Row | None, bytes, list[Any]]:
    """One script: the row as it becomes, and what is answered."""
    args: list[Any] = list(call.args[3:])
    match call.script.name:
        case "create":
            record = unpack_record(*args)
            after, good = rules.create(row, record)
            return after, b"created" if good else b"exists", []
        case "read":
            return row, b"found" if row else b"absent", _whole(row)
        case "acquire":
            attempt, holder, gen, rt, lease_s, _ = args
            after, answer = rules.acquire(row, Ask(attempt, holder, gen, rt, float(lease_s)), now)
        case "commit":
            attempt, consumed, acquired, tokens, rt, due, packed = args
            write = Commit(attempt, consumed, acquired, tokens, rt, float(due), _outcome(packed))
            after, answer = rules.commit(row, write, now)
        case "condemn":
            attempt, gen, packed, _ = args
            after, answer = rules.condemn(row, attempt, gen, _outcome(packed), now)
        case "renew":
            after, ours = rules.renew(row, args[0], float(args[1]), now)
            return after, b"ours" if ours else b"lost", []
        case "abandon":
            attempt, packed, release = args
            outcome = _outcome(packed) if packed else None
            return rules.abandon(row, attempt, outcome, release == "1", now), b"done", []
        case "end":
            after, before = rules.end(row, args[0], float(args[1]), now)
            return after, b"ended" if before else b"absent", _whole(row)
        case name:
            raise NotImplementedError(name)
    match answer:
        case Gone(reason):
            return after, b"gone", [str(reason).encode()]
        case Held():
            return after, b"held", _whole(row)
        case Granted():
            word = b"granted"
        case Changed():
            word = b"changed"
        case FailedLately():
            word = b"failed"
        case Committed():
            word = b"committed"
        case Condemned():
            word = b"condemned"
        case Unresolved():
            word = b"unresolved"
    return after, word, _whole(after)


def _whole(row: Row | None) -> list[Any]:
    if row is None:
        return []
    fields = msgspec.msgpack.decode(pack_record(row.record))
    if row.lease is not None:
        fields["l"] = [row.lease.attempt, row.lease.until]
    return [msgspec.msgpack.encode(fields), row.record.tokens, row.record.who]


def _outcome(packed: bytes) -> Outcome:
    kind, *fields = msgspec.msgpack.decode(packed)
    return Outcome(OutcomeKind(kind), *fields)
