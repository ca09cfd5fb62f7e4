"""Listening sockets, the sweep over all connections, and the orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from time import monotonic

from proxy.core.headers import HeaderPolicy
from proxy.shell.answerer import Answerer
from proxy.shell.done import Counters, Done
from proxy.shell.downstream import Downstream
from proxy.shell.handover import ASGIApp, PageServer
from proxy.shell.limits import Limits, Timeouts
from proxy.shell.pool import Pool, Upstreams
from proxy.shell.serving import Serving
from proxy.shell.site import SWEEP_S, Site, log
from proxy.wire.response import ResponseHeads

BACKLOG = 4_096
"""Connections that the kernel completes while the loop is busy; the next ones try again after a second."""

UNSENT_BYTES = 262_144
"""Of an answer, in the kernel and not on the way yet. As many MiB as it likes to keep otherwise would be held
for each client that does not read (3.2 MiB of 100 on loopback); on a line that is full, this is plenty."""

_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # not on every system

LET_GO_S = 120.0
"""How long kept-alive connections are refused after somebody asked; longer than most pods take to end."""


def make_pool(
    policy: HeaderPolicy,
    *,
    host: str = "",
    port: int = 0,
    path: str = "",
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
) -> Pool:
    """Connections to one upstream; nothing is opened before the first request.

    Args:
        host, port: where the app listens, over TCP.
        path: of its unix socket, instead.
        tls: context to speak TLS with, None = plain.
        server_name: to ask for and to expect, "" = the host.
    """
    limits = limits or Limits()
    heads = ResponseHeads(policy, limits.response_head)
    return Pool(
        host=host,
        port=port,
        path=path,
        tls=tls,
        server_name=server_name,
        heads=heads,
        limits=limits,
        timeouts=timeouts or Timeouts(),
    )


class Server:
    """One listener with its door.

    Args:
        serving: the configuration.
        pages: makes the ASGI app of our pages, called by the first request for one.
        on_done: called once per exchange; must not raise and must not block.
        tls: context to speak TLS to clients with, None = plain.
        clock: monotonic seconds; tests put their own in.
    """

    def __init__(
        self,
        serving: Serving,
        *,
        pages: Callable[[], ASGIApp] | None = None,
        on_done: Callable[[Done], None] | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._clock = clock
        self._tls = tls
        self._pages = PageServer(pages) if pages is not None else None
        self.site = Site(serving, pages=self._pages, on_done=on_done)
        self._retired: set[Pool] = set()
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._leaving = False
        self.sweep(clock())

    @property
    def counters(self) -> Counters:
        return self.site.counters

    @property
    def connections(self) -> int:
        """Clients' connections that are open, pages included."""
        return len(self.site.connections) + (self._pages.busy if self._pages is not None else 0)

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets."""
        return [sock for listener in self._listeners for sock in listener.sockets]

    def reconfigure(self, serving: Serving) -> None:
        """Serve by another configuration from the next request on; no connection is dropped.

        Upstreams that it leaves out serve what they have, then close.
        """
        before = _pools(self.site.upstreams)
        self.site.reconfigure(serving)
        for pool in before - _pools(serving.upstreams):
            pool.retire()
            self._retired.add(pool)
        if self._pages is not None:
            self._pages.renew()

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on sockets that are bound; they may be shared with other workers."""
        loop = asyncio.get_running_loop()
        made = Downstream if self.site.engine is None else Answerer
        for sock in sockets:
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX and _NOTSENT_LOWAT is not None:
                with contextlib.suppress(OSError):  # a sandbox that has no such thing
                    sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT_BYTES)  # and what it accepts
            listener = await loop.create_server(
                lambda: made(self.site),
                sock=sock,
                ssl=self._tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=self.site.timeouts.head_s if self._tls is not None else None,
            )
            self._listeners.append(listener)
        self.site.tick(self._clock())
        self._sweeper = loop.call_later(SWEEP_S, self._tick)

    def _tick(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._tick)
        self.sweep(self._clock())

    def sweep(self, now: float) -> None:
        """Move the coarse clock and end what has waited too long; once a second.

        Args:
            now: monotonic seconds.
        """
        site = self.site
        site.tick(now)
        for connection in [c for c in site.connections if c.deadline <= now]:
            try:
                connection.expire()
            except Exception:  # one connection must not end the sweep of the others
                log.exception("ending a connection failed")
                connection.transport.abort()
        if self._leaving:  # streams and tunnels that began since: they would keep us for ever
            self._tell()
        for pool in self._retired | _pools(self.site.upstreams):
            pool.sweep(now)
        self._retired = {pool for pool in self._retired if pool.open}

    def let_go(self) -> None:
        """Get rid of kept-alive connections, for `LET_GO_S`, and serve on.

        For a pod that is terminating: its balancer sends no new connections, but the open ones
        stay, and their next request would find the app gone.
        """
        self.site.draining = True
        for connection in list(self.site.connections):
            connection.let_go()
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_later(LET_GO_S, self._keep)

    def _keep(self) -> None:
        self.site.draining = False

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, let what is under way finish, then cut the rest.

        Exchanges finish with `Connection: close`, those that still begin on an idle connection,
        too; connections that stay idle close after `drain_idle_s`. Event streams end, WebSockets
        are told 1001, because neither ends by itself.

        Args:
            timeout_s: after this long, connections that are left are cut.
        """
        site = self.site
        site.draining = True
        if self._again is not None:
            self._again.cancel()
        self.stop_listening()
        self._leaving = True
        self._tell()
        empty = asyncio.Event()

        def look() -> None:
            if not self.connections:
                empty.set()

        site.on_idle = look
        if self._pages is not None:
            self._pages.on_idle = look
        look()
        try:
            async with asyncio.timeout(timeout_s):
                await empty.wait()
        except TimeoutError:
            log.warning("cut at the end of the drain", extra={"connections": self.connections})
        self.close()

    def _tell(self) -> None:
        for connection in list(self.site.connections):
            connection.drain()

    def close(self) -> None:
        """Cut everything, at once."""
        self.stop_listening()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self.site.connections):
            connection.transport.abort()
        if self._pages is not None:
            self._pages.close()
        for pool in self._retired | _pools(self.site.upstreams):
            pool.close()

    def stop_listening(self) -> None:
        """Accept no more; what is connected goes on."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()


def _pools(upstreams: Upstreams | None) -> set[Pool]:
    return upstreams.pools() if upstreams is not None else set()
