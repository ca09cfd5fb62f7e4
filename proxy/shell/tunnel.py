"""What two connections become after a 101: bytes both ways, each way ending by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.wire.exchange import BROKEN, DONE, END
from proxy.wire.valve import AUTH, CONNECTING, PEER_FULL, PIPELINE
from proxy.wire.websocket import going_away, whole_frames

if TYPE_CHECKING:
    from proxy.shell.relay import Relay
    from proxy.shell.upstream import Upstream

_KEEP_LAST = 4_096


class Tunnel:
    """A WebSocket connection through us (RFC 6455); frames are not looked at.

    Args:
        relay: the exchange that asked for it; keeps the figures.
        up: the app's connection.
    """

    __slots__ = ("_down", "_last", "_relay", "_up")

    def __init__(self, relay: Relay, up: Upstream) -> None:
        down = relay.down
        self._relay = relay
        self._down = down
        self._up = up
        self._last: bytes | None = b""
        up.relay = None
        up.tunnel = self
        down.tunnel_opened(self)
        if relay.verdict.watch is not None:
            relay.watch(relay.verdict.watch, self.close)
        if relay.up is None:  # the session was over already
            return
        early = up.reader.rest()
        if early:
            self.from_app(early)
        early = down.reader.rest()
        if early:
            self.from_client(early)
        down.valve.open(PIPELINE | AUTH | CONNECTING)
        if down.half_closed:  # before this was a tunnel; the app is still to hear of it
            self.client_ended()

    def from_client(self, data: bytes) -> None:
        """Bytes on the way to the app."""
        relay, down = self._relay, self._down
        relay.bytes_in += len(data)
        if not down.full:  # who takes nothing is not kept by what it sends
            down.deadline = down.site.now + down.site.timeouts.tunnel_idle_s
        self._up.transport.write(data)

    def from_app(self, data: bytes) -> None:
        """Bytes on the way to the client."""
        relay, down = self._relay, self._down
        relay.bytes_out += len(data)
        down.deadline = down.site.now + down.site.timeouts.tunnel_idle_s
        self._last = data if len(data) <= _KEEP_LAST else None
        down.transport.write(data)

    def client_ended(self) -> bool:
        """The client closed its sending side; answers whether its connection stays open."""
        self._relay.request_event(END)
        if self._relay.response == DONE or not self._up.transport.can_write_eof():
            self._end("")
            return False
        self._up.transport.write_eof()
        return not self._down.peer.tls

    def app_ended(self) -> bool:
        """The app closed its sending side; answers whether its connection stays open."""
        self._relay.response_event(END)
        if self._relay.request == DONE or not self._down.transport.can_write_eof():
            self._end("")
            return False
        self._down.transport.write_eof()
        return self._up.transport.can_write_eof()

    def client_full(self, full: bool) -> None:
        """The client takes no more, or takes it again."""
        if full:
            self._up.valve.shut(PEER_FULL)
        else:
            self._up.valve.open(PEER_FULL)
            self._down.deadline = self._down.site.now + self._down.site.timeouts.tunnel_idle_s

    def app_full(self, full: bool) -> None:
        """The app takes no more, or takes it again."""
        if full:
            self._down.valve.shut(PEER_FULL)
        else:
            self._down.valve.open(PEER_FULL)

    def app_gone(self, exc: Exception | None) -> None:
        """The app's connection is lost: the client's breaks too, unless both ways had ended."""
        self._end("app_gone" if exc is not None else "", broken=exc is not None)

    def client_gone(self) -> None:
        """The client's connection is lost."""
        self._relay.request_event(BROKEN)
        self._up.abort()
        self._relay.up = None
        self._relay.unwatch()

    def close(self) -> None:
        """The session ended, or the process does: say so if a frame may stand here."""
        if self._last is not None and whole_frames(self._last):
            self._down.transport.write(going_away())
        self._end("session_ended")

    def expire(self) -> None:
        """Nothing passed for too long."""
        self._down.site.counters.timed_out("tunnel")
        self._end("idle")

    def _end(self, error: str, *, broken: bool = False) -> None:
        up, relay = self._up, self._relay
        if relay.up is None:
            return
        relay.up = None
        relay.unwatch()
        up.tunnel = None
        if not up.lost:
            if error:
                up.transport.abort()
            else:  # both ways ended: what is still buffered for the app goes out first
                up.transport.close()
        self._down.tunnel_closed(relay, error, broken=broken)
