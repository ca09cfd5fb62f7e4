"""`nightporter serve` as a process of its own, an app behind it, and a person in front of it."""

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from proxy.demo.visitor import PROGRAM, Reply, Visitor, forms


class OP(Protocol):
    """A real provider that runs."""

    @property
    def settings(self) -> dict[str, str]: ...

    def sign_in(self, visitor: Visitor, page: Reply, name: str) -> Reply: ...


class _Echo(BaseHTTPRequestHandler):
    """The app: answers with the header fields that it got."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        raw = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


class App(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def until(check: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Wait for an event that only asking shows; fails after `limit_s`."""
    end = time.monotonic() + limit_s
    wait = threading.Event()
    while not check():
        assert time.monotonic() < end, "it never happened"
        wait.wait(0.02)


def together(work: Callable[[int], None], count: int) -> None:
    """Run `work(0…count-1)` at the same time; the first failure is raised."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(n: int) -> None:
        try:
            barrier.wait(60)
            work(n)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    if failures:
        raise failures[0]


class Porter:
    """`nightporter serve` in front of an app; `url` is known before it starts.

    Args:
        home: its store and its log.
    """

    def __init__(self, home: Path) -> None:
        self.app = App()
        self.port, self._operations = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = home
        self.log = home / "nightporter.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, settings: Mapping[str, str]) -> None:
        """Start it and wait until it is ready."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTPORTER_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "serve"],
            env={
                **environ,
                "NIGHTPORTER_UPSTREAM": self.app.url,
                "NIGHTPORTER_PUBLIC_URL": self.url,
                "NIGHTPORTER_LISTEN": f"127.0.0.1:{self.port}",
                "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{self._operations}",
                "NIGHTPORTER_STORE": f"sqlite:{self._home / 'sessions.db'}",
                "NIGHTPORTER_PASS_ACCESS_TOKEN": "true",
                **settings,
            },
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
        )
        until(self._ready)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._operations, timeout=5)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one kind."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def stop(self) -> int:
        """End it; its exit status."""
        self.app.stop()
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@dataclass
class Person:
    """Somebody with a browser.

    Attributes:
        porter: what they visit.
        op: where they have an account.
        name: of the account.
    """

    porter: Porter
    op: OP
    name: str = "ada"
    browser: Visitor = field(default_factory=Visitor)

    def sign_in(self, path: str = "/page?x=1") -> Reply:
        """From a page that needs a session, through the OP's forms, back to that page."""
        start = self.browser.get(self.porter.url + path)
        assert start.redirect.startswith(self.porter.url + "/oauth2/login"), (start.status, start.text[:500])
        at_op = self.browser.follow(start)
        back = self.op.sign_in(self.browser, at_op, self.name)
        assert back.redirect.startswith(self.porter.url + "/oauth2/callback"), (back.status, back.redirect)
        page = self.browser.follow(back)
        assert page.url == self.porter.url + path, (page.url, page.status, page.text[:1000])
        assert page.status == 200
        return page

    def ask(self, path: str = "/page") -> Reply:
        """A request of a page's script."""
        return self.browser.get(self.porter.url + path, PROGRAM)

    def headers(self) -> dict[str, str]:
        """What the app is told."""
        reply = self.ask()
        assert reply.status == 200, (reply.status, reply.text[:500])
        return json.loads(reply.body)

    def session(self) -> dict[str, Any]:
        """What the product tells the person; {} if they are signed out."""
        reply = self.ask("/oauth2/session")
        return json.loads(reply.body) if reply.status == 200 else {}

    def outlive_the_token(self) -> None:
        """Wait until the access token in the session is over, asking for nothing that renews it."""
        until(lambda: self.session()["access_token"]["expires_in_s"] <= 0)
        whole = time.monotonic() + 1.0  # the page tells whole seconds, rounded down
        until(lambda: time.monotonic() > whole)

    def sign_out(self) -> Reply:
        """Press the button of the sign-out page; the answer that leads to the OP (or home)."""
        page = self.browser.get(self.porter.url + "/oauth2/logout")
        form = forms(page.text)[0]
        return self.browser.post(self.porter.url + form.action, form.fields)
