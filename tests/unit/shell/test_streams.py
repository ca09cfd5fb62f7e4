"""Open tunnels and event streams end with their session, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from proxy.core.gate import Forward
from proxy.core.session import Ended
from proxy.shell.streams import LOOK_S, Streams
from tests.unit.shell.test_door import House
from tests.virtual import VirtualLoop, run_virtual


class Stage:
    """A house whose streams are looked after, and one open stream."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.streams = Streams(house.sessions, house.time, house.background)
        self.closed = 0

    async def open(self, life_s: float = 300.0) -> Callable[[], None]:
        cookie = await self.house.sign_in(life_s)
        forward = await self.house.ask(cookie)
        assert isinstance(forward, Forward)
        assert forward.watch is not None
        self.session = next(iter(self.house.sessions.cache))
        return forward.watch(self.close)

    def close(self) -> None:
        self.closed += 1


def staged(body: Callable[[Stage], Awaitable[None]]) -> None:
    """Run a test's body beside the loop that looks after streams."""

    async def main(loop: VirtualLoop) -> None:
        stage = Stage(House(loop))
        task = loop.create_task(stage.streams.run(lambda: stage.house.keeper))
        try:
            await body(stage)
        finally:
            task.cancel()

    run_virtual(main)


def test_a_sign_out_elsewhere_closes_within_a_second() -> None:
    async def body(stage: Stage) -> None:
        await stage.open()
        await asyncio.sleep(5)
        assert stage.closed == 0
        await stage.house.store.end(stage.session.key, Ended.SIGNED_OUT, 100)
        await asyncio.sleep(2 * LOOK_S)
        assert stage.closed == 1

    staged(body)


def test_limits_close_although_nobody_asks() -> None:
    async def body(stage: Stage) -> None:
        await stage.open(life_s=100_000)
        await asyncio.sleep(7_000)
        assert stage.closed == 0
        await asyncio.sleep(201)  # the idle limit of the house is 7,200 s
        assert stage.closed == 1

    staged(body)


def test_tokens_that_are_due_are_renewed_for_a_stream_and_a_grant_taken_back_closes_it() -> None:
    async def body(stage: Stage) -> None:
        await stage.open(life_s=300)
        await asyncio.sleep(1_000)
        assert stage.closed == 0
        assert [outcome for outcome, _ in stage.house.ends][:2] == ["ok", "ok"]
        stage.house.op.dead = True
        await asyncio.sleep(400)
        assert stage.closed == 1
        assert stage.house.ends[-1][0] == "dead"

    staged(body)


def test_a_store_that_is_away_closes_nothing_and_is_asked_seldom() -> None:
    async def body(stage: Stage) -> None:
        await stage.open(life_s=7_000)
        await asyncio.sleep(31)
        asked = stage.house.store.asked
        stage.house.store.away = True
        await asyncio.sleep(100)
        assert stage.closed == 0
        assert 20 <= stage.house.store.asked - asked <= 51
        stage.house.store.away = False
        await stage.house.store.end(stage.session.key, Ended.SIGNED_OUT, 100)
        await asyncio.sleep(4)
        assert stage.closed == 1

    staged(body)


def test_a_stream_that_opens_after_its_session_ended_is_closed_at_once() -> None:
    async def body(stage: Stage) -> None:
        cookie = await stage.house.sign_in()
        forward = await stage.house.ask(cookie)
        assert isinstance(forward, Forward)
        assert forward.watch is not None
        session = next(iter(stage.house.sessions.cache))
        await stage.house.register.end(session, Ended.SIGNED_OUT)
        forward.watch(stage.close)()
        assert stage.closed == 1

    staged(body)


def test_a_session_that_left_the_cache_comes_back_with_its_stream() -> None:
    async def body(stage: Stage) -> None:
        cookie = await stage.house.sign_in(life_s=6_000)
        forward = await stage.house.ask(cookie)
        assert isinstance(forward, Forward)
        assert forward.watch is not None
        session = next(iter(stage.house.sessions.cache))
        stage.house.sessions.cache.forget(session)
        stop = forward.watch(stage.close)
        assert stage.house.sessions.cache.streaming() == [session]
        await stage.house.store.end(session.key, Ended.SIGNED_OUT, 100)
        await asyncio.sleep(2)
        assert stage.closed == 1
        stop()
        assert stage.house.sessions.cache.size_bytes == 0

    staged(body)


def test_a_stream_that_ended_by_itself_is_looked_after_no_more() -> None:
    async def body(stage: Stage) -> None:
        stop = await stage.open()
        stop()
        assert stage.house.sessions.cache.streaming() == []
        asked = stage.house.store.asked
        await asyncio.sleep(600)
        assert stage.house.store.asked == asked

    staged(body)


def test_f20_a_stream_reads_no_tokens_whose_id_token_is_still_being_checked() -> None:
    async def body(stage: Stage) -> None:
        await stage.open(life_s=300)
        house, session = stage.house, stage.session
        house.op.id_token, house.op.check_takes_s = "idt1", 5.0
        while not house.op.calls:
            await asyncio.sleep(LOOK_S)  # the stream's own renewal, when the tokens are due
        await asyncio.sleep(3 * LOOK_S)  # stored, told to every listener, and being checked
        await house.sessions.read_again(session)
        assert session.tokens.access_token == "at0"
        assert b"at0" in session.forward.identity
        assert session.stale  # who asks next reads again
        await asyncio.sleep(6)
        assert session.tokens.access_token == "at1"
        assert stage.closed == 0

    staged(body)


def test_f20_a_streams_rereading_does_not_revive_a_session_that_the_store_cannot_end_yet() -> None:
    async def body(stage: Stage) -> None:
        await stage.open(life_s=300)
        house, session = stage.house, stage.session
        house.op.id_token, house.op.reject, house.store.endings_fail = "idt1", "sub", True
        while not session.gone:
            await asyncio.sleep(LOOK_S)
        assert stage.closed == 1
        await house.sessions.read_again(session)
        assert session.gone == Ended.MISMATCH
        assert session.tokens.access_token == "at0"
        assert house.sessions.cached(session.key) is None

    staged(body)
