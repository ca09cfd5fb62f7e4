"""What is remembered of whole blocks: bounded, left alone where nothing comes again, never wrong."""

from __future__ import annotations

import itertools

import pytest

from proxy.core.gate import Forward
from proxy.errors import UpstreamError
from proxy.wire.memo import _REST, _TRIAL, Memo
from proxy.wire.response import ResponseHeads
from proxy.wire.rewrite import response_bytes
from tests.unit.wire.reading import POLICY, Requests, read_requests


def looked(memo: Memo[int], block: bytes) -> int | None:
    """A look as the readers do it: who finds something counts it."""
    found = memo.look(block)
    if found is not None:
        memo.hits += 1
    return found


def test_a_block_is_known_again_and_room_is_bounded() -> None:
    memo: Memo[int] = Memo(max_bytes=100_000)
    assert memo.keep(b"a", 1)
    assert looked(memo, b"a") == 1
    assert looked(memo, b"b") is None
    assert not memo.keep(b"x" * 5_000, 2)  # longer than anything that comes again
    assert looked(memo, b"x" * 5_000) is None
    for n in range(200):
        looked(memo, b"a")
        memo.keep(b"%d" % n, n)
    assert 0 < len(memo) < 100


def test_it_rests_where_every_block_is_new() -> None:
    memo: Memo[int] = Memo()
    for n in range(_TRIAL):
        assert looked(memo, b"%d" % n) is None
        memo.keep(b"%d" % n, n)
    assert len(memo) == 0
    for _ in range(_REST):
        assert not memo.keep(b"a", 1)
        assert looked(memo, b"a") is None
    assert memo.keep(b"a", 1)
    assert looked(memo, b"a") == 1


def fresh(stream: bytes) -> tuple[object, int]:
    sink, status = read_requests([stream])
    return sink.seen(), status


def test_a_remembered_block_never_changes_what_is_read() -> None:
    """The same field lines under other request lines: read as if they had never been seen."""
    fields = b"Host: a\r\nCookie: x=1; __Host-np=s\r\nAccept: b\r\nX-Forwarded-User: evil\r\n"
    lines = [
        b"GET /1 HTTP/1.1",
        b"GET /2?q HTTP/1.1",
        b"HEAD /3 HTTP/1.1",
        b"QUERY /4 HTTP/1.1",
        b"GET http://b/5 HTTP/1.1",
        b"GET /6 HTTP/1.0",
        b"OPTIONS * HTTP/1.1",
        b"GET /7#x HTTP/1.1",
        b"GET /8 HTTP/2.0",
        b"TRACE /9 HTTP/1.1",
        b"GET /10 HTTP/1.1",
    ]
    extras = [
        b"",
        b"Connection: close\r\n",
        b"Connection: close, accept\r\n",
        b"Content-Length: 0\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Host: b\r\n",
    ]
    heads = Requests().reader._heads
    for extra in extras:
        for _ in range(2):
            for line in lines:
                stream = line + b"\r\n" + fields + extra + b"\r\n"
                sink = Requests(heads)
                status = 0
                try:
                    sink.reader.feed(stream)
                except Exception as error:
                    status = getattr(error, "status", -1)
                assert (sink.seen(), status) == fresh(stream), stream
                alone, _ = read_requests([stream])
                for mine, other in zip(sink.heads, alone.heads, strict=True):
                    for name in (
                        "keep_alive",
                        "upgrade_websocket",
                        "cookie",
                        "cookie_line",
                        "version",
                        "path",
                    ):
                        assert getattr(mine, name) == getattr(other, name), (stream, name)
                    assert mine.get(b"accept") == other.get(b"accept")
                    assert list(mine.claims) == list(other.claims)


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\nCache-Control: public\r\nSurrogate-Control: x",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: __Host-np=evil\r\nSet-Cookie: a=b",
    b"HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\nConnection: x-own\r\nX-Own: y",
    b"HTTP/1.0 200 OK\r\nDate: d",
    b"HTTP/1.0 200 OK\r\nDate: d\r\nConnection: keep-alive\r\nContent-Length: 2",
    b"HTTP/1.1 204 No Content\r\nDate: d\r\nContent-Length: 2",
    b"HTTP/1.1 304 Not Modified\r\nDate: d\r\nContent-Length: 2\r\nCache-Control: no-cache",
    b"HTTP/1.1 401 No\r\nDate: d\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
]
VERDICTS = [
    Forward(),
    Forward(protected=True),
    Forward(protected=True, shared_cache_ok=True),
    Forward(set_cookie=(b"a=b",)),
    Forward(shared_cache_ok=True),
]


@pytest.mark.parametrize("raw", ANSWERS)
def test_a_remembered_answer_is_read_and_written_for_each_request_as_if_it_were_new(raw: bytes) -> None:
    """The method, what the client speaks and the verdict are the request's, never those of the one before."""
    known = ResponseHeads(POLICY)
    flags = list(itertools.product((False, True), repeat=3))
    for _ in range(2):
        for method, verdict, kinds in itertools.product((b"GET", b"HEAD", b"POST"), VERDICTS, flags):
            mine = _told(known, raw, method, verdict, *kinds)
            assert mine == _told(ResponseHeads(POLICY), raw, method, verdict, *kinds), (
                method,
                verdict,
                kinds,
            )


def _told(
    heads: ResponseHeads, raw: bytes, method: bytes, verdict: Forward, chunked: bool, close: bool, keeps: bool
) -> object:
    try:
        head = heads.read(raw, method)
    except UpstreamError as error:
        return error.status
    date = b"" if head.dated else b"now"
    written = response_bytes(head, verdict, chunked=chunked, close=close, keep_alive=keeps, date=date)
    return head.length, head.stated, head.keep_alive, head.passed, head.challenge, written
