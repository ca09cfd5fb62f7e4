"""An open WebSocket and an open event stream end with their session, however that ends: the one with
1001, the other with an end that a client takes for one. Somebody else's go on.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.browser import Browser
from tests.scenarios.house import House, until
from tests.scenarios.test_request_path import SOCKET, head_of

GOING_AWAY = b"\x88\x02\x03\xe9"
LAST_CHUNK = b"0\r\n\r\n"


def rest(sock: socket.socket) -> bytes:
    """Everything up to an orderly end; a reset fails."""
    sock.settimeout(60)
    found = b""
    while data := sock.recv(65_536):
        found += data
    return found


def opened(house: House, who: Browser) -> tuple[socket.socket, socket.socket]:
    """A WebSocket and an event stream of somebody's."""
    sock = who.send("/ws", headers={**SOCKET, "Origin": house.url})
    assert head_of(sock).startswith(b"HTTP/1.1 101")
    stream = who.send("/events")
    assert head_of(stream).startswith(b"HTTP/1.1 200")
    return sock, stream


def end_user(house: House) -> None:
    """What an operator does, beside the running service."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTPORTER_")}
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "sessions", "end-user", house.op.issuer, "ada-1"],
        env={**env, **house.replica.env},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def active(who: Browser) -> None:
    """Ask for something, and wait until that counts as activity in the store."""
    assert who.get("/a").status == 200
    until(lambda: who.session()["idles_out_in_s"] > 700)


@pytest.mark.parametrize("how", ["sign-out", "operator", "idle", "absolute"])
def test_a_session_that_ends_takes_its_tunnel_and_its_stream_along(tmp_path: Path, how: str) -> None:
    env = {"NIGHTPORTER_IDLE_S": "900", "NIGHTPORTER_ABSOLUTE_S": "3600"}
    with House(tmp_path, env=env, life_s=7200) as house:
        ada = house.somebody()
        house.advance(300)
        bob = house.somebody("bob-2")
        ours, theirs = opened(house, ada), opened(house, bob)
        until(lambda: (house.app.tunnels, house.app.streams) == (2, 2))
        if how == "sign-out":
            assert ada.post("/oauth2/logout").status == 200
        elif how == "operator":
            end_user(house)
        elif how == "idle":
            house.advance(500)
            active(bob)
            house.advance(450)
        else:
            for _ in range(4):
                house.advance(700)
                active(ada)
                active(bob)
            house.advance(510)
        assert rest(ours[0]) == GOING_AWAY
        assert rest(ours[1]).endswith(LAST_CHUNK)
        until(lambda: (house.app.tunnels, house.app.streams) == (1, 1))
        theirs[0].sendall(b"still")
        assert theirs[0].recv(5) == b"still"
        house.app.emit("still")
        assert b"data: still" in theirs[1].recv(65_536)
        for sock in (*ours, *theirs):
            sock.close()


def test_a_grant_that_the_provider_ended_takes_them_along_without_any_request(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        sock, stream = opened(house, ada)
        until(lambda: (house.app.tunnels, house.app.streams) == (1, 1))
        house.op.end_grants()
        house.expire()
        assert rest(sock) == GOING_AWAY
        assert rest(stream).endswith(LAST_CHUNK)
        until(lambda: (house.app.tunnels, house.app.streams) == (0, 0))
        assert ada.get("/a").status == 401
        sock.close()
        stream.close()
