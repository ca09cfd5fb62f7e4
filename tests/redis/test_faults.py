"""The fault proxies do to a command what they say, and nothing to the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.op.scripted import Gate
from tests.redis.faults import FaultProxy
from tests.redis.servers import RedisServer, redis_server
from tests.redis.toxic import toxiproxy


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


def connect(port: int, timeout_s: float = 10.0, protocol: int = 2) -> redis.Redis:
    return redis.Redis(
        "127.0.0.1", port, protocol=protocol, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_no_rule_names_passes_unchanged(server: RedisServer, protocol: int) -> None:
    server.do("FLUSHALL")
    with FaultProxy(server.port) as proxy, connect(proxy.port, protocol=protocol) as client:
        pipe = client.pipeline(transaction=False)
        pipe.set("a", b"\r\n" * 40_000).get("a").hset("h", mapping={"x": 1}).hgetall("h").get("none")
        assert pipe.execute() == [True, b"\r\n" * 40_000, 1, {b"x": b"1"}, None]
        with client.pubsub() as heard:
            heard.subscribe("news")
            assert heard.get_message(timeout=10) is not None
            client.publish("news", "x" * 70_000)
            message = heard.get_message(timeout=10)
            assert message is not None
            assert len(message["data"]) == 70_000


def test_a_lost_reply_is_that_of_a_command_that_was_carried_out(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy, connect(proxy.port) as client:
        rule = proxy.next("INCRBY", nth=2, lose_reply=True)
        server.do("DEL", "n")
        assert client.incr("n") == 1
        with pytest.raises(redis.ConnectionError):
            client.incr("n")
        assert rule.wait().name == "INCRBY"
        assert server.do("GET", "n") == b"2"
        assert client.incr("n") == 3


def test_a_cut_command_and_one_that_got_an_error_were_not_carried_out(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy, connect(proxy.port) as client:
        server.do("DEL", "n")
        proxy.next("SET", cut=True)
        with pytest.raises(redis.ConnectionError):
            client.set("n", 1)
        proxy.next("SET", error="OOM command not allowed")
        with pytest.raises(redis.OutOfMemoryError):
            client.set("n", 1)
        proxy.fail("LOADING Redis is loading the dataset in memory")
        with pytest.raises(redis.BusyLoadingError):
            client.get("n")
        proxy.heal()
        assert client.get("n") is None
        pipe = client.pipeline(transaction=False)
        proxy.next("SET", nth=2, error="READONLY You can't write against a read only replica.")
        pipe.set("n", 1).set("n", 2).get("n")
        first, second, third = pipe.execute(raise_on_error=False)
        assert (first, third) == (True, b"1")
        assert isinstance(second, redis.ReadOnlyError)


def test_a_command_and_a_reply_wait_for_their_gates(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy, connect(proxy.port) as client:
        server.do("DEL", "n")
        before, after = Gate(), Gate()
        proxy.next("INCRBY", hold=before)
        worker = threading.Thread(target=client.incr, args=("n",))
        worker.start()
        before.wait_reached()
        assert server.do("GET", "n") is None
        held = proxy.next("INCRBY", hold_reply=after)
        before.open()
        worker.join(10)
        worker = threading.Thread(target=client.incr, args=("n",))
        worker.start()
        held.wait()
        assert server.do("GET", "n") == b"2"
        assert worker.is_alive()
        after.open()
        worker.join(10)
        assert not worker.is_alive()


def test_a_partition_breaks_nothing_and_lets_nothing_pass(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy, connect(proxy.port, 0.2) as client:
        client.ping()
        proxy.silence()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        proxy.speak()
        assert client.ping()
        proxy.refuse()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        proxy.accept()
        assert client.ping()


def test_toxiproxy_delays_swallows_and_cuts(server: RedisServer) -> None:
    with toxiproxy(server.port) as proxy:
        with connect(proxy.port) as client:
            proxy.latency(100)
            began = time.monotonic()
            client.ping()
            assert time.monotonic() - began >= 0.09
            proxy.heal()
        with connect(proxy.port, 0.2) as client:
            client.ping()
            proxy.black_hole()
            with pytest.raises(redis.TimeoutError):
                client.ping()
            proxy.heal()
            assert client.ping()
            proxy.down()
            with pytest.raises(redis.ConnectionError):
                client.ping()
            proxy.up()
            assert client.ping()
            proxy.cut_after(3)
            with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
                client.echo("x" * 100)
