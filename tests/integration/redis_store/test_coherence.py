"""What one replica changes, the others hear; and they know when they would not hear it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from proxy.shell.store.redis.channel import TRUST_S
from tests.contract.sessions import KEY, reply
from tests.integration.redis_store.house import coherent, live_record, play, replicas, until
from tests.redis.servers import RedisServer, redis_server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(autouse=True)
def empty(server: RedisServer) -> None:
    if not server.running:
        server.start()
    server.do("FLUSHALL")


def test_a_change_on_one_replica_is_told_on_the_other_once_and_on_itself_once(server: RedisServer) -> None:
    async def script() -> None:
        async with replicas(server.url, server.url) as (a, b):
            await coherent(a, b)
            told_a: list[str] = []
            told_b: list[str] = []
            a.listen(told_a.append)
            b.listen(told_b.append)
            await a.create(KEY, live_record())
            await a.commit(KEY, reply("x"))
            await until(lambda: told_b == [KEY], "b hears of the commit")
            await a.end(KEY, "signed_out", 60)
            await until(lambda: told_b == [KEY, f"ended:{KEY}"], "b hears of the end")
            await b.end("nobody", "signed_out", 60)
            assert told_a == [KEY] * 2

    play(script())


def test_trust_ends_soon_after_the_subscription_is_cut_and_everything_is_read_again_afterwards(
    server: RedisServer,
) -> None:
    async def script() -> None:
        async with replicas(server.url) as (store,):
            await coherent(store)
            told: list[str] = []
            store.listen(told.append)
            server.do("CLIENT", "PAUSE", 1600, "ALL")  # nothing goes and nothing comes
            cut = time.monotonic()
            assert store.coherence.until <= cut + TRUST_S + 0.05
            await until(lambda: time.monotonic() >= store.coherence.until, "trust ends")
            await coherent(store)
            assert told == [], "the subscription itself held: nothing was missed"
            server.do("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: told == [""], "whatever may have been missed is read again")
            await coherent(store)

    play(script())


def test_a_redis_that_dies_is_noticed_without_being_asked_and_so_is_its_return(
    server: RedisServer,
) -> None:
    async def script() -> None:
        async with replicas(server.url, timeout_s=0.3) as (store,):
            await coherent(store)
            server.kill()
            await until(lambda: time.monotonic() >= store.coherence.until, "trust ends")
            await until(lambda: store.problem == "unreachable", "it is noticed without being asked")
            server.start()
            await coherent(store)
            await until(lambda: store.problem == "", "it is well again")

    play(script())


def test_messages_of_others_that_make_no_sense_harm_nobody(server: RedisServer) -> None:
    async def script() -> None:
        async with replicas(server.url) as (store,):
            await coherent(store)
            heard: list[str] = []
            store.listen(heard.append)
            for message in ("", "x", "x  ", "\xff\xfe", "x y z w"):
                server.do("PUBLISH", "np:changed", message)
            server.do("PUBLISH", "np:changed", f"other {KEY}")
            await until(lambda: KEY in heard, "the channel goes on")
            await asyncio.sleep(0)
            assert time.monotonic() < store.coherence.until

    play(script())
