"""`EchoApp`: the unmodified app behind the proxy, on a real loopback socket, in a thread of its own.

It answers every request with what reached it, as JSON: `{"method", "target", "headers": [[name,
value], …], "body_bytes"}`. On a path of its own it does something else if the test says so::

    app.answers["/api"] = Answer(401, [("WWW-Authenticate", 'Bearer error="invalid_token"')])

`/events` is a stream of Server-Sent Events that `emit` feeds; an `Upgrade` becomes a tunnel that
sends back whatever comes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Seen:
    """A request as it reached the app.

    Attributes:
        headers: names in lower case, in order, repeated ones repeated.
        body_bytes: length of the body that arrived in full.
    """

    method: str
    target: str
    headers: list[tuple[str, str]]
    body_bytes: int = 0

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    def get(self, name: str) -> str:
        """The one value of a field; "" if it did not come."""
        found = self.all(name)
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else ""


@dataclass
class Answer:
    """What the app says instead of the echo."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    body: bytes = b""


class EchoApp:
    """See the module's docstring.

    Attributes:
        seen: every request, in the order in which their heads came.
        answers: by path (without the query); an `Answer`, or a function that makes one of the request,
            None from it = the echo.
        tunnels: upgrades that are open.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answers: dict[str, Answer | Callable[[Seen], Answer | None]] = {}
        self.tunnels = 0
        self._streams: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="echo-app", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reached(self, path: str) -> list[Seen]:
        """The requests for a path, with whatever query."""
        return [seen for seen in self.seen if seen.target.partition("?")[0] == path]

    @property
    def streams(self) -> int:
        """Event streams that are open."""
        return len(self._streams)

    def emit(self, data: str) -> None:
        """Send an event to everybody who listens at `/events`."""

        async def send() -> None:
            for writer in list(self._streams):
                line = f"data: {data}\n\n".encode()
                writer.write(b"%x\r\n%s\r\n" % (len(line), line))
                await writer.drain()

        self._call(send())

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._streams.discard(writer)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        pairs = [line.partition(":") for line in lines[1:-2]]
        seen = Seen(method, target, [(name.lower(), value.strip()) for name, _, value in pairs])
        self.seen.append(seen)
        path = target.partition("?")[0]
        if seen.all("upgrade"):
            await self._tunnel(reader, writer, seen.get("sec-websocket-key"))
            return False
        seen.body_bytes = await _body(reader, seen)
        chosen = self.answers.get(path)
        answer = chosen(seen) if callable(chosen) else chosen
        if answer is None and path == "/events":
            await self._stream(reader, writer)
            return False
        if answer is None:
            said = {
                "method": method,
                "target": target,
                "headers": seen.headers,
                "body_bytes": seen.body_bytes,
            }
            answer = Answer(200, [("Content-Type", "application/json")], json.dumps(said).encode())
        fields = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        top = f"HTTP/1.1 {answer.status} Said\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields)
        writer.write(top.encode("latin-1") + b"\r\n" + (b"" if method == "HEAD" else answer.body))
        await writer.drain()
        return True

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await writer.drain()
        self._streams.add(writer)
        await reader.read(1)  # until the other side ends it
        self._streams.discard(writer)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        digest = hashlib.sha1(
            key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        ).digest()  # RFC 6455 §4.2.2
        writer.write(b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n")
        await writer.drain()
        self.tunnels += 1
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            self.tunnels -= 1


async def _body(reader: asyncio.StreamReader, seen: Seen) -> int:
    if seen.get("transfer-encoding").lower() != "chunked":
        left = total = int(seen.get("content-length") or "0")
        while left:
            left -= len(await reader.readexactly(min(left, 65536)))
        return total
    total = 0
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        await reader.readexactly(size + 2)
        total += size
    with contextlib.suppress(asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
    return total
