"""The engine on the product's Redis store, and a Redis whose failovers lose acknowledged writes.

Virtual time, a seed for each interleaving, as in `test_engine.py`. No process dies here and the OP answers
everything, so what a failover takes away is all that can go wrong: a lost renewal is written again by whoever
wrote it. Only a lost *lease* is admitted to cost the session, at an OP that punishes reuse, where another
replica may take it (T8).
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from proxy.core import steps
from proxy.core.blobs import open_tokens, seal_tokens
from proxy.core.breaker import Breaker
from proxy.core.providers import PROFILES, Reuse
from proxy.core.seal import SessionSeal, new_ticket
from proxy.core.session import Record, Tokens, store_key
from proxy.core.timing import RefreshPolicy
from proxy.errors import StoreUnavailable
from proxy.shell.clock import StoreTime
from proxy.shell.kit import Kit
from proxy.shell.single_flight import Hooks, SingleFlight
from proxy.shell.store.redis.primaries import Primaries
from proxy.shell.store.redis.steadfast import SteadfastStore
from proxy.shell.subject import Subject
from tests.simulator.failing_redis import FailingLink, Server
from tests.simulator.op import ChaosOP
from tests.virtual import LoopClock, VirtualLoop, run_virtual

SEEDS = range(80)
MODES = (Reuse.GRACE, Reuse.IDEMPOTENT, Reuse.PUNISHED, Reuse.PUNISHED)


class Play:
    """One seed's cast."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = LoopClock(loop)
        self.op = ChaosOP(self.rng.choice(MODES), self.rng, faults=0.0)
        self.server = Server(self.clock.now, self.rng, lag_s=self.rng.choice((0.05, 1.0, 5.0, 30.0)))
        self.seal = SessionSeal(new_ticket(self.clock.now()))
        self.key = store_key(b"session")
        self.stores: list[SteadfastStore] = []
        self.replicas = [self._replica(n) for n in range(self.rng.randint(1, 3))]

    def _replica(self, n: int) -> SingleFlight:
        clock = self.clock
        primaries = Primaries(one=True, monotonic=clock.monotonic)
        link = FailingLink(self.server, primaries)
        store = SteadfastStore(link, primaries, monotonic=clock.monotonic, clock=clock.now)  # type: ignore[arg-type]
        # What `start` starts; the subscription is the server's.
        loop = clock._loop
        store._steady += [loop.create_task(store._repair()), loop.create_task(link.beat())]
        self.server.join(link, store)
        self.stores.append(store)
        kit = Kit(
            store=store, op=self.op, profile=PROFILES["generic"], policy=RefreshPolicy(reuse=self.op.mode),
            clock=clock, time=StoreTime(clock), journal=None, breaker=Breaker(), holder=f"r{n}",
            spread=self.rng.random,
        )  # fmt: skip

        async def examine(subject: Subject, result: steps.Result) -> steps.Result:
            return result

        return SingleFlight(kit, Hooks(examine, lambda key, result, took_s: None), 8)

    async def begin(self) -> None:
        now = self.clock.now()
        tokens = Tokens("at0", "rt0", "", "", now - 60, now, "iss", "client")
        record = Record(
            gen="g0", rt=self.seal.fingerprint("rt0"), tokens=seal_tokens(self.seal, "g0", tokens), who=b"",
            who_id="w", born=now, seen=now, end=now + 1e6, idle_s=1e6, due=now, provider="generic", config="",
        )  # fmt: skip
        await self.stores[0].create(self.key, record)
        await asyncio.sleep(60)  # the replica has it: what is lost is never the whole session

    async def record(self, replica: int) -> Record:
        while True:
            try:
                snapshot = await self.stores[replica].read(self.key)
            except StoreUnavailable:
                await asyncio.sleep(0.1)
                continue
            assert snapshot.record is not None
            return snapshot.record

    async def client(self, until: float) -> None:
        """Asks some replica for a renewal now and then, with whatever that replica last read."""
        known: dict[int, Record] = {}
        while self.clock.now() < until:
            n = self.rng.randrange(len(self.replicas))
            if n not in known or self.rng.random() < 0.7:
                known[n] = await self.record(n)
            flights = self.replicas[n]
            await flights.wait(flights.join(Subject(self.key, self.seal, known[n])), 10.0)
            await asyncio.sleep(self.rng.choice((0.01, 1.0, 30.0)) * self.rng.random())

    async def run(self) -> None:
        await self.begin()
        until = self.clock.now() + 300
        clients = [asyncio.ensure_future(self.client(until)) for _ in range(self.rng.randint(1, 6))]
        while self.clock.now() < until:
            # Most of them strike when there is something to lose, and some strike the same again at once.
            await asyncio.sleep(self.rng.choice((0.5, 5.0, 60.0)) * self.rng.random())
            if self.rng.random() < 0.8:
                self.server.written.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.server.written.wait(), 60)
                await asyncio.sleep(self.rng.random() * self.server.lag_s / 2)
            await self.server.fail_over(self.rng.choice((0.0, 0.3, 1.0, 8.0)))
        await asyncio.gather(*clients)
        for flights in self.replicas:
            assert await flights.drain(1e5) == 0
        await asyncio.sleep(5)  # the last failover is survived, too
        for store in self.stores:
            await store.close()


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed-{seed}")
def test_t7_i2_a_renewal_that_a_failover_lost_is_written_again_before_its_token_is_sent(seed: int) -> None:
    async def main(loop: VirtualLoop) -> None:
        play = Play(loop, seed)
        await play.run()
        ledger = play.op.ledger
        record = play.server.record(play.key)
        assert record.tombstone == ""
        if play.op.mode is Reuse.PUNISHED and play.server.lost_leases and len(play.replicas) > 1:
            return
        assert not ledger.killed, "a consumed token was presented"
        assert not record.dead, record.outcome
        stored = open_tokens(play.seal, record).refresh_token
        assert record.rt == play.seal.fingerprint(stored)
        if play.op.mode is Reuse.PUNISHED:
            assert stored == ledger.issued[-1]
        assert play.op.process(stored).status == 200

    run_virtual(main)
