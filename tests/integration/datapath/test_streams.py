"""Bodies as they come: backpressure, event streams, tunnels, and what breaks off."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import zlib
from collections.abc import Callable

import pytest

from proxy.core.gate import Forward
from proxy.shell.limits import Limits
from tests.integration.datapath.house import HOST, House, Wire, field, get, house, ok, run

MIB = 1 << 20


def resident_kib() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


async def push(wire: Wire, size: int) -> None:
    """Send bytes as fast as the other side takes them."""
    piece = b"x" * 65_536
    for _ in range(size // len(piece)):
        wire.send(piece)
        await wire.writer.drain()


async def stalled(task: asyncio.Task[None], sent: Callable[[], int]) -> None:
    """Wait until a push moves no more."""
    before = -1
    while sent() != before and not task.done():
        before = sent()
        for _ in range(200):
            await asyncio.sleep(0)


def test_a_download_to_a_client_that_stalls_grows_no_memory() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client(receive_buffer=65_536)
            client.transport.pause_reading()
            client.send(get())
            app = await h.app()
            await app.head()
            app.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * MIB))
            gc.collect()
            before = resident_kib()
            task = asyncio.create_task(push(app, 100 * MIB))
            connection = next(iter(h.server.site.connections))
            await h.until(lambda: connection.transport.get_write_buffer_size() > 65_536)
            await stalled(task, connection.transport.get_write_buffer_size)
            assert not task.done()
            assert resident_kib() - before < 4 * 1024
            client.transport.resume_reading()
            await client.head()
            received = 0
            while received < 100 * MIB:
                async with asyncio.timeout(10):
                    data = client.left or await client._reader.read(MIB)
                client.left = b""
                assert data
                received += len(data)
            await task
            assert received == 100 * MIB

    run(body)


def test_an_upload_to_an_app_that_stalls_grows_no_memory() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(
                b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % (64 * MIB)
            )
            app.transport.pause_reading()
            before = resident_kib()
            task = asyncio.create_task(push(client, 64 * MIB))
            connection = next(iter(h.server.site.connections))
            await h.until(lambda: connection.valve.reasons != 0)
            assert not task.done()
            assert resident_kib() - before < 4 * 1024
            app.transport.resume_reading()
            left = 64 * MIB - len(app.left)
            app.left = b""
            while left:
                async with asyncio.timeout(10):
                    left -= len(await app._reader.read(MIB))
            await task
            app.send(ok())
            assert (await client.answer())[0] == 200

    run(body)


def test_a_gibibyte_goes_up_whole_and_grows_no_memory() -> None:
    async def body() -> None:
        async with house() as h:
            size = 1024 * MIB
            client = await h.client()
            client.send(b"PUT /big HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size)
            app = await h.app()
            assert field(await app.head(), b"content-length") == b"%d" % size
            # Bytes that differ everywhere, so that a piece lost, doubled or moved shows.
            piece = bytes(range(256)) * 1024 + b"odd"
            sent, seen = zlib.crc32(b""), zlib.crc32(app.left)
            left = size - len(app.left)
            gc.collect()
            before = resident_kib()

            async def push_all() -> int:
                crc, rest = sent, size
                while rest:
                    part = piece if rest >= len(piece) else piece[:rest]
                    crc = zlib.crc32(part, crc)
                    client.send(part)
                    await client.writer.drain()
                    rest -= len(part)
                return crc

            task = asyncio.create_task(push_all())
            while left:
                data = await app._reader.read(MIB)
                assert data
                seen = zlib.crc32(data, seen)
                left -= len(data)
            assert await task == seen
            assert resident_kib() - before < 8 * 1024  # the test's own two ends included
            app.send(ok())
            assert (await client.answer())[0] == 200
            assert (await h.finished()).bytes_in == size

    run(body)


def test_a_body_is_not_read_while_the_door_decides() -> None:
    async def body() -> None:
        async with house() as h:
            gate = asyncio.Event()

            async def decide() -> Forward:
                await gate.wait()
                return Forward(identity=b"X-Late: 1\r\n")

            h.door.rule = lambda head: decide()
            client = await h.client()
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % (32 * MIB))
            await h.until(lambda: bool(h.door.heads))
            task = asyncio.create_task(push(client, 32 * MIB))
            await stalled(task, client.transport.get_write_buffer_size)
            assert not task.done()
            assert h.nothing_reached_the_app
            gate.set()
            app = await h.app()
            assert field(await app.head(), b"x-late") == b"1"
            await app.exactly(32 * MIB)
            await task

    run(body)


def test_events_are_flushed_at_once() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked()
            app.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            await client.head()
            for number in range(5):
                event = b"data: %d\n\n" % number
                app.send(b"%x\r\n%b\r\n" % (len(event), event))
                assert await client.until(b"\n\n\r\n") == b"%x\r\n%b\r\n" % (len(event), event)

    run(body)


class Watch:
    """A verdict's watch, recorded."""

    def __init__(self) -> None:
        self.close: Callable[[], None] | None = None
        self.stopped = 0

    def __call__(self, close: Callable[[], None]) -> Callable[[], None]:
        self.close = close

        def stop() -> None:
            self.stopped += 1

        return stop


def test_an_event_stream_ends_with_its_session() -> None:
    async def body() -> None:
        async with house() as h:
            watch = Watch()
            h.door.rule = lambda head: Forward(watch=watch)
            client, app = await h.asked()
            app.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\ndata: 1\n\n")
            await client.head()
            assert await client.until(b"1\n\n\r\n")
            assert watch.close is not None
            watch.close()
            assert await client.chunks() == b""
            assert await client.end() == b""
            assert await app.gone()
            assert watch.stopped == 1
            assert (await h.finished()).error == "session_ended"

    run(body)


def test_plain_responses_are_not_watched() -> None:
    async def body() -> None:
        async with house() as h:
            watch = Watch()
            h.door.rule = lambda head: Forward(watch=watch)
            client, app = await h.asked()
            app.send(ok(b"x", b"Content-Type: text/html\r\n"))
            await client.answer()
            assert watch.close is None

    run(body)


UPGRADE = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n"


async def tunnel(h: House, early: bytes = b"") -> tuple[Wire, Wire]:
    """A WebSocket through the proxy."""
    client = await h.client()
    client.send(get(b"/ws", UPGRADE) + early)
    app = await h.app()
    head = await app.head()
    assert field(head, b"upgrade") == b"websocket"
    assert field(head, b"connection") == b"Upgrade"
    assert field(head, b"sec-websocket-key") == b"x"
    app.send(SWITCH + b"\r\n")
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert field(head, b"sec-websocket-accept") == b"y"
    return client, app


def test_a_websocket_passes_and_each_way_ends_by_itself() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await tunnel(h, early=b"\x81\x85early")
            assert await app.until(b"early") == b"\x81\x85early"
            app.send(b"\x81\x02hi")
            assert await client.exactly(4) == b"\x81\x02hi"
            client.half_close()
            assert await app.end() == b""
            app.send(b"still here")
            assert await client.until(b"here") == b"still here"
            app.close()
            assert await client.end() == b""
            done = await h.finished()
            assert (done.status, done.error, done.bytes_in, done.bytes_out) == (101, "", 7, 14)

    run(body)


def test_a_client_that_ended_its_side_right_before_a_sweep_still_gets_its_answer() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(get(b"/"))
            client.half_close()
            await h.until(lambda: next(iter(h.server.site.connections)).half_closed)
            h.later(1.0)
            app.send(ok(b"hello"))
            head = await client.head()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert await client.exactly(5) == b"hello"

    run(body)


def test_frames_that_come_with_the_switch_arrive_before_those_that_follow() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(get(b"/ws", UPGRADE))
            app.send(SWITCH + b"\r\n\x81\x02hi")
            await client.head()
            assert await client.exactly(4) == b"\x81\x02hi"
            app.send(b"\x81\x03all")
            assert await client.exactly(5) == b"\x81\x03all"

    run(body)


def test_a_client_that_ended_its_side_before_the_switch_has_ended_it_in_the_tunnel() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(get(b"/ws", UPGRADE))
            client.half_close()
            await h.until(lambda: next(iter(h.server.site.connections)).half_closed)
            app.send(SWITCH + b"\r\n\x81\x02hi")
            await client.head()
            assert await client.exactly(4) == b"\x81\x02hi"
            assert await app.end() == b""
            app.send(b"bye")
            app.close()
            assert await client.end() == b"bye"
            assert (await h.finished()).error == ""

    run(body)


def test_a_websocket_from_the_apps_side() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await tunnel(h)
            app.half_close()
            assert await client.end() == b""
            client.send(b"last words")
            assert await app.until(b"words") == b"last words"
            client.close()
            assert await app.end() == b""

    run(body)


@pytest.mark.parametrize(
    ("last", "goodbye"),
    [(b"\x81\x02hi", b"\x88\x02\x03\xe9"), (b"\x81\x05hi", b""), (b"", b"\x88\x02\x03\xe9")],
)
def test_a_websocket_ends_with_its_session_and_says_so_where_a_frame_may_stand(
    last: bytes, goodbye: bytes
) -> None:
    async def body() -> None:
        async with house() as h:
            watch = Watch()
            h.door.rule = lambda head: Forward(watch=watch)
            client, app = await tunnel(h)
            if last:
                app.send(last)
                await client.exactly(len(last))
            assert watch.close is not None
            watch.close()
            assert await client.end() == goodbye
            assert await app.gone()
            assert watch.stopped == 1
            assert (await h.finished()).error == "session_ended"

    run(body)


def test_a_session_that_is_over_already_ends_the_tunnel_at_once() -> None:
    async def body() -> None:
        async with house() as h:
            stopped: list[bool] = []

            def watch(close: Callable[[], None]) -> Callable[[], None]:
                close()
                return lambda: stopped.append(True)

            h.door.rule = lambda head: Forward(watch=watch)
            client, app = await tunnel(h)
            assert await client.end() == b"\x88\x02\x03\xe9"
            assert await app.gone()
            assert stopped == [True]

    run(body)


def test_tunnels_stall_without_growing() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await tunnel(h)
            client.transport.pause_reading()
            gc.collect()
            before = resident_kib()
            task = asyncio.create_task(push(app, 64 * MIB))
            connection = next(iter(h.server.site.connections))
            await h.until(lambda: connection.transport.get_write_buffer_size() > 65_536)
            await stalled(task, connection.transport.get_write_buffer_size)
            assert not task.done()
            assert resident_kib() - before < 4 * 1024
            client.transport.resume_reading()
            await client.exactly(64 * MIB)
            await task

    run(body)


@pytest.mark.parametrize("upgrade", [b"h2c", b"foo", b"websocket, h2c"])
def test_other_upgrades_are_dropped_as_hop_by_hop(upgrade: bytes) -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(
                get(
                    b"/",
                    b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: A\r\nUpgrade: "
                    + upgrade
                    + b"\r\n",
                )
            )
            app = await h.app()
            head = await app.head()
            for name in (b"upgrade", b"connection", b"http2-settings"):
                assert field(head, name) is None
            app.send(ok())
            assert (await client.answer())[0] == 200

    run(body)


def test_a_switch_that_nobody_asked_for_is_a_502() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked()
            app.send(SWITCH + b"\r\n")
            assert (await client.answer())[0] == 502
            assert await app.gone()

    run(body)


def test_a_websocket_that_the_app_refuses_is_a_plain_response() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(get(b"/ws", UPGRADE))
            app.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
            assert (await client.answer())[0] == 403
            client.send(get(b"/next"))
            assert (await app.head()).startswith(b"GET /next ")

    run(body)


# Aborts


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_app_that_breaks_off_never_looks_like_a_clean_end(start: bytes, version: bytes) -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(b"GET / HTTP/%b\r\n" % version + HOST + b"\r\n")
            app.send(start)
            await client.until(b"abc")
            app.close()
            with pytest.raises(ConnectionError):
                await client.end()
            done = await h.finished()
            assert (done.status, done.error) == (200, "app_failed")

    run(body)


def test_a_client_that_leaves_aborts_the_app() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked()
            client.abort()
            assert await app.gone()
            done = await h.finished()
            assert (done.status, done.error) == (499, "client_gone")

    run(body)


@pytest.mark.parametrize("how", ["abort", "close", "half_close"])
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
)
def test_an_upload_that_is_broken_off_is_never_complete_for_the_app(how: str, framing: bytes) -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"POST / HTTP/1.1\r\n" + HOST + framing)
            app = await h.app()
            await app.until(b"abc")
            getattr(client, how)()
            try:
                rest = await app.end()
            except ConnectionError:
                rest = b""
            assert b"0\r\n" not in rest

    run(body)


def test_a_malformed_body_is_never_complete_for_the_app() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            app = await h.app()
            await app.until(b"abc\r\n")
            client.send(b"zz\r\n0\r\n\r\n")
            assert (await client.answer())[0] == 400
            assert await client.end() == b""
            with contextlib.suppress(ConnectionError):
                assert await app.end() == b""

    run(body)


def test_a_client_that_hangs_up_stops_only_our_own_waiting() -> None:
    async def body() -> None:
        async with house() as h:
            started, finish = asyncio.Event(), asyncio.Event()
            outcome: list[str] = []

            async def renewal() -> Forward:
                started.set()
                await finish.wait()
                outcome.append("renewed")
                return Forward()

            shared = asyncio.ensure_future(renewal())

            async def decide() -> Forward:
                try:
                    return await asyncio.shield(shared)
                except asyncio.CancelledError:
                    outcome.append("waiter cancelled")
                    raise

            h.door.rule = lambda head: decide()
            client = await h.client()
            client.send(get())
            await started.wait()
            client.abort()
            assert (await h.finished()).status == 499
            await h.until(lambda: bool(outcome))
            finish.set()
            await shared
            assert outcome == ["waiter cancelled", "renewed"]
            assert h.nothing_reached_the_app

    run(body)


def test_a_small_buffer_limit_changes_nothing_but_the_pace() -> None:
    async def body() -> None:
        async with house(limits=Limits(write_buffer_bytes=1024)) as h:
            client, app = await h.asked()
            task = asyncio.create_task(push(app, 8 * MIB))
            app.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 * MIB))
            assert len((await client.answer())[2]) == 8 * MIB
            await task

    run(body)
