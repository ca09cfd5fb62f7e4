"""A proxy between raw sockets: a scripted app behind it, a raw client before it, a test door.

Nothing is mocked and nothing sleeps: every step waits for bytes, for an end, or for an
event. Time-outs are tried by calling the sweep with a time of our choice.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from proxy.core.cookies import names_for
from proxy.core.gate import Answer, Forward, Pages, Verdict
from proxy.core.headers import HeaderPolicy, Trusted
from proxy.shell.done import Done
from proxy.shell.limits import Limits, Timeouts
from proxy.shell.peer import Peer
from proxy.shell.pool import Upstreams
from proxy.shell.server import Server, make_pool
from proxy.shell.serving import Serving
from proxy.wire.head import RequestHead

PUBLIC = "https://app.example.com"
NAMES = names_for(PUBLIC)
HOST = b"Host: app.example.com\r\n"
IDENTITY = b"X-Forwarded-User: alice\r\nX-Forwarded-Groups: staff,admins\r\n"
LONG_S = 30.0
"""Nothing takes this long unless it hangs."""


def run(body: Callable[[], Coroutine[Any, Any, None]], limit_s: float = 60) -> None:
    """Run a test's async body on uvloop, bounded."""

    async def bounded() -> None:
        async with asyncio.timeout(limit_s):
            await body()

    uvloop.run(bounded())


class Wire:
    """One end of a raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.left = b""

    @property
    def transport(self) -> asyncio.Transport:
        return self.writer.transport

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and including `mark`."""
        async with asyncio.timeout(LONG_S):
            while mark not in self.left:
                data = await self._reader.read(1 << 18)
                if not data:
                    raise EOFError(self.left)
                self.left += data
        at = self.left.index(mark) + len(mark)
        found, self.left = self.left[:at], self.left[at:]
        return found

    async def exactly(self, size: int) -> bytes:
        """This many bytes."""
        pieces, have = [self.left], len(self.left)
        async with asyncio.timeout(LONG_S):
            while have < size:
                data = await self._reader.read(1 << 18)
                if not data:
                    raise EOFError(b"".join(pieces)[-200:])
                pieces.append(data)
                have += len(data)
        whole = b"".join(pieces)
        found, self.left = whole[:size], whole[size:]
        return found

    async def head(self) -> bytes:
        """A message head with its empty line."""
        return await self.until(b"\r\n\r\n")

    async def answer(self, *, head_only: bool = False) -> tuple[int, bytes, bytes]:
        """A whole response with a length or chunks: status, head, body."""
        head = await self.head()
        status = int(head.split(b" ", 2)[1])
        if head_only or status < 200 or status in (204, 304):
            return status, head, b""
        length = field(head, b"content-length")
        if length is not None:
            return status, head, await self.exactly(int(length))
        if field(head, b"transfer-encoding") == b"chunked":
            return status, head, await self.chunks()
        return status, head, await self.end()

    async def chunks(self) -> bytes:
        """A chunked body, decoded."""
        body = b""
        while size := int((await self.until(b"\r\n")).partition(b";")[0], 16):
            body += await self.exactly(size)
            assert await self.exactly(2) == b"\r\n"
        assert await self.until(b"\r\n") == b"\r\n"
        return body

    async def end(self) -> bytes:
        """Everything up to an orderly end. A reset raises ConnectionError."""
        async with asyncio.timeout(LONG_S):
            while data := await self._reader.read(1 << 18):
                self.left += data
        found, self.left = self.left, b""
        return found

    async def gone(self) -> bool:
        """Wait for the other side to leave, orderly or not."""
        try:
            await self.end()
        except ConnectionError:
            return True
        return True

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        """Leave with a reset."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def field(head: bytes, name: bytes) -> bytes | None:
    """A field's value, None if it is absent; asserts that it is not doubled."""
    values = [
        line.partition(b":")[2].strip()
        for line in head.split(b"\r\n")[1:]
        if line.partition(b":")[0].lower() == name
    ]
    assert len(values) <= 1, head
    return values[0] if values else None


class Door:
    """Answers by path, or as a test says."""

    def __init__(self) -> None:
        self.rule: Callable[[RequestHead], Verdict | Awaitable[Verdict] | None] = lambda head: None
        self.heads: list[RequestHead] = []

    def admit(self, head: RequestHead, peer: Peer, /) -> Verdict | Awaitable[Verdict]:
        self.heads.append(head)
        verdict = self.rule(head)
        if verdict is not None:
            return verdict
        if head.path.startswith(b"/oauth2/"):
            return Pages()
        if head.path.startswith(b"/deny"):
            return Answer(401, [(b"WWW-Authenticate", b"Bearer")], b"no\n", "denied")
        return Forward(identity=IDENTITY, decision="session", protected=True)


START = 1_000.0


class Time:
    """A clock that a test moves; the sweep once a second sees it standing still."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class House:
    """The proxy with its app's connections in a queue."""

    def __init__(
        self, server: Server, door: Door, app: asyncio.Queue[Wire], done: asyncio.Queue[Done], time: Time
    ) -> None:
        self._time = time
        self.server = server
        self.door = door
        self._app = app
        self.done = done
        self._wires: list[Wire] = []
        self.app_connections = 0

    @property
    def address(self) -> tuple[str, int]:
        return self.server.sockets[0].getsockname()

    async def client(self, *, receive_buffer: int = 0, tls: ssl.SSLContext | None = None) -> Wire:
        """A client's connection."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        name = "localhost" if tls is not None else None
        wire = Wire(*await asyncio.open_connection(sock=sock, limit=1 << 16, ssl=tls, server_hostname=name))
        self._wires.append(wire)
        return wire

    async def app(self) -> Wire:
        """The next connection that the proxy opens to the app."""
        async with asyncio.timeout(LONG_S):
            wire = await self._app.get()
        self.app_connections += 1
        self._wires.append(wire)
        return wire

    async def asked(self, request: bytes = b"") -> tuple[Wire, Wire]:
        """A client whose request's head, a plain GET's by default, has reached the app; and the app."""
        client = await self.client()
        client.send(request or get())
        app = await self.app()
        await app.head()
        return client, app

    @property
    def nothing_reached_the_app(self) -> bool:
        return self._app.empty() and not self.app_connections

    async def finished(self) -> Done:
        """The next entry for the log."""
        async with asyncio.timeout(LONG_S):
            return await self.done.get()

    def later(self, seconds: float) -> None:
        """Sweep as if that much time had passed since the start."""
        self._time.now = START + seconds
        self.server.sweep(self._time.now)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until something holds."""
        async with asyncio.timeout(LONG_S):
            while not condition():
                await asyncio.sleep(0)

    def close(self) -> None:
        for wire in self._wires:
            wire.abort()
        self.server.close()


@asynccontextmanager
async def house(
    *,
    pages: Callable[[], Any] | None = None,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    trusted: Sequence[str] = (),
    app_port: int | None = None,
    tls: ssl.SSLContext | None = None,
    **policy: Any,
) -> Any:
    """A running house; everything is cut at the end."""
    app: asyncio.Queue[Wire] = asyncio.Queue()
    done: asyncio.Queue[Done] = asyncio.Queue()
    door = Door()
    time = Time()

    def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        app.put_nowait(Wire(reader, writer))

    listener = await asyncio.start_server(arrived, "127.0.0.1", 0, limit=1 << 16)
    port = app_port if app_port is not None else listener.sockets[0].getsockname()[1]
    rules = HeaderPolicy([NAMES], [PUBLIC], **policy)
    server = Server(
        Serving(
            door,
            rules,
            limits or Limits(),
            timeouts or Timeouts(),
            Upstreams(make_pool(rules, host="127.0.0.1", port=port, limits=limits, timeouts=timeouts)),
            Trusted(trusted),
        ),
        pages=pages,
        on_done=done.put_nowait,
        tls=tls,
        clock=time,
    )
    await server.start([socket.create_server(("127.0.0.1", 0))])
    built = House(server, door, app, done, time)
    try:
        yield built
    finally:
        built.close()
        listener.close()


def get(path: bytes = b"/", fields: bytes = b"") -> bytes:
    """A plain request."""
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path, HOST, fields)


def ok(body: bytes = b"ok", fields: bytes = b"") -> bytes:
    """A plain response."""
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body)
