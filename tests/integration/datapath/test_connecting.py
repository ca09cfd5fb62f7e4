"""Connecting to the app: an app that does not take the connection, a client that does not wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

from proxy.shell.limits import Timeouts
from proxy.shell.pool import Pool, Upstreams
from proxy.shell.server import make_pool
from tests.integration.datapath.house import House, get, house, ok, run
from tests.integration.datapath.test_upstreams import POLICY

SHORT = Timeouts(connect_s=0.3)


@contextlib.contextmanager
def deaf() -> Iterator[int]:
    """A port whose queue of connections is full, so that the kernel answers nobody any more."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.5)
            try:
                sock.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]


async def refused(h: House, pool: Pool) -> None:
    site = h.server.site
    site.upstreams = Upstreams(pool)
    pool.counters = site.counters
    client = await h.client()
    client.send(get())
    assert (await client.answer())[0] == 504
    assert site.counters.timeouts == {"connect": 1}
    await h.until(lambda: not pool.open)
    client.send(get(b"/deny"))  # the client's connection lives on
    assert (await client.answer())[0] == 401


def test_an_app_that_does_not_take_the_connection_is_a_504() -> None:
    async def body() -> None:
        with deaf() as port:
            async with house() as h:
                await refused(h, make_pool(POLICY, host="127.0.0.1", port=port, timeouts=SHORT))

    run(body)


def test_an_app_that_does_not_shake_hands_is_a_504() -> None:
    async def body() -> None:
        async with house() as h:
            port = h.server.site.upstreams.default._port
            await refused(
                h,
                make_pool(
                    POLICY, host="127.0.0.1", port=port, tls=ssl.create_default_context(), timeouts=SHORT
                ),
            )
            silent = await h.app()
            assert await silent.gone()

    run(body)


def test_a_connection_that_nobody_waits_for_any_more_serves_the_next() -> None:
    async def body() -> None:
        async with house() as h:
            pool = h.server.site.upstreams.default
            connect, gate = pool._connect, asyncio.Event()

            async def later() -> object:
                await gate.wait()
                return await connect()

            pool._connect = later
            client = await h.client()
            client.send(get(b"/left"))
            await h.until(lambda: pool.open == 1)
            client.abort()
            assert (await h.finished()).status == 499
            gate.set()
            await h.until(lambda: pool.idle == 1)
            other = await h.client()
            other.send(get(b"/next"))
            app = await h.app()
            assert (await app.head()).startswith(b"GET /next ")
            app.send(ok())
            assert (await other.answer())[0] == 200

    run(body)
