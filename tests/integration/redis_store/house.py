"""Stores of several replicas on one real Redis, in one process, each with connections of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from proxy.config.redis_address import redis_address
from proxy.core.session import Record
from proxy.shell.store.redis.options import LinkOptions
from proxy.shell.store.redis.steadfast import SteadfastStore, open_redis
from tests.contract.sessions import new_record

LIMIT_S = 30.0


def live_record(**fields: Any) -> Record:
    """A session that began just now, by the server's clock and ours, which are one machine's."""
    now = time.time()
    return replace(new_record(born=now, seen=now, end=now + 3600.0, due=now + 240.0), **fields)


@asynccontextmanager
async def replicas(*urls: str, **options: Any) -> AsyncGenerator[Sequence[SteadfastStore]]:
    """Started stores, one for each URL."""
    stores = [open_redis(LinkOptions(redis_address(url), **options), time.monotonic) for url in urls]
    try:
        yield stores
    finally:
        await asyncio.gather(*(store.close() for store in stores))


async def until(check: Callable[[], Any | Awaitable[Any]], what: str, limit_s: float = LIMIT_S) -> Any:
    """Ask until it is so."""
    end = time.monotonic() + limit_s
    while True:
        found = check()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, f"it never happened: {what}"
        await asyncio.sleep(0.01)


async def coherent(*stores: SteadfastStore) -> None:
    """Wait until each of them hears the others."""
    for store in stores:
        await until(lambda store=store: time.monotonic() < store.coherence.until, "coherent")


def play(script: Coroutine[Any, Any, None]) -> None:
    """Run a script, within a limit that no healthy run meets."""
    asyncio.run(asyncio.wait_for(script, 110))
