"""The hand-over to our pages, and the orderly end of a server."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from proxy.shell.limits import Limits, Timeouts
from tests.integration.datapath.house import HOST, field, get, house, ok, run


async def echo(request: Request) -> Response:
    """Say what arrived."""
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "query": request.url.query,
            "headers": [[name.decode(), value.decode()] for name, value in request.headers.raw],
            "body": (await request.body()).decode(),
            "scheme": request.url.scheme,
            "client": request.client.host if request.client else None,
        }
    )


async def fails(request: Request) -> Response:
    raise RuntimeError("secret")


made = 0


def pages() -> Starlette:
    """Our pages, in miniature."""
    global made
    made += 1
    return Starlette(
        routes=[
            Route("/oauth2/echo", echo, methods=["GET", "POST"]),
            Route("/oauth2/fails", fails),
        ]
    )


def test_a_page_gets_the_request_without_what_the_client_claims() -> None:
    async def body() -> None:
        async with house(pages=pages) as h:
            before = made
            client = await h.client()
            client.send(
                get(
                    b"/oauth2/echo?a=b%20c",
                    b"Cookie: x=1; __Host-np=s\r\nX-Forwarded-User: evil\r\nX-Forwarded-For: evil\r\n"
                    b"X_Forwarded_Proto: evil\r\nX-Request-Id: evil\r\nTransfer_Encoding: evil\r\n",
                )
            )
            status, head, data = await client.answer()
            assert (status, field(head, b"connection")) == (200, b"close")
            assert field(head, b"date")
            assert field(head, b"server") is None
            request_id = h.door.heads[0].request_id
            assert field(head, b"x-request-id") == request_id
            seen = json.loads(data)
            assert (seen["path"], seen["query"], seen["body"]) == ("/oauth2/echo", "a=b%20c", "")
            assert (seen["scheme"], seen["client"]) == ("http", "127.0.0.1")
            assert dict(map(tuple, seen["headers"])) == {
                "host": "app.example.com",
                "cookie": "x=1; __Host-np=s",
                "x-request-id": request_id.decode(),
                "connection": "close",
            }
            assert await client.end() == b""
            done = await h.finished()
            assert (done.status, done.decision, done.path) == (200, "page", b"/oauth2/echo")
            client = await h.client()
            client.send(get(b"/oauth2/echo"))
            assert (await client.answer())[0] == 200
            assert made == before + 1

    run(body)


@pytest.mark.parametrize("framing", ["length", "chunked", "late"])
def test_a_posted_form_is_read_before_the_hand_over(framing: str) -> None:
    async def body() -> None:
        async with house(pages=pages) as h:
            client = await h.client()
            start = b"POST /oauth2/echo HTTP/1.1\r\n" + HOST
            if framing == "length":
                client.send(start + b"Content-Length: 5\r\n\r\nhello" + get(b"/smuggled"))
            elif framing == "chunked":
                client.send(start + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
            else:
                client.send(start + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
                assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
                client.send(b"hel")
                await h.until(lambda: bool(h.door.heads))
                client.send(b"lo")
            status, _, data = await client.answer()
            assert (status, json.loads(data)["body"]) == (200, "hello")
            assert await client.end() == b""
            assert h.nothing_reached_the_app

    run(body)


def test_a_form_that_is_too_large_or_too_slow_is_refused() -> None:
    async def body() -> None:
        async with house(pages=pages, limits=Limits(page_body_bytes=100)) as h:
            for length in (b"Content-Length: 101\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n65\r\n"):
                client = await h.client()
                client.send(b"POST /oauth2/echo HTTP/1.1\r\n" + HOST + length + b"x" * 101)
                assert (await client.answer())[0] == 413
            client = await h.client()
            client.send(b"POST /oauth2/echo HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nx")
            await h.until(lambda: len(h.door.heads) == 3)
            h.later(12)
            assert (await client.answer())[0] == 408

    run(body)


def test_the_same_connection_may_be_proxied_first_and_a_page_later() -> None:
    async def body() -> None:
        async with house(pages=pages) as h:
            client, app = await h.asked(get(b"/app") + get(b"/oauth2/echo"))
            app.send(ok(b"app"))
            assert (await client.answer())[2] == b"app"
            assert (await client.answer())[0] == 200
            assert await client.end() == b""

    run(body)


def test_a_page_that_fails_is_a_500_without_its_reason() -> None:
    async def body() -> None:
        async with house(pages=pages) as h:
            client = await h.client()
            client.send(get(b"/oauth2/fails"))
            status, _, data = await client.answer()
            assert status == 500
            assert b"secret" not in data
            done = await h.finished()
            assert done.status == 500

    run(body)


def test_without_pages_or_an_app_a_verdict_for_them_is_an_error_answer() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get(b"/oauth2/echo"))
            assert (await client.answer())[0] == 500
            h.server.site.upstreams = None
            client.send(get(b"/"))
            assert (await client.answer())[0] == 502

    run(body)


# The end


def test_drain_answers_what_still_comes_and_closes_what_stays_idle() -> None:
    async def body() -> None:
        async with house() as h:
            idle, late, begun = [await h.client() for _ in range(3)]
            for client in (idle, late):
                client.send(get(b"/deny"))
                await client.answer()
            begun.send(get())
            app = await h.app()
            await app.head()
            app.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
            await begun.until(b"ha")
            task = asyncio.create_task(h.server.drain(60))
            await asyncio.sleep(0)
            late.send(get(b"/deny"))
            _, head, _ = await late.answer()
            assert field(head, b"connection") == b"close"
            assert await late.end() == b""
            app.send(b"lf")  # its head said keep-alive before the drain began
            await begun.until(b"lf")
            h.later(2.9)
            assert h.server.connections == 2
            h.later(3.1)
            assert await idle.end() == b""
            assert await begun.end() == b""
            await task

    run(body)


def test_letting_go_ends_kept_alive_connections_and_serves_on() -> None:
    async def body() -> None:
        async with house() as h:
            idle, late = [await h.client() for _ in range(2)]
            for client in (idle, late):
                client.send(get(b"/deny"))
                await client.answer()
            h.server.let_go()
            late.send(get(b"/deny"))
            _, head, _ = await late.answer()
            assert field(head, b"connection") == b"close"
            h.later(3.1)
            assert await idle.end() == b""
            another = await h.client()
            another.send(get(b"/deny"))
            _, head, _ = await another.answer()
            assert field(head, b"connection") == b"close"

    run(body)


def test_drain_closes_the_listener_and_lets_the_others_finish() -> None:
    async def body() -> None:
        async with house() as h:
            idle, busy, sending = [await h.client() for _ in range(3)]
            idle.send(get(b"/deny"))
            await idle.answer()
            busy.send(get(b"/busy") + get(b"/not-any-more"))
            app = await h.app()
            await app.head()
            sending.send(b"GET /sen")
            await h.until(lambda: sum(c.reader.waiting for c in h.server.site.connections) == 2)
            address = h.address
            task = asyncio.create_task(h.server.drain(10))
            await asyncio.sleep(0)
            with pytest.raises(ConnectionError):
                await asyncio.open_connection(*address)
            h.later(3.1)
            assert await idle.end() == b""
            app.send(ok(b"done"))
            _, head, data = await busy.answer()
            assert (data, field(head, b"connection")) == (b"done", b"close")
            assert await busy.end() == b""
            busy.close()
            assert not task.done()
            sending.send(b"ding HTTP/1.1\r\n" + HOST + b"\r\n")
            app = await h.app() if app.transport.is_closing() else app
            await app.head()
            app.send(ok(b"last"))
            _, head, data = await sending.answer()
            assert (data, field(head, b"connection")) == (b"last", b"close")
            sending.close()
            await task
            assert h.server.connections == 0

    run(body)


def test_drain_ends_streams_and_tunnels() -> None:
    async def body() -> None:
        async with house() as h:
            events, socket = await h.client(), await h.client()
            events.send(get(b"/events"))
            app = await h.app()
            await app.head()
            app.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n")
            await events.until(b"data: x\n\n\r\n")
            socket.send(get(b"/ws", b"Connection: upgrade\r\nUpgrade: websocket\r\n"))
            other = await h.app()
            await other.head()
            other.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            await socket.head()
            task = asyncio.create_task(h.server.drain(10))
            assert await events.chunks() == b""
            assert await events.end() == b""
            assert await socket.end() == b"\x88\x02\x03\xe9"
            events.close()
            socket.close()
            await task

    run(body)


def test_drain_ends_streams_and_tunnels_that_begin_meanwhile() -> None:
    async def body() -> None:
        async with house() as h:
            events, socket = await h.client(), await h.client()
            events.send(get(b"/events"))
            app = await h.app()
            await app.head()
            socket.send(get(b"/ws", b"Connection: upgrade\r\nUpgrade: websocket\r\n"))
            other = await h.app()
            await other.head()
            task = asyncio.create_task(h.server.drain(10))
            await asyncio.sleep(0)
            app.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n")
            await events.until(b"data: x\n\n\r\n")
            other.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            await socket.head()
            h.later(1)
            assert await events.chunks() == b""
            assert await events.end() == b""
            assert await socket.end() == b"\x88\x02\x03\xe9"
            events.close()
            socket.close()
            await task

    run(body)


def test_drain_ends_event_streams_only_however_long_bodies_may_be_silent() -> None:
    async def body() -> None:
        patient = Timeouts(body_idle_s=3_600, tunnel_idle_s=3_600)
        async with house(timeouts=patient) as h:
            client, app = await h.asked(get(b"/download"))
            app.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await client.until(b"abc\r\n")
            task = asyncio.create_task(h.server.drain(10))
            await asyncio.sleep(0)
            app.send(b"3\r\ndef\r\n0\r\n\r\n")
            assert await client.chunks() == b"def"
            client.close()
            await task

    run(body)


def test_drain_waits_for_pages_and_cuts_what_takes_too_long() -> None:
    async def body() -> None:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def slow(request: Request) -> Response:
            entered.set()
            await leave.wait()
            return Response(b"page")

        def factory() -> Starlette:
            return Starlette(routes=[Route("/oauth2/slow", slow)])

        async with house(pages=factory) as h:
            client = await h.client()
            client.send(get(b"/oauth2/slow"))
            await entered.wait()
            task = asyncio.create_task(h.server.drain(10))
            hanging = h.server.connections
            assert hanging == 1
            await asyncio.sleep(0)
            assert not task.done()
            client.half_close()
            leave.set()
            assert (await client.answer())[2] == b"page"
            await task
            assert h.server.connections == 0
        async with house() as h:
            client, app = await h.asked()
            await h.server.drain(0.01)
            assert await client.gone()
            assert await app.gone()

    run(body)
