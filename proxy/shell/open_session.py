"""A session that a cookie opened, as this process holds it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from proxy.core.gate import Forward
from proxy.core.origin import Origin
from proxy.core.seal import SessionSeal, Ticket
from proxy.core.session import Identity, Record, Tokens


class OpenSession(Struct, eq=False):
    """See the module's docstring.

    Attributes:
        origin: at which the cookie is valid.
        ticket: what the cookie held.
        key: store key.
        seal: of its blobs.
        record: as last read or committed.
        tokens: of `record`, or newer ones that the store has not taken yet (`unsaved`).
        identity: who it is.
        newest_key: the cookie was sealed with the newest key.
        forward: ready verdict for the app, one per version of tokens and identity.
        read_at: monotonic time of the last successful read.
        stale: its record changed since, or may have.
        unsaved: see `tokens`.
        good_until: monotonic time until which a request needs no decision at all.
        retry_at: store time before which no renewal is tried.
        touched_at: store time of the activity that was last written.
        forced_at: store time of the last renewal that an app's 401 asked for.
        forced_gen: `gen` that this renewal brought.
        gone: why it is over; "" while it lives.
        values, lines: the cookie values, and whole `Cookie` lines, by which the cache finds it.
        closers: callbacks that close its tunnels and event streams.
        size_bytes: what it counts for in the cache.
    """

    origin: Origin
    ticket: Ticket
    key: str
    seal: SessionSeal
    record: Record
    tokens: Tokens
    identity: Identity
    newest_key: bool = True
    forward: Forward = field(default_factory=Forward)
    read_at: float = 0.0
    stale: bool = False
    unsaved: bool = False
    good_until: float = 0.0
    retry_at: float = 0.0
    touched_at: float = 0.0
    forced_at: float = float("-inf")
    forced_gen: str = ""
    gone: str = ""
    values: set[bytes] = field(default_factory=set[bytes])
    lines: list[bytes] = field(default_factory=list[bytes])
    closers: set[Callable[[], None]] = field(default_factory=set[Callable[[], None]])
    size_bytes: int = 0

    def __repr__(self) -> str:
        return f"OpenSession({self.key[:12]}…)"

    def close_streams(self) -> None:
        """Close its tunnels and event streams."""
        for close in list(self.closers):
            close()
        self.closers.clear()
