"""A14, B7, E1 … E3, E10, G7, G8, H2 … H4, J4, T10: sign-outs, clocks, keys and versions over several replicas."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.op.scripted import Gate, Rotation, Script, fingerprint
from tests.redis.servers import RedisServer
from tests.scenarios.house import House, until
from tests.scenarios.redis_house import ALL, RedisHouse, reply_of
from tests.scenarios.test_request_path import ended, head_of, tunnel


def test_a14_a_renewal_elsewhere_that_outlasts_the_budget_is_a_503_and_never_a_sign_in(
    redis_process: RedisServer, tmp_path: Path
) -> None:
    env = {"NIGHTPORTER_REFRESH_WAIT_S": "0.5", "NIGHTPORTER_STORE_PREFIX": "a14:"}
    with RedisHouse(tmp_path, redis_process, replicas=2, env=env) as house:
        ada = house.somebody()
        before = dict(ada.jar)
        house.expire()
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        holder = ada.send("/a", replica=0)
        held.wait_reached()
        fetched, visited = ada.get("/b", replica=1), ada.get("/b", replica=1, navigation=True)
        assert fetched.status == visited.status == 503
        assert fetched.json["reason"] == "refresh_slow"
        assert int(fetched.get("retry-after")) >= 1
        assert visited.get("content-type").startswith("text/html")
        assert reply_of(holder).status == 503
        held.open()
        until(lambda: ada.get("/b", replica=1).status == 200)
        assert ada.jar == before
        assert len(house.calls()) == 1


def test_b7_losers_adopt_the_winners_tokens_although_its_userinfo_fails(
    redis_process: RedisServer, tmp_path: Path
) -> None:
    env = {"NIGHTPORTER_OP_USERINFO": "always", "NIGHTPORTER_STORE_PREFIX": "b7:"}
    with RedisHouse(tmp_path, redis_process, replicas=2, env=env) as house:
        house.op.rotation = Rotation("family_revoke")
        ada = house.somebody()
        for _ in range(2):
            house.expire()
            house.op.always["userinfo"] = Script(status=500, body="oops")
            replies = ada.burst(40, replicas=(0, 1))
            assert {(reply.status, reply.user) for reply in replies} == {(200, "ada-1")}
            assert len({reply.token for reply in replies}) == 1
        assert len(house.calls()) == 2
        house.nobody_was_punished()


# -- clocks --


def test_e1_a_replica_whose_clock_is_ahead_takes_no_lease_that_lives(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.replicas[1].step_wall(120)
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(before=held), "refresh")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    other = ada.send("/b", replica=1)
    until(lambda: strict.proxies[1].count("acquire") >= 1)
    assert len(strict.calls()) == 1
    held.open()
    assert reply_of(holder).token == reply_of(other).token
    assert len(strict.calls()) == 1
    strict.nobody_was_punished()


@pytest.mark.parametrize("off_s", [600, -600], ids=["fast", "slow"])
def test_e2_e3_a_replica_whose_clock_is_ten_minutes_off_renews_in_time_and_not_more_often(
    strict: RedisHouse, off_s: float
) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.browser()
    strict.replicas[1].step_wall(off_s)
    old = ada.sign_in(replica=1).token
    for _ in range(5):
        assert ada.get("/a", replica=1).token == old
        strict.advance(20)
    assert strict.calls() == []
    strict.expire()
    for turn in (1, 2):
        new = ada.get("/b", replica=1)
        assert new.status == 200
        assert strict.op.expires_at(new.token) > strict.op.now()
        assert len(strict.calls()) == turn
        strict.expire()
    strict.nobody_was_punished()


def test_e10_sessions_of_one_moment_are_not_due_at_one_moment(strict: RedisHouse) -> None:
    people = [strict.somebody(f"user-{n}") for n in range(24)]
    window = 60.0
    strict.advance(300.0 - window)
    seen: list[int] = []
    for _ in range(6):
        for n, person in enumerate(people):
            assert person.get("/a", replica=n % 3).status == 200
        seen.append(len({call.rt for call in strict.calls()}))
        strict.advance(window * 0.3 / 5)
    until(lambda: len({call.rt for call in strict.calls()}) == len(people))
    assert len(strict.calls()) == len(people)  # each once
    assert seen[0] < len(people) / 2
    assert len(set(seen)) >= 3, seen  # spread over the window
    strict.nobody_was_punished()


# -- sign-outs --


@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
def test_h3_a_sign_out_on_one_replica_during_a_renewal_on_another_stays_one(
    strict: RedisHouse, processed: bool
) -> None:
    ada = strict.somebody()
    cookie = dict(ada.jar)
    strict.expire()
    held, given_back = Gate(), Gate()
    strict.op.script_next(Script(after=held) if processed else Script(before=held), "refresh")
    strict.op.script_next(Script(before=given_back), "revoke")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    assert ada.post("/oauth2/logout", replica=1).status == 200
    given_back.wait_reached()  # the sign-out gives back the old token; else it might end the grant first
    held.open()
    assert reply_of(holder).status == 401
    [call] = strict.calls()
    assert call.issued_rt
    until(lambda: call.issued_rt in {fingerprint(token) for token in strict.op.revoked})
    given_back.open()
    until(lambda: call.rt in {fingerprint(token) for token in strict.op.revoked})
    strict.refused_everywhere(cookie)
    assert len(strict.calls()) == 1


def test_h1_h2_everybody_is_signed_out_while_a_renewal_is_under_way(strict: RedisHouse) -> None:
    ada = strict.somebody()
    cookie = dict(ada.jar)
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(after=held), "refresh")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    env = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTPORTER_")}
    settings = {**strict.replicas[1].env, "NIGHTPORTER_LISTEN": "127.0.0.1:0"}
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "sessions", "end-all"],
        env={**env, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    held.open()
    assert reply_of(holder).status == 401
    [call] = strict.calls()
    until(lambda: call.issued_rt in {fingerprint(token) for token in strict.op.revoked})
    strict.refused_everywhere(cookie)
    assert len(strict.calls()) == 1


@pytest.mark.parametrize(
    "cut", ["", "refused", "silent"], ids=["whole", "subscription cut", "subscription silent"]
)
def test_h4_signed_out_on_one_replica_is_refused_on_all_also_while_they_cannot_hear_it(
    strict: RedisHouse, cut: str
) -> None:
    ada = strict.somebody()
    for n in ALL:
        assert ada.get("/warm", replica=n).status == 200
    cookie = dict(ada.jar)
    gate = Gate()
    if cut == "refused":  # it may subscribe no more, and what it had breaks
        for _ in range(200):
            strict.proxies[1].next("SUBSCRIBE", cut=True)
        strict.proxies[1].cut()
    elif cut == "silent":  # its own heartbeat does not come back
        strict.proxies[1].next("PUBLISH", hold=gate)
        gate.wait_reached()
    assert ada.post("/oauth2/logout", replica=0).status == 200
    strict.refused_everywhere(cookie)
    gate.open()


def test_j4_a_tunnel_on_one_replica_ends_with_a_sign_out_on_another(strict: RedisHouse) -> None:
    ada = strict.somebody()
    sock = tunnel(strict, ada)
    stream = ada.send("/events", replica=1)
    assert head_of(stream).startswith(b"HTTP/1.1 200")
    sock.sendall(b"still")
    assert sock.recv(5) == b"still"
    assert ada.post("/oauth2/logout", replica=2).status == 200
    assert ended(sock)
    assert ended(stream)


def test_t10_a_sign_in_that_supersedes_revokes_nothing_that_the_new_one_may_share(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(after=held), "refresh")
    old_tab = ada.send("/a", replica=0)
    held.wait_reached()
    again = ada.get("/oauth2/login?rd=/new&account=other", navigation=True, replica=1)
    assert ada.visit(again.get("location"), replica=1).url == strict.url + "/new"
    held.open()
    assert reply_of(old_tab).status == 401
    assert strict.op.revoked == []
    strict.expire()
    for n in ALL:
        assert ada.get("/b", replica=n).user == "ada-1"


# -- keys and versions --


def test_g7_a_new_key_seals_only_when_every_replica_opens_it(
    redis_process: RedisServer, tmp_path: Path
) -> None:
    def key() -> str:
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")

    old, new = key(), key()
    files = [tmp_path / f"keys-{n}" for n in range(2)]
    for file in files:
        file.write_text(old)
    (tmp_path / "house").mkdir()
    house = House(
        tmp_path / "house",
        replicas=2,
        store=redis_process.url,
        life_s=600,
        env={"NIGHTPORTER_COOKIE_KEYS": "", "NIGHTPORTER_STORE_PREFIX": "g7:"},
        start=False,
    )
    with house:
        for replica, file in zip(house.replicas, files, strict=True):
            replica.env["NIGHTPORTER_COOKIE_KEYS_FILE"] = str(file)
            replica.start()
        ada = house.somebody()
        first = ada.jar["np"]
        _write(files[0], f"{new}\n{old}")
        until(lambda: house.replicas[0].events("configuration_reloaded"))
        assert ada.get("/page", navigation=True, replica=0).status == 200
        assert ada.get("/page", replica=1).status == 200  # who does not know the new key is not shut out
        _write(files[1], f"{new}\n{old}")

        def resealed() -> bool:
            for n in (0, 1):
                assert ada.get("/page", navigation=True, replica=n).status == 200
            return ada.jar["np"] != first

        until(resealed, 90)
        for n in (0, 1):
            assert ada.get("/page", replica=n).user == "ada-1"
        stranger = house.browser()
        stranger.jar["np"] = first  # the old key still opens
        assert stranger.get("/page", replica=1).status == 200


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)


RECORD = """
local value = redis.call('GET', KEYS[1])
local length, tokens = struct.unpack('>HI4', value)
local m = cmsgpack.unpack(string.sub(value, 7, 6 + length))
"""
NEWER = (
    RECORD
    + """
m.future = {1, 'from a newer version'}
local packed = cmsgpack.pack(m)
local blobs = string.sub(value, 7 + length)
redis.call('SET', KEYS[1], struct.pack('>HI4', #packed, tokens) .. packed .. blobs, 'KEEPTTL')
return 'OK'
"""
)
READ = RECORD + "return cjson.encode(m.future)"


def test_g8_what_a_newer_version_wrote_is_neither_deleted_nor_lost_by_a_renewal(strict: RedisHouse) -> None:
    ada = strict.somebody()
    keys = strict.redis.do("KEYS", f"strict:{{{'?' * 64}}}")
    assert isinstance(keys, list)
    [key] = keys
    strict.redis.do("EVAL", NEWER, 1, key)
    for n in ALL:
        strict.expire()
        assert ada.get("/a", replica=n).status == 200
    assert strict.redis.do("EVAL", READ, 1, key) == b'[1,"from a newer version"]'
    assert len(strict.calls()) == 3


# -- lost and late replies, as on SQLite --


def test_c6_c9_c10_lost_refused_and_late_replies_with_other_replicas_watching(lenient: RedisHouse) -> None:
    lenient.op.rotation = Rotation("rotate", 60.0)
    ada = lenient.somebody()
    lenient.expire()
    lenient.op.script_next(Script(cut="unanswered"), "refresh")  # C6
    assert {reply.status for reply in ada.burst(30, replicas=ALL)} == {200}
    first, second = lenient.calls()
    assert first.rt == second.rt
    assert {first.at_once, second.at_once} == {1}
    lenient.expire()
    lenient.op.refuse()  # C9
    lenient.op.hang_up()
    told = ada.burst(30, replicas=ALL)
    assert {reply.status for reply in told} == {503}
    assert len(lenient.calls()) == 2
    lenient.op.accept()
    lenient.advance(61)
    assert {reply.status for reply in ada.burst(30, replicas=ALL)} == {200}
    assert len(lenient.calls()) == 3
    assert lenient.calls()[2].rt == second.issued_rt
    lenient.nobody_was_punished()


@pytest.mark.parametrize("kind", ["rotate", "family_revoke"])
def test_c7_c8_a_lost_rotation_shows_on_no_replica_while_the_old_token_lives(
    strict: RedisHouse, kind: str
) -> None:
    strict.op.rotation = Rotation(kind)
    ada = strict.browser()
    old = ada.sign_in().token
    strict.into_window()
    strict.op.script_next(Script(cut="unanswered"), "refresh")
    assert ada.get("/a", replica=0).token == old
    strict.answered(1)
    for n in ALL:
        assert ada.get("/b", replica=n).token == old
    assert len(strict.calls()) == 1
    strict.expire()
    told = [ada.get("/c", replica=n) for n in ALL]
    assert {(reply.status, reply.json["reason"]) for reply in told} == {(401, "rotation_lost")}
    assert len(strict.calls()) == 2
