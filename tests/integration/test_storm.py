"""Refresh storms against the running product: real processes, real sockets, a strict OP.

The OP rotates with zero grace and kills the family when a consumed token comes back, so a
single second presentation would end a session. Nothing here depends on speed: every step
waits for an event or asks the OP's ledger.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "storm-client", "storm-canary-secret"


class StrictOP(ThreadingHTTPServer):
    """A small OP of ours for storms: signs in whoever comes, rotates strictly, can be slow.

    Attributes:
        takes_s: how long a refresh takes at the token endpoint.
        refreshes, invalid_grant, reuses: what it counted.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, life_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.life_s = life_s
        self.takes_s = 0.0
        self.refreshes = self.invalid_grant = self.reuses = 0
        self.lock = threading.Lock()
        self.key = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"})
        self.codes: dict[str, dict[str, str]] = {}
        self.valid: dict[str, str] = {}  # refresh token → family
        self.spent: dict[str, str] = {}
        self.names = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def issue(self, family: str, nonce: str) -> dict[str, object]:
        self.names += 1
        token = f"rt-{self.names}"
        self.valid[token] = family
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": self.issuer, "sub": family, "aud": CLIENT, "iat": now, "exp": now + 300,
        }  # fmt: skip
        if nonce:
            claims["nonce"] = nonce
        return {
            "access_token": f"at-{self.names}",
            "token_type": "Bearer",
            "expires_in": self.life_s,
            "refresh_token": token,
            "id_token": jwt.encode({"alg": "RS256", "kid": "k1"}, claims, self.key),
        }

    def refresh(self, token: str) -> tuple[int, dict[str, object]]:
        with self.lock:
            self.refreshes += 1
            family = self.valid.pop(token, None)
            if family is None:
                self.invalid_grant += 1
                if token in self.spent:
                    self.reuses += 1
                    self.valid = {t: f for t, f in self.valid.items() if f != self.spent[token]}
                return 400, {"error": "invalid_grant"}
            self.spent[token] = family
            return 200, self.issue(family, "")


class _Handler(BaseHTTPRequestHandler):
    server: StrictOP
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None: ...

    def _json(self, status: int, body: object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self) -> None:
        op, url = self.server, urlsplit(self.path)
        if url.path == "/.well-known/openid-configuration":
            self._json(
                200,
                {
                    "issuer": op.issuer,
                    "authorization_endpoint": op.issuer + "/authorize",
                    "token_endpoint": op.issuer + "/token",
                    "jwks_uri": op.issuer + "/jwks",
                },
            )
        elif url.path == "/jwks":
            self._json(200, {"keys": [op.key.as_dict(private=False)]})
        else:
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            with op.lock:
                code = f"code-{len(op.codes)}"
                op.codes[code] = asked
            back = urlencode({"code": code, "state": asked["state"]})
            self.send_response(302)
            self.send_header("Location", f"{asked['redirect_uri']}?{back}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_POST(self) -> None:
        op = self.server
        form = {
            name: values[0]
            for name, values in parse_qs(
                self.rfile.read(int(self.headers["Content-Length"])).decode()
            ).items()
        }
        if form["grant_type"] == "authorization_code":
            with op.lock:
                asked = op.codes.pop(form["code"])
                self._json(200, op.issue(f"user-{op.names}", asked["nonce"]))
            return
        status, body = op.refresh(form["refresh_token"])
        time.sleep(op.takes_s)  # processed at once, answered late: the worst order
        self._json(status, body)


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        raw = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


class _App(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def until(check: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait for an event that only asking shows; fails after `limit_s`."""
    end = time.monotonic() + limit_s
    wait = threading.Event()
    while not check():
        assert time.monotonic() < end, "it never happened"
        wait.wait(0.02)


class Stage:
    """The OP, the app and `nightporter serve` as a process of its own."""

    def __init__(self, home: Path, life_s: float) -> None:
        self.op = StrictOP(life_s)
        self.app = _App(("127.0.0.1", 0), _Echo)
        threading.Thread(target=self.app.serve_forever, daemon=True).start()
        self.port, self.operations = free_port(), free_port()
        self.log = home / "log"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("NIGHTPORTER_")},
            "NIGHTPORTER_ISSUER": self.op.issuer,
            "NIGHTPORTER_CLIENT_ID": CLIENT,
            "NIGHTPORTER_CLIENT_SECRET": SECRET,
            "NIGHTPORTER_SCOPES": "openid offline_access",
            "NIGHTPORTER_UPSTREAM": f"http://127.0.0.1:{self.app.server_port}",
            "NIGHTPORTER_PUBLIC_URL": f"http://127.0.0.1:{self.port}",
            "NIGHTPORTER_LISTEN": f"127.0.0.1:{self.port}",
            "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{self.operations}",
            "NIGHTPORTER_STORE": f"sqlite:{home / 'sessions.db'}",
            "NIGHTPORTER_PASS_ACCESS_TOKEN": "true",
        }
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "serve"],
            env=self.env,
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
        )
        until(self.ready)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.operations, timeout=5)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def get(self, path: str, cookie: str, accept: str = "*/*") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path, headers={"Cookie": cookie, "Accept": accept})
        response = connection.getresponse()
        found = response.status, {n.lower(): v for n, v in response.getheaders()}, response.read()
        connection.close()
        return found

    def sign_in(self) -> str:
        """Walk the redirects of a sign-in; the session's Cookie line."""
        jar: dict[str, str] = {}
        url = f"http://127.0.0.1:{self.port}/page?x=1"
        for _ in range(8):
            parts = urlsplit(url)
            ours = parts.port == self.port
            connection = http.client.HTTPConnection("127.0.0.1", parts.port or 80, timeout=30)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            cookie = "; ".join(f"{n}={v}" for n, v in jar.items()) if ours else ""
            connection.request("GET", target, headers={"Accept": "text/html", "Cookie": cookie})
            response = connection.getresponse()
            response.read()
            for line in response.headers.get_all("Set-Cookie") or []:
                name, _, value = line.partition(";")[0].partition("=")
                jar[name] = value
                if not value:
                    del jar[name]
            connection.close()
            if response.status not in (302, 303):
                assert response.status == 200, (response.status, self.log.read_text()[-2000:])
                assert target == "/page?x=1"  # back where it began
                return f"np={jar['np']}"
            url = response.headers["Location"]
            if url.startswith("/"):
                url = f"http://127.0.0.1:{self.port}{url}"
        raise AssertionError("redirects without end")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.op.shutdown()
        self.op.server_close()
        self.app.shutdown()
        self.app.server_close()


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(tmp_path, getattr(request, "param", 2.0))
    yield made
    made.end()


def together(work: Callable[[int], None], count: int) -> None:
    """Run `work(0…count-1)` at the same time; the first failure is raised."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(n: int) -> None:
        try:
            barrier.wait(30)
            work(n)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]


def expire(stage: Stage, cookie: str) -> None:
    """Wait until the session's access token is over."""

    def over() -> bool:
        body = json.loads(stage.get("/oauth2/session", cookie)[2])
        return body["access_token"]["expires_in_s"] <= 0

    until(over)
    whole = time.monotonic() + 1.0  # the page tells whole seconds, rounded down
    until(lambda: time.monotonic() > whole)


def test_a1_sixty_four_requests_at_each_of_five_expiries_cost_five_token_calls(stage: Stage) -> None:
    cookie = stage.sign_in()
    for expiry in range(1, 6):
        expire(stage, cookie)
        before = stage.op.refreshes

        def ask(n: int) -> None:
            status, _, body = stage.get(f"/page/{n}", cookie)
            assert status == 200, body
            assert json.loads(body)["x-forwarded-user"].startswith("user-")

        together(ask, 64)
        assert stage.op.refreshes - before == 1, f"expiry {expiry}"
    assert (stage.op.invalid_grant, stage.op.reuses) == (0, 0)


def test_c20_ten_users_who_hang_up_during_the_refresh_stay_signed_in(stage: Stage) -> None:
    cookies = [stage.sign_in() for _ in range(10)]
    expire(stage, cookies[-1])  # the others began, and so expire, earlier
    stage.op.takes_s = 0.3
    before = stage.op.refreshes

    def hang_up(n: int) -> None:
        with socket.create_connection(("127.0.0.1", stage.port)) as sock:
            sock.sendall(f"GET /a HTTP/1.1\r\nHost: x\r\nCookie: {cookies[n]}\r\n\r\n".encode())
            until(lambda: stage.op.refreshes > before)

    together(hang_up, 10)
    until(lambda: stage.op.refreshes == before + 10)
    for _ in range(2):  # now, and at the next expiry
        for cookie in cookies:
            assert stage.get("/b", cookie)[0] == 200
        expire(stage, cookies[-1])
    assert (stage.op.invalid_grant, stage.op.reuses) == (0, 0)


@pytest.mark.parametrize("stage", [6.0], indirect=True)
def test_a_token_endpoint_that_takes_three_seconds_signs_nobody_out(stage: Stage) -> None:
    cookie = stage.sign_in()
    expire(stage, cookie)
    stage.op.takes_s = 3.0
    before = stage.op.refreshes
    statuses: list[int] = []
    together(lambda n: statuses.append(stage.get("/a", cookie)[0]), 32)
    assert statuses == [200] * 32
    assert stage.op.refreshes == before + 1
    stage.op.takes_s = 0.0
    expire(stage, cookie)
    assert stage.get("/b", cookie)[0] == 200
    assert (stage.op.invalid_grant, stage.op.reuses) == (0, 0)


def test_c19_sigterm_during_a_refresh_lets_it_land_and_the_next_start_goes_on(stage: Stage) -> None:
    cookie = stage.sign_in()
    expire(stage, cookie)
    stage.op.takes_s = 1.0
    before = stage.op.refreshes
    asked = threading.Thread(target=lambda: stage.get("/a", cookie))
    asked.start()
    until(lambda: stage.op.refreshes > before)
    assert stage.stop() == 0
    asked.join(10)
    stage.op.takes_s = 0.0
    stage.start()
    assert stage.get("/b", cookie)[0] == 200
    assert (stage.op.invalid_grant, stage.op.reuses) == (0, 0)


def test_i10_no_secret_reaches_the_logs(stage: Stage) -> None:
    cookie = stage.sign_in()
    expire(stage, cookie)
    stage.get("/page?code=canary-in-a-query", cookie)
    assert stage.stop() == 0
    text = stage.log.read_text()
    assert '"event": "request"' in text
    value = cookie.partition("=")[2]
    for secret in (SECRET, "canary-in-a-query", value, "rt-1", "at-1", "code-0", "state="):
        assert secret not in text
