"""The hook on an app's 401: one replay, or the 401 as it came."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from proxy.core.gate import Forward
from tests.integration.datapath.house import HOST, House, field, get, house, ok, run

UNAUTHORIZED = b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error="invalid_token"\r\nContent-Length: 7\r\n\r\nexpired'


def hooked(h: House, answer: Forward | Exception | None) -> list[bytes]:
    """Let every verdict have a hook; answers what the hook was told."""
    told: list[bytes] = []

    async def hook(challenge: bytes) -> Forward | None:
        told.append(challenge)
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    h.door.rule = lambda head: Forward(identity=b"X-Token: old\r\n", unauthorized=hook)
    return told


def test_a_newer_token_is_tried_once() -> None:
    async def body() -> None:
        async with house() as h:
            told = hooked(h, Forward(identity=b"X-Token: new\r\n"))
            client = await h.client()
            client.send(get())
            app = await h.app()
            assert field(await app.head(), b"x-token") == b"old"
            app.send(UNAUTHORIZED)
            again = await h.app()
            assert field(await again.head(), b"x-token") == b"new"
            again.send(ok(b"welcome"))
            assert (await client.answer())[::2] == (200, b"welcome")
            assert told == [b'Bearer error="invalid_token"']
            assert (await h.finished()).status == 200

    run(body)


def test_a_second_401_is_passed_on() -> None:
    async def body() -> None:
        async with house() as h:
            told: list[bytes] = []

            async def hook(challenge: bytes) -> Forward | None:
                told.append(challenge)
                return Forward(unauthorized=hook)

            h.door.rule = lambda head: Forward(unauthorized=hook)
            client, app = await h.asked()
            app.send(UNAUTHORIZED)
            again = await h.app()
            await again.head()
            again.send(UNAUTHORIZED)
            assert (await client.answer())[::2] == (401, b"expired")
            assert len(told) == 1

    run(body)


@pytest.mark.parametrize("answer", [None, RuntimeError("x")])
@pytest.mark.parametrize(
    "response",
    [
        UNAUTHORIZED,
        b"HTTP/1.1 401 U\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nexpired\r\n0\r\n\r\n",
        b"HTTP/1.1 401 U\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_without_a_newer_token_the_401_arrives_as_it_came(answer: Exception | None, response: bytes) -> None:
    async def body() -> None:
        async with house() as h:
            hooked(h, answer)
            client, app = await h.asked(get() + get(b"/next"))
            app.send(response)
            status, _, data = await client.answer()
            assert (status, data) == (401, b"expired" if b"expired" in response else b"")
            assert (await app.head()).startswith(b"GET /next ")

    run(body)


def test_a_large_401_is_not_collected_while_the_hook_is_asked() -> None:
    async def body() -> None:
        async with house() as h:
            gate = asyncio.Event()

            async def hook(challenge: bytes) -> None:
                await gate.wait()

            h.door.rule = lambda head: Forward(unauthorized=hook)
            client, app = await h.asked()
            app.send(b"HTTP/1.1 401 U\r\nContent-Length: %d\r\n\r\n" % (16 << 20))
            app.send(b"x" * (16 << 20))
            pool = h.server.site.upstreams.default
            await h.until(lambda: any(up.valve.reasons for up in pool._all))
            assert app.transport.get_write_buffer_size() > 0
            gate.set()
            assert len((await client.answer())[2]) == 16 << 20

    run(body)


@pytest.mark.parametrize(
    "request_bytes",
    [b"POST / HTTP/1.1\r\n" + HOST + b"\r\n", b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx"],
)
def test_only_safe_requests_without_a_body_are_replayed(request_bytes: bytes) -> None:
    async def body() -> None:
        async with house() as h:
            told = hooked(h, Forward())
            client, app = await h.asked(request_bytes)
            app.send(UNAUTHORIZED)
            assert (await client.answer())[::2] == (401, b"expired")
            assert told == []

    run(body)


def test_the_app_may_leave_while_the_hook_is_asked() -> None:
    async def body() -> None:
        for answer in (Forward(identity=b"X-Token: new\r\n"), None):
            async with house() as h:
                gate = asyncio.Event()

                async def hook(challenge: bytes, gate: asyncio.Event = gate, answer: Forward | None = answer):
                    await gate.wait()
                    return answer

                h.door.rule = lambda head, hook=hook: Forward(unauthorized=hook)
                client, app = await h.asked()
                app.send(b"HTTP/1.1 401 U\r\nContent-Length: 9\r\n\r\nabc")
                pool = h.server.site.upstreams.default
                await h.until(lambda pool=pool: any(up.valve.reasons for up in pool._all))
                app.abort()
                gate.set()
                if answer is None:
                    status: int | None = None
                    with contextlib.suppress(EOFError, ConnectionError):
                        status, _, _ = await client.answer()
                    assert status in (None, 502)
                else:
                    again = await h.app()
                    assert field(await again.head(), b"x-token") == b"new"
                    again.send(ok())
                    assert (await client.answer())[0] == 200

    run(body)


def test_a_client_that_leaves_meanwhile_ends_it() -> None:
    async def body() -> None:
        async with house() as h:
            asked, cancelled = asyncio.Event(), asyncio.Event()

            async def hook(challenge: bytes) -> None:
                asked.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()

            h.door.rule = lambda head: Forward(unauthorized=hook)
            client, app = await h.asked()
            app.send(UNAUTHORIZED)
            await asked.wait()
            client.abort()
            await cancelled.wait()
            assert await app.gone()

    run(body)
