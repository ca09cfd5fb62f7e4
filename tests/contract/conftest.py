"""One suite, every store.

To join, a store adds a factory to `FACTORIES`: an async context manager that takes the
virtual clock and an empty directory and gives an open, empty store **on that clock**. A store
whose time is its server's must take the clock as an argument of its scripts here, so that
time limits can be tested without waiting. A factory that lacks its server calls `pytest.skip`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from proxy.config.redis_address import redis_address
from proxy.core.seal import random_id
from proxy.shell.store.contract import Store
from proxy.shell.store.memory import MemoryStore
from proxy.shell.store.redis.link import Link
from proxy.shell.store.redis.options import LinkOptions
from proxy.shell.store.redis.primaries import Primaries
from proxy.shell.store.redis.steadfast import SteadfastStore
from proxy.shell.store.redis.store import RedisStore
from proxy.shell.store.sqlite import SqliteStore
from tests.contract.rigs import redis_url
from tests.fakes import Clock

Factory = Callable[[Clock, Path], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def memory(clock: Clock, directory: Path) -> AsyncGenerator[Store]:
    store = MemoryStore(clock)
    yield store
    await store.close()


@asynccontextmanager
async def sqlite(clock: Clock, directory: Path) -> AsyncGenerator[Store]:
    store = SqliteStore(directory / "sessions.db", clock, wait_s=0.0)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def on_redis(kind: str, *, plain: bool = False) -> Factory:
    """One Redis for all tests, a prefix of its own for each.

    Args:
        plain: without the memory that mends what a failover loses: it holds random calls, whose
            histories no run of the product could have, for losses.
    """

    @asynccontextmanager
    async def factory(clock: Clock, directory: Path) -> AsyncGenerator[Store]:
        primaries = Primaries(one=kind != "cluster", monotonic=time.monotonic)
        link = Link(LinkOptions(redis_address(redis_url(kind)), timeout_s=20.0), primaries)
        prefix = f"{random_id()}:"
        if plain:
            store = RedisStore(link, prefix=prefix, clock=clock)
        else:
            store = SteadfastStore(link, primaries, prefix=prefix, clock=clock)
        try:
            yield store
        finally:
            await store.close()

    return factory


FACTORIES: dict[str, Factory] = {
    "memory": memory,
    "sqlite": sqlite,
    "redis": on_redis("single"),
    "sentinel": on_redis("sentinel"),
    "cluster": on_redis("cluster"),
}


class Scene:
    """A store under test, not opened yet, its clock, and what its listeners heard.

    Attributes:
        clock: the store's time.
        told: keys, in the order in which a listener heard them.
    """

    def __init__(self, factory: Factory, directory: Path) -> None:
        self._factory = factory
        self._directory = directory
        self.clock = Clock()
        self.told: list[str] = []

    def play(self, script: Callable[[Store], Awaitable[None]]) -> None:
        """Open the store, run `script` on it, close it."""

        async def body() -> None:
            async with self._factory(self.clock, self._directory) as store:
                store.listen(self.told.append)
                await script(store)

        asyncio.run(body())


@pytest.fixture(params=sorted(FACTORIES))
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    return Scene(FACTORIES[request.param], tmp_path)
