"""What all connections of one listener share: the door, the limits, the app, the figures.

A site also keeps the coarse clock: one `tick` a second moves it, so no connection needs a
timer, and setting a deadline costs an addition.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Protocol

from proxy.core.gate import Verdict
from proxy.core.headers import HeaderPolicy, Trusted
from proxy.wire.head import RequestHead, RequestHeads
from proxy.wire.lines import HeadLimits
from proxy.wire.response import ResponseHeads

if TYPE_CHECKING:
    from proxy.shell.downstream import Downstream
    from proxy.shell.handover import PageServer
    from proxy.shell.pool import Upstreams

log = logging.getLogger("nightporter.datapath")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection, or all of them, may take.

    Attributes:
        max_head_bytes, max_line_bytes, max_fields: of a request head → 431, 414, 431.
        max_response_fields: of a response head of the app → 502.
        max_connections: from clients; one more gets 503 and is closed.
        pool_size: connections to one upstream, tunnels and streams included.
        pool_queue: requests that may wait for one of those; one more gets 503.
        page_body_bytes: of a body posted to our own pages → 413.
        write_buffer_bytes: high-water mark of each connection's write buffer.
    """

    max_head_bytes: int = 65_536
    max_line_bytes: int = 16_384
    max_fields: int = 100
    max_response_fields: int = 256
    max_connections: int = 10_000
    pool_size: int = 1_024
    pool_queue: int = 1_024
    page_body_bytes: int = 65_536
    write_buffer_bytes: int = 65_536


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long is waited for whom, in seconds; kept by a sweep, so up to a second more.

    Attributes:
        head_s: from a head's first byte (or from the connection's start) to its end.
        idle_s: a kept-alive connection without a request.
        body_idle_s: silence within a body, or a peer that takes nothing, either way.
        connect_s: connecting to the app, TLS included.
        queue_s: waiting for a connection to the app when all are taken.
        decide_s: the door's longest answer; then 503, because a door that hangs must not
            keep connections for ever.
        first_byte_s: from the request's last byte to the app's first → 504.
        tunnel_idle_s: silence in a tunnel or an event stream.
        page_body_s: reading a body posted to our own pages.
        linger_s: reading what a client still sends after its answer (RFC 9112 §9.6).
        half_close_s: how long a client that closed its sending side may wait in silence: a
            half-close and a hang-up look the same until something is written.
        upstream_idle_s: an idle connection to the app is kept.
    """

    head_s: float = 10.0
    idle_s: float = 75.0
    body_idle_s: float = 60.0
    connect_s: float = 5.0
    queue_s: float = 5.0
    decide_s: float = 60.0
    first_byte_s: float = 60.0
    tunnel_idle_s: float = 3_600.0
    page_body_s: float = 10.0
    linger_s: float = 3.0
    half_close_s: float = 1.0
    upstream_idle_s: float = 60.0


class Peer:
    """Who is at the other end of a client's connection.

    Attributes:
        address: IP address, "" on a unix socket.
        trusted: its `X-Forwarded-*` are believed.
        tls: it speaks TLS to us.
    """

    __slots__ = ("address", "tls", "trusted")

    def __init__(self, address: str, trusted: bool, tls: bool) -> None:
        self.address = address
        self.trusted = trusted
        self.tls = tls


class Door(Protocol):
    """Asked once per request head; warm, it answers at once."""

    def admit(self, head: RequestHead, peer: Peer, /) -> Verdict | Awaitable[Verdict]:
        """The verdict on a request. Whatever it raises, the request is not forwarded."""
        ...


class Done:
    """A finished exchange, for the log and the metrics.

    Attributes:
        path: without the query, which may hold secrets.
        status: sent to the client; 499 if it left before there was one.
        duration_s, upstream_s: of the whole exchange; from the request's hand-over to the
            app until its first byte.
        bytes_in, bytes_out: of bodies (of all bytes, in tunnels).
        peer: address of the client's end.
        error: one word, "" if all went well.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "decision",
        "duration_s",
        "error",
        "method",
        "path",
        "peer",
        "request_id",
        "status",
        "upstream_s",
    )

    def __init__(
        self,
        request_id: bytes,
        method: bytes,
        path: bytes,
        status: int,
        decision: str,
        duration_s: float,
        upstream_s: float,
        bytes_in: int,
        bytes_out: int,
        peer: str,
        error: str,
    ) -> None:
        self.request_id = request_id
        self.method = method
        self.path = path
        self.status = status
        self.decision = decision
        self.duration_s = duration_s
        self.upstream_s = upstream_s
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.peer = peer
        self.error = error


class Counters:
    """Plain integers, turned into metrics when somebody scrapes.

    Attributes:
        accepted, refused: connections taken, and turned away at the limit.
        rejected: heads and bodies that were not legal, by status.
        retries: requests sent again because a kept-alive connection had died.
        aborted: exchanges that one side broke off.
        timeouts: deadlines that ran out, by what was waited for.
    """

    __slots__ = ("aborted", "accepted", "refused", "rejected", "retries", "timeouts")

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.rejected: dict[int, int] = {}
        self.retries = 0
        self.aborted = 0
        self.timeouts: dict[str, int] = {}

    def timed_out(self, what: str) -> None:
        self.timeouts[what] = self.timeouts.get(what, 0) + 1


class Site:
    """See the module's docstring.

    Args:
        door: decides about each request.
        policy: about header fields.
        upstreams: where to forward to; None = this listener only answers.
        pages: our own pages; None = there are none here.
        trusted: peers whose `X-Forwarded-*` are believed.
        on_done: called once per exchange; must not raise and must not block.
    """

    __slots__ = (
        "_date",
        "_date_at",
        "_id_prefix",
        "_ids",
        "_trust",
        "_trusted",
        "admit",
        "connections",
        "counters",
        "draining",
        "limits",
        "now",
        "on_done",
        "on_idle",
        "pages",
        "policy",
        "request_heads",
        "response_heads",
        "timeouts",
        "upstreams",
    )

    def __init__(
        self,
        door: Door,
        policy: HeaderPolicy,
        *,
        limits: Limits,
        timeouts: Timeouts,
        upstreams: Upstreams | None = None,
        pages: PageServer | None = None,
        trusted: Trusted | None = None,
        on_done: Callable[[Done], None] | None = None,
    ) -> None:
        self.admit = door.admit
        self.policy = policy
        self.limits = limits
        self.timeouts = timeouts
        self.upstreams = upstreams
        self.pages = pages
        self.on_done = on_done
        self.counters = Counters()
        self.request_heads = RequestHeads(
            policy, HeadLimits(limits.max_head_bytes, limits.max_line_bytes, limits.max_fields)
        )
        self.response_heads = ResponseHeads(
            policy, HeadLimits(limits.max_head_bytes, limits.max_line_bytes, limits.max_response_fields)
        )
        self.connections: set[Downstream] = set()
        self.draining = False
        self.on_idle: Callable[[], None] | None = None
        self.now = time.monotonic()
        self._trusted = trusted or Trusted()
        self._trust: dict[str, bool] = {}
        self._id_prefix = secrets.token_hex(5).encode("ascii")
        self._ids = 0
        self._date = b""
        self._date_at = 0

    def new_id(self) -> bytes:
        """A request id: the process's random prefix and a counter."""
        self._ids += 1
        return b"%b%08x" % (self._id_prefix, self._ids)

    def trusts(self, address: str) -> bool:
        """Whether this peer's word about the client is believed."""
        known = self._trust.get(address)
        if known is None:
            if len(self._trust) >= 4_096:
                self._trust.clear()
            known = self._trust[address] = address in self._trusted
        return known

    def date(self) -> bytes:
        """The `Date` of this second (RFC 9110 §6.6.1)."""
        now = int(time.time())
        if now != self._date_at:
            self._date = formatdate(now, usegmt=True).encode("ascii")
            self._date_at = now
        return self._date

    def forget(self, connection: Downstream) -> None:
        """A client's connection is gone or handed over."""
        self.connections.discard(connection)
        if self.on_idle is not None and not self.connections:
            self.on_idle()
