"""Reads messages off a connection: bytes in, calls on a sink out.

One reader lives as long as its connection. It hands over a head when the head is whole and
legal, then the body as it comes, without copying where it can. After each head, and after
each message, it is **held** until its sink calls `release`: what arrives meanwhile waits
in it, so a body is never read past the gate and pipelined requests take their turn. The
sink pauses the connection while something waits; one read at most is kept.

Trailers are checked and dropped. Chunks are decoded here and framed anew by whoever sends
them on (RFC 9112 §7.1), extensions are dropped (§7.1.1).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final

from proxy.errors import ProxyError
from proxy.wire.framing import CHUNKED, UNTIL_CLOSE

IN_HEAD: Final = 0
IN_LENGTH: Final = 1
_CHUNK_SIZE: Final = 2
_CHUNK_DATA: Final = 3
_CHUNK_END: Final = 4
_TRAILERS: Final = 5
IN_UNTIL_CLOSE: Final = 6
IN_ENDED: Final = 7

# What no head can hold: a line end of its own kind, or a control character. Looked for
# only while a head is incomplete, so that a sender who will never finish is refused now.
NEVER = re.compile(rb"(?<!\r)\n|\r(?![\n]|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_HEX: Final = b"0123456789abcdefABCDEF"
_MAX_DIGITS: Final = 15
"""Of a chunk's size: more than a petabyte."""

# RFC 9112 §7.1: chunk-size [ chunk-ext ].
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
# Without the "bad" white space that §7.1.1 mentions: nobody sends it, and readers differ about it.
_EXTENSION = rb";" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,%d})((?:%b)*)" % (_MAX_DIGITS, _EXTENSION))
_MAX_CHUNK_LINE: Final = 256
_MAX_EXTENSIONS: Final = 16_384
"""Of one message, bytes: nobody uses them, and unbounded they cost work for nothing (CVE-2023-39326)."""
_MAX_TRAILERS: Final = 8_192
_SMALL: Final = 4_096
"""Bytes: chunks that are smaller on average go on as one piece."""


class MessageReader(ABC):
    """What both directions share; see `readers.py`.

    Attributes:
        held: nothing is handed over until `release`.
        partial: bytes that wait in here, None if none do.
        feeding: a sink is being called right now; `release` then only lifts the hold.
    """

    __slots__ = ("_extensions", "_left", "_phase", "_seen", "feeding", "held", "partial")

    def __init__(self) -> None:
        self.partial: bytearray | None = None
        self._phase = IN_HEAD
        self._left: int = 0
        self._seen = 0
        self._extensions = 0
        self.feeding = False
        self.held = False

    # What the directions differ in.

    @abstractmethod
    def _read_head(self, data: bytes, at: int) -> int: ...

    @abstractmethod
    def _check_partial(self, partial: bytearray) -> None: ...

    @abstractmethod
    def _check_trailers(self, raw: bytes) -> None: ...

    @abstractmethod
    def _give(self, data: bytes) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _refuse(self, text: str) -> ProxyError: ...

    @property
    def waiting(self) -> bool:
        """Whether bytes wait in here."""
        return self.partial is not None

    def feed(self, data: bytes) -> None:
        """Take what arrived, and hand over what it completes.

        Raises:
            ProxyError: the message is not plainly legal; the connection cannot be read on.
        """
        partial = self.partial
        if partial is not None:
            partial += data
            if self.held or (self._phase == IN_HEAD and not self._head_complete(partial)):
                return
            data = bytes(partial)
            self.partial = None
        elif self.held:
            self._keep(data, 0)
            return
        self._run(data)

    def release(self) -> None:
        """Go on handing over.

        Raises:
            ProxyError: as `feed`.
        """
        self.held = False
        partial = self.partial
        if partial is not None and not self.feeding:
            self.partial = None
            self._run(bytes(partial))

    def rest(self) -> bytes:
        """Take what was not handed over: the first bytes of a tunnel."""
        partial, self.partial = self.partial, None
        return bytes(partial) if partial is not None else b""

    def _keep(self, data: bytes, at: int) -> int:
        self.partial = bytearray(data[at:])
        self._seen = 0
        return len(data)

    def _run(self, data: bytes) -> None:
        self.feeding = True
        try:
            at, size = 0, len(data)
            while at < size:
                if self.held:
                    self._keep(data, at)
                    return
                phase = self._phase
                if phase == IN_HEAD:
                    at = self._read_head(data, at)
                elif phase == IN_LENGTH:
                    at = self._read_length(data, at)
                elif phase == IN_UNTIL_CLOSE:
                    self._give(data[at:] if at else data)
                    return
                elif phase == IN_ENDED:
                    raise self._refuse("There are bytes after the message.")
                else:
                    at = self._read_chunked(data, at)
        finally:
            self.feeding = False

    def _begin_body(self, length: int) -> None:
        if length > 0:
            self._phase = IN_LENGTH
            self._left = length
        elif length == CHUNKED:
            self._phase = _CHUNK_SIZE
            self._extensions = 0
        elif length == UNTIL_CLOSE:
            self._phase = IN_UNTIL_CLOSE

    def _head_complete(self, partial: bytearray) -> bool:
        if partial.find(b"\r\n\r\n", max(0, self._seen - 3)) >= 0:
            return True
        self._check_partial(partial)
        self._seen = len(partial)
        return False

    def _read_length(self, data: bytes, at: int) -> int:
        left = self._left
        size = len(data)
        if size - at < left:
            self._left = left - (size - at)
            self._give(data[at:] if at else data)
            return size
        self._give(data if not at and size == left else data[at : at + left])
        self._finish()
        return at + left

    def _read_chunked(self, data: bytes, at: int) -> int:
        """RFC 9112 §7.1.3, strictly: no white space around sizes, no bare LF anywhere.

        No sink holds while it takes a piece of a body.
        """
        size, start, fault = len(data), at, ""
        pieces: list[bytes] = []
        while at < size:
            phase = self._phase
            if phase == _CHUNK_SIZE:
                end = data.find(b"\r\n", at, at + _MAX_CHUNK_LINE + 2)
                if end < 0:
                    # Every byte up to a last CR must do in a line that goes on.
                    if size - at > _MAX_CHUNK_LINE or NEVER.search(data, at):
                        fault = "A chunk size is malformed."
                    break
                left = self._chunk_size(data[at:end])
                if left < 0:
                    fault = "A chunk size is malformed."
                    break
                if self._extensions > _MAX_EXTENSIONS:
                    fault = "There are too many chunk extensions."
                    break
                at = end + 2
                stop = at + left
                if left and data[stop : stop + 2] == b"\r\n":  # a whole one, as most small ones are
                    pieces.append(data[at:stop])
                    at = stop + 2
                    continue
                self._left = left
                self._phase = _CHUNK_DATA if left else _TRAILERS
            elif phase == _CHUNK_DATA:
                end = min(at + self._left, size)
                self._left -= end - at
                if not self._left:
                    self._phase = _CHUNK_END
                pieces.append(data[at:end])
                at = end
            elif phase == _CHUNK_END:
                if data[at : at + 2] != b"\r\n":
                    if size - at >= 2 or data[at] != 13:
                        fault = "A chunk does not end where it says."
                    break
                self._phase = _CHUNK_SIZE
                at += 2
            else:
                break
        # Small pieces of one read go on as one: each on its way costs as much as a large one.
        if len(pieces) > 1 and at - start < _SMALL * len(pieces):
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self._give(piece)
        if fault:
            raise self._refuse(fault)
        if at == size:
            return at
        return self._read_trailers(data, at) if self._phase == _TRAILERS else self._keep(data, at)

    def _chunk_size(self, line: bytes) -> int:
        """RFC 9112 §7.1: bytes of data; -1 = malformed."""
        if line and len(line) <= _MAX_DIGITS and not line.translate(None, _HEX):
            return int(line, 16)  # nearly all have no extension: 0.4 µs less than by the pattern
        match = _CHUNK.fullmatch(line)
        if match is None:
            return -1
        self._extensions += len(match[2])
        return int(match[1], 16)

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._finish()
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + _MAX_TRAILERS + 4)
        if end < 0:
            if len(data) - at > _MAX_TRAILERS or NEVER.search(data, at):
                raise self._refuse("A trailer section is malformed.")
            return self._keep(data, at)
        self._check_trailers(data[at:end])
        self._finish()
        return end + 4
