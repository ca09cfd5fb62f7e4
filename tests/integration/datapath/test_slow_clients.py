"""Clients that are slow, silent or only seem gone: who is cut, after how long, and who is not."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from proxy.shell.client import IDLE, Client
from tests.integration.datapath.house import HOST, House, Wire, get, house, ok, run


@pytest.mark.parametrize(
    "start", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n" + HOST + b"X: y", b"\r\n", b"\r"]
)
def test_a_slow_head_is_a_408(start: bytes) -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(start)
            await h.until(lambda: any(not c.reader.between for c in h.server.site.connections))
            h.later(5)
            h.later(12)
            assert (await client.answer())[0] == 408
            assert await client.end() == b""
            assert h.server.counters.timeouts == {"head": 1}

    run(body)


def test_a_slow_second_head_is_a_408_too_and_dripping_does_not_help() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get(b"/deny") + b"GET / HT")
            await client.answer()
            client.send(b"TP/1.1\r\n")
            await h.until(lambda: any(c.reader.waiting for c in h.server.site.connections))
            h.later(12)
            assert (await client.answer())[0] == 408

    run(body)


def test_silence_is_closed_without_a_word() -> None:
    async def body() -> None:
        async with house() as h:
            fresh, used = await h.client(), await h.client()
            used.send(get(b"/deny"))
            await used.answer()
            await h.until(lambda: len(h.server.site.connections) == 2)
            h.later(12)
            assert await fresh.end() == b""
            h.later(70)
            assert len(h.server.site.connections) == 1
            h.later(80)
            assert await used.end() == b""

    run(body)


def test_an_upload_that_stops_is_a_408_and_aborts_the_app() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nabc")
            app = await h.app()
            await app.until(b"abc")
            h.later(62)
            assert (await client.answer())[0] == 408
            assert await app.gone()

    run(body)


async def unread(h: House, size: int, receive_buffer: int = 0) -> tuple[Wire, Wire, Client]:
    """A client that reads nothing of an answer that the app has sent whole; its connection as we have it."""
    client = await h.client(receive_buffer=receive_buffer)
    client.transport.pause_reading()
    client.send(get())
    app = await h.app()
    await app.head()
    app.send(ok(b"x" * size))
    return client, app, next(iter(h.server.site.connections))


async def cut_as_slow(h: House) -> None:
    """The only connection is gone, for that reason."""
    await h.until(lambda: not h.server.site.connections)
    assert h.server.counters.timeouts == {"slow_client": 1}


def test_a_client_that_takes_nothing_is_cut() -> None:
    async def body() -> None:
        async with house() as h:
            _, app, connection = await unread(h, 8 << 20, 4_096)
            await h.until(lambda: connection.transport.get_write_buffer_size() > 65_536)
            h.later(3)  # what its kernel took in until now does not count
            assert h.server.site.connections
            h.later(14)
            await cut_as_slow(h)
            assert await app.gone()

    run(body)


def test_what_the_clients_kernel_takes_in_is_not_taken_for_progress() -> None:
    async def body() -> None:
        async with house() as h:
            client, _, connection = await unread(h, 24 << 20)
            await h.until(lambda: connection.full)
            at_pause = connection._untaken()
            sock = client.transport.get_extra_info("socket")
            # As autotuning does it: the queues on the way grow, nobody reads.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            os.read(sock.fileno(), 65_536)
            await h.until(lambda: at_pause - connection._untaken() > 50_000)
            h.later(3)
            h.later(14)
            await cut_as_slow(h)

    run(body)


def test_an_answer_that_is_over_but_not_taken_is_watched_too() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client(receive_buffer=4_096)
            client.transport.pause_reading()
            client.send(get())
            app = await h.app()
            connection = next(iter(h.server.site.connections))
            while True:  # one whole answer after the other, until the queues on the way are full
                await app.head()
                app.send(ok(b"x" * 60_000))
                await h.until(lambda: connection._phase == IDLE)
                if connection.full:
                    break
                client.send(get())
            h.later(3)
            h.later(14)
            await cut_as_slow(h)

    run(body)


def test_who_does_not_read_holds_little_of_a_large_answer() -> None:
    async def body() -> None:
        async with house() as h:
            _, _, connection = await unread(h, 24 << 20, 4_096)
            held: list[int] = []

            def settled() -> bool:
                held.append(connection._untaken())
                return connection.full and held[-200:].count(held[-1]) == 200

            await h.until(settled)
            assert held[-1] < 1 << 20  # else 3 MiB, with Linux's defaults

    run(body)


def test_a_body_that_drips_is_refused_and_a_steady_one_is_not() -> None:
    async def body() -> None:
        async with house() as h:
            attacker, honest = await h.client(), await h.client()
            apps = []
            for client in (attacker, honest):
                client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 900000\r\n\r\n")
                apps.append(await h.app())
                await apps[-1].head()
            attacker.send(b"x")
            honest.send(b"x" * 4_000)
            await apps[0].exactly(1)
            await apps[1].exactly(4_000)
            h.later(11)
            assert (await attacker.answer())[0] == 408
            assert await apps[0].gone()
            assert h.server.counters.timeouts == {"request_body": 1}
            honest.send(b"x" * 896_000)
            await apps[1].exactly(896_000)
            apps[1].send(ok())
            assert (await honest.answer())[0] == 200

    run(body)


def test_who_waits_for_100_or_for_the_app_is_not_slow() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(
                b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
            )
            h.later(11)
            h.later(50)
            app.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert (await client.answer())[0] == 100
            client.send(b"abc")
            await app.exactly(3)
            app.send(ok())
            assert (await client.answer())[0] == 200
            # An app that takes nothing for a while
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % (32 << 20))
            await app.head()
            app.transport.pause_reading()
            client.send(b"x" * (32 << 20))
            connection = next(iter(h.server.site.connections))
            await h.until(lambda: connection.valve.reasons != 0)
            h.later(62)
            h.later(73)
            h.later(90)
            app.transport.resume_reading()
            left = (32 << 20) - len(app.left)
            while left:
                left -= len(await app._reader.read(1 << 20))
            app.left = b""
            app.send(ok())
            assert (await client.answer())[0] == 200
            assert h.server.counters.timeouts == {}

    run(body)


def test_who_was_told_to_go_on_and_sends_nothing_is_slow() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(
                b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
            )
            h.later(11)
            app.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert (await client.answer())[0] == 100
            h.later(15)  # counted from the 100 on
            assert h.server.counters.timeouts == {}
            h.later(22)
            assert (await client.answer())[0] == 408
            assert await app.gone()
            assert h.server.counters.timeouts == {"request_body": 1}

    run(body)


def test_a_client_that_takes_a_little_is_cut_and_one_that_takes_enough_is_not() -> None:
    async def body() -> None:
        async with house() as h:
            size = 24 << 20
            client, app, connection = await unread(h, size, 65_536)
            await h.until(lambda: connection.transport.get_write_buffer_size() > 65_536)
            sock = client.transport.get_extra_info("socket")
            taken = 0
            h.later(3)
            for at in (14, 25, 36):

                def took() -> bool:
                    nonlocal taken
                    with contextlib.suppress(BlockingIOError):
                        taken += len(os.read(sock.fileno(), 4_096))
                    anew = connection._unsent < 0  # it took so much that it was written to again
                    return connection.full and (anew or connection._unsent - connection._untaken() > 3_000)

                await h.until(took)
                h.later(at)
                assert h.server.counters.timeouts == {}
            assert taken < size
            h.later(47)  # what was under way may still arrive in the client's own buffer
            h.later(58)
            await cut_as_slow(h)
            assert await app.gone()

    run(body)


def test_a_client_that_closed_and_says_nothing_is_given_up() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked()
            client.half_close()
            await h.until(lambda: next(iter(h.server.site.connections)).half_closed)
            h.later(3)
            assert await app.gone()
            assert (await h.finished()).status == 499

    run(body)


def test_a_tunnel_that_is_silent_ends() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(get(b"/", b"Connection: upgrade\r\nUpgrade: websocket\r\n"))
            app.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            await client.head()
            h.later(3_000)
            app.send(b"x")
            await client.exactly(1)
            h.later(6_000)
            client.send(b"y")
            await app.exactly(1)
            h.later(9_700)
            assert await client.gone()
            assert await app.gone()

    run(body)
