"""toxiproxy as a process of its own: latency, black holes and cuts of whole connections.

Its source is github.com/Shopify/toxiproxy; `scripts/install-test-tools` builds it where Go is. What it cannot
do (this command, that reply) `faults.FaultProxy` does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.redis.servers import READY_S, until

BUILT = Path(__file__).parents[2] / "build" / "tools" / "toxiproxy-server"


class Toxiproxy:
    """One toxiproxy before one Redis. Context manager.

    Args:
        upstream_port: where Redis listens.

    Attributes:
        port: where clients connect.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._control = free_port()
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Toxiproxy:
        program = str(BUILT) if BUILT.exists() else shutil.which("toxiproxy-server")
        if program is None:
            pytest.fail("toxiproxy-server is not installed; with Go, `make test-tools` builds it")
        self._process = subprocess.Popen(
            [program, "-host", "127.0.0.1", "-port", str(self._control)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._listens, "toxiproxy listens")
        self._ask(
            "POST",
            "/proxies",
            {
                "name": "redis",
                "listen": f"127.0.0.1:{self.port}",
                "upstream": f"127.0.0.1:{self._upstream_port}",
            },
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(READY_S)

    def latency(self, ms: int) -> None:
        """Every piece of a reply comes this late."""
        self._toxic("latency", "downstream", {"latency": ms})

    def black_hole(self) -> None:
        """Nothing arrives any more, and nothing is closed."""
        self._toxic("timeout", "upstream", {"timeout": 0})
        self._toxic("timeout", "downstream", {"timeout": 0})

    def cut_after(self, count: int) -> None:
        """Close the connection once this many bytes of replies have passed."""
        self._toxic("limit_data", "downstream", {"bytes": count})

    def down(self) -> None:
        """Break all connections; new ones are refused."""
        self._ask("POST", "/proxies/redis", {"enabled": False})

    def up(self) -> None:
        self._ask("POST", "/proxies/redis", {"enabled": True})

    def heal(self) -> None:
        """All toxics gone, and up. Connections that a black hole swallowed are broken."""
        self._ask("POST", "/reset", {})

    def _toxic(self, kind: str, stream: str, attributes: dict[str, int]) -> None:
        body = {"name": f"{kind}_{stream}", "type": kind, "stream": stream, "attributes": attributes}
        self._ask("POST", "/proxies/redis/toxics", body)

    def _listens(self) -> bool:
        self._ask("GET", "/version", None)
        return True

    def _ask(self, method: str, path: str, body: dict[str, object] | None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=10)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            text = response.read()
            assert response.status < 300, (path, response.status, text)
        finally:
            connection.close()


@contextlib.contextmanager
def toxiproxy(upstream_port: int) -> Iterator[Toxiproxy]:
    """A running toxiproxy; see there."""
    with Toxiproxy(upstream_port) as proxy:
        yield proxy
