"""Past advisories of authenticating proxies and of the libraries below them, tried on the running product.

Each test names the advisory whose cause it repeats. What reaches the app is what counts.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.op.scripted import ScriptedOP
from tests.scenarios.browser import Browser, read_reply
from tests.scenarios.house import House, until

PUBLIC = "/open /static/"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    env = {"NIGHTPORTER_PUBLIC_PATHS": PUBLIC, "NIGHTPORTER_PASS_ACCESS_TOKEN": "true"}
    with House(tmp_path_factory.mktemp("house"), env=env) as house:
        yield house


@pytest.fixture(scope="module")
def ada(house: House) -> Browser:
    return house.somebody()


def raw(house: House, stream: bytes) -> bytes:
    """What comes back for these bytes, until the end."""
    with socket.create_connection(("127.0.0.1", house.replica.port), 30) as sock:
        sock.sendall(stream)
        parts: list[bytes] = []
        while data := sock.recv(65_536):
            parts.append(data)
    return b"".join(parts)


@pytest.mark.parametrize("agent", ["kube-probe/1.34", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Envoy/HC"])
def test_a_health_checkers_user_agent_opens_nothing(house: House, agent: str) -> None:
    """oauth2-proxy GHSA-5hvv-m4w4-gf6v."""
    assert house.browser().get("/private", headers={"User-Agent": agent}).status == 401
    assert not house.app.reached("/private")


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Uri", "X-Original-URL", "X-Original-URI", "X-Rewrite-URL", "X-Envoy-Original-Path"]
)
def test_a_header_that_names_another_path_decides_nothing(house: House, name: str) -> None:
    """oauth2-proxy GHSA-7x63-xv5r-3p2x."""
    assert house.browser().get("/private", headers={name: "/open"}).status == 401


@pytest.mark.parametrize(
    "target",
    [
        "/private#/open",
        "/private?x=/open",
        "/private?/static/",
        "/private;/open",
        "/static/../private",
        "/static/%2e%2e/private",
        "/static/..%2fprivate",
        "/static%2f..%2fprivate",
        "/static/..%5cprivate",
        "//open/../private",
        "/./private",
        "/static/..;/private",
        "/static/%252e%252e/private",
        "/static/%00/../private",
        "/OPEN",
        "/open/",
        "/openness",
    ],
)
def test_no_spelling_of_a_path_makes_it_public(house: House, target: str) -> None:
    """oauth2-proxy GHSA-pxq7-h93f-9jrg and GHSA-7rh7-c77v-6434; Traefik CVE-2026-40912; Envoy CVE-2021-29492."""
    before = len(house.app.seen)
    assert house.browser().get(target).status in (400, 401)
    assert len(house.app.seen) == before


SPOOFED = {
    "X-Forwarded-User": "mallory",
    "X_Forwarded_User": "mallory",
    "x-forwarded_user": "mallory",
    "X.Forwarded.User": "mallory",
    "X-FORWARDED-EMAIL": "mallory@example.com",
    "X-Forwarded-Groups": "mallory",
    "X-Forwarded-Access-Token": "mallory",
    "X-Auth-Request-User": "mallory",
    "X_Auth_Request_Email": "mallory",
    "Remote-User": "mallory",
    "X-Pomerium-Claim-Email": "mallory",
    "Ssl-Client-Verify": "mallory",
    "X-Forwarded-Prefix": "/mallory",
    "X-Envoy-External-Address": "mallory",
}


@pytest.mark.parametrize("signed_in", [True, False])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_no_spelling_of_an_identity_header_reaches_the_app(
    house: House, ada: Browser, method: str, signed_in: bool
) -> None:
    """oauth2-proxy GHSA-vjrc-mh2v-45x6; Traefik GHSA-5m6w-wvh7-57vm; Traefik CVE-2024-52003."""
    browser = ada if signed_in else house.browser()
    reply = browser.ask(method, "/open", headers=SPOOFED)
    assert reply.status == 200
    assert "mallory" not in reply.text
    assert reply.user == ("ada-1" if signed_in else "")


@pytest.mark.parametrize("named", ["X-Forwarded-User", "Cookie", "Host", "X-Forwarded-For", "Authorization"])
def test_connection_cannot_name_away_what_we_say(house: House, ada: Browser, named: str) -> None:
    """Traefik CVE-2024-45410; fabio CVE-2025-48865."""
    seen = ada.get("/page", headers={"Connection": f"keep-alive, {named}"})
    assert seen.status in (200, 400)
    if seen.status == 200:
        assert seen.user == "ada-1"
        assert seen.seen.get("x-forwarded-for")
        assert seen.seen.get("host")


def test_a_trailer_cannot_name_an_identity(house: House, ada: Browser) -> None:
    """CVE-2026-88004: names were looked for in headers only."""
    before = len(house.app.seen)
    answer = raw(
        house,
        b"POST /page HTTP/1.1\r\nHost: %b\r\nCookie: %b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"1\r\na\r\n0\r\nX-Forwarded-User: mallory\r\n\r\n"
        % (house.url.removeprefix("http://").encode(), ada.cookie.encode()),
    )
    assert b"mallory" not in answer
    for seen in house.app.seen[before:]:
        assert seen.get("x-forwarded-user") == "ada-1"


def test_a_cookie_is_worth_nothing_after_the_sign_out(house: House) -> None:
    """oauth2-proxy GHSA-f24x-5g9q-753f."""
    bob = house.somebody("bob-2")
    stolen = dict(bob.jar)
    assert bob.post("/oauth2/logout").status in (200, 302, 303)
    thief = house.browser()
    thief.jar |= stolen
    assert thief.get("/page").status == 401
    assert thief.get("/page", navigation=True).status == 302
    house.op.user = {**house.op.user, "sub": "ada-1"}


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "https:evil.example",
        "///evil.example",
        "/%09/evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "http://127.0.0.1@evil.example/",
        "/oauth2/logout",
        "%2f%2fevil.example",
    ],
)
def test_a_sign_in_never_returns_elsewhere(house: House, target: str) -> None:
    """oauth2-proxy GHSA-4mf2-f3wh-gvf2, GHSA-5m6c-jp6f-2vcv; mod_auth_openidc CVE-2022-23527."""
    from urllib.parse import quote

    somebody = house.browser()
    reply = somebody.visit(f"/oauth2/login?rd={quote(target, safe='')}")
    assert reply.url.startswith(house.url + "/")
    assert not reply.url.startswith(house.url + "/oauth2/logout")
    assert "evil" not in reply.url.removeprefix(house.url).partition("/")[0]
    assert reply.status in (200, 400)


def test_many_crafted_cookies_cost_nothing(house: House) -> None:
    """mod_auth_openidc CVE-2024-24814, CVE-2023-28625; authentik CVE-2026-25748."""
    nobody = house.browser()
    before = len(house.app.seen)
    for line in (
        "np=; " * 400,
        "np=\x7f",
        "np==",
        'np="quoted"',
        "np=a; np=b",
        "np=" + "A" * 4_000,
        "np-flow-" + "a" * 1_000 + "=x",
        "; ".join(f"np-flow-{n}=x" for n in range(500)),
        "np_0=1; np_1=99999999; np_chunks=99999999",
        "=np; ;;; np",
    ):
        status = nobody.get("/private", headers={"Cookie": line}).status
        assert status in (400, 401, 431), line[:40]
    assert len(house.app.seen) == before
    assert house.replica.ready()


@pytest.mark.parametrize("navigation", [True, False])
def test_a_refusal_holds_no_byte_of_the_app(house: House, navigation: bool) -> None:
    """mod_auth_openidc GHSA-59jp-rwph-878r."""
    before = len(house.app.seen)
    reply = house.browser().get("/private", navigation=navigation)
    assert reply.status == (302 if navigation else 401)
    assert b'"headers"' not in reply.body
    assert len(house.app.seen) == before


def test_no_page_of_ours_shows_a_token_or_a_key(house: House, ada: Browser) -> None:
    """Pomerium CVE-2024-39315."""
    secrets = [house.op.client_secret, ada.get("/page").token, ada.jar["np"]]
    for path in ("session", "userinfo", "logout", "login", "logged-out", "sessions", "auth", "nothing"):
        reply = ada.get(f"/oauth2/{path}")
        text = reply.text + json.dumps([value for name, value in reply.headers if name != "Set-Cookie"])
        for secret in secrets:
            assert secret not in text, path
        assert "refresh_token" not in text or path == "session"


@pytest.mark.parametrize(
    "path", ["/metrics", "/livez", "/readyz", "/ping", "/debug/pprof/", "/admin/sessions"]
)
def test_nothing_operational_is_on_the_public_port(house: House, path: str) -> None:
    """vouch and Envoy deployments, CVE-2022-24797."""
    assert house.browser().get(path).status == 401


def test_a_value_sealed_for_one_purpose_serves_no_other(house: House, ada: Browser) -> None:
    """CVE-2024-47616: a flow's cookie is no session, a session's is no flow."""
    starter = house.browser()
    starter.get("/oauth2/login?rd=/page", navigation=True)
    flow = next(name for name in starter.jar if name.startswith("np-flow-"))
    thief = house.browser()
    thief.jar["np"] = starter.jar[flow]
    assert thief.get("/page").status == 401
    thief.jar = {flow: ada.jar["np"]}
    state = flow.removeprefix("np-flow-")
    assert thief.get(f"/oauth2/callback?code=x&state={state}", navigation=True).status in (302, 400, 401, 403)
    assert "np" not in thief.jar


@pytest.mark.parametrize("value", ["Bearer junk", "Bearer a.b.c", "Basic YTpi", "Negotiate x", "Bearer "])
def test_a_bearer_token_is_no_session(house: House, value: str) -> None:
    """Envoy CVE-2022-29226."""
    assert house.browser().get("/private", headers={"Authorization": value}).status == 401


def test_a_request_cannot_write_a_line_of_the_log(house: House) -> None:
    """Envoy CVE-2024-45808; uvicorn CVE-2020-7694."""
    hostile = '/private/%0d%0a{"event":"forged"}/%1b[31m'
    agent = '"}\t{"event": "forged"'
    before = len(house.replica.events("request"))
    assert house.browser().get(hostile, headers={"User-Agent": agent, "X-Request-Id": agent}).status in (
        400,
        401,
    )
    until(lambda: len(house.replica.events("request")) > before)
    assert not house.replica.events("forged")
    for line in house.replica.log.read_text().splitlines():
        json.loads(line)
        assert "\x1b" not in line


@pytest.mark.parametrize(
    "host", ["127.0.0.1.", "EVIL.example", "a.B.", "127.0.0.1:1", "user@127.0.0.1", "[::1"]
)
def test_a_strange_host_neither_opens_nor_redirects_elsewhere(house: House, host: str) -> None:
    """Authelia CVE-2021-32637, CVE-2026-48794."""
    answer = raw(
        house, b"GET /private HTTP/1.1\r\nHost: %b\r\nSec-Fetch-Mode: navigate\r\nAccept: text/html\r\n"
        b"Connection: close\r\n\r\n" % host.encode(),
    )  # fmt: skip
    reply = read_reply(answer)
    assert reply.status in (302, 400, 421)
    assert reply.get("location").startswith("/oauth2/login") or reply.status != 302


def test_a_callback_works_in_the_browser_that_began_it_only(house: House, ada: Browser) -> None:
    """Authlib CVE-2025-68158, CVE-2026-41425; fastapi-users CVE-2025-68481."""
    mallory, victim = house.browser(), house.browser()
    reply = mallory.get("/oauth2/login?rd=/page", navigation=True)
    issuer = reply.get("location")
    assert issuer.startswith(house.op.issuer)
    from tests.scenarios.browser import _ask

    port, target = house.op.port, issuer.removeprefix(house.op.issuer)
    back = _ask(port, "GET", target, {"Host": f"127.0.0.1:{port}"}, None).get("location")
    answer = victim.get(back.removeprefix(house.url), navigation=True)
    assert answer.status in (302, 400, 403)
    assert "np" not in victim.jar
    assert mallory.get(back.removeprefix(house.url), navigation=True).status in (302, 303)
    assert "np" in mallory.jar


def allowing(home: Path, allow: str, user: dict[str, object]) -> int:
    """The status that somebody's sign-in ends with under an allow-list."""
    op = ScriptedOP()
    op.user = {**op.user, **user}
    with House(home, op=op, env={"NIGHTPORTER_ALLOW": allow}) as house:
        return house.browser().visit("/page").status


@pytest.mark.parametrize(
    "email",
    [
        "a@evil.example@example.com",
        "a@evil.example, b@example.com",
        "a@notexample.com",
        "a@example.com.evil.example",
        "a@example.com\u0000.evil.example",
        "a@EXAMPLE.com.",
        "@example.com",
        "example.com",
    ],
)
def test_only_an_address_of_the_domain_is_of_the_domain(tmp_path: Path, email: str) -> None:
    """oauth2-proxy GHSA-c5c4-8r6x-56w3."""
    assert allowing(tmp_path, "example.com", {"email": email}) == 403


@pytest.mark.parametrize(
    ("allow", "user"),
    [
        ("group:staff", {"groups": []}),
        ("group:staff", {"groups": ["staffing", "Staff "]}),
        ("email:ada@example.com", {"email": "eve@example.com"}),
        ("sub:248289761001", {"sub": "2482897610011"}),
        ("example.com", {"email": "ada@example.com", "email_verified": False}),
    ],
)
def test_every_rule_denies(tmp_path: Path, allow: str, user: dict[str, object]) -> None:
    """oauth2-proxy GHSA-652x-m2gr-hppm: a rule that is silently inert."""
    assert allowing(tmp_path, allow, user) == 403
