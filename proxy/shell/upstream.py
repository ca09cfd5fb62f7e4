"""The app's side: one connection, reused for one exchange after another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from proxy.errors import UpstreamError
from proxy.wire.exchange import DONE
from proxy.wire.readers import ResponseReader
from proxy.wire.response import ResponseHeads
from proxy.wire.valve import Valve

if TYPE_CHECKING:
    from proxy.shell.pool import Pool
    from proxy.shell.relay import Relay
    from proxy.shell.tunnel import Tunnel


class Upstream(asyncio.Protocol):
    """A connection to the app.

    Attributes:
        relay: the exchange that it serves; None while it is idle.
        tunnel: what it became after a 101.
        valve: whether it is read.
        idle_until: when an idle one is closed, on the site's clock.
        lost: it is gone.
    """

    __slots__ = ("_pool", "idle_until", "lost", "reader", "relay", "transport", "tunnel", "valve")

    transport: asyncio.Transport
    valve: Valve

    def __init__(self, pool: Pool, heads: ResponseHeads) -> None:
        self._pool = pool
        self.reader = ResponseReader(heads)
        self.relay: Relay | None = None
        self.tunnel: Tunnel | None = None
        self.idle_until = 0.0
        self.lost = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self._pool.write_buffer_bytes)
        self.valve = Valve(self.transport)

    def data_received(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.from_app(data)
            return
        relay = self.relay
        if relay is None:
            # An idle connection has nothing to say: a 408 of the app's, or worse.
            self.abort()
            return
        try:
            self.reader.feed(data)
        except UpstreamError as error:
            relay.app_failed(self, error)
            return
        relay.after_feed(self)

    def eof_received(self) -> bool:
        if self.tunnel is not None:
            return self.tunnel.app_ended()
        relay = self.relay
        if relay is not None:
            try:
                self.reader.eof()
            except UpstreamError as error:
                relay.app_failed(self, error)
            else:
                relay.after_feed(self)
        return False

    def pause_writing(self) -> None:
        if self.tunnel is not None:
            self.tunnel.app_full(True)
        elif self.relay is not None:
            self.relay.app_full(True)

    def resume_writing(self) -> None:
        if self.tunnel is not None:
            self.tunnel.app_full(False)
        elif self.relay is not None:
            self.relay.app_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._pool.gone(self)
        relay, tunnel = self.relay, self.tunnel
        if tunnel is not None:
            tunnel.app_gone(exc)
        elif relay is not None and relay.response != DONE:
            relay.app_failed(self, UpstreamError(502, "The application broke off the connection."))

    # For the relay

    def serve(self, relay: Relay, method: bytes) -> None:
        """A request is about to be sent: what comes back is for this exchange."""
        self.relay = relay
        self.reader.expect(method, relay)

    def abort(self) -> None:
        """Give the connection up at once: what was sent on it is no complete message."""
        self.relay = None
        self.tunnel = None
        if not self.lost:
            self.transport.abort()

    def let_finish(self) -> None:
        """Send what is left of a request that was answered already, and close."""
        self.relay = None
        self.reader.expect_nothing()
        self._pool.let_finish(self)

    def give_back(self) -> None:
        """Both messages ended and both sides keep the connection: it may serve another."""
        self.relay = None
        self.reader.expect_nothing()
        self._pool.put(self)
