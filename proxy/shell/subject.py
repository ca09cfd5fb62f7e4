"""The session that a renewal is about."""

from __future__ import annotations

from msgspec import Struct

from proxy.core.seal import SessionSeal
from proxy.core.session import Record


class Subject(Struct, frozen=True):
    """See the module's docstring.

    Attributes:
        key: its store key.
        seal: opens and seals its blobs.
        record: as it was last read.
        op: issuer and client id of its tokens.
    """

    key: str
    seal: SessionSeal
    record: Record
    op: tuple[str, str] = ("", "")
