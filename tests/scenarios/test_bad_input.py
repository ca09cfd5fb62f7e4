"""What anybody can send and any operator can write: bad cookies and bad configurations, at the running
product. A bad cookie is no cookie (or 431 where it is too long), on every page; a bad configuration is
refused as a whole, each mistake in one line.
"""

from __future__ import annotations

import base64
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.browser import Browser, Reply, read_reply
from tests.scenarios.house import ROOT, House

PAGES = (
    ("/api", False),
    ("/page", True),
    ("/oauth2/session", False),
    ("/oauth2/logout", True),
    ("/oauth2/logged-out", True),
    ("/oauth2/login?rd=/page", True),
    ("/oauth2/callback?code=x&state=y", True),
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def ada(house: House) -> Browser:
    return house.somebody()


def ask(house: House, path: str, cookie: str | bytes, *, navigation: bool = False) -> Reply:
    """A GET with this Cookie line, byte for byte."""
    line = cookie if isinstance(cookie, bytes) else cookie.encode("latin-1")
    accept = b"text/html" if navigation else b"*/*"
    with socket.create_connection(("127.0.0.1", house.replica.port), 30) as sock:
        sock.sendall(
            b"GET %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\nCookie: %s\r\nConnection: close\r\n\r\n"
            % (path.encode(), house.url.removeprefix("http://").encode(), accept, line)
        )
        parts: list[bytes] = []
        while data := sock.recv(65536):
            parts.append(data)
    return read_reply(b"".join(parts))


def anonymous(house: House, cookie: str | bytes) -> None:
    """It opens nothing anywhere, and nothing breaks; what a stranger gets without it, one gets with it."""
    seen = len(house.app.seen)
    for path, navigation in PAGES:
        found = ask(house, path, cookie, navigation=navigation)
        stranger = ask(house, path, "theme=dark", navigation=navigation)
        assert found.status == stranger.status, (path, found.body[:300])
        assert found.status < 500
    assert len(house.app.seen) == seen


def test_a_cookie_with_any_byte_changed_is_anonymous(house: House, ada: Browser) -> None:
    value = ada.jar["np"]
    assert ask(house, "/api", f"np={value}").status == 200
    for n, old in enumerate(value):
        new = "B" if old == "A" else "A"
        assert ask(house, "/api", f"np={value[:n]}{new}{value[n + 1 :]}").status == 401, n
    anonymous(house, f"np={value[:9]}{'B' if value[9] == 'A' else 'A'}{value[10:]}")


def test_a_cookie_that_was_cut_or_lengthened_is_anonymous(house: House, ada: Browser) -> None:
    value = ada.jar["np"]
    for n in range(len(value)):
        assert ask(house, "/api", f"np={value[:n]}").status == 401, n
    for more in ("A", "=", "==", ".", "%00", "AAAA", value):
        assert ask(house, "/api", f"np={value}{more}").status == 401, more
    anonymous(house, f"np={value[: len(value) // 2]}")


def test_a_doubled_cookie_is_anonymous(house: House, ada: Browser) -> None:
    value = ada.jar["np"]
    anonymous(house, f"np={value}; np={value}")
    anonymous(house, f"np={value}; theme=dark; np=x")
    anonymous(house, f"np=x; np={value}")


@pytest.mark.parametrize(
    "cookie",
    [
        "np",
        "np=",
        "np= ",
        'np="',
        ";;;",
        "np=AA; Path=/",
        "np=\xff\xfe\x80",
        "np=" + "A" * 4096,
        "np=" + "%41" * 200,
        "np-flow-=x",
        "np-flow-y=x",
        "; ".join(f"np-flow-{n}={'A' * 200}" for n in range(60)),
        "__Host-np=x",
    ],
)
def test_a_cookie_that_is_none_of_ours_is_anonymous(house: House, cookie: str) -> None:
    anonymous(house, cookie)


@pytest.mark.parametrize("kib", [16, 60])
def test_a_long_cookie_is_anonymous(house: House, kib: int) -> None:
    anonymous(house, "np=" + "A" * (kib * 1024))


def test_a_cookie_of_64_kib_is_a_431_everywhere(house: House) -> None:
    for path, navigation in PAGES:
        assert ask(house, path, "np=" + "A" * 65536, navigation=navigation).status == 431
        many = "; ".join(f"c{n}={'x' * 1000}" for n in range(66))
        assert ask(house, path, many, navigation=navigation).status == 431
    assert house.browser().get("/api").status == 401  # and it goes on serving


@pytest.mark.parametrize("raw", [b"np=\x00", b"np=a\x01b", b"np=a\x7fb", b"np=a\rb"])
def test_control_bytes_in_a_cookie_are_a_400(house: House, raw: bytes) -> None:
    assert ask(house, "/api", raw).status == 400


def test_a_cookie_of_another_place_or_key_is_anonymous(house: House, ada: Browser, tmp_path: Path) -> None:
    with House(tmp_path) as elsewhere:
        anonymous(elsewhere, ada.cookie)  # another origin, another key
        bob = elsewhere.somebody()
        anonymous(house, bob.cookie)
        elsewhere.replica.stop()
        key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        elsewhere.replica.env["NIGHTPORTER_COOKIE_KEYS"] = key
        elsewhere.replica.start()
        anonymous(elsewhere, bob.cookie)  # the same origin, another key
        assert bob.visit("/page").user  # one sign-in, and all is well


def test_a_cookie_that_holds_for_another_origin_of_ours_does_not_hold_here(tmp_path: Path) -> None:
    with House(tmp_path, start=False) as two:
        port = two.replica.port
        two.replica.env["NIGHTPORTER_PUBLIC_URL"] = f"{two.url} http://localhost:{port}"
        two.replica.start()
        ada = two.somebody()
        assert ada.get("/api").status == 200
        assert ada.get("/api", headers={"Host": f"localhost:{port}"}).status == 401


# -- configurations --

WRONG = {
    "NIGHTPORTER_ISSUER": "login.example.com",
    "NIGHTPORTER_CLIENT_ID": "",
    "NIGHTPORTER_CLIENT_SECRET": "",
    "NIGHTPORTER_UPSTREAM": "127.0.0.1:9000",
    "NIGHTPORTER_PUBLIC_URL": "https://app.example.com/app",
    "NIGHTPORTER_LISTEN": ":8080",
    "NIGHTPORTER_STORE": "postgres://db",
    "NIGHTPORTER_COOKIE_KEYS": "c2hvcnQtY2FuYXJ5",
    "NIGHTPORTER_IDLE_S": "soon",
    "NIGHTPORTER_TRUSTED_PROXIES": "10.0.0.300/8",
    "NIGHTPORTER_ALLOW": "group:",
    "NIGHTPORTER_SCOPE": "openid",
}
"""Twelve mistakes; the line of each begins with the setting (or the variable, where there is none)."""

LINES = (
    "issuer: ",
    "client_id: ",
    "client_secret: ",
    "upstream: ",
    "public_url: ",
    "listen: ",
    "store: ",
    "cookie_keys: ",
    "idle_s: ",
    "trusted_proxies: ",
    "allow: ",
    "NIGHTPORTER_SCOPE",
)


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_wrong_configuration_ends_with_2_and_all_of_its_mistakes_at_once(command: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTPORTER_")}
    done = subprocess.run(
        [sys.executable, "-m", "proxy", command],
        env={**env, **WRONG, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    lines = [line.removeprefix("  - ") for line in done.stderr.splitlines() if line.startswith("  - ")]
    for start in LINES:
        assert sum(line.startswith(start) for line in lines) == 1, (start, lines)
    for line in lines:
        assert "; " in line, line  # what is wrong, and what to do
    assert len(lines) == len(LINES)
    assert "c2hvcnQtY2FuYXJ5" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
