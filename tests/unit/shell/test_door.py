"""The front door with real sessions and renewals: what each request meets, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.core.answers import Snapshot
from proxy.core.breaker import Breaker
from proxy.core.gate import Answer, Forward, Pages, Verdict
from proxy.core.identity import ClaimRules, refreshed_identity
from proxy.core.origin import Origins
from proxy.core.providers import PROFILES
from proxy.core.routes import Routes
from proxy.core.session import Ended, Identity, Tokens
from proxy.core.session_policy import SessionPolicy
from proxy.core.timing import RefreshPolicy
from proxy.core.token_reply import RawReply
from proxy.errors import IdTokenRejected, OPUnavailable, StoreUnavailable
from proxy.shell.aftercare import Aftercare, IdentityRules
from proxy.shell.background import Background
from proxy.shell.clock import StoreTime
from proxy.shell.door import FrontDoor
from proxy.shell.keeper import Keeper
from proxy.shell.kit import Kit
from proxy.shell.register import Register
from proxy.shell.session_rules import SessionRules
from proxy.shell.sessions import Sessions
from proxy.shell.single_flight import Hooks, SingleFlight
from proxy.shell.store.memory import MemoryStore
from tests.unit.shell.test_single_flight import ModelOP
from tests.virtual import LoopClock, VirtualLoop, run_virtual

KEY = bytes(range(32))


@dataclass
class Head:
    """A request head as the door sees it."""

    method: bytes = b"GET"
    target: bytes = b"/app?x=1"
    host: bytes = b"app.example.com"
    cookie: bytes = b""
    request_id: bytes = b"req-1"
    upgrade_websocket: bool = False
    fields: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    def get(self, name: bytes) -> bytes | None:
        return self.fields.get(name)


class CountingStore(MemoryStore):
    """Counts what it is asked; can be away."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.asked = 0
        self.away = False
        self.slow_s = 0.0
        self.endings_fail = False

    async def _change(self, key: str, change: Any) -> Any:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")
        return await super()._change(key, change)

    async def end(self, key: str, reason: str, keep_s: float) -> Any:
        if self.endings_fail:
            raise StoreUnavailable("away")
        return await super().end(key, reason, keep_s)

    async def read(self, key: str) -> Any:
        snapshot = await super().read(key)
        if self.slow_s:
            await asyncio.sleep(self.slow_s)  # what was read is on its way while the record changes
        return snapshot


class IdentityOP(ModelOP):
    """The model OP, with ID tokens that tests decide about."""

    def __init__(self) -> None:
        super().__init__()
        self.id_token = ""
        self.reject = ""
        self.check_takes_s = 0.0
        self.claims: dict[str, Any] = {"sub": "ada"}
        self.userinfo_fails = 0
        self.userinfo_calls = 0

    def process(self, token: str) -> RawReply:
        reply = super().process(token)
        if reply.status != 200 or not self.id_token:
            return reply
        body = {**json.loads(reply.body), "id_token": self.id_token}
        return RawReply(200, {}, json.dumps(body).encode())

    async def verify_id_token(self, raw: str, **more: Any) -> dict[str, Any]:
        await asyncio.sleep(self.check_takes_s)
        if self.reject == "away":
            raise OPUnavailable("jwks")
        if self.reject:
            raise IdTokenRejected(self.reject)
        return self.claims

    async def userinfo(self, access_token: str, sub: str) -> dict[str, Any]:
        self.userinfo_calls += 1
        if self.userinfo_fails:
            self.userinfo_fails -= 1
            raise OPUnavailable("userinfo answered 500")
        return {"sub": sub, "groups": ["from-userinfo"]}


class House:
    """Everything behind the door, on virtual time."""

    def __init__(self, loop: VirtualLoop, *, public: tuple[str, ...] = (), userinfo: bool = False) -> None:
        self.clock = LoopClock(loop)
        self.time = StoreTime(self.clock)
        self.store = CountingStore(self.clock.now)
        self.op = IdentityOP()
        self.background = Background()
        self.origins = Origins(["https://app.example.com"], [KEY])
        self.alarms: list[str] = []
        self.ends: list[tuple[str, str]] = []
        policy = RefreshPolicy()
        rules = ClaimRules(PROFILES["generic"])
        self.sessions = Sessions(
            store=self.store,
            rules=SessionRules(
                policy=SessionPolicy(idle_s=7_200, absolute_s=86_400),
                refresh=policy,
                block=lambda who, tokens, now: (
                    f"{who.sub} {','.join(who.groups)} {tokens.access_token}".encode()
                ),
                dress=lambda session, forward: self.door.dress(session, forward),
            ),
            clock=self.clock,
            time=self.time,
        )
        self.register = Register(self.store, self.sessions, self.time)
        self.keeper = Keeper(
            sessions=self.sessions, flights=lambda: self.flights, time=self.time, wait_s=10.0,
            count=lambda outcome, code, took_s: self.ends.append((outcome, code)),
        )  # fmt: skip
        aftercare = Aftercare(
            sessions=self.sessions, store=self.store, op=self.op,
            rules=IdentityRules(
                learn=lambda told, info, before, now: refreshed_identity(told, info, before, rules, now),
                userinfo=lambda told, before: userinfo,
            ),
            now=self.time.now, background=self.background, alarm=self.alarms.append,
        )  # fmt: skip
        kit = Kit(
            store=self.store, op=self.op, profile=PROFILES["generic"], policy=policy, clock=self.clock,
            time=self.time, journal=None, breaker=Breaker(), holder="me", spread=lambda: 0.5,
        )  # fmt: skip
        self.flights = SingleFlight(kit, Hooks(aftercare.examine, self.keeper.settled), 8)
        self.door = FrontDoor(
            origins=self.origins, routes=Routes("/oauth2", public), sessions=self.sessions,
            register=self.register, keeper=self.keeper, clock=self.clock, time=self.time, background=self.background,
            prefix="/oauth2", ttl_s=30.0, token_passed=True,
        )  # fmt: skip

    async def sign_in(self, life_s: float = 300.0, *, groups: tuple[str, ...] = ("staff",)) -> bytes:
        """A session whose access token lives for `life_s`; its Cookie line."""
        now = self.time.now()
        tokens = Tokens("at0", "rt0", "idt0", "openid", now, now + life_s, "iss", "client")
        who = Identity("iss", "ada", groups=groups, groups_at=now)
        line = await self.register.begin(self.origins.main, tokens, who, provider="generic", replaces=None)
        return line.partition(b";")[0]

    async def ask(self, cookie: bytes = b"", **more: Any) -> Verdict:
        verdict = self.door.admit(Head(cookie=cookie, **more), None)
        return verdict if isinstance(verdict, (Forward, Answer, Pages)) else await verdict

    async def settled(self) -> None:
        await self.flights.drain(1_000)
        await self.background.drain(1_000)


NAVIGATION = {"fields": {b"sec-fetch-mode": b"navigate"}}


def test_a_warm_request_costs_no_store_access_and_no_waiting() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        first = await house.ask(cookie)
        asked = house.store.asked
        for _ in range(1_000):
            verdict = house.door.admit(Head(cookie=cookie), None)
            assert verdict is first  # the ready verdict itself: nothing was opened or built
        assert house.store.asked == asked

    run_virtual(main)


def test_an_entry_is_read_again_after_thirty_seconds_and_after_any_change() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        await house.ask(cookie)
        asked = house.store.asked
        await asyncio.sleep(31)
        await house.ask(cookie)
        assert house.store.asked == asked + 1
        await house.store.end(next(iter(house.sessions.cache)).key, Ended.SIGNED_OUT, 100)
        answer = await house.ask(cookie)
        assert isinstance(answer, Answer)
        assert answer.status == 401

    run_virtual(main)


def test_without_a_session_people_are_sent_to_sign_in_and_programs_are_told() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        answer = await house.ask(**NAVIGATION)
        assert isinstance(answer, Answer)
        assert answer.status == 302
        assert (b"Location", b"/oauth2/login?rd=/app%3Fx%3D1") in answer.headers
        answer = await house.ask()
        assert isinstance(answer, Answer)
        assert answer.status == 401
        body = json.loads(answer.body)
        assert body["login"] == "/oauth2/login"
        assert any(name == b"WWW-Authenticate" for name, _ in answer.headers)
        assert isinstance(await house.ask(target=b"/oauth2/session"), Pages)

    run_virtual(main)


@pytest.mark.parametrize(
    "value",
    [b"__Host-np=", b"__Host-np=x", b"__Host-np=" + b"A" * 3000, b"__Host-np=a; __Host-np=b", b"__Host-np"],
)
def test_a_bad_cookie_is_anonymous(value: bytes) -> None:
    async def main(loop: VirtualLoop) -> None:
        answer = await House(loop).ask(value)
        assert isinstance(answer, Answer)
        assert answer.status == 401

    run_virtual(main)


def test_a4_in_the_window_nobody_waits_and_one_renewal_runs_behind() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        await house.ask(cookie)
        await asyncio.sleep(270)
        began = loop.time()
        for _ in range(50):
            verdict = await house.ask(cookie)
            assert isinstance(verdict, Forward)
        assert loop.time() == began
        await house.settled()
        assert house.op.calls == 1
        verdict = await house.ask(cookie)
        assert isinstance(verdict, Forward)
        assert verdict.identity.endswith(b"at1")

    run_virtual(main)


def test_an_expired_token_is_renewed_before_the_request_goes_on() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        await asyncio.sleep(301)
        verdicts = await asyncio.gather(*(house.ask(cookie) for _ in range(64)))
        assert {v.identity for v in verdicts if isinstance(v, Forward)} == {b"ada staff at1"}
        assert len(verdicts) == 64
        assert house.op.calls == 1

    run_virtual(main)


def test_a_request_whose_turn_comes_after_the_renewal_goes_on_with_it() -> None:
    """It was judged with the expired token, and carried out when the new one was there already."""

    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in(life_s=20.0)
        await asyncio.sleep(15)
        await house.ask(cookie)
        await asyncio.sleep(6)
        late = house.door.admit(Head(cookie=cookie), None)
        assert not isinstance(late, (Forward, Answer, Pages))  # it has to wait; its turn comes later
        await house.ask(cookie)
        verdict = await late
        assert isinstance(verdict, Forward)
        assert verdict.identity == b"ada staff at1"
        assert house.op.calls == 1

    run_virtual(main)


def test_a14_when_the_op_is_too_slow_the_answer_is_503_and_the_session_is_kept() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.takes_s = 12.0
        cookie = await house.sign_in()
        await asyncio.sleep(301)
        began = loop.time()
        answer = await house.ask(cookie, **NAVIGATION)
        assert loop.time() - began == pytest.approx(10.0, abs=0.5)
        assert isinstance(answer, Answer)
        assert answer.status == 503
        names = {name for name, _ in answer.headers}
        assert b"Retry-After" in names
        assert b"Set-Cookie" not in names
        await house.settled()
        assert isinstance(await house.ask(cookie), Forward)

    run_virtual(main)


def test_d6_a_store_that_is_away_is_503_for_strangers_and_nothing_for_the_known() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        known, unknown = await house.sign_in(), await house.sign_in()
        await house.ask(known)
        house.store.away = True
        await asyncio.sleep(60)
        assert isinstance(await house.ask(known), Forward)
        answer = await house.ask(unknown, **NAVIGATION)
        assert isinstance(answer, Answer)
        assert answer.status == 503
        assert not any(name == b"Set-Cookie" for name, _ in answer.headers)
        house.store.away = False
        assert isinstance(await house.ask(unknown), Forward)

    run_virtual(main)


def test_d5_d10_a_silent_store_keeps_a_known_session_waiting_once() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        known = await house.sign_in()
        await house.ask(known)
        reads = house.store.read

        async def silent(key: str) -> Snapshot:
            await asyncio.sleep(2.0)
            raise StoreUnavailable("Redis did not answer within 2 s")

        house.store.read = silent  # type: ignore[method-assign]
        await asyncio.sleep(31)
        waits: list[float] = []
        for _ in range(6):
            began = loop.time()
            assert isinstance(await house.ask(known), Forward)
            waits.append(loop.time() - began)
            await asyncio.sleep(0.5)
        assert waits == [2.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        await asyncio.sleep(30)
        began = loop.time()  # nobody has looked for long: it may be back, and may know of a sign-out
        assert isinstance(await house.ask(known), Forward)
        assert loop.time() - began == 2.0
        house.store.read = reads  # type: ignore[method-assign]
        await house.ask(known)
        await asyncio.sleep(0.1)
        assert house.sessions.store_away_since is None

    run_virtual(main)


@pytest.mark.parametrize("check", ["sub", "iss", "aud", "signature", "auth_time"])
def test_f20_f22_somebody_elses_id_token_ends_the_session_and_its_token_is_revoked(check: str) -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.id_token, house.op.reject = "idt1", check
        cookie = await house.sign_in()
        await asyncio.sleep(301)
        answer = await house.ask(cookie)
        assert isinstance(answer, Answer)
        assert answer.status == 401
        await house.settled()
        assert house.op.revoked == ["rt1"]
        assert house.alarms == [check]
        answer = await house.ask(cookie)
        assert isinstance(answer, Answer)
        assert answer.status == 401

    run_virtual(main)


@pytest.mark.parametrize("check", ["sub", "signature"])
def test_f20_an_ended_session_stays_ended_while_the_store_cannot_write_it_down(check: str) -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        await house.ask(cookie)
        house.op.id_token, house.op.reject = "idt1", check
        await asyncio.sleep(301)
        house.store.endings_fail = True
        for _ in range(3):  # the record that can be read holds live tokens: somebody else's
            answer = await house.ask(cookie)
            assert isinstance(answer, Answer)
            assert answer.status == 401
            assert json.loads(answer.body)["reason"] == "identity_mismatch"
            await asyncio.sleep(1)
        house.store.endings_fail = False
        await house.settled()
        assert isinstance(await house.ask(cookie), Answer)
        assert house.op.revoked == ["rt1"]

    run_virtual(main)


def test_f20_nobody_is_given_tokens_whose_id_token_is_still_being_checked() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        await house.ask(cookie)
        house.op.id_token, house.op.reject, house.op.check_takes_s = "idt1", "sub", 2.0
        await asyncio.sleep(301)
        first = asyncio.ensure_future(house.ask(cookie))
        await asyncio.sleep(1)  # the new tokens are stored, and being checked
        assert house.op.calls == 1
        for answer in await asyncio.gather(first, *(house.ask(cookie) for _ in range(20))):
            assert isinstance(answer, Answer)
            assert answer.status == 401

    run_virtual(main)


def test_f25_a_check_that_takes_its_time_makes_nobody_wait_whose_token_is_alive() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        house.op.id_token, house.op.check_takes_s = "idt1", 5.0
        await asyncio.sleep(270)
        await house.ask(cookie)
        await asyncio.sleep(1)
        began = loop.time()
        verdict = await house.ask(cookie)
        assert isinstance(verdict, Forward)
        assert b"at0" in verdict.identity
        assert loop.time() == began
        await asyncio.sleep(5)
        verdict = await house.ask(cookie)
        assert isinstance(verdict, Forward)
        assert b"at1" in verdict.identity

    run_virtual(main)


def test_h4_a_sign_out_that_comes_while_a_session_is_first_read_is_not_missed() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        house.store.slow_s = 1.0
        first = asyncio.ensure_future(house.ask(cookie))
        await asyncio.sleep(0.5)
        await house.store.end(next(iter(house.store._rows)), Ended.SIGNED_OUT, 100)
        assert isinstance(await first, Forward)  # asked before the sign-out
        answer = await house.ask(cookie)
        assert isinstance(answer, Answer)
        assert answer.status == 401

    run_virtual(main)


def test_a_session_that_ends_here_while_its_record_is_read_again_is_refused() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        await house.ask(cookie)
        await asyncio.sleep(31)
        house.store.slow_s = 1.0
        request = asyncio.ensure_future(house.ask(cookie))
        await asyncio.sleep(0.5)  # what the store said is on its way
        (session,) = house.sessions.cache
        house.sessions.drop(session, Ended.SIGNED_OUT)
        answer = await request
        assert isinstance(answer, Answer)
        assert json.loads(answer.body)["reason"] == Ended.SIGNED_OUT

    run_virtual(main)


@pytest.mark.parametrize("check", ["away", "exp", "kid_unknown"])
def test_f21_an_id_token_that_cannot_be_judged_changes_nothing(check: str) -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.id_token, house.op.reject = "idt1", check
        cookie = await house.sign_in()
        await asyncio.sleep(301)
        verdict = await house.ask(cookie)
        assert isinstance(verdict, Forward)
        assert verdict.identity == b"ada staff at1"

    run_virtual(main)


@pytest.mark.parametrize("failures", [1, 2, 99])
def test_b1_b2_b6_a_failing_userinfo_costs_no_token_and_no_second_call(failures: int) -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop, userinfo=True)
        house.op.userinfo_fails = failures
        cookie = await house.sign_in()
        await asyncio.sleep(301)
        verdict = await house.ask(cookie)
        assert isinstance(verdict, Forward)
        assert verdict.identity == b"ada staff at1"
        await house.settled()
        verdict = await house.ask(cookie)
        assert isinstance(verdict, Forward)
        groups = b"from-userinfo" if failures < 4 else b"staff"
        assert verdict.identity == b"ada " + groups + b" at1"
        assert house.op.calls == 1

    run_virtual(main)


def test_a_verdict_asks_for_a_sign_in_and_says_why() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        house.op.dead = True
        cookie = await house.sign_in()
        await asyncio.sleep(301)
        answer = await house.ask(cookie)
        assert isinstance(answer, Answer)
        assert (answer.status, json.loads(answer.body)["reason"]) == (401, "invalid_grant")
        again = await house.ask(cookie, **NAVIGATION)
        assert isinstance(again, Answer)
        assert again.status == 302
        assert house.op.calls == 1

    run_virtual(main)


def test_public_paths_never_wait_and_never_fail() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop, public=("/static/",))
        assert await house.ask(target=b"/static/x") == Forward()
        house.store.away = True
        assert await house.ask(b"__Host-np=" + b"A" * 160, target=b"/static/x") == Forward()
        answer = await house.ask(target=b"/static/..%2fadmin")
        assert isinstance(answer, Answer)
        assert answer.status == 400

    run_virtual(main)


@pytest.mark.parametrize("target", [b"/static//x", b"/static/..%2fadmin", b"/oauth2", b"/oauth2x", b"/a//b"])
def test_a_known_cookie_and_one_that_is_opened_first_meet_the_same_verdict(target: bytes) -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop, public=("/static/",))
        cookie = await house.sign_in()
        first = await house.ask(cookie, target=target)
        await house.ask(cookie)  # now it is known, and needs no decision
        assert await house.ask(cookie, target=target) == first
        assert isinstance(first, Pages if target == b"/oauth2" else Forward)

    run_virtual(main)


def test_a_foreign_websocket_does_not_ride_on_the_cookie() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        await house.ask(cookie)
        for origin, status in ((b"https://evil.example", 403), (b"https://app.example.com", None)):
            verdict = await house.ask(cookie, upgrade_websocket=True, fields={b"origin": origin})
            assert (verdict.status if isinstance(verdict, Answer) else None) == status

    run_virtual(main)


def test_open_tunnels_are_closed_when_the_session_is_signed_out() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        verdict = await house.ask(cookie)
        assert isinstance(verdict, Forward)
        assert verdict.watch is not None
        closed: list[str] = []
        verdict.watch(lambda: closed.append("first"))
        unwatch = verdict.watch(lambda: closed.append("second"))
        unwatch()
        session = await house.sessions.open(house.origins.main, cookie)
        assert session is not None
        await house.register.end(session, Ended.SIGNED_OUT)
        assert closed == ["first"]

    run_virtual(main)


def test_an_apps_401_forces_one_renewal_and_a_useless_one_is_not_repeated() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in(3_600)
        verdict = await house.ask(cookie)
        assert isinstance(verdict, Forward)
        assert verdict.unauthorized is not None
        challenge = b'Bearer error="invalid_token"'
        assert await verdict.unauthorized(challenge) is None  # the token is too young
        await asyncio.sleep(20)
        assert await verdict.unauthorized(b"Basic realm=x") is None
        again = await verdict.unauthorized(challenge)
        assert again is not None
        assert again.identity.endswith(b"at1")
        await asyncio.sleep(400)
        assert await verdict.unauthorized(challenge) is None  # it did not help
        assert house.op.calls == 1

    run_virtual(main)


def test_limits_end_sessions_whatever_the_tokens_say() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in(90_000)
        for _ in range(23):
            await asyncio.sleep(3_600)
            assert isinstance(await house.ask(cookie), Forward)  # activity moves the idle limit
        await house.settled()
        await asyncio.sleep(3_601)
        answer = await house.ask(cookie)
        assert isinstance(answer, Answer)
        assert answer.status == 401  # nothing moves the absolute one

    run_virtual(main)
