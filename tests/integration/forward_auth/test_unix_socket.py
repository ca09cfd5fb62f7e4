"""The answers to an engine on a unix socket: nobody else on the network can ask there."""

from __future__ import annotations

import http.client
import socket
import stat
from pathlib import Path

import pytest

from tests.integration.forward_auth.engines import EngineProcess, Ports
from tests.scenarios.browser import Browser
from tests.scenarios.house import House, free_port

pytestmark = pytest.mark.timeout(120)


class ByUnix(http.client.HTTPConnection):
    """HTTP to a unix socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.host)


def test_an_engine_asks_over_a_unix_socket(tmp_path: Path) -> None:
    """nginx with the shipped configuration, but for the address that its comments name."""
    engine, path = free_port(), tmp_path / "answers.sock"
    env = {
        "NIGHTPORTER_UPSTREAM": "",
        "NIGHTPORTER_PUBLIC_URL": f"http://127.0.0.1:{engine}",
        "NIGHTPORTER_FORWARD_AUTH_LISTEN": f"unix:{path}",
        "NIGHTPORTER_FORWARD_AUTH_ENGINE": "nginx",
    }
    with House(tmp_path / "house", env=env) as house:
        assert stat.S_ISSOCK(path.stat().st_mode)
        asked = ByUnix(str(path))
        for fields, status in (
            ({"X-Original-Method": "GET", "X-Original-URI": "/a"}, 401),
            ({"X-Original-Method": "GET"}, 403),
            ({"X-Original-Method": "GET", "X-Forwarded-Uri": "/a"}, 403),
        ):
            asked.request("GET", "/", headers={"Host": "127.0.0.1", **fields})
            answer = asked.getresponse()
            answer.read()
            assert answer.status == status, fields
        asked.close()
        ports = Ports(engine, house.replica.port, f"unix:{path}", house.app.port)
        with EngineProcess("nginx", tmp_path / "engine", ports):
            ada = Browser(f"http://127.0.0.1:{engine}", [engine])
            ada.sign_in()
            reply = ada.get("/what")
            assert (reply.status, reply.user) == (200, house.op.user["sub"])
            assert ada.get("/what", headers={"X-Original-URI": "/other"}).json["target"] == "/what"
            ada.jar.clear()
            assert ada.get("/what").status == 401
