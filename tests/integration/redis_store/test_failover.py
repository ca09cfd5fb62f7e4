"""Failovers that lose acknowledged writes: real Sentinels, a real cluster (T7, T11, D7 to D9, D13)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from proxy.core.answers import Changed, Commit, Committed, Gone, Granted
from proxy.core.session import ended
from proxy.errors import StoreUnavailable
from proxy.shell.store.redis.primaries import HOLD_S
from proxy.shell.store.redis.steadfast import SteadfastStore
from proxy.shell.store.redis.store import RedisStore
from tests.contract.sessions import KEY, ask, reply, stored
from tests.integration.redis_store.house import coherent, live_record, play, replicas, until
from tests.redis.cluster import ClusterRig, cluster_rig
from tests.redis.sentinel import SentinelRig, sentinel_rig
from tests.redis.servers import redis_server

pytestmark = pytest.mark.timeout(240)

Logged = Callable[[str], list[logging.LogRecord]]


@pytest.fixture(scope="module")
def running() -> Iterator[SentinelRig]:
    with sentinel_rig() as rig:
        yield rig


@pytest.fixture
def sentinels(running: SentinelRig) -> SentinelRig:
    running.repair()
    running.flush()
    return running


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterRig]:
    with cluster_rig() as rig:
        yield rig


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Logged:
    caplog.set_level(logging.INFO, logger="nightporter")
    return lambda event: [record for record in caplog.records if record.getMessage() == event]


async def gen_of(store: SteadfastStore, key: str = KEY) -> str:
    try:
        snapshot = await store.read(key)
    except StoreUnavailable:
        return ""
    return snapshot.record.gen if snapshot.record is not None else "absent"


async def ready(store: SteadfastStore) -> bool:
    return await gen_of(store, "nobody") == "absent"


def test_t7_d8_a_lost_commit_is_written_again_before_anybody_sends_the_token_that_it_consumed(
    sentinels: SentinelRig,
) -> None:
    async def script() -> None:
        async with replicas(sentinels.url, sentinels.url) as (writer, other):
            await writer.create(KEY, live_record())
            await coherent(writer, other)
            await asyncio.to_thread(sentinels.flush_replication)
            await asyncio.to_thread(sentinels.hold_back_replication)
            granted = await writer.acquire(KEY, ask("a"))
            assert isinstance(granted, Granted)
            assert isinstance(await writer.commit(KEY, reply("a")), Committed)
            await asyncio.to_thread(sentinels.fail_over)
            # The other replica knows the session as it was before, and takes over as soon as it may.
            answer = None
            while answer is None:
                try:
                    answer = await other.acquire(KEY, ask("b"))
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
            assert isinstance(answer, Changed), "not granted: the consumed token would be sent"
            assert answer.record.gen == "a"
            assert answer.record.tokens == b"tokens of a"

    play(script())


def test_t7_two_lost_commits_come_back_as_the_last_one(sentinels: SentinelRig) -> None:
    async def script() -> None:
        async with replicas(sentinels.url) as (writer,):
            await writer.create(KEY, live_record())
            await asyncio.to_thread(sentinels.flush_replication)
            await asyncio.to_thread(sentinels.hold_back_replication)
            await writer.acquire(KEY, ask("a"))
            await writer.commit(KEY, reply("a"))
            await writer.acquire(KEY, ask("b", "a", "rt of a"))
            await writer.commit(KEY, reply("b", "rt of a", "a"))
            await asyncio.to_thread(sentinels.fail_over)
            await until(lambda: is_gen(writer, "b"), "the newest tokens are back", 60)

    play(script())


def test_t7_a_commit_that_meets_a_store_that_went_back_is_written_over_the_ancestor(
    sentinels: SentinelRig,
) -> None:
    """The reply of the OP comes after the failover, and the version it was acquired under is gone."""

    async def script() -> None:
        async with replicas(sentinels.url) as (writer,):
            await writer.create(KEY, live_record())
            await asyncio.to_thread(sentinels.flush_replication)
            await asyncio.to_thread(sentinels.hold_back_replication)
            await writer.acquire(KEY, ask("a"))
            await writer.commit(KEY, reply("a"))
            await writer.acquire(KEY, ask("b", "a", "rt of a"))
            await asyncio.to_thread(sentinels.fail_over)
            answer = None
            while answer is None:
                try:
                    answer = await writer.commit(KEY, reply("b", "rt of a", "a"))
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
            assert isinstance(answer, Committed)
            assert (await stored(writer)).tokens == b"tokens of b"

    play(script())


def test_t11_a_lost_ending_and_a_lost_mark_are_said_again_by_whoever_heard_of_them(
    sentinels: SentinelRig,
) -> None:
    async def script() -> None:
        async with replicas(sentinels.url, sentinels.url) as (a, b):
            for key, user in ((KEY, "ada"), ("k2", "bob"), ("k3", "carl")):
                await a.create(key, live_record(user=user, gen=f"gen of {key}"))
            await coherent(a, b)
            await asyncio.to_thread(sentinels.flush_replication)
            await asyncio.to_thread(sentinels.hold_back_replication)
            heard: list[str] = []
            b.listen(heard.append)
            await a.end(KEY, "signed_out", 600)
            await a.mark("bob", 600)
            await until(lambda: f"ended:{KEY}" in heard and "user:bob" in heard, "b has heard of both")
            await a.close()  # the one that wrote them is gone
            await asyncio.to_thread(sentinels.fail_over)

            async def refused() -> bool:
                try:
                    reads = [await b.read(key) for key in (KEY, "k2", "k3")]
                except StoreUnavailable:
                    return False
                return [ended(read.record, read.now, read.not_before) for read in reads] == [
                    "signed_out",
                    "ended_by_operator",
                    "",
                ]

            await until(refused, "what had ended has ended", 60)

    play(script())


def test_no_lease_is_taken_for_two_seconds_after_a_change_of_primary(
    sentinels: SentinelRig, logged: Logged
) -> None:
    async def script() -> None:
        async with replicas(sentinels.url) as (store,):
            await store.create(KEY, live_record())
            await coherent(store)
            await asyncio.to_thread(sentinels.flush_replication)
            await asyncio.to_thread(sentinels.fail_over)
            await until(lambda: logged("primary_changed"), "it is noticed", 60)
            noticed = time.monotonic()
            answer = None
            while answer is None:
                try:
                    answer = await store.acquire(KEY, ask("a"))
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
            assert time.monotonic() - noticed >= HOLD_S - 0.5
            assert isinstance(answer, Granted)

    play(script())


def test_d13_a_primary_that_was_ordered_to_step_down_is_followed(sentinels: SentinelRig) -> None:
    async def script() -> None:
        async with replicas(sentinels.url) as (store,):
            await store.create(KEY, live_record())
            await coherent(store)
            await asyncio.to_thread(sentinels.flush_replication)
            await asyncio.to_thread(lambda: sentinels.fail_over(kill=False))
            answer = None
            while answer is None:
                try:
                    answer = await store.commit(KEY, reply("a"))
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
            assert isinstance(answer, Committed)
            assert sentinels.primary.do("EXISTS", f"np:{{{KEY}}}") == 1
            await coherent(store)

    play(script())


def test_a_restart_without_its_data_signs_out_and_a_restart_with_it_does_not() -> None:
    async def script(options: dict[str, str]) -> str:
        with redis_server(options) as server:
            async with replicas(server.url) as (store,):
                await store.create(KEY, live_record())
                await coherent(store)
                server.kill()
                server.start()
                await until(lambda: ready(store), "it answers again")
                return await gen_of(store)

    always = {"appendonly": "yes", "appendfsync": "always"}
    assert asyncio.run(asyncio.wait_for(script(always), 100)) == "login"
    assert asyncio.run(asyncio.wait_for(script({}), 100)) == "absent"


def test_with_replicas_to_wait_for_a_lease_counts_only_when_they_have_it(
    sentinels: SentinelRig, logged: Logged
) -> None:
    async def script() -> None:
        async with replicas(sentinels.url, wait_replicas=1) as (store,):
            await store.create(KEY, live_record())
            durable = msgspec.structs.replace(ask("a"), durable=True)
            assert isinstance(await store.acquire(KEY, durable), Granted)
            assert isinstance(await store.commit(KEY, reply("a")), Committed)
            assert b"tokens of a" in sentinels.replica.do("GET", f"np:{{{KEY}}}")
            await asyncio.to_thread(sentinels.hold_back_replication)
            with pytest.raises(StoreUnavailable) as caught:
                await store.acquire(KEY, msgspec.structs.replace(ask("b", "a", "rt of a"), durable=True))
            assert "replicas" in caught.value.detail
            assert (await stored(store)).intents == (), "nothing is left of it"
            await store.end(KEY, "signed_out", 60)
            assert (await stored(store)).tombstone == "signed_out", "a sign-out counts all the same"
            assert logged("replicas_behind")

    play(script())


def test_d14_in_a_cluster_sessions_outlive_a_node_and_lost_commits_come_back(cluster: ClusterRig) -> None:
    async def script() -> None:
        async with replicas(cluster.url, cluster.url, wait_replicas=1) as (a, b):
            for n in range(30):
                await a.create(f"k{n}", live_record(gen=f"g{n}", user="ada"))
            await coherent(a, b)
            heard: list[str] = []
            b.listen(heard.append)
            owner = await asyncio.to_thread(cluster.owner, "np:{k0}")
            await a.commit("k0", reply("x", gen="g0"))
            await until(lambda: "k0" in heard, "b hears across the nodes")
            await asyncio.to_thread(cluster.fail_over, owner)

            async def all_there() -> bool:
                gens = [await gen_of(b, f"k{n}") for n in range(30)]
                return gens == ["x", *(f"g{n}" for n in range(1, 30))]

            await until(all_there, "every session is there", 90)
            await until(lambda: is_gen(a, "x", "k0"), "for the other replica, too", 90)
            assert len(await a.sessions_of("ada")) == 30
            await coherent(a, b)

    play(script())


async def is_gen(store: SteadfastStore, gen: str, key: str = KEY) -> bool:
    return await gen_of(store, key) == gen


@contextlib.contextmanager
def others_commit_before(attempt: str, *meanwhile: Commit | None) -> Iterator[None]:
    """While inside, each try of `attempt` is preceded by one of these commits, in order."""
    commit, others = RedisStore.commit, iter(meanwhile)

    async def commits(self: RedisStore, key: str, write: Commit) -> Committed | Changed | Gone:
        other = next(others, None) if write.attempt == attempt else None
        if other is not None:
            assert isinstance(await commit(self, key, other), Committed)
        return await commit(self, key, write)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisStore, "commit", commits)
        yield
    assert next(others, None) is None, "it tried that often"


def test_t7_a_commit_wins_over_every_ancestor_that_others_say_again_meanwhile() -> None:
    async def script() -> None:
        with redis_server({}) as server:
            async with replicas(server.url) as (writer,):
                await writer.create(KEY, live_record())
                before = server.do("DUMP", f"np:{{{KEY}}}")
                for attempt, gen in (("a", "login"), ("b", "a"), ("c", "b")):
                    await writer.acquire(KEY, ask(attempt, gen, "rt0" if gen == "login" else f"rt of {gen}"))
                    if attempt != "c":
                        consumed = "rt0" if gen == "login" else f"rt of {gen}"
                        assert isinstance(await writer.commit(KEY, reply(attempt, consumed, gen)), Committed)
                server.do("RESTORE", f"np:{{{KEY}}}", 0, before, "REPLACE")
                with others_commit_before("c", None, reply("a"), reply("b", "rt of a", "a")):
                    answer = await writer.commit(KEY, reply("c", "rt of b", "b"))
                assert isinstance(answer, Committed)
                assert (await stored(writer)).tokens == b"tokens of c"

    play(script())


def test_t7_what_a_reader_says_again_wins_over_the_ancestors_that_others_say_again() -> None:
    async def script() -> None:
        with redis_server({}) as server:
            async with replicas(server.url) as (writer,):
                await writer.create(KEY, live_record())
                before = server.do("DUMP", f"np:{{{KEY}}}")
                await writer.acquire(KEY, ask("a"))
                await writer.commit(KEY, reply("a"))
                await writer.acquire(KEY, ask("b", "a", "rt of a"))
                await writer.commit(KEY, reply("b", "rt of a", "a"))
                server.do("RESTORE", f"np:{{{KEY}}}", 0, before, "REPLACE")
                with others_commit_before("b", reply("a")):
                    snapshot = await writer.read(KEY)
                assert snapshot.record is not None
                assert snapshot.record.tokens == b"tokens of b"
                assert (await stored(writer)).tokens == b"tokens of b"

    play(script())
