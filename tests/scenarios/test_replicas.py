"""A, B7, C14, F5: one renewal per session over three replicas on one Redis, whoever asks and whoever is late."""

from __future__ import annotations

import itertools

import pytest

from tests.op.scripted import Gate, Rotation, Script
from tests.scenarios.house import burst, until
from tests.scenarios.redis_house import ALL, RedisHouse, reply_of


def test_a1_a2_two_hundred_requests_over_three_replicas_cost_one_token_call(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.browser()
    old = ada.sign_in().token
    strict.expire()
    replies = ada.burst(200, replicas=ALL)
    assert [reply.status for reply in replies] == [200] * 200
    tokens = {reply.token for reply in replies}
    assert len(tokens) == 1
    assert old not in tokens
    [call] = strict.calls()
    strict.expire()
    assert ada.get("/a", replica=2).status == 200
    assert strict.calls()[1].rt == call.issued_rt
    strict.nobody_was_punished()


def test_a3_f5_ten_agents_on_one_session_over_many_expiries_never_break_the_chain(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    strict.op.old_at_dies = True
    ada = strict.somebody()
    for _ in range(12):
        strict.expire()
        replies = ada.burst(10, replicas=ALL)
        assert [reply.status for reply in replies] == [200] * 10
    calls = strict.calls()
    assert len(calls) == 12
    assert {call.at_once for call in calls} == {1}
    for before, after in itertools.pairwise(calls):
        assert after.rt == before.issued_rt
    strict.nobody_was_punished()


def test_a4_in_the_window_nobody_waits_on_any_replica(strict: RedisHouse) -> None:
    ada = strict.browser()
    old = ada.sign_in().token
    strict.into_window()
    held = Gate()
    strict.op.script_next(Script(after=held), "refresh")
    replies = ada.burst(51, replicas=ALL)
    assert [(reply.status, reply.token) for reply in replies] == [(200, old)] * 51
    held.wait_reached()
    held.open()
    for n in ALL:
        until(lambda n=n: ada.get("/a", replica=n).token != old)
    assert len(strict.calls()) == 1


def test_a5_who_asks_for_the_lease_with_an_old_record_is_given_the_new_one(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    late = Gate()
    strict.proxies[1].next("acquire", hold=late)
    waiting = ada.send("/b", replica=1)
    late.wait_reached()  # it has read the old record
    token = ada.get("/a", replica=0).token
    late.open()
    assert reply_of(waiting).token == token
    assert len(strict.calls()) == 1


def test_a6_a_copy_in_memory_never_sends_a_consumed_token(strict: RedisHouse) -> None:
    strict.op.rotation = Rotation("family_revoke")
    ada = strict.somebody()
    assert ada.get("/warm", replica=1).status == 200
    for _ in range(3):
        strict.expire()
        token = ada.get("/a", replica=0).token
        assert ada.get("/b", replica=1).token == token
    assert len(strict.calls()) == 3
    strict.nobody_was_punished()


def test_a7_a9_c14_t5_two_sends_in_spite_of_everything_and_the_loser_adopts(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    first, second = Gate(), Gate()
    strict.op.script_next(Script(before=first), "refresh")
    strict.op.script_next(Script(before=second), "refresh")
    holder = ada.send("/a", replica=0)
    first.wait_reached()
    strict.overtake(0)
    successor = ada.send("/b", replica=1)
    second.wait_reached()
    first.open()
    strict.answered(1)
    strict.replicas[0].resume()
    won = reply_of(holder)
    assert won.status == 200
    # Its commit did not drop the successor's lease, and what it wrote is everybody's: no third call.
    assert ada.get("/c", replica=2).token == won.token
    assert len(strict.calls()) == 2
    second.open()
    adopted = reply_of(successor)
    assert (adopted.status, adopted.token) == (200, won.token)
    assert strict.op.invalid_grant == 1
    for n in ALL:  # no failure of that race is remembered
        assert ada.get("/d", replica=n).token == won.token
    strict.expire()
    assert ada.get("/e", replica=1).status == 200
    assert len(strict.calls()) == 3
    assert strict.op.revoked == []


def test_a8_c11_t2_a_verdict_waits_for_a_holder_that_sleeps_on_the_new_token(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(after=held), "refresh")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    strict.overtake(0)
    held.open()  # the reply lies in its socket
    successor = ada.send("/b", replica=1)
    until(lambda: strict.proxies[1].count("condemn") >= 1)
    assert strict.op.invalid_grant == 1
    strict.replicas[0].resume()
    won, adopted = reply_of(holder), reply_of(successor)
    assert (won.status, adopted.status) == (200, 200)
    assert won.token == adopted.token
    assert len(strict.calls()) == 2
    strict.expire()
    assert ada.get("/c", replica=2).status == 200


def test_t3_a_commit_between_the_last_look_and_the_ending_wins(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    held, ending = Gate(), Gate()
    strict.op.script_next(Script(after=held), "refresh")
    strict.proxies[1].next("condemn", hold=ending)
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    strict.overtake(0)
    held.open()
    successor = ada.send("/b", replica=1)
    ending.wait_reached()
    strict.replicas[0].resume()
    won = reply_of(holder)
    assert won.status == 200
    ending.open()
    adopted = reply_of(successor)
    assert (adopted.status, adopted.token) == (200, won.token)


def test_t12_two_holders_that_are_both_refused_do_not_wait_for_each_other(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    first, second = Gate(), Gate()
    refused = {"status": 400, "body": '{"error": "invalid_grant"}', "process": False}
    strict.op.script_next(Script(before=first, **refused), "refresh")
    strict.op.script_next(Script(before=second, **refused), "refresh")
    one = ada.send("/a", replica=0)
    first.wait_reached()
    strict.overtake(0)
    other = ada.send("/b", replica=1)
    second.wait_reached()
    strict.replicas[0].resume()
    first.open()
    second.open()
    assert [reply_of(one).status, reply_of(other).status] == [401, 401]
    assert ada.get("/c", replica=2).status == 401
    assert len(strict.calls()) == 2


def test_a10_two_browsers_of_one_person_renew_independently_on_two_replicas(strict: RedisHouse) -> None:
    one, other = strict.somebody(), strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(before=held), "refresh")
    waiting = one.send("/a", replica=0)
    held.wait_reached()
    assert other.get("/b", replica=0).status == 200
    assert other.get("/b", replica=1).status == 200
    held.open()
    assert reply_of(waiting).status == 200
    assert len(strict.calls()) == 2


def test_a11_people_whose_access_tokens_are_equal_stay_themselves(strict: RedisHouse) -> None:
    strict.op.id_token_on_refresh = False  # its at_hash would not fit
    twins = [strict.somebody(f"twin-{n}") for n in range(2)]
    for _ in range(2):
        strict.expire()
        strict.op.always["refresh"] = Script(change=lambda body: body.update(access_token="the-same-token"))
        replies = burst(twins, 24, replicas=ALL)
        for n, reply in enumerate(replies):
            assert (reply.status, reply.user) == (200, f"twin-{n % 2}")
    assert len({call.rt for call in strict.calls()}) == len(strict.calls()) == 4
    strict.nobody_was_punished()


def test_a12_waiters_elsewhere_take_over_a_verdict_without_asking(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(
        Script(before=held, process=False, status=400, body='{"error": "invalid_grant"}'), "refresh"
    )
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    waiters = [ada.send("/b", replica=n) for n in (1, 2)]
    until(lambda: all(strict.proxies[n].count("acquire") >= 1 for n in (1, 2)))
    held.open()
    assert {reply_of(sock).status for sock in (holder, *waiters)} == {401}
    assert len(strict.calls()) == 1


def test_a13_waiters_of_a_renewal_that_failed_for_now_do_not_each_try(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    strict.op.always["refresh"] = Script(
        process=False, status=503, body='{"error": "temporarily_unavailable"}', headers={"Retry-After": "30"}
    )
    replies = ada.burst(60, replicas=ALL)
    assert {reply.status for reply in replies} == {503}
    assert len(strict.calls()) == 1
    assert {reply.status for reply in ada.burst(60, replicas=ALL)} == {503}
    assert len(strict.calls()) == 1  # the back-off is everybody's
    strict.op.always.clear()
    strict.advance(31)
    assert {reply.status for reply in ada.burst(60, replicas=ALL)} == {200}
    assert len(strict.calls()) == 2


@pytest.mark.parametrize("kind", ["rotate", "idempotent", "deferred"])
def test_c13_a15_a16_t9_two_calls_that_both_succeeded_leave_one_pair_and_revoke_none(
    lenient: RedisHouse, kind: str
) -> None:
    lenient.op.rotation = Rotation(kind, 60.0)
    ada = lenient.somebody()
    lenient.expire()
    held = Gate()
    lenient.op.script_next(Script(after=held), "refresh")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    lenient.overtake(0)
    held.open()
    won = ada.get("/b", replica=1)
    assert won.status == 200
    lenient.replicas[0].resume()
    late = reply_of(holder)
    assert (late.status, late.token) == (200, won.token)
    assert lenient.op.revoked == []
    second = lenient.calls()[1]
    lenient.expire()
    assert ada.get("/c", replica=2).status == 200
    assert lenient.calls()[2].rt == second.issued_rt
    lenient.nobody_was_punished()


def test_c12_a_holder_that_wakes_with_a_refusal_adopts_what_its_successor_wrote(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(before=held), "refresh")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    strict.overtake(0)
    won = ada.get("/b", replica=1)
    assert won.status == 200
    held.open()
    strict.answered(1)
    assert strict.op.invalid_grant == 1
    strict.replicas[0].resume()
    late = reply_of(holder)
    assert (late.status, late.token) == (200, won.token)
    strict.expire()
    assert ada.get("/c", replica=0).status == 200
    assert strict.calls()[2].rt == strict.calls()[1].issued_rt


def test_c14_giving_up_late_does_not_drop_the_successors_lease(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    first, second = Gate(), Gate()
    strict.op.script_next(
        Script(before=first, process=False, status=503, body='{"error": "temporarily_unavailable"}'),
        "refresh",
    )
    strict.op.script_next(Script(before=second), "refresh")
    holder = ada.send("/a", replica=0)
    first.wait_reached()
    strict.overtake(0)
    successor = ada.send("/b", replica=1)
    second.wait_reached()
    first.open()
    strict.replicas[0].resume()
    assert reply_of(holder).status == 503
    third = ada.send("/c", replica=2)
    until(lambda: strict.proxies[2].count("acquire") >= 1)
    second.open()
    assert {reply_of(successor).status, reply_of(third).status} == {200}
    assert len(strict.calls()) == 2
    strict.nobody_was_punished()


def test_t1_a_slow_op_does_not_outlive_the_lease_because_it_is_renewed(strict: RedisHouse) -> None:
    ada = strict.somebody()
    strict.expire()
    held = Gate()
    strict.op.script_next(Script(before=held), "refresh")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    strict.advance(10)
    until(lambda: strict.proxies[0].count("renew") >= 1)
    strict.advance(12)  # more than a lease since it was taken
    waiter = ada.send("/b", replica=1)
    until(lambda: strict.proxies[1].count("acquire") >= 1)
    assert len(strict.calls()) == 1
    held.open()
    one, other = reply_of(holder), reply_of(waiter)
    assert (one.status, other.status) == (200, 200)
    assert one.token == other.token
    assert len(strict.calls()) == 1
    strict.nobody_was_punished()
