"""What stands in Redis: shared with another version of us, gone in time, and telling nothing."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from proxy.core.answers import Committed, Granted
from proxy.core.seal import new_ticket
from proxy.core.session import store_key
from tests.contract.sessions import KEY, ask, reply, stored, transient
from tests.integration.redis_store.house import live_record, play, replicas
from tests.redis.servers import RedisServer, redis_server

PLACE = f"np:{{{KEY}}}"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(autouse=True)
def empty(server: RedisServer) -> None:
    server.do("FLUSHALL")


def taken_apart(value: bytes) -> tuple[dict[str, Any], bytes]:
    """The record's map, and the blobs behind it with the length of the first."""
    length, tokens = struct.unpack(">HI", value[:6])
    return msgspec.msgpack.decode(value[6 : 6 + length]), struct.pack(">I", tokens) + value[6 + length :]


def put_together(record: dict[str, Any], blobs: bytes) -> bytes:
    packed = msgspec.msgpack.encode(record)
    return struct.pack(">H", len(packed)) + blobs[:4] + packed + blobs[4:]


def test_g8_what_a_newer_version_wrote_is_kept_through_every_operation(server: RedisServer) -> None:
    async def script() -> None:
        async with replicas(server.url) as (store,):
            await store.create(KEY, live_record(user="ada"))
            raw = server.do("GET", PLACE)
            assert isinstance(raw, bytes)
            record, blobs = taken_apart(raw)
            record["zz"] = {"new": ["thing", 1.5]}
            with server.client() as client:
                client.set(PLACE, put_together(record, blobs), keepttl=True)
            assert isinstance(await store.acquire(KEY, ask("a")), Granted)
            await store.abandon(KEY, "a", transient(0.0), release=False)
            assert await store.renew(KEY, "a", 20) is True
            assert isinstance(await store.commit(KEY, reply("a")), Committed)
            await store.identify(KEY, "a", b"new", "w1")
            await store.touch(KEY, (await stored(store)).seen + 5)
            await store.end(KEY, "signed_out", 60)
            raw = server.do("GET", PLACE)
            assert isinstance(raw, bytes)
            record, blobs = taken_apart(raw)
            assert record["zz"] == {"new": ["thing", 1.5]}
            assert blobs[4:] == b"tokens of anew"

    play(script())


def test_an_outcome_of_a_class_that_only_a_newer_version_knows_binds_like_any_other(
    server: RedisServer,
) -> None:
    async def script() -> None:
        async with replicas(server.url) as (store,):
            await store.create(KEY, live_record(outcome=transient(9e9)))
            raw = server.do("GET", PLACE)
            assert isinstance(raw, bytes)
            record, blobs = taken_apart(raw)
            record["o"][0] = "of tomorrow"
            record["o"].append("and more")
            with server.client() as client:
                client.set(PLACE, put_together(record, blobs), keepttl=True)
            assert (await stored(store)).outcome is not None
            answer = await store.acquire(KEY, ask("a"))
            assert type(answer).__name__ == "FailedLately"

    play(script())


@pytest.mark.parametrize("value", [b"", b"short", b"\xff" * 100, struct.pack(">HI", 3, 0) + b"abc"])
def test_what_is_no_record_reads_as_nothing_and_can_be_written_over(
    server: RedisServer, value: bytes
) -> None:
    async def script() -> None:
        async with replicas(server.url) as (store,):
            server.do("SET", PLACE, value)
            assert (await store.read(KEY)).record is None
            await store.create(KEY, live_record())
            assert (await stored(store)).gen == "login"

    play(script())


def test_every_key_has_an_end_and_no_name_tells_a_session_id_or_a_subject(server: RedisServer) -> None:
    ticket = new_ticket(0.0)
    key = store_key(ticket.session_id)

    async def script() -> None:
        async with replicas(server.url, prefix="other:") as (store,):
            await store.create(key, live_record(user="0" * 32, op_session="1" * 32))
            await store.acquire(key, ask("a"))
            await store.commit(key, reply("a"))
            await store.spend_flow("flow", 60)
            await store.note("2" * 32, 60)
            await store.announce("r1", ["k1"], 20)
            await store.mark("0" * 32, 600)
            await store.mark("", 600)
            await store.end(key, "signed_out", 60)

    play(script())
    with server.client() as client:
        names = [name.decode() for name in client.scan_iter()]
        assert len(names) == 9
        assert all(name.startswith("other:") for name in names)
        assert all(client.pttl(name) > 0 for name in names)
        assert ticket.session_id.hex() not in "".join(names)
        assert 0 < client.pttl(f"other:{{{key}}}") <= 60_000


def test_by_redis_own_clock_leases_run_out_and_so_do_flows(server: RedisServer) -> None:
    """E1: the other suites bring their own time; here it is the server's."""

    async def script() -> None:
        async with replicas(server.url) as (store,):
            await store.create(KEY, live_record())
            short = ask("a", lease_s=0.2)
            assert isinstance(await store.acquire(KEY, short), Granted)
            held = await store.acquire(KEY, ask("b"))
            assert type(held).__name__ == "Held"
            while type(await store.acquire(KEY, ask("b"))).__name__ == "Held":
                await asyncio.sleep(0.02)
            assert await store.renew(KEY, "a", 20) is False
            assert await store.spend_flow("flow", 0.2) is True
            while not await store.spend_flow("flow", 0.2):
                await asyncio.sleep(0.02)

    play(script())
