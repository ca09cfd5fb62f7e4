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
from typing import Final, Protocol

from proxy.errors import BadRequest, ProxyError, UpstreamError
from proxy.wire.framing import CHUNKED, UNTIL_CLOSE
from proxy.wire.head import RequestHead, RequestHeads
from proxy.wire.response import ResponseHead, ResponseHeads

_HEAD: Final = 0
_LENGTH: Final = 1
_CHUNK_SIZE: Final = 2
_CHUNK_DATA: Final = 3
_CHUNK_END: Final = 4
_TRAILERS: Final = 5
_UNTIL_CLOSE: Final = 6
_ENDED: Final = 7

# What no head can hold: a line end of its own kind, or a control character. Looked for
# only while a head is incomplete, so that a sender who will never finish is refused now.
_NEVER = re.compile(rb"(?<!\r)\n|\r(?![\n]|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# RFC 9112 §7.1: chunk-size [ chunk-ext ]; 15 digits are more than a petabyte.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})((?:" + _EXTENSION + rb")*)")
_MAX_CHUNK_LINE: Final = 256
_MAX_EXTENSIONS: Final = 16_384
"""Of one message, bytes: nobody uses them, and unbounded they cost work for nothing (CVE-2023-39326)."""
_MAX_TRAILERS: Final = 8_192


class RequestSink(Protocol):
    """Who takes the requests of one connection."""

    def on_head(self, head: RequestHead) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...


class ResponseSink(Protocol):
    """Who takes the response to one request."""

    def on_response_head(self, head: ResponseHead) -> None: ...
    def on_response_body(self, data: bytes) -> None: ...
    def on_response_end(self) -> None: ...


class MessageReader:
    """What both directions share; see `RequestReader` and `ResponseReader`.

    Attributes:
        held: nothing is handed over until `release`.
    """

    __slots__ = ("_extensions", "_feeding", "_left", "_partial", "_phase", "_seen", "held")

    def __init__(self) -> None:
        self._partial: bytearray | None = None
        self._phase = _HEAD
        self._left = 0
        self._seen = 0
        self._extensions = 0
        self._feeding = False
        self.held = False

    # What the directions differ in.

    def _read_head(self, data: bytes, at: int) -> int:
        raise NotImplementedError

    def _check_partial(self, partial: bytearray) -> None:
        raise NotImplementedError

    def _check_trailers(self, raw: bytes) -> None:
        raise NotImplementedError

    def _give(self, data: bytes) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def _refuse(self, text: str) -> ProxyError:
        raise NotImplementedError

    @property
    def waiting(self) -> bool:
        """Whether bytes wait in here."""
        return self._partial is not None

    def feed(self, data: bytes) -> None:
        """Take what arrived, and hand over what it completes.

        Raises:
            ProxyError: the message is not plainly legal; the connection cannot be read on.
        """
        partial = self._partial
        if partial is not None:
            partial += data
            if self.held or (self._phase == _HEAD and not self._head_complete(partial)):
                return
            data = bytes(partial)
            self._partial = None
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
        partial = self._partial
        if partial is not None and not self._feeding:
            self._partial = None
            self._run(bytes(partial))

    def _keep(self, data: bytes, at: int) -> int:
        self._partial = bytearray(data[at:])
        self._seen = 0
        return len(data)

    def _run(self, data: bytes) -> None:
        self._feeding = True
        try:
            at, size = 0, len(data)
            while at < size:
                if self.held:
                    self._keep(data, at)
                    return
                phase = self._phase
                if phase == _HEAD:
                    at = self._read_head(data, at)
                elif phase == _LENGTH:
                    at = self._read_length(data, at)
                elif phase == _UNTIL_CLOSE:
                    self._give(data[at:] if at else data)
                    return
                elif phase == _ENDED:
                    raise self._refuse("There are bytes after the message.")
                else:
                    at = self._read_chunked(data, at)
        finally:
            self._feeding = False

    def _begin_body(self, length: int) -> None:
        if length > 0:
            self._phase = _LENGTH
            self._left = length
        elif length == CHUNKED:
            self._phase = _CHUNK_SIZE
            self._extensions = 0
        elif length == UNTIL_CLOSE:
            self._phase = _UNTIL_CLOSE

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
        """RFC 9112 §7.1.3, strictly: no white space around sizes, no bare LF anywhere."""
        size = len(data)
        while at < size and not self.held:
            phase = self._phase
            if phase == _CHUNK_DATA:
                end = min(at + self._left, size)
                self._left -= end - at
                if not self._left:
                    self._phase = _CHUNK_END
                self._give(data[at:end])
                at = end
            elif phase == _CHUNK_END:
                if data[at : at + 2] != b"\r\n":
                    if size - at >= 2 or data[at] != 13:
                        raise self._refuse("A chunk does not end where it says.")
                    return self._keep(data, at)
                self._phase = _CHUNK_SIZE
                at += 2
            elif phase == _CHUNK_SIZE:
                end = data.find(b"\r\n", at, at + _MAX_CHUNK_LINE + 2)
                if end < 0:
                    # Every byte up to a last CR must do in a line that goes on.
                    if size - at > _MAX_CHUNK_LINE or _NEVER.search(data, at):
                        raise self._refuse("A chunk size is malformed.")
                    return self._keep(data, at)
                match = _CHUNK.fullmatch(data, at, end)
                if match is None:
                    raise self._refuse("A chunk size is malformed.")
                self._extensions += len(match[2])
                if self._extensions > _MAX_EXTENSIONS:
                    raise self._refuse("There are too many chunk extensions.")
                self._left = int(match[1], 16)
                self._phase = _CHUNK_DATA if self._left else _TRAILERS
                at = end + 2
            elif phase == _TRAILERS:
                return self._read_trailers(data, at)
            else:  # the message ended; what follows is not a chunk
                return at
        return at

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._finish()
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + _MAX_TRAILERS + 4)
        if end < 0:
            if len(data) - at > _MAX_TRAILERS or _NEVER.search(data, at):
                raise self._refuse("A trailer section is malformed.")
            return self._keep(data, at)
        self._check_trailers(data[at:end])
        self._finish()
        return end + 4


class RequestReader(MessageReader):
    """Requests of one downstream connection, one after the other.

    Args:
        heads: reads heads, shared by all connections.
        sink: gets `on_head`, `on_body`, `on_end` (only for a request with a body). It calls
            `release` after a head to get the body, and after a message to get the next.
    """

    __slots__ = ("_heads", "_line_checked", "_sink", "_skipped")

    def __init__(self, heads: RequestHeads, sink: RequestSink) -> None:
        super().__init__()
        self._heads = heads
        self._sink = sink
        self._skipped = False
        self._line_checked = False

    @property
    def between(self) -> bool:
        """Whether no byte of a next message has come."""
        return self._phase == _HEAD and self._partial is None and not self._skipped

    @property
    def in_body(self) -> bool:
        """Whether the body of a request is incomplete."""
        return self._phase != _HEAD

    def _read_head(self, data: bytes, at: int) -> int:
        if not self._skipped and data.startswith(b"\r\n", at):
            # RFC 9112 §2.2: one empty line in front of a request is forgiven.
            self._skipped = True
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            size = self._keep(data, at)
            partial = self._partial
            assert partial is not None
            self._check_partial(partial)
            self._seen = len(partial)
            return size
        head = self._heads.read(data[at:end])
        self._skipped = False
        self._line_checked = False
        self.held = True
        if head.has_body:
            self._begin_body(head.length)
        self._sink.on_head(head)
        return end + 4

    def _check_partial(self, partial: bytearray) -> None:
        limits = self._heads.limits
        if not self._line_checked:
            end = partial.find(b"\r\n", 2 if partial.startswith(b"\r\n") and not self._skipped else 0)
            if (end if end >= 0 else len(partial)) > limits.line_bytes + 2:
                raise BadRequest(414, "The request target is too long.")
            if end > 0:
                self._heads.check_request_line(bytes(partial[:end]).lstrip(b"\r\n"))
                self._line_checked = True
        if len(partial) > limits.head_bytes:
            raise BadRequest(431, "The request head is too long.")
        if _NEVER.search(partial, max(0, self._seen - 1)):
            raise BadRequest(400, "The request head is malformed.")

    def _check_trailers(self, raw: bytes) -> None:
        self._heads.trailers(raw)

    def _give(self, data: bytes) -> None:
        self._sink.on_body(data)

    def _finish(self) -> None:
        self._phase = _HEAD
        self.held = True
        self._sink.on_end()

    def _refuse(self, text: str) -> ProxyError:
        return BadRequest(400, text)


class ResponseReader(MessageReader):
    """Responses of one upstream connection, each to the request that `expect` announced.

    Args:
        heads: reads heads, shared by all connections.
    """

    __slots__ = ("_heads", "_method", "_sink", "started")

    def __init__(self, heads: ResponseHeads) -> None:
        super().__init__()
        self._heads = heads
        self._method = b""
        self._sink: ResponseSink | None = None
        self._phase = _ENDED
        self.started = False

    def expect(self, method: bytes, sink: ResponseSink | None) -> None:
        """Announce the next request; None = whatever comes is an error."""
        self._method = method
        self._sink = sink
        self._phase = _HEAD if sink is not None else _ENDED
        self.started = False

    def rest(self) -> bytes:
        """Take what was not handed over: the first bytes of a tunnel."""
        partial, self._partial = self._partial, None
        return bytes(partial) if partial is not None else b""

    def eof(self) -> None:
        """The app closed its side.

        Raises:
            UpstreamError: 502, the message was not complete; never taken for a clean end.
        """
        if self._phase == _UNTIL_CLOSE and not self.held:
            self._finish()
        elif self._phase != _ENDED:
            raise UpstreamError(502, "The application broke off its answer.")

    def _read_head(self, data: bytes, at: int) -> int:
        self.started = True
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            size = self._keep(data, at)
            partial = self._partial
            assert partial is not None
            self._check_partial(partial)
            self._seen = len(partial)
            return size
        head = self._heads.read(data[at:end], self._method)
        sink = self._sink
        assert sink is not None
        if head.status < 200:
            # 101 ends HTTP on this connection: what follows waits for `rest`.
            self.held = head.status == 101
            sink.on_response_head(head)
            return end + 4
        self._phase = _HEAD
        self._begin_body(head.length)
        sink.on_response_head(head)
        if self._phase == _HEAD:
            if self.held:
                # Nobody may see the end before the head was let through.
                self._phase = _LENGTH
                self._left = 0
            else:
                self._finish()
        return end + 4

    def release(self) -> None:
        """Go on handing over, also the end of a message without a body."""
        self.held = False
        if self._phase == _LENGTH and not self._left:
            self._finish()
        super().release()

    def _check_partial(self, partial: bytearray) -> None:
        if len(partial) > self._heads.limits.head_bytes:
            raise UpstreamError(502, "The application's answer has too long a head.")
        if _NEVER.search(partial, max(0, self._seen - 1)) or not b"HTTP/1.".startswith(bytes(partial[:7])):
            raise UpstreamError(502, "The application sent an answer that is not legal HTTP.")

    def _check_trailers(self, raw: bytes) -> None:
        self._heads.trailers(raw)

    def _give(self, data: bytes) -> None:
        sink = self._sink
        assert sink is not None
        sink.on_response_body(data)

    def _finish(self) -> None:
        self._phase = _ENDED
        sink = self._sink
        assert sink is not None
        sink.on_response_end()

    def _refuse(self, text: str) -> ProxyError:
        return UpstreamError(502, "The application sent an answer that is not legal HTTP.", detail=text)
