"""A session that a cookie opened, as this process holds it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from proxy.core.blobs import open_identity, open_tokens
from proxy.core.gate import Forward
from proxy.core.origin import Origin
from proxy.core.seal import SessionSeal, Ticket
from proxy.core.session import Identity, Record, Tokens


class Contents(Struct, frozen=True, gc=False):
    """What a session's two blobs hold."""

    tokens: Tokens
    identity: Identity


class OpenSession(Struct, eq=False):
    """See the module's docstring.

    Attributes:
        origin: at which the cookie is valid.
        ticket: what the cookie held.
        key: store key.
        record: as last read or committed; its blobs open with the ticket.
        contents: of the blobs, or newer ones (`unsaved`, `learned`). None = at rest: a ready
            request needs none of it, and sealed and compressed it takes half of the room.
        newest_key: the cookie was sealed with the newest key.
        forward: ready verdict for the app, one per version of tokens and identity.
        read_at: monotonic time of the last successful read.
        stale: its record changed since, or may have.
        unsaved: its tokens are newer than `record`.
        learned: its identity is newer than `record`.
        good_until: monotonic time until which a request needs no decision at all.
        retry_at: store time before which no renewal is tried.
        touched_at: store time of the activity that was last written.
        forced_at: store time of the last renewal that an app's 401 asked for.
        forced_gen: `gen` that this renewal brought.
        gone: why it is over; "" while it lives.
        user, op_session: whose it is, and which session at the OP it belongs to, by the store's names.
        values, lines: the cookie values, and whole `Cookie` lines, by which the cache finds it.
        closers: callbacks that close its tunnels and event streams.
        size_bytes: what it counts for in the cache.
    """

    origin: Origin
    ticket: Ticket
    key: str
    record: Record
    contents: Contents | None = None
    newest_key: bool = True
    forward: Forward = field(default_factory=Forward)
    read_at: float = 0.0
    stale: bool = False
    unsaved: bool = False
    learned: bool = False
    good_until: float = 0.0
    retry_at: float = 0.0
    touched_at: float = 0.0
    forced_at: float = float("-inf")
    forced_gen: str = ""
    gone: str = ""
    user: str = ""
    op_session: str = ""
    values: tuple[bytes, ...] = ()
    lines: tuple[bytes, ...] = ()
    closers: dict[Callable[[], None], None] = {}
    size_bytes: int = 0

    def __repr__(self) -> str:
        return f"OpenSession({self.key[:12]}…)"

    @property
    def seal(self) -> SessionSeal:
        """Of its blobs."""
        return SessionSeal(self.ticket)

    @property
    def tokens(self) -> Tokens:
        """As the store keeps them, or newer ones."""
        if self.contents is not None:
            return self.contents.tokens
        return open_tokens(self.seal, self.record)

    @property
    def identity(self) -> Identity:
        """Who it is."""
        if self.contents is not None:
            return self.contents.identity
        return open_identity(self.seal, self.record)

    def rest(self) -> None:
        """Keep its contents sealed until somebody asks, unless nobody else has them or they are in use."""
        if not (self.unsaved or self.learned or self.closers or self.gone):
            self.contents = None

    def close_streams(self) -> None:
        """Close its tunnels and event streams."""
        for close in list(self.closers):
            close()
        self.closers.clear()
