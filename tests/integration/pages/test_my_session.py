"""`session` and `session/refresh`: what a single-page app may know and ask for."""

from __future__ import annotations

import asyncio
import json

import pytest

from proxy.core.token_reply import RawReply
from tests.integration.pages.house import APP, CANARY, FETCH, Browser, House


async def signed_in(house: House) -> Browser:
    browser = Browser(house.app)
    await browser.sign_in(house)
    return browser


@pytest.mark.parametrize("path", ["session", "userinfo"])
def test_the_session_tells_who_and_how_long(path: str) -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        house.clock.at += 10
        reply = await browser.get(f"/oauth2/{path}", FETCH)
        assert reply["content-type"] == "application/json"
        told = reply.json
        assert told["user"] == "ada-1"
        assert told["groups"] == ["staff"]
        assert told["ends_in_s"] == 2_592_000 - 10
        assert told["idles_out_in_s"] == 604_800 - 10
        assert told["access_token"]["expires_in_s"] == 290
        assert 229 <= told["access_token"]["next_refresh_in_s"] <= 249
        assert told["access_token"]["refreshable"] is True
        assert told["last_refresh"] is None
        assert CANARY not in reply.text

    asyncio.run(scenario())


def test_without_a_session_it_is_a_401_problem_with_the_login_address() -> None:
    reply = asyncio.run(Browser(House().app).get("/oauth2/session", FETCH))
    assert (reply.status, reply["content-type"]) == (401, "application/problem+json")
    assert reply.json["code"] == "no_session"
    assert reply.json["links"]["Sign in"] == APP + "/oauth2/login"
    assert 'login="/oauth2/login"' in reply["www-authenticate"]


def test_refresh_renews_above_the_floor() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        soon = await browser.call("POST", "/oauth2/session/refresh", {**FETCH, "origin": APP})
        assert (soon.status, soon.json["result"]) == (200, "too_soon")
        assert soon.json["retry_after_s"] == 10
        house.clock.at += 11
        reply = await browser.call("POST", "/oauth2/session/refresh", {**FETCH, "origin": APP})
        assert reply.json["result"] == "refreshed"
        assert reply.json["access_token"]["expires_in_s"] == 300
        assert reply.json["last_refresh"]["outcome"] == "ok"
        assert house.op.refreshed == 1
        assert CANARY not in reply.text

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "error", "answer"),
    [(503, "temporarily_unavailable", 503), (401, "invalid_client", 503), (400, "invalid_grant", 401)],
)
def test_a_refresh_that_fails_says_what_it_means(status: int, error: str, answer: int) -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        house.clock.at += 11
        house.op.reply = RawReply(status, {}, json.dumps({"error": error}).encode())
        reply = await browser.call("POST", "/oauth2/session/refresh", {**FETCH, "origin": APP})
        assert reply.status == answer
        assert (reply["retry-after"] != "") is (answer == 503)
        assert not reply.all("set-cookie")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {},
    ],
)
def test_refresh_is_same_origin_only(headers: dict[str, str]) -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        house.clock.at += 11
        assert (await browser.call("POST", "/oauth2/session/refresh", headers)).status == 403
        assert house.op.refreshed == 0

    asyncio.run(scenario())


def test_refresh_without_a_session_is_a_401() -> None:
    reply = asyncio.run(Browser(House().app).call("POST", "/oauth2/session/refresh", {"origin": APP}))
    assert reply.status == 401
