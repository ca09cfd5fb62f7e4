"""`/oauth2/auth` at the door: what a proxy asks about each request costs no page."""

from __future__ import annotations

import asyncio

from proxy.core.gate import Answer, Pages, Verdict
from proxy.core.session import Ended
from tests.unit.shell.test_door import House, run_virtual
from tests.virtual import VirtualLoop

AUTH = b"/oauth2/auth"
NAVIGATION = {b"sec-fetch-mode": b"navigate", b"accept": b"text/html"}


async def status(house: House, cookie: bytes = b"", **more: object) -> int:
    verdict = await house.ask(cookie, **{"target": AUTH, **more})
    assert isinstance(verdict, Answer)
    return verdict.status


def test_yes_and_no() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop, public=("/", "/public/"))
        cookie = await house.sign_in()
        assert await status(house) == 401
        assert await status(house, b"np=junk; __Host-np=junk") == 401
        assert await status(house, cookie) == 202
        assert await status(house, cookie, fields=NAVIGATION) == 202

    run_virtual(main)


def test_a_person_is_not_sent_away_by_the_answer_to_a_proxy() -> None:
    async def main(loop: VirtualLoop) -> None:
        verdict = await House(loop).ask(b"", target=AUTH, fields=NAVIGATION)
        assert isinstance(verdict, Answer)
        assert verdict.status == 401
        assert all(name != b"Location" for name, _ in verdict.headers)

    run_virtual(main)


def test_it_tells_nothing_of_the_person() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        verdict = await house.ask(await house.sign_in(), target=AUTH)
        assert isinstance(verdict, Answer)
        assert (verdict.body, verdict.headers) == (b"", [(b"Cache-Control", b"no-store")])

    run_virtual(main)


def test_a_warm_question_asks_no_store() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        await status(house, cookie)
        asked = house.store.asked
        for _ in range(100):
            assert await status(house, cookie) == 202
        assert house.store.asked == asked

    run_virtual(main)


def test_an_expired_token_is_renewed_first_and_an_outage_is_not_a_no() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in(300)
        await asyncio.sleep(301)
        assert await status(house, cookie) == 202
        house.store.away = True
        await asyncio.sleep(31)
        assert await status(house, cookie) == 202  # a known session, a live token
        assert await status(house, b"__Host-np=" + b"A" * 90) == 401
        house.store.away = False

    run_virtual(main)


def test_a_session_that_ended_is_a_no() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        assert await status(house, cookie) == 202
        await house.store.end(next(iter(house.sessions.cache)).key, Ended.SIGNED_OUT, 100)
        assert await status(house, cookie) == 401

    run_virtual(main)


def test_other_forms_of_the_question_are_the_pages() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookie = await house.sign_in()
        for more in (
            {"target": AUTH + b"?allowed_groups=staff"},
            {"target": AUTH + b"/"},
            {"target": AUTH, "method": b"HEAD"},
            {"target": AUTH, "method": b"POST"},
        ):
            verdict: Verdict = await house.ask(cookie, **more)
            assert isinstance(verdict, Pages), more

    run_virtual(main)
