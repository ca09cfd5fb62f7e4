"""D7 … D9, D14, T7, T8, T11: primaries die, with and without the last writes. Real Sentinels, a real Cluster, real time.

Tokens live a few seconds here. `rig.lose_last_writes()` cuts the replica off, and makes it the primary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.op.scripted import Gate, Rotation, Script, ScriptedOP
from tests.redis.cluster import ClusterRig, cluster_rig
from tests.redis.sentinel import SentinelRig, sentinel_rig
from tests.scenarios.house import House, until

LIFE_S = 6.0


@pytest.fixture(scope="module")
def _sentinels() -> Iterator[SentinelRig]:
    with sentinel_rig() as rig:
        yield rig


@pytest.fixture
def sentinels(_sentinels: SentinelRig) -> SentinelRig:
    _sentinels.repair()
    _sentinels.flush()
    return _sentinels


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterRig]:
    with cluster_rig() as rig:
        yield rig


@contextmanager
def house_on(
    url: str,
    home: Path,
    kind: str = "family_revoke",
    grace_s: float = 0.0,
    life_s: float = LIFE_S,
    **env: str,
) -> Iterator[House]:
    op = ScriptedOP()
    op.rotation = Rotation(kind, grace_s)
    reuse = "grace" if grace_s else "punished"
    settings = {"NIGHTPORTER_REFRESH_REUSE": reuse, "NIGHTPORTER_REFRESH_WAIT_S": "30", **env}
    with House(home, replicas=2, store=url, op=op, life_s=life_s, env=settings) as house:
        for replica in house.replicas:
            until(lambda replica=replica: replica.events("subscription_well"))
        yield house


def test_d7_a_failover_that_loses_the_new_token_is_survived_within_the_grace(
    sentinels: SentinelRig, tmp_path: Path
) -> None:
    with house_on(sentinels.url, tmp_path, "rotate", 60.0) as house:
        ada = house.somebody()
        sentinels.flush_replication()
        house.expire(ada)
        with sentinels.lose_last_writes():
            assert ada.get("/a", replica=0).status == 200
            house.replicas[0].kill()  # and with it goes the memory of what was written
        until(lambda: ada.get("/b", replica=1).status == 200, 60)
        house.expire(ada, replica=1)
        until(lambda: ada.get("/c", replica=1).status == 200)
        assert house.op.invalid_grant == 0


def test_d8_t7_t8_the_writer_writes_again_what_a_failover_lost(
    sentinels: SentinelRig, tmp_path: Path
) -> None:
    """Zero grace, and a consumed token kills the family: nobody may send the token that came back."""
    with house_on(sentinels.url, tmp_path) as house:
        ada = house.somebody()
        sentinels.flush_replication()
        house.expire(ada)
        with sentinels.lose_last_writes():
            token = ada.get("/a", replica=0).token
            assert token
        until(lambda: ada.get("/b", replica=1).status == 200, 60)
        [first, *rest] = house.op.refreshes()
        house.expire(ada, replica=1)
        until(lambda: ada.get("/c", replica=1).status == 200)
        calls = house.op.refreshes()
        assert calls[1].rt == first.issued_rt
        assert len(rest) <= 1
        assert (house.op.invalid_grant, house.op.reuse_events) == (0, 0)


def test_d9_a_failover_that_loses_the_lease_during_the_call_costs_nobody_anything(
    sentinels: SentinelRig, tmp_path: Path
) -> None:
    with house_on(sentinels.url, tmp_path) as house:
        ada = house.somebody()
        sentinels.flush_replication()
        house.expire(ada)
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        with sentinels.lose_last_writes():
            waiting = ada.send("/a", replica=0)
            held.wait_reached()
        held.open()  # the lease and the intent are gone; the commit asks for neither
        assert waiting.recv(12) == b"HTTP/1.1 200"
        waiting.close()
        until(lambda: ada.get("/b", replica=1).status == 200, 60)
        assert (house.op.invalid_grant, house.op.reuse_events) == (0, 0)
        house.expire(ada, replica=1)
        until(lambda: ada.get("/c", replica=1).status == 200)
        assert (house.op.invalid_grant, house.op.reuse_events) == (0, 0)


def test_t11_a_sign_out_that_a_failover_lost_is_said_again(sentinels: SentinelRig, tmp_path: Path) -> None:
    with house_on(sentinels.url, tmp_path, life_s=300.0) as house:
        ada = house.somebody()
        cookie = dict(ada.jar)
        assert ada.get("/a", replica=1).status == 200
        sentinels.flush_replication()
        with sentinels.lose_last_writes():
            assert ada.post("/oauth2/logout").status == 200
        ada.jar = cookie
        until(lambda: ada.get("/b", replica=0).status == 401, 60)
        until(lambda: ada.get("/b", replica=1).status == 401, 60)
        house.replicas[1].kill()
        house.replicas[1].start()  # knows nothing but what the store says
        until(lambda: ada.get("/c", replica=1).status != 503, 60)
        assert ada.get("/c", replica=1).status == 401


def test_d13_an_ordered_failover_under_use_signs_nobody_out(sentinels: SentinelRig, tmp_path: Path) -> None:
    with house_on(sentinels.url, tmp_path) as house:
        people = [house.somebody(f"user-{n}") for n in range(4)]
        sentinels.flush_replication()
        sentinels.fail_over(kill=False)
        house.expire(people[-1])
        for n, person in enumerate(people):
            until(lambda person=person, n=n: person.get("/a", replica=n % 2).status == 200, 60)
        assert (house.op.invalid_grant, house.op.reuse_events) == (0, 0)


def test_d14_on_a_cluster_every_script_keeps_to_one_slot_also_across_a_failover(
    cluster: ClusterRig, tmp_path: Path
) -> None:
    with house_on(cluster.url, tmp_path) as house:
        people = [house.somebody(f"user-{n}") for n in range(6)]  # of several slots
        house.expire(people[-1])
        for n, person in enumerate(people):
            assert {reply.status for reply in person.burst(8, replicas=(0, 1))} == {200}, n
        assert len(house.op.refreshes()) == len(people)
        gone = people[0]
        cookie = dict(gone.jar)
        assert gone.post("/oauth2/logout").status == 200
        gone.jar = cookie
        until(lambda: gone.get("/b", replica=1).status == 401)
        for node in cluster.primaries():
            with node.client() as client:
                client.wait(1, 10_000)
        cluster.fail_over(cluster.primaries()[0])
        house.expire(people[-1])
        for person in people[1:]:
            until(lambda person=person: person.get("/c", replica=1).status == 200, 60)
        assert gone.get("/d", replica=0).status == 401
        assert (house.op.invalid_grant, house.op.reuse_events) == (0, 0)
    cluster.repair()
