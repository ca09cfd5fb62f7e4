"""When reading from a peer is paused: while a set of reasons is not empty.

One flag cannot say which reason ended. Two reasons often overlap (the gate is asked while
the app's buffer is full), and the first one to end must not resume for the other.
"""

from __future__ import annotations

from typing import Protocol

AUTH = 1
"""The gate, or the hook behind a 401, is being asked."""
PIPELINE = 2
"""Bytes beyond the current message are already here."""
PEER_FULL = 4
"""The opposite side's write buffer is above its high-water mark."""
CONNECTING = 8
"""There is no connection to the app yet."""
ANY = AUTH | PIPELINE | PEER_FULL | CONNECTING
"""Every reason there is."""


class Readable(Protocol):
    """What a valve acts on; an asyncio read transport is one."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool: ...


class Valve:
    """The reading side of one connection.

    Args:
        source: what is paused when the first reason comes, resumed when the last one goes.
    """

    __slots__ = ("_source", "reasons")

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.reasons = 0

    def shut(self, reason: int) -> None:
        """Add a reason not to read; adding it twice changes nothing."""
        before = self.reasons
        self.reasons = before | reason
        # A transport that is closing has stopped reading and may refuse to be told so.
        if not before and not self._source.is_closing():
            self._source.pause_reading()

    def open(self, reason: int) -> None:
        """Take a reason away; reading resumes when it was the last."""
        before = self.reasons
        if not before & reason:
            return
        self.reasons = before & ~reason
        if not self.reasons and not self._source.is_closing():
            self._source.resume_reading()
