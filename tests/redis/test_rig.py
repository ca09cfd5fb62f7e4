"""The rig does what the tests that stand on it believe."""

from __future__ import annotations

import pytest
import redis

from tests.redis.cluster import cluster_rig
from tests.redis.sentinel import sentinel_rig
from tests.redis.servers import redis_server


def test_a_killed_server_comes_back_on_its_port_without_its_data() -> None:
    with redis_server() as server:
        server.do("SET", "a", "b")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            server.do("PING")
        server.start()
        assert server.do("GET", "a") is None


def test_a_server_that_is_asked_to_stop_keeps_what_its_options_say() -> None:
    with redis_server({"appendonly": "yes"}) as server:
        server.do("SET", "a", "b")
        server.stop()
        server.start()
        assert server.do("GET", "a") == b"b"


def test_user_and_tls_are_demanded() -> None:
    with redis_server(user="np", password="a/b@c", tls=True) as server:
        assert server.do("ACL", "WHOAMI") == b"np"
        assert server.url.startswith("rediss://np:a%2Fb%40c@127.0.0.1:")
        with pytest.raises(redis.RedisError), redis.Redis("127.0.0.1", server.port) as plain:
            plain.ping()


def test_commands_are_counted() -> None:
    with redis_server() as server:
        server.reset_commands()
        server.do("SET", "a", "b")
        assert server.commands()["set"] == 1


def test_failovers_with_and_without_the_last_writes() -> None:
    with sentinel_rig() as rig:
        old = rig.primary
        old.do("SET", "a", "kept")
        rig.flush_replication()
        with rig.lose_last_writes():
            old.do("SET", "a", "lost")
        assert rig.primary is not old
        assert rig.primary.do("GET", "a") == b"kept"
        rig.repair()
        rig.primary.do("SET", "a", "later")
        rig.flush_replication()
        rig.fail_over(kill=False)
        assert rig.primary is old
        assert rig.primary.do("GET", "a") == b"later"


def test_a_cluster_outlives_a_primary() -> None:
    with cluster_rig() as rig:
        owner = rig.owner("{s}:1")
        owner.do("SET", "{s}:1", "kept")
        with owner.client() as client:
            client.execute_command("SET", "{s}:2", "kept")
            client.wait(1, 5000)
        heir = rig.fail_over(owner)
        assert heir.do("GET", "{s}:1") == heir.do("GET", "{s}:2") == b"kept"
        assert rig.owner("{s}:1") is heir
        rig.repair()
