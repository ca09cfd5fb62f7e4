"""J: the request path while tokens are renewed, lost, or absent."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.op.scripted import Gate, Script
from tests.scenarios.app import Answer
from tests.scenarios.browser import NAVIGATION, Browser, Reply, read_reply
from tests.scenarios.house import House, until

SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    env = {"NIGHTPORTER_PUBLIC_PATHS": "/open/"}
    with House(tmp_path_factory.mktemp("house"), env=env) as house:
        yield house


def ended(sock: socket.socket) -> bool:
    """Whether the other side ended the connection; reads what is left."""
    sock.settimeout(30)
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(65536):
            pass
    return True


def head_of(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(1)
        assert more, data
        data += more
    return data


def tunnel(house: House, browser: Browser) -> socket.socket:
    """An open WebSocket through the proxy."""
    sock = browser.send("/ws", headers={**SOCKET, "Origin": house.url})
    assert head_of(sock).startswith(b"HTTP/1.1 101")
    sock.sendall(b"ping")
    assert sock.recv(4) == b"ping"
    return sock


def test_j1_a_verdict_is_told_to_every_kind_of_request_in_its_own_way(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        stream = ada.send("/events")
        assert head_of(stream).startswith(b"HTTP/1.1 200")
        until(lambda: house.app.streams == 1)
        house.op.end_grants()
        house.expire()
        told = ada.get("/api")
        assert (told.status, told.json["reason"]) == (401, "invalid_grant")
        assert told.get("content-type") == "application/problem+json"
        assert told.get("www-authenticate").startswith("Nightporter ")
        assert told.get("x-nightporter-reason") == "invalid_grant"
        assert told.json["login"] == "/oauth2/login"
        page = ada.get("/page?a=b&c=%2F", navigation=True)
        assert page.status == 302
        target = urlsplit(page.get("location"))
        assert target.path == "/oauth2/login"
        assert parse_qs(target.query)["rd"] == ["/page?a=b&c=%2F"]
        assert ada.get("/page", headers={**NAVIGATION, "Sec-Purpose": "prefetch"}).status == 401
        assert ada.post("/api", b"{}").status == 401
        ajax = {"Accept": "text/html", "X-Requested-With": "XMLHttpRequest", "Sec-Fetch-Mode": "cors"}
        assert ada.get("/api", headers=ajax).status == 401
        socket_reply = ada.get("/ws", headers={**SOCKET, "Origin": house.url})
        assert socket_reply.status == 401
        preflight = {"Origin": "https://other.example", "Access-Control-Request-Method": "PUT"}
        assert house.browser().ask("OPTIONS", "/api", headers=preflight).status == 401
        events = ada.get("/events", headers={"Accept": "text/event-stream"})
        assert events.status == 401
        assert not any(reply.all("set-cookie") for reply in (told, page, socket_reply, events))
        assert house.app.tunnels == 0
        assert ended(stream)
        until(lambda: house.app.streams == 0)


SPOOFS = {
    "X-Forwarded-User": "root",
    "x-forwarded-user": "root",
    "X_Forwarded_User": "root",
    "X.Forwarded.User": "root",
    "X-FORWARDED-EMAIL": "root@example.com",
    "X-Forwarded-Groups": "admins",
    "X-Auth-Request-User": "root",
    "X_Auth_Request_Email": "root@example.com",
    "X-Forwarded-Access-Token": "at-forged",
    "Remote-User": "root",
}


@pytest.mark.parametrize("where", ["protected", "public", "preflight", "websocket"])
def test_j2_spoofed_identity_reaches_the_app_on_no_path(shared: House, where: str) -> None:
    house = shared
    ada = house.somebody() if where in ("protected", "websocket") else house.browser()
    lines = [f"{name}: {value}" for name, value in SPOOFS.items() for _ in range(2)]
    path = f"/open/{where}" if where in ("public", "preflight") else f"/private/{where}"
    method = "OPTIONS" if where == "preflight" else "GET"
    more = [f"{n}: {v}" for n, v in (SOCKET | {"Origin": house.url}).items()] if where == "websocket" else []
    connection = [] if where == "websocket" else ["Connection: close, X-Forwarded-User, X-Forwarded-Email"]
    top = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(house.url).netloc}"]
    if ada.jar:
        top.append(f"Cookie: {ada.cookie}")
    with socket.create_connection(("127.0.0.1", house.replica.port), 30) as sock:
        sock.sendall("\r\n".join([*top, *lines, *more, *connection, "", ""]).encode())
        head_of(sock)
    until(lambda: house.app.reached(path))
    [seen] = house.app.reached(path)
    assert seen.all("x-forwarded-user") == (["ada-1"] if ada.jar else [])
    for value in ("root", "root@example.com", "admins", "at-forged"):
        assert value not in dict(seen.headers).values()


def test_j3_an_upload_at_an_expiry_waits_unread_and_then_streams(tmp_path: Path) -> None:
    total = 32 * 1024 * 1024
    with House(tmp_path) as house:
        ada = house.somebody()
        house.expire()
        held = Gate()
        house.op.script_next(Script(before=held), "refresh")
        chunk = b"x" * 65536
        with socket.create_connection(("127.0.0.1", house.replica.port), 30) as sock:
            sock.sendall(
                f"POST /upload HTTP/1.1\r\nHost: x\r\nCookie: {ada.cookie}\r\nOrigin: {house.url}\r\n"
                f"Content-Length: {total}\r\nConnection: close\r\n\r\n".encode()
            )
            held.wait_reached()
            sent = 0
            sock.settimeout(1.0)
            with contextlib.suppress(TimeoutError):  # nobody takes more: the sockets between us are full
                while sent < total:
                    sent += sock.send(chunk[: total - sent])
            assert sent < total
            assert not house.app.reached("/upload")
            held.open()
            sock.settimeout(60)
            while sent < total:
                sent += sock.send(chunk[: total - sent])
            raw = b""
            while data := sock.recv(65536):
                raw += data
        reply = read_reply(raw)
        assert (reply.status, reply.json["body_bytes"]) == (200, total)
        assert len(house.app.reached("/upload")) == 1
        assert len(house.op.refreshes()) == 1


def test_j4_a_websocket_outlives_its_access_token_and_ends_with_its_session(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        sock = tunnel(house, ada)
        stream = ada.send("/events")
        assert head_of(stream).startswith(b"HTTP/1.1 200")
        until(lambda: house.app.streams == 1)
        for _ in range(3):
            house.expire()
            assert ada.get("/a").status == 200
            sock.sendall(b"still")
            assert sock.recv(5) == b"still"
            house.app.emit("still")
        assert ada.post("/oauth2/logout").status == 200
        assert ended(sock)
        assert ended(stream)
        until(lambda: house.app.tunnels == 0 and house.app.streams == 0)


def login_tab(ada: Browser, path: str) -> str:
    """Start a sign-in for a page; the OP's address that the tab was sent to."""
    there = ada.get(path, navigation=True)
    away = ada.get(there.get("location"), navigation=True)
    assert away.status == 302
    return away.get("location")


def answered(ada: Browser, address: str) -> str:
    """The OP's answer to a tab: the callback's address."""
    parts = urlsplit(address)
    assert parts.port is not None
    other = Browser(f"{parts.scheme}://{parts.netloc}", [parts.port])
    location = other.get(f"{parts.path}?{parts.query}", navigation=True).get("location")
    return location.removeprefix(ada.url)


def test_j5_twenty_tabs_sign_in_side_by_side_each_with_a_state_of_its_own(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.browser()
        tabs = [login_tab(ada, f"/page/{n}") for n in range(20)]
        states = [parse_qs(urlsplit(address).query)["state"][0] for address in tabs]
        assert len(set(states)) == 20
        assert len([name for name in ada.jar if name.startswith("np-flow-")]) == 5
        assert len(ada.cookie) < 4096 + 512
        for n in (19, 15, 17):  # whatever the order, each tab comes to its own page
            back = ada.get(answered(ada, tabs[n]), navigation=True)
            assert (back.status, back.get("location")) == (302, f"{house.url}/page/{n}")
            assert ada.get(f"/page/{n}").status == 200
        home = ada.get(answered(ada, tabs[0]), navigation=True)  # dropped long ago: signed in anyway
        assert (home.status, home.get("location")) == (302, house.url + "/")
        stranger = house.browser()  # another browser's callback signs nobody in
        refused = stranger.get(answered(ada, tabs[16]), navigation=True)
        assert refused.status == 400
        assert stranger.get("/a").status == 401


@pytest.mark.parametrize(
    "rd", ["https://evil.example.net/", "//evil.example.net/", "/\\evil.example.net", "/oauth2/logout", "x:y"]
)
def test_j5_a_return_target_is_a_local_path_and_none_of_ours(shared: House, rd: str) -> None:
    back = shared.browser().visit(f"/oauth2/login?rd={quote(rd, safe='')}")
    assert (back.status, back.url) == (200, shared.url + "/")


def test_j7_no_cache_ever_holds_one_persons_page_for_another(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.app.answers["/public"] = Answer(
            200, [("Cache-Control", "public, s-maxage=600"), ("Content-Type", "text/plain")], b"shared"
        )
        ada = house.browser()
        ada.sign_in()
        assert ada.get("/a").get("cache-control") == "private"
        told = ada.get("/public").get("cache-control")
        assert "public" not in told
        assert "s-maxage" not in told
        stranger = house.browser()
        to_login = stranger.get("/page", navigation=True)
        for reply in (
            stranger.get("/a"),
            to_login,
            stranger.get(to_login.get("location"), navigation=True),
            ada.get("/oauth2/session"),
            ada.get("/oauth2/logout", navigation=True),
            ada.post("/oauth2/logout"),
        ):
            assert reply.get("cache-control") == "no-store", reply.url


def test_j8_a_verdict_on_an_old_token_does_not_outlive_the_next_sign_in(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        other = house.browser()
        other.jar = dict(ada.jar)
        house.expire()
        house.op.end_grants()
        assert ada.get("/a").status == 401
        ada.sign_in()
        assert {reply.status for reply in ada.burst(20)} == {200}
        house.expire()
        assert {reply.status for reply in ada.burst(20)} == {200}
        assert other.get("/a").status == 401  # the old session stays ended


def test_j8_a_renewal_asked_for_by_hand_has_a_floor(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        early: Reply = ada.post("/oauth2/session/refresh")
        assert json.loads(early.body)["result"] == "too_soon"
        house.advance(20)
        assert ada.post("/oauth2/session/refresh").json["result"] == "refreshed"
        assert ada.post("/oauth2/session/refresh").json["result"] == "too_soon"
        assert len(house.op.refreshes()) == 1
