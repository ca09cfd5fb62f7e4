"""Sign-in as a browser lives it: `login` to the OP, `callback` back, and every way it can fail."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from msgspec.structs import replace

from proxy.config.declaration import Limits, Op
from proxy.core.providers import PROFILES, Reach
from proxy.core.token_reply import RawReply
from tests.integration.pages.house import (
    APP,
    CANARY,
    CLAIMS,
    FETCH,
    ISSUER,
    NAVIGATION,
    Browser,
    House,
)


def flows(browser: Browser) -> list[str]:
    return [name for name in browser.cookies if "-flow-" in name]


def json_reply(status: int, body: object, **headers: str) -> RawReply:
    return RawReply(status, headers, json.dumps(body).encode())


def test_sign_in_returns_to_the_same_page_with_a_session() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get(
            "/oauth2/login?" + urlencode({"rd": "/board?tab=2&q=a b".replace(" ", "%20")})
        )
        assert there.status == 302
        asked = parse_qs(urlsplit(there["location"]).query)
        assert asked["redirect_uri"] == [APP + "/oauth2/callback"]
        assert flows(browser) == [f"__Host-np-flow-{asked['state'][0]}"]
        back = await browser.get(house.op.consents(there["location"]))
        assert (back.status, back["location"]) == (302, APP + "/board?tab=2&q=a%20b")
        assert list(browser.cookies) == ["__Host-np"]
        assert [name for name, _ in house.events] == ["login_started", "login_succeeded"]
        who = await browser.get("/oauth2/session", FETCH)
        assert who.json["email"] == "ada@example.com"

    asyncio.run(scenario())


def test_flow_cookie_is_sealed_lax_and_lives_ten_minutes() -> None:
    async def scenario() -> None:
        there = await Browser((house := House()).app).get("/oauth2/login?rd=/x")
        line = there["set-cookie"]
        for attribute in ("Max-Age=600", "HttpOnly", "Secure", "SameSite=Lax", "Path=/"):
            assert attribute in line
        asked = parse_qs(urlsplit(there["location"]).query)
        assert asked["nonce"][0] not in line
        assert house.op.redeemed == []

    asyncio.run(scenario())


@pytest.mark.parametrize("alias", ["start", "sign_in", "login"])
def test_oauth2_proxys_names_answer(alias: str) -> None:
    reply = asyncio.run(Browser(House().app).get(f"/oauth2/{alias}?rd=/x"))
    assert reply["location"].startswith(ISSUER)


def test_the_callback_may_name_its_provider() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        query = urlsplit(house.op.consents(there["location"])).query
        assert (await browser.get(f"/oauth2/callback/other?{query}")).status == 404
        assert (await browser.get(f"/oauth2/callback/generic?{query}"))["location"] == APP + "/x"

    asyncio.run(scenario())


# -- where to --


RETURN_TARGETS = [
    ("/a", "/a"),
    ("/a/b?c=d&e=%20f", "/a/b?c=d&e=%20f"),
    (APP + "/a", "/a"),
    ("", "/"),
    ("a", "/"),
    ("//evil.example", "/"),
    ("/\\evil.example", "/"),
    ("/%2fevil.example", "/"),
    ("/\t/evil.example", "/"),
    ("https://evil.example/", "/"),
    (APP + ".evil.example/", "/"),
    (APP + "@evil.example/", "/"),
    (APP + "//evil.example/", "/"),
    (APP + "/\\evil.example/", "/"),
    ("https:evil.example", "/"),
    ("javascript:alert(1)", "/"),
    ("/oauth2/logout", "/"),
    ("/oauth2", "/"),
    ("/x\r\nSet-Cookie: a=b", "/"),
    ("/" + "a" * 3000, "/"),
]


@pytest.mark.parametrize(("asked", "expected"), RETURN_TARGETS)
def test_return_targets_are_local(asked: str, expected: str) -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        reply = await browser.sign_in(house, asked)
        assert reply["location"] == APP + expected
        # ... and the same rule where the person is signed in already.
        again = await browser.get("/oauth2/login?rd=" + quote(asked))
        assert again["location"] == APP + expected

    asyncio.run(scenario())


def test_a_doubled_return_target_is_none() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        await browser.sign_in(house)
        assert (await browser.get("/oauth2/login?rd=/a&rd=//evil.example"))["location"] == APP + "/"

    asyncio.run(scenario())


def test_each_public_origin_signs_in_for_itself() -> None:
    async def scenario() -> None:
        house = House(more_urls=("https://other.example.net",))
        other = Browser(house.app, host="other.example.net")
        there = await other.get("/oauth2/login?rd=/x")
        assert house.op.consents(there["location"]).startswith("https://other.example.net/oauth2/callback?")
        back = await other.get(house.op.consents(there["location"]))
        assert back["location"] == "https://other.example.net/x"
        first = Browser(house.app)
        first.cookies = dict(other.cookies)
        assert (await first.get("/oauth2/session", FETCH)).status == 401

    asyncio.run(scenario())


def test_a_foreign_host_chooses_nothing() -> None:
    reply = asyncio.run(Browser(House().app, host="evil.example").get("/oauth2/login?rd=/x"))
    assert parse_qs(urlsplit(reply["location"]).query)["redirect_uri"] == [APP + "/oauth2/callback"]


# -- who may start --


@pytest.mark.parametrize(
    ("headers", "starts"),
    [
        (NAVIGATION, True),
        ({"accept": "text/html"}, True),
        ({"accept": "*/*"}, True),  # curl: it may follow us
        ({}, True),
        (FETCH, False),
        ({"sec-fetch-mode": "no-cors", "accept": "image/*"}, False),
        ({"accept": "application/json"}, False),
        ({"accept": "text/html", "x-requested-with": "XMLHttpRequest"}, False),
        ({**NAVIGATION, "sec-purpose": "prefetch;prerender"}, False),
        ({**NAVIGATION, "purpose": "prefetch"}, False),
        ({**NAVIGATION, "x-moz": "prefetch"}, False),
    ],
)
def test_only_a_navigation_starts_a_sign_in(headers: dict[str, str], starts: bool) -> None:
    reply = asyncio.run(Browser(House().app).get("/oauth2/login?rd=/x", headers))
    assert (reply.status == 302) is starts
    assert bool(reply.all("set-cookie")) is starts
    if not starts:
        assert reply.status == 403


@pytest.mark.parametrize("path", ["login", "callback"])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "OPTIONS"])
def test_no_other_method_starts_or_finishes_one(path: str, method: str) -> None:
    reply = asyncio.run(Browser(House().app).get(f"/oauth2/{path}?rd=/x", method=method))
    assert (reply.status, reply["allow"]) == (405, "GET")
    assert not reply.all("set-cookie")


def test_a_session_that_the_door_would_refuse_is_not_sent_home() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        house.op.token_extra = {"refresh_token": None}
        await browser.sign_in(house)
        assert (await browser.get("/oauth2/login?rd=/x"))["location"] == APP + "/x"
        house.clock.at += 301  # the access token is over, and there is nothing to renew it with
        assert (await browser.get("/oauth2/login?rd=/x"))["location"].startswith(ISSUER)

    asyncio.run(scenario())


def test_an_expired_token_is_renewed_before_going_home() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        await browser.sign_in(house)
        house.clock.at += 301
        assert (await browser.get("/oauth2/login?rd=/x"))["location"] == APP + "/x"
        assert house.op.refreshed == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("code", ["interaction_required", "invalid_grant"])
def test_an_expired_token_that_needs_the_person_goes_to_the_op(code: str) -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        await browser.sign_in(house)
        house.clock.at += 301
        house.op.reply = json_reply(400, {"error": code})
        assert (await browser.get("/oauth2/login?rd=/x"))["location"].startswith(ISSUER)

    asyncio.run(scenario())


# -- several at once --


def test_tabs_in_parallel_each_complete() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        tabs = [await browser.get(f"/oauth2/login?rd=/tab/{n}") for n in range(5)]
        assert len(flows(browser)) == 5
        for n in (3, 0, 4, 1, 2):
            back = await browser.get(house.op.consents(tabs[n]["location"]))
            assert back["location"] == f"{APP}/tab/{n}"
        assert flows(browser) == []

    asyncio.run(scenario())


def test_the_oldest_of_too_many_flows_is_dropped() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        tabs = []
        for n in range(7):
            house.clock.at += 1
            tabs.append(await browser.get(f"/oauth2/login?rd=/tab/{n}"))
        states = [parse_qs(urlsplit(tab["location"]).query)["state"][0] for tab in tabs]
        assert {name[-32:] for name in flows(browser)} == set(states[2:])
        gone = await browser.get(house.op.consents(tabs[0]["location"]))
        assert gone.status == 400
        assert (await browser.get(house.op.consents(tabs[2]["location"])))["location"] == f"{APP}/tab/2"

    asyncio.run(scenario())


def test_flow_cookies_stay_within_four_kilobytes_together() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        for n in range(5):
            house.clock.at += 1
            await browser.get(f"/oauth2/login?rd=/{n}" + "a" * 1000)
            size = sum(len(name) + len(browser.cookies[name]) for name in flows(browser))
            assert size <= 4096
        assert 1 <= len(flows(browser)) < 5

    asyncio.run(scenario())


def test_the_longest_return_target_fits() -> None:
    async def scenario() -> None:
        house = House()
        target = "/" + "a" * 2047
        assert (await Browser(house.app).sign_in(house, target))["location"] == APP + target

    asyncio.run(scenario())


def test_foreign_and_outlived_flow_cookies_are_cleared() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        await browser.get("/oauth2/login?rd=/x")
        browser.cookies["__Host-np-flow-junk"] = "junk"
        house.clock.at += 601
        await browser.get("/oauth2/login?rd=/y")
        assert len(flows(browser)) == 1

    asyncio.run(scenario())


# -- coming back --


def altered(url: str, **change: str | None) -> str:
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    query.update({name: value for name, value in change.items() if value is not None})
    query = {name: value for name, value in query.items() if change.get(name, "") is not None}
    return f"{parts.path}?{urlencode(query)}"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"state": "0" * 32}, 400, "flow_unknown"),
        ({"state": None}, 400, "flow_unknown"),
        ({"state": "../../x"}, 400, "flow_unknown"),
        ({"state": "é"}, 400, "flow_unknown"),
        ({"state": "a" * 5000}, 400, "bad_parameters"),
        ({"code": None}, 400, "code_missing"),
        ({"code": "c" * 5000}, 400, "bad_parameters"),
        ({"iss": "https://evil.example"}, 400, "issuer_mismatch"),
        ({"iss": None}, 400, "issuer_mismatch"),
        ({"code": None, "error": "access_denied"}, 403, "access_denied"),
        ({"code": None, "error": "<script>alert(1)</script>"}, 502, "op_error"),
        ({"code": None, "error": "temporarily_unavailable"}, 503, "temporarily_unavailable"),
        ({"error": "access_denied"}, 403, "access_denied"),
    ],
)
def test_an_answer_that_does_not_fit_redeems_nothing(
    change: dict[str, str | None], status: int, code: str
) -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        change["error_description"] = "<img src=x onerror=alert(1)>"
        reply = await browser.get(altered(house.op.consents(there["location"]), **change))
        assert reply.status == status
        assert house.happened("login_failed")[0]["code"] == code
        assert house.op.redeemed == []
        assert "__Host-np" not in browser.cookies
        assert "alert(1)" not in reply.text
        assert "req-0123456789abcdef" in reply.text
        assert "/oauth2/login" in reply.text

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["state", "code", "iss"])
def test_doubled_parameters_are_refused(name: str) -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        reply = await browser.get(house.op.consents(there["location"]) + f"&{name}=other")
        assert reply.status == 400
        assert house.op.redeemed == []

    asyncio.run(scenario())


def test_a_flow_is_spent_once_even_with_its_cookie_kept() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        kept = dict(browser.cookies)
        back = house.op.consents(there["location"])
        await browser.get(back)
        thief = Browser(house.app)
        thief.cookies = kept
        reply = await thief.get(back)
        assert reply.status == 400
        assert "no longer good" in reply.text
        assert len(house.op.redeemed) == 1

    asyncio.run(scenario())


def test_two_racing_callbacks_redeem_once() -> None:
    async def scenario() -> None:
        house = House()
        browser, twin = Browser(house.app), Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        twin.cookies = dict(browser.cookies)
        back = house.op.consents(there["location"])
        replies = await asyncio.gather(browser.get(back), twin.get(back))
        assert sorted(reply.status for reply in replies) == [302, 400]
        assert len(house.op.redeemed) == 1

    asyncio.run(scenario())


def test_a_spent_flow_with_a_live_session_goes_home() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        flow = dict(browser.cookies)
        back = house.op.consents(there["location"])
        await browser.get(back)
        # The browser's back button: the flow's cookie is gone by now, the session is there.
        assert (await browser.get(back))["location"] == APP + "/"
        browser.cookies.update(flow)
        assert (await browser.get(back))["location"] == APP + "/x"
        assert len(house.op.redeemed) == 1

    asyncio.run(scenario())


def test_a_second_browser_cannot_finish_the_first_ones_sign_in() -> None:
    async def scenario() -> None:
        house = House()
        there = await Browser(house.app).get("/oauth2/login?rd=/x")
        reply = await Browser(house.app).get(house.op.consents(there["location"]))
        assert reply.status == 400
        assert house.op.redeemed == []

    asyncio.run(scenario())


def test_a_flow_is_good_for_ten_minutes() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        house.clock.at += 601
        reply = await browser.get(house.op.consents(there["location"]))
        assert (reply.status, flows(browser)) == (400, [])
        assert house.op.redeemed == []

    asyncio.run(scenario())


def test_a_tampered_or_doubled_flow_cookie_is_none() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        back = house.op.consents(there["location"])
        name = flows(browser)[0]
        good = browser.cookies[name]
        browser.cookies[name] = good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB")
        assert (await browser.get(back)).status == 400
        browser.cookies[name] = good + f"; {name}={good}"
        assert (await browser.get(back)).status == 400
        browser.cookies[name] = good
        assert (await browser.get(back)).status == 302

    asyncio.run(scenario())


def test_a_login_supersedes_the_session_that_came_with_it() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        await browser.sign_in(house)
        old = dict(browser.cookies)
        there = await browser.get("/oauth2/login?rd=/x&account=other")
        assert parse_qs(urlsplit(there["location"]).query)["prompt"] == ["login"]
        await browser.get(house.op.consents(there["location"]))
        assert browser.cookies["__Host-np"] != old["__Host-np"]
        before = Browser(house.app)
        before.cookies = old
        assert (await before.get("/oauth2/session", FETCH)).status == 401
        assert house.op.revoked == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("profile", "params", "prompt"),
    [
        ("generic", None, "login"),
        ("generic", {"prompt": "consent"}, "consent login"),
        ("generic", {"prompt": "login"}, "login"),
        ("generic", {"prompt": "none"}, "login"),
        # Google issues a refresh token again only with `consent`.
        ("google", None, "consent select_account"),
    ],
)
def test_another_account_is_asked_for_beside_what_is_asked_anyway(
    profile: str, params: dict[str, str] | None, prompt: str
) -> None:
    house = House(profile=PROFILES[profile], authorize_params=params)
    there = asyncio.run(Browser(house.app).get("/oauth2/login?account=other"))
    assert parse_qs(urlsplit(there["location"]).query)["prompt"] == [prompt]


# -- what the OP issued --


BAD_TOKEN_REPLIES: list[tuple[str, RawReply, int]] = [
    ("500", json_reply(500, {"error": "server_error"}), 503),
    ("429", json_reply(429, {}, **{"retry-after": "5"}), 503),
    ("html", RawReply(200, {}, b"<html>" + CANARY.encode()), 503),
    ("cut", RawReply(200, {}, b'{"access_token": "' + CANARY.encode()), 503),
    ("array", RawReply(200, {}, b"[]"), 503),
    ("empty", RawReply(200, {}, b""), 503),
    ("redirect", RawReply(302, {"location": "https://evil.example"}, b""), 502),
    ("no access token", json_reply(200, {"id_token": CANARY}), 503),
    ("no ID token", json_reply(200, {"access_token": CANARY, "token_type": "Bearer"}), 502),
    ("mac", json_reply(200, {"access_token": CANARY, "id_token": CANARY, "token_type": "mac"}), 502),
    ("type 7", json_reply(200, {"access_token": CANARY, "id_token": CANARY, "token_type": 7}), 502),
    ("code refused", json_reply(400, {"error": "invalid_grant", "error_description": CANARY}), 400),
    ("client refused", json_reply(401, {"error": "invalid_client"}), 502),
]


@pytest.mark.parametrize(
    ("reply", "status"), [case[1:] for case in BAD_TOKEN_REPLIES], ids=[case[0] for case in BAD_TOKEN_REPLIES]
)
def test_a_bad_token_reply_is_a_page_and_no_loop(reply: RawReply, status: int) -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        house.op.reply = reply
        page = await browser.sign_in(house, "/x")
        assert page.status == status
        assert (page["retry-after"] != "") is (status == 503)
        assert "__Host-np" not in browser.cookies
        assert flows(browser) == []
        assert "/oauth2/login?rd=%2Fx" in page.text
        assert CANARY not in page.text
        assert house.happened("login_failed")[0]["status"] == status

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER", None])
def test_bearer_in_any_case_or_unsaid_is_taken(kind: str | None) -> None:
    async def scenario() -> None:
        house = House()
        house.op.token_extra = {"token_type": kind}
        assert (await Browser(house.app).sign_in(house)).status == 302

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("expires_in", "left_s"),
    [(300, 300), ("120", 120), (-1, 3600), (None, 3600), (0, 3600), (10**12, 2_592_000)],
)
def test_the_tokens_life_is_reckoned_with_care(expires_in: Any, left_s: int) -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        house.op.token_extra = {"expires_in": expires_in}
        await browser.sign_in(house)
        told = (await browser.get("/oauth2/session", FETCH)).json
        assert told["access_token"]["expires_in_s"] == left_s

    asyncio.run(scenario())


def test_without_a_refresh_token_the_session_works_and_the_operator_is_told() -> None:
    async def scenario() -> None:
        house = House(profile=PROFILES["google"], allow=("everyone",))
        browser = Browser(house.app)
        house.op.token_extra = {"refresh_token": None}
        assert (await browser.sign_in(house, "/x"))["location"] == APP + "/x"
        told = house.happened("no_refresh_token")[0]
        assert "access_type=offline" in str(told["remedy"])
        assert "https://developers.google.com" in str(told["remedy"])
        assert (await browser.get("/oauth2/session", FETCH)).json["access_token"]["refreshable"] is False

    asyncio.run(scenario())


def test_a_nonce_of_another_sign_in_is_refused() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        back = house.op.consents(there["location"])
        house.op.nonces = dict.fromkeys(house.op.nonces, "another")
        reply = await browser.get(back)
        assert reply.status == 502
        assert house.happened("login_failed")[0]["code"] == "nonce"

    asyncio.run(scenario())


# -- userinfo and who may come in --


def asking_userinfo(when: Literal["when_missing", "always", "never"]) -> House:
    return House(op_settings=Op(userinfo=when))


@pytest.mark.parametrize(
    ("when", "lacks_email", "asked"),
    [
        ("when_missing", False, False),
        ("when_missing", True, True),
        ("always", False, True),
        ("never", True, False),
    ],
)
def test_userinfo_is_asked_when_configured(
    when: Literal["when_missing", "always", "never"], lacks_email: bool, asked: bool
) -> None:
    async def scenario() -> None:
        house = asking_userinfo(when)
        if lacks_email:
            del house.op.claims["email"], house.op.claims["email_verified"]
        house.op.told_by_userinfo = {"sub": "ada-1", "email": "ui@example.com", "email_verified": True}
        browser = Browser(house.app)
        await browser.sign_in(house)
        email = (await browser.get("/oauth2/session", FETCH)).json["email"]
        assert email == (
            "ui@example.com" if asked and lacks_email else None if lacks_email else CLAIMS["email"]
        )

    asyncio.run(scenario())


def test_userinfo_that_does_not_answer_is_a_page() -> None:
    async def scenario() -> None:
        house = asking_userinfo("always")
        page = await Browser(house.app).sign_in(house, "/x")
        assert (page.status, page["retry-after"]) == (503, "5")

    asyncio.run(scenario())


def test_an_account_off_the_list_is_told_so_and_offered_another() -> None:
    async def scenario() -> None:
        house = House(allow=("example.org",), profile=replace(PROFILES["generic"], reach=Reach.TOKEN))
        house.op.claims["email"] = '"<b>eve</b>"@evil.example'
        browser = Browser(house.app)
        page = await browser.sign_in(house, "/x")
        assert page.status == 403
        assert "&lt;b&gt;eve&lt;/b&gt;" in page.text
        assert "<b>" not in page.text
        assert "/oauth2/login?rd=%2Fx&amp;account=other" in page.text
        assert browser.cookies == {}
        assert house.happened("login_denied")
        await house.background.drain(1)
        assert len(house.op.revoked) == 1

    asyncio.run(scenario())


# -- outages --


def test_op_away_at_the_start_is_a_503_page_and_no_redirect() -> None:
    async def scenario() -> None:
        house = House()
        house.op.away = True
        reply = await Browser(house.app).get("/oauth2/login?rd=/x")
        assert (reply.status, reply["retry-after"]) == (503, "5")
        assert "Try again" in reply.text
        assert "/oauth2/login?rd=%2Fx" in reply.text
        assert not reply.all("set-cookie")

    asyncio.run(scenario())


def test_op_away_at_the_callback_keeps_the_flow_for_a_reload() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        back = house.op.consents(there["location"])
        house.op.away = True
        assert (await browser.get(back)).status == 503
        house.op.away = False
        assert (await browser.get(back))["location"] == APP + "/x"

    asyncio.run(scenario())


def test_store_away_signs_nobody_out_and_redirects_nobody() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        await browser.sign_in(house)
        house.clock.at += 31  # the cached entry is not believed any more
        house.store.away = True
        for path in ("login?rd=/x", "session", "logout"):
            reply = await browser.get(f"/oauth2/{path}")
            assert (reply.status, reply["retry-after"]) == (503, "5")
            assert not reply.all("set-cookie")

    asyncio.run(scenario())


def test_store_away_at_the_callback_redeems_nothing() -> None:
    async def scenario() -> None:
        house = House()
        browser = Browser(house.app)
        there = await browser.get("/oauth2/login?rd=/x")
        back = house.op.consents(there["location"])
        house.store.away = True
        assert (await browser.get(back)).status == 503
        assert house.op.redeemed == []
        house.store.away = False
        assert (await browser.get(back))["location"] == APP + "/x"

    asyncio.run(scenario())


def test_limits_come_from_the_configuration() -> None:
    async def scenario() -> None:
        house = House(limits=Limits(max_flows=2, flow_s=30.0))
        browser = Browser(house.app)
        for n in range(4):
            reply = await browser.get(f"/oauth2/login?rd=/{n}")
            assert "Max-Age=30" in reply.all("set-cookie")[-1]
        assert len(flows(browser)) == 2

    asyncio.run(scenario())
