"""Responses of the app: framing, bodies, interim responses, and what makes a 502."""

from __future__ import annotations

import pytest

from proxy.wire.framing import CHUNKED, UNTIL_CLOSE
from proxy.wire.response import ResponseHead
from tests.unit.wire.reading import Responses, cuts, read_response

OK = b"HTTP/1.1 200 OK\r\n"
LINE = b"HTTP/1.1 200 OK"

# name: method, stream, end of connection follows, what is seen
ACCEPTED: dict[str, tuple[bytes, bytes, bool, list[tuple[object, ...]]]] = {
    "length": (
        b"GET",
        OK + b"Content-Length: 2\r\nX: y\r\n\r\nab",
        False,
        [(200, LINE, (b"X: y",)), (b"ab", True)],
    ),
    "length 0": (b"GET", OK + b"Content-Length: 0\r\n\r\n", False, [(200, LINE, ()), (b"", True)]),
    "no reason": (
        b"GET",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        False,
        [(200, LINE[:-2], ()), (b"", True)],
    ),
    "HTTP/1.0 becomes 1.1": (b"GET", b"HTTP/1.0 200 OK\r\n\r\nab", True, [(200, LINE, ()), (b"ab", True)]),
    "until close": (b"GET", OK + b"\r\nabc", True, [(200, LINE, ()), (b"abc", True)]),
    "until close, empty": (b"GET", OK + b"\r\n", True, [(200, LINE, ()), (b"", True)]),
    "chunked": (
        b"GET",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\nX-T: 1\r\n\r\n",
        False,
        [(200, LINE, ()), (b"abc", True)],
    ),
    "HEAD with a length": (b"HEAD", OK + b"Content-Length: 5\r\n\r\n", False, [(200, LINE, ()), (b"", True)]),
    "HEAD chunked": (
        b"HEAD",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        False,
        [(200, LINE, ()), (b"", True)],
    ),
    "204": (b"GET", b"HTTP/1.1 204 N\r\n\r\n", False, [(204, b"HTTP/1.1 204 N", ()), (b"", True)]),
    "304 with a length": (
        b"GET",
        b"HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n",
        False,
        [(304, b"HTTP/1.1 304 N", ()), (b"", True)],
    ),
    "interim": (
        b"GET",
        b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
        False,
        [
            (100, b"HTTP/1.1 100 C", ()),
            (103, b"HTTP/1.1 103 E", (b"Link: x",)),
            (200, LINE, ()),
            (b"a", True),
        ],
    ),
    "our cookies and hop-by-hop go": (
        b"GET",
        OK
        + b"Set-Cookie: __Host-np=x\r\nSet-Cookie: =__Host-np=x\r\nset-cookie: __Host-np-flow-1=x; Path=/\r\n"
        b"Set-Cookie: app=1\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Authenticate: x\r\n"
        b"Content-Length: 0\r\n\r\n",
        False,
        [(200, LINE, (b"Set-Cookie: app=1",)), (b"", True)],
    ),
}

BROKEN = {
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n", False),
    "HTTP/2": (b"HTTP/2.0 200 OK\r\n\r\n", False),
    "status of two digits": (b"HTTP/1.1 20 OK\r\n\r\n", False),
    "status 099": (b"HTTP/1.1 099 OK\r\n\r\n", False),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", False),
    "NUL": (OK + b"X: a\x00\r\n\r\n", False),
    "space before colon": (OK + b"Content-Length : 0\r\n\r\n", False),
    "obs-fold": (OK + b"X: a\r\n b\r\n\r\n", False),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", False),
    "two framings": (OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
    "coding in 1.0": (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
    "other coding": (OK + b"Transfer-Encoding: gzip\r\n\r\n", False),
    "bytes after the message": (OK + b"Content-Length: 1\r\n\r\nab", False),
    "body on 204": (b"HTTP/1.1 204 N\r\n\r\nx", False),
    "closed in the head": (b"HTTP/1.1 200 OK\r\nX: y\r\n", True),
    "closed before anything": (b"", True),
    "closed in the body": (OK + b"Content-Length: 3\r\n\r\nab", True),
    "closed in a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab", True),
    "closed before the last chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", True),
    "closed in the trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n", True),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_legal_response_is_read_the_same_however_it_is_cut(case: str) -> None:
    method, stream, eof, expected = ACCEPTED[case]
    for pieces in cuts(stream):
        sink, status = read_response(pieces, method, eof=eof)
        assert (status, sink.seen()) == (0, expected)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_response_is_a_502_and_never_a_clean_end(case: str) -> None:
    stream, eof = BROKEN[case]
    for pieces in cuts(stream):
        sink, status = read_response(pieces, eof=eof)
        assert status == 502
        complete = "after the message" in case or "on 204" in case
        assert sink.ended is complete


@pytest.mark.parametrize(
    ("fields", "length", "stated", "keeps"),
    [
        (b"Content-Length: 5\r\n", 5, 5, True),
        (b"Content-Length: 5\r\nConnection: close\r\n", 5, 5, False),
        (b"Transfer-Encoding: chunked\r\n", CHUNKED, -1, True),
        (b"", UNTIL_CLOSE, -1, True),
    ],
)
def test_what_a_head_says_about_its_body(fields: bytes, length: int, stated: int, keeps: bool) -> None:
    sink, _ = read_response([OK + fields + b"\r\n"])
    head = sink.heads[0]
    assert (head.length, head.stated, head.keep_alive) == (length, stated, keeps)


def test_a_length_that_describes_no_body_is_still_told() -> None:
    sink, _ = read_response([OK + b"Content-Length: 5\r\n\r\n"], b"HEAD")
    assert (sink.heads[0].length, sink.heads[0].stated) == (0, 5)
    sink, _ = read_response([b"HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n"])
    assert (sink.heads[0].length, sink.heads[0].stated) == (0, -1)


class Switching(Responses):
    """Takes what follows a 101 when it hears of it, as a tunnel does."""

    taken = b""

    def on_response_head(self, head: ResponseHead) -> None:
        super().on_response_head(head)
        self.taken = self.reader.rest()


def test_bytes_after_101_are_there_for_the_tunnel_however_they_are_cut() -> None:
    frames = b"\x81\x01x\x81\x02yz"
    stream = b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + frames
    for pieces in cuts(stream):
        sink, tunnelled = Switching(), b""
        for piece in pieces:
            if sink.heads:
                tunnelled += piece
            else:
                sink.reader.feed(piece)
        assert sink.heads[0].upgrade == b"websocket"
        assert sink.taken + tunnelled == frames
        assert not sink.reader.waiting


def test_a_held_response_keeps_its_body_and_its_end() -> None:
    for stream, body in (
        (b"HTTP/1.1 401 U\r\nContent-Length: 3\r\nWWW-Authenticate: Bearer\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 401 U\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer\r\n\r\n", b""),
    ):
        for pieces in cuts(stream):
            from tests.unit.wire.reading import Responses

            sink = Responses()

            def hold(head: object, sink: Responses = sink) -> None:
                sink.reader.held = True

            sink.on_response_head = hold  # type: ignore[method-assign]
            for piece in pieces:
                sink.reader.feed(piece)
            assert (bytes(sink.body), sink.ended) == (b"", False)
            sink.reader.release()
            assert (bytes(sink.body), sink.ended) == (body, True)
