"""Connections to the app: taken warm from a stack, opened when there is none, bounded.

The last one used is the first one taken, so a burst's surplus goes idle and is closed. A
request that finds the limit reached waits in a bounded queue for one that is given back.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from proxy.core.routes import PLAIN, meanings
from proxy.errors import BadRequest, UpstreamError
from proxy.shell.done import Counters
from proxy.shell.limits import Limits, Timeouts
from proxy.shell.site import log
from proxy.shell.upstream import Upstream
from proxy.wire.head import RequestHead
from proxy.wire.response import ResponseHeads

_CROWDED = "The application has too many requests at the moment."


class Waiter(Protocol):
    """An exchange that needs a connection to the app."""

    def connected(self, up: Upstream, reused: bool) -> None: ...
    def not_connected(self, error: UpstreamError) -> None: ...


class Pool:
    """Connections to one upstream.

    Args:
        host, port: where the app listens, over TCP.
        path: of its unix socket, instead.
        tls: context to speak TLS with.
        server_name: SNI, and the name the certificate must have; "" = the host.
        heads: reads its response heads.

    Attributes:
        now: the coarse clock, monotonic seconds; moved by `sweep`.
        counters: where limits and time-outs are counted; a server puts its own here.
    """

    def __init__(
        self,
        *,
        host: str = "",
        port: int = 0,
        path: str = "",
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        heads: ResponseHeads,
        limits: Limits,
        timeouts: Timeouts,
    ) -> None:
        self._host, self._port, self._path, self._tls = host, port, path, tls
        self._server_name = server_name or host or "localhost"
        self._heads = heads
        self.now = monotonic()
        self.counters = Counters()
        self._size = limits.pool_size
        self._max_waiting = limits.pool_queue
        self._timeouts = timeouts
        self.write_buffer_bytes = limits.write_buffer_bytes
        self.authority = (f"{host}:{port}" if host else "localhost").encode("ascii")
        self._idle: dict[Upstream, None] = {}
        self._all: set[Upstream] = set()
        self._finishing: dict[Upstream, float] = {}
        self._opening: dict[asyncio.Task[None], Waiter | None] = {}
        self._waiting: deque[tuple[Waiter, float]] = deque()
        self._closed = False
        self._retired = False

    @property
    def open(self) -> int:
        """Connections that exist or are being opened."""
        return len(self._all) + len(self._opening)

    @property
    def name(self) -> str:
        """Where it leads, for logs and metrics."""
        return f"unix:{self._path}" if self._path else f"{self._host}:{self._port}"

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return len(self._waiting)

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    def take(self) -> Upstream | None:
        """The idle connection that was used last, if any."""
        while self._idle:
            up = self._idle.popitem()[0]
            if not up.transport.is_closing():  # its end is known, `gone` comes in the loop's next turn
                return up
        return None

    def open_for(self, waiter: Waiter, *, fresh: bool = False) -> None:
        """Open a connection for an exchange, or let it wait its turn.

        `waiter.connected` or `waiter.not_connected` is called later, never from within, and
        never after `forget`.

        Args:
            fresh: a connection that has been idle will not do.
        """
        if self.open < self._size:
            task = asyncio.get_running_loop().create_task(self._open(waiter))
            self._opening[task] = waiter
            task.add_done_callback(self._opened)
        elif fresh:  # for the place that the dead connection leaves, in the loop's next turn
            self._waiting.appendleft((waiter, self.now + self._timeouts.queue_s))
        elif len(self._waiting) >= self._max_waiting:
            self.counters.crowded += 1
            error = UpstreamError(503, _CROWDED)
            asyncio.get_running_loop().call_soon(waiter.not_connected, error)
        else:
            self._waiting.append((waiter, self.now + self._timeouts.queue_s))

    def forget(self, waiter: Waiter) -> None:
        """An exchange ended before it got its connection; one being opened goes idle."""
        for task, wanted in self._opening.items():
            if wanted is waiter:
                self._opening[task] = None
        for index, (waiting, _) in enumerate(self._waiting):
            if waiting is waiter:
                del self._waiting[index]
                break

    def put(self, up: Upstream) -> None:
        """Take back a connection that may be used again."""
        if up.lost or self._closed or up.transport.is_closing():
            up.abort()
        elif self._waiting:
            self._waiting.popleft()[0].connected(up, True)
        elif self._retired:
            up.transport.close()
        else:
            up.idle_until = self.now + self._timeouts.upstream_idle_s
            self._idle[up] = None

    def let_finish(self, up: Upstream) -> None:
        """Close a connection once what was written to it is sent, if the app takes it in time."""
        self._finishing[up] = self.now + self._timeouts.body_idle_s
        up.transport.close()

    def gone(self, up: Upstream) -> None:
        """A connection is lost: room for one that waits."""
        self._idle.pop(up, None)
        self._finishing.pop(up, None)
        self._all.discard(up)
        self._next()

    def sweep(self, now: float) -> None:
        """Close what idled too long, refuse what waited too long.

        Args:
            now: the site's clock, seconds.
        """
        self.now = now
        for up in [up for up in self._idle if up.idle_until <= now]:
            self._idle.pop(up, None)
            up.transport.close()
        for up in [up for up, until in self._finishing.items() if until <= now]:
            up.transport.abort()
        overdue = [each for each in self._waiting if each[1] <= now]
        for each in overdue:
            self._waiting.remove(each)
            self.counters.timed_out("queue")
            each[0].not_connected(UpstreamError(503, _CROWDED))

    def retire(self) -> None:
        """Serve what is under way or waits, then keep nothing: another pool has taken over."""
        self._retired = True
        for up in list(self._idle):
            self._idle.pop(up, None)
            up.transport.close()

    def close(self) -> None:
        """Close every connection; exchanges on them break off."""
        self._closed = True
        for task in list(self._opening):
            task.cancel()
        for up in list(self._all):
            up.transport.abort()

    def _next(self) -> None:
        while self._waiting and self.open < self._size and not self._closed:
            self.open_for(self._waiting.popleft()[0])

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("opening a connection to the app failed", exc_info=task.exception())
        self._next()

    async def _open(self, waiter: Waiter) -> None:
        task = asyncio.current_task()
        assert task is not None
        error: UpstreamError | None = None
        up: Upstream | None = None
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                up = await self._connect()
        except TimeoutError:
            self.counters.timed_out("connect")
            error = UpstreamError(504, "The application did not take the connection in time.")
        except (OSError, ssl.SSLError) as cause:
            error = UpstreamError(502, "The application cannot be reached.", detail=type(cause).__name__)
        wanted = self._opening.pop(task, None)
        if up is None:
            if wanted is not None and error is not None:
                wanted.not_connected(error)
            return
        self._all.add(up)
        if up.lost:
            self._all.discard(up)
            if wanted is not None:
                wanted.not_connected(UpstreamError(502, "The application closed the connection."))
        elif wanted is not None:
            wanted.connected(up, False)
        else:
            self.put(up)

    async def _connect(self) -> Upstream:
        loop = asyncio.get_running_loop()
        name = self._server_name if self._tls is not None else None
        if self._path:
            _, up = await loop.create_unix_connection(
                self._protocol, self._path, ssl=self._tls, server_hostname=name
            )
        else:
            _, up = await loop.create_connection(
                self._protocol, self._host, self._port, ssl=self._tls, server_hostname=name
            )
        return up

    def _protocol(self) -> Upstream:
        return Upstream(self, self._heads)


class Upstreams:
    """Which upstream serves a request: by host, then by longest path prefix.

    Args:
        default: serves what no rule names.
        rules: (host or b"" for any, path prefix, pool). A prefix ends at a segment: ``/api``
            is ``/api`` and ``/api/…``, not ``/apix``.
    """

    __slots__ = ("_rules", "default")

    def __init__(self, default: Pool, rules: Sequence[tuple[bytes, bytes, Pool]] = ()) -> None:
        self.default = default
        self._rules = sorted(
            ((host.lower(), prefix.rstrip(b"/"), pool) for host, prefix, pool in rules),
            key=lambda rule: (not rule[0], -len(rule[1])),
        )

    def choose(self, head: RequestHead) -> Pool:
        """The pool for a request.

        Raises:
            BadRequest: 400, servers differ about what the path means, and it matters here.
        """
        if not self._rules:
            return self.default
        path, host = head.path, head.host.lower()
        if PLAIN.fullmatch(path):
            return self._of(host, path)
        found = {self._of(host, meaning) for meaning in meanings(path)}
        if len(found) > 1:
            raise BadRequest(400, "The path can be read in several ways.")
        return found.pop()

    def _of(self, host: bytes, path: bytes) -> Pool:
        name, colon, port = host.partition(b":")
        name = name.removesuffix(b".")  # a final dot only says that nothing is to be added
        host = name + colon + port
        for wanted, prefix, pool in self._rules:
            if not wanted or wanted in (host, name):
                if path == prefix or path.startswith(prefix + b"/"):
                    return pool
        return self.default

    def pools(self) -> set[Pool]:
        """Every pool, once."""
        return {self.default, *(pool for _, _, pool in self._rules)}
