"""A client's connection as such: what it is doing, and the ways in which it ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from abc import ABC, abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from proxy.core.gate import Answer
from proxy.errors import ProxyError
from proxy.shell.answering import answer_bytes, error_answer
from proxy.shell.done import Done
from proxy.shell.peer import Peer
from proxy.shell.relay import Relay
from proxy.shell.site import Site, log
from proxy.wire.exchange import WAITING
from proxy.wire.head import RequestHead
from proxy.wire.readers import RequestReader, RequestSink
from proxy.wire.valve import ANY, Valve

if TYPE_CHECKING:
    from proxy.shell.tunnel import Tunnel

# What a connection is doing.
IDLE: Final = 0
READING: Final = 1
"""A head has begun."""
DECIDING: Final = 2
BUSY: Final = 3
DISCARDING: Final = 4
"""An answer is ready; the rest of the request that is already here is thrown away."""
PAGE: Final = 5
"""The body of a request for one of our pages is collected."""
LINGER: Final = 6
"""The last answer is written; what the client still sends is thrown away (RFC 9112 §9.6)."""
TUNNEL: Final = 7
GONE: Final = 8

_FULL_HOUSE = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nCache-Control: no-store\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)
_RESET = struct.pack("ii", 1, 0)
_SETTLING = 0.2
"""Of the time over which pace is measured: after that the queues on the way are as full as they will be."""

_SORRY = "Something went wrong here. Tell the operator the request id."


class Client(asyncio.Protocol, ABC):
    """What `Downstream` works on.

    Attributes:
        deadline: when `expire` is called, on the site's clock.
        full: more waits to be sent to it than we like to keep.
        half_closed: the client sends no more, but may still read.
        valve: whether it is read.
    """

    __slots__ = (
        "_block",
        "_block_host",
        "_head",
        "_page_body",
        "_pending",
        "_phase",
        "_relay",
        "_started",
        "_task",
        "_tunnel",
        "_unsent",
        "_unsent_at",
        "deadline",
        "full",
        "half_closed",
        "peer",
        "reader",
        "site",
        "transport",
        "valve",
    )

    transport: asyncio.Transport
    valve: Valve
    peer: Peer

    def __init__(self, site: Site) -> None:
        self.site = site
        self.reader = RequestReader(site.request_heads, cast(RequestSink, self))
        self.deadline = 0.0
        self.half_closed = False
        self._phase = IDLE
        self.full = False
        self._head: RequestHead | None = None
        self._relay: Relay | None = None
        self._tunnel: Tunnel | None = None
        self._task: asyncio.Task[None] | None = None
        self._pending: tuple[Answer, str] | None = None
        self._page_body: bytearray | None = None
        self._started = 0.0
        self._unsent = 0
        self._unsent_at = 0.0
        self._block = b""
        self._block_host: bytes | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        site = self.site
        self.transport = cast(asyncio.Transport, transport)
        self.valve = Valve(self.transport)
        name = cast("tuple[str, int] | str | bytes | None", transport.get_extra_info("peername"))
        address = name[0] if isinstance(name, tuple) else ""
        tls = transport.get_extra_info("sslcontext") is not None
        self.peer = Peer(address, site.trusts(address), tls)
        if len(site.connections) >= site.limits.max_connections:
            site.counters.refused += 1
            self._phase = GONE
            self.transport.write(_FULL_HOUSE)
            self.transport.close()
            return
        self.transport.set_write_buffer_limits(high=site.limits.write_buffer_bytes)
        site.counters.accepted += 1
        site.connections.add(self)
        self.deadline = site.now + site.timeouts.head_s

    # How fast it is taken from us

    def _untaken(self) -> int:
        """Bytes written to this client that it has not taken, the kernel's queue included.

        Without that queue, several MiB long, a slow but honest reader shows no progress for
        longer than anybody waits: the kernel calls for more only when a good part is free.
        """
        size = self.transport.get_write_buffer_size()
        sock = cast("socket.socket | None", self.transport.get_extra_info("socket"))
        if sock is not None:
            with contextlib.suppress(OSError):
                size += int.from_bytes(
                    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), byteorder="little"
                )
        return size

    def _watch_pace(self) -> None:
        """Measure soon, and from then on, how fast the client takes what waits for it.

        Not from now on: its kernel may still take in a few MiB, and that says nothing about
        whether anybody reads them.
        """
        self._unsent = -1
        self.deadline = self.site.now + self._pace_s() * _SETTLING

    def _pace_s(self) -> float:
        """Over how long its pace is measured."""
        site = self.site
        return site.timeouts.slow_s if site.limits.min_rate_bytes else site.timeouts.body_idle_s

    def _until_taken(self) -> None:
        """The last answer is written: wait for a rest of the request, and for the answer to be taken."""
        rest = self.deadline = self.site.now + self.site.timeouts.linger_s
        if self.transport.get_write_buffer_size():
            self._watch_pace()
            self.deadline = max(self.deadline, rest)

    def _keeps_pace(self) -> bool:
        """Whether it took enough since the last look; if so, another look is due later."""
        site, untaken, first = self.site, self._untaken(), self._unsent < 0
        enough = max(1.0, site.limits.min_rate_bytes * (site.now - self._unsent_at))
        if not first and self._unsent - untaken < enough:
            return False
        self._unsent, self._unsent_at = untaken, site.now
        self.deadline = site.now + self._pace_s()
        return True

    # What is said about it

    def reconfigured(self) -> None:
        """The site's rules changed: the next head is read by the new ones."""
        site = self.site
        self.reader.use(site.request_heads)
        self._block_host = None
        self.peer = Peer(self.peer.address, site.trusts(self.peer.address), self.peer.tls)

    def forwarded_block(self, head: RequestHead) -> bytes:
        """The `X-Forwarded-*` lines; the same for all requests of an untrusted peer."""
        peer = self.peer
        if peer.trusted:
            return self.site.policy.extended_block(peer.address, head.host, peer.tls, head.get)
        if head.host != self._block_host:
            self._block = self.site.policy.forwarded_block(peer.address, head.host)
            self._block_host = head.host
        return self._block

    def _report(self, status: int, relay: Relay, error: str) -> None:
        """Tell of an exchange with the app."""
        on_done = self.site.on_done
        if on_done is None:
            return
        head, now = relay.head, monotonic()
        on_done(
            Done(
                head.request_id,
                head.method,
                head.path,
                status,
                relay.verdict.decision,
                now,
                now - self._started,
                self.peer.address,
                relay.upstream_s,
                relay.bytes_in,
                relay.bytes_out,
                error,
            )
        )

    def _report_own(self, status: int, error: str, decision: str, sent: int, request_id: bytes = b"") -> None:
        """Tell of an answer of ours, or of none.

        Args:
            sent: bytes of its body.
            request_id: where there is no legal head to have one.
        """
        on_done = self.site.on_done
        if on_done is None:
            return
        head, method, path = self._head, b"", b""
        if head is not None:
            request_id, method, path = head.request_id, head.method, head.path
        now, peer = monotonic(), self.peer.address
        took_s = now - self._started
        on_done(Done(request_id, method, path, status, decision, now, took_s, peer, 0.0, 0, sent, error))

    # What `Downstream` adds: requests.

    @abstractmethod
    def pump(self) -> None:
        """The request's body may come."""

    @abstractmethod
    def _advance(self) -> None:
        """The exchange is over; the next request may come."""

    @abstractmethod
    def expire(self) -> None:
        """The deadline ran out; called by the sweep."""

    @abstractmethod
    def let_go(self) -> None:
        """An idle connection closes soon; everything else goes on."""

    @abstractmethod
    def drain(self) -> None:
        """The process goes away: idle connections close soon, streams and tunnels are told."""

    # Answers, and the end

    def _send(self, answer: Answer, error: str, *, linger: bool, request_id: bytes = b"") -> None:
        """Write an answer of ours; the connection goes on, lingers or closes.

        Args:
            error: one word for the log, "" if all went well.
            linger: the request was not read to its end.
            request_id: where there is no legal head to have one.
        """
        head, site = self._head, self.site
        request_id = head.request_id if head is not None else request_id
        close = answer.close or linger or site.draining or self.half_closed
        close = close or head is None or not head.keep_alive
        keep_alive = head is not None and head.version == 0
        with_body = head is None or head.method != b"HEAD"
        try:
            data = answer_bytes(answer, request_id, site.date, close, keep_alive, with_body)
        except ValueError:
            log.exception("an answer cannot be written", extra={"request_id": request_id.decode("latin-1")})
            error = "ValueError"
            answer = error_answer(
                ProxyError("Something went wrong here."), request_id, head, decision="error"
            )
            data = answer_bytes(answer, request_id, site.date, close, keep_alive, with_body)
        self.transport.write(data)
        sent = len(answer.body) if with_body else 0
        self._report_own(answer.status, error, answer.decision, sent, request_id)
        if linger or (close and self.reader.waiting):
            self._linger()
        elif close:
            self._close()
        else:
            self._advance()

    def _answer(self, answer: Answer, error: str) -> None:
        head = self._head
        assert head is not None
        if not self.reader.in_body:
            self._send(answer, error, linger=False)
            return
        # A body that is here already is thrown away and the connection kept; one that would
        # have to be waited for is not (RFC 9112 §9.3), nor one that 100 was to call for.
        self._phase = DISCARDING
        self._pending = (answer, error)
        if not head.expect_continue:
            self.pump()

    def _answer_error(self, error: ProxyError, decision: str) -> None:
        head = self._head
        assert head is not None
        answer = error_answer(error, head.request_id, head, decision=decision)
        self._answer(answer, error.detail or type(error).__name__)

    def _failed(self, error: BaseException | None) -> None:
        """Whatever went wrong on the way to a verdict: an answer, never a forwarded request."""
        head, relay = self._head, self._relay
        assert head is not None
        if relay is not None:
            self._relay = None
            relay.client_gone()
        if not isinstance(error, ProxyError):
            log.error(
                "no verdict on a request",
                exc_info=error,
                extra={"request_id": head.request_id.decode("latin-1")},
            )
            error = ProxyError(_SORRY)
        self._answer_error(error, "error")

    def _refuse(self, error: ProxyError) -> None:
        """A message that is not plainly legal: answered if that is possible, never read on."""
        counters = self.site.counters
        counters.rejected[error.status] = counters.rejected.get(error.status, 0) + 1
        relay = self._relay
        if relay is not None and relay.response != WAITING:
            self._break_off(relay, "bad_request")
            return
        if relay is not None:
            self._relay = None
            relay.client_gone()
        elif self._phase in (IDLE, READING):
            self._head = None
            self._started = monotonic()
        self._pending = None
        head = self._head
        request_id = head.request_id if head is not None else self.site.new_id()
        answer = error_answer(error, request_id, head, decision="rejected")
        self._send(answer, type(error).__name__, linger=True, request_id=request_id)

    def exchange_ended(self, relay: Relay, error: str) -> None:
        """The response ended before the app ended it, cleanly."""
        self._relay = None
        relay.client_gone()
        self._report(relay.status, relay, error)
        self._linger()

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """The connection is no HTTP any more."""
        self._phase = TUNNEL
        self._tunnel = tunnel
        self.deadline = self.site.now + self.site.timeouts.tunnel_idle_s
        if self.full:
            tunnel.client_full(True)

    def tunnel_closed(self, relay: Relay, error: str, *, broken: bool) -> None:
        """The app's side is over."""
        self._tunnel = None
        if broken:
            self._break_off(relay, error)
            return
        self._relay = None
        self._report(relay.status, relay, error)
        self._linger() if error else self._close()

    def _linger(self) -> None:
        self._phase = LINGER
        self._head = None
        self._until_taken()
        self.valve.open(ANY)
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        self._phase = LINGER
        self._head = None
        self._until_taken()
        self.transport.close()

    def _abort(self) -> None:
        self.transport.abort()

    def _break_off(self, relay: Relay, error: str) -> None:
        """End a response that had begun so that nobody takes it for complete.

        A reset, not an orderly close: to an HTTP/1.0 client the latter would be its end.
        """
        self._relay = None
        relay.client_gone()
        self._report(relay.status, relay, error)
        self._phase = GONE
        sock = cast("socket.socket | None", self.transport.get_extra_info("socket"))
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
