"""Streams of requests: what is accepted, how it is read, what is refused and with which status.

Every stream is read whole, one byte at a time, and cut in two at every byte.
"""

from __future__ import annotations

import pytest

from proxy.errors import ProxyError
from proxy.wire.head import RequestHeads
from proxy.wire.lines import HeadLimits
from tests.unit.wire.reading import POLICY, Requests, cuts, read_requests

H = b"Host: a\r\n"

ACCEPTED = {
    "plain": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [(b"GET", b"/", b"a", (), b"")]),
    "one empty line in front": (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", [(b"GET", b"/", b"a", (), b"")]),
    "fields": (
        b"GET /p?q=1 HTTP/1.1\r\nHost:a\r\nAccept:  */* \t\r\nX-Empty:\r\nX-Obs: \xe9\r\n\r\n",
        [(b"GET", b"/p?q=1", b"a", (b"Accept:  */* \t", b"X-Empty:", b"X-Obs: \xe9"), b"")],
    ),
    "host with port": (b"GET / HTTP/1.1\r\nHost: a.b:8080\r\n\r\n", [(b"GET", b"/", b"a.b:8080", (), b"")]),
    "host IPv6": (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", [(b"GET", b"/", b"[::1]:80", (), b"")]),
    "HTTP/1.0 without host": (b"GET / HTTP/1.0\r\n\r\n", [(b"GET", b"/", b"", (), b"")]),
    "unknown method": (b"QUERY / HTTP/1.1\r\nHost: a\r\n\r\n", [(b"QUERY", b"/", b"a", (), b"")]),
    "odd but legal target": (
        b'GET /a|b{}?^=`"<>\\ HTTP/1.1\r\n'.replace(b"\\ ", b"\\ ") + H + b"\r\n",
        [(b"GET", b'/a|b{}?^=`"<>\\', b"a", (), b"")],
    ),
    "double slash stays": (b"GET //x HTTP/1.1\r\nHost: a\r\n\r\n", [(b"GET", b"//x", b"a", (), b"")]),
    "absolute form": (
        b"GET http://b.c:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
        [(b"GET", b"/x?y", b"b.c:81", (), b"")],
    ),
    "absolute form, no path": (
        b"GET HTTP://b?y HTTP/1.1\r\nHost: a\r\n\r\n",
        [(b"GET", b"/?y", b"b", (), b"")],
    ),
    "absolute form, bare": (b"GET https://b HTTP/1.1\r\nHost: a\r\n\r\n", [(b"GET", b"/", b"b", (), b"")]),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", [(b"OPTIONS", b"*", b"a", (), b"")]),
    "OPTIONS absolute": (
        b"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n",
        [(b"OPTIONS", b"*", b"b", (), b"")],
    ),
    "length": (
        b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 3\r\n\r\nabc",
        [(b"POST", b"/", b"a", (), b"abc")],
    ),
    "length 0": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n", [(b"POST", b"/", b"a", (), b"")]),
    "length on GET": (
        b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 003\r\n\r\nabc",
        [(b"GET", b"/", b"a", (), b"abc")],
    ),
    "pipelined": (
        b"POST /1 HTTP/1.1\r\n" + H + b"Content-Length: 1\r\n\r\nxGET /2 HTTP/1.1\r\nHost: b\r\n\r\n"
        b"\r\nGET /3 HTTP/1.1\r\nHost: c\r\n\r\n",
        [
            (b"POST", b"/1", b"a", (), b"x"),
            (b"GET", b"/2", b"b", (), b""),
            (b"GET", b"/3", b"c", (), b""),
        ],
    ),
    "chunked": (
        b"POST / HTTP/1.1\r\n"
        + H
        + b"Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n000\r\n\r\n",
        [(b"POST", b"/", b"a", (), b"abc0123456789")],
    ),
    "chunk extensions and trailers are dropped": (
        b"POST / HTTP/1.1\r\n"
        + H
        + b'Transfer-Encoding: chunked\r\n\r\n1;a;b="q;\\"\\ "\r\nx\r\n'
        + b"0;z=1\r\nX-Checksum: 5\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
        [(b"POST", b"/", b"a", (), b"x"), (b"GET", b"/2", b"b", (), b"")],
    ),
    "hop-by-hop and nominated fields go": (
        b"GET / HTTP/1.1\r\n"
        + H
        + b"Connection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAA\r\nProxy-Connection: x\r\nAccept: b\r\n\r\n",
        [(b"GET", b"/", b"a", (b"Accept: b",), b"")],
    ),
}

REFUSED = {
    "two lengths": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    "length list": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1,1\r\n\r\nx", 400),
    "length +1": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: +1\r\n\r\nx", 400),
    "length -1": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: -1\r\n\r\nx", 400),
    "length 0x1": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 0x1\r\n\r\nx", 400),
    "length 1_0": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1_0\r\n\r\nx", 400),
    "length empty": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length:\r\n\r\nx", 400),
    "length huge": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 99999999999999999999\r\n\r\nx", 400),
    "length arabic digits": (b"POST / HTTP/1.1\r\n" + H + "Content-Length: ١\r\n\r\nx".encode(), 400),
    "length and coding": (
        b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "coding and length": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        400,
    ),
    "coding twice": (
        b"POST / HTTP/1.1\r\n"
        + H
        + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "coding in 1.0": (b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding gzip": (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "coding xchunked": (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "coding chunked, chunked": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
        400,
    ),
    "coding identity": (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "coding quoted": (b"POST / HTTP/1.1\r\n" + H + b'Transfer-Encoding: "chunked"\r\n\r\n', 400),
    "coding vertical tab": (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "tab before colon": (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding\t: chunked\r\n\r\n", 400),
    "no colon": (b"GET / HTTP/1.1\r\n" + H + b"nothing\r\n\r\n", 400),
    "empty name": (b"GET / HTTP/1.1\r\n" + H + b": x\r\n\r\n", 400),
    "name with a slash": (b"GET / HTTP/1.1\r\n" + H + b"a/b: x\r\n\r\n", 400),
    "name not ASCII": (b"GET / HTTP/1.1\r\n" + H + b"\xe4: x\r\n\r\n", 400),
    "obs-fold": (b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n", 400),
    "fold at the start": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "NUL in value": (b"GET / HTTP/1.1\r\n" + H + b"X: a\x00b\r\n\r\n", 400),
    "DEL in value": (b"GET / HTTP/1.1\r\n" + H + b"X: a\x7fb\r\n\r\n", 400),
    "ESC in value": (b"GET / HTTP/1.1\r\n" + H + b"X: a\x1bb\r\n\r\n", 400),
    "bare CR in value": (b"GET / HTTP/1.1\r\n" + H + b"X: a\rb\r\n\r\n", 400),
    "bare LF in value": (b"GET / HTTP/1.1\r\n" + H + b"X: a\nY: b\r\n\r\n", 400),
    "bare LF everywhere": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare LF at the end": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    "CR CR LF": (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\nX: y\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "host empty": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "host list": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "host with userinfo": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "host with path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "host with space": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "host with bad port": (b"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400),
    "host with port 65536": (b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    "host not ASCII": (b"GET / HTTP/1.1\r\nHost: \xe4\r\n\r\n", 400),
    "two hosts, one absolute": (b"GET http://b/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "absolute, no host": (b"GET http://b/ HTTP/1.1\r\n\r\n", 400),
    "absolute with userinfo": (b"GET http://u@b/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    "absolute, no authority": (b"GET http:///x HTTP/1.1\r\n" + H + b"\r\n", 400),
    "absolute, other scheme": (b"GET ftp://b/x HTTP/1.1\r\n" + H + b"\r\n", 400),
    "authority form": (b"GET a:80 HTTP/1.1\r\n" + H + b"\r\n", 400),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\n" + H + b"\r\n", 501),
    "CONNECT with a path": (b"CONNECT / HTTP/1.1\r\n" + H + b"\r\n", 501),
    "TRACE": (b"TRACE / HTTP/1.1\r\n" + H + b"\r\n", 501),
    "GET *": (b"GET * HTTP/1.1\r\n" + H + b"\r\n", 400),
    "fragment": (b"GET /x#y HTTP/1.1\r\n" + H + b"\r\n", 400),
    "target not ASCII": (b"GET /\xc3\xa4 HTTP/1.1\r\n" + H + b"\r\n", 400),
    "target with control": (b"GET /\x01 HTTP/1.1\r\n" + H + b"\r\n", 400),
    "target with tab": (b"GET /\tx HTTP/1.1\r\n" + H + b"\r\n", 400),
    "target with space": (b"GET / x HTTP/1.1\r\n" + H + b"\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\n" + H + b"\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "space in front": (b" GET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "space after": (b"GET / HTTP/1.1 \r\n" + H + b"\r\n", 400),
    "tab between": (b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    "bad method": (b"G(T / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "lower-case protocol": (b"GET / http/1.1\r\n" + H + b"\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n", 400),
    "HTTP/0.9 with version": (b"GET / HTTP/0.9\r\n" + H + b"\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\n" + H + b"\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    "two empty lines in front": (b"\r\n\r\nGET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "other expectation": (b"POST / HTTP/1.1\r\n" + H + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\n", 417),
    "chunk size missing": (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n\r\nx", 400),
    "chunk size negative": (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx", 400),
    "chunk size 0x": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
        400,
    ),
    "chunk size underscore": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1_0\r\nx",
        400,
    ),
    "chunk size with space in front": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n 1\r\nx",
        400,
    ),
    "chunk size with space after": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1 \r\nx",
        400,
    ),
    "chunk size overflow": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx",
        400,
    ),
    "chunk line ends in LF": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
        400,
    ),
    "LF in a chunk extension": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
        400,
    ),
    "white space around a chunk extension": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1 ;a\r\nx\r\n0\r\n\r\n",
        400,
    ),
    "chunk extension malformed": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1;a=\x01\r\nx\r\n0\r\n\r\n",
        400,
    ),
    "chunk longer than its size": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
        400,
    ),
    "chunk ends in LF": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n",
        400,
    ),
    "chunk ends in CR only": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r0\r\n\r\n",
        400,
    ),
    "trailer malformed": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n",
        400,
    ),
    "trailer with an identity": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Forwarded-User: x\r\n\r\n",
        400,
    ),
    "trailer with bare LF": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n\r\n",
        400,
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_legal_stream_is_read_the_same_however_it_is_cut(case: str) -> None:
    stream, expected = ACCEPTED[case]
    for pieces in cuts(stream):
        sink, status = read_requests(pieces)
        assert (status, sink.seen()) == (0, expected)
        assert sink.ended == len(expected)
        assert sink.reader.between


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_plainly_legal_is_refused_however_it_is_cut(case: str) -> None:
    stream, expected = REFUSED[case]
    for pieces in cuts(stream):
        sink, status = read_requests(pieces)
        # Cut up, an earlier check may name another reason; never another outcome.
        assert status == expected or (status == 400 and expected != 400), pieces
        assert sink.ended == 0


def test_a_whole_refused_stream_gets_its_own_status() -> None:
    for stream, expected in REFUSED.values():
        assert read_requests([stream])[1] == expected


def test_smuggled_request_behind_a_refused_one_is_never_read() -> None:
    stream = REFUSED["length and coding"][0] + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    for pieces in cuts(stream):
        assert read_requests(pieces)[0].heads == []


def limited() -> Requests:
    return Requests(RequestHeads(POLICY, HeadLimits(head_bytes=400, line_bytes=100, fields=5)))


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"GET /" + b"x" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 500 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 5 + b"\r\n", 431),
    ],
)
def test_limits_come_first_and_need_no_end_of_the_head(stream: bytes, expected: int) -> None:
    from proxy.errors import BadRequest

    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        sink = limited()
        with pytest.raises(BadRequest) as caught:
            for piece in pieces:
                sink.reader.feed(piece)
        assert caught.value.status == expected
    if expected != 431 or b"yyy" in stream:
        sink = limited()
        with pytest.raises(BadRequest) as caught:
            sink.reader.feed(stream.removesuffix(b"\r\n\r\n"))
        assert caught.value.status == expected


def test_chunk_extensions_are_bounded_over_the_message() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"1;" + b"e" * 200 + b"\r\nx\r\n"
    assert read_requests([head + chunk * 50 + b"0\r\n\r\n"])[1] == 0
    assert read_requests([head + chunk * 100 + b"0\r\n\r\n"])[1] == 400


def test_a_long_run_of_white_space_costs_no_more_than_its_length() -> None:
    # A lazy pattern with a greedy tail would take quadratic time here.
    stream = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b" " * 60_000 + b"x\r\n\r\n"
    assert read_requests([stream])[1] == 0


def test_a_held_reader_hands_over_nothing_and_loses_nothing() -> None:
    sink = Requests(releases=False)
    release = sink.reader.release
    stream = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    for at in range(len(stream)):
        sink.reader.feed(stream[at : at + 1])
    assert len(sink.heads) == 1
    assert sink.bodies == [b""]
    assert sink.reader.waiting
    release()
    assert (sink.bodies[0], sink.ended, len(sink.heads)) == (b"abc", 1, 1)
    release()
    assert [head.target for head in sink.heads] == [b"/", b"/2"]


def test_names_that_connection_lists_go_but_host_cookie_and_framing_stay() -> None:
    sink, status = read_requests(
        [
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: host, cookie, content-length, X-Gone\r\n"
            b"Cookie: x=y\r\nContent-Length: 1\r\nX-Gone: 1\r\nX-Stays: 1\r\n\r\nz"
        ]
    )
    head = sink.heads[0]
    assert status == 0
    assert (head.host, head.cookie_line, head.length) == (b"a", b"Cookie: x=y", 1)
    assert head.passed == [b"X-Stays: 1"]


def test_what_the_door_asks_a_head() -> None:
    sink, _ = read_requests(
        [
            b"GET /a/b?c=d HTTP/1.1\r\nHost: a\r\nCookie: one=1\r\nX-Two: b\r\nCookie: __Host-np=s; two=2\r\n"
            b"x-two: c\r\n\r\n"
        ]
    )
    head = sink.heads[0]
    assert (head.method, head.path, head.target, head.version) == (b"GET", b"/a/b", b"/a/b?c=d", 1)
    assert head.cookie == b"one=1; __Host-np=s; two=2"
    assert head.cookie_line == b"Cookie: one=1; two=2"
    assert head.get(b"x-two") == b"b, c"
    assert head.get_all(b"x-two") == [b"b", b"c"]
    assert head.get(b"x-three") is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n", True),
        (b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n", True),
        (b"Upgrade: websocket\r\n", False),
        (b"Connection: Upgrade\r\nUpgrade: h2c\r\n", False),
        (b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", False),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", False),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", False),
    ],
)
def test_only_a_plain_websocket_handshake_is_an_upgrade(fields: bytes, expected: bool) -> None:
    sink, _ = read_requests([b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"])
    assert sink.heads[0].upgrade_websocket is expected


@pytest.mark.parametrize(
    ("line", "field", "expected"),
    [
        (b"GET / HTTP/1.1", b"", True),
        (b"GET / HTTP/1.1", b"Connection: Close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: keep-alive, close\r\n", False),
        (b"GET / HTTP/1.0", b"", False),
        (b"GET / HTTP/1.0", b"Connection: Keep-Alive\r\n", True),
        (b"GET / HTTP/1.0", b"Connection: Keep-Alive\r\nConnection: close\r\n", False),
    ],
)
def test_whether_a_client_keeps_its_connection(line: bytes, field: bytes, expected: bool) -> None:
    sink, _ = read_requests([line + b"\r\nHost: a\r\n" + field + b"\r\n"])
    assert sink.heads[0].keep_alive is expected


def test_expectations_count_only_with_a_body_in_http_1_1() -> None:
    def expects(line: bytes, fields: bytes) -> bool:
        sink, status = read_requests([line + b"\r\nHost: a\r\nExpect: 100-Continue\r\n" + fields + b"\r\n"])
        assert status == 0
        return sink.heads[0].expect_continue

    assert expects(b"POST / HTTP/1.1", b"Content-Length: 1\r\n")
    assert not expects(b"POST / HTTP/1.1", b"")
    assert not expects(b"POST / HTTP/1.0", b"Content-Length: 1\r\n")


def test_the_memory_of_lines_is_bounded() -> None:
    heads = RequestHeads(POLICY)
    sink = Requests(heads)
    for number in range(30_000):
        sink.reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX-Trace: %040d\r\n\r\n" % number)
    assert len(sink.heads) == 30_000
    remembered = [*heads.lines.young, *heads.lines._old]  # pyright: ignore[reportPrivateUsage]
    assert sum(map(len, remembered)) < 2 << 20
    assert b"Host: a" in remembered


def test_a_name_that_is_known_lets_no_line_pass_that_is_not_legal() -> None:
    """Each line after one of the same name was found legal, and alone: judged alike."""
    lines = [
        b"X-Trace",
        b"X-Trace ",
        b"X-Trace : a",
        b"X-Trace: \x00",
        b"X-Trace: a\x7f",
        b"X-Trace: a\rb",
        b"X-Trace: a\nb",
        b" X-Trace: a",
        b"X-Trace: \xe4\t~",
        b"X-Trace:",
        b"X_Trace: a",
        b": a",
        b"",
    ]
    for line in lines:
        alone, status = read_requests([b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n"])
        after = Requests()
        after.reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX-Trace: first\r\n\r\n")
        if status:
            with pytest.raises(ProxyError) as refusal:
                after.reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n")
            assert refusal.value.status == status, line
        else:
            after.reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n")
            assert after.seen()[1:] == alone.seen(), line


def test_the_memory_of_names_is_bounded() -> None:
    heads = RequestHeads(POLICY)
    sink = Requests(heads)
    for number in range(3_000):
        sink.reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX-%d: 1\r\n\r\n" % number)
    assert len(sink.heads) == 3_000
    assert len(heads.lines._kinds) <= 1_024  # pyright: ignore[reportPrivateUsage]


class _Pieces(Requests):
    """Remembers in what pieces a body came."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[int] = []

    def on_body(self, data: bytes) -> None:
        super().on_body(data)
        self.pieces.append(len(data))


def chunks(*sizes: int) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes)


CHUNKED_HEAD = b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n"


def test_small_chunks_of_one_read_go_on_as_one_and_large_ones_as_they_are() -> None:
    sink = _Pieces()
    sink.reader.feed(CHUNKED_HEAD + chunks(*[1] * 500))
    sink.reader.feed(chunks(20_000, 30_000))
    sink.reader.feed(chunks(7)[:5])
    sink.reader.feed(chunks(7)[5:] + chunks(2) + b"0\r\n\r\n")
    assert sink.pieces == [500, 20_000, 30_000, 2, 7]
    assert sink.ended == 1


def test_what_came_before_a_malformed_chunk_was_handed_over() -> None:
    sink = _Pieces()
    with pytest.raises(ProxyError, match="malformed"):
        sink.reader.feed(CHUNKED_HEAD + chunks(3, 4) + b"zz\r\n")
    assert sink.pieces == [7]
    assert sink.ended == 0
