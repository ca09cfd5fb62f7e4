"""Every row of `tests/data/oidc_refresh_logout_cases.csv` against the running product.

A row is a test below (`test_<row>`, with `_` for what a name cannot hold). What takes several replicas
is shown here with one, and with several in `test_logouts.py`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from proxy.core.session import Tokens
from proxy.core.timing import RefreshPolicy, merge
from proxy.core.token_reply import Issued
from tests.op.scripted import LOGOUT_EVENT, Draft, Rotation, Script, ec_key
from tests.scenarios.back_channel import tell
from tests.scenarios.browser import NAVIGATION, Browser, Reply
from tests.scenarios.house import House, until

TABLE = Path(__file__).parents[1] / "data" / "oidc_refresh_logout_cases.csv"


def name_of(row: str) -> str:
    return "test_" + re.sub(r"\W+", "_", row)


def test_every_row_is_a_test() -> None:
    with TABLE.open(newline="") as table:
        rows = {row["id"] for row in csv.DictReader(table)}
    assert rows
    for row in rows:
        assert callable(globals().get(name_of(row))), row


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("table")) as house:
        yield house


@pytest.fixture
def house(long_lived: House) -> Iterator[House]:
    yield long_lived
    long_lived.op.reset()
    long_lived.advance(61)


def expired(house: House) -> Browser:
    """Somebody whose access token is over."""
    ada = house.somebody()
    house.expire()
    return ada


def ended(house: House, browser: Browser) -> None:
    """Over, and said so: no 5xx, no loop, one clean sign-in."""
    told = browser.get("/api")
    assert told.status == 401
    assert told.json["reason"]
    visit = browser.get("/page", navigation=True)
    assert (visit.status, visit.get("location")) == (302, "/oauth2/login?rd=/page")
    house.op.reset()
    browser.trail.clear()
    assert browser.visit("/page").user == "ada-1"
    assert sum("/authorize" in url for _, url in browser.trail) == 1


def claims(**changes: object) -> Script:
    def change(draft: Draft) -> None:
        draft.claims.update(changes)

    return Script(change_id_token=change)


# -- refresh --


def test_oidcc_client_test_refresh_token(house: House) -> None:
    ada = house.browser()
    old = ada.sign_in().token
    calls = len(house.op.refreshes())
    for _ in range(2):
        house.expire()
        reply = ada.get("/a")
        assert reply.token not in (old, "")
        assert house.op.access_token_works(reply.token)
    first, second = house.op.refreshes()[calls:]
    assert second.rt == first.issued_rt


def test_refresh_no_rotation(house: House) -> None:
    house.op.rotation = Rotation("none")
    ada, calls = house.somebody(), len(house.op.refreshes())
    for _ in range(2):
        house.expire()
        assert ada.get("/a").status == 200
    assert len({call.rt for call in house.op.refreshes()[calls:]}) == 1


def test_oidcc_client_test_refresh_token_invalid_issuer(house: House) -> None:
    ada = expired(house)
    house.op.script_next(claims(iss="https://evil.example.net"), "refresh")
    ended(house, ada)


def test_oidcc_client_test_refresh_token_invalid_sub(house: House) -> None:
    ada = expired(house)
    house.op.script_next(claims(sub="somebody-else"), "refresh")
    ended(house, ada)


def test_refresh_idt_aud_wrong(house: House) -> None:
    ada = expired(house)
    house.op.script_next(claims(aud="another-client"), "refresh")
    ended(house, ada)


def test_refresh_idt_nonce_absent(house: House) -> None:
    ada = expired(house)
    house.op.nonce_on_refresh = "absent"
    assert ada.get("/a").user == "ada-1"


def test_refresh_idt_auth_time_changed(house: House) -> None:
    ada = expired(house)
    house.op.script_next(claims(auth_time=7), "refresh")
    ended(house, ada)


def test_refresh_no_idt(house: House) -> None:
    house.op.id_token_on_refresh = False
    ada = house.browser()
    before = ada.sign_in().seen["x-forwarded-email"]
    house.expire()
    assert ada.get("/a").seen["x-forwarded-email"] == before


def test_refresh_scope_shrunk(house: House) -> None:
    ada = house.somebody()
    narrow = Script(change=lambda body: body.update(scope="openid"))
    house.op.script_next(narrow, "refresh")
    for _ in range(2):
        house.expire()
        assert ada.get("/a").user == "ada-1"
    # What is recorded lies sealed in the store and shows nowhere; this is the rule that recorded it.
    old = Tokens("at0", "rt0", "", "openid profile", 0.0, 300.0, "iss", "client")
    issued = Issued(access_token="at1", refresh_token="", id_token="", scope="openid", expires_in_s=300.0)
    assert merge(old, issued, 300.0, RefreshPolicy()).scope == "openid"


def test_refresh_invalid_grant(house: House) -> None:
    ada, calls = expired(house), len(house.op.refreshes())
    house.op.always["refresh"] = Script(process=False, status=400, body='{"error": "invalid_grant"}')
    replies = ada.burst(20)
    assert {reply.status for reply in replies} == {401}
    assert len(house.op.refreshes()) == calls + 1  # once
    ended(house, ada)


def test_refresh_invalid_client(house: House) -> None:
    people = [house.somebody() for _ in range(3)]
    house.expire()
    house.op.always["refresh"] = Script(process=False, status=401, body='{"error": "invalid_client"}')
    calls = len(house.op.refreshes())
    for ada in people:
        told = ada.get("/a")
        assert (told.status, told.json["reason"]) == (503, "invalid_client")
    assert len(house.op.refreshes()) == calls + 1  # the first answer spares the others theirs
    assert "op" in house.replica.operations("/readyz").text  # for whoever is paged
    house.op.reset()
    house.advance(61)
    assert [ada.get("/a").status for ada in people] == [200] * 3


FAULTS = {
    "500": Script(process=False, status=500, body="oops"),
    "429": Script(process=False, status=429, headers={"Retry-After": "5"}, body=""),
    "html": Script(process=False, body="<html>hello</html>", headers={"Content-Type": "text/html"}),
    "truncated": Script(process=False, body='{"access_token": "at-cut", "token_ty'),
    "timeout": Script(process=False, cut="unanswered"),
}


def test_refresh_500_429_timeout_html_truncated(house: House) -> None:
    for name, script in FAULTS.items():
        ada = house.somebody()
        jar = dict(ada.jar)
        house.op.always["refresh"] = script
        calls = len(house.op.refreshes())
        house.into_window()
        assert ada.get("/a").status == 200, name
        house.op.wait_refreshes(calls + 1)
        for _ in range(5):
            assert ada.get("/a").status == 200, name
        assert len(house.op.refreshes()) <= calls + 2, name  # it backs off
        house.advance(61)
        told = ada.get("/b")
        assert told.status == 503, name
        assert told.get("retry-after"), name
        house.op.reset()
        house.advance(61)
        assert ada.get("/c").status == 200, name
        assert ada.jar == jar, name


def test_refresh_ambiguous(house: House) -> None:
    house.op.rotation = Rotation("rotate", 30.0)
    ada, calls = expired(house), len(house.op.refreshes())
    house.op.script_next(Script(cut="unanswered"), "refresh")
    assert ada.get("/a").status == 200  # within the OP's leeway
    assert len(house.op.refreshes()) == calls + 2
    house.op.rotation = Rotation("rotate")
    ada, calls = expired(house), len(house.op.refreshes())
    house.op.script_next(Script(cut="unanswered"), "refresh")
    ended(house, ada)  # there is none: one clean sign-in
    assert len(house.op.refreshes()) == calls + 2


def test_refresh_reuse_leeway(house: House) -> None:
    house.op.rotation = Rotation("rotate", 30.0)
    ada, calls = expired(house), len(house.op.refreshes())
    house.op.script_next(Script(cut="unanswered"), "refresh")
    assert {reply.status for reply in ada.burst(20)} == {200}
    house.advance(31)
    house.expire()
    assert {reply.status for reply in ada.burst(20)} == {200}
    lost, stored, next_one = house.op.refreshes()[calls:]
    assert lost.rt == stored.rt
    assert next_one.rt == stored.issued_rt  # one successor, the one whose reply was read


def test_refresh_revokes_family(house: House) -> None:
    house.op.rotation = Rotation("family_revoke")
    ada, calls, reuses = house.somebody(), len(house.op.refreshes()), house.op.reuse_events
    for _ in range(2):
        house.expire()
        assert {reply.status for reply in ada.burst(200)} == {200}
    assert len(house.op.refreshes()) == calls + 2
    assert house.op.reuse_events == reuses


# -- sign-out --


def form_sign_out(browser: Browser) -> Reply:
    """Press the button of the confirmation page."""
    page = browser.get("/oauth2/logout", navigation=True)
    [token] = re.findall(r'name="token" value="([^"]+)"', page.text)
    fields = {
        **NAVIGATION,
        "Origin": browser.url,
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return browser.ask("POST", "/oauth2/logout", headers=fields, body=f"token={token}".encode())


@pytest.fixture
def walked(house: House) -> Browser:
    return house.somebody()


def test_rp_init_logout(house: House, walked: Browser) -> None:
    cookie = dict(walked.jar)
    away = form_sign_out(walked)
    assert away.status == 303
    old = house.browser()
    old.jar = cookie
    assert old.get("/a").status == 401  # here first, before the OP heard of it
    asked = {name: values[0] for name, values in parse_qs(urlsplit(away.get("location")).query).items()}
    assert away.get("location").startswith(house.op.issuer + "/end-session?")
    assert asked["post_logout_redirect_uri"] == house.url + "/oauth2/logged-out"
    assert asked["id_token_hint"].count(".") == 2
    assert asked["client_id"] == house.op.client_id
    landing = walked.visit(away.get("location"))
    assert (landing.status, urlsplit(landing.url).path) == (200, "/oauth2/logged-out")
    assert house.op.hits["end_session"] >= 1


def landed(house: House, browser: Browser) -> None:
    away = form_sign_out(browser)
    browser.trail.clear()
    landing = browser.visit(away.get("location"))
    assert (landing.status, urlsplit(landing.url).path) == (200, "/oauth2/logged-out")
    assert not any("evil" in urlsplit(url).netloc for _, url in browser.trail)
    assert "evil" not in landing.text
    assert browser.get("/api").status == 401


def test_rp_init_logout_other_state(house: House, walked: Browser) -> None:
    house.op.logout_state = "other"
    landed(house, walked)


def test_rp_init_logout_no_state(house: House, walked: Browser) -> None:
    house.op.logout_state = "none"
    landed(house, walked)


def test_a_sign_out_here_revokes_what_it_may(house: House, walked: Browser) -> None:
    """Not a row: the refresh token that was stored is useless to whoever finds it later."""
    revoked = len(house.op.revoked)
    assert form_sign_out(walked).status == 303
    until(lambda: len(house.op.revoked) > revoked)
    assert house.op.revoked[-1].startswith("rt-")


# -- back-channel logout --


def kept(house: House, browser: Browser, draft: Draft, code: str) -> None:
    """The logout token is refused in the specification's way, and nobody is signed out."""
    told = tell(house, draft.signed())
    assert (told.status, told.json["error"]) == (400, "invalid_request"), told.text
    assert f"({code})" in told.json["error_description"]
    assert told.get("cache-control") == "no-store"
    assert told.get("location") == ""
    assert browser.get("/a").status == 200


def of(house: House, **changes: object) -> Draft:
    """A logout token for the person who signed in last, changed; ... = without that claim."""
    draft = house.op.logout_draft(sid=house.op.sids[-1])
    for name, value in changes.items():
        if value is ...:
            del draft.claims[name]
        else:
            draft.claims[name] = value
    return draft


def test_backchannel_logout(house: House, walked: Browser) -> None:
    told = tell(house, of(house).signed())
    assert (told.status, told.body) == (200, b"")
    assert told.get("cache-control") == "no-store"
    refused = walked.get("/a")
    assert (refused.status, refused.json["reason"]) == (401, "signed_out_at_provider")
    ended(house, walked)


def test_backchannel_alg_none(house: House, walked: Browser) -> None:
    draft = of(house)
    header, claims, _ = draft.signed().split(".")
    none = "eyJhbGciOiJub25lIn0"
    for raw in (f"{none}.{claims}.", f"{header}.{claims}.", f"{none}.{claims}.AAAA"):
        draft.raw = raw
        kept(house, walked, draft, "signature" if raw.startswith(header) else "alg")


def test_backchannel_wrong_alg(house: House, walked: Browser) -> None:
    draft = of(house)
    draft.key = ec_key(draft.header["kid"])
    draft.header["alg"] = "ES256"  # well signed, by a key of the OP's even, but not announced
    house.op.published = [
        *({**key.as_dict(private=False), "use": "sig"} for key in house.op.keys),
        {**draft.key.as_dict(private=False), "use": "sig"},
    ]
    kept(house, walked, draft, "alg")


def test_backchannel_wrong_iss(house: House, walked: Browser) -> None:
    kept(house, walked, of(house, iss="https://evil.example.net"), "iss")


def test_backchannel_wrong_aud(house: House, walked: Browser) -> None:
    kept(house, walked, of(house, aud="another-client"), "aud")


def test_backchannel_no_event(house: House, walked: Browser) -> None:
    kept(house, walked, of(house, events=...), "events")


def test_backchannel_wrong_event(house: House, walked: Browser) -> None:
    kept(house, walked, of(house, events={"http://schemas.openid.net/event/other": {}}), "events")
    kept(house, walked, of(house, events={LOGOUT_EVENT: "x"}), "events")


def test_backchannel_with_nonce(house: House, walked: Browser) -> None:
    kept(house, walked, of(house, nonce="n"), "nonce")


def test_backchannel_replay(house: House, walked: Browser) -> None:
    now = int(house.op.now())
    kept(house, walked, of(house, jti=...), "jti")
    kept(house, walked, of(house, iat=...), "iat")
    kept(house, walked, of(house, exp=now - 3600, iat=now - 3700), "exp")
    kept(house, walked, of(house, exp=now + 10_000_000, iat=now - 100_000), "exp")  # however late it says
    by_person = of(house, sid=...)
    assert tell(house, by_person.signed()).status == 200
    assert walked.get("/a").status == 401
    again = house.somebody()
    kept(house, again, by_person, "jti")


def test_backchannel_sid_only_sub_only(house: House) -> None:
    first, second = house.somebody(), house.somebody()
    sid = house.op.sids[-2]
    ben = house.somebody("ben-1")
    assert tell(house, house.op.logout_draft(sub="", sid=sid).signed()).status == 200
    assert [each.get("/a").status for each in (first, second, ben)] == [401, 200, 200]
    third = house.somebody()
    assert tell(house, house.op.logout_draft(sub="ada-1").signed()).status == 200
    assert [each.get("/a").status for each in (second, third, ben)] == [401, 401, 200]
    # Somebody else's `sid` beside a `sub` ends nobody.
    assert tell(house, house.op.logout_draft(sub="ada-1", sid=house.op.sids[-2]).signed()).status == 200
    assert ben.get("/a").status == 200


def test_backchannel_idtoken_confusion(house: House) -> None:
    seen: list[Draft] = []
    house.op.change_id_token = seen.append
    ada = house.somebody()
    kept(house, ada, seen[-1], "events")


# -- front-channel logout, session management --


def framed(house: House, browser: Browser, iss: str, sid: str) -> Reply:
    """The OP's page has the browser load our address in a frame."""
    frame = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site"}
    query = urlencode({name: value for name, value in (("iss", iss), ("sid", sid)) if value})
    return browser.ask("GET", f"/oauth2/frontchannel-logout?{query}", headers=frame)


@pytest.mark.parametrize("cookie", [True, False], ids=["with our cookie", "without"])
def test_frontchannel_opinitlogout(house: House, walked: Browser, cookie: bool) -> None:
    sid, other = house.op.sids[-1], house.somebody()
    jar = dict(walked.jar)
    frame = walked if cookie else house.browser()  # SameSite: in another site's frame it stays at home
    for iss, wrong in ((house.op.issuer, "another"), ("https://evil.example.net", sid)):
        told = framed(house, frame, iss, wrong)
        assert (told.status, told.all("set-cookie")) == (200, [])
        assert walked.get("/a").status == 200
    for iss, missing in ((house.op.issuer, ""), ("", sid), ("", "")):
        assert framed(house, frame, iss, missing).status == 400
        assert walked.get("/a").status == 200
    told = framed(house, frame, house.op.issuer, sid)
    assert (told.status, told.body, told.get("cache-control")) == (200, b"", "no-store")
    assert told.get("content-security-policy").endswith(f"frame-ancestors {house.op.issuer}")
    assert told.get("x-frame-options") == ""
    assert bool(told.all("set-cookie")) is cookie
    walked.jar = jar
    refused = walked.get("/a")
    assert (refused.status, refused.json["reason"]) == (401, "signed_out_at_provider")
    assert other.get("/a").status == 200
    # Only there: no other page of ours lets itself be framed.
    for path in ("/oauth2/logout", "/oauth2/logged-out", "/oauth2/nothing"):
        page = other.get(path, navigation=True)
        assert page.get("x-frame-options") == "DENY"
        assert "frame-ancestors 'none'" in page.get("content-security-policy")


def test_session_management(house: House) -> None:
    """Not offered: it needs third-party cookies. An OP that offers it is served all the same, and its
    frame is neither loaded nor allowed."""
    house.op.discovery["check_session_iframe"] = house.op.issuer + "/check-session"
    house.op.answer = lambda answer: [*answer, ("session_state", "abc.def")]
    before = len(house.op.requests)
    ada = house.somebody()
    for path in ("/oauth2/logout", "/oauth2/logged-out"):
        page = ada.get(path, navigation=True)
        assert "iframe" not in page.text.lower()
        assert "default-src 'none'" in page.get("content-security-policy")
        assert "frame-src" not in page.get("content-security-policy")
    assert "/check-session" not in {request.path for request in house.op.requests[before:]}
