"""`Browser`: a person's browser as far as a proxy can tell, and crowds of requests from it.

It keeps cookies for the app's origin as a browser does, sends fetch metadata, and follows redirects
only where `visit` is asked to. Everything is plain sockets and `http.client`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

LIMIT_S = 60.0

NAVIGATION = {
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
}
FETCH = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin", "Accept": "*/*"}


@dataclass
class Reply:
    """An answer as the browser got it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    url: str = ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str:
        """The one value of a field; "" if it is absent."""
        found = self.all(name)
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else ""

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def seen(self) -> dict[str, str]:
        """The header fields that the echo app says it got; a repeated one is an error."""
        found: dict[str, str] = {}
        for name, value in self.json["headers"]:
            assert name not in found, f"{name} reached the app twice"
            found[name] = value
        return found

    @property
    def user(self) -> str:
        """Who the app was told is calling, "" for nobody."""
        return self.seen.get("x-forwarded-user", "")

    @property
    def token(self) -> str:
        """The access token that the app was given."""
        return self.seen.get("x-forwarded-access-token", "")


@dataclass
class Browser:
    """A browser with a cookie jar for the app's origin.

    Args:
        url: the public origin.
        ports: where the replicas listen.

    Attributes:
        jar: name → value of the cookies of that origin.
        trail: status and address of every answer that `visit` went through.
    """

    url: str
    ports: Sequence[int]
    jar: dict[str, str] = field(default_factory=dict[str, str])
    trail: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    @property
    def cookie(self) -> str:
        """The Cookie line, "" if the jar is empty."""
        return "; ".join(f"{name}={value}" for name, value in self.jar.items())

    def get(
        self,
        path: str,
        *,
        replica: int = 0,
        navigation: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One GET; no redirect is followed.

        Args:
            navigation: a person goes to a page; otherwise a script fetches.
            headers: further fields, replacing those of the same name.
        """
        fields = {**(NAVIGATION if navigation else FETCH), **(headers or {})}
        return self.ask("GET", path, headers=fields, replica=replica)

    def post(
        self, path: str, body: bytes = b"", *, replica: int = 0, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """A same-origin POST, as a script of the app's sends it."""
        fields = {**FETCH, "Origin": self.url, **(headers or {})}
        return self.ask("POST", path, headers=fields, body=body, replica=replica)

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        replica: int = 0,
    ) -> Reply:
        """One request with exactly these fields, Host and the jar's cookies."""
        fields = {"Host": urlsplit(self.url).netloc, **(headers or {})}
        if self.jar:
            fields.setdefault("Cookie", self.cookie)
        reply = _ask(self.ports[replica], method, path, fields, body)
        reply.url = self.url + path
        self._keep(reply)
        return reply

    def visit(self, path: str, *, replica: int = 0, hops: int = 10) -> Reply:
        """Go to a page and follow redirects, to the OP and back, until something else comes.

        Raises:
            AssertionError: redirects without end.
        """
        url = self.url + path if path.startswith("/") else path
        for _ in range(hops):
            parts = urlsplit(url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            if url.startswith(self.url + "/") or url == self.url:
                reply = self.get(target, navigation=True, replica=replica)
            else:
                assert parts.port is not None
                reply = _ask(parts.port, "GET", target, {"Host": parts.netloc, **NAVIGATION}, None)
            reply.url = url
            self.trail.append((reply.status, url))
            if reply.status not in (301, 302, 303, 307, 308):
                return reply
            url = reply.get("location")
            if url.startswith("/"):
                url = f"{parts.scheme}://{parts.netloc}{url}"
        raise AssertionError(f"redirects without end: {self.trail}")

    def sign_in(self, path: str = "/page?x=1", *, replica: int = 0) -> Reply:
        """Go to a page that needs a session, through the OP, and arrive there signed in."""
        reply = self.visit(path, replica=replica)
        assert reply.status == 200, (reply.status, reply.url, reply.body[:2000])
        assert reply.url == self.url + path  # back where it began
        assert reply.user
        return reply

    def session(self, *, replica: int = 0) -> dict[str, Any]:
        """What `/oauth2/session` says; must be signed in."""
        reply = self.get("/oauth2/session", replica=replica)
        assert reply.status == 200, (reply.status, reply.body)
        found: dict[str, Any] = reply.json
        return found

    def send(self, path: str, *, replica: int = 0, headers: Mapping[str, str] | None = None) -> socket.socket:
        """Send a GET and leave the answer unread: for hanging up, streams and tunnels."""
        fields = {"Host": urlsplit(self.url).netloc, **FETCH, "Cookie": self.cookie, **(headers or {})}
        sock = socket.create_connection(("127.0.0.1", self.ports[replica]), LIMIT_S)
        sock.sendall(_head("GET", path, fields))
        return sock

    def burst(
        self, count: int, path: str = "/page", *, replicas: Sequence[int] = (0,), navigation: bool = False
    ) -> list[Reply]:
        """Many requests at the same moment, spread over replicas, each on a connection of its own."""
        return burst([self], count, path, replicas=replicas, navigation=navigation)

    def _keep(self, reply: Reply) -> None:
        for line in reply.all("set-cookie"):
            pair, *attributes = line.split(";")
            name, _, value = pair.partition("=")
            if not value or any(each.strip().lower() == "max-age=0" for each in attributes):
                self.jar.pop(name.strip(), None)
            else:
                self.jar[name.strip()] = value


def burst(
    browsers: Sequence[Browser],
    count: int,
    path: str = "/page",
    *,
    replicas: Sequence[int] = (0,),
    navigation: bool = False,
) -> list[Reply]:
    """`count` requests at the same moment, by browsers and replicas in turn.

    All connections are open before the first head is sent.
    """

    async def run() -> list[Reply]:
        fields = NAVIGATION if navigation else FETCH
        streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        heads: list[bytes] = []
        for n in range(count):
            browser = browsers[n % len(browsers)]
            replica = replicas[(n // len(browsers)) % len(replicas)]
            streams.append(await asyncio.open_connection("127.0.0.1", browser.ports[replica]))
            sent = {
                "Host": urlsplit(browser.url).netloc,
                **fields,
                "Cookie": browser.cookie,
                "Connection": "close",
            }
            heads.append(_head("GET", path, sent))
        for (_, writer), head in zip(streams, heads, strict=True):
            writer.write(head)
        async with asyncio.timeout(LIMIT_S):
            raw = await asyncio.gather(*(reader.read() for reader, _ in streams))
        for _, writer in streams:
            writer.close()
        return [read_reply(each) for each in raw]

    return asyncio.run(run())


def together(work: Callable[[int], None], count: int) -> None:
    """Run `work(0…count-1)` at the same time in threads; the first failure is raised."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(n: int) -> None:
        try:
            barrier.wait(30)
            work(n)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    if failures:
        raise failures[0]


def read_reply(raw: bytes) -> Reply:
    """A whole response that ended with its connection."""

    class Held(socket.socket):
        def makefile(self, *_: Any, **__: Any) -> Any:
            import io

            return io.BytesIO(raw)

    with Held() as held:
        response = http.client.HTTPResponse(held)
        response.begin()
        return Reply(response.status, response.getheaders(), response.read())


def _head(method: str, path: str, fields: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _ask(port: int, method: str, path: str, fields: Mapping[str, str], body: bytes | None) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in fields.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Reply(response.status, response.getheaders(), response.read())
    finally:
        connection.close()
