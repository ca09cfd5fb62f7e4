"""Sessions whose contents are sealed again: nobody can tell, and what only we have stays open."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from proxy.core.gate import Forward
from proxy.shell import session_cache
from proxy.shell.open_session import OpenSession
from tests.unit.shell import test_door
from tests.unit.shell.test_door import House
from tests.virtual import VirtualLoop, run_virtual


def only(house: House) -> OpenSession:
    (session,) = house.sessions.cache
    return session


PLAIN = [
    name
    for name, test in vars(test_door).items()
    if name.startswith("test_") and not hasattr(test, "pytestmark")
]
"""Those that take no arguments."""


@pytest.mark.parametrize("name", PLAIN)
def test_every_request_fares_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is said of the door, once more: with every session at rest between any two looks at it."""
    monkeypatch.setattr(session_cache, "AWAKE", 0)
    getattr(test_door, name)()


def test_the_ones_read_longest_ago_rest_and_a_ready_request_wakes_none() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        cookies = [await house.sign_in() for _ in range(session_cache.AWAKE + 5)]
        for cookie in cookies:
            await house.ask(cookie)
        resting = [session for session in house.sessions.cache if session.contents is None]
        assert len(resting) == 5
        assert isinstance(await house.ask(cookies[0]), Forward)
        assert [session for session in house.sessions.cache if session.contents is None] == resting

    run_virtual(main)


def test_at_rest_it_holds_what_it_held() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        await house.ask(await house.sign_in())
        session = only(house)
        before = session.tokens, session.identity
        session.rest()
        assert session.contents is None
        assert (session.tokens, session.identity) == before

    run_virtual(main)


def test_what_the_store_has_not_taken_does_not_rest() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        await house.ask(await house.sign_in())
        session = only(house)
        house.sessions.take(session, replace(session.tokens, access_token="newer"))
        session.rest()
        assert session.tokens.access_token == "newer"
        session.unsaved = False
        house.sessions.take_identity(session, replace(session.identity, groups=("newer",)))
        session.rest()
        assert session.identity.groups == ("newer",)

    run_virtual(main)


def test_a_blob_that_did_open_is_not_changed_for_one_under_the_same_name() -> None:
    """What was damaged in the store since must not reach a request through a session that works."""

    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        await house.ask(await house.sign_in())
        session = only(house)
        before = session.tokens, session.identity
        house.sessions.adopt(session, replace(session.record, tokens=b"damaged", who=b"damaged"))
        session.rest()
        assert (session.tokens, session.identity) == before

    run_virtual(main)


def test_a_logout_at_the_provider_finds_resting_ones_by_person_and_by_session() -> None:
    async def main(loop: VirtualLoop) -> None:
        house = House(loop)
        await house.ask(await house.sign_in())
        session, cache = only(house), house.sessions.cache
        identity = session.identity
        house.sessions.take_identity(session, replace(identity, sid="op-1"))
        session.learned = False
        session.rest()
        assert session.contents is None
        iss, sub = identity.iss, identity.sub
        for said, found in (
            ((iss, sub, ""), True),
            ((iss, "", "op-1"), True),
            ((iss, sub, "op-1"), True),
            ((iss, sub, "op-2"), False),
            ((iss, "someone", ""), False),
            (("elsewhere", sub, ""), False),
            ((iss, "", ""), False),
        ):
            assert bool(cache.of_provider(*said)) is found, said

    run_virtual(main)
