"""Sign-outs seen by other replicas: real processes, one Redis, the commands of an operator."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.op.scripted import Script
from tests.redis.servers import RedisServer, redis_server
from tests.scenarios.house import Browser, House, until

HEARD_S = 10.0
"""A cache would look by itself after 30 s, where the token lives so long; promised is a second. No test measures speed."""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(params=["redis", "sqlite"])
def house(request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer) -> Iterator[House]:
    server.do("FLUSHALL")
    on_redis = request.param == "redis"
    with House(
        tmp_path,
        replicas=2 if on_redis else 1,
        store=server.url if on_redis else None,
        life_s=300.0,
        clock="real",
    ) as made:
        yield made


def command(house: House, *words: str) -> str:
    """Run `nightporter sessions …` with a replica's settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTPORTER_")}
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "sessions", *words],
        env={**env, **house.replica.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(browser: Browser, replica: int) -> None:
    """Wait until a replica refuses the browser's session, asked all the time."""
    until(lambda: browser.get("/a", replica=replica).status == 401, HEARD_S)


def test_h1_everybody_is_signed_out_by_one_command_and_signs_in_again(house: House) -> None:
    people = [house.somebody(f"user-{n}") for n in range(3)]
    last = len(house.replicas) - 1
    for person in people:
        assert person.get("/a", replica=last).status == 200
    assert "3 live session(s), 0 of them without a refresh token." in command(house, "stats")
    command(house, "end-all")
    for person in people:
        for replica in {0, last}:
            refused(person, replica)
    until(lambda: "0 live session(s)" in command(house, "stats"))
    assert people[0].sign_in("/page?x=2").status == 200
    assert "1 live session(s)" in command(house, "stats")


def test_h5_one_person_is_signed_out_by_issuer_and_subject_and_nobody_else(house: House) -> None:
    ada, bob = house.somebody("ada-1"), house.somebody("bob-2")
    command(house, "end-user", house.op.issuer, "ada-1")
    for replica in range(len(house.replicas)):
        refused(ada, replica)
        assert bob.get("/a", replica=replica).status == 200
    assert ada.sign_in("/page?x=2").status == 200


def test_h2_a_renewal_under_way_while_everybody_is_signed_out_revives_nothing(
    tmp_path: Path, server: RedisServer
) -> None:
    server.do("FLUSHALL")
    with House(tmp_path, replicas=2, store=server.url, life_s=4.0, clock="real") as house:
        ada = house.somebody()
        house.expire(ada)
        house.op.script_next(Script(reply_delay_s=4.0), "refresh")
        before = len(house.op.refreshes())
        asked = threading.Thread(target=lambda: ada.get("/a"))
        asked.start()
        house.op.wait_refreshes(before + 1)
        command(house, "end-all")
        asked.join(60)
        for replica in range(2):
            refused(ada, replica)
        assert ada.sign_in("/page?x=2").status == 200


def test_h4_signed_out_on_one_replica_is_refused_on_the_other_at_once(
    tmp_path: Path, server: RedisServer
) -> None:
    server.do("FLUSHALL")
    with House(tmp_path, replicas=2, store=server.url, life_s=300.0, clock="real") as house:
        ada = house.somebody()
        old = dict(ada.jar)
        assert ada.get("/a", replica=1).status == 200
        assert ada.post("/oauth2/logout", replica=0).status in (200, 303)
        ada.jar.update(old)
        refused(ada, 1)
