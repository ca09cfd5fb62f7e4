"""What holds for every answer of the pages, whatever it is about."""

from __future__ import annotations

import asyncio
import logging

import pytest

from proxy.core.token_reply import RawReply
from tests.integration.pages.house import APP, CANARY, FETCH, NAVIGATION, Browser, House, Reply

PATHS = [
    "login",
    "login?rd=/x",
    "callback",
    "callback?state=x&code=y",
    "callback/generic",
    "logout",
    "logged-out",
    "session",
    "session/refresh",
    "userinfo",
    "auth",
    "auth?allowed_groups=nobody",
    "nothing",
    "",
    "login/",
    "%6cogin/../x",
]


def check(reply: Reply) -> None:
    assert reply["cache-control"] == "no-store"
    assert reply["x-content-type-options"] == "nosniff"
    assert reply["referrer-policy"] == "no-referrer"
    assert reply["x-frame-options"] == "DENY"
    assert reply["x-request-id"] == "req-0123456789abcdef"
    policy = reply["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert reply["server"] == ""
    if reply["content-type"].startswith("text/html"):
        assert "req-0123456789abcdef" in reply.text
        assert "<script" not in reply.text
        assert " style=" not in reply.text
        assert 'src="' not in reply.text
    elif reply["content-type"] == "application/problem+json":
        assert reply.json["status"] == reply.status
        assert reply.json["request_id"] == "req-0123456789abcdef"
    elif reply.status not in (302, 303):
        assert reply["content-type"] == "application/json"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("headers", [NAVIGATION, FETCH, {}], ids=["navigation", "fetch", "bare"])
@pytest.mark.parametrize("signed_in", [False, True])
def test_security_headers_are_on_every_answer(
    path: str, method: str, headers: dict[str, str], signed_in: bool
) -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        if signed_in:
            await browser.sign_in(house)
        reply = await browser.call(method, f"/oauth2/{path}", headers)
        assert reply.status < 500
        check(reply)
        if reply.status == 405:
            assert reply["allow"]

    asyncio.run(scenario())


@pytest.mark.parametrize("away", ["store", "op"])
@pytest.mark.parametrize("path", PATHS)
def test_outages_are_answered_calmly_everywhere(path: str, away: str) -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        await browser.sign_in(house)
        house.clock.at += 31
        house.store.away = away == "store"
        house.op.away = away == "op"
        for headers in (NAVIGATION, FETCH):
            reply = await browser.get(f"/oauth2/{path}", headers)
            check(reply)
            if reply.status == 503:
                assert reply["retry-after"].isdigit()
            else:
                assert reply.status < 500

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["nothing", "", "login/", "session/refresh/", "Login", "callback/nobody"])
def test_other_addresses_are_a_404(path: str) -> None:
    async def scenario() -> None:
        browser = Browser(House().app)
        page = await browser.get(f"/oauth2/{path}")
        assert page.status == 404
        assert "There is nothing here" in page.text
        problem = await browser.get(f"/oauth2/{path}", FETCH)
        assert (problem.status, problem["content-type"]) == (404, "application/problem+json")

    asyncio.run(scenario())


def test_another_prefix_moves_everything() -> None:
    async def scenario() -> None:
        house = House(prefix="/_auth")
        browser = Browser(house.app)
        there = await browser.get("/_auth/login?rd=/oauth2/x")
        assert (await browser.get(house.op.consents(there["location"])))["location"] == APP + "/oauth2/x"
        assert 'action="/_auth/logout"' in (await browser.get("/_auth/logout")).text
        assert (await browser.get("/oauth2/login")).status == 404

    asyncio.run(scenario())


@pytest.mark.parametrize("headers", [NAVIGATION, FETCH], ids=["page", "problem"])
def test_a_defect_of_ours_is_a_500_without_its_story(
    headers: dict[str, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        house = House()

        async def breaks(*args: object) -> None:
            raise RuntimeError("the inside story")

        monkeypatch.setattr(house.sessions, "open", breaks)
        reply = await Browser(house.app).get("/oauth2/logged-out", headers)
        assert reply.status == 500
        check(reply)
        assert "inside story" not in reply.text
        assert "RuntimeError" not in reply.text

    asyncio.run(scenario())
    assert any(record.getMessage() == "page_failed" for record in caplog.records)


HOSTILE = "\"><script>alert(1)</script>'&{{7*7}}"


def test_what_the_op_says_of_a_person_is_escaped() -> None:
    async def scenario() -> None:
        house = House()
        house.op.claims |= {"email": HOSTILE, "name": HOSTILE, "preferred_username": HOSTILE}
        browser = Browser(house.app)
        await browser.sign_in(house)
        for path in ("logout", "logged-out"):
            page = await browser.get(f"/oauth2/{path}")
            assert "<script>" not in page.text
            assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
            assert "{{7*7}}" in page.text

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["nothing", "login", "logout", "logged-out", "callback"])
def test_nothing_of_the_address_is_reflected(path: str) -> None:
    async def scenario() -> None:
        house = House()
        house.op.away = True
        query = "?rd=" + "%22%3E%3Cscript%3Ealert(1)%3C/script%3E" + "&error=%3Cscript%3E&state=%3Cscript%3E"
        page = await Browser(house.app).get(f"/oauth2/{path}{query}")
        assert "<script>" not in page.text
        assert "alert(1)" not in page.text

    asyncio.run(scenario())


def test_no_token_code_or_verifier_reaches_a_log_an_event_or_a_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        for reply in (
            RawReply(200, {}, b'{"access_token": "' + CANARY.encode()),
            RawReply(400, {}, b'{"error": "invalid_grant", "error_description": "%s"}' % CANARY.encode()),
        ):
            house.op.reply = reply
            await browser.sign_in(house, "/x")
            house.op.reply = None
        there = await browser.get("/oauth2/login?account=other")
        await browser.get(house.op.consents(there["location"], error=CANARY, error_description=CANARY))
        await browser.sign_in(house, "/x")
        for path in ("session", "logout", "logged-out"):
            await browser.get(f"/oauth2/{path}", FETCH)
        out = await browser.post("/oauth2/logout", origin=APP)
        for fields in [fields for _, fields in house.events]:
            assert CANARY not in repr(fields)
        for seen in browser.seen:
            assert CANARY not in seen.text
            if seen is not out:  # id_token_hint, on its way to the OP
                assert CANARY not in seen["location"]

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    for record in caplog.records:
        assert CANARY not in repr(vars(record))
