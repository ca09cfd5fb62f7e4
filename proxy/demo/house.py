"""The demo's processes: an OP, an app, Nightporter between them (or two, behind a balancer)."""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.demo.failed import DemoFailed
from proxy.demo.op import CLIENT_ID
from proxy.demo.op_requests import SCOPES
from proxy.demo.ports import Ports

READY_S = 30.0
END_S = 10.0


@dataclass(slots=True)
class Child:
    """A process of ours and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self, lines: int = 12) -> str:
        text = self.log.read_text(errors="replace").rstrip()
        return "\n".join("    " + line for line in text.splitlines()[-lines:])


class House:
    """The three processes, from start to end.

    Args:
        ports: where they listen.
        life_s: life of an access token.
        home: a directory of this run: the session store and the logs.
        store: a Redis for two proxies behind a balancer; "" = one proxy on a file.
    """

    def __init__(self, ports: Ports, life_s: int, home: Path, store: str = "") -> None:
        self._ports = ports
        self._store = store
        self._prefix = f"np-demo-{secrets.token_hex(4)}:"
        self._cookie_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        self._life_s = life_s
        self._home = home
        self._secret = secrets.token_urlsafe(32)
        self._children: list[Child] = []
        self.public_url = f"http://127.0.0.1:{ports.front}"
        # Another *host* than the app's: cookies know no ports, and a provider is another site.
        self.issuer = f"http://localhost:{ports.op}"

    def start(self) -> None:
        """Start everything and wait until it answers.

        Raises:
            DemoFailed: a child ended or did not become ready.
        """
        ports = self._ports
        op = [
            *(sys.executable, "-m", "proxy.demo.op", "--port", str(ports.op)),
            *("--client-origin", self.public_url, "--life-s", str(self._life_s)),
        ]
        self._spawn("provider", op, {"DEMO_OP_CLIENT_SECRET": self._secret})
        self._spawn("app", [sys.executable, "-m", "proxy.demo.app", "--port", str(ports.app)], {})
        self._await_ready(ports.op, "/.well-known/openid-configuration")
        self._await_ready(ports.app, "/healthz")
        serve = [sys.executable, "-m", "proxy", "serve"]
        if not self._store:
            self._spawn("nightporter", serve, self.configuration())
            self._await_ready(ports.operations, "/readyz")
            return
        one, other, operations = ports.others
        self._spawn("nightporter-1", serve, self.configuration() | _listening(one, ports.operations))
        self._spawn("nightporter-2", serve, self.configuration() | _listening(other, operations))
        balancer = [sys.executable, "-m", "proxy.demo.balancer", "--port", str(ports.front)]
        self._spawn("balancer", [*balancer, "--to", str(one), str(other)], {})
        self._await_ready(ports.operations, "/readyz")
        self._await_ready(operations, "/readyz")
        if b'"store"' in (_fetch(ports.operations, "/readyz") or b""):
            raise DemoFailed(f"Redis does not answer:\n{self._children[2].last_words(3)}")

    def configuration(self) -> dict[str, str]:
        """All that `nightporter serve` is told: what anybody would write who deploys it."""
        shared = {
            "NIGHTPORTER_STORE": self._store,
            # A prefix of this run, and keys that are gone in an hour: the Redis may be in use.
            "NIGHTPORTER_STORE_PREFIX": self._prefix,
            "NIGHTPORTER_IDLE_S": "3600",
            "NIGHTPORTER_ABSOLUTE_S": "3600",
        }
        return self._alone() | (shared if self._store else {})

    def _alone(self) -> dict[str, str]:
        return {
            "NIGHTPORTER_ISSUER": self.issuer,
            "NIGHTPORTER_CLIENT_ID": CLIENT_ID,
            "NIGHTPORTER_CLIENT_SECRET": self._secret,
            "NIGHTPORTER_SCOPES": " ".join(SCOPES),
            "NIGHTPORTER_UPSTREAM": f"http://127.0.0.1:{self._ports.app}",
            "NIGHTPORTER_PUBLIC_URL": self.public_url,
            "NIGHTPORTER_LISTEN": f"127.0.0.1:{self._ports.front}",
            "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{self._ports.operations}",
            "NIGHTPORTER_STORE": f"sqlite:{self._home / 'sessions.db'}",
            "NIGHTPORTER_COOKIE_KEYS": self._cookie_key,
            "NIGHTPORTER_PASS_ACCESS_TOKEN": "true",
        }

    def ledger(self) -> dict[str, int]:
        """What the OP counted."""
        return json.loads(_fetch(self._ports.op, "/ledger") or b"{}")

    def fallen(self) -> Child | None:
        """A child that has ended although nobody asked it to; of two proxies one may."""
        ended = [child for child in self._children if child.process.poll() is not None]
        if self._store and len(ended) == 1 and ended[0].name.startswith("nightporter-"):
            return None  # somebody tries what two are for
        return next(iter(ended), None)

    def stop(self) -> None:
        """End the children, the proxy first: it finishes what is in flight while the others live."""
        while self._children:
            child = self._children.pop()
            if child.process.poll() is None:
                child.process.terminate()
                try:
                    child.process.wait(END_S)
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()

    def _spawn(self, name: str, command: Sequence[str], settings: Mapping[str, str]) -> None:
        # Settings of the caller's shell would make this another program than the one described.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NIGHTPORTER_", "DEMO_OP_"))}
        log = self._home / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603  # our own modules under our own interpreter
                command,
                env={**kept, **settings, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches a terminal's whole process group; the order of ending is ours.
                start_new_session=True,
            )
        self._children.append(Child(name, process, log))

    def _await_ready(self, port: int, path: str) -> None:
        until = time.monotonic() + READY_S
        while True:
            fallen = self.fallen()
            if fallen is not None:
                raise DemoFailed(f"The {fallen.name} ended while starting:\n{fallen.last_words()}")
            if _fetch(port, path) is not None:
                return
            if time.monotonic() > until:
                child = self._children[-1]
                raise DemoFailed(
                    f"The {child.name} was not ready within {READY_S:.0f} s:\n{child.last_words()}"
                )
            time.sleep(0.05)


def _listening(front: int, operations: int) -> dict[str, str]:
    return {
        "NIGHTPORTER_LISTEN": f"127.0.0.1:{front}",
        "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{operations}",
    }


def _fetch(port: int, path: str) -> bytes | None:
    """The body of a 200 answer on a local port, else None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if response.status == 200 else None
