"""Memory and SQLite run the same random calls and must give the same answers.

Memory is the reference: nothing but the rules. A store of another make (Redis scripts) that
joins `OTHERS` is held against it the same way.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.core.session import INTENT_KEEP_S, LEASE_S, OutcomeKind
from proxy.shell.store.contract import Store
from tests.contract.conftest import FACTORIES, Factory, on_redis
from tests.contract.sessions import ask, new_record, outcome, reply
from tests.fakes import START, Clock

OTHERS: list[Factory] = [FACTORIES["sqlite"], on_redis("single", plain=True)]

keys = st.sampled_from(["k1", "k2"])
attempts = st.sampled_from([f"a{n}" for n in range(5)])
gens = st.sampled_from(["login", *(f"a{n}" for n in range(5))])
tokens = st.sampled_from(["rt0", *(f"rt of a{n}" for n in range(5))])
offsets = st.sampled_from([-1.0, 0.0, 5.0, 60.0])


class SideBySide(RuleBasedStateMachine):
    """Times are steps of whole seconds, so that both sides meet the same edges exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.scopes: list[AbstractAsyncContextManager[Store]] = []
        self.stores: list[Store] = []
        self.told: list[list[str]] = []
        for factory in [FACTORIES["memory"], *OTHERS]:
            scope = factory(self.clock, Path(self.directory.name))
            self.scopes.append(scope)
            store = self.runner.run(scope.__aenter__())
            heard: list[str] = []
            store.listen(heard.append)
            self.stores.append(store)
            self.told.append(heard)

    def teardown(self) -> None:
        for scope in self.scopes:
            self.runner.run(scope.__aexit__(None, None, None))
        self.runner.close()
        self.directory.cleanup()

    def both(self, call: Callable[[Store], Awaitable[Any]]) -> Any:
        async def asked(store: Store) -> Any:
            return await call(store)

        first, *others = [self.runner.run(asked(store)) for store in self.stores]
        for other in others:
            assert other == first
        return first

    @initialize(idle_s=st.sampled_from([100.0, 1000.0]))
    def begin(self, idle_s: float) -> None:
        self.both(lambda store: store.create("k1", new_record(idle_s=idle_s, end=START + 2000)))
        self.both(lambda store: store.create("k2", new_record()))

    @rule(seconds=st.sampled_from([1.0, 5.0, LEASE_S - 1, LEASE_S, 60.0, INTENT_KEEP_S]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(key=keys, attempt=attempts, gen=gens, rt=tokens)
    def acquire(self, key: str, attempt: str, gen: str, rt: str) -> None:
        self.both(lambda store: store.acquire(key, ask(attempt, gen, rt)))

    @rule(key=keys, attempt=attempts)
    def acquire_what_is_stored(self, key: str, attempt: str) -> None:
        record = self.both(lambda store: store.read(key)).record
        if record is not None:
            self.both(lambda store: store.acquire(key, ask(attempt, record.gen, record.rt)))

    @rule(key=keys, attempt=attempts)
    def renew(self, key: str, attempt: str) -> None:
        self.both(lambda store: store.renew(key, attempt, LEASE_S))

    @rule(key=keys, attempt=attempts, gen=gens, rt=tokens)
    def commit(self, key: str, attempt: str, gen: str, rt: str) -> None:
        self.both(lambda store: store.commit(key, reply(attempt, rt, gen)))

    @rule(key=keys, attempt=attempts, rotates=st.booleans())
    def commit_over_what_is_stored(self, key: str, attempt: str, rotates: bool) -> None:
        record = self.both(lambda store: store.read(key)).record
        if record is not None:
            new = "" if rotates else record.rt
            self.both(lambda store: store.commit(key, reply(attempt, record.rt, record.gen, new)))

    @rule(key=keys, attempt=attempts, rt=tokens, until=offsets, release=st.booleans(), silent=st.booleans())
    def abandon(self, key: str, attempt: str, rt: str, until: float, release: bool, silent: bool) -> None:
        now = self.clock.now
        failure = outcome(OutcomeKind.TRANSIENT, rt, attempt, at=now, not_before=now + until)
        self.both(lambda store: store.abandon(key, attempt, None if silent else failure, release=release))

    @rule(key=keys, attempt=attempts)
    def condemn_what_is_stored(self, key: str, attempt: str) -> None:
        record = self.both(lambda store: store.read(key)).record
        if record is not None:
            verdict = outcome(OutcomeKind.DEAD, record.rt, attempt)
            self.both(lambda store: store.condemn(key, attempt, record.gen, verdict))

    @rule(key=keys, attempt=attempts, gen=gens, rt=tokens)
    def condemn(self, key: str, attempt: str, gen: str, rt: str) -> None:
        self.both(lambda store: store.condemn(key, attempt, gen, outcome(OutcomeKind.DEAD, rt, attempt)))

    @rule(key=keys, gen=gens, who_id=attempts)
    def identify(self, key: str, gen: str, who_id: str) -> None:
        self.both(lambda store: store.identify(key, gen, who_id.encode(), who_id))

    @rule(key=keys, offset=offsets)
    def touch(self, key: str, offset: float) -> None:
        self.both(lambda store: store.touch(key, self.clock.now + offset))

    @rule(
        key=keys,
        reason=st.sampled_from(["signed_out", "superseded"]),
        keep_s=st.sampled_from([0.0, 10.0, 9e9]),
    )
    def end(self, key: str, reason: str, keep_s: float) -> None:
        self.both(lambda store: store.end(key, reason, keep_s))

    @rule(
        name=st.sampled_from(["n1", "n2"]),
        keep_s=st.sampled_from([1.0, 60.0]),
        at=st.sampled_from([0.0, START + 10]),
    )
    def note(self, name: str, keep_s: float, at: float) -> None:
        self.both(lambda store: store.note(name, keep_s, at))

    @rule(name=st.sampled_from(["n1", "n2"]))
    def noted(self, name: str) -> None:
        self.both(lambda store: store.noted(name))

    @rule(flow=st.sampled_from(["f1", "f2"]), keep_s=st.sampled_from([1.0, 60.0]))
    def spend(self, flow: str, keep_s: float) -> None:
        self.both(lambda store: store.spend_flow(flow, keep_s))

    @rule(key=keys)
    def begin_anew_where_nothing_is_left(self, key: str) -> None:
        if self.both(lambda store: store.read(key)).record is None:
            now = self.clock.now
            self.both(lambda store: store.create(key, new_record(born=now, seen=now, end=now + 500)))

    @invariant()
    def both_hold_and_told_the_same(self) -> None:
        for key in ("k1", "k2"):
            self.both(lambda store, key=key: store.read(key))
        for heard in self.told[1:]:
            assert heard == self.told[0]


SideBySide.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestSideBySide = SideBySide.TestCase
