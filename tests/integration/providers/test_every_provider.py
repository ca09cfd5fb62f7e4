"""The same table of tests for every provider, each against our own OP with its documented ways.

See `tests/op/quirks.py`: what is shown here is that we get along with what the provider's pages say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.core.gate import Standing
from proxy.core.providers import PROFILES
from tests.integration.pages.house import Browser
from tests.integration.providers.house import APP, Joined, run, settings_for
from tests.op.quirks import QUIRKS, Quirks, QuirkyOP, Said
from tests.op.scripted import Script


@pytest.fixture(params=QUIRKS, ids=lambda quirks: quirks.name)
def op(request: pytest.FixtureRequest) -> Iterator[QuirkyOP]:
    with QuirkyOP(request.param) as made:
        yield made


def house(op: QuirkyOP, **changes: Any) -> Joined:
    return Joined(settings_for(op, provider=op.quirks.name, **changes), op)


async def signed_in(joined: Joined, op: QuirkyOP) -> Browser:
    browser = joined.browser()
    reply = await joined.sign_in(op, browser)
    assert reply.status == 302, reply.text
    return browser


def answers(said: Said) -> Script:
    return Script(process=False, status=said[0], body=json.dumps(said[1]))


def test_every_profile_is_tried() -> None:
    tried = {quirks.name for quirks in QUIRKS} | {"github-oauth-app"}  # it has no refresh token to try
    assert tried == set(PROFILES)


def test_a_first_and_a_second_sign_in_bring_a_refresh_token(op: QuirkyOP) -> None:
    async def main(joined: Joined) -> None:
        for _ in range(2):
            session = await joined.open(await signed_in(joined, op))
            assert session.tokens.refresh_token
            assert session.record.due > 0
            headers = joined.headers(session)
            assert headers["X-Forwarded-User"]
            assert headers["X-Forwarded-Email"] == "ada@example.com"
            assert headers["X-Forwarded-Preferred-Username"] == "ada"
        assert joined.parts.provider.observed.without_refresh_token == 0

    run(lambda: house(op), main)


def test_ten_refreshes_are_survived_and_none_of_them_is_a_reuse(op: QuirkyOP) -> None:
    async def main(joined: Joined) -> None:
        browser = await signed_in(joined, op)
        seen = {(await joined.open(browser)).tokens.access_token}
        for _ in range(10):
            await joined.expire(browser)
            result = await joined.ask(browser)
            assert result is not None
            assert result.word == "refreshed"
            seen.add((await joined.open(browser)).tokens.access_token)
            await joined.settled()
        assert len(seen) == 11
        assert (len(op.refreshes()), op.invalid_grant, op.reuse_events) == (10, 0, 0)
        expected = op.rotation.kind != "none"
        assert joined.parts.provider.observed.rotates is expected, "learned, whatever the profile says"

    run(lambda: house(op), main)


def test_many_requests_at_expiry_make_one_token_call(op: QuirkyOP) -> None:
    async def main(joined: Joined) -> None:
        browser = await signed_in(joined, op)
        await joined.expire(browser)
        results = await asyncio.gather(*(joined.ask(browser) for _ in range(20)))
        assert {result.word for result in results if result is not None} == {"refreshed"}
        assert len(op.refreshes()) == 1

    run(lambda: house(op), main)


def test_every_documented_end_ends_the_session_with_its_reason(op: QuirkyOP) -> None:
    async def main(joined: Joined) -> None:
        for said in (*op.quirks.dead, *op.quirks.interaction):
            browser = await signed_in(joined, op)
            await joined.expire(browser)
            op.script_next(answers(said), "refresh")
            result = await joined.ask(browser)
            assert result is not None
            assert (result.word, result.reason) == ("ended", said[1]["error"]), said
        before = joined.base.telemetry.refreshes
        assert any(outcome == "dead" for outcome, _ in before)

    run(lambda: house(op), main)


def test_a_used_up_token_is_refused_in_its_words_and_read_as_an_end(op: QuirkyOP) -> None:
    """The provider's own refusal, not a script's: the grant was ended there."""

    async def main(joined: Joined) -> None:
        browser = await signed_in(joined, op)
        session = await joined.open(browser)
        op.revoke_grant(session.tokens.refresh_token)
        await joined.expire(browser)
        result = await joined.ask(browser)
        assert result is not None
        assert result.word == "ended"
        assert joined.parts.keeper.standing(await joined.open(browser)) is Standing.SPENT

    run(lambda: house(op), main)


def test_no_passing_trouble_ends_a_session(op: QuirkyOP) -> None:
    async def main(joined: Joined) -> None:
        browser = await signed_in(joined, op)
        html = Script(
            process=False, status=502, body="<html>bad gateway</html>", headers={"Content-Type": "text/html"}
        )
        for script in [*(answers(said) for said in op.quirks.transient), html]:
            await joined.expire(browser)
            op.script_next(script, "refresh")
            first = await joined.ask(browser)
            assert first is not None
            assert first.word in ("unavailable", "refreshed")
            joined.advance(90)
            again = await joined.ask(browser)
            assert again is None or again.word == "refreshed", again
        assert op.reuse_events == 0

    run(lambda: house(op), main)


def test_the_operators_mistake_costs_no_session(op: QuirkyOP) -> None:
    """G1, G2: a wrong secret, in the provider's own words; then the right one."""

    async def main(joined: Joined) -> None:
        browser = await signed_in(joined, op)
        for said in op.quirks.client:
            await joined.expire(browser)
            op.script_next(answers(said), "refresh")
            result = await joined.ask(browser)
            assert result is not None
            assert (result.word, result.reason) == ("unavailable", said[1]["error"])
            joined.advance(90)
            recovered = await joined.ask(browser)
            assert recovered is not None
            assert recovered.word == "refreshed"
        right, op.client_secret = op.client_secret, "another"
        await joined.expire(browser)
        result = await joined.ask(browser)
        assert result is not None
        assert result.word == "unavailable", "its own refusal of the secret"
        op.client_secret = right
        joined.advance(90)
        recovered = await joined.ask(browser)
        assert recovered is not None
        assert recovered.word == "refreshed"

    run(lambda: house(op), main)


def test_groups_survive_three_refreshes_and_follow_a_change(op: QuirkyOP) -> None:
    """F23, F24: missing groups are not "no groups"."""

    async def main(joined: Joined) -> None:
        browser = await signed_in(joined, op)
        for _ in range(3):
            headers = joined.headers(await joined.open(browser))
            assert headers["X-Forwarded-Groups"] == "acme,acme/staff"
            await joined.expire(browser)
            await joined.ask(browser)
            await joined.settled()
        op.user["groups"] = ["acme"]
        await joined.expire(browser)
        await joined.ask(browser)
        await joined.settled()
        assert joined.headers(await joined.open(browser))["X-Forwarded-Groups"] == "acme"

    run(lambda: house(op), main)


def test_a_sign_out_does_what_it_can_there(op: QuirkyOP) -> None:
    async def main(joined: Joined) -> None:
        quirks: Quirks = op.quirks
        browser = await signed_in(joined, op)
        tokens = (await joined.open(browser)).tokens
        done = await browser.post("/oauth2/logout", origin=APP)
        await joined.settled()
        assert await joined.session(browser) is None
        if quirks.logout:
            place, _, query = done["location"].partition("?")
            root = op.issuer.rstrip("/") if quirks.logout == "/end-session" else op.root
            assert place == root + quirks.logout
            assert "app.example.com" in query
        else:
            assert done["location"] == APP + "/oauth2/logged-out"
        given = {"refresh": [tokens.refresh_token], "access": [tokens.access_token], "": []}[
            quirks.gives_back
        ]
        assert op.revoked == given
        if given:
            method, path = quirks.given_back_at
            path = path if path.startswith(quirks.base) else quirks.base + path
            assert (method, path) in op.calls
            assert not op.is_valid(tokens.refresh_token)

    run(lambda: house(op), main)
