"""How one listener serves under one configuration: all that a reload replaces, in one value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct, field

from proxy.core.gate import Verdict
from proxy.core.headers import HeaderPolicy, Trusted
from proxy.shell.limits import Limits, Timeouts
from proxy.shell.peer import Peer
from proxy.shell.pool import Upstreams
from proxy.wire.head import RequestHead
from proxy.wire.passes import Pass


class Door(Protocol):
    """Asked once per request head; warm, it answers at once."""

    def admit(self, head: RequestHead, peer: Peer, /) -> Verdict | Awaitable[Verdict]:
        """The verdict on a request. Whatever it raises, the request is not forwarded."""
        ...


class EngineDoor(Door, Protocol):
    """A door for an engine, which asks nearly the same again and again; see `auth_door.py`."""

    standing: Callable[[bytes], tuple[bytes, bytes, Pass] | None]

    @property
    def found(self) -> int:
        """How many questions were known."""
        ...

    def begin(self) -> None:
        """Something is read next that is not known."""
        ...

    def keep(self, data: bytes, /) -> None:
        """Know it again if it was a question that was let through."""
        ...


class Serving(Struct, frozen=True):
    """See the module's docstring.

    Attributes:
        door: decides about each request.
        policy: about header fields.
        limits: what connections may take.
        timeouts: how long is waited for whom.
        upstreams: where to forward to; None = this listener only answers.
        trusted: peers whose `X-Forwarded-*` are believed; nobody by default.
        engine: the door as an engine's; None = no engine asks here.
    """

    door: Door
    policy: HeaderPolicy
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    upstreams: Upstreams | None = None
    trusted: Trusted = field(default_factory=Trusted)
    engine: EngineDoor | None = None
