"""The doctor at real Redis servers, each with one thing about it that costs sessions."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from proxy.config import SecretUrl, Settings
from proxy.config.keys import new_key
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
    lonely = found["store.replicas"]  # it is one server alone
    assert (lonely.level, "Add a replica" in lonely.remedy) == (Level.WARN, True)
    assert {finding.level for name, finding in found.items() if name != "store.replicas"} == {Level.OK}
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


def test_a_plain_check_warns_of_the_store_as_it_is_and_still_says_yes() -> None:
    def checked(url: str) -> tuple[int, str]:
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("NIGHTPORTER_")},
            "NIGHTPORTER_ISSUER": "https://login.example.com",
            "NIGHTPORTER_CLIENT_ID": "app",
            "NIGHTPORTER_CLIENT_SECRET": "a-secret-of-the-client",
            "NIGHTPORTER_UPSTREAM": "http://127.0.0.1:9000",
            "NIGHTPORTER_PUBLIC_URL": "https://app.example.com",
            "NIGHTPORTER_COOKIE_KEYS": new_key(),
            "NIGHTPORTER_STORE": url,
        }
        done = subprocess.run(
            [sys.executable, "-m", "proxy", "check"], env=env, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout

    with redis_server({"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru", "save": ""}) as server:
        status, said = checked(server.url)
        url = server.url
    assert status == 0
    for words in (
        "maxmemory-policy noeviction",
        "Set appendonly yes",
        "Add a replica",
        "OK: the configuration",
    ):
        assert words in said
    status, said = checked(url)  # the server has ended
    assert status == 0
    assert "cannot be reached" in said
