"""Every byte value at every place where a head could be read in two ways.

What is accepted is rewritten as the app would get it, and both oracles must read exactly the
messages we read: as many, the same bodies, and nothing of an attacker's where a field of ours
belongs. Most streams here are refused, and may be.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.wire.framing import CHUNKED
from proxy.wire.rewrite import request_bytes
from tests.unit.wire.reading import Requests, read_requests
from tests.unit.wire.test_oracles import by_h11, by_llhttp

BEHIND = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
IDENTITY = b"X-Forwarded-User: alice\r\n"

PLACES = {
    "in front": b"%bPOST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "after the method": b"POST%b /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "in the target": b"POST /p%bq HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "after the target": b"POST /p%b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "in the protocol": b"POST /p HTTP/1%b.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "after the version": b"POST /p HTTP/1.1%b\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "inside a line end": b"POST /p HTTP/1.1\r%b\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "before a name": b"POST /p HTTP/1.1\r\nHost: a\r\n%bContent-Length: 5\r\n\r\nhello",
    "in a name": b"POST /p HTTP/1.1\r\nHost: a\r\nContent%bLength: 5\r\n\r\nhello",
    "before a colon": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length%b: 5\r\n\r\nhello",
    "after a colon": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length:%b5\r\n\r\nhello",
    "before a length": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: %b5\r\n\r\nhello",
    "after a length": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5%b\r\n\r\nhello",
    "in a length": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0%b5\r\n\r\nhello",
    "before a coding": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:%bchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "after a coding": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked%b\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "in a coding": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chun%bked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "in the coding's name": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer%bEncoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "after the coding's name": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding%b: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "coding beside a length": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding%b: chunked\r\n\r\nhello",
    "coding value beside a length": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: %bchunked\r\n\r\nhello",
    "coding behind a value": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX: y%bTransfer-Encoding: chunked\r\n\r\nhello",
    "before a host": b"POST /p HTTP/1.1\r\nHost:%ba\r\nContent-Length: 5\r\n\r\nhello",
    "in a host": b"POST /p HTTP/1.1\r\nHost: a%bb\r\nContent-Length: 5\r\n\r\nhello",
    "in the host's name": b"POST /p HTTP/1.1\r\nHo%bst: a\r\nContent-Length: 5\r\n\r\nhello",
    "before the last line end": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n%b\r\nhello",
    "inside the last line end": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r%b\nhello",
    "before a chunk size": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%b5\r\nhello\r\n0\r\n\r\n",
    "after a chunk size": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5%b\r\nhello\r\n0\r\n\r\n",
    "inside a chunk line end": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r%b\nhello\r\n0\r\n\r\n",
    "in an extension": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a%b\r\nhello\r\n0\r\n\r\n",
    "after a chunk": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello%b\r\n0\r\n\r\n",
    "after a chunk's end": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n%b0\r\n\r\n",
    "after the last chunk": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0%b\r\n\r\n",
    "before the end": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n%b\r\n",
    "in a trailer": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX%bY: z\r\n\r\n",
    "in an identity name": b"POST /p HTTP/1.1\r\nHost: a\r\nX-Forwarded%bUser: evil\r\nContent-Length: 5\r\n\r\nhello",
    "before an identity name": b"POST /p HTTP/1.1\r\nHost: a\r\n%bX-Forwarded-User: evil\r\nContent-Length: 5\r\n\r\nhello",
    "after an identity name": b"POST /p HTTP/1.1\r\nHost: a\r\nX-Forwarded-User%b: evil\r\nContent-Length: 5\r\n\r\nhello",
}

BYTES = [bytes([byte]) for byte in range(256)]
RUNS = [
    b"\r\n",
    b"\n\n",
    b"\r\r\n",
    b"\r\n ",
    b"\r\n\t",
    b"\x00\x00",
    b", ",
    b";",
    b"\xc2\xa0",
    b"%0d%0a",
    b"\\r\\n",
]
RUNS += [
    b"\r\n\r\n",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nContent-Length: 0",
    b"\r\nHost: b",
    b": x\r\nX",
]


def upstream(sink: Requests) -> Iterator[bytes]:
    """The messages that the app would be sent for what was read whole."""
    for head, body in list(zip(sink.heads, sink.bodies, strict=True))[: sink.ended]:
        head.request_id = b"id"
        raw = request_bytes(head, b"X-Forwarded-For: 192.0.2.1\r\n", IDENTITY, b"app:80", False)
        if head.length == CHUNKED:
            raw += b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            yield raw + b"0\r\n\r\n"
        else:
            assert len(body) == head.length
            yield raw + bytes(body)


def check(stream: bytes) -> int:
    """Assert that whatever gets through is read one way only; answers how many messages did."""
    sink, _ = read_requests([stream])
    messages = list(upstream(sink))
    for sent, body in zip(messages, sink.bodies, strict=False):
        for oracle in (by_h11, by_llhttp):
            found, refused = oracle(sent)
            if oracle is by_llhttp and not found and refused:
                continue  # it knows a fixed list of methods
            assert not refused
            assert len(found) == 1, (stream, sent)
            assert found[0][3] == body
            fields = found[0][2]
            assert [value for name, value in fields if name == b"x-forwarded-user"] == [b"alice"]
            assert sum(name == b"host" for name, _ in fields) == 1
            framing = [name for name, _ in fields if name in (b"content-length", b"transfer-encoding")]
            assert len(framing) <= 1
    return len(messages)


@pytest.mark.parametrize("place", PLACES)
def test_no_byte_anywhere_makes_two_readings(place: str) -> None:
    template = PLACES[place]
    whole = template.replace(b"%b", b"", 1)
    for piece in (*BYTES, *RUNS):
        stream = template.replace(b"%b", piece, 1)
        passed = check(stream + BEHIND)
        # One message and the one behind it, or less: a third was made out of a body or a line.
        assert passed <= 2 + (b"\r\n\r\n" in piece), piece
        # What is refused cut up is refused whole, and the other way round.
        cut, status = read_requests([stream[at : at + 1] for at in range(len(stream))])
        again, other = read_requests([stream])
        assert bool(status) == bool(other), stream
        assert cut.seen()[: cut.ended] == again.seen()[: again.ended]
    # Unharmed, the stream is two plain requests, so there was something to compare.
    expected = 0 if "beside" in place else 1 if place == "in the coding's name" else 2
    assert check(whole + BEHIND) == expected


CODINGS = (
    *(b"chunked", b"Chunked", b"CHUNKED", b"chunked,", b",chunked", b"chunked, chunked", b"identity"),
    *(
        b"chunked, identity",
        b"identity, chunked",
        b"gzip, chunked",
        b"chunked, gzip",
        b"x",
        b"",
        b'"chunked"',
    ),
    *(
        b"chunked;q=1",
        b"chunked ; a=b",
        b"chunk",
        b"chunkedd",
        b"'chunked'",
        b"ch\xc5\xb5nked",
        b"\xefchunked",
    ),
    *(b"chunked\x0b", b"\x0cchunked", b"chunked\xa0", b"c\x00hunked", b"chunked\rX: y", b"0", b"trailers"),
)
LENGTHS = (
    *(
        b"5",
        b"05",
        b"+5",
        b"-5",
        b"5 ",
        b"5,5",
        b"5, 5",
        b"5;",
        b"0x5",
        b"5e0",
        b"5.0",
        b"5\x00",
        b"",
        b"five",
    ),
    *(b"\xd9\xa5", b"1_0", b"5 5", b"0", b"18446744073709551621", b"99999999999999999999", b"4294967301"),
)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_every_pair_of_framings_is_refused_or_read_one_way(version: bytes) -> None:
    def line(name: bytes, value: bytes | None) -> bytes:
        return b"" if value is None else name + b": " + value + b"\r\n"

    accepted = 0
    for coding in (None, *CODINGS):
        for second in (None, b"chunked", b"identity"):
            for length in (None, *LENGTHS):
                for other in (None, b"5", b"0"):
                    stream = (
                        b"POST /p HTTP/%b\r\nHost: a\r\n" % version
                        + line(b"Transfer-Encoding", coding)
                        + line(b"transfer-encoding", second)
                        + line(b"Content-Length", length)
                        + line(b"content-length", other)
                        + b"\r\n5\r\nhello\r\n0\r\n\r\n"
                        + BEHIND
                    )
                    said = sum(value is not None for value in (coding, second, length, other))
                    sink, status = read_requests([stream])
                    if said > 1:
                        assert status in (400, 501), stream
                        assert sink.heads == []
                    if sink.heads and sink.heads[0].has_body:
                        accepted += 1
                        check(stream)
    assert accepted == (8 if version == b"1.1" else 4)


def test_a_trailer_that_names_identity_framing_or_routing_is_refused() -> None:
    for name in (
        *(b"X-Forwarded-User", b"x_forwarded_user", b"X-Auth-Request-User", b"Content-Length", b"Host"),
        *(b"Transfer-Encoding", b"Connection", b"Cookie", b"X-Forwarded-For", b"Forwarded", b"Upgrade"),
        *(b"X-Request-Id", b"Expect", b"Trailer", b"TE", b"X-HTTP-Method-Override"),
    ):
        value = b"1" if name == b"Content-Length" else b"100-continue" if name == b"Expect" else b"chunked"
        stream = (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
            + name
            + b": "
            + value
            + b"\r\n\r\n"
        )
        sink, status = read_requests([stream + BEHIND])
        assert (status, sink.ended, len(sink.heads)) == (400, 0, 1), name


def test_a_trailer_that_describes_the_body_is_dropped() -> None:
    stream = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Checksum: 1\r\n\r\n"
    sink, status = read_requests([stream])
    assert (status, sink.ended) == (0, 1)
    assert all(b"Checksum" not in message for message in upstream(sink))


def test_ten_gibibytes_are_counted() -> None:
    piece = b"x" * (1 << 20)
    total = 10 << 30

    class Counting(Requests):
        received = 0

        def on_body(self, data: bytes) -> None:
            self.received += len(data)

    sink = Counting()
    sink.reader.feed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
    for _ in range(total >> 20):
        sink.reader.feed(piece)
    assert (sink.received, sink.ended) == (total, 1)
    sink.received = 0
    sink.reader.feed(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % total)
    for _ in range(total >> 20):
        sink.reader.feed(piece)
    sink.reader.feed(b"\r\n0\r\n\r\n")
    assert (sink.received, sink.ended) == (total, 2)
    assert sink.reader.between
