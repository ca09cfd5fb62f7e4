"""What goes wrong behind or before us: the retry rule, 502, 503, 504, doors that fail, limits."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import struct
import warnings
from collections.abc import Awaitable

import pytest

from proxy.core.gate import Answer, Forward
from proxy.errors import StoreUnavailable
from proxy.shell.limits import Limits, Timeouts
from proxy.wire.head import RequestHead
from tests.integration.datapath.house import HOST, LONG_S, House, Wire, field, get, house, ok, run


async def warm(h: House) -> tuple[Wire, Wire]:
    """A client, and a connection to the app that has served it once."""
    client, app = await h.asked(get(b"/first"))
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
            client, app = await h.asked()
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
            client, app = await h.asked(get(b"/1") + get(b"/2"))
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
            client, app = await h.asked()
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
            client, app = await h.asked()
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
            client, app = await h.asked()
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
            client, app = await h.asked()
            app.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n")
            await client.until(b": hi\n")
            h.later(3_000)
            app.send(b"data: x\n\n")
            await client.until(b"data: x")
            h.later(7_000)
            with pytest.raises(ConnectionError):
                await client.end()

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


def test_a_client_that_goes_as_its_next_request_is_to_be_decided_leaves_nothing_behind() -> None:
    async def body() -> None:
        async with house() as h:
            asked: list[bytes] = []

            async def ask(head: RequestHead) -> Answer:
                asked.append(head.request_id)
                return Answer(204, [])

            def rule(head: RequestHead) -> Awaitable[Answer] | None:
                return ask(head) if head.path == b"/next" else None

            h.door.rule = rule
            async with asyncio.timeout(LONG_S):
                while not asked:  # until both arrive in one turn: nearly always the first time
                    client = socket.create_connection(h.address)
                    client.sendall(get(b"/first") + get(b"/next"))
                    app = await h.app()
                    await app.head()
                    # A reset, and behind it the end of the first exchange.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()
                    os.write(app.transport.get_extra_info("socket").fileno(), ok())
                    await h.until(lambda: not h.server.site.connections)
                    decided = [head for head in h.door.heads if head.path == b"/next"]
                    assert [head.request_id for head in decided] == asked

    gc.collect()  # what others left behind
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run(body)
        gc.collect()
    assert not [str(each.message) for each in said if "never awaited" in str(each.message)]


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
