"""The last answer on a connection arrives although the client still sends: no reset eats it."""

from __future__ import annotations

import asyncio

import pytest

from proxy.core.gate import Forward
from proxy.shell.limits import Limits
from tests.integration.datapath.house import HOST, House, Wire, get, house, ok, run
from tests.integration.datapath.test_streams import Watch, tunnel

MIB = 1 << 20
GOODBYE = b"\x88\x02\x03\xe9"
BODY = 24 * MIB
"""More than all buffers between a client and the app hold."""

START = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % BODY


async def send_all(client: Wire, size: int) -> None:
    """Send without reading, as many clients do, until everything was taken."""
    client.transport.pause_reading()
    client.transport.set_write_buffer_limits(0)
    piece = b"x" * 65_536
    for _ in range(size // len(piece)):
        client.send(piece)
        await client.writer.drain()
    client.transport.resume_reading()


async def blocked(h: House) -> None:
    """Wait until the upload stands still because the app takes nothing."""
    connection = next(iter(h.server.site.connections))
    await h.until(lambda: connection.valve.reasons != 0)


@pytest.mark.parametrize("after", ["keeps", "closes"])
def test_an_early_answer_of_an_app_that_takes_nothing_arrives(after: str) -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(START)
            app.transport.pause_reading()
            sending = asyncio.create_task(send_all(client, BODY))
            await blocked(h)
            app.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            if after == "closes":
                app.close()
            await sending
            status, _, data = await client.answer()
            assert (status, data) == (413, b"no")
            assert await client.end() == b""

    run(body)


def test_an_answer_of_ours_to_a_blocked_upload_arrives() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(START)
            app.transport.pause_reading()
            sending = asyncio.create_task(send_all(client, BODY))
            await blocked(h)
            app.abort()
            await sending
            assert (await client.answer())[0] == 502
            assert await client.end() == b""

    run(body)


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"POST /deny HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % BODY, 401),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 200-ok\r\nContent-Length: %d\r\n\r\n" % BODY, 417),
        (b"rubbish\r\n", 400),
    ],
)
def test_a_refusal_arrives_whatever_is_still_sent(start: bytes, status: int) -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(start)
            await send_all(client, BODY)
            assert (await client.answer())[0] == status
            assert await client.end() == b""
            assert h.nothing_reached_the_app

    run(body)


def test_the_last_answer_arrives_whatever_is_sent_behind_its_request() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(get(b"/last", b"Connection: close\r\n"))
            sending = asyncio.create_task(send_all(client, BODY))
            await blocked(h)
            app.send(ok(b"last"))
            await sending
            assert (await client.answer())[2] == b"last"
            assert await client.end() == b""

    run(body)


def test_a_goodbye_arrives_in_a_tunnel_whose_app_takes_nothing() -> None:
    async def body() -> None:
        async with house() as h:
            watch = Watch()
            h.door.rule = lambda head: Forward(watch=watch)
            client, app = await tunnel(h)
            app.transport.pause_reading()
            sending = asyncio.create_task(send_all(client, BODY))
            await blocked(h)
            assert watch.close is not None
            watch.close()
            await sending
            assert await client.end() == GOODBYE

    run(body)


async def unread(h: House, client: Wire) -> tuple[Wire, int]:
    """An upload that is complete for us while its end still waits for an app that reads nothing.

    Returns:
        The app's connection, and how long the body is.
    """
    client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
    app = await h.app()
    await app.head()
    app.transport.pause_reading()
    (up,) = h.server.site.upstreams.default._all
    size = 0
    while not up.transport.get_write_buffer_size():
        client.send(b"1000\r\n" + b"x" * 4_096 + b"\r\n")
        size += 4_096
        relay = up.relay
        await h.until(lambda: relay.bytes_in == size)  # noqa: B023
    # One write, one read: it fills the buffer above its mark, and it is the end.
    client.send(b"5000\r\n" + b"x" * 20_480 + b"\r\n0\r\n\r\n")
    connection = next(iter(h.server.site.connections))
    await h.until(lambda: connection.valve.reasons != 0)
    assert not connection.reader.in_body
    return app, size + 20_480


@pytest.mark.parametrize("reads_on", [True, False])
def test_an_app_that_answers_before_it_has_read_an_upload_holds_up_nobody(reads_on: bool) -> None:
    async def body() -> None:
        async with house(limits=Limits(write_buffer_bytes=16_384)) as h:
            client = await h.client()
            app, size = await unread(h, client)
            app.send(ok(b"early"))
            assert (await client.answer())[2] == b"early"
            # Nothing is sent behind what that connection still has to take.
            client.send(get(b"/next"))
            fresh = await h.app()
            assert (await fresh.head()).startswith(b"GET /next ")
            fresh.send(ok(b"next"))
            assert (await client.answer())[2] == b"next"
            if reads_on:
                app.transport.resume_reading()
                assert len(await app.chunks()) == size
            else:
                assert h.server.site.upstreams.default.open == 2
                h.later(62)
                await h.until(lambda: h.server.site.upstreams.default.open == 0)

    run(body)
