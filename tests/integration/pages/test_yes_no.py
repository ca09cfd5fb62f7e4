"""`auth`: what nginx's `auth_request` asks, and oauth2-proxy's other ways of asking."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest

from proxy.core.token_reply import RawReply
from tests.integration.pages.house import APP, CANARY, FETCH, Browser, House

ASKED: dict[str, str] = {}
"""nginx sends the subrequest's own fields only: no Accept, no Sec-Fetch-*."""


async def signed_in(house: House) -> Browser:
    browser = Browser(house.app)
    await browser.sign_in(house)
    return browser


def test_it_says_yes_or_no_and_nothing_about_whom() -> None:
    async def scenario() -> None:
        house = House()
        assert (await Browser(house.app).get("/oauth2/auth", ASKED)).status == 401
        browser = await signed_in(house)
        yes = await browser.get("/oauth2/auth", ASKED)
        assert yes.status == 202
        assert yes["cache-control"] == "no-store"
        told = yes.text + str(yes.headers)
        for word in ("ada", "staff", CANARY):
            assert word not in told

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("allowed_groups=staff", 202),
        ("allowed_groups=admins,staff", 202),
        ("allowed_groups=admins", 403),
        ("allowed_groups=", 202),
        ("allowed_groups=staff&allowed_emails=ada@example.com", 202),
        ("allowed_groups=staff&allowed_emails=eve@example.com", 403),
        ("allowed_email_domains=example.com", 202),
        ("allowed_email_domains=example.org", 403),
        ("allowed_email_domains=everyone", 403),
        ("allowed_email_domains=group:staff", 403),
        ("allowed_groups=everyone", 403),
        ("allowed_groups=admins&allowed_groups=staff", 202),
        ("rd=/x", 202),
    ],
)
def test_those_whom_the_question_names(query: str, status: int) -> None:
    async def scenario() -> None:
        browser = await signed_in(House())
        assert (await browser.get(f"/oauth2/auth?{query}", ASKED)).status == status

    asyncio.run(scenario())


def test_groups_that_are_too_old_let_nobody_in() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        house.op.token_extra = {"expires_in": 10_000_000}
        house.clock.at += 299
        await browser.call("POST", "/oauth2/session/refresh", {**FETCH, "origin": APP})
        house.clock.at += house.settings.refresh.groups_max_age_s
        assert (await browser.get("/oauth2/auth", ASKED)).status == 202
        assert (await browser.get("/oauth2/auth?allowed_groups=staff", ASKED)).status == 403

    asyncio.run(scenario())


def test_an_expired_token_is_renewed_before_the_answer() -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        house.clock.at += 301
        assert (await browser.get("/oauth2/auth", ASKED)).status == 202
        assert house.op.refreshed == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (RawReply(400, {"content-type": "application/json"}, b'{"error": "invalid_grant"}'), 401),
        (RawReply(429, {"content-type": "application/json"}, b'{"error": "slow_down"}'), 503),
    ],
)
def test_a_renewal_that_fails_is_no_or_not_now(reply: RawReply, status: int) -> None:
    async def scenario() -> None:
        house = House()
        browser = await signed_in(house)
        house.clock.at += 301
        house.op.reply = reply
        answer = await browser.get("/oauth2/auth", ASKED)
        assert answer.status == status
        assert "__Host-np" in browser.cookies, "an answer to a proxy takes no cookie away"
        assert status != 503 or answer["retry-after"].isdigit()

    asyncio.run(scenario())


def test_asking_counts_as_activity() -> None:
    async def scenario() -> None:
        house = House(idle_s=600.0)
        house.op.token_extra = {"expires_in": 100_000}
        browser = await signed_in(house)
        for _ in range(4):
            house.clock.at += 400
            assert (await browser.get("/oauth2/auth", ASKED)).status == 202
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        house.clock.at += 601
        assert (await browser.get("/oauth2/auth", ASKED)).status == 401

    asyncio.run(scenario())


# -- where to, as its other integrations say it --


@pytest.mark.parametrize(
    ("query", "field", "expected"),
    [
        ("", "/deep?a=b", "/deep?a=b"),
        ("?rd=/named", "/deep", "/named"),
        ("", APP + "/deep", "/deep"),
        ("", "https://evil.example/", "/"),
        ("", "//evil.example/", "/"),
        ("", "/oauth2/sign_in", "/"),
    ],
)
def test_the_target_may_stand_in_the_field_that_nginx_is_told_to_set(
    query: str, field: str, expected: str
) -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get(f"/oauth2/start{query}", {"x-auth-request-redirect": field})
        back = await browser.get(house.op.consents(there["location"]))
        assert back["location"] == APP + expected

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("https://other.example.net/x?y=1", "https://other.example.net/oauth2/login?rd=%2Fx%3Fy%3D1"),
        ("https://other.example.net//evil.example", "https://other.example.net/oauth2/login?rd=%2F"),
    ],
)
def test_a_target_at_another_address_of_ours_signs_in_there(target: str, expected: str) -> None:
    async def scenario() -> None:
        house = House(more_urls=("https://other.example.net",))
        reply = await Browser(house.app).get("/oauth2/start?rd=" + quote(target))
        assert (reply.status, reply["location"]) == (302, expected)
        assert reply["set-cookie"] == ""
        assert house.events == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "target", ["https://other.example.net.evil.example/", "https://other.example.net@evil.example/"]
)
def test_a_target_that_only_looks_like_ours_is_none(target: str) -> None:
    async def scenario() -> None:
        house = House(more_urls=("https://other.example.net",))
        reply = await Browser(house.app).get("/oauth2/start?rd=" + quote(target))
        assert reply["location"].startswith(house.op.issuer)

    asyncio.run(scenario())
