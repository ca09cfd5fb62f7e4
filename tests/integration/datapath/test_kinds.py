"""Kinds of traffic that apps have: parts of files, gRPC-Web, answers that come piece by piece."""

from __future__ import annotations

import struct

import pytest

from tests.integration.datapath.house import HOST, Wire, field, get, house, run

PARTS = (
    b"--sep\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/9\r\n\r\nab\r\n"
    b"--sep\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-8/9\r\n\r\nhi\r\n--sep--\r\n"
)


@pytest.mark.parametrize(
    ("asked", "status", "fields", "body"),
    [
        (b"bytes=2-4", 206, b"Content-Range: bytes 2-4/9\r\nETag: \"v1\"\r\n", b"cde"),
        (b"bytes=-2", 206, b"Content-Range: bytes 7-8/9\r\n", b"hi"),
        (b"bytes=0-1,7-8", 206, b"Content-Type: multipart/byteranges; boundary=sep\r\n", PARTS),
        (b"bytes=99-", 416, b"Content-Range: bytes */9\r\n", b""),
        (b"bytes=0-,0-,0-,0-,0-,0-,0-,0-", 200, b"Accept-Ranges: bytes\r\n", b"abcdefghi"),
    ],
)  # fmt: skip
def test_ranges_are_the_apps_business(asked: bytes, status: int, fields: bytes, body: bytes) -> None:
    """Neither question nor answer is looked into (Starlette CVE-2025-62727 was in one that did)."""

    async def test() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get(b"/file", b'Range: %b\r\nIf-Range: "v1"\r\n' % asked))
            app = await h.app()
            head = await app.head()
            assert (field(head, b"range"), field(head, b"if-range")) == (asked, b'"v1"')
            app.send(
                b"HTTP/1.1 %d Said\r\n%bContent-Length: %d\r\n\r\n%b" % (status, fields, len(body), body)
            )
            found, head, data = await client.answer()
            assert (found, data) == (status, body)
            for line in fields.splitlines():
                name, _, value = line.partition(b": ")
                assert field(head, name.lower()) == value
            assert field(head, b"content-length") == b"%d" % len(body)

    run(test)


def frame(kind: int, payload: bytes) -> bytes:
    """A gRPC-Web frame: kind 0 = a message, 0x80 = the trailers, which it carries in the body."""
    return struct.pack(">BI", kind, len(payload)) + payload


def test_grpc_web_calls_stream_their_messages_and_end_in_trailers() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            question = frame(0, bytes(range(256)))
            client.send(
                b"POST /shop.Orders/Watch HTTP/1.1\r\n"
                + HOST
                + b"Content-Type: application/grpc-web+proto\r\n"
                b"X-Grpc-Web: 1\r\nTE: trailers\r\nGrpc-Timeout: 5S\r\nContent-Length: %d\r\n\r\n%b"
                % (len(question), question)
            )
            app = await h.app()
            head = await app.head()
            assert head.startswith(b"POST /shop.Orders/Watch ")
            for name, value in (
                (b"content-type", b"application/grpc-web+proto"),
                (b"x-grpc-web", b"1"),
                (b"grpc-timeout", b"5S"),
                (b"x-forwarded-user", b"alice"),
            ):
                assert field(head, name) == value
            assert await app.exactly(len(question)) == question
            app.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web+proto\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            head = await client.head()
            assert field(head, b"content-type") == b"application/grpc-web+proto"
            # Each message arrives before the next is sent.
            for number in range(4):
                message = frame(0, bytes([number, 0, 13, 10]) * 7)
                app.send(b"%x\r\n%b\r\n" % (len(message), message))
                assert await chunk(client) == message
            trailers = frame(0x80, b"grpc-status: 0\r\ngrpc-message: \r\n")
            app.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(trailers), trailers))
            assert await client.chunks() == trailers
            client.send(get(b"/next"))
            assert (await app.head()).startswith(b"GET /next ")

    run(body)


async def chunk(wire: Wire) -> bytes:
    """One chunk's bytes."""
    size = int(await wire.until(b"\r\n"), 16)
    found = await wire.exactly(size)
    assert await wire.exactly(2) == b"\r\n"
    return found


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_slow_answer_arrives_piece_by_piece(framing: str) -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked()
            said = {"length": b"Content-Length: 12\r\n", "chunked": b"Transfer-Encoding: chunked\r\n"}
            app.send(b"HTTP/1.1 200 OK\r\n%b\r\n" % said.get(framing, b""))
            await client.head()
            for number, piece in enumerate((b"one.", b"two.", b"end."), 1):
                app.send(b"4\r\n%b\r\n" % piece if framing == "chunked" else piece)
                assert (await client.exactly(4) if framing == "length" else await chunk(client)) == piece
                h.later(50 * number)

    run(body)
