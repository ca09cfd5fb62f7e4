"""The store's rules on one row: what the contract suite cannot see from outside.

What each operation answers is `tests/contract/test_store.py`, run on every store. Here: the
exact order of acquire as a table, rows that come back untouched, and invariants of any row.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.core import record as rules
from proxy.core.answers import (
    Ask,
    Changed,
    Commit,
    Committed,
    Condemned,
    FailedLately,
    Gone,
    Granted,
    Held,
    Unresolved,
)
from proxy.core.record import Lease, Row
from proxy.core.session import INTENT_KEEP_S, Intent, Outcome, OutcomeKind, Record

NOW = 1000.0

RECORD = Record(
    gen="g",
    rt="t",
    tokens=b"tokens",
    who=b"who",
    who_id="w",
    born=NOW,
    seen=NOW,
    end=NOW + 900,
    idle_s=300.0,
    due=NOW + 60,
    provider="p",
    config="c",
)
ASK = Ask("a", "holder", "g", "t", 20.0)
MINE, THEIRS, OLD = Lease("a", NOW + 1), Lease("b", NOW + 1), Lease("b", NOW)
FAILED = Outcome(OutcomeKind.TRANSIENT, "503", "t", "b", NOW, not_before=NOW + 1)
DEAD = Outcome(OutcomeKind.DEAD, "invalid_grant", "t", "b", NOW)


def row(lease: Lease | None = None, **fields: Any) -> Row:
    record = replace(RECORD, **fields)
    return Row(record, lease, record.keep_until)


def commit_of(attempt: str, consumed: str = "t", gen: str = "g") -> Commit:
    outcome = Outcome(OutcomeKind.OK, "", f"t-{attempt}", attempt, NOW)
    return Commit(attempt, consumed, gen, attempt.encode(), f"t-{attempt}", NOW + 99, outcome)


@pytest.mark.parametrize(
    ("before", "answer"),
    [
        (None, Gone),
        # Each row has what its own line is about and everything that a later check would catch.
        (row(THEIRS, tombstone="signed_out", gen="other", dead="t", outcome=DEAD), Gone),
        (row(MINE, gen="other", dead="t", outcome=DEAD), Changed),
        (row(MINE, rt="other", dead="other"), Changed),
        (row(MINE, dead="t", outcome=DEAD), Granted),
        (row(MINE, outcome=FAILED), Granted),
        (row(THEIRS, dead="t", outcome=DEAD), Held),
        (row(THEIRS, outcome=FAILED), Held),
        (row(OLD, dead="t", outcome=DEAD), FailedLately),
        (row(Lease("a", NOW), dead="t", outcome=DEAD), FailedLately),
        (row(OLD, outcome=FAILED), FailedLately),
        (row(OLD, outcome=replace(FAILED, not_before=NOW)), Granted),
        (row(OLD, outcome=replace(FAILED, rt="other"), dead="other"), Granted),
        (row(), Granted),
    ],
)
def test_acquire_checks_in_the_order_of_the_contract(before: Row | None, answer: type) -> None:
    after, given_answer = rules.acquire(before, ASK, NOW)
    assert type(given_answer) is answer
    assert (after is before) is (answer is not Granted), "only a grant changes the row"


@pytest.mark.parametrize("stored", [None, replace(DEAD, rt="other"), FAILED])
def test_a_dead_mark_binds_whatever_outcome_is_stored(stored: Outcome | None) -> None:
    _, answer = rules.acquire(row(dead="t", outcome=stored), ASK, NOW)
    assert isinstance(answer, FailedLately)
    assert answer.outcome.rt == "t"


def test_no_dead_mark_is_not_a_verdict_on_a_missing_token() -> None:
    before = row(rt="", outcome=replace(FAILED, rt="", not_before=0.0))
    _, answer = rules.acquire(before, replace_ask(rt=""), NOW)
    assert isinstance(answer, Granted)


def replace_ask(**fields: str) -> Ask:
    return Ask(ASK.attempt, ASK.holder, fields.get("gen", ASK.gen), fields.get("rt", ASK.rt), ASK.lease_s)


def test_a_grant_forgets_intents_at_the_very_age() -> None:
    young = Intent("x", "h", "t", NOW - INTENT_KEEP_S + 1)
    old = Intent("y", "h", "t", NOW - INTENT_KEEP_S)
    after, _ = rules.acquire(row(intents=(young, old)), ASK, NOW)
    assert after is not None
    assert after.record.intents == (young, Intent("a", "holder", "t", NOW))


def test_what_changes_nothing_gives_the_same_row_back_so_that_nothing_is_written() -> None:
    plain, over = row(THEIRS), row(tombstone="signed_out")
    assert rules.abandon(plain, "a", None, True, NOW) is plain
    assert rules.abandon(plain, "a", FAILED, True, NOW) is plain
    assert rules.abandon(over, "a", FAILED, True, NOW) is over
    assert rules.commit(plain, commit_of("a", gen="other"), NOW)[0] is plain
    assert rules.commit(plain, commit_of("g"), NOW)[0] is plain
    assert rules.commit(over, commit_of("a"), NOW)[0] is over
    assert rules.renew(plain, "a", 9.0, NOW)[0] is plain
    assert rules.identify(plain, "other", b"", "")[0] is plain
    assert rules.touch(plain, NOW) is plain
    assert rules.end(over, "superseded", 9.0, NOW)[0] is over
    assert rules.condemn(plain, "a", "other", DEAD, NOW)[0] is plain


def test_the_verdict_on_a_dead_token_stays_but_the_lease_is_given_back() -> None:
    after = rules.abandon(row(MINE, dead="t", outcome=DEAD), "a", FAILED, True, NOW)
    assert after == row(dead="t", outcome=DEAD)


def test_after_a_restart_nobody_is_behind_lease_and_intents() -> None:
    intent = Intent("x", "holder", "t", NOW)
    assert rules.orphaned(row(MINE, intents=(intent,))) == row(intents=(replace(intent, holder=""),))


@pytest.mark.parametrize(("keep_s", "until"), [(60.0, NOW + 60), (9999.0, NOW + 300), (0.0, NOW)])
def test_a_tombstone_is_kept_for_its_time_at_most_until_the_limit(keep_s: float, until: float) -> None:
    after, before = rules.end(row(MINE), "signed_out", keep_s, NOW)
    assert before == RECORD
    assert after == Row(replace(RECORD, tombstone="signed_out"), None, until)
    assert rules.current(after, until) is None


# Any row, any operation.

words = st.sampled_from(["a", "b", "c"])
tokens = st.sampled_from(["t", "t-a", "t-b"])
gens = st.sampled_from(["g", "a", "b"])
times = st.sampled_from([NOW - 200, NOW - 1, NOW, NOW + 1, NOW + 200])
outcomes = st.builds(Outcome, st.sampled_from(OutcomeKind), words, tokens, words, times, times)
rows = st.builds(
    row,
    st.none() | st.builds(Lease, words, times),
    gen=gens,
    rt=tokens,
    dead=st.just("") | tokens,
    outcome=st.none() | outcomes,
    tombstone=st.sampled_from(["", "", "signed_out"]),
    intents=st.lists(st.builds(Intent, words, words | st.just(""), tokens, times), max_size=3).map(tuple),
)
commits = st.builds(commit_of, words, tokens, gens)


@given(rows, commits, times)
def test_a_commit_writes_only_over_the_token_it_consumed(before: Row, write: Commit, now: float) -> None:
    after, answer = rules.commit(before, write, now)
    assert after is not None
    old, new = before.record, after.record
    if new.tokens != old.tokens:
        assert (old.rt, old.gen, old.tombstone) == (write.consumed_rt, write.acquired_gen, "")
        assert isinstance(answer, Committed)
        assert (new.gen, new.rt) == (write.attempt, write.rt)
    assert (new.born, new.seen, new.end, new.idle_s, new.who, new.tombstone, after.drop_at) == (
        old.born,
        old.seen,
        old.end,
        old.idle_s,
        old.who,
        old.tombstone,
        before.drop_at,
    )
    assert_others_keep_theirs(before, after, write.attempt)


@given(rows, words, st.none() | outcomes, st.booleans(), times)
def test_abandon_never_touches_tokens_gen_or_what_is_anothers(
    before: Row, attempt: str, outcome: Outcome | None, release: bool, now: float
) -> None:
    after = rules.abandon(before, attempt, outcome, release, now)
    assert after is not None
    assert replace(after.record, intents=(), outcome=None) == replace(before.record, intents=(), outcome=None)
    if after.record.outcome != before.record.outcome:
        assert before.lease is not None
        assert before.lease.attempt == attempt
        assert now < before.lease.until
    assert_others_keep_theirs(before, after, attempt)


@given(rows, words, gens, outcomes, times)
def test_condemn_never_touches_tokens_and_never_outvotes_an_open_intent(
    before: Row, attempt: str, gen: str, outcome: Outcome, now: float
) -> None:
    after, answer = rules.condemn(before, attempt, gen, outcome, now)
    assert after is not None
    assert (after.record.tokens, after.record.gen, after.record.tombstone) == (
        before.record.tokens,
        before.record.gen,
        before.record.tombstone,
    )
    if isinstance(answer, Condemned):
        assert after.record.dead == before.record.rt == outcome.rt
        assert_others_keep_theirs(before, after, attempt)
    else:
        assert after is before
    if isinstance(answer, Unresolved):
        assert now < answer.until


@given(rows, words, gens, tokens, times)
def test_two_never_hold_the_lease(before: Row, attempt: str, gen: str, rt: str, now: float) -> None:
    after, answer = rules.acquire(before, Ask(attempt, "h", gen, rt, 20.0), now)
    if isinstance(answer, Granted):
        assert after is not None
        lease = before.lease
        assert lease is None or lease.attempt == attempt or lease.until <= now
        assert after.lease == Lease(attempt, now + 20.0)
        assert [i for i in after.record.intents if i.attempt == attempt] == [Intent(attempt, "h", rt, now)]
        assert not before.record.tombstone
    else:
        assert after is before


def assert_others_keep_theirs(before: Row, after: Row, attempt: str) -> None:
    if before.lease is not None and before.lease.attempt != attempt:
        assert after.lease == before.lease
    others = [intent for intent in before.record.intents if intent.attempt != attempt]
    assert [intent for intent in after.record.intents if intent.attempt != attempt] == others
