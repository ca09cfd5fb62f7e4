"""What the image's tests share: a container as the documentation says to run it, an app behind it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from proxy.demo.visitor import NAVIGATION, Reply, Visitor
from tests.image.engine import Engine
from tests.op.scripted import ScriptedOP
from tests.ports import free_port
from tests.waiting import until

HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "128m", "--pids-limit", "64"),
)
"""No --tmpfs on purpose: nothing is written but what is mounted."""

COOKIE_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
LIMIT_S = 60.0


class _Handler(BaseHTTPRequestHandler):
    server: App
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        if self.path.startswith("/slow"):
            self.server.reached.set()
            self.server.go_on.wait(LIMIT_S)
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class App(ThreadingHTTPServer):
    """Answers with the header fields it got; `/slow` waits until `go_on` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reached, self.go_on = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Container:
    """Nightporter's image as a container, on the host's network: its loopback is the test's.

    Args:
        settings: variables besides the addresses.
        mounts: host directory → path in the container.
        port: where it listens; 0 = a free one.
    """

    def __init__(
        self,
        engine: Engine,
        image: str,
        settings: Mapping[str, str],
        *,
        mounts: Mapping[Path, str] | None = None,
        port: int = 0,
    ) -> None:
        self._engine = engine
        self.port, self.operations = port or free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        variables = {
            "NIGHTPORTER_PUBLIC_URL": self.url,
            "NIGHTPORTER_LISTEN": f"127.0.0.1:{self.port}",
            "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{self.operations}",
            **settings,
        }
        options = [part for pair in variables.items() for part in ("--env", "=".join(pair))]
        options += [part for host, path in (mounts or {}).items() for part in ("--volume", f"{host}:{path}")]
        self.id = engine.run("run", "--detach", "--network", "host", *HARDENED, *options, image)
        until(lambda: self.probe("/readyz") == 200, what="ready")

    def probe(self, path: str) -> int:
        """The status of a path of the operations port; 0 = it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.operations, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            assert self.state("Running") == "true", self.log()
            return 0
        finally:
            connection.close()

    def state(self, name: str) -> str:
        return self._engine.run("inspect", "--format", "{{.State." + name + "}}", self.id)

    def log(self) -> str:
        done = self._engine.ask("logs", self.id)
        return done.stdout + done.stderr

    def memory_mib(self) -> float:
        """What the engine counts for it: anonymous memory and files in use."""
        text = self._engine.run("stats", "--no-stream", "--format", "{{.MemUsage}}", self.id).split("/")[0]
        number = float(text.strip().rstrip("KMGiB"))
        return number * {"K": 1 / 1024, "M": 1, "G": 1024}[text.strip().lstrip("0123456789.")[0]]

    def terminate(self) -> None:
        self._engine.run("kill", "--signal", "TERM", self.id)

    def exit_status(self) -> int:
        """Waits for its end."""
        return int(self._engine.run("wait", self.id))

    def remove(self) -> None:
        self._engine.ask("rm", "--force", self.id)


def settings_for(op: ScriptedOP, app: App) -> dict[str, str]:
    return {
        "NIGHTPORTER_ISSUER": op.issuer,
        "NIGHTPORTER_CLIENT_ID": op.client_id,
        "NIGHTPORTER_CLIENT_SECRET": op.client_secret,
        "NIGHTPORTER_SCOPES": "openid profile email offline_access",
        "NIGHTPORTER_UPSTREAM": f"http://127.0.0.1:{app.server_port}",
        "NIGHTPORTER_COOKIE_KEYS": COOKIE_KEY,
    }


def come_in(visitor: Visitor, url: str, forms: Callable[[Reply], Reply] | None = None) -> Reply:
    """Follow the redirects of a sign-in to the page that it began with.

    Args:
        forms: fills in the provider's forms, from its first page to the answer that leads back.
    """
    reply = visitor.get(url, NAVIGATION)
    for _ in range(10):
        if reply.redirect:
            reply = visitor.get(reply.redirect, NAVIGATION)
        elif forms is not None and not reply.url.startswith(url.rsplit("/", 1)[0]):
            reply = forms(reply)
        else:
            return reply
    raise AssertionError("redirects without end")
