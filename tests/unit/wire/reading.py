"""Feeds bytes to a reader, whole or cut, and writes down what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from proxy.core.cookies import names_for
from proxy.core.headers import HeaderPolicy
from proxy.errors import ProxyError
from proxy.wire.head import RequestHead, RequestHeads
from proxy.wire.readers import RequestReader, ResponseReader
from proxy.wire.response import ResponseHead, ResponseHeads

NAMES = names_for("https://app.example.com")
POLICY = HeaderPolicy([NAMES], ["https://app.example.com"])

Seen = list[tuple[object, ...]]


class Requests:
    """A sink that takes every request at once, unless it is told not to release the reader."""

    def __init__(self, heads: RequestHeads | None = None, *, releases: bool = True) -> None:
        self.releases = releases
        self.heads: list[RequestHead] = []
        self.bodies: list[bytearray] = []
        self.ended = 0
        self.reader = RequestReader(heads or RequestHeads(POLICY), self)

    def on_head(self, head: RequestHead) -> None:
        self.heads.append(head)
        self.bodies.append(bytearray())
        if not head.has_body:
            self.ended += 1
        if self.releases:
            self.reader.release()

    def on_body(self, data: bytes) -> None:
        assert data, "an empty piece says nothing"
        self.bodies[-1] += data

    def on_end(self) -> None:
        self.ended += 1
        if self.releases:
            self.reader.release()

    def seen(self) -> Seen:
        return [
            (head.method, head.target, head.host, tuple(head.passed), bytes(body))
            for head, body in zip(self.heads, self.bodies, strict=True)
        ]


class Responses:
    """A sink for the response to one request."""

    def __init__(self, method: bytes = b"GET") -> None:
        self.reader = ResponseReader(ResponseHeads(POLICY))
        self.reader.expect(method, self)
        self.heads: list[ResponseHead] = []
        self.body = bytearray()
        self.ended = False

    def on_response(self, head: ResponseHead, body: bytes) -> bool:
        return False

    def on_response_head(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def on_response_body(self, data: bytes) -> None:
        assert data
        self.body += data

    def on_response_end(self) -> None:
        self.ended = True

    def seen(self) -> Seen:
        return [
            *((head.status, head.line, tuple(head.passed)) for head in self.heads),
            (bytes(self.body), self.ended),
        ]


def cuts(stream: bytes) -> Iterator[Iterable[bytes]]:
    """A stream whole, one byte at a time, and cut in two at every byte."""
    yield [stream]
    yield [stream[at : at + 1] for at in range(len(stream))]
    for at in range(1, len(stream)):
        yield [stream[:at], stream[at:]]


def read_requests(pieces: Iterable[bytes]) -> tuple[Requests, int]:
    """Feed pieces; answers the sink and the status of a refusal, 0 if there was none."""
    sink = Requests()
    try:
        for piece in pieces:
            sink.reader.feed(piece)
    except ProxyError as error:
        return sink, error.status
    return sink, 0


def read_response(
    pieces: Iterable[bytes], method: bytes = b"GET", *, eof: bool = False
) -> tuple[Responses, int]:
    """Feed pieces, and the end of the connection; answers the sink and the status of an error."""
    sink = Responses(method)
    try:
        for piece in pieces:
            sink.reader.feed(piece)
        if eof:
            sink.reader.eof()
    except ProxyError as error:
        return sink, error.status
    return sink, 0
