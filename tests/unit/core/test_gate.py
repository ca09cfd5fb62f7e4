"""Who may pass: standings, decisions, routes, navigations, cookies."""

from __future__ import annotations

import pytest

from proxy.core import cookies
from proxy.core.breaker import Breaker
from proxy.core.gate import Action, Asked, Standing, gate, is_navigation, standing
from proxy.core.routes import Route, Routes
from proxy.core.session import Outcome, OutcomeKind, Record, Tokens, ended

NOW = 1_000.0


def record(**changes: object) -> Record:
    fields: dict[str, object] = {
        "gen": "g", "rt": "f", "tokens": b"", "who": b"", "who_id": "w", "born": 0.0, "seen": NOW,
        "end": 9_000.0, "idle_s": 500.0, "due": NOW - 1, "provider": "generic", "config": "",
    }  # fmt: skip
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


def tokens(expires_at: float, rt: str = "rt") -> Tokens:
    return Tokens("at", rt, "", "", 0.0, expires_at, "iss", "client")


def verdict(code: str) -> Outcome:
    return Outcome(OutcomeKind.DEAD, code, "f", "a", NOW)


@pytest.mark.parametrize(
    ("rec", "tok", "retry_at", "unsaved", "expected"),
    [
        (record(due=NOW + 9), tokens(NOW + 50), 0.0, False, Standing.LIVE),
        (record(), tokens(NOW + 50), 0.0, False, Standing.DUE),
        (record(), tokens(NOW + 50), NOW + 5, False, Standing.LIVE),
        (record(), tokens(NOW - 1), 0.0, False, Standing.EXPIRED),
        (record(rt="", due=0.0), tokens(NOW + 50, ""), 0.0, False, Standing.LIVE),
        (record(rt="", due=0.0), tokens(NOW - 1, ""), 0.0, False, Standing.SPENT),
        (record(dead="f", outcome=verdict("invalid_grant")), tokens(NOW + 50), 0.0, False, Standing.SPENT),
        (record(dead="f", outcome=verdict("rotation_lost")), tokens(NOW + 50), 0.0, False, Standing.LIVE),
        (record(dead="f", outcome=verdict("rotation_lost")), tokens(NOW - 1), 0.0, False, Standing.SPENT),
        (record(dead="old"), tokens(NOW + 50), 0.0, False, Standing.DUE),
        (record(), tokens(NOW + 50), 0.0, True, Standing.LIVE),
        (record(), tokens(NOW - 1), 0.0, True, Standing.EXPIRED),
    ],
)
def test_what_a_sessions_tokens_are_good_for(
    rec: Record, tok: Tokens, retry_at: float, unsaved: bool, expected: Standing
) -> None:
    assert standing(rec, tok, NOW, retry_at=retry_at, unsaved=unsaved) is expected


@pytest.mark.parametrize(
    ("route", "navigation", "foreign", "now", "action"),
    [
        (Route.PROTECTED, True, False, None, Action.SIGN_IN),
        (Route.PROTECTED, False, False, None, Action.DENY),
        (Route.PROTECTED, True, False, Standing.SPENT, Action.SIGN_IN),
        (Route.PROTECTED, False, False, Standing.SPENT, Action.DENY),
        (Route.PROTECTED, False, False, Standing.LIVE, Action.PASS),
        (Route.PROTECTED, False, False, Standing.DUE, Action.PASS_AND_RENEW),
        (Route.PROTECTED, True, False, Standing.EXPIRED, Action.RENEW_FIRST),
        (Route.PROTECTED, False, True, Standing.LIVE, Action.REFUSE_ORIGIN),
        (Route.PUBLIC, True, False, None, Action.PASS_ANONYMOUS),
        (Route.PUBLIC, True, False, Standing.LIVE, Action.PASS),
        (Route.PUBLIC, True, False, Standing.EXPIRED, Action.PASS_ANONYMOUS),
        (Route.PUBLIC, False, True, Standing.LIVE, Action.PASS_ANONYMOUS),
        (Route.AMBIGUOUS, True, False, None, Action.REFUSE_PATH),
        (Route.AMBIGUOUS, False, False, Standing.SPENT, Action.REFUSE_PATH),
        (Route.AMBIGUOUS, True, False, Standing.LIVE, Action.PASS),
        (Route.AMBIGUOUS, True, False, Standing.EXPIRED, Action.RENEW_FIRST),
        (Route.AMBIGUOUS, False, True, Standing.LIVE, Action.REFUSE_ORIGIN),
    ],
)
def test_the_gate(
    route: Route, navigation: bool, foreign: bool, now: Standing | None, action: Action
) -> None:
    assert gate(Asked(route, navigation, foreign), now) is action


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", Route.PROTECTED),
        ("/static/app.js", Route.PUBLIC),
        ("/st%61tic/app.js", Route.PUBLIC),
        ("/healthz", Route.PUBLIC),
        ("/healthz/", Route.PROTECTED),
        ("/healthzz", Route.PROTECTED),
        ("/static", Route.PROTECTED),
        ("/oauth2/login", Route.PAGES),
        ("/oauth2", Route.PAGES),
        ("/oauth2x", Route.PROTECTED),
        ("/static/../admin", Route.AMBIGUOUS),
        ("/static/%2e%2e/admin", Route.AMBIGUOUS),
        ("/static/..%2fadmin", Route.AMBIGUOUS),
        ("/static/%252e%252e/admin", Route.AMBIGUOUS),
        ("/static/%%32%65%%32%65/admin", Route.AMBIGUOUS),  # decoded once, it is %2e%2e
        ("/static/%u002e%u002e/admin", Route.AMBIGUOUS),
        ("/static/100%", Route.AMBIGUOUS),
        ("/static/%c0%ae%c0%ae/admin", Route.AMBIGUOUS),  # overlong UTF-8 (CVE-2008-2938)
        ("/static/..%C0%AFadmin", Route.AMBIGUOUS),
        ("/static/..%e0%80%afadmin", Route.AMBIGUOUS),
        ("/static/..%f0%80%80%afadmin", Route.AMBIGUOUS),
        ("/static/caf%C3%A9%e2%82%ac", Route.PUBLIC),
        ("/static/%e0%a4%95%f0%9f%98%80", Route.PUBLIC),
        ("/100%/static/", Route.PROTECTED),
        ("/static//x", Route.AMBIGUOUS),
        ("/static/./x", Route.AMBIGUOUS),
        ("/static/;/x", Route.AMBIGUOUS),
        ("/static\\..\\admin", Route.AMBIGUOUS),
        ("//static/x", Route.AMBIGUOUS),
        ("/admin;/static/x", Route.PROTECTED),
        ("/admin/..%2fstatic/x", Route.AMBIGUOUS),
        ("/admin%23/static/", Route.PROTECTED),
        ("/healthz%00", Route.PROTECTED),
        ("/healthz%3fx", Route.AMBIGUOUS),
        ("/admin//x", Route.PROTECTED),
    ],
)
def test_paths_and_rules(path: str, route: Route) -> None:
    assert Routes("/oauth2", ["/static/", "/healthz"]).of(path.encode()) is route


def test_without_public_rules_every_path_is_protected() -> None:
    assert Routes("/oauth2", []).of(b"//x/../%2f;") is Route.PROTECTED


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        ("GET", {"sec-fetch-mode": "navigate"}, True),
        ("HEAD", {"accept": "text/html"}, True),
        ("GET", {"accept": "text/html,*/*"}, True),
        ("GET", {"accept": "*/*"}, False),
        ("GET", {}, False),
        ("POST", {"sec-fetch-mode": "navigate", "accept": "text/html"}, False),
        ("GET", {"sec-fetch-mode": "cors", "accept": "text/html"}, False),
        ("GET", {"sec-fetch-mode": "navigate", "sec-purpose": "prefetch;prerender"}, False),
        ("GET", {"accept": "text/html", "purpose": "prefetch"}, False),
        ("GET", {"accept": "text/html", "x-requested-with": "XMLHttpRequest"}, False),
    ],
)
def test_navigations(method: str, fields: dict[str, str], expected: bool) -> None:
    found = {name.encode(): value.encode() for name, value in fields.items()}
    assert is_navigation(method.encode(), found.get) is expected


def test_limits_end_a_session() -> None:
    assert ended(None, NOW) == "absent"
    assert ended(record(tombstone="signed_out"), NOW) == "signed_out"
    assert ended(record(end=NOW), NOW) == "absolute_limit"
    assert ended(record(seen=NOW - 500), NOW) == "idle_limit"
    assert ended(record(), NOW) == ""


def test_our_cookies_are_found_once_and_cut_out() -> None:
    names = cookies.names_for("https://app.example.com")
    line = b"a=1; __Host-np=x; __Host-np-flow-9=y; b=2;c"
    assert cookies.one(line, names.session) == b"x"
    assert cookies.cut(line, names) == b"a=1; b=2;c"
    assert cookies.cut(b"__Host-np=x", names) == b""
    assert cookies.cut(b"a=__Host-np; z=1", names) == b"a=__Host-np; z=1"
    assert cookies.one(b"__Host-np=x; a=1; __Host-np=y", names.session) is None  # doubled is none
    assert cookies.one(b"X__Host-np=x", names.session) is None
    assert cookies.with_prefix(line, names.flow_prefix) == {b"__Host-np-flow-9": b"y"}


def test_a_cookie_line_has_every_protection() -> None:
    secure = cookies.set_line(cookies.names_for("https://a"), b"__Host-np", b"v", 60)
    assert secure == b"__Host-np=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
    assert not cookies.names_for("http://127.0.0.1").session.startswith(b"__Host-")


def test_the_breaker_asks_for_quiet_and_lets_one_probe_through() -> None:
    breaker = Breaker()
    assert breaker.admit(0.0) == 0.0
    breaker.failed(OutcomeKind.TRANSIENT, "http_429", 30.0, 0.0)
    assert breaker.admit(10.0) == 20.0
    assert breaker.admit(30.0) == 0.0
    assert breaker.admit(30.0) > 0.0  # the probe is under way
    breaker.returned()
    assert breaker.admit(31.0) == 0.0
    breaker.succeeded()
    assert not breaker.open
    breaker.failed(OutcomeKind.DEAD, "invalid_grant", None, 31.0)
    assert not breaker.open  # a verdict says nothing about the provider
