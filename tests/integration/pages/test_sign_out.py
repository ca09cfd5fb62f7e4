"""Sign-out: who may ask for it, in which order things end, and where the person lands."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from msgspec.structs import replace

from proxy.core.providers import PROFILES, Reach
from tests.integration.pages.house import APP, CANARY, FETCH, ISSUER, Browser, House

BYE = "https://www.example.com/bye"


def token_in(html: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', html)
    assert found is not None
    return found[1]


async def signed_in(house: House) -> Browser:
    browser = Browser(house.app)
    await browser.sign_in(house)
    return browser


async def still_in(browser: Browser) -> bool:
    return (await browser.get("/oauth2/session", FETCH)).status == 200


def test_a_get_only_asks() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        for path in ("logout", "sign_out"):
            page = await browser.get(f"/oauth2/{path}")
            assert page.status == 200
            assert '<form method="post" action="/oauth2/logout">' in page.text
            assert "ada@example.com" in page.text
        assert await still_in(browser)

    asyncio.run(scenario())


def test_sign_out_ends_here_first_and_then_at_the_op() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        old = dict(browser.cookies)
        reply = await browser.post("/oauth2/logout", origin=APP)
        assert reply.status == 303
        assert reply["location"].startswith(ISSUER + "/logout?")
        asked = parse_qs(urlsplit(reply["location"]).query)
        assert asked["post_logout_redirect_uri"] == [APP + "/oauth2/logged-out"]
        assert asked["id_token_hint"][0].startswith(CANARY)
        assert asked["client_id"] == ["app"]
        assert asked["state"]
        assert browser.cookies == {}
        replay = Browser(house.app)
        replay.cookies = old
        assert not await still_in(replay)
        assert [name for name, _ in house.events][-1] == "signed_out"

    asyncio.run(scenario())


FORM = "form"
WHO_MAY_ASK = [
    # Origin,                   Sec-Fetch-Site, form token, allowed
    (APP, None, None, True),
    (APP, "same-origin", None, True),
    (APP + ":443", None, None, True),
    ("null", "same-origin", None, True),  # our own form: Referrer-Policy no-referrer hides its origin
    (None, "same-origin", None, True),
    (None, None, FORM, True),
    ("null", None, FORM, True),
    (None, None, None, False),
    ("null", None, None, False),
    (None, None, "forged", False),
    ("null", "cross-site", None, False),
    ("null", "cross-site", FORM, False),  # a sandboxed frame that got hold of a form
    (None, "same-site", FORM, False),
    (None, "none", None, False),
    ("https://evil.example", None, None, False),
    ("https://evil.example", "same-origin", FORM, False),
    ("http://app.example.com", None, None, False),
    ("https://app.example.com.evil.example", None, None, False),
    ("https://app.example.com:444", None, None, False),
    (APP + "/", None, None, False),
    ("", "cross-site", None, False),
]


@pytest.mark.parametrize(("origin", "site", "token", "allowed"), WHO_MAY_ASK)
def test_only_the_same_origin_signs_out(
    origin: str | None, site: str | None, token: str | None, allowed: bool
) -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        form = {}
        if token is not None:
            good = token_in((await browser.get("/oauth2/logout")).text)
            form["token"] = good if token == FORM else good[:-2] + "xx"
        headers = {}
        if origin is not None:
            headers["origin"] = origin
        if site is not None:
            headers["sec_fetch_site"] = site
        reply = await browser.post("/oauth2/logout", form, **headers)
        assert reply.status == (303 if allowed else 403)
        assert await still_in(browser) is not allowed
        if not allowed:
            assert not reply.all("set-cookie")
            assert house.happened("sign_out_refused")

    asyncio.run(scenario())


def test_two_origin_fields_are_no_origin() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        reply = await browser.call("POST", "/oauth2/logout", [("origin", APP), ("origin", APP)])
        assert reply.status == 403

    asyncio.run(scenario())


def test_a_form_token_serves_one_session_only_and_not_for_ever() -> None:
    async def scenario() -> None:
        house = House()
        ada, eve = await signed_in(house), await signed_in(house)
        eves = token_in((await eve.get("/oauth2/logout")).text)
        assert (await ada.post("/oauth2/logout", {"token": eves})).status == 403
        assert (await eve.post("/oauth2/logout", {"token": eves})).status == 303

    asyncio.run(scenario())


def test_each_of_our_origins_may_ask() -> None:
    async def scenario() -> None:
        house = House(more_urls=("https://other.example.net",))
        browser = await signed_in(house)
        assert (await browser.post("/oauth2/logout", origin="https://other.example.net")).status == 303

    asyncio.run(scenario())


def test_store_away_keeps_the_session_and_says_so() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        cookie = dict(browser.cookies)
        house.store.away = True
        reply = await browser.post("/oauth2/logout", origin=APP)
        assert (reply.status, reply["retry-after"]) == (503, "5")
        assert "You are still signed in" in reply.text
        assert browser.cookies == cookie
        assert house.op.revoked == []
        house.store.away = False
        assert await still_in(browser)

    asyncio.run(scenario())


@pytest.mark.parametrize("why", ["away", "no endpoint", "profile"])
def test_without_the_op_our_own_page_is_the_end(why: str) -> None:
    async def scenario() -> None:
        house = House(
            profile=replace(PROFILES["generic"], end_session=why != "profile"), post_logout_urls=(BYE,)
        )
        browser = await signed_in(house)
        house.op.away = why == "away"
        if why == "no endpoint":
            house.op.end_session = ""
        reply = await browser.post("/oauth2/logout", origin=APP)
        assert (reply.status, reply["location"]) == (303, APP + "/oauth2/logged-out")
        page = await browser.get(reply["location"])
        assert page.status == 200
        assert "You are signed out" in page.text
        assert f'href="{APP}/oauth2/login"' in page.text

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("asked", "lands"),
    [
        (BYE, BYE),
        (BYE + "/", None),
        (BYE + "?x=1", None),
        ("https://evil.example/", None),
        ("//evil.example/", None),
        ("/local", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("how", ["query", "form"])
def test_the_landing_page_is_an_allowed_one_or_ours(asked: str, lands: str | None, how: str) -> None:
    async def scenario() -> None:
        house = House(post_logout_urls=(BYE,))
        browser = await signed_in(house)
        if how == "query":
            reply = await browser.post("/oauth2/logout?" + urlencode({"rd": asked}), origin=APP)
        else:
            reply = await browser.post("/oauth2/logout", {"rd": asked}, origin=APP)
        target = parse_qs(urlsplit(reply["location"]).query)["post_logout_redirect_uri"]
        assert target == [lands or APP + "/oauth2/logged-out"]

    asyncio.run(scenario())


def test_the_confirmation_carries_an_allowed_landing_page_only() -> None:
    async def scenario() -> None:
        house = House(post_logout_urls=(BYE,))
        browser = await signed_in(house)
        assert f'name="rd" value="{BYE}"' in (await browser.get("/oauth2/logout?rd=" + BYE)).text
        assert 'name="rd"' not in (await browser.get("/oauth2/logout?rd=https://evil.example")).text

    asyncio.run(scenario())


@pytest.mark.parametrize("query", ["", "?state=x", "?state=https://evil.example&rd=https://evil.example"])
def test_whatever_state_comes_back_the_landing_is_a_page(query: str) -> None:
    reply = asyncio.run(Browser(House().app).get("/oauth2/logged-out" + query))
    assert reply.status == 200
    assert reply["location"] == ""
    assert "evil.example" not in reply.text


def test_the_landing_page_does_not_lie() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        page = await browser.get("/oauth2/logged-out")
        assert "You are signed in" in page.text
        house.clock.at += 31
        house.store.away = True
        assert (await browser.get("/oauth2/logged-out")).status == 200

    asyncio.run(scenario())


def test_without_a_session_it_works_too() -> None:
    async def scenario() -> None:
        browser = Browser(House().app)
        browser.cookies["__Host-np"] = "junk"
        assert "not signed in" in (await browser.get("/oauth2/logout")).text
        reply = await browser.post("/oauth2/logout", origin=APP)
        assert (reply.status, reply["location"]) == (303, APP + "/oauth2/logged-out")
        assert browser.cookies == {}
        assert (await browser.post("/oauth2/logout", origin="https://evil.example")).status == 403

    asyncio.run(scenario())


def test_a_script_is_told_where_to_go_on_and_gets_no_token() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        reply = await browser.call("POST", "/oauth2/logout", {**FETCH, "origin": APP})
        assert reply.status == 200
        assert reply.json["signed_out"] is True
        assert reply.json["continue_at"].startswith(ISSUER + "/logout?")
        assert CANARY not in reply.text
        assert browser.cookies == {}

    asyncio.run(scenario())


def test_a_plain_program_with_our_origin_signs_out() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        reply = await browser.call("POST", "/oauth2/logout", {"origin": APP, "accept": "*/*"})
        assert reply.status == 303
        assert not await still_in(browser)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("reach", "has_logout", "revoked"),
    [
        (Reach.TOKEN, True, 1),
        (Reach.TOKEN, False, 1),
        (Reach.SESSION, True, 1),
        (Reach.SESSION, False, 0),
        (Reach.GRANT, True, 0),
    ],
)
def test_revocation_reaches_nobody_elses_session(reach: Reach, has_logout: bool, revoked: int) -> None:
    async def scenario() -> None:
        house = House(profile=replace(PROFILES["generic"], reach=reach))
        if not has_logout:
            house.op.end_session = ""
        browser = await signed_in(house)
        await browser.post("/oauth2/logout", origin=APP)
        await house.background.drain(1)
        assert len(house.op.revoked) == revoked

    asyncio.run(scenario())


def test_a_body_that_is_too_long_is_refused() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        reply = await browser.post("/oauth2/logout", {"token": "x" * 70_000}, origin=APP)
        assert reply.status == 413
        assert await still_in(browser)

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [b"\xff\xfe=%zz&&&token", b"{}", b"a=1&" * 200])
def test_a_strange_body_is_no_error_of_ours(body: bytes) -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        headers = {"origin": APP, "content-type": "application/x-www-form-urlencoded", "accept": "text/html"}
        reply = await browser.call("POST", "/oauth2/logout", headers, body)
        assert reply.status in (303, 400)

    asyncio.run(scenario())
