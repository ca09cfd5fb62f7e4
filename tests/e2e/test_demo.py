"""The demo: its OP is strict, its app counts right, and the headless run tells the truth."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from proxy.cli import main as command
from proxy.demo.app import SampleApp, Visit, read_token
from proxy.demo.failed import DemoFailed
from proxy.demo.grants import challenge_of, person_named
from proxy.demo.house import House
from proxy.demo.op import DemoOP
from proxy.demo.ports import choose_ports
from proxy.demo.rp import Client
from proxy.demo.run import main
from proxy.demo.visitor import Visitor, forms
from proxy.demo.walk import _at_least, _none
from tests.redis.servers import redis_server

ROOT = Path(__file__).parents[2]
ISSUER = "http://op.test"
RP = Client("demo", "s3cret: +%", "http://rp.test")
VERIFIER = "v" * 43


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Browser:
    """Sends single requests to an OP in this process and keeps its cookie."""

    op: DemoOP
    cookies: httpx2.Cookies = field(default_factory=httpx2.Cookies)

    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        async def send() -> httpx2.Response:
            transport = httpx2.ASGITransport(self.op.asgi())
            async with httpx2.AsyncClient(
                transport=transport, base_url=ISSUER, cookies=self.cookies
            ) as client:
                response = await client.request(method, path, **more)
                self.cookies = client.cookies
                return response

        return asyncio.run(send())

    def authorize(self, **changes: str | None) -> httpx2.Response:
        params = {
            "client_id": RP.client_id,
            "redirect_uri": RP.redirect_uri,
            "response_type": "code",
            "scope": "openid profile email offline_access",
            "state": "st",
            "nonce": "no",
            "code_challenge": challenge_of(VERIFIER),
            "code_challenge_method": "S256",
            **changes,
        }
        return self.ask("GET", "/authorize", params={k: v for k, v in params.items() if v is not None})

    def sign_in(self, fields: dict[str, str], **changes: str | None) -> httpx2.Response:
        page = self.authorize(**changes)
        ticket = forms(page.text)[0].fields["ticket"]
        return self.ask("POST", "/sign-in", data={"ticket": ticket, **fields})

    def code(self, **changes: str | None) -> str:
        return query_of(self.sign_in({"person": "ada"}, **changes))["code"]

    def token(self, **fields: str) -> httpx2.Response:
        data = {"client_id": RP.client_id, "client_secret": RP.secret, **fields}
        return self.ask("POST", "/token", data=data)

    def redeem(self, code: str, **changes: str) -> httpx2.Response:
        fields = {"code": code, "redirect_uri": RP.redirect_uri, "code_verifier": VERIFIER, **changes}
        return self.token(grant_type="authorization_code", **fields)

    def refresh(self, token: str) -> httpx2.Response:
        return self.token(grant_type="refresh_token", refresh_token=token)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def op(clock: Clock) -> DemoOP:
    return DemoOP(ISSUER, RP, clock=clock)


@pytest.fixture
def browser(op: DemoOP) -> Browser:
    return Browser(op)


def query_of(response: httpx2.Response) -> dict[str, str]:
    assert response.status_code == 303, response.text
    target = response.headers["location"]
    assert target.startswith(RP.redirect_uri + "?")
    return {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}


def claims_of(browser: Browser, token: str) -> dict[str, Any]:
    keys = KeySet.import_key_set(browser.ask("GET", "/jwks").json())
    return jwt.decode(token, keys, algorithms=["RS256"]).claims


# -- the OP: signing in ------------------------------------------------------------------------


def test_discovery_names_the_issuer_and_publishes_no_private_key(browser: Browser) -> None:
    document = browser.ask("GET", "/.well-known/openid-configuration").json()
    assert document["issuer"] == ISSUER
    assert document["code_challenge_methods_supported"] == ["S256"]
    (key,) = browser.ask("GET", "/jwks").json()["keys"]
    assert key["kty"] == "RSA"
    assert not {"d", "p", "q"} & set(key)


def test_sign_in_brings_a_code_state_and_issuer(browser: Browser, clock: Clock) -> None:
    answer = query_of(browser.sign_in({"person": "grace"}))
    assert (answer["state"], answer["iss"]) == ("st", ISSUER)
    reply = browser.redeem(answer["code"])
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    body = reply.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 20)
    claims = claims_of(browser, body["id_token"])
    assert (claims["iss"], claims["aud"], claims["nonce"]) == (ISSUER, RP.client_id, "no")
    assert claims["preferred_username"] == "Grace"
    assert claims_of(browser, body["access_token"])["exp"] == clock.now + 20


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "profile"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"request": "x.y.z"}, "request_not_supported"),
        ({"max_age": "-1"}, "invalid_request"),
    ],
)
def test_a_wrong_request_goes_back_with_an_error(
    browser: Browser, changes: dict[str, str | None], error: str
) -> None:
    answer = query_of(browser.authorize(**changes))
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "st", ISSUER)


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "other"},
        {"redirect_uri": "http://rp.test/oauth2/callback/"},
        {"redirect_uri": "http://rp.test.evil.example/oauth2/callback"},
        {"redirect_uri": None},
    ],
)
def test_an_unknown_client_or_redirect_uri_is_never_redirected_to(
    browser: Browser, changes: dict[str, str | None]
) -> None:
    response = browser.authorize(**changes)
    assert response.status_code == 400
    assert "location" not in response.headers


def test_a_second_sign_in_needs_no_page_until_the_op_is_asked_to(browser: Browser, clock: Clock) -> None:
    browser.sign_in({"person": "ada"})
    assert "code" in query_of(browser.authorize())
    assert "code" in query_of(browser.authorize(prompt="none"))
    assert browser.authorize(prompt="login").status_code == 200
    clock.now += 61
    assert browser.authorize(max_age="60").status_code == 200


def test_any_name_signs_in_and_is_escaped_on_every_page(browser: Browser) -> None:
    name = "<b>Zoë</b> & 'co'"
    reply = browser.redeem(query_of(browser.sign_in({"name": name}))["code"]).json()
    assert claims_of(browser, reply["id_token"])["name"] == name
    page = browser.ask("GET", "/end-session").text
    assert "&lt;b&gt;Zoë&lt;/b&gt;" in page
    assert "<b>Zoë" not in page


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "line\u0007bell", "‮reversed"])
def test_what_is_no_name_gets_the_page_again(browser: Browser, name: str) -> None:
    assert person_named(name) is None
    page = browser.sign_in({"name": name})
    assert page.status_code == 422
    assert "Choose somebody" in page.text


def test_a_sign_in_page_works_once_and_not_for_ever(browser: Browser, clock: Clock) -> None:
    ticket = forms(browser.authorize().text)[0].fields["ticket"]
    assert browser.ask("POST", "/sign-in", data={"ticket": ticket, "person": "ada"}).status_code == 303
    assert browser.ask("POST", "/sign-in", data={"ticket": ticket, "person": "ada"}).status_code == 400
    ticket = forms(browser.authorize(prompt="login").text)[0].fields["ticket"]
    clock.now += 601
    assert browser.ask("POST", "/sign-in", data={"ticket": ticket, "person": "ada"}).status_code == 400


# -- the OP: tokens ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": "v" * 42},
        {"code_verifier": ""},
        {"redirect_uri": "http://rp.test/"},
        {"code": "unknown"},
    ],
)
def test_a_code_is_bound_to_its_request(browser: Browser, changes: dict[str, str]) -> None:
    reply = browser.redeem(**{"code": browser.code(), **changes})
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")


def test_a_code_ages(browser: Browser, clock: Clock) -> None:
    code = browser.code()
    clock.now += 60
    assert browser.redeem(code).json()["error"] == "invalid_grant"


def test_a_code_used_twice_kills_what_it_brought(browser: Browser) -> None:
    code = browser.code()
    token = browser.redeem(code).json()["refresh_token"]
    assert browser.redeem(code).json()["error"] == "invalid_grant"
    assert browser.refresh(token).json()["error"] == "invalid_grant"


def test_refresh_tokens_rotate(browser: Browser) -> None:
    first = browser.redeem(browser.code()).json()
    second = browser.refresh(first["refresh_token"]).json()
    third = browser.refresh(second["refresh_token"]).json()
    assert len({first["refresh_token"], second["refresh_token"], third["refresh_token"]}) == 3
    assert len({first["access_token"], second["access_token"], third["access_token"]}) == 3
    before, after = claims_of(browser, first["id_token"]), claims_of(browser, third["id_token"])
    for claim in ("iss", "sub", "aud", "auth_time", "sid"):
        assert before[claim] == after[claim]
    assert "nonce" not in after


def test_a_used_refresh_token_kills_the_family_and_only_that(browser: Browser, op: DemoOP) -> None:
    other = Browser(op)
    mine, others = browser.redeem(browser.code()).json(), other.redeem(other.code()).json()
    successor = browser.refresh(mine["refresh_token"]).json()["refresh_token"]
    assert browser.refresh(mine["refresh_token"]).json()["error"] == "invalid_grant"
    assert browser.refresh(successor).json()["error"] == "invalid_grant"
    assert other.refresh(others["refresh_token"]).status_code == 200
    ledger = browser.ask("GET", "/ledger").json()
    assert (ledger["invalid_grant"], ledger["reuse_detected"], ledger["families_killed"]) == (2, 1, 1)
    assert (ledger["refreshes"], ledger["token_calls"], ledger["families_alive"]) == (2, 6, 1)


def test_no_refresh_token_without_offline_access(browser: Browser) -> None:
    assert "refresh_token" not in browser.redeem(browser.code(scope="openid")).json()


def test_a_revoked_family_is_dead_and_unknown_tokens_are_no_error(browser: Browser) -> None:
    token = browser.redeem(browser.code()).json()["refresh_token"]
    client = {"client_id": RP.client_id, "client_secret": RP.secret}
    assert browser.ask("POST", "/revoke", data={**client, "token": token}).status_code == 200
    assert browser.ask("POST", "/revoke", data={**client, "token": "junk"}).status_code == 200
    assert browser.refresh(token).json()["error"] == "invalid_grant"


def basic(client_id: str, secret: str) -> str:
    quoted = urlencode({client_id: secret}).replace("=", ":", 1)  # RFC 6749 §2.3.1: form-encoded first
    return "Basic " + base64.b64encode(quoted.encode()).decode()


def test_client_authentication_is_basic_or_post_and_not_both(browser: Browser) -> None:
    def ask(header: str, **fields: str) -> httpx2.Response:
        form = {"grant_type": "refresh_token", "refresh_token": "x", **fields}
        return browser.ask("POST", "/token", data=form, headers={"authorization": header} if header else None)

    assert ask(basic(RP.client_id, RP.secret)).json()["error"] == "invalid_grant"  # so it was let in
    for header in (basic(RP.client_id, "wrong"), "Basic !!", "Bearer x", ""):
        refused = ask(header)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
        assert refused.headers["www-authenticate"].startswith("Basic")
    both = ask(basic(RP.client_id, RP.secret), client_secret=RP.secret)
    assert (both.status_code, both.json()["error"]) == (400, "invalid_request")


def test_userinfo_ends_with_the_access_token(browser: Browser, clock: Clock) -> None:
    reply = browser.redeem(browser.code()).json()
    header = {"authorization": "Bearer " + reply["access_token"]}
    assert browser.ask("GET", "/userinfo", headers=header).json()["email"] == "ada@example.org"
    id_token = {"authorization": "Bearer " + reply["id_token"]}
    assert browser.ask("GET", "/userinfo", headers=id_token).status_code == 401
    clock.now += 20
    assert browser.ask("GET", "/userinfo", headers=header).status_code == 401


# -- the OP: signing out -----------------------------------------------------------------------


def test_sign_out_with_a_hint_is_immediate_and_goes_back(browser: Browser, clock: Clock) -> None:
    id_token = browser.redeem(browser.code()).json()["id_token"]
    clock.now += 10_000  # an expired hint is a hint (RP-Initiated Logout 1.0 §4)
    landing = RP.origin + "/oauth2/signed-out"
    params = {"id_token_hint": id_token, "post_logout_redirect_uri": landing, "state": "bye"}
    response = browser.ask("GET", "/end-session", params=params)
    assert response.headers["location"] == landing + "?state=bye"
    assert query_of(browser.authorize(prompt="none"))["error"] == "login_required"


def test_sign_out_without_a_hint_asks_first(browser: Browser) -> None:
    browser.code()
    assert "Sign out, Ada?" in browser.ask("GET", "/end-session").text
    assert "code" in query_of(browser.authorize(prompt="none"))
    assert "You are signed out" in browser.ask("POST", "/signed-out").text
    assert query_of(browser.authorize(prompt="none"))["error"] == "login_required"


@pytest.mark.parametrize("target", ["https://evil.example/", RP.origin + ".evil.example/", "//rp.test/"])
def test_sign_out_never_leads_to_a_foreign_page(browser: Browser, target: str) -> None:
    id_token = browser.redeem(browser.code()).json()["id_token"]
    params = {"id_token_hint": id_token, "post_logout_redirect_uri": target}
    response = browser.ask("GET", "/end-session", params=params)
    assert response.status_code == 400
    assert "location" not in response.headers


# -- the app -----------------------------------------------------------------------------------


def access_token(**claims: Any) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.sig"


def test_the_app_counts_changes_and_expiries_but_not_late_requests() -> None:
    tokens = [read_token(access_token(iat=t, exp=t + 20, sid="s")) for t in (0, 16, 32)]
    visit = Visit(since=0)
    for now, token in ((0, 0), (5, 0), (16, 1), (16.1, 0), (17, 1), (21, 1), (32, 2), (37, 2)):
        visit.saw(tokens[token], now)
    assert (visit.requests, visit.refreshes, visit.outlived) == (8, 2, 2)
    assert [note.text for note in visit.notes] == [
        "First request with access token 1; it lives 20 s.",
        "Access token 2 arrived, 4.0 s before the old one expires; it lives 20 s.",
        "Access token 1 has expired. You are still here.",
        "Access token 3 arrived, 4.0 s before the old one expires; it lives 20 s.",
        "Access token 2 has expired. You are still here.",
    ]


@pytest.mark.parametrize(
    "value", ["opaque", "a.b.c", "a.!!.c", access_token(exp="soon"), "x." + "bnVsbA" + ".y"]
)
def test_the_app_takes_any_token(value: str) -> None:
    token = read_token(value)
    assert token is not None
    assert token.expires_at is None


def test_the_app_escapes_what_it_shows_and_shows_no_token() -> None:
    secret = access_token(sid="s", iat=1, exp=21)
    headers = {
        "x-forwarded-preferred-username": "<script>alert(1)</script>",
        "x-forwarded-access-token": secret,
        "x-other": "</script><img src=x>",
    }

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(SampleApp().asgi())
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
            return await client.get("/", headers=headers)

    page = asyncio.run(send())
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "<img src=x" not in page.text
    assert secret not in page.text
    assert len(re.findall(r"<script", page.text)) == 1
    assert "default-src 'none'" in page.headers["content-security-policy"]


# -- the page that leads here ------------------------------------------------------------------


def test_the_readmes_configuration_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    text = re.sub(r'(client_secret_file = )"[^"]+"', rf'\1"{secret}"', block)
    text = text.replace("/var/lib/nightporter", str(tmp_path))
    file = tmp_path / "nightporter.toml"
    file.write_text(text)
    assert len([line for line in block.splitlines() if not line.startswith("#")]) == 10
    assert command(["check", "--config", str(file)]) == 0, capsys.readouterr().err


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


# -- the runner --------------------------------------------------------------------------------


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_was_asked_for_and_is_taken_is_said(
    taken_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DemoFailed, match=str(taken_port)):
        choose_ports(taken_port)
    assert main(["--headless", "--port", str(taken_port)]) == 1
    assert f"Port {taken_port} is in use" in capsys.readouterr().err


def test_a_child_that_falls_is_named_and_none_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    spawn = House._spawn

    def watched(self: House, *rest: Any) -> None:
        spawn(self, *rest)
        started.append(self._children[-1].process)

    monkeypatch.setattr(House, "_spawn", watched)
    monkeypatch.setattr(House, "configuration", lambda self: {"NIGHTPORTER_ISSUER": "nonsense"})
    assert main(["--headless"]) == 1
    said = capsys.readouterr().err
    assert "The nightporter ended while starting" in said
    assert "problem(s) in the configuration" in said
    assert len(started) == 3
    assert all(process.poll() is not None for process in started)
    logs = Path(re.findall(r"The logs are in (\S+)", said)[0])
    assert (logs / "nightporter.log").exists()
    shutil.rmtree(logs)


def test_four_different_ports_are_chosen() -> None:
    ports = choose_ports(None)
    assert len({ports.front, ports.operations, ports.op, ports.app}) == 4


def test_findings_that_are_off_are_off() -> None:
    assert not _at_least("x", 2).good
    assert not _none("x", 1).good


def test_a_visitor_forgets_a_deleted_cookie_and_keeps_hosts_apart() -> None:
    visitor = Visitor()
    visitor._learn("http://127.0.0.1:1/", [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")])
    visitor._learn("http://localhost:1/", [("set-cookie", "c=3")])
    visitor._learn("http://127.0.0.1:2/", [("Set-Cookie", "b=; Max-Age=0")])
    assert visitor.cookie_line("http://127.0.0.1:9/") == "a=1"
    assert visitor.cookie_line("http://localhost/") == "c=3"


@pytest.mark.timeout(120)
def test_headless_demo_outlives_three_tokens_and_exits_0() -> None:
    """Shown by 1 of the README: what `make demo` prints where there is no terminal."""
    poison = {"NIGHTPORTER_UPSTREAM": "http://127.0.0.1:1", "NIGHTPORTER_TRASH": secrets.token_hex(4)}
    run = subprocess.run(
        [sys.executable, "-m", "proxy", "demo", "--life-s", "4"],
        env={**os.environ, **poison},  # the caller's settings must not reach it
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    facts = {
        what.strip(): seen.strip()
        for what, seen in re.findall(r"^  ok   (.+?)  +(.+)$", run.stdout, re.MULTILINE)
    }
    assert "OFF" not in run.stdout
    assert facts["signed in as"] == "Ada"
    assert int(facts["access tokens that expired meanwhile"]) >= 3
    assert int(facts["refreshes that the provider counted"]) >= 3
    assert facts["redirects after the sign-in"] == "0"
    assert facts["invalid_grant at the provider"] == "0"
    assert facts["the old cookie, sent by a program"] == "401"
    assert facts["the old cookie, sent by a browser"].endswith("to the sign-in")


def test_two_proxies_on_one_redis_behind_a_balancer_are_one_to_the_browser(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with redis_server() as server:
        status = main(["--headless", "--life-s", "4", "--store", server.url])
        assert status == 0, capsys.readouterr()
        with server.client() as client:
            assert all(client.pttl(key) > 0 for key in client.scan_iter()), "nothing stays for ever"
