"""Our own TLS changes nothing about bodies, backpressure and ends."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.datapath.house import HOST, field, get, house, ok, run
from tests.integration.datapath.test_streams import MIB, SWITCH, UPGRADE, push, resident_kib, stalled
from tests.op.certs import Authority

Both = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """The server's context and the client's."""
    authority = Authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue())
    return server, ssl.create_default_context(cafile=str(authority.ca))


def test_a_client_that_stalls_grows_no_memory_and_is_cut(both: Both) -> None:
    async def body() -> None:
        async with house(tls=both[0]) as h:
            client = await h.client(tls=both[1])
            client.send(get())
            app = await h.app()
            await app.head()
            client.transport.pause_reading()
            gc.collect()
            before = resident_kib()
            app.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
            task = asyncio.create_task(push(app, 64 * MIB))
            connection = next(iter(h.server.site.connections))
            await h.until(lambda: connection.full)
            await stalled(task, connection.transport.get_write_buffer_size)
            assert not task.done()
            assert resident_kib() - before < 4 * 1024
            h.later(11)
            h.later(22)
            await h.until(lambda: not h.server.site.connections)
            assert h.server.counters.timeouts == {"slow_client": 1}
            with pytest.raises(ConnectionError):
                await task

    run(body)


def test_an_early_answer_and_a_refusal_arrive_whatever_is_still_sent(both: Both) -> None:
    async def body() -> None:
        async with house(tls=both[0]) as h:
            client = await h.client(tls=both[1])
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % (8 * MIB))
            app = await h.app()
            await app.head()
            sending = asyncio.create_task(push(client, 4 * MIB))
            app.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            status, head, data = await client.answer()
            assert (status, data, field(head, b"connection")) == (413, b"no", b"close")
            await sending
            other = await h.client(tls=both[1])
            other.send(b"rubbish\r\n")
            await push(other, 4 * MIB)
            assert (await other.answer())[0] == 400

    run(body)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_an_app_that_breaks_off_never_looks_like_a_clean_end(both: Both, how: str) -> None:
    async def body() -> None:
        async with house(tls=both[0]) as h:
            client = await h.client(tls=both[1])
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            app = await h.app()
            await app.head()
            app.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await client.until(b"abc")
            getattr(app, how)()
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await client.end()

    run(body)


@pytest.mark.parametrize("first", ["client", "app"])
def test_a_websocket_passes_and_its_end_arrives_on_the_other_side(both: Both, first: str) -> None:
    async def body() -> None:
        async with house(tls=both[0]) as h:
            client = await h.client(tls=both[1])
            client.send(get(b"/ws", UPGRADE) + b"\x81\x85early")
            app = await h.app()
            await app.head()
            app.send(SWITCH + b"\r\n\x81\x02hi")
            await client.head()
            assert await client.exactly(4) == b"\x81\x02hi"
            assert await app.exactly(7) == b"\x81\x85early"
            here: Callable[[], None] = client.close if first == "client" else app.close
            here()
            assert await (app if first == "client" else client).end() == b""

    run(body)


def test_a_kept_connection_serves_on(both: Both) -> None:
    async def body() -> None:
        async with house(tls=both[0]) as h:
            client = await h.client(tls=both[1])
            client.send(get(b"/1") + get(b"/deny") + get(b"/3"))
            app = await h.app()
            for number in (b"1", b"3"):
                assert (await app.head()).startswith(b"GET /" + number)
                app.send(ok(number))
            assert [(await client.answer())[2] for _ in range(3)] == [b"1", b"no\n", b"3"]

    run(body)
