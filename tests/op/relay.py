"""`Relay`: stands in front of a real OP, passes everything on, and keeps the ledger.

Every real provider is seen through one, so that all of them can be asked the same: which token
calls came, with which refresh token, and what the provider itself answered. It adds no
behaviour, but it can lose an answer on the way back: the provider has processed the call,
and the caller never learns of it.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

LIMIT_S = 60.0
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}


@dataclass(slots=True)
class Call:
    """One POST to the provider, and what it answered.

    Attributes:
        path: without the query.
        form: what was sent, by field.
        status: of the provider's answer.
        reply: its JSON, {} if it is none.
        lost: the caller never got the answer.
        at: when it came, on the clock of `time.monotonic`.
    """

    path: str
    form: dict[str, str] = field(repr=False)
    status: int
    reply: dict[str, Any] = field(repr=False)
    lost: bool
    at: float

    @property
    def grant(self) -> str:
        """The grant type; "" for anything but a token call."""
        return self.form.get("grant_type", "")

    @property
    def error(self) -> str:
        return str(self.reply.get("error", ""))


class Relay(ThreadingHTTPServer):
    """See the module's docstring. Its address is the provider's issuer, so it comes first.

    Attributes:
        upstream: the provider's port, once it is known.
        calls: every POST so far, in the order of the answers.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = 0
        self.calls: list[Call] = []
        self._lose: list[str] = []
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, name="relay", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def refreshes(self, since: int = 0) -> list[Call]:
        """The refresh calls among `calls[since:]`."""
        return [call for call in self.calls[since:] if call.grant == "refresh_token"]

    def posts(self, path: str, since: int = 0) -> list[Call]:
        """The POSTs to one path among `calls[since:]`."""
        return [call for call in self.calls[since:] if call.path == path]

    def lose_next(self, grant: str = "refresh_token") -> None:
        """The answer to the next token call with this grant is lost."""
        with self._lock:
            self._lose.append(grant)

    def note(self, call: Call) -> None:
        with self._lock:
            if call.grant in self._lose:
                self._lose.remove(call.grant)
                call.lost = True
            self.calls.append(call)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Relay
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        self._pass(None)

    def do_POST(self) -> None:
        self._pass(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _pass(self, body: bytes | None) -> None:
        asked_at = time.monotonic()
        fields = [(name, value) for name, value in self.headers.items() if name.lower() not in _HOP]
        status, headers, answer = forward(self.server.upstream, self.command, self.path, fields, body)
        if body is not None:
            call = Call(self.path.partition("?")[0], _form(body), status, _json(answer), False, asked_at)
            self.server.note(call)
            if call.lost:
                self.close_connection = True
                self.connection.close()
                return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def forward(
    port: int, method: str, target: str, fields: Sequence[tuple[str, str]], body: bytes | None
) -> tuple[int, list[tuple[str, str]], bytes]:
    """One request to a loopback port with exactly these fields, Host among them; the whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in fields:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.putheader("Connection", "close")
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()
    finally:
        connection.close()


def _form(body: bytes) -> dict[str, str]:
    try:
        return {name: values[0] for name, values in parse_qs(body.decode()).items()}
    except UnicodeDecodeError:
        return {}


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
