"""C15, D, T2: Redis is away, slow, read-only, full or emptied; for all replicas or for one of them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.op.scripted import Gate, Rotation, Script
from tests.redis.servers import RedisServer
from tests.redis.toxic import toxiproxy
from tests.scenarios.house import House, until
from tests.scenarios.redis_house import ALL, LEASE_S, RedisHouse, reply_of

OOM = "OOM command not allowed when used memory > 'maxmemory'."
LOADING = "LOADING Redis is loading the dataset in memory"
READONLY = "READONLY You can't write against a read only replica."
NOAUTH = "NOAUTH Authentication required."


def away(house: RedisHouse) -> None:
    for proxy in house.proxies:
        proxy.refuse()


def back(house: RedisHouse) -> None:
    for proxy in house.proxies:
        proxy.accept()


def test_d1_d2_d3_c15_redis_goes_while_the_op_rotates(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.somebody()
    assert ada.get("/warm", replica=1).status == 200
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(after=held), "refresh")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    away(strict)
    until(lambda: strict.replicas[0].metric("nightporter_store_seconds_count", operation="renew") >= 1)
    held.open()  # the call was not given up because the lease could not be renewed
    won = reply_of(holder)
    assert won.status == 200
    assert ada.get("/b", replica=0).token == won.token  # served from memory
    told = ada.get("/b", replica=1)  # nobody else renews without a lease
    assert (told.status, told.json["reason"]) == (503, "store_unavailable")
    assert int(told.get("retry-after")) >= 1
    assert not told.all("set-cookie")
    strict.advance(LEASE_S + 40)
    assert ada.get("/c", replica=2).status == 503
    assert len(strict.calls()) == 1
    back(strict)
    until(lambda: ada.get("/d", replica=1).status == 200)
    for n in ALL:
        assert ada.get("/e", replica=n).token == won.token
    assert len(strict.calls()) == 1
    strict.nobody_was_punished()


def test_d3_with_a_live_token_nobody_notices_that_redis_is_away(strict: RedisHouse) -> None:
    ada = strict.browser()
    old = ada.sign_in().token
    stranger = strict.somebody("somebody-else")
    for n in (0, 1):
        assert ada.get("/warm", replica=n).status == 200
    strict.into_window()
    away(strict)
    for n in (0, 1):
        assert [(r.status, r.token) for r in ada.burst(20, replicas=(n,))] == [(200, old)] * 20
    unknown = stranger.get("/x", replica=2)  # never seen there: it cannot be judged
    assert (unknown.status, unknown.json["reason"]) == (503, "store_unavailable")
    assert strict.calls() == []
    back(strict)
    until(lambda: ada.get("/a", replica=0).token != old)
    until(lambda: stranger.get("/x", replica=2).status == 200)


def test_c15_a_call_that_was_not_sent_when_the_lease_ended_is_not_sent(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    late = Gate()
    rule = strict.proxies[0].next("acquire", hold_reply=late)
    waiting = ada.send("/a", replica=0)
    rule.wait()
    strict.advance(LEASE_S)  # the grant is on its way, its time runs
    won = None
    late.open()
    first = reply_of(waiting)
    until(lambda: ada.get("/b", replica=1).status == 200)
    won = ada.get("/c", replica=0)
    assert won.status == 200
    assert first.status in (200, 503)
    strict.nobody_was_punished()
    assert {call.at_once for call in strict.calls()} == {1}


def test_d4_t4_a_write_whose_answer_is_lost_is_recognised(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.somebody()
    before = strict.metric("nightporter_refresh_total", outcome="ok")

    def saved() -> float:
        return strict.metric("nightporter_refresh_total", outcome="ok") - before

    for turn in (1, 2):
        strict.expire()
        for _ in range(2):  # and the answer of its repetition, too
            strict.proxies[0].next("commit", lose_reply=True)
        reply = ada.get("/a", replica=0)
        assert reply.status == 200, reply.body
        token = reply.token
        until(lambda token=token: ada.get("/b", replica=1).token == token)
        until(lambda turn=turn: saved() == turn)
    first, second = strict.calls()
    assert second.rt == first.issued_rt
    strict.nobody_was_punished()


@pytest.mark.parametrize("command", ["acquire", "create", "end"])
def test_d4_a_lost_answer_of_any_write_costs_nothing(strict: RedisHouse, command: str) -> None:
    strict.op.rotation = Rotation("family_revoke")
    proxy = strict.proxies[0]
    if command == "create":
        proxy.next("create", lose_reply=True)
        ada = strict.browser()
        assert ada.visit("/page").status in (200, 503)
        ada = strict.somebody()
    else:
        ada = strict.somebody()
    if command == "acquire":
        strict.expire()
        proxy.next("acquire", lose_reply=True)
    assert ada.get("/a", replica=0).status == 200
    cookie = dict(ada.jar)
    if command == "end":
        proxy.next("end", lose_reply=True)
        if ada.post("/oauth2/logout").status != 200:  # it may have happened; asked again, it has
            ada.jar = dict(cookie)
            assert ada.post("/oauth2/logout").status in (200, 401)
        ada.jar = cookie
        until(lambda: ada.get("/b", replica=1).status == 401)
    strict.nobody_was_punished()


@pytest.mark.parametrize(
    "how", ["refused", "silent", "LOADING", "OOM", "NOAUTH", "MASTERDOWN Link with MASTER is down"]
)
def test_d6_a_read_that_fails_is_a_503_and_never_a_sign_in(strict: RedisHouse, how: str) -> None:
    ada = strict.somebody()
    before = dict(ada.jar)
    proxy = strict.proxies[1]
    match how:
        case "refused":
            proxy.refuse()
        case "silent":
            proxy.silence()
        case _:
            proxy.fail({"LOADING": LOADING, "OOM": OOM, "NOAUTH": NOAUTH}.get(how, how))
    page = ada.get("/page", replica=1, navigation=True)
    script = ada.get("/api", replica=1)
    assert (page.status, script.status) == (503, 503)
    assert script.json["reason"] == "store_unavailable"
    for reply in (page, script):
        assert int(reply.get("retry-after")) >= 1
        assert not reply.all("set-cookie")
    assert strict.replicas[1].operations("/readyz").status == 200  # one blip must not take every pod away
    assert "store" in strict.replicas[1].operations("/readyz").text
    assert strict.replicas[1].events("store_unavailable")
    proxy.accept()
    proxy.speak()
    proxy.heal()
    until(lambda: ada.get("/page", replica=1).status == 200)
    assert ada.jar == before


@pytest.mark.parametrize("error", [OOM, READONLY, LOADING], ids=["oom", "readonly", "loading"])
def test_d13_d1_a_redis_that_takes_no_writes_is_one_that_is_away(strict: RedisHouse, error: str) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(after=held), "refresh")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    strict.proxies[0].fail(error)
    held.open()
    won = reply_of(holder)
    assert won.status == 200
    assert ada.get("/b", replica=0).token == won.token
    strict.proxies[0].heal()
    until(lambda: ada.get("/c", replica=1).status == 200)
    assert ada.get("/c", replica=1).token == won.token
    assert len(strict.calls()) == 1
    strict.nobody_was_punished()


def test_d13_a_real_primary_that_became_a_replica_and_is_promoted_late(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(after=held), "refresh")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    strict.redis.do("CONFIG", "SET", "replica-serve-stale-data", "yes")
    strict.redis.do("REPLICAOF", "127.0.0.1", "1")  # nobody is there: it keeps its data, and takes no writes
    try:
        held.open()
        won = reply_of(holder)
        assert won.status == 200
        until(lambda: strict.replicas[0].events("store_unavailable"))
    finally:
        strict.redis.do("REPLICAOF", "NO", "ONE")
    until(lambda: ada.get("/c", replica=1).status == 200)
    assert ada.get("/c", replica=2).token == won.token
    assert len(strict.calls()) == 1
    strict.nobody_was_punished()


def test_t2_a_holder_that_is_cut_off_at_its_commit_while_the_successor_is_refused(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(after=held), "refresh")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    strict.proxies[0].refuse()
    strict.advance(LEASE_S + 1)
    held.open()
    won = reply_of(holder)
    assert won.status == 200  # from memory
    told = ada.get("/b", replica=1)  # refused by the OP, and an open intent says why to wait
    assert (told.status, told.json["reason"]) == (503, "verdict_pending")
    assert strict.op.invalid_grant == 1
    strict.proxies[0].accept()
    until(lambda: ada.get("/c", replica=2).status == 200)
    for n in ALL:
        assert ada.get("/d", replica=n).token == won.token
    assert len(strict.calls()) == 2


def test_d10_one_replica_cut_off_serves_what_it_can_and_renews_nothing(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.browser()
    old = ada.sign_in().token
    grace = strict.somebody("grace")
    for n in ALL:
        assert ada.get("/warm", replica=n).token == old
    strict.proxies[1].silence()
    assert ada.get("/a", replica=1).token == old
    assert grace.get("/a", replica=1).status == 503
    ready = strict.replicas[1].operations("/readyz")
    assert ready.status == 200
    until(lambda: "store" in strict.replicas[1].operations("/readyz").text)
    strict.expire()
    new = ada.get("/b", replica=0).token
    assert new != old
    assert ada.get("/c", replica=1).status == 503
    assert len(strict.calls()) == 1
    strict.proxies[1].speak()
    until(lambda: ada.get("/d", replica=1).status == 200)
    assert ada.get("/d", replica=1).token == new
    assert len(strict.calls()) == 1
    strict.nobody_was_punished()


def test_d11_an_evicted_session_is_one_sign_in(strict: RedisHouse) -> None:
    ada, other = strict.somebody(), strict.somebody("other")
    [key] = [k for k in keys(strict.redis) if ada_owns(strict, k, other)]
    assert ada.get("/api", replica=1).status == 200
    strict.redis.do("DEL", key)
    strict.advance(31)  # caches believe for so long at most
    assert ada.get("/api", replica=1).status == 401
    assert strict.replicas[1].metric("nightporter_events_total", event="session_evicted") == 1
    back = ada.visit("/page?x=1", replica=2)
    assert (back.status, back.url) == (200, strict.url + "/page?x=1")
    assert other.get("/api", replica=1).status == 200


def keys(redis: RedisServer) -> list[str]:
    found = redis.do("KEYS", f"strict:{{{'?' * 64}}}")
    assert isinstance(found, list)
    return [key.decode() for key in found]


def ada_owns(house: RedisHouse, key: str, other: object) -> bool:
    """Whether this is the older one of two sessions."""
    lives = {each: int(str(house.redis.do("PTTL", each))) for each in keys(house.redis)}
    return lives[key] == min(lives.values())


def test_d12_an_emptied_redis_is_one_clean_sign_in_each(strict: RedisHouse) -> None:
    people = [strict.somebody(f"user-{n}") for n in range(3)]
    pending = strict.browser()
    at_the_op = pending.get("/page?x=9", navigation=True).get("location")
    strict.redis.do("FLUSHALL")
    strict.advance(31)
    for n, person in enumerate(people):
        assert person.get("/api", replica=n).status == 401
        person.trail.clear()
        back = person.visit(f"/page?x={n}", replica=n)
        assert (back.status, back.url) == (200, f"{strict.url}/page?x={n}")
        assert len(person.trail) <= 5  # through the OP once, and no loop
    # A sign-in that was under way needs nothing that was lost.
    assert pending.visit(at_the_op).url == strict.url + "/page?x=9"


def test_d5_a_slow_redis_bounds_the_wait_and_clears_no_cookie(
    redis_process: RedisServer, tmp_path: Path
) -> None:
    """Through toxiproxy: each reply 3 s late, more than one operation's limit."""
    with (
        toxiproxy(redis_process.port) as slow,
        House(
            tmp_path,
            store=redis_process.url_at(slow.port),
            life_s=600,
            env={"NIGHTPORTER_STORE_TIMEOUT_S": "1", "NIGHTPORTER_STORE_PREFIX": "slow:"},
        ) as house,
    ):
        ada, other = house.somebody(), house.somebody("other")
        assert ada.get("/warm").status == 200
        slow.latency(3000)
        assert ada.get("/a").status == 200
        house.replica.kill()
        house.replica.begin()
        until(house.replica.ready)
        told = other.get("/b")
        assert (told.status, told.json["reason"]) == (503, "store_unavailable")
        assert not told.all("set-cookie")
        slow.heal()
        until(lambda: other.get("/b").status == 200)
        slow.black_hole()
        done: list[int] = []
        asking = threading.Thread(target=lambda: done.append(house.browser().get("/oauth2/session").status))
        asking.start()
        assert other.get("/c").status == 200
        asking.join(30)
        assert done == [401]
        slow.heal()


def test_d5_a_slow_lease_keeps_nobody_whose_token_lives(strict: RedisHouse) -> None:
    ada = strict.browser()
    old = ada.sign_in().token
    strict.into_window()
    held = Gate()
    strict.proxies[0].next("acquire", hold=held)
    assert [r.token for r in ada.burst(20)] == [old] * 20
    held.wait_reached()
    held.open()
    until(lambda: ada.get("/a").token != old)
    assert len(strict.calls()) == 1
