"""The renewal machine, one event at a time."""

from __future__ import annotations

import pytest

from proxy.core import steps
from proxy.core.answers import Changed, Committed, Condemned, FailedLately, Gone, Granted, Held, Unresolved
from proxy.core.providers import Reuse
from proxy.core.refresh import Attempt
from proxy.core.session import Ended, Intent, Outcome, OutcomeKind, Record, Tokens
from proxy.core.timing import RefreshPolicy
from proxy.core.token_reply import Issued, Refused

NOW = 1_000_000.0
OLD = Tokens("at0", "rt0", "idt0", "openid", NOW - 280, NOW + 20, "https://op", "client")
EXPIRED = Tokens("at0", "rt0", "idt0", "openid", NOW - 320, NOW - 20, "https://op", "client")
ISSUED = Issued("at1", "rt1", "idt1", "openid", 300.0)


def record(**changes: object) -> Record:
    fields: dict[str, object] = {
        "gen": "g0", "rt": "f0", "tokens": b"", "who": b"", "who_id": "w", "born": NOW - 300, "seen": NOW,
        "end": NOW + 9_000, "idle_s": 3_600.0, "due": NOW - 40, "provider": "generic", "config": "",
    }  # fmt: skip
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


def attempt(reuse: Reuse = Reuse.UNKNOWN, rec: Record | None = None) -> Attempt:
    return Attempt("a1", rec or record(), RefreshPolicy(reuse=reuse), spread=0.5)


def granted(rec: Record | None = None, tokens: Tokens = OLD) -> steps.GrantedTokens:
    rec = rec or record()
    mine = Intent("a1", "me", rec.rt, NOW)
    from msgspec.structs import replace

    return steps.GrantedTokens(Granted(replace(rec, intents=(*rec.intents, mine)), NOW), tokens)


def calling(
    reuse: Reuse = Reuse.UNKNOWN, rec: Record | None = None, tokens: Tokens = OLD
) -> tuple[Attempt, steps.Step]:
    machine = attempt(reuse, rec)
    assert machine.start(NOW) == steps.Connect()
    assert machine.feed(steps.Connected(), NOW) == steps.Acquire("g0", "f0")
    return machine, machine.feed(granted(rec, tokens), NOW)


def test_the_token_that_is_sent_comes_from_the_grant_and_no_scope_goes_along() -> None:
    _, step = calling()
    assert step == steps.Send("rt0", "", 15.0)


def test_i7_new_tokens_are_persisted_before_anything_else_happens() -> None:
    machine, _ = calling()
    step = machine.feed(steps.Reply(ISSUED, NOW), NOW + 1)
    assert isinstance(step, steps.Persist)
    assert (step.consumed_rt, step.acquired_gen) == ("f0", "g0")
    assert (step.tokens.access_token, step.tokens.refresh_token) == ("at1", "rt1")
    assert step.tokens.expires_at == NOW + 300  # counted from the moment the request was sent
    done = machine.feed(Committed(record(gen="a1"), NOW), NOW + 1)
    assert isinstance(done, steps.Done)
    assert isinstance(done.result, steps.Refreshed)
    assert done.result.id_token == "idt1"


@pytest.mark.parametrize("missing", ["", None])
def test_f1_a_reply_without_refresh_token_keeps_the_old_one(missing: str | None) -> None:
    machine, _ = calling()
    step = machine.feed(steps.Reply(Issued("at1", missing or "", "", "", 300.0), NOW), NOW)
    assert isinstance(step, steps.Persist)
    assert step.tokens.refresh_token == "rt0"
    assert step.tokens.id_token == "idt0"
    assert step.tokens.scope == "openid"


def test_changed_on_acquire_adopts_without_a_call() -> None:
    machine = attempt()
    machine.start(NOW)
    machine.feed(steps.Connected(), NOW)
    newer = record(gen="g9", rt="f9")
    assert machine.feed(Changed(newer, NOW), NOW) == steps.Done(steps.Adopted(newer))


def test_held_elsewhere_looks_again_and_never_sends_while_the_lease_lives() -> None:
    machine = attempt()
    machine.start(NOW)
    machine.feed(steps.Connected(), NOW)
    step = machine.feed(Held(12.0, NOW), NOW)
    assert isinstance(step, steps.Peek)
    assert step.for_s <= 1.0
    assert machine.feed(steps.Seen(record()), NOW + 1) == steps.Connect()
    machine.feed(steps.Connected(), NOW + 1)
    assert isinstance(machine.feed(Held(11.0, NOW), NOW + 1), steps.Peek)
    newer = record(gen="g9", rt="f9")
    assert machine.feed(steps.Seen(newer), NOW + 2) == steps.Done(steps.Adopted(newer))


def test_held_for_ever_gives_up_and_keeps_the_session() -> None:
    machine = attempt()
    machine.start(NOW)
    machine.feed(steps.Connected(), NOW)
    step = machine.feed(Held(1000.0, NOW), NOW + 31)
    assert isinstance(step, steps.Done)
    assert isinstance(step.result, steps.Kept)


def test_a_fresh_failure_of_somebody_else_is_adopted() -> None:
    outcome = Outcome(OutcomeKind.TRANSIENT, "http_500", "f0", "a9", NOW, NOW + 5)
    machine = attempt()
    machine.start(NOW)
    machine.feed(steps.Connected(), NOW)
    assert machine.feed(FailedLately(outcome, record(), NOW), NOW) == steps.Done(steps.Kept(outcome))


def test_a_token_that_somebody_renewed_a_moment_ago_is_adopted_not_a_failure() -> None:
    machine = attempt()
    machine.start(NOW)
    machine.feed(steps.Connected(), NOW)
    outcome = Outcome(OutcomeKind.OK, "ok", "f0", "other", NOW, not_before=NOW + 10)
    step = machine.feed(FailedLately(outcome, record(), NOW), NOW)
    assert step == steps.Done(steps.Adopted(record()))


def test_a_stored_verdict_is_adopted() -> None:
    outcome = Outcome(OutcomeKind.DEAD, "invalid_grant", "f0", "a9", NOW)
    machine = attempt()
    machine.start(NOW)
    machine.feed(steps.Connected(), NOW)
    step = machine.feed(FailedLately(outcome, record(dead="f0"), NOW), NOW)
    assert step == steps.Done(steps.Dead(record(dead="f0"), outcome))


def test_c9_provably_unsent_calls_are_tried_again_freely_and_are_never_ambiguous() -> None:
    machine = attempt()
    machine.start(NOW)
    now, connects = NOW, 1
    step: steps.Step = steps.Connect()
    while not isinstance(step, steps.Done):
        if isinstance(step, steps.Connect):
            connects += 1
            step = machine.feed(steps.NotSent("op_unreachable"), now)
        else:
            assert isinstance(step, steps.Wait)
            now += step.for_s
            step = machine.feed(steps.Woke(), now)
    assert connects >= 4
    assert isinstance(step.result, steps.Kept)
    assert step.result.outcome.kind is OutcomeKind.TRANSIENT
    assert not step.result.outcome.ambiguous


def test_a_lost_lease_stops_a_call_that_was_not_sent() -> None:
    machine, _ = calling()
    step = machine.feed(steps.NotSent("lease_lost", lease_lost=True), NOW)
    assert step == steps.Release(None)
    done = machine.feed(steps.Released(), NOW)
    assert isinstance(done, steps.Done)
    assert isinstance(done.result, steps.Kept)


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (Refused(OutcomeKind.TRANSIENT, "http_429", 429, 30.0), OutcomeKind.TRANSIENT),
        (Refused(OutcomeKind.CLIENT, "invalid_client", 401), OutcomeKind.CLIENT),
        (Refused(OutcomeKind.INTERACTION, "interaction_required", 400), OutcomeKind.INTERACTION),
        (Refused(OutcomeKind.UNKNOWN, "http_403", 403), OutcomeKind.UNKNOWN),
    ],
)
def test_what_is_no_verdict_keeps_the_session_and_backs_off(refused: Refused, kind: OutcomeKind) -> None:
    machine, _ = calling()
    step = machine.feed(steps.Reply(refused, NOW), NOW)
    assert isinstance(step, steps.Release)
    assert step.outcome is not None
    assert step.outcome.kind is kind
    assert step.outcome.not_before > NOW
    if refused.retry_after_s:
        assert step.outcome.not_before == NOW + 30
    assert machine.feed(steps.Released(), NOW) == steps.Done(steps.Kept(step.outcome))


# -- perhaps processed --


def test_c7_a_lost_reply_is_repeated_once_under_the_renewed_lease_then_a_verdict_is_rotation_lost() -> None:
    machine, _ = calling(tokens=EXPIRED)
    step = machine.feed(steps.Lost("eof"), NOW)
    assert isinstance(step, steps.Wait)
    assert machine.feed(steps.Woke(), NOW) == steps.Renew()
    assert machine.feed(steps.Renewed(True), NOW) == steps.Connect()
    assert machine.feed(steps.Connected(), NOW) == steps.Send("rt0", "", 15.0)
    step = machine.feed(steps.Reply(Refused(OutcomeKind.DEAD, "invalid_grant", 400), NOW), NOW)
    assert step == steps.Release(None, lease=False)  # the own intent goes first
    step = machine.feed(steps.Released(), NOW)
    assert isinstance(step, steps.Condemn)
    assert step.outcome.code == "rotation_lost"


def test_no_renewal_no_second_try() -> None:
    machine, _ = calling()
    machine.feed(steps.Lost("eof"), NOW)
    machine.feed(steps.Woke(), NOW)
    step = machine.feed(steps.Renewed(False), NOW)
    assert isinstance(step, steps.Release)
    assert step.outcome is not None
    assert step.outcome.ambiguous


def test_a_second_ambiguity_keeps_the_session_and_says_when_to_come_back() -> None:
    machine, _ = calling(tokens=EXPIRED)
    for event in (steps.Lost("eof"), steps.Woke(), steps.Renewed(True), steps.Connected()):
        machine.feed(event, NOW)
    step = machine.feed(steps.Lost("eof"), NOW)
    assert isinstance(step, steps.Release)
    assert step.outcome is not None
    assert step.outcome.kind is OutcomeKind.AMBIGUOUS
    assert step.outcome.tries == 2
    assert step.outcome.not_before > NOW


def test_a_reuse_punishing_op_gets_the_token_again_only_as_late_as_the_live_token_allows() -> None:
    machine, _ = calling(Reuse.PUNISHED)
    step = machine.feed(steps.Lost("eof"), NOW)
    assert isinstance(step, steps.Release)
    assert step.outcome is not None
    assert step.outcome.not_before == OLD.expires_at - 10


def test_an_unanswered_intent_found_at_takeover_makes_a_verdict_rotation_lost() -> None:
    left = Intent("a0", "", "f0", NOW - 30)
    machine, step = calling(rec=record(intents=(left,)))
    assert isinstance(step, steps.Send)
    machine.feed(steps.Reply(Refused(OutcomeKind.DEAD, "invalid_grant", 400), NOW), NOW)
    step = machine.feed(steps.Released(), NOW)
    assert isinstance(step, steps.Condemn)
    assert step.outcome.code == "rotation_lost"


def test_an_unanswered_intent_at_a_reuse_punishing_op_waits_while_the_token_lives() -> None:
    left = Intent("a0", "other", "f0", NOW - 30)
    _, step = calling(Reuse.PUNISHED, record(intents=(left,)))
    assert isinstance(step, steps.Release)
    machine, step = calling(Reuse.PUNISHED, record(intents=(left,)), EXPIRED)
    assert isinstance(step, steps.Wait)  # whoever left it may hold the successor, and write it any moment
    assert machine.feed(steps.Woke(), NOW + 2) == steps.Acquire("g0", "f0")
    assert isinstance(machine.feed(granted(record(intents=(left,)), EXPIRED), NOW + 2), steps.Send)


@pytest.mark.parametrize("reuse", [Reuse.UNKNOWN, Reuse.PUNISHED])
def test_d2_a_holder_that_was_cut_off_writes_before_its_successor_sends(reuse: Reuse) -> None:
    left = Intent("a0", "other", "f0", NOW - 30)
    machine, step = calling(reuse, record(intents=(left,)), EXPIRED)
    assert isinstance(step, steps.Wait)
    assert isinstance(machine.feed(steps.Woke(), NOW + 2), steps.Acquire)
    done = machine.feed(Changed(record(gen="g1", rt="f1"), NOW + 2), NOW + 2)
    assert isinstance(done, steps.Done)
    assert isinstance(done.result, steps.Adopted)


def test_c10_a_reply_after_the_deadline_is_still_persisted() -> None:
    machine, _ = calling()
    step = machine.feed(steps.TimedOut(), NOW + 15)
    assert isinstance(step, steps.Release)  # intent and lease go back, nobody waits for us
    step = machine.feed(steps.Released(), NOW + 15)
    assert isinstance(step, steps.Linger)
    assert isinstance(step.result, steps.Kept)
    step = machine.feed(steps.Reply(ISSUED, NOW), NOW + 20)
    assert isinstance(step, steps.Persist)
    assert step.tokens.refresh_token == "rt1"


def test_with_grace_a_timeout_is_repeated_at_once_and_a_late_reply_still_counts() -> None:
    machine, _ = calling(Reuse.GRACE)
    assert isinstance(machine.feed(steps.TimedOut(), NOW + 15), steps.Wait)
    assert machine.feed(steps.Woke(), NOW + 15) == steps.Renew()
    assert machine.feed(steps.Renewed(True), NOW + 15) == steps.Connect()
    assert isinstance(machine.feed(steps.Reply(ISSUED, NOW), NOW + 15), steps.Persist)


# -- commit first --


def test_d1_a_store_that_is_away_at_commit_announces_from_memory_and_tries_on() -> None:
    machine, _ = calling()
    machine.feed(steps.Reply(ISSUED, NOW), NOW)
    for tries in range(8):
        step = machine.feed(steps.StoreFailed("away"), NOW + tries)
        assert isinstance(step, steps.Wait)
        assert isinstance(step.announce, steps.Unsaved)
        assert isinstance(machine.feed(steps.Woke(), NOW + tries), steps.Persist)
    done = machine.feed(Committed(record(gen="a1"), NOW), NOW)
    assert isinstance(done, steps.Done)


def test_a_loser_adopts_and_never_revokes() -> None:
    machine, _ = calling()
    machine.feed(steps.Reply(ISSUED, NOW), NOW)
    newer = record(gen="g9", rt="f9")
    assert machine.feed(Changed(newer, NOW), NOW) == steps.Done(steps.Adopted(newer))


@pytest.mark.parametrize(
    ("reason", "revokes"),
    [(Ended.SIGNED_OUT, True), (Ended.ABSOLUTE, True), (Ended.SUPERSEDED, False), (Ended.ABSENT, False)],
)
def test_h3_a_sign_out_during_the_call_revokes_the_new_token_and_revives_nothing(
    reason: Ended, revokes: bool
) -> None:
    machine, _ = calling()
    machine.feed(steps.Reply(ISSUED, NOW), NOW)
    step = machine.feed(Gone(reason, NOW), NOW)
    if revokes:
        assert step == steps.Revoke("rt1", "at1")
        step = machine.feed(steps.Released(), NOW)
    assert step == steps.Done(steps.Over(reason))


# -- a verdict on the token --


def dead(machine: Attempt) -> steps.Step:
    machine.feed(steps.Reply(Refused(OutcomeKind.DEAD, "invalid_grant", 400), NOW), NOW)
    return machine.feed(steps.Released(), NOW)


def test_a_verdict_is_a_compare_and_set() -> None:
    machine, _ = calling()
    step = dead(machine)
    assert isinstance(step, steps.Condemn)
    assert (step.gen, step.outcome.rt, step.outcome.code) == ("g0", "f0", "invalid_grant")
    done = machine.feed(Condemned(record(dead="f0"), NOW), NOW)
    assert isinstance(done, steps.Done)
    assert isinstance(done.result, steps.Dead)


def test_a_verdict_on_a_token_that_is_not_stored_any_more_ends_nothing() -> None:
    machine, _ = calling()
    dead(machine)
    newer = record(gen="g9", rt="f9")
    machine.feed(Changed(newer, NOW), NOW)
    assert machine.feed(steps.Released(), NOW) == steps.Done(steps.Adopted(newer))


def test_a8_a_verdict_waits_for_others_who_may_have_the_successor() -> None:
    machine, _ = calling()
    dead(machine)
    other = Unresolved(record(), NOW + 100, NOW)
    assert isinstance(machine.feed(other, NOW), steps.Wait)
    assert isinstance(machine.feed(steps.Woke(), NOW + 1), steps.Condemn)
    step = machine.feed(other, NOW + 6)
    assert isinstance(step, steps.Release)
    assert step.outcome is not None
    assert step.outcome.code == "verdict_pending"
    assert step.outcome.not_before == NOW + 100
    done = machine.feed(steps.Released(), NOW + 6)
    assert isinstance(done, steps.Done)
    assert isinstance(done.result, steps.Kept)


def test_c5_a_verdict_that_had_to_wait_is_not_asked_for_again() -> None:
    pending = Outcome(OutcomeKind.UNKNOWN, "verdict_pending", "f0", "a0", NOW - 121, NOW - 1, http_status=400)
    machine, step = calling(Reuse.PUNISHED, record(outcome=pending), EXPIRED)
    assert step == steps.Release(None, lease=False)
    step = machine.feed(steps.Released(), NOW)
    assert isinstance(step, steps.Condemn)
    assert (step.outcome.code, step.outcome.http_status) == ("rotation_lost", 400)
    done = machine.feed(Condemned(record(), NOW), NOW)
    assert isinstance(done, steps.Done)
    assert isinstance(done.result, steps.Dead)


def test_an_event_that_cannot_follow_is_a_defect() -> None:
    machine = attempt()
    machine.start(NOW)
    with pytest.raises(RuntimeError, match="cannot follow"):
        machine.feed(steps.Woke.__new__(steps.Woke) if False else steps.Renewed(True), NOW)
