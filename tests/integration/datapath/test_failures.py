"""What goes wrong behind or before us: the retry rule, 502, 503, 504, time-outs, limits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket

import pytest

from proxy.core.gate import Answer, Forward
from proxy.errors import StoreUnavailable
from proxy.shell.client import IDLE, Client
from proxy.shell.limits import Limits, Timeouts
from tests.integration.datapath.house import HOST, LONG_S, House, Wire, field, get, house, ok, run


async def warm(h: House) -> tuple[Wire, Wire]:
    """A client, and a connection to the app that has served it once."""
    client = await h.client()
    client.send(get(b"/first"))
    app = await h.app()
    await app.head()
    app.send(ok())
    await client.answer()
    await h.finished()
    return client, app


async def taken(h: House, client: Wire, app: Wire, request: bytes) -> None:
    """Let a request take the kept connection, and the app close it without a word."""
    client.send(request)
    await app.head()
    app.close()


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT"])
def test_an_idempotent_request_on_a_dead_kept_connection_is_sent_once_more(method: bytes) -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await warm(h)
            await taken(h, client, app, method + b" /again HTTP/1.1\r\n" + HOST + b"\r\n")
            fresh = await h.app()
            assert (await fresh.head()).startswith(method + b" /again ")
            fresh.send(b"HTTP/1.1 204 N\r\n\r\n")
            assert (await client.answer())[0] == 204
            assert h.server.counters.retries == 1

    run(body)


def test_a_retry_takes_the_dead_connections_place_in_a_full_pool() -> None:
    async def body() -> None:
        async with house(limits=Limits(pool_size=1, pool_queue=0)) as h:
            client, app = await warm(h)
            await taken(h, client, app, get(b"/again"))
            fresh = await h.app()
            assert (await fresh.head()).startswith(b"GET /again ")
            fresh.send(ok())
            assert (await client.answer())[0] == 200

    run(body)


def test_only_one_retry() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await warm(h)
            await taken(h, client, app, get(b"/again"))
            fresh = await h.app()
            await fresh.head()
            fresh.close()
            assert (await client.answer())[0] == 502

    run(body)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx",
        b"PATCH / HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
def test_nothing_that_could_happen_twice_is_retried(request_bytes: bytes) -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await warm(h)
            await taken(h, client, app, request_bytes)
            status, _, data = await client.answer()
            assert status == 502
            assert json.loads(data)["request_id"] == h.door.heads[-1].request_id.decode()
            assert h.app_connections == 1

    run(body)


def test_no_retry_on_a_fresh_connection_or_after_a_byte_of_an_answer() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get())
            app = await h.app()
            await app.head()
            app.close()
            assert (await client.answer())[0] == 502
            client, app = await warm(h)
            client.send(get())
            await app.head()
            app.send(b"HTTP/1.1 2")
            app.close()
            assert (await client.answer())[0] == 502
            assert h.server.counters.retries == 0

    run(body)


def test_an_idle_connection_that_the_app_closes_is_not_taken() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await warm(h)
            pool = h.server.site.upstreams.default
            assert pool.idle == 1
            app.close()
            await h.until(lambda: pool.idle == 0)
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"\r\n")
            fresh = await h.app()
            await fresh.head()

    run(body)


def test_a_connection_that_ends_in_this_very_turn_of_the_loop_is_not_taken() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await warm(h)
            await h.until(lambda: h.server.site.upstreams.default.idle == 1)
            with socket.socket(fileno=os.dup(app.transport.get_extra_info("socket").fileno())) as end:
                end.shutdown(socket.SHUT_WR)  # at once: both arrive together, this first
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"\r\n")
            fresh = await h.app()
            assert (await fresh.head()).startswith(b"POST / ")
            fresh.send(ok())
            assert (await client.answer())[0] == 200

    run(body)


def test_bytes_on_an_idle_connection_answer_nobody() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await warm(h)
            app.send(ok(b"poison"))
            assert await app.gone()
            client.send(get(b"/2"))
            fresh = await h.app()
            await fresh.head()
            fresh.send(ok(b"right"))
            assert (await client.answer())[2] == b"right"

    run(body)


def test_bytes_after_a_response_answer_nobody() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get(b"/1") + get(b"/2"))
            app = await h.app()
            await app.head()
            app.send(ok(b"one") + ok(b"poison"))
            assert (await client.answer())[2] == b"one"
            fresh = await h.app()
            await fresh.head()
            fresh.send(ok(b"two"))
            assert (await client.answer())[2] == b"two"

    run(body)


@pytest.mark.parametrize(
    "response",
    [
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    ],
)
def test_an_answer_that_is_not_legal_is_a_502(response: bytes) -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get())
            app = await h.app()
            await app.head()
            app.send(response)
            status, head, data = await client.answer()
            assert (status, field(head, b"content-type")) == (502, b"application/problem+json")
            assert b"rubbish" not in data
            assert await app.gone()
            client.send(get(b"/next"))
            assert (await (await h.app()).head()).startswith(b"GET /next ")

    run(body)


def test_an_app_that_is_not_there_is_a_502_page_for_people_and_json_for_programs() -> None:
    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as spare:
            port = spare.getsockname()[1]
        async with house(app_port=port) as h:
            client = await h.client()
            client.send(get())
            status, head, data = await client.answer()
            assert (status, field(head, b"content-type")) == (502, b"application/problem+json")
            assert json.loads(data)["status"] == 502
            client.send(get(b"/", b"Sec-Fetch-Mode: navigate\r\n"))
            status, head, data = await client.answer()
            assert (status, field(head, b"content-type")) == (502, b"text/html; charset=utf-8")
            assert h.door.heads[-1].request_id in data

    run(body)


# Time-outs: the sweep is called with a later time.


def test_an_app_that_is_slow_is_a_504() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get())
            app = await h.app()
            await app.head()
            h.later(59)
            assert client.left == b""
            h.later(62)
            assert (await client.answer())[0] == 504
            assert await app.gone()
            assert h.server.counters.timeouts == {"first_byte": 1}

    run(body)


def test_an_app_that_stops_in_its_answer_is_broken_off() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get())
            app = await h.app()
            await app.head()
            app.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            await client.until(b"abc")
            h.later(62)
            with pytest.raises(ConnectionError):
                await client.end()
            assert await app.gone()

    run(body)


def test_an_event_stream_may_be_silent_for_long() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get())
            app = await h.app()
            await app.head()
            app.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n")
            await client.until(b": hi\n")
            h.later(3_000)
            app.send(b"data: x\n\n")
            await client.until(b"data: x")
            h.later(7_000)
            with pytest.raises(ConnectionError):
                await client.end()

    run(body)


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


def test_a_client_that_takes_nothing_is_cut() -> None:
    async def body() -> None:
        async with house() as h:
            _, app, connection = await unread(h, 8 << 20, 4_096)
            await h.until(lambda: connection.transport.get_write_buffer_size() > 65_536)
            h.later(3)  # what its kernel took in until now does not count
            assert h.server.site.connections
            h.later(14)
            await h.until(lambda: not h.server.site.connections)
            assert h.server.counters.timeouts == {"slow_client": 1}
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
            await h.until(lambda: not h.server.site.connections)
            assert h.server.counters.timeouts == {"slow_client": 1}

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
            await h.until(lambda: not h.server.site.connections)
            assert h.server.counters.timeouts == {"slow_client": 1}

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
            client = await h.client()
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            app = await h.app()
            await app.head()
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
            client = await h.client()
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            app = await h.app()
            await app.head()
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
            await h.until(lambda: not h.server.site.connections)
            assert h.server.counters.timeouts == {"slow_client": 1}
            assert await app.gone()

    run(body)


def test_a_client_that_closed_and_says_nothing_is_given_up() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get())
            app = await h.app()
            await app.head()
            client.half_close()
            await h.until(lambda: next(iter(h.server.site.connections)).half_closed)
            h.later(3)
            assert await app.gone()
            assert (await h.finished()).status == 499

    run(body)


def test_a_tunnel_that_is_silent_ends() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get(b"/", b"Connection: upgrade\r\nUpgrade: websocket\r\n"))
            app = await h.app()
            await app.head()
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


# Doors that fail


def test_whatever_the_door_raises_is_answered_and_never_forwarded() -> None:
    async def body() -> None:
        async with house() as h:

            def raises(error: Exception) -> object:
                def rule(head: object) -> None:
                    raise error

                return rule

            async def later(error: BaseException) -> Forward:
                raise error

            client = await h.client()
            for error, status in (
                (StoreUnavailable("x"), 503),
                (RuntimeError("secret"), 500),
                (KeyError("secret"), 500),
            ):
                for rule in (raises(error), lambda head, error=error: later(error)):
                    h.door.rule = rule
                    client.send(get())
                    found, head, data = await client.answer()
                    assert found == status
                    assert b"secret" not in data
                    assert json.loads(data)["request_id"] == h.door.heads[-1].request_id.decode()
                    assert field(head, b"retry-after") == (b"2" if status == 503 else None)
            h.door.rule = lambda head: later(asyncio.CancelledError())
            client.send(get())
            assert (await client.answer())[0] == 500
            h.door.rule = lambda head: "no verdict"
            client.send(get())
            assert (await client.answer())[0] == 500
            assert h.nothing_reached_the_app

    run(body)


def test_an_answer_that_would_split_the_response_is_a_500() -> None:
    async def body() -> None:
        async with house() as h:
            h.door.rule = lambda head: Answer(302, [(b"Location", b"/x\r\nSet-Cookie: a=b")])
            client = await h.client()
            client.send(get() + b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx")
            for _ in range(2):
                status, head, _ = await client.answer()
                assert status == 500
                assert b"Set-Cookie" not in head

    run(body)


def test_a_door_that_hangs_is_a_503() -> None:
    async def body() -> None:
        async with house() as h:
            started, cancelled = asyncio.Event(), asyncio.Event()

            async def hang() -> Forward:
                started.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.set()
                    raise
                raise AssertionError

            h.door.rule = lambda head: hang()
            client = await h.client()
            client.send(get())
            await started.wait()
            h.later(62)
            assert (await client.answer())[0] == 503
            async with asyncio.timeout(LONG_S):
                await cancelled.wait()

    run(body)


# Limits


def test_requests_wait_for_a_connection_and_too_many_are_a_503() -> None:
    async def body() -> None:
        async with house(limits=Limits(pool_size=1, pool_queue=1), timeouts=Timeouts(queue_s=5)) as h:
            clients = [await h.client() for _ in range(3)]
            clients[0].send(get(b"/0"))
            app = await h.app()
            await app.head()
            clients[1].send(get(b"/1"))
            await h.until(lambda: len(h.door.heads) == 2)
            clients[2].send(get(b"/2"))
            status, head, _ = await clients[2].answer()
            assert (status, field(head, b"retry-after")) == (503, b"2")
            app.send(ok(b"0"))
            assert (await app.head()).startswith(b"GET /1 ")
            app.send(ok(b"1"))
            assert (await clients[1].answer())[2] == b"1"
            clients[0].send(get(b"/3"))
            await app.head()
            clients[1].send(get(b"/4"))
            await h.until(lambda: len(h.door.heads) == 5)
            h.later(7)
            assert (await clients[1].answer())[0] == 503
            # One that left while it waited takes no turn.
            clients[1].send(get(b"/5"))
            await h.until(lambda: len(h.door.heads) == 6)
            clients[1].abort()
            await h.until(lambda: len(h.server.site.connections) == 2)
            clients[2].send(get(b"/6"))
            await h.until(lambda: len(h.door.heads) == 7)
            # What is sent again, because its kept connection died, has waited its turn before.
            app.close()
            fresh = await h.app()
            assert (await fresh.head()).startswith(b"GET /3 ")
            fresh.send(ok(b"3"))
            assert [(await clients[0].answer())[2] for _ in range(2)] == [b"0", b"3"]
            assert (await fresh.head()).startswith(b"GET /6 ")

    run(body)


def test_connections_are_capped() -> None:
    async def body() -> None:
        async with house(limits=Limits(max_connections=1)) as h:
            first = await h.client()
            first.send(get(b"/deny"))
            await first.answer()
            second = await h.client()
            status, head, _ = await second.answer()
            assert (status, field(head, b"retry-after")) == (503, b"2")
            assert await second.end() == b""
            assert h.server.counters.refused == 1
            first.send(get(b"/deny"))
            assert (await first.answer())[0] == 401

    run(body)


def test_who_is_turned_away_reads_why_whatever_it_has_sent() -> None:
    async def body() -> None:
        async with house(limits=Limits(max_connections=1)) as h:
            first = await h.client()
            first.send(get(b"/deny"))
            await first.answer()
            second = await h.client()
            second.send(get(b"/x" * 2_000) * 10)
            status, head, _ = await second.answer()
            assert (status, field(head, b"retry-after")) == (503, b"2")
            assert len(h.door.heads) == 1

    run(body)


def test_idle_connections_to_the_app_are_closed_after_a_while() -> None:
    async def body() -> None:
        async with house() as h:
            _, app = await warm(h)
            h.later(50)
            assert h.server.site.upstreams.default.idle == 1
            h.later(62)
            assert await app.end() == b""

    run(body)
