"""The engine as it runs: one flight per session, on the memory store, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.config.registry import declared
from proxy.core import steps
from proxy.core.blobs import open_tokens, seal_tokens
from proxy.core.breaker import Breaker
from proxy.core.providers import PROFILES, Reuse
from proxy.core.seal import SessionSeal, new_ticket
from proxy.core.session import LEASE_S, RENEW_S, Ended, OutcomeKind, Record, Tokens, store_key
from proxy.core.timing import RefreshPolicy
from proxy.core.token_reply import RawReply
from proxy.errors import NotSent, ReplyLost, StoreUnavailable
from proxy.shell.clock import StoreTime
from proxy.shell.kit import Kit
from proxy.shell.single_flight import Hooks, SingleFlight
from proxy.shell.store.memory import MemoryStore
from proxy.shell.subject import Subject
from tests.virtual import LoopClock, VirtualLoop, run_virtual

Handler = Callable[["ModelOP", str], Awaitable[RawReply]]


def ok(**body: Any) -> RawReply:
    return RawReply(200, {}, json.dumps(body).encode())


def error(status: int, code: str, **headers: str) -> RawReply:
    return RawReply(status, headers, json.dumps({"error": code}).encode())


@dataclass
class ModelOP:
    """An OP that rotates with zero grace and kills the family on reuse; `script` comes first."""

    script: list[Handler] = field(default_factory=list[Handler])
    valid: str = "rt0"
    n: int = 0
    calls: int = 0
    connects: int = 0
    dead: bool = False
    reuses: int = 0
    reachable: bool = True
    revoked: list[str] = field(default_factory=list[str])
    takes_s: float = 0.3

    async def connect(self) -> ModelCall:
        self.connects += 1
        if not self.reachable:
            raise NotSent("refused")
        return ModelCall(self)

    async def revoke(self, token: str, hint: str) -> bool:
        self.revoked.append(token)
        return True

    def process(self, token: str) -> RawReply:
        if self.dead or token != self.valid:
            self.reuses += 1
            self.dead = True
            return error(400, "invalid_grant")
        self.n += 1
        self.valid = f"rt{self.n}"
        return ok(access_token=f"at{self.n}", refresh_token=self.valid, expires_in=300)


@dataclass
class ModelCall:
    op: ModelOP
    task: asyncio.Task[RawReply] | None = None

    async def refresh(
        self, refresh_token: str, *, scope: str = "", last_check: Callable[[], bool]
    ) -> RawReply:
        if not last_check():
            raise NotSent("lease")
        self.op.calls += 1
        self.task = asyncio.get_running_loop().create_task(self._answer(refresh_token))
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self.task.cancelled():
                raise ReplyLost("closed") from None
            raise

    async def _answer(self, token: str) -> RawReply:
        if self.op.script:
            return await self.op.script.pop(0)(self.op, token)
        await asyncio.sleep(self.op.takes_s)
        return self.op.process(token)

    async def aclose(self) -> None:
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task])


class FlakyStore(MemoryStore):
    """Fails the named operations as often as told; `after` = it happened, the answer was lost."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.fail: dict[str, int] = {}
        self.after: dict[str, int] = {}

    async def commit(self, key: str, write: Any) -> Any:
        return await self._maybe("commit", super().commit, key, write)

    async def acquire(self, key: str, ask: Any) -> Any:
        return await self._maybe("acquire", super().acquire, key, ask)

    async def _maybe(self, name: str, call: Any, *args: Any) -> Any:
        if self.fail.get(name, 0) > 0:
            self.fail[name] -= 1
            raise StoreUnavailable(name)
        answer = await call(*args)
        if self.after.get(name, 0) > 0:
            self.after[name] -= 1
            raise StoreUnavailable(name)
        return answer


class House:
    """One or several replicas on one store and one OP."""

    def __init__(
        self, loop: VirtualLoop, reuse: Reuse = Reuse.UNKNOWN, replicas: int = 1, call_s: float = 15.0
    ) -> None:
        self.clock = LoopClock(loop)
        self.store = FlakyStore(self.clock.now)
        self.op = ModelOP()
        self.settled: list[steps.Result] = []
        self.seal = SessionSeal(new_ticket(self.clock.now()))
        self.key = store_key(b"s")
        policy = RefreshPolicy(reuse=reuse, call_s=call_s)
        self.flights = [self._replica(policy, n) for n in range(replicas)]

    def _replica(self, policy: RefreshPolicy, n: int) -> SingleFlight:
        async def examine(subject: Subject, result: steps.Result) -> steps.Result:
            return result

        def settled(key: str, result: steps.Result, took_s: float) -> None:
            self.settled.append(result)

        kit = Kit(
            store=self.store, op=self.op, profile=PROFILES["generic"], policy=policy,
            clock=self.clock, time=StoreTime(self.clock), journal=None, breaker=Breaker(),
            holder=f"replica-{n}", spread=lambda: 0.5,
        )  # fmt: skip
        return SingleFlight(kit, Hooks(examine, settled), 32)

    async def begin(self, *, alive_s: float = -1.0) -> Subject:
        now = self.clock.now()
        tokens = Tokens("at0", "rt0", "", "openid", now - 300 + alive_s, now + alive_s, "iss", "client")
        record = Record(
            gen="g0", rt=self.seal.fingerprint("rt0"), tokens=seal_tokens(self.seal, "g0", tokens), who=b"",
            who_id="w", born=now, seen=now, end=now + 86_400, idle_s=80_000, due=now, provider="generic",
            config="",
        )  # fmt: skip
        await self.store.create(self.key, record)
        return Subject(self.key, self.seal, record)

    async def record(self) -> Record:
        snapshot = await self.store.read(self.key)
        assert snapshot.record is not None
        return snapshot.record

    async def stored(self) -> Tokens:
        return open_tokens(self.seal, await self.record())

    async def renew(self, subject: Subject, replica: int = 0, wait_s: float = 100.0) -> steps.Result | None:
        flights = self.flights[replica]
        return await flights.wait(flights.join(subject), wait_s)

    async def landed(self) -> None:
        for flights in self.flights:
            assert await flights.drain(1_000) == 0


def test_a1_two_hundred_callers_cause_one_token_call() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        subject = await house.begin()
        results = await asyncio.gather(*(house.renew(subject) for _ in range(200)))
        assert house.op.calls == 1
        assert all(isinstance(result, steps.Refreshed) for result in results)
        assert (await house.stored()).refresh_token == "rt1"

    run_virtual(main)


@pytest.mark.parametrize("replicas", [2, 3])
def test_a2_replicas_share_one_lease_and_adopt_the_winner(replicas: int) -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop, replicas=replicas)
        subject = await house.begin()
        results = await asyncio.gather(*(house.renew(subject, n % replicas) for n in range(60)))
        assert house.op.calls == 1
        assert house.op.reuses == 0
        assert {type(result) for result in results} == {steps.Refreshed, steps.Adopted}

    run_virtual(main)


def test_c20_i8_a_cancelled_caller_cancels_only_itself() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        subject = await house.begin()
        caller = asyncio.ensure_future(house.renew(subject))
        await asyncio.sleep(0.1)
        caller.cancel()
        await house.landed()
        assert house.op.calls == 1
        assert (await house.stored()).refresh_token == "rt1"

    run_virtual(main)


def test_i12_a_caller_waits_no_longer_than_its_budget_and_the_flight_goes_on() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.takes_s = 12.0
        subject = await house.begin()
        assert await house.renew(subject, wait_s=10.0) is None
        assert loop.time() == pytest.approx(10.0, abs=0.1)
        await house.landed()
        assert (await house.stored()).refresh_token == "rt1"

    run_virtual(main)


def test_c7_c5_a_lost_reply_at_a_reuse_punishing_op_costs_one_retry_and_is_called_rotation_lost() -> None:
    async def lost(op: ModelOP, token: str) -> RawReply:
        op.process(token)
        raise ReplyLost("eof")

    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.script.append(lost)
        result = await house.renew(await house.begin())
        assert isinstance(result, steps.Dead)
        assert result.outcome.code == "rotation_lost"
        assert house.op.calls == 2
        record = await house.record()
        assert record.dead == record.rt
        assert record.tombstone == ""
        assert isinstance(await house.renew(Subject(house.key, house.seal, record)), steps.Dead)
        assert house.op.calls == 2  # no loop

    run_virtual(main)


def test_c6_a_lost_reply_within_the_grace_costs_nobody_anything() -> None:
    async def lost(op: ModelOP, token: str) -> RawReply:
        raise ReplyLost("eof")

    async def main(loop: VirtualLoop) -> None:
        house = House(loop, Reuse.GRACE)
        house.op.script.append(lost)
        assert isinstance(await house.renew(await house.begin()), steps.Refreshed)
        assert house.op.calls == 2

    run_virtual(main)


def test_c10_a_reply_long_after_the_deadline_is_persisted() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.takes_s = 25.0
        result = await house.renew(await house.begin())
        assert isinstance(result, steps.Kept)
        assert loop.time() == pytest.approx(15.0, abs=0.5)
        await house.landed()
        assert (await house.stored()).refresh_token == "rt1"
        assert house.op.calls == 1

    run_virtual(main)


def test_c15_the_lease_is_renewed_while_a_slow_call_is_open_and_nobody_else_sends() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop, replicas=2)
        house.op.takes_s = 14.0
        subject = await house.begin()
        both = await asyncio.gather(house.renew(subject, 0), house.renew(subject, 1))
        assert house.op.calls == 1
        assert {type(result) for result in both} == {steps.Refreshed, steps.Adopted}

    run_virtual(main)


@pytest.mark.parametrize("call_s", [15.0, 60.0])
def test_c16_no_configuration_makes_the_lease_shorter_than_the_work(call_s: float) -> None:
    assert not [key for key in declared() if "lease" in key]
    assert declared()["op.timeout_s"].meta.le == 60
    assert LEASE_S >= 3 * RENEW_S, "two renewals in a row may fail"

    async def main(loop: VirtualLoop) -> None:
        house = House(loop, replicas=2, call_s=call_s)
        house.op.takes_s = call_s - 1
        subject = await house.begin()
        first = asyncio.ensure_future(house.renew(subject, 0, wait_s=200.0))
        await asyncio.sleep(1)
        second = asyncio.ensure_future(house.renew(subject, 1, wait_s=200.0))
        results = await asyncio.gather(first, second)
        assert isinstance(results[0], steps.Refreshed)
        assert (house.op.calls, house.op.reuses) == (1, 0)

    run_virtual(main)


def test_d1_d2_a_commit_that_cannot_land_is_served_from_memory_and_lands_later() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.store.fail["commit"] = 10
        result = await house.renew(await house.begin())
        assert isinstance(result, steps.Unsaved)
        assert result.tokens.access_token == "at1"
        assert (await house.stored()).refresh_token == "rt0"
        await house.landed()
        assert (await house.stored()).refresh_token == "rt1"
        assert house.op.calls == 1

    run_virtual(main)


def test_d4_a_commit_whose_answer_was_lost_is_recognised_as_ours() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.store.after["commit"] = 1
        await house.renew(await house.begin())
        await house.landed()
        assert (await house.stored()).refresh_token == "rt1"
        assert isinstance(house.settled[-1], steps.Refreshed)

    run_virtual(main)


def test_d3_without_a_lease_nothing_is_sent() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.store.fail["acquire"] = 100
        result = await house.renew(await house.begin())
        assert isinstance(result, steps.Kept)
        assert result.outcome.code == "store_unavailable"
        assert house.op.calls == 0

    run_virtual(main)


def test_an_acquire_whose_answer_was_lost_is_granted_again_under_the_same_id() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.store.after["acquire"] = 1
        assert isinstance(await house.renew(await house.begin()), steps.Refreshed)

    run_virtual(main)


def test_h3_a_sign_out_during_the_call_stays_a_sign_out_and_the_new_token_is_revoked() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        subject = await house.begin()
        waiting = asyncio.ensure_future(house.renew(subject))
        await asyncio.sleep(0.1)
        await house.store.end(house.key, Ended.SIGNED_OUT, 100)
        assert await waiting == steps.Over(Ended.SIGNED_OUT)
        assert house.op.revoked == ["rt1"]
        assert (await house.record()).tombstone == Ended.SIGNED_OUT

    run_virtual(main)


def test_c9_an_op_that_cannot_be_reached_keeps_the_session_and_opens_the_breaker() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.reachable = False
        subject = await house.begin()
        result = await house.renew(subject)
        assert isinstance(result, steps.Kept)
        assert not result.outcome.ambiguous
        connects = house.op.connects
        assert isinstance(await house.renew(subject), steps.Kept)
        assert house.op.connects == connects  # quiet
        house.op.reachable = True
        await asyncio.sleep(40)
        assert isinstance(await house.renew(subject), steps.Refreshed)

    run_virtual(main)


def test_f14_retry_after_silences_every_session_of_the_provider() -> None:
    async def limited(op: ModelOP, token: str) -> RawReply:
        return error(429, "slow_down", **{"retry-after": "30"})

    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.script.append(limited)
        subject = await house.begin()
        await house.renew(subject)
        await asyncio.sleep(29)
        await house.renew(subject)
        assert house.op.calls == 1
        await asyncio.sleep(2)
        assert isinstance(await house.renew(subject), steps.Refreshed)

    run_virtual(main)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(401, "invalid_client"), OutcomeKind.CLIENT),
        (error(200, "incorrect_client_credentials"), OutcomeKind.CLIENT),
        (error(500, "invalid_request"), OutcomeKind.TRANSIENT),
        (error(503, "invalid_grant"), OutcomeKind.TRANSIENT),
        (error(400, "nonsense"), OutcomeKind.UNKNOWN),
    ],
)
def test_i5_nothing_but_a_verdict_ends_a_session(reply: RawReply, kind: OutcomeKind) -> None:
    async def scripted(op: ModelOP, token: str) -> RawReply:
        return reply

    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.script.append(scripted)
        result = await house.renew(await house.begin())
        assert isinstance(result, steps.Kept)
        assert result.outcome.kind is kind
        record = await house.record()
        assert (record.dead, record.tombstone) == ("", "")
        await asyncio.sleep(120)
        assert isinstance(await house.renew(Subject(house.key, house.seal, record)), steps.Refreshed)

    run_virtual(main)


@pytest.mark.parametrize("status", [200, 400, 401, 503])
def test_f13_html_is_no_answer_and_the_session_goes_on(status: int) -> None:
    async def html(op: ModelOP, token: str) -> RawReply:
        return RawReply(status, {"content-type": "text/html"}, b"<html>maintenance</html>")

    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.script.append(html)
        assert isinstance(await house.renew(await house.begin()), steps.Refreshed)

    run_virtual(main)


@pytest.mark.parametrize(
    "reply", [error(400, "invalid_grant"), error(403, "invalid_grant"), error(200, "bad_refresh_token")]
)
def test_f8_f10_a_verdict_counts_at_any_status_and_nobody_asks_twice(reply: RawReply) -> None:
    async def scripted(op: ModelOP, token: str) -> RawReply:
        return reply

    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.script.append(scripted)
        subject = await house.begin()
        first = await house.renew(subject)
        assert isinstance(first, steps.Dead)
        assert first.outcome.code != "rotation_lost"
        assert isinstance(await house.renew(subject), steps.Dead)
        assert house.op.calls == 1

    run_virtual(main)
