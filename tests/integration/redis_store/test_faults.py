"""Redis at its worst: replies that are lost after the write, and every way in which it can refuse."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from proxy.core.answers import Changed, Committed, Condemned, Granted
from proxy.errors import StoreUnavailable
from proxy.shell.store.redis.steadfast import SteadfastStore
from tests.contract.sessions import KEY, ask, dead, new_record, outcome, reply, stored
from tests.integration.redis_store.house import coherent, live_record, play, replicas, until
from tests.redis.faults import FaultProxy
from tests.redis.servers import RedisServer, redis_server

Logged = Callable[[str], list[logging.LogRecord]]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[FaultProxy]:
    if not server.running:
        server.start()
    server.do("FLUSHALL")
    with FaultProxy(server.port) as between:
        yield between


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Logged:
    caplog.set_level(logging.DEBUG, logger="nightporter")
    return lambda event: [record for record in caplog.records if record.getMessage() == event]


# The write that was done and is told as failed.

NOW = time.time()
OPERATIONS: dict[str, Callable[[SteadfastStore], Awaitable[Any]]] = {
    "create": lambda store: store.create("new", new_record(gen="g", born=NOW, seen=NOW, end=NOW + 999)),
    "acquire": lambda store: store.acquire(KEY, ask("a")),
    "commit": lambda store: store.commit(KEY, reply("a")),
    "abandon": lambda store: store.abandon(KEY, "a", outcome()),
    "condemn": lambda store: store.condemn(KEY, "a", "login", dead()),
    "identify": lambda store: store.identify(KEY, "login", b"new", "w1"),
    "touch": lambda store: store.touch(KEY, NOW + 5),
    "end": lambda store: store.end(KEY, "signed_out", 60),
    "spend": lambda store: store.spend_flow("flow", 60),
    "renew": lambda store: store.renew(KEY, "h", 20),
    "note": lambda store: store.note("n", 60),
    "noted": lambda store: store.noted("n"),
    "mark": lambda store: store.mark("", 60),
}
ANSWERS: dict[str, Callable[[Any], bool]] = {
    "create": lambda answer: answer is None,
    "acquire": lambda answer: isinstance(answer, Granted) and len(answer.record.intents) == 1,
    "commit": lambda answer: isinstance(answer, Committed) and answer.record.gen == "a",
    "abandon": lambda answer: answer is None,
    "condemn": lambda answer: isinstance(answer, Condemned) and answer.record.dead == "rt0",
    "identify": lambda answer: answer is True,
    "touch": lambda answer: answer is None,
    "end": lambda answer: answer is not None,
    "spend": lambda answer: answer is True,
    "renew": lambda answer: answer is True,
    "note": lambda answer: answer > 0,
    "noted": lambda answer: answer == 0,
    "mark": lambda answer: answer > 0,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_d4_a_write_whose_reply_is_lost_is_recognised_when_it_is_asked_again(
    proxy: FaultProxy, server: RedisServer, name: str
) -> None:
    """The connection breaks behind the write; the store itself asks once more, under the same ids."""

    async def script() -> None:
        async with replicas(server.url_at(proxy.port)) as (store,):
            await store.create(KEY, live_record())
            if name == "renew":
                await store.acquire(KEY, ask("h"))
            rule = proxy.next(name, lose_reply=True)
            answer = await OPERATIONS[name](store)
            assert rule.happened
            assert ANSWERS[name](answer), answer

    play(script())


@pytest.mark.parametrize("name", ["acquire", "commit", "condemn", "end"])
def test_d4_two_lost_replies_are_an_error_and_the_caller_may_ask_again(
    proxy: FaultProxy, server: RedisServer, name: str
) -> None:
    async def script() -> None:
        async with replicas(server.url_at(proxy.port)) as (store,):
            await store.create(KEY, live_record())
            told: list[str] = []
            store.listen(told.append)
            proxy.next(name, lose_reply=True)
            proxy.next(name, lose_reply=True)
            with pytest.raises(StoreUnavailable):
                await OPERATIONS[name](store)
            assert KEY in told, "it may have happened: whoever has the session open reads it again"
            assert ANSWERS[name](await OPERATIONS[name](store))

    play(script())


# Refusals.

REFUSALS = {
    "loading": "LOADING Redis is loading the dataset in memory",
    "read_only": "READONLY You can't write against a read only replica.",
    "out_of_memory": "OOM command not allowed when used memory > 'maxmemory'.",
    "cannot_persist": "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "no_replicas": "NOREPLICAS Not enough good replicas to write.",
    "master_down": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "cluster_down": "CLUSTERDOWN The cluster is down",
    "busy": "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "no_permission": "NOPERM this user has no permissions to run the 'evalsha' command",
    "wrong_password": "NOAUTH Authentication required.",
    "refused": f"ERR unknown command 'EVALSHA', with args beginning with: '{KEY}' 'secret'",
}


@pytest.mark.parametrize("word", REFUSALS)
def test_every_refusal_is_unavailable_never_gone_with_one_clear_line(
    proxy: FaultProxy, server: RedisServer, logged: Logged, word: str
) -> None:
    async def script() -> None:
        async with replicas(server.url_at(proxy.port)) as (store,):
            await store.create(KEY, live_record())
            proxy.fail(REFUSALS[word])
            for _ in range(5):
                with pytest.raises(StoreUnavailable) as caught:
                    await store.read(KEY)
                assert caught.value.detail.startswith("Redis ")
                assert "secret" not in caught.value.detail
                with pytest.raises(StoreUnavailable):
                    await store.commit(KEY, reply("a"))
            lines = logged("store_unavailable")
            assert [record.reason for record in lines] == [word]  # type: ignore[attr-defined]
            assert store.problem == word
            proxy.heal()
            assert isinstance(await store.commit(KEY, reply("a")), Committed)
            await until(lambda: store.problem == "", "it is well again")
            assert len(logged("store_back")) == 1

    play(script())


def test_a_script_flush_and_a_restart_cost_nothing(server: RedisServer) -> None:
    async def script() -> None:
        async with replicas(server.url) as (store,):
            await store.create(KEY, live_record())
            server.do("SCRIPT", "FLUSH")
            reads = await asyncio.gather(*(store.read(KEY) for _ in range(50)))
            assert all(snapshot.record is not None for snapshot in reads)
            server.do("SCRIPT", "FLUSH")
            assert isinstance(await store.commit(KEY, reply("a")), Committed)

    server.do("FLUSHALL")
    play(script())


def test_reads_of_one_turn_are_one_round_trip(server: RedisServer) -> None:
    async def script() -> None:
        async with replicas(server.url) as (store,):
            await store.create(KEY, live_record())
            await store.read(KEY)
            server.reset_commands()
            await asyncio.gather(*(store.read(KEY) for _ in range(100)))
            assert server.commands()["mget"] == 1
            assert server.commands()["evalsha"] == 100

    server.do("FLUSHALL")
    play(script())


def test_d5_a_slow_redis_is_bounded_and_a_silent_one_too(proxy: FaultProxy, server: RedisServer) -> None:
    async def script() -> None:
        async with replicas(server.url_at(proxy.port), timeout_s=0.5) as (store,):
            await store.create(KEY, live_record())
            for spoil in (lambda: proxy.slow(5.0), proxy.silence):
                spoil()
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await store.acquire(KEY, ask("x"))
                assert time.monotonic() - began < 10.0
                proxy.slow(0.0)
                proxy.speak()
            await until(lambda: _answers(store), "it answers again")

    play(script())


async def _answers(store: SteadfastStore) -> bool:
    try:
        return (await store.read(KEY)).record is not None
    except StoreUnavailable:
        return False


def test_a_cancelled_caller_breaks_nobody_elses_answer(server: RedisServer) -> None:
    async def script() -> None:
        async with replicas(server.url) as (store,):
            for n in range(20):
                await store.create(f"k{n}", live_record(gen=f"g{n}"))
            for _ in range(20):
                tasks = [asyncio.create_task(store.read(f"k{n % 20}")) for n in range(200)]
                tasks += [asyncio.create_task(store.touch(f"k{n}", 0.0)) for n in range(20)]
                await asyncio.sleep(0)
                for task in tasks[::3]:
                    task.cancel()
                done = await asyncio.gather(*tasks, return_exceptions=True)
                for n, answer in enumerate(done[:200]):
                    if not isinstance(answer, BaseException):
                        assert answer.record.gen == f"g{n % 20}"  # type: ignore[union-attr]

    server.do("FLUSHALL")
    play(script())


# Real refusals of a real server.


def test_at_its_memory_limit_it_starts_nothing_and_finishes_what_must_not_be_lost() -> None:
    async def script(server: RedisServer) -> None:
        async with replicas(server.url) as (store,):
            await store.create(KEY, live_record())
            await store.create("k2", live_record(gen="g2"))
            assert isinstance(await store.acquire(KEY, ask("a")), Granted)
            server.do("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(StoreUnavailable):
                await store.create("k3", live_record())
            with pytest.raises(StoreUnavailable):
                await store.acquire("k2", ask("b", "g2"))
            assert store.problem == "out_of_memory"
            assert isinstance(await store.commit(KEY, reply("a")), Committed), "the only valid token"
            await store.end("k2", "signed_out", 60)
            assert (await stored(store, "k2")).tombstone == "signed_out"

    with redis_server() as server:
        play(script(server))


def test_tls_client_certificate_and_acl_user() -> None:
    rights = "~np:* &np:* -@all +@read +@write +@scripting +@transaction +publish +subscribe +unsubscribe +ping +info +wait +time"

    async def script(server: RedisServer) -> None:
        assert server.tls is not None
        files = {
            "ca_file": str(server.tls.ca),
            "cert_file": str(server.tls.client_cert),
            "key_file": str(server.tls.client_key),
        }
        async with replicas(server.url, server.url, **files) as (a, b):
            await coherent(a, b)
            await a.create(KEY, live_record(user="ada"))
            assert isinstance(await b.commit(KEY, reply("a")), Committed)
            assert (await a.tally())[0].count == 1
            assert a.problem == ""
        async with replicas(server.url) as (stranger,):
            with pytest.raises(StoreUnavailable):
                await stranger.read(KEY)
            assert stranger.problem == "tls"

    with redis_server(user="np", password="a/b@c", acl=rights, tls=True) as server:
        play(script(server))


def test_a_wrong_password_is_told_as_one(server: RedisServer) -> None:
    async def script(server: RedisServer) -> None:
        url = server.url.replace("right", "wrong")
        async with replicas(url) as (store,):
            with pytest.raises(StoreUnavailable) as caught:
                await store.read(KEY)
            assert "password" in caught.value.detail
            assert "wrong" not in caught.value.detail.replace("wrong_password", "")
            assert store.problem == "wrong_password"

    with redis_server(password="right") as locked:
        play(script(locked))


def test_without_the_right_to_publish_sessions_work_and_are_read_every_time(logged: Logged) -> None:
    async def script(server: RedisServer) -> None:
        async with replicas(server.url) as (store,):
            await store.create(KEY, live_record())
            assert isinstance(await store.commit(KEY, reply("a")), Committed)
            await until(lambda: logged("cannot_publish"), "the log names the missing right")
            assert time.monotonic() >= store.coherence.until
            assert store.problem == ""

    with redis_server(user="np", password="x", acl="~* &* +@all -publish") as server:
        play(script(server))


def test_a_late_write_on_a_changed_session_is_told_what_is_stored(server: RedisServer) -> None:
    async def script() -> None:
        async with replicas(server.url, server.url) as (a, b):
            await a.create(KEY, live_record())
            await a.acquire(KEY, ask("x"))
            await b.commit(KEY, reply("y"))
            answer = await a.commit(KEY, reply("x"))
            assert isinstance(answer, Changed)
            assert answer.record.gen == "y"

    server.do("FLUSHALL")
    play(script())
