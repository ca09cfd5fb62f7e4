"""What the limits did at each listener, told apart."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.scenarios.house import House, free_port


def refused(port: int) -> bytes:
    """The answer to what is no request."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(b"no request\r\n\r\n")
        return sock.recv(12)


def test_what_the_limits_did_is_counted_by_listener(tmp_path: Path) -> None:
    engines = free_port()
    with House(tmp_path, env={"NIGHTPORTER_FORWARD_AUTH_LISTEN": f"127.0.0.1:{engines}"}) as house:
        for _ in range(2):
            assert refused(engines) == b"HTTP/1.1 400"
        assert refused(house.replica.port) == b"HTTP/1.1 400"
        for listener, count in {"forward_auth": 2, "public": 1}.items():
            said = {"listener": listener, "status": "400"}
            assert house.replica.metric("nightporter_requests_rejected_total", **said) == count
            taken = {"listener": listener, "result": "accepted"}
            assert house.replica.metric("nightporter_connections_taken_total", **taken) == count


def test_no_listener_no_figures(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        assert 'listener="public"' in house.replica.operations("/metrics").text
        assert "forward_auth" not in house.replica.operations("/metrics").text
