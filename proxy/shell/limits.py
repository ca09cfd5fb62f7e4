"""What connections may take, and how long is waited for whom."""

from __future__ import annotations

from msgspec import Struct

from proxy.wire.lines import HeadLimits


class Limits(Struct, frozen=True):
    """What one connection, or all of them, may take.

    Attributes:
        max_head_bytes, max_line_bytes, max_fields: of a request head → 431, 414, 431.
        max_response_fields: of a response head of the app → 502.
        max_connections: from clients; one more gets 503 and is closed.
        pool_size: connections to one upstream, tunnels and streams included.
        pool_queue: requests that may wait for one of those; one more gets 503.
        page_body_bytes: of a body posted to our own pages → 413.
        write_buffer_bytes: high-water mark of each connection's write buffer.
        min_rate_bytes: per second, what a client must bring of a body, and take of an answer
            that waits for it, over `Timeouts.slow_s` (Kestrel and mod_reqtimeout have such
            limits; without one a byte a minute holds a connection for ever). 0 = any progress
            within `body_idle_s` will do.
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
    min_rate_bytes: int = 240

    @property
    def request_head(self) -> HeadLimits:
        """What a client's head may take."""
        return HeadLimits(self.max_head_bytes, self.max_line_bytes, self.max_fields)

    @property
    def response_head(self) -> HeadLimits:
        """What a head of the app may take."""
        return HeadLimits(self.max_head_bytes, self.max_line_bytes, self.max_response_fields)


class Timeouts(Struct, frozen=True):
    """How long is waited for whom, in seconds; kept by a sweep, so up to a second more.

    Attributes:
        head_s: from a head's first byte (or from the connection's start) to its end.
        idle_s: a kept-alive connection without a request.
        body_idle_s: silence of the app within a body, or an app that takes nothing of one.
        slow_s: over how long a client's pace is measured (`Limits.min_rate_bytes`).
        connect_s: connecting to the app, TLS included.
        queue_s: waiting for a connection to the app when all are taken.
        decide_s: the door's longest answer; then 503, because a door that hangs must not
            keep connections for ever.
        first_byte_s: from the request's last byte to the app's first → 504.
        tunnel_idle_s: silence in a tunnel or an event stream.
        page_body_s: reading a body posted to our own pages.
        linger_s: reading what a client still sends after its answer (RFC 9112 §9.6).
        drain_idle_s: an idle connection at the end of the process: a client that is just sending
            its next request gets an answer, with `Connection: close`, instead of a reset.
        half_close_s: how long a client that closed its sending side may wait in silence: a
            half-close and a hang-up look the same until something is written.
        upstream_idle_s: an idle connection to the app is kept.
    """

    head_s: float = 10.0
    idle_s: float = 75.0
    body_idle_s: float = 60.0
    slow_s: float = 10.0
    connect_s: float = 5.0
    queue_s: float = 5.0
    decide_s: float = 60.0
    first_byte_s: float = 60.0
    tunnel_idle_s: float = 3_600.0
    page_body_s: float = 10.0
    linger_s: float = 3.0
    drain_idle_s: float = 3.0
    half_close_s: float = 1.0
    upstream_idle_s: float = 60.0
