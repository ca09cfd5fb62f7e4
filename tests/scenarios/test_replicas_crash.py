"""C, F4, T4, T6: replicas die, reply late and are told to go, while others stand by on the same Redis.

K1 … K6 are the points of a renewal at which a process can die (before the lease; lease held, nothing sent; sent;
answered, nothing written; written, not released; released, nobody answered). The proxy before Redis and the
OP's script say where it stands.
"""

from __future__ import annotations

import random
import threading

import pytest

from proxy.app import MAX_CALLS
from tests.op.scripted import Gate, Rotation, Script
from tests.scenarios.browser import together
from tests.scenarios.house import until
from tests.scenarios.redis_house import ALL, LEASE_S, RedisHouse, reply_of

OTHERS = (1, 2)


def test_c1_a_crash_with_the_lease_taken_and_nothing_sent_costs_nobody_anything(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.somebody()
    strict.expire()
    rule = strict.proxies[0].next("acquire", hold_reply=Gate())
    ada.send("/a", replica=0)
    rule.wait()
    strict.replicas[0].kill()
    strict.advance(LEASE_S + 1)
    assert ada.get("/b", replica=1).status == 200
    assert len(strict.calls()) == 1
    strict.nobody_was_punished()


@pytest.mark.parametrize("kind", ["rotate", "family_revoke"])
def test_c2_a_crash_after_sending_what_the_op_never_saw_costs_nobody_anything(
    strict: RedisHouse, kind: str
) -> None:
    strict.op.rotation = Rotation(kind)
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(before=held, cut="at_once"), "refresh")
    ada.send("/a", replica=0)
    held.wait_reached()
    strict.replicas[0].kill()
    held.open()
    strict.advance(LEASE_S + 1)
    assert ada.get("/b", replica=1).status == 200
    strict.nobody_was_punished()


@pytest.mark.parametrize("kind", ["rotate", "idempotent", "deferred"])
def test_c3_a_crash_after_the_rotation_is_survived_within_the_grace(lenient: RedisHouse, kind: str) -> None:
    lenient.op.rotation = Rotation(kind, 60.0)
    ada = lenient.somebody()
    lenient.expire()
    held = Gate()
    lenient.op.script_next(Script(after=held), "refresh")
    ada.send("/a", replica=0)
    held.wait_reached()
    lenient.replicas[0].kill()
    held.open()
    lenient.advance(LEASE_S + 1)
    assert ada.get("/b", replica=1).status == 200
    lenient.expire()
    assert ada.get("/c", replica=2).status == 200
    lenient.nobody_was_punished()


@pytest.mark.parametrize("kind", ["rotate", "family_revoke"])
def test_c4_c5_a_crash_after_a_rotation_without_grace_is_one_clean_sign_in(
    strict: RedisHouse, kind: str
) -> None:
    strict.op.rotation = Rotation(kind)
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(after=held), "refresh")
    ada.send("/a", replica=0)
    held.wait_reached()
    strict.replicas[0].kill()
    held.open()
    strict.advance(LEASE_S + 1)
    # Nobody knows that the dead process took the new token along, until its attempt is too old to come back.
    told = ada.get("/b", replica=1)
    assert (told.status, told.json["reason"]) in ((503, "verdict_pending"), (401, "rotation_lost"))
    assert not told.all("set-cookie")
    strict.advance(121)
    told = ada.get("/c", replica=2)
    assert (told.status, told.json["reason"]) == (401, "rotation_lost")
    assert len(strict.calls()) == 2  # one second presentation, no third
    assert strict.op.reuse_events == 1
    assert ada.get("/d", replica=1).status == 401
    back = ada.visit("/page?x=2", replica=2)
    assert (back.status, back.url) == (200, strict.url + "/page?x=2")
    for n in OTHERS:
        assert ada.get("/e", replica=n).status == 200


def test_c8_a_crash_shows_to_nobody_while_the_old_token_lives(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.browser()
    old = ada.sign_in().token
    strict.into_window()
    held = Gate()
    strict.op.script_next(Script(after=held), "refresh")
    assert ada.get("/a", replica=0).token == old
    held.wait_reached()
    strict.replicas[0].kill()
    held.open()
    strict.advance(1)
    for n in OTHERS:
        assert ada.get("/b", replica=n).token == old
    assert len(strict.calls()) == 1  # as late as the live token allows


def test_t6_a_stray_request_after_the_successors_is_one_clean_sign_in(strict: RedisHouse) -> None:
    """What cannot be had: the OP takes no fencing token. It costs this session, once, and no loop."""
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.somebody()
    strict.expire()
    stray = Gate()
    strict.op.script_next(Script(before=stray), "refresh")
    ada.send("/a", replica=0)
    stray.wait_reached()
    strict.replicas[0].kill()
    strict.advance(LEASE_S + 1)
    assert ada.get("/b", replica=1).status == 200
    stray.open()
    strict.answered(1)
    assert strict.op.reuse_events == 1  # the family is dead now, and nobody here can know
    strict.expire()
    assert ada.get("/c", replica=1).status == 401
    assert ada.get("/d", replica=2).status == 401
    assert len(strict.calls()) == 3
    assert ada.visit("/page?x=3", replica=1).status == 200


def test_c17_a_crash_after_the_write_leaves_nothing_behind(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.somebody()
    strict.expire()
    rule = strict.proxies[0].next("commit", hold_reply=Gate())
    ada.send("/a", replica=0)
    rule.wait()
    strict.replicas[0].kill()
    for n in OTHERS:  # at once: no lease to wait for
        assert ada.get("/b", replica=n).status == 200
    assert len(strict.calls()) == 1
    strict.nobody_was_punished()


def test_c18_a_crash_before_the_answer_is_repeated_by_the_client(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.somebody()
    strict.expire()
    held = threading.Event()
    strict.app.answers["/slow"] = lambda seen: held.set()
    strict.proxies[0].next("identify", hold_reply=Gate())
    before = len(strict.calls())
    sock = ada.send("/slow", replica=0)
    until(lambda: strict.proxies[0].count("commit") == 1)
    strict.replicas[0].kill()
    sock.close()
    assert ada.get("/slow", replica=1).status == 200
    assert len(strict.calls()) == before + 1
    strict.nobody_was_punished()


def test_c21_when_all_replicas_restart_in_a_crowd_of_renewals_no_stampede_meets_the_op(
    lenient: RedisHouse,
) -> None:
    lenient.op.rotation = Rotation("rotate", 600.0)
    people = [lenient.somebody(f"user-{n}") for n in range(108)]  # more than all replicas may renew at once
    lenient.expire()
    held = Gate()
    lenient.op.always["refresh"] = Script(before=held, cut="at_once")
    for n, person in enumerate(people):
        person.send("/a", replica=n % 3)
    until(lambda: len(lenient.calls()) == 3 * MAX_CALLS)
    for replica in lenient.replicas:
        replica.kill()
    held.open()
    del lenient.op.always["refresh"]
    for replica in lenient.replicas:
        replica.start()
    lenient.advance(LEASE_S + 1)
    before = len(lenient.calls())
    crowd = Gate()
    lenient.op.always["refresh"] = Script(before=crowd)
    served: list[int] = []

    def come_back(n: int) -> None:
        served.append(people[n].get("/b", replica=n % 3).status)

    coming = threading.Thread(target=together, args=(come_back, len(people)))
    coming.start()
    until(lambda: len(lenient.calls()) - before == 3 * MAX_CALLS)
    crowd.open()
    coming.join(60)
    assert served == [200] * len(people)
    taken_over = lenient.calls()[before:]
    assert max(call.at_once for call in taken_over) == 3 * MAX_CALLS
    assert len({call.rt for call in taken_over}) == len(taken_over) == len(people)  # one call each
    lenient.nobody_was_punished()


@pytest.mark.parametrize("processed", [False, True], ids=["k3", "k4"])
def test_c19_sigterm_lets_a_renewal_land_and_takes_no_new_requests(
    strict: RedisHouse, processed: bool
) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(after=held) if processed else Script(before=held), "refresh")
    sock = ada.send("/a", replica=0)
    held.wait_reached()
    statuses: list[int] = []
    stopping = threading.Thread(target=lambda: statuses.append(strict.replicas[0].stop()))
    stopping.start()
    until(lambda: not strict.replicas[0].running or strict.replicas[0].operations("/readyz").status == 503)
    held.open()
    assert reply_of(sock).status == 200  # it was under way
    stopping.join(60)
    assert statuses == [0]
    assert ada.get("/b", replica=1).status == 200
    assert len(strict.calls()) == 1
    strict.nobody_was_punished()


def test_t4_a_write_that_was_delayed_never_puts_an_older_token_back(lenient: RedisHouse) -> None:
    lenient.op.rotation = Rotation("rotate", 60.0)
    ada = lenient.somebody()
    lenient.expire()
    on_its_way = Gate()
    lenient.proxies[0].next("commit", hold=on_its_way)
    holder = ada.send("/a", replica=0)
    on_its_way.wait_reached()
    lenient.overtake(0)
    assert ada.get("/b", replica=1).status == 200
    lenient.expire()
    newest = ada.get("/c", replica=2)
    assert newest.status == 200
    on_its_way.open()
    lenient.replicas[0].resume()
    assert reply_of(holder).status in (200, 503)  # its write may have been given up while it stood still
    until(lambda: ada.get("/a", replica=0).status == 200)
    assert ada.get("/a", replica=0).token == newest.token
    last = lenient.calls()[-1]
    lenient.expire()
    assert ada.get("/d", replica=1).status == 200
    assert lenient.calls()[-1].rt == last.issued_rt
    lenient.nobody_was_punished()


def test_f4_strict_rotation_for_long_with_replicas_dying_between_and_after_renewals(
    strict: RedisHouse,
) -> None:
    """Kills where no rotation is lost (K1, K5, K6) at an OP that forgives nothing: nobody is signed out."""
    strict.op.rotation = Rotation("family_revoke")
    strict.op.old_at_dies = True
    drawn = random.Random(20)
    people = [strict.somebody(f"user-{n}") for n in range(8)]
    for turn in range(6):
        strict.expire()
        victim = turn % 3
        point = ("acquire", "commit", "between")[turn // 2]
        if point == "between":
            strict.replicas[victim].kill()
        else:
            person = drawn.choice(people)
            reached = strict.proxies[victim].next(
                point, **({"hold": Gate()} if point == "acquire" else {"hold_reply": Gate()})
            )
            person.send("/k", replica=victim)
            until(lambda reached=reached: reached.happened)
            strict.replicas[victim].kill()
            strict.proxies[victim].cut()
        alive = [n for n in ALL if n != victim]
        for person in people:
            reply = person.get("/a", replica=drawn.choice(alive))
            assert reply.status == 200, (turn, point)
        strict.replicas[victim].start()
    assert len(strict.calls()) == 6 * len(people)
    strict.nobody_was_punished()
