"""The engine under seeded chaos: replicas, a model OP, a model store, faults at every await.

Virtual time, so that each seed is one interleaving that anybody can replay:
``pytest tests/simulator -k "seed-17"``. The oracle is the OP's own ledger: a session may only be lost if
a reply was lost after the OP processed the call (and the OP knows no grace), a process died
then, or somebody signed out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from proxy.core import steps
from proxy.core.blobs import open_tokens, seal_tokens
from proxy.core.breaker import Breaker
from proxy.core.providers import PROFILES, Reuse
from proxy.core.seal import SessionSeal, new_ticket
from proxy.core.session import Ended, Record, Tokens, store_key
from proxy.core.timing import RefreshPolicy
from proxy.errors import StoreUnavailable
from proxy.shell.clock import StoreTime
from proxy.shell.kit import Kit
from proxy.shell.single_flight import Hooks, SingleFlight
from proxy.shell.store.memory import MemoryStore
from proxy.shell.subject import Subject
from tests.simulator.op import ChaosOP
from tests.virtual import LoopClock, VirtualLoop, run_virtual

SEEDS = range(120)
MODES = (Reuse.NONE, Reuse.GRACE, Reuse.IDEMPOTENT, Reuse.PUNISHED)


class ChaosStore(MemoryStore):
    """Any call may be slow, fail before it happened, or fail after."""

    def __init__(self, clock: Callable[[], float], rng: random.Random, faults: float) -> None:
        super().__init__(clock)
        self.rng, self.faults = rng, faults

    async def _chaos(self, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        await asyncio.sleep(self.rng.random() * 0.05)
        if self.rng.random() < self.faults:
            raise StoreUnavailable("before")
        answer = await call(*args, **more)
        await asyncio.sleep(self.rng.random() * 0.05)
        if self.rng.random() < self.faults:
            raise StoreUnavailable("after")
        return answer

    async def acquire(self, key: str, ask: Any) -> Any:
        return await self._chaos(super().acquire, key, ask)

    async def renew(self, key: str, attempt: str, lease_s: float) -> bool:
        return await self._chaos(super().renew, key, attempt, lease_s)

    async def commit(self, key: str, write: Any) -> Any:
        return await self._chaos(super().commit, key, write)

    async def abandon(self, key: str, attempt: str, outcome: Any, *, release: bool = True) -> None:
        await self._chaos(super().abandon, key, attempt, outcome, release=release)

    async def condemn(self, key: str, attempt: str, gen: str, outcome: Any) -> Any:
        return await self._chaos(super().condemn, key, attempt, gen, outcome)


class Play:
    """One seed's cast."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = LoopClock(loop)
        self.mode = self.rng.choice(MODES)
        faults = self.rng.choice((0.0, 0.05, 0.2))
        self.op = ChaosOP(self.mode, self.rng, faults)
        self.store = ChaosStore(self.clock.now, self.rng, self.rng.choice((0.0, 0.05, 0.2)))
        self.seal = SessionSeal(new_ticket(self.clock.now()))
        self.key = store_key(b"session")
        self.unsaved: list[str] = []
        self.replicas = [self._replica(n) for n in range(self.rng.randint(1, 3))]
        self.signed_out = False

    def _replica(self, n: int) -> SingleFlight:
        async def examine(subject: Subject, result: steps.Result) -> steps.Result:
            if isinstance(result, steps.Unsaved):
                self.unsaved.append(result.tokens.refresh_token)
            return result

        off = self.rng.choice((0.0, -600.0, 600.0))
        clock = LoopClock(self.clock._loop, off)
        kit = Kit(
            store=self.store, op=self.op, profile=PROFILES["generic"], policy=RefreshPolicy(reuse=self.mode),
            clock=clock, time=StoreTime(clock), journal=None, breaker=Breaker(), holder=f"r{n}",
            spread=self.rng.random,
        )  # fmt: skip
        return SingleFlight(kit, Hooks(examine, lambda key, result, took_s: None), 8)

    async def begin(self) -> None:
        now = self.clock.now()
        tokens = Tokens("at0", "rt0", "", "", now - 60, now, "iss", "client")
        record = Record(
            gen="g0", rt=self.seal.fingerprint("rt0"), tokens=seal_tokens(self.seal, "g0", tokens), who=b"",
            who_id="w", born=now, seen=now, end=now + 1e6, idle_s=1e6, due=now, provider="generic", config="",
        )  # fmt: skip
        await self.store.create(self.key, record)

    async def record(self) -> Record:
        snapshot = await self.store.read(self.key)
        assert snapshot.record is not None
        return snapshot.record

    async def client(self, until: float) -> None:
        """Asks some replica for a renewal now and then, with whatever record it last read."""
        record = await self.record()
        while self.clock.now() < until:
            if self.rng.random() < 0.7:
                record = await self.record()
            flights = self.rng.choice(self.replicas)
            await flights.wait(flights.join(Subject(self.key, self.seal, record)), 10.0)
            await asyncio.sleep(self.rng.choice((0.01, 1.0, 30.0)) * self.rng.random())

    async def run(self) -> None:
        await self.begin()
        until = self.clock.now() + 600
        clients = [asyncio.ensure_future(self.client(until)) for _ in range(self.rng.randint(1, 6))]
        if self.rng.random() < 0.2:
            await asyncio.sleep(self.rng.uniform(0, 300))
            await self.store.end(self.key, Ended.SIGNED_OUT, 1e5)
            self.signed_out = True
        await asyncio.gather(*clients)
        self.store.faults = 0.0
        for flights in self.replicas:
            assert await flights.drain(1e5) == 0


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed-{seed}")
def test_i1_i2_i3_i4_chaos_loses_nothing_but_what_cannot_be_had(seed: int) -> None:
    async def main(loop: VirtualLoop) -> None:
        play = Play(loop, seed)
        await play.run()
        record, ledger = await play.record(), play.op.ledger
        if play.signed_out:
            assert record.tombstone == Ended.SIGNED_OUT  # nothing revives it
            return
        assert record.tombstone == ""  # nothing but a sign-out writes one here
        excused = ledger.lost > 0 and play.mode is Reuse.PUNISHED
        if record.dead or ledger.killed:
            assert excused, f"lost without an admitted cause: {record.outcome}"
            return
        # What is stored is a token that the OP still takes.
        stored = open_tokens(play.seal, record).refresh_token
        assert record.rt == play.seal.fingerprint(stored)
        if play.mode is Reuse.PUNISHED and not excused:
            assert stored == ledger.issued[-1]
            assert ledger.most_open <= 1
        if not excused:
            assert play.op.process(stored).status == 200

    run_virtual(main)
