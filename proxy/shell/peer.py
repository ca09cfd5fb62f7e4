"""Who is at the other end of a client's connection."""

from __future__ import annotations


class Peer:
    """See the module's docstring.

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
