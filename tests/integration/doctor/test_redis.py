"""The doctor at real Redis servers, each with one thing about it that costs sessions."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from proxy.config import SecretUrl, Settings
from proxy.doctor import redis as checks
from proxy.doctor.report import Finding, Level
from tests.redis.cluster import cluster_rig
from tests.redis.sentinel import sentinel_rig
from tests.redis.servers import redis_server

OLD = {"redis_version": "6.0.16", "maxmemory_policy": "noeviction", "aof_enabled": "1"}


def look(url: str, **changes: Any) -> dict[str, Finding]:
    async def main() -> dict[str, Finding]:
        settings = Settings(store=SecretUrl(url), **changes)
        return {finding.check: finding async for finding in checks.checks(settings)}

    return asyncio.run(main())


def test_a_server_that_keeps_everything_is_fine() -> None:
    with redis_server({"appendonly": "yes"}) as server:
        found = look(server.url)
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert found.keys() >= {
        *("store.reach", "store.latency", "store.clock", "store.version", "store.eviction"),
        *("store.persistence", "store.replicas", "store.scripts", "store.publish"),
    }


@pytest.mark.parametrize(
    ("options", "check", "level", "remedy"),
    [
        (
            {"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"},
            "store.eviction",
            Level.FAIL,
            "maxmemory-policy noeviction",
        ),
        ({"maxmemory-policy": "volatile-ttl"}, "store.eviction", Level.WARN, "maxmemory-policy noeviction"),
        ({"appendonly": "no"}, "store.persistence", Level.WARN, "appendonly yes"),
    ],
)
def test_what_loses_sessions_is_found(options: dict[str, str], check: str, level: Level, remedy: str) -> None:
    with redis_server(options) as server:
        found = look(server.url)[check]
    assert (found.level, remedy in found.remedy) == (level, True), found


def test_replicas_that_are_waited_for_must_be_there() -> None:
    with redis_server({"appendonly": "yes"}) as server:
        found = look(server.url, store_wait_replicas=1)["store.replicas"]
    assert found.level is Level.FAIL


def test_a_user_who_may_too_little_is_named() -> None:
    with redis_server({"appendonly": "yes"}) as server:
        server.do("ACL", "SETUSER", "np", "on", ">pw", "~np:*", "+@all", "-@scripting", "-info")
        found = look(server.url.replace("redis://", "redis://np:pw@"))
    assert found["store.scripts"].level is Level.FAIL
    assert found["store.publish"].level is Level.FAIL, "no channel was granted"
    assert found["store.info"].level is Level.WARN
    assert "store.eviction" not in found, "what was not seen is not said"


def test_one_that_is_away_or_refuses_us_is_one_finding_without_the_password() -> None:
    with redis_server(user="np", password="canary-pw") as server:
        wrong = look(server.url.replace("canary-pw", "wrong-canary"))
        server.kill()
        away = look(server.url)
    for found in (wrong, away):
        assert [(each.check, each.level) for each in found.values()] == [("store.reach", Level.FAIL)]
        assert "canary" not in str(found)


def test_sentinels_and_clusters_are_looked_at_too() -> None:
    with sentinel_rig() as rig:
        found = look(rig.url)
        assert found["store.reach"].level is Level.OK
        assert found["store.replicas"].level is Level.WARN, "a failover may lose the last writes"
        assert look(rig.url, store_wait_replicas=1)["store.replicas"].level is Level.OK
    with cluster_rig() as cluster:
        found = look(cluster.url)
        assert found["store.reach"].level is Level.OK
        assert found["store.scripts"].level is Level.OK
        assert found["store.version"].level is Level.OK


def test_an_old_server_is_refused_and_a_clock_that_is_off_is_said() -> None:
    found = {each.check: each for each in checks.server(OLD, Settings(), clustered=False)}
    assert found["store.version"].level is Level.FAIL
    now = time.time()
    assert checks.clock((int(now), 0), now).level is Level.OK
    assert checks.clock((int(now) - 120, 0), now).level is Level.WARN
