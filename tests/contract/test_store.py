"""The store's contract, rule by rule, for every store (`conftest.FACTORIES`)."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from proxy.core.answers import (
    Changed,
    Committed,
    Condemned,
    FailedLately,
    Gone,
    Granted,
    Held,
    Tally,
    Unresolved,
)
from proxy.core.session import INTENT_KEEP_S, LEASE_S, Intent, OutcomeKind, ended, store_key
from proxy.shell.store.contract import Store
from proxy.shell.store.embedded import EmbeddedStore
from tests.contract.conftest import Scene
from tests.contract.sessions import (
    DAY_S,
    KEY,
    ask,
    dead,
    grant,
    lease_holder,
    new_record,
    outcome,
    reply,
    stored,
    transient,
)
from tests.fakes import START

# Sessions come and go.


def test_a_created_session_reads_back_whole(scene: Scene) -> None:
    record = new_record(
        tokens=bytes(range(256)),
        intents=(Intent("x", "p", "rt0", START),),
        outcome=transient(START - 1),
        idle_s=1234.5678901,
    )

    async def script(store: Store) -> None:
        await store.create(KEY, record)
        snapshot = await store.read(KEY)
        assert snapshot.record == record
        assert snapshot.now == scene.clock.now

    scene.play(script)


def test_an_unknown_key_reads_as_nothing(scene: Scene) -> None:
    async def script(store: Store) -> None:
        assert (await store.read(KEY)).record is None

    scene.play(script)


def test_on_an_unknown_key_every_operation_finds_nothing_and_leaves_nothing(scene: Scene) -> None:
    async def script(store: Store) -> None:
        now = scene.clock.now
        assert await store.acquire(KEY, ask("a")) == Gone("absent", now)
        assert await store.commit(KEY, reply("a")) == Gone("absent", now)
        assert await store.condemn(KEY, "a", "login", dead()) == Gone("absent", now)
        assert await store.renew(KEY, "a", LEASE_S) is False
        assert await store.identify(KEY, "login", b"who", "w1") is False
        assert await store.end(KEY, "signed_out", 60) is None
        await store.abandon(KEY, "a", transient(now + 9))
        await store.touch(KEY, now)
        assert (await store.read(KEY)).record is None

    scene.play(script)


def test_sessions_do_not_see_each_other(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await store.create("other", new_record(tokens=b"others"))
        await grant(store, "a")
        await store.end(KEY, "signed_out", 60)
        assert await stored(store, "other") == new_record(tokens=b"others")
        assert isinstance(await store.acquire("other", ask("b")), Granted)

    scene.play(script)


@pytest.mark.parametrize(("end", "idle_s"), [(START + 100, 9999.0), (START + 9999, 100.0)])
def test_a_session_is_forgotten_at_its_idle_or_absolute_limit(
    scene: Scene, end: float, idle_s: float
) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(end=end, idle_s=idle_s))
        scene.clock.advance(99.9)
        assert (await store.read(KEY)).record is not None
        scene.clock.advance(0.1)
        assert (await store.read(KEY)).record is None
        assert await store.acquire(KEY, ask("a")) == Gone("absent", scene.clock.now)
        assert await store.commit(KEY, reply("a")) == Gone("absent", scene.clock.now)
        await store.touch(KEY, scene.clock.now)
        assert (await store.read(KEY)).record is None, "activity after the limit revives nothing"

    scene.play(script)


def test_activity_moves_the_idle_limit_but_never_the_absolute_one(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(end=START + 250, idle_s=100.0))
        scene.clock.advance(90)
        await store.touch(KEY, scene.clock.now)
        scene.clock.advance(90)
        await store.touch(KEY, scene.clock.now)
        scene.clock.advance(69)
        assert (await store.read(KEY)).record is not None
        scene.clock.advance(1)
        assert (await store.read(KEY)).record is None

    scene.play(script)


def test_touch_only_moves_forward_and_never_changes_gen(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await store.touch(KEY, START + 60)
        await store.touch(KEY, START + 30)
        assert await stored(store) == new_record(seen=START + 60)

    scene.play(script)


def test_touch_keeps_the_lease(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.touch(KEY, START + 60)
        assert await store.renew(KEY, "a", LEASE_S) is True

    scene.play(script)


def test_creating_the_same_session_again_is_the_same_write_and_another_one_is_refused(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await store.touch(KEY, START + 1)
        await store.create(KEY, new_record())
        with pytest.raises(ValueError, match="exists already"):
            await store.create(KEY, new_record(gen="another"))
        assert await stored(store) == new_record(seen=START + 1)

    scene.play(script)


# Acquire, in the order of its checks.


def test_acquire_grants_a_free_session_and_notes_the_intent(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        scene.clock.advance(5)
        answer = await store.acquire(KEY, ask("a"))
        expected = new_record(intents=(Intent("a", "process of a", "rt0", START + 5),))
        assert answer == Granted(expected, START + 5)
        assert await stored(store) == expected

    scene.play(script)


def test_acquire_after_the_end_says_why_even_to_one_who_read_an_old_token(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(rt="rt9", dead="rt9"))
        await store.end(KEY, "signed_out", 60)
        assert await store.acquire(KEY, ask("a")) == Gone("signed_out", scene.clock.now)

    scene.play(script)


@pytest.mark.parametrize(("gen", "rt"), [("older", "rt0"), ("login", "older"), ("older", "older")])
def test_acquire_with_another_gen_or_token_is_changed_before_held(scene: Scene, gen: str, rt: str) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        held = await grant(store, "a")
        assert await store.acquire(KEY, ask("b", gen, rt)) == Changed(held.record, scene.clock.now)
        assert await store.acquire(KEY, ask("a", gen, rt)) == Changed(held.record, scene.clock.now)
        assert await stored(store) == held.record

    scene.play(script)


def test_acquire_changed_comes_before_dead(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(dead="rt0", outcome=dead()))
        assert isinstance(await store.acquire(KEY, ask("a", gen="older")), Changed)

    scene.play(script)


def test_the_same_attempt_is_granted_again_with_one_intent_and_a_whole_lease(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(LEASE_S - 1)
        again = await grant(store, "a")
        assert [intent.attempt for intent in again.record.intents] == ["a"]
        scene.clock.advance(LEASE_S - 1)
        assert await store.acquire(KEY, ask("b")) == Held(1.0, scene.clock.now)

    scene.play(script)


def test_the_same_attempt_is_granted_again_although_an_outcome_holds(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.abandon(KEY, "a", transient(START + 60), release=False)
        assert isinstance(await store.acquire(KEY, ask("a")), Granted)

    scene.play(script)


def test_anothers_live_lease_is_held_for_what_is_left_of_it(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        held = await grant(store, "a")
        scene.clock.advance(7)
        assert await store.acquire(KEY, ask("b")) == Held(LEASE_S - 7, START + 7)
        assert await stored(store) == held.record, "asking in vain leaves no intent"

    scene.play(script)


def test_held_comes_before_a_stored_outcome(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.abandon(KEY, "a", transient(START + 60), release=False)
        assert isinstance(await store.acquire(KEY, ask("b")), Held)

    scene.play(script)


def test_a_lease_is_free_at_the_very_moment_it_ends_and_the_old_intent_stays(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(LEASE_S)
        taken = await grant(store, "b")
        assert [intent.attempt for intent in taken.record.intents] == ["a", "b"]

    scene.play(script)


def test_of_two_that_ask_at_once_one_is_granted(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        answers = await asyncio.gather(*(store.acquire(KEY, ask(f"a{n}")) for n in range(20)))
        assert sorted(type(answer).__name__ for answer in answers) == ["Granted"] + ["Held"] * 19
        assert len((await stored(store)).intents) == 1

    scene.play(script)


def test_a_failure_binds_everybody_until_its_not_before(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        failure = transient(START + 30)
        await store.abandon(KEY, "a", failure)
        scene.clock.advance(29)
        assert await store.acquire(KEY, ask("b")) == FailedLately(
            failure, new_record(outcome=failure), START + 29
        )
        scene.clock.advance(1)
        assert isinstance(await store.acquire(KEY, ask("b")), Granted)

    scene.play(script)


def test_a_failure_of_another_token_binds_nobody(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(outcome=transient(START + 30, rt="older"), dead="older"))
        assert isinstance(await store.acquire(KEY, ask("a")), Granted)

    scene.play(script)


def test_a_dead_token_is_not_sent_again_however_late(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.condemn(KEY, "a", "login", dead())
        scene.clock.advance(DAY_S)
        answer = await store.acquire(KEY, ask("b"))
        assert isinstance(answer, FailedLately)
        assert answer.outcome == dead()

    scene.play(script)


def test_intents_are_forgotten_after_a_while_and_not_before(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(INTENT_KEEP_S - 0.5)
        assert [i.attempt for i in (await grant(store, "b")).record.intents] == ["a", "b"]
        scene.clock.advance(LEASE_S)
        assert [i.attempt for i in (await grant(store, "c")).record.intents] == ["b", "c"]

    scene.play(script)


# Renew.


def test_renew_extends_the_own_lease_from_now(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(5)
        assert await store.renew(KEY, "a", LEASE_S) is True
        scene.clock.advance(LEASE_S - 1)
        assert await store.acquire(KEY, ask("b")) == Held(1.0, scene.clock.now)

    scene.play(script)


def test_renew_of_anothers_lease_changes_nothing(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        assert await store.renew(KEY, "b", 999) is False
        assert await store.acquire(KEY, ask("c")) == Held(LEASE_S, scene.clock.now)

    scene.play(script)


def test_renew_of_a_lease_that_ran_out_is_refused_even_if_nobody_took_it(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(LEASE_S)
        assert await store.renew(KEY, "a", LEASE_S) is False
        assert isinstance(await store.acquire(KEY, ask("b")), Granted)

    scene.play(script)


def test_renew_after_the_end_is_refused(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.end(KEY, "signed_out", 60)
        assert await store.renew(KEY, "a", LEASE_S) is False

    scene.play(script)


# Commit.


def test_a_commit_writes_the_tokens_and_nothing_but_them(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(3)
        write = reply("a")
        expected = new_record(gen="a", rt=write.rt, tokens=write.tokens, due=write.due, outcome=write.outcome)
        assert await store.commit(KEY, write) == Committed(expected, START + 3)
        assert await stored(store) == expected, "born, seen, end, idle_s and who stay; the intent is closed"
        assert not await lease_holder(store, "a", write.rt)

    scene.play(script)


def test_a_commit_never_moves_the_limits(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(idle_s=100.0))
        await grant(store, "a")
        scene.clock.advance(60)
        await store.touch(KEY, START + 20)
        await store.commit(KEY, reply("a"))
        scene.clock.advance(60)
        assert (await store.read(KEY)).record is None, "idle since START + 20, whatever was refreshed"

    scene.play(script)


def test_a_commit_asked_twice_has_landed(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        first = await store.commit(KEY, reply("a"))
        assert await store.commit(KEY, reply("a")) == first
        await store.end(KEY, "signed_out", 60)
        again = await store.commit(KEY, reply("a"))
        assert isinstance(again, Committed), "landed is landed, also behind a tombstone"
        assert again.record.tombstone == "signed_out"

    scene.play(script)


def test_a_commit_that_landed_before_does_not_undo_the_next(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await store.commit(KEY, reply("a"))
        await store.commit(KEY, reply("b", "rt of a", "a"))
        now_stored = await stored(store)
        assert await store.commit(KEY, reply("a")) == Changed(now_stored, scene.clock.now)
        assert await stored(store) == now_stored

    scene.play(script)


@pytest.mark.parametrize(("consumed", "gen"), [("older", "login"), ("rt0", "older")])
def test_a_commit_needs_both_the_consumed_token_and_the_acquired_gen(
    scene: Scene, consumed: str, gen: str
) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        assert await store.commit(KEY, reply("a", consumed, gen)) == Changed(new_record(), scene.clock.now)
        assert await stored(store) == new_record(), "own intent closed, tokens as they were"
        assert not await lease_holder(store), "own lease given back"
        assert scene.told == []

    scene.play(script)


def test_a_late_commit_without_a_lease_is_saved(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(DAY_S)
        assert isinstance(await store.commit(KEY, reply("a")), Committed)

    scene.play(script)


def test_a_late_commit_drops_neither_the_lease_nor_the_intent_of_its_successor(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(LEASE_S)
        await grant(store, "b")
        await store.commit(KEY, reply("a"))
        assert [intent.attempt for intent in (await stored(store)).intents] == ["b"]
        assert isinstance(await store.acquire(KEY, ask("c", "a", "rt of a")), Held)
        assert await store.renew(KEY, "b", LEASE_S) is True

    scene.play(script)


def test_of_two_commits_of_one_token_the_first_wins(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        answers = await asyncio.gather(*(store.commit(KEY, reply(f"a{n}")) for n in range(10)))
        winners = [answer for answer in answers if isinstance(answer, Committed)]
        assert len(winners) == 1
        assert all(answer.record == winners[0].record for answer in answers if isinstance(answer, Changed))
        assert await stored(store) == winners[0].record

    scene.play(script)


def test_a_tombstone_refuses_a_commit(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.end(KEY, "signed_out", 60)
        assert await store.commit(KEY, reply("a")) == Gone("signed_out", scene.clock.now)
        assert await stored(store) == new_record(tombstone="signed_out")
        scene.clock.advance(60)
        assert await store.commit(KEY, reply("a")) == Gone("absent", scene.clock.now)

    scene.play(script)


def test_a_commit_clears_the_dead_mark_that_names_what_it_consumed(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "b")
        await store.condemn(KEY, "b", "login", dead(attempt="b"))
        await store.commit(KEY, reply("a"))
        assert (await stored(store)).dead == ""
        assert isinstance(await store.acquire(KEY, ask("c", "a", "rt of a")), Granted)

    scene.play(script)


def test_a_commit_keeps_a_dead_mark_that_names_another_token(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(dead="another"))
        await store.commit(KEY, reply("a"))
        assert (await stored(store)).dead == "another"

    scene.play(script)


def test_a_token_that_does_not_rotate_is_committed_and_sent_again(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.commit(KEY, reply("a", rt="rt0"))
        assert isinstance(await store.acquire(KEY, ask("b", "a", "rt0")), Granted)

    scene.play(script)


# Abandon.


def test_abandon_closes_the_intent_gives_the_lease_back_and_stores_the_outcome(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        failure = transient(START)
        await store.abandon(KEY, "a", failure)
        assert await stored(store) == new_record(outcome=failure)
        assert not await lease_holder(store)

    scene.play(script)


def test_abandon_without_release_keeps_the_lease(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.abandon(KEY, "a", None, release=False)
        assert await stored(store) == new_record()
        assert await store.renew(KEY, "a", LEASE_S) is True

    scene.play(script)


def test_abandon_by_a_former_holder_stores_no_outcome_and_spares_its_successor(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(LEASE_S)
        await grant(store, "b")
        await store.abandon(KEY, "a", transient(START + 999))
        record = await stored(store)
        assert record.outcome is None
        assert [intent.attempt for intent in record.intents] == ["b"]
        assert await store.renew(KEY, "b", LEASE_S) is True

    scene.play(script)


def test_abandon_with_a_lease_that_ran_out_stores_no_outcome(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(LEASE_S)
        await store.abandon(KEY, "a", transient(START + 999))
        assert await stored(store) == new_record()

    scene.play(script)


def test_abandon_stores_no_outcome_of_another_token(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.abandon(KEY, "a", transient(START + 999, rt="older"))
        assert await stored(store) == new_record()

    scene.play(script)


def test_a_later_failure_does_not_replace_the_verdict_on_a_dead_token(scene: Scene) -> None:
    """Both were told DEAD and closed their intents; one condemned, the other then gives up."""

    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        scene.clock.advance(LEASE_S)
        await grant(store, "b")
        await store.abandon(KEY, "b", None, release=False)
        assert isinstance(await store.condemn(KEY, "a", "login", dead()), Condemned)
        await store.abandon(KEY, "b", transient(START))
        answer = await store.acquire(KEY, ask("c"))
        assert isinstance(answer, FailedLately)
        assert answer.outcome == dead()

    scene.play(script)


def test_abandon_after_the_end_changes_nothing(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.end(KEY, "signed_out", 60)
        await store.abandon(KEY, "a", transient(START + 9))
        assert await stored(store) == new_record(tombstone="signed_out")

    scene.play(script)


# Condemn.


def test_condemn_marks_the_token_and_keeps_the_session(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        expected = new_record(dead="rt0", outcome=dead())
        assert await store.condemn(KEY, "a", "login", dead()) == Condemned(expected, scene.clock.now)
        assert await stored(store) == expected
        assert isinstance(await store.acquire(KEY, ask("b")), FailedLately), "not Held: the lease is back"

    scene.play(script)


def test_condemn_asked_twice_says_the_same(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        first = await store.condemn(KEY, "a", "login", dead())
        assert await store.condemn(KEY, "a", "login", dead()) == first

    scene.play(script)


def test_condemn_after_the_end_is_gone_before_anything_else(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await store.end(KEY, "superseded", 60)
        assert await store.condemn(KEY, "a", "older", dead("older")) == Gone("superseded", scene.clock.now)

    scene.play(script)


@pytest.mark.parametrize(("gen", "rt"), [("older", "rt0"), ("login", "older")])
def test_condemn_of_a_token_that_is_not_the_stored_one_changes_nothing(
    scene: Scene, gen: str, rt: str
) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "other")
        before = await stored(store)
        assert await store.condemn(KEY, "a", gen, dead(rt)) == Changed(before, scene.clock.now)
        assert await stored(store) == before

    scene.play(script)


def test_condemn_waits_for_others_who_may_still_bring_an_answer(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "x")
        scene.clock.advance(LEASE_S)
        await grant(store, "y")
        scene.clock.advance(LEASE_S)
        before = (await grant(store, "a")).record
        until = START + LEASE_S + INTENT_KEEP_S
        assert await store.condemn(KEY, "a", "login", dead()) == Unresolved(before, until, scene.clock.now)
        assert await stored(store) == before
        assert await store.renew(KEY, "a", LEASE_S) is True, "nothing changed, the lease neither"
        scene.clock.now = until - 0.5
        assert isinstance(await store.condemn(KEY, "a", "login", dead()), Unresolved)
        scene.clock.now = until
        assert isinstance(await store.condemn(KEY, "a", "login", dead()), Condemned)

    scene.play(script)


@pytest.mark.parametrize(
    "intent",
    [
        Intent("gone", "", "rt0", START),
        Intent("x", "p", "older", START),
        Intent("x", "p", "rt0", START - 999),
    ],
    ids=["holder gone", "other token", "too old"],
)
def test_condemn_does_not_wait_for_an_intent_that_cannot_answer(scene: Scene, intent: Intent) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(intents=(intent,)))
        assert isinstance(await store.condemn(KEY, "a", "login", dead()), Condemned)

    scene.play(script)


def test_an_orphan_intent_is_shown_to_the_one_who_takes_over(scene: Scene) -> None:
    async def script(store: Store) -> None:
        orphan = Intent("gone", "", "rt0", START)
        await store.create(KEY, new_record(intents=(orphan,)))
        assert orphan in (await grant(store, "a")).record.intents

    scene.play(script)


# Identity, ending, flows.


def test_identify_replaces_the_blob_while_gen_holds(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        assert await store.identify(KEY, "older", b"x", "w1") is False
        assert await stored(store) == new_record()
        assert await store.identify(KEY, "login", b"new", "w1") is True
        assert await stored(store) == new_record(who=b"new", who_id="w1")
        await store.end(KEY, "signed_out", 60)
        assert await store.identify(KEY, "login", b"late", "w2") is False

    scene.play(script)


def test_identify_keeps_lease_and_intent(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.identify(KEY, "login", b"new", "w1")
        assert await store.renew(KEY, "a", LEASE_S) is True
        assert len((await stored(store)).intents) == 1

    scene.play(script)


def test_the_end_keeps_the_blob_and_drops_lease_and_intents(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        before = (await grant(store, "a")).record
        assert await store.end(KEY, "signed_out", 60) == before
        assert await stored(store) == new_record(tombstone="signed_out")

    scene.play(script)


def test_the_first_reason_of_an_end_stays_and_so_does_its_time(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await store.end(KEY, "signed_out", 60)
        scene.clock.advance(30)
        again = await store.end(KEY, "superseded", 9999)
        assert again == new_record(tombstone="signed_out")
        scene.clock.advance(29)
        assert (await stored(store)).tombstone == "signed_out"
        scene.clock.advance(1)
        assert (await store.read(KEY)).record is None

    scene.play(script)


def test_a_tombstone_lives_no_longer_than_its_session_would_have(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(idle_s=100.0))
        await store.end(KEY, "signed_out", DAY_S)
        await store.touch(KEY, START + 90)
        scene.clock.advance(100)
        assert (await store.read(KEY)).record is None

    scene.play(script)


def test_a_flow_is_spent_once_however_many_ask_at_the_same_time(scene: Scene) -> None:
    async def script(store: Store) -> None:
        answers = await asyncio.gather(*(store.spend_flow("flow", 600) for _ in range(50)))
        assert sum(answers) == 1
        assert await store.spend_flow("another", 600) is True
        scene.clock.advance(599)
        assert await store.spend_flow("flow", 600) is False
        scene.clock.advance(1)
        assert await store.spend_flow("flow", 600) is True

    scene.play(script)


def test_a_note_tells_when_and_is_forgotten(scene: Scene) -> None:
    async def script(store: Store) -> None:
        assert await store.noted("n") == 0
        at = await store.note("n", 600)
        assert at == scene.clock.now
        assert (await store.noted("n"), await store.noted("another")) == (at, 0)
        scene.clock.advance(599)
        assert await store.noted("n") == at
        later = await store.note("n", 10)
        assert await store.noted("n") == later == at + 599
        assert await store.note("n", 10, at) == later, "it only moves forward"
        scene.clock.advance(10)
        assert await store.noted("n") == 0
        assert await store.note("n", 10, at) == at == await store.noted("n"), "also what was long ago"

    scene.play(script)


def test_a_note_is_no_mark(scene: Scene) -> None:
    async def script(store: Store) -> None:
        record = new_record(user="0" * 32)
        await store.create(KEY, record)
        scene.clock.advance(1)
        await store.note("0" * 32, 600)
        assert await store.not_before(record) == 0
        assert (await store.read(KEY)).not_before == 0

    scene.play(script)


# Listeners.


def test_listeners_hear_of_every_change_that_others_must_see_once(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await grant(store, "a")
        await store.renew(KEY, "a", LEASE_S)
        await store.touch(KEY, START + 60)
        await store.abandon(KEY, "a", None)
        assert scene.told == []
        await store.commit(KEY, reply("a"))
        assert scene.told == [KEY]
        await store.identify(KEY, "a", b"new", "w1")
        assert scene.told == [KEY] * 2
        await store.condemn(KEY, "b", "a", dead("rt of a", "b"))
        assert scene.told == [KEY] * 3
        await store.end(KEY, "signed_out", 60)
        assert scene.told == [KEY] * 4

    scene.play(script)


def test_a_listener_is_told_on_the_loop_and_reads_the_new_state(scene: Scene) -> None:
    async def script(store: Store) -> None:
        seen: list[asyncio.Task[str]] = []

        async def look(key: str) -> str:
            return (await stored(store, key)).gen

        store.listen(lambda key: seen.append(asyncio.get_running_loop().create_task(look(key))))
        await store.create(KEY, new_record())
        await store.commit(KEY, reply("a"))
        assert await seen[0] == "a"

    scene.play(script)


def test_a_listener_that_fails_disturbs_neither_the_store_nor_the_others(scene: Scene) -> None:
    async def script(store: Store) -> None:
        heard: list[str] = []

        def fail(key: str) -> None:
            raise RuntimeError("listener")

        store.listen(fail)
        store.listen(heard.append)
        await store.create(KEY, new_record())
        assert isinstance(await store.commit(KEY, reply("a")), Committed)
        assert heard == [KEY]

    scene.play(script)


def test_a_listener_hears_of_a_change_whose_caller_was_cancelled(scene: Scene) -> None:
    """Else a cache would go on with the tokens that this commit consumed."""

    async def script(store: Store) -> None:
        heard = asyncio.Event()
        store.listen(lambda key: heard.set())
        await store.create(KEY, new_record())
        task = asyncio.create_task(store.commit(KEY, reply("a")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.wait_for(heard.wait(), 10)
        assert (await stored(store)).gen == "a"
        assert scene.told == [KEY]

    scene.play(script)


def test_what_changes_nothing_for_others_is_not_told(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record())
        await store.abandon(KEY, "a", transient(START + 9))
        assert scene.told == [], "not the holder: nothing was stored"
        await grant(store, "a")
        await store.abandon(KEY, "a", transient(START))
        assert scene.told == [KEY]
        await store.end(KEY, "signed_out", 60)
        await store.end(KEY, "superseded", 60)
        assert scene.told == [KEY] * 2, "it had ended before"
        await store.end("unknown", "signed_out", 60)
        assert scene.told == [KEY] * 2

    scene.play(script)


def test_replicas_hear_what_the_live_ones_announced(scene: Scene) -> None:
    async def script(store: Store) -> None:
        assert await store.announce("r1", ["k2", "k1"], 20) == [("k2", "k1")]
        if isinstance(store, EmbeddedStore):
            return
        scene.clock.advance(10)
        assert sorted(await store.announce("r2", ["k1"], 20)) == [("k1",), ("k2", "k1")]
        scene.clock.advance(10)
        assert await store.announce("r2", ["k1"], 20) == [("k1",)]

    scene.play(script)


def test_an_embedded_store_is_coherent(scene: Scene) -> None:
    async def script(store: Store) -> None:
        if isinstance(store, EmbeddedStore):
            assert store.coherence.until == inf

    scene.play(script)


def test_an_outcome_of_every_kind_survives_the_way_through_the_store(scene: Scene) -> None:
    async def script(store: Store) -> None:
        for kind in OutcomeKind:
            record = new_record(outcome=outcome(kind))
            await store.create(f"key {kind}", record)
            assert await stored(store, f"key {kind}") == record

    scene.play(script)


# Marks and lists.


def test_a_mark_for_everybody_ends_what_began_before_it_and_nothing_later(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(user="ada"))
        scene.clock.advance(5)
        assert await store.mark("", DAY_S) == START + 5
        assert scene.told == [""]
        await store.create("later", new_record(gen="g2", born=START + 5, user="ada"))
        old, new = await store.read(KEY), await store.read("later")
        assert (old.record is not None, old.not_before) == (True, START + 5)
        assert ended(old.record, old.now, old.not_before) == "ended_by_operator"
        assert ended(new.record, new.now, new.not_before) == ""

    scene.play(script)


def test_a_mark_for_one_user_concerns_nobody_else(scene: Scene) -> None:
    async def script(store: Store) -> None:
        for key, user in (("k1", "ada"), ("k2", "bob"), ("k3", "")):
            await store.create(key, new_record(user=user))
        scene.clock.advance(5)
        assert await store.mark("ada", DAY_S) == START + 5
        assert scene.told == ["user:ada"]
        marks = [(await store.read(key)).not_before for key in ("k1", "k2", "k3")]
        assert marks == [START + 5, 0.0, 0.0]
        scene.clock.advance(1)
        await store.mark("", DAY_S)
        assert [(await store.read(key)).not_before for key in ("k1", "k2")] == [START + 6] * 2

    scene.play(script)


def test_a_commit_behind_a_mark_is_ended_and_says_so(scene: Scene) -> None:
    """H2: signed out by the operator while the renewal was under way."""

    async def script(store: Store) -> None:
        for key, user in (("k1", "ada"), ("k2", "bob")):
            await store.create(key, new_record(user=user))
        scene.clock.advance(1)
        await store.mark("ada", DAY_S)
        assert await store.commit("k1", reply("a")) == Gone("ended_by_operator", scene.clock.now)
        assert (await stored(store, "k1")).tombstone == "ended_by_operator"
        assert isinstance(await store.commit("k2", reply("b")), Committed)

    scene.play(script)


def test_a_mark_is_forgotten_when_nothing_is_left_that_it_could_end(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.mark("ada", 100.0)
        await store.mark("", 100.0)
        scene.clock.advance(100)
        if isinstance(store, EmbeddedStore):  # Redis forgets by its own clock
            assert await store.not_before(new_record(born=0.0, user="ada")) == 0.0

    scene.play(script)


def test_a_session_is_on_the_lists_of_its_user_and_of_its_session_at_the_op(scene: Scene) -> None:
    async def script(store: Store) -> None:
        await store.create(KEY, new_record(user="ada", op_session="s1", end=START + 100))
        await store.create("k2", new_record(user="ada", op_session="s2"))
        await store.create("k3", new_record(user="bob"))
        assert sorted(await store.sessions_of("ada")) == sorted([KEY, "k2"])
        assert await store.sessions_of("s2") == ["k2"]
        assert await store.sessions_of("nobody") == []
        scene.clock.advance(100)
        assert await store.sessions_of("ada") == ["k2"], "what is over by its limit is off the list"

    scene.play(script)


def test_the_tally_counts_live_sessions_by_what_they_have_in_common(scene: Scene) -> None:
    async def script(store: Store) -> None:
        async def begin(name: str, **fields: object) -> None:
            await store.create(store_key(name.encode()), new_record(**fields))

        for n in range(3):
            await begin(f"a{n}", user="ada")
        await begin("b", rt="", config="older", user="bob")
        await begin("c", provider="other")
        await begin("ended")
        await begin("marked", user="carl", born=START - 1)
        await store.end(store_key(b"ended"), "signed_out", 60)
        await store.mark("carl", DAY_S)
        assert sorted(await store.tally(), key=str) == [
            Tally("generic", "epoch", True, 3),
            Tally("generic", "older", False, 1),
            Tally("other", "epoch", True, 1),
        ]

    scene.play(script)
