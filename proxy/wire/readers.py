"""The two readers: requests of a browser's connection, responses of the app's.

What they share is in `parser.py`. They differ in what a head is, in whose fault an illegal
byte is (a 400 or a 502), and in what an end of the connection means.
"""

from __future__ import annotations

from typing import Protocol

from proxy.errors import BadRequest, ProxyError, UpstreamError
from proxy.wire.head import RequestHead, RequestHeads
from proxy.wire.parser import IN_ENDED, IN_HEAD, IN_LENGTH, IN_UNTIL_CLOSE, NEVER, MessageReader
from proxy.wire.response import ResponseHead, ResponseHeads


class RequestSink(Protocol):
    """Who takes the requests of one connection."""

    def on_head(self, head: RequestHead) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...


class ResponseSink(Protocol):
    """Who takes the response to one request."""

    def on_response(self, head: ResponseHead, body: bytes) -> bool: ...
    def on_response_head(self, head: ResponseHead) -> None: ...
    def on_response_body(self, data: bytes) -> None: ...
    def on_response_end(self) -> None: ...


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

    def use(self, heads: RequestHeads) -> None:
        """Read the heads that follow by other rules."""
        self._heads = heads

    def feed(self, data: bytes) -> None:
        """As `MessageReader.feed`; most reads are one whole head, which needs no more than this."""
        if self.partial is None and not self.held and self._phase == IN_HEAD:
            head = self._heads.known(data)
            if head is None and data.find(b"\r\n\r\n") == len(data) - 4 > 0 and data[0] != 13:
                head = self._heads.learn(data[:-4])
            if head is not None:
                self.feeding = True
                try:
                    self._take(head)
                finally:
                    self.feeding = False
                return
        super().feed(data)

    @property
    def between(self) -> bool:
        """Whether no byte of a next message has come."""
        return self._phase == IN_HEAD and self.partial is None and not self._skipped

    @property
    def in_body(self) -> bool:
        """Whether the body of a request is incomplete."""
        return self._phase != IN_HEAD

    def _read_head(self, data: bytes, at: int) -> int:
        if not self._skipped and data.startswith(b"\r\n", at):
            # RFC 9112 §2.2: one empty line in front of a request is forgiven.
            self._skipped = True
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            size = self._keep(data, at)
            partial = self.partial
            assert partial is not None
            self._check_partial(partial)
            self._seen = len(partial)
            return size
        self._take(self._heads.read(data[at:end]))
        return end + 4

    def _take(self, head: RequestHead) -> None:
        self._skipped = False
        self._line_checked = False
        self.held = True
        if head.has_body:
            self._begin_body(head.length)
        self._sink.on_head(head)

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
        if NEVER.search(partial, max(0, self._seen - 1)):
            raise BadRequest(400, "The request head is malformed.")

    def _check_trailers(self, raw: bytes) -> None:
        self._heads.trailers(raw)

    def _give(self, data: bytes) -> None:
        self._sink.on_body(data)

    def _finish(self) -> None:
        self._phase = IN_HEAD
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
        self._phase = IN_ENDED
        self.started = False

    def expect(self, method: bytes, sink: ResponseSink) -> None:
        """Announce the next request."""
        self._method = method
        self._sink = sink
        self._phase = IN_HEAD
        self.started = False

    def expect_nothing(self) -> None:
        """No request is under way: whatever comes is an error."""
        self._sink = None
        self._phase = IN_ENDED

    def feed(self, data: bytes) -> None:
        """As `MessageReader.feed`; a whole answer with a length in one read needs no more than this."""
        if self.partial is None and self._phase == IN_HEAD and not self.held:
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                self.started = True
                head = self._heads.read(data[:end], self._method)
                if 0 < head.length == len(data) - end - 4 and head.status >= 200:
                    sink = self._sink
                    assert sink is not None
                    if sink.on_response(head, data[end + 4 :]):
                        self._phase = IN_ENDED
                        return
        super().feed(data)

    def eof(self) -> None:
        """The app closed its side.

        Raises:
            UpstreamError: 502, the message was not complete; never taken for a clean end.
        """
        if self._phase == IN_UNTIL_CLOSE and not self.held:
            self._finish()
        elif self._phase != IN_ENDED:
            raise UpstreamError(502, "The application broke off its answer.")

    def _read_head(self, data: bytes, at: int) -> int:
        self.started = True
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            size = self._keep(data, at)
            partial = self.partial
            assert partial is not None
            self._check_partial(partial)
            self._seen = len(partial)
            return size
        head = self._heads.read(data[at:end], self._method)
        sink = self._sink
        assert sink is not None
        if head.status < 200:
            if head.status == 101:
                # It ends HTTP on this connection: what follows waits for `rest`, which a tunnel
                # asks for at once.
                self.held = True
                if end + 4 < len(data):
                    self._keep(data, end + 4)
                sink.on_response_head(head)
                return len(data)
            sink.on_response_head(head)
            return end + 4
        self._phase = IN_HEAD
        self._begin_body(head.length)
        sink.on_response_head(head)
        if self._phase == IN_HEAD:
            if self.held:
                # Nobody may see the end before the head was let through.
                self._phase = IN_LENGTH
                self._left = 0
            else:
                self._finish()
        return end + 4

    def release(self) -> None:
        """Go on handing over, also the end of a message without a body."""
        self.held = False
        if self._phase == IN_LENGTH and not self._left:
            self._finish()
        super().release()

    def _check_partial(self, partial: bytearray) -> None:
        if len(partial) > self._heads.limits.head_bytes:
            raise UpstreamError(502, "The application's answer has too long a head.")
        if NEVER.search(partial, max(0, self._seen - 1)) or not b"HTTP/1.".startswith(bytes(partial[:7])):
            raise UpstreamError(502, "The application sent an answer that is not legal HTTP.")

    def _check_trailers(self, raw: bytes) -> None:
        self._heads.trailers(raw)

    def _give(self, data: bytes) -> None:
        sink = self._sink
        assert sink is not None
        sink.on_response_body(data)

    def _finish(self) -> None:
        self._phase = IN_ENDED
        sink = self._sink
        assert sink is not None
        sink.on_response_end()

    def _refuse(self, text: str) -> ProxyError:
        return UpstreamError(502, "The application sent an answer that is not legal HTTP.", detail=text)
