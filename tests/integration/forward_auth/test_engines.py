"""Forward auth with the five engines and the configurations that are shipped for them: sign-in through
the engine, spoofed headers, a renewal in between, sign-out, WebSocket, and parts that are away.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.forward_auth.engines import ENGINES, EngineProcess, Ports
from tests.scenarios.browser import Browser
from tests.scenarios.house import House, free_port

NAMES = ("User", "Email", "Preferred-Username", "Groups", "Access-Token")
pytestmark = pytest.mark.timeout(180)


class Behind(House):
    """A house whose browsers talk to an engine."""

    def __init__(self, name: str, home: Path) -> None:
        engine_port, answers = free_port(), free_port()
        super().__init__(
            home,
            env={
                "NIGHTPORTER_UPSTREAM": "",
                "NIGHTPORTER_PUBLIC_URL": f"http://127.0.0.1:{engine_port}",
                "NIGHTPORTER_FORWARD_AUTH_LISTEN": f"127.0.0.1:{answers}",
                "NIGHTPORTER_FORWARD_AUTH_ENGINE": name,
                "NIGHTPORTER_PUBLIC_PATHS": "/public/",
            },
        )
        self.engine_name = name
        self.url = f"http://127.0.0.1:{engine_port}"
        self.engine_port = engine_port
        try:
            ports = Ports(engine_port, self.replica.port, answers, self.app.port)
            self.engine = EngineProcess(name, home / "engine", ports).__enter__()
        except BaseException:
            self.end()
            raise

    def browser(self) -> Browser:
        return Browser(self.url, [self.engine_port])

    def end(self) -> None:
        if hasattr(self, "engine"):
            self.engine.__exit__()
        super().end()


@pytest.fixture(scope="module", params=list(ENGINES))
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with Behind(request.param, tmp_path_factory.mktemp(request.param)) as house:
        yield house


def raw(port: int, data: bytes) -> bytes:
    """Send bytes, read one answer's head and as much of its body as comes with it."""
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(data)
        found = b""
        while b"\r\n\r\n" not in found:
            piece = sock.recv(65_536)
            if not piece:
                break
            found += piece
        return found


def test_a_person_signs_in_through_the_engine_and_the_app_learns_who(behind: Behind) -> None:
    ada = behind.somebody("ada-1", "/deep/page?x=1&y=%2Fz")
    reply = ada.get("/what?q=%20a")
    assert reply.status == 200
    assert reply.user == "ada-1"
    assert reply.seen["x-forwarded-email"] == "ada-1@example.com"
    assert reply.token.startswith("at")
    assert reply.json["target"] == "/what?q=%20a"
    posted = ada.post("/form", b"x" * 70_000)
    assert (posted.status, posted.json["body_bytes"], posted.user) == (200, 70_000, "ada-1")


def test_our_cookies_stay_away_from_the_app_and_the_others_arrive(behind: Behind) -> None:
    ada = behind.somebody("ada-2")
    ada.jar = {"theme": "dark", **ada.jar, "lang": "en"}
    assert ada.get("/a").seen["cookie"] == "theme=dark; lang=en"
    ada.jar = {name: value for name, value in ada.jar.items() if name not in ("theme", "lang")}
    assert not ada.get("/a").seen.get("cookie")


def test_people_are_sent_to_sign_in_and_programs_are_told(behind: Behind) -> None:
    stranger = behind.browser()
    page = stranger.get("/unseen?a=b&c=d", navigation=True)
    assert page.status == 302
    assert page.get("location").endswith("/oauth2/login?rd=/unseen%3Fa%3Db%26c%3Dd")
    told = stranger.get("/api")
    assert told.status == 401
    assert "Nightporter" in told.get("www-authenticate")
    assert "/oauth2/login" in told.get("www-authenticate")
    assert not behind.app.reached("/unseen")
    assert not behind.app.reached("/api")


def spoofed(separator: str) -> list[tuple[str, str]]:
    names = [f"X-Forwarded-{name}" for name in NAMES]
    return [(name.replace("-", separator), "evil") for name in names]


@pytest.mark.parametrize("path", ["/spoofed", "/public/spoofed"])
@pytest.mark.parametrize("separator", ["-", "_", ".", "!", "~", "+", "^"])
def test_no_spelling_of_an_identity_gets_through(behind: Behind, path: str, separator: str) -> None:
    ada = behind.somebody("ada-3")
    others = [("X-Auth-Request-User", "evil"), ("Remote-User", "evil")]
    claims = [*spoofed(separator), *((name.lower(), value) for name, value in spoofed(separator)), *others]
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{behind.engine_port}\r\nConnection: close\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in claims)
    before = len(behind.app.reached(path))
    cookies = [f"Cookie: {ada.cookie}\r\n"] if path == "/spoofed" else ["", f"Cookie: {ada.cookie}\r\n"]
    for cookie in cookies:
        answer = raw(behind.engine_port, (head + cookie + "\r\n").encode())
        status = int(answer.split(b" ", 2)[1])
        if status == 400:  # the engine takes no such name at all
            assert separator != "-"
            continue
        assert status == 200, answer
        seen = behind.app.reached(path)[-1]
        assert not [pair for pair in seen.headers if "evil" in pair[1]]
        assert seen.get("x-forwarded-user") == ("ada-3" if cookie else "")
    assert len(behind.app.reached(path)) >= before


def test_the_original_url_comes_from_the_engine_alone(behind: Behind) -> None:
    before = len(behind.app.reached("/secret"))
    for name in ("X-Forwarded-Uri", "X-Original-URI", "X-Original-URL", "X-Rewrite-URL", "X_Original_URI"):
        reply = behind.browser().get("/secret", headers={name: "/public/x"})
        assert reply.status == 401, name
    for name, value in (
        ("X-Forwarded-Method", "OPTIONS"),
        ("X-Original-Method", "OPTIONS"),
        ("X-Forwarded-Host", "x"),
    ):
        assert behind.browser().get("/secret", headers={name: value}).status == 401
    doubled = f"GET /secret HTTP/1.1\r\nHost: 127.0.0.1:{behind.engine_port}\r\nConnection: close\r\n"
    doubled += "X-Forwarded-Uri: /public/x\r\nX-Forwarded-Uri: /public/y\r\nX-Original-URI: /public/x\r\n\r\n"
    assert raw(behind.engine_port, doubled.encode()).split(b" ", 2)[1] in (b"401", b"403")
    for path in ("/public/../secret", "/public/%2e%2e/secret", "/public/..%2fsecret", "/public//../secret"):
        target = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{behind.engine_port}\r\nConnection: close\r\n\r\n"
        status = int(raw(behind.engine_port, target.encode()).split(b" ", 2)[1])
        if status == 200:  # made plain by the engine before it asked: what was judged is what the app got
            assert behind.app.seen[-1].target == "/public/secret"
            continue
        assert status in (400, 401, 403, 404, 301, 308), (path, status)
    assert len(behind.app.reached("/secret")) == before


OVERRIDES = (
    "X-Original-URL", "X-Original-URI", "X-Original-Method", "X-Rewrite-URL", "X-HTTP-Method", "X-Script-Name",
    "X-HTTP-Method-Override", "X-Method-Override", "X-Forwarded-Prefix", "X-Forwarded-Uri", "X-Forwarded-Path",
    "X-Forwarded-Method",
)  # fmt: skip


@pytest.mark.parametrize("path", ["/overridden", "/public/overridden"])
def test_nothing_that_replaces_url_method_or_client_gets_through(behind: Behind, path: str) -> None:
    """Some frameworks serve X-Original-URL instead of the path that was judged."""
    claims = dict.fromkeys(OVERRIDES, "/evil")
    claims |= {name.lower().replace("-", "_"): "/evil" for name in OVERRIDES}
    claims |= {"X-Envoy-Original-Path": "/evil"} if behind.engine_name == "envoy" else {}
    claims |= dict.fromkeys(("X-Forwarded-Host", "Forwarded", "X-Forwarded-Server"), "evil.example")
    claims |= {"X-Forwarded-For": "203.0.113.66", "X-Real-IP": "203.0.113.66", "X-Forwarded-Proto": "wss"}
    person = behind.somebody("ada-9") if path == "/overridden" else behind.browser()
    assert person.get(path, headers=claims).status == 200
    seen = behind.app.reached(path)[-1]
    claimed = ("/evil", "evil.example", "203.0.113.66", "wss")
    found = {name for name, value in seen.headers if any(word in value for word in claimed)}
    assert found <= {"x-forwarded-for"}
    # Envoy appends; the others write it anew.
    assert seen.get("x-forwarded-for").rpartition(",")[2].strip() != "203.0.113.66"
    assert not found or behind.engine_name == "envoy"


def test_a_question_that_is_not_this_engines_is_refused(behind: Behind) -> None:
    """A public path, asked as a browser would ask it that got to the wrong address."""
    port = int(behind.replica.env["NIGHTPORTER_FORWARD_AUTH_LISTEN"].rpartition(":")[2])
    for path in ("/public/x", "/"):
        question = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{behind.engine_port}\r\nConnection: close\r\n\r\n"
        assert raw(port, question.encode()).startswith(b"HTTP/1.1 403 "), path


def test_a_renewal_in_between_changes_no_cookie(behind: Behind) -> None:
    ada = behind.somebody("ada-4")
    jar, token = dict(ada.jar), ada.get("/a").token
    calls = len(behind.op.refreshes())
    behind.expire()
    replies = ada.burst(16)
    assert {reply.status for reply in replies} == {200}
    assert {reply.user for reply in replies} == {"ada-4"}
    assert all(reply.token != token for reply in replies)
    assert len(behind.op.refreshes()) == calls + 1
    assert ada.jar == jar
    assert not any(reply.all("set-cookie") for reply in replies)


def test_after_a_sign_out_nothing_passes(behind: Behind) -> None:
    ada = behind.somebody("ada-5")
    kept = dict(ada.jar)
    out = ada.post("/oauth2/logout")
    assert out.status in (200, 204, 302, 303)
    ada.jar = kept
    assert ada.get("/a").status == 401


def test_websockets_pass_for_our_origins_only(behind: Behind) -> None:
    ada = behind.somebody("ada-6")

    def upgrade(origin: str, cookie: str) -> bytes:
        return raw(
            behind.engine_port,
            (
                f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{behind.engine_port}\r\nOrigin: {origin}\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: {cookie}\r\n\r\n"
            ).encode(),
        )

    assert upgrade(behind.url, ada.cookie).startswith(b"HTTP/1.1 101 ")
    assert behind.app.reached("/ws")[-1].get("x-forwarded-user") == "ada-6"
    assert upgrade("https://evil.example", ada.cookie).split(b" ", 2)[1] == b"403"
    assert upgrade(behind.url, "theme=dark").split(b" ", 2)[1] == b"401"


def test_an_op_that_is_away_is_a_503_with_the_session_kept(behind: Behind) -> None:
    from tests.op.scripted import Script

    ada = behind.somebody("ada-7")
    behind.op.always["refresh"] = Script(process=False, status=503, body=b"")
    try:
        behind.expire()
        reply = ada.get("/a")
        assert reply.status == 503
        assert int(reply.get("retry-after")) >= 1
        assert not reply.all("set-cookie")
    finally:
        behind.op.always.clear()
    behind.advance(120)
    assert ada.get("/a").user == "ada-7"


def test_without_nightporter_nothing_passes(tmp_path: Path) -> None:
    for name in ENGINES:
        with Behind(name, tmp_path / name) as house:
            ada = house.somebody("ada-8")
            before = len(house.app.seen)
            house.replica.kill()
            assert ada.get("/a").status >= 500
            assert len(house.app.seen) == before
