"""The store's rules, one pure function per operation.

Each takes the row as it is and answers with the row as it becomes, and what the caller is told. Memory and
SQLite run exactly these; any other store (scripts in Redis) must be indistinguishable
from them. The contract in words: `shell/store/contract.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from proxy.core.answers import (
    AcquireAnswer,
    Ask,
    Changed,
    Commit,
    CommitAnswer,
    Committed,
    CondemnAnswer,
    Condemned,
    FailedLately,
    Gone,
    Granted,
    Held,
    Tally,
    Unresolved,
)
from proxy.core.session import INTENT_KEEP_S, Ended, Intent, Outcome, OutcomeKind, Record, unresolved


class Lease(msgspec.Struct, frozen=True):
    """Who may send the token, until when.

    Attributes:
        attempt: id of the attempt that holds it.
        until: store time.
    """

    attempt: str
    until: float


class Row(msgspec.Struct, frozen=True):
    """What a store keeps under one key.

    Attributes:
        record: the session.
        lease: None if nobody holds one.
        drop_at: store time at which the row may be forgotten.
    """

    record: Record
    lease: Lease | None = None
    drop_at: float = 0.0


def create(row: Row | None, record: Record) -> tuple[Row, bool]:
    """The row of a new session; False if another session is there already.

    The same `gen` there means that this very call had landed before: nothing changes.
    """
    if row is not None:
        return row, row.record.gen == record.gen
    return Row(record, None, record.keep_until), True


def current(row: Row | None, now: float) -> Row | None:
    """The row, or None once it may be forgotten."""
    return row if row is not None and now < row.drop_at else None


def tallied(records: Iterable[Record]) -> list[Tally]:
    """Sessions counted by provider, configuration and whether they can be renewed."""
    counts = Counter((record.provider, record.config, bool(record.rt)) for record in records)
    return [Tally(*shared, count) for shared, count in sorted(counts.items())]


def others_must_know(before: Row | None, after: Row | None) -> bool:
    """Whether a change is one that listeners hear of: whoever has the session open must see it.

    Leases, intents and activity are nobody's business, and a session that is new or has run
    out is in nobody's hands.
    """
    if before is None or after is None or after is before:
        return False
    old, new = before.record, after.record
    return (old.gen, old.who_id, old.dead, old.outcome, old.tombstone) != (
        new.gen,
        new.who_id,
        new.dead,
        new.outcome,
        new.tombstone,
    )


def orphaned(row: Row) -> Row:
    """The row after the death of the only process: no lease, nobody behind the intents."""
    intents = tuple(replace(intent, holder="") for intent in row.record.intents)
    return Row(replace(row.record, intents=intents), None, row.drop_at)


def acquire(row: Row | None, ask: Ask, now: float) -> tuple[Row | None, AcquireAnswer]:
    """Ask for the right to send the stored refresh token."""
    gone = _gone(row, now)
    if row is None or gone is not None:
        return row, gone or Gone(Ended.ABSENT, now)
    record, lease = row.record, row.lease
    if (record.gen, record.rt) != (ask.gen, ask.rt):
        return row, Changed(record, now)
    if lease is not None and now < lease.until and lease.attempt != ask.attempt:
        return row, Held(lease.until - now, now)
    if lease is None or lease.attempt != ask.attempt or now >= lease.until:
        outcome = binding(record, now)
        if outcome is not None:
            return row, FailedLately(outcome, record, now)
    others = tuple(
        intent
        for intent in record.intents
        if intent.attempt != ask.attempt and now - intent.at < INTENT_KEEP_S
    )
    record = replace(record, intents=(*others, Intent(ask.attempt, ask.holder, record.rt, now)))
    return Row(record, Lease(ask.attempt, now + ask.lease_s), row.drop_at), Granted(record, now)


def renew(row: Row | None, attempt: str, lease_s: float, now: float) -> tuple[Row | None, bool]:
    """Extend the own lease from now, if it is still held."""
    if row is None or row.record.tombstone or not _holds(row, attempt, now):
        return row, False
    return Row(row.record, Lease(attempt, now + lease_s), row.drop_at), True


def commit(row: Row | None, write: Commit, now: float) -> tuple[Row | None, CommitAnswer]:
    """Persist a reply, by compare-and-set on the consumed token and the acquired `gen`."""
    if row is None:
        return None, Gone(Ended.ABSENT, now)
    record = row.record
    if record.gen == write.attempt:
        return row, Committed(record, now)
    if record.tombstone:
        return row, Gone(record.tombstone, now)
    row = _let_go(row, write.attempt, lease=True)
    record = row.record
    if (record.rt, record.gen) != (write.consumed_rt, write.acquired_gen):
        return row, Changed(record, now)
    record = replace(
        record,
        gen=write.attempt,
        rt=write.rt,
        tokens=write.tokens,
        due=write.due,
        outcome=write.outcome,
        dead="" if record.dead == write.consumed_rt else record.dead,
    )
    return Row(record, row.lease, row.drop_at), Committed(record, now)


def abandon(row: Row | None, attempt: str, outcome: Outcome | None, release: bool, now: float) -> Row | None:
    """Close the own intent; store the outcome if the lease is still ours; give the lease back.

    The verdict on a dead token outranks whatever else its senders were told.
    """
    if row is None or row.record.tombstone:
        return row
    record = row.record
    spoken_of = outcome is not None and outcome.rt == record.rt and not _is_dead(record)
    if spoken_of and _holds(row, attempt, now):
        row = Row(replace(record, outcome=outcome), row.lease, row.drop_at)
    return _let_go(row, attempt, lease=release)


def condemn(
    row: Row | None, attempt: str, gen: str, outcome: Outcome, now: float
) -> tuple[Row | None, CondemnAnswer]:
    """Mark the stored token dead, unless it is another or somebody may still bring its successor."""
    gone = _gone(row, now)
    if row is None or gone is not None:
        return row, gone or Gone(Ended.ABSENT, now)
    record = row.record
    if (record.gen, record.rt) != (gen, outcome.rt):
        return row, Changed(record, now)
    others = unresolved(record, attempt, now)
    if others:
        return row, Unresolved(record, max(intent.at for intent in others) + INTENT_KEEP_S, now)
    row = _let_go(row, attempt, lease=True)
    record = replace(row.record, dead=outcome.rt, outcome=outcome)
    return Row(record, row.lease, row.drop_at), Condemned(record, now)


def identify(row: Row | None, gen: str, who: bytes, who_id: str) -> tuple[Row | None, bool]:
    """Replace the identity, if the tokens are still the ones it was learned with."""
    if row is None or row.record.tombstone or row.record.gen != gen:
        return row, False
    return Row(replace(row.record, who=who, who_id=who_id), row.lease, row.drop_at), True


def touch(row: Row | None, seen: float) -> Row | None:
    """Note activity; time only moves forward."""
    if row is None or row.record.tombstone or seen <= row.record.seen:
        return row
    record = replace(row.record, seen=seen)
    return Row(record, row.lease, record.keep_until)


def end(row: Row | None, reason: str, keep_s: float, now: float) -> tuple[Row | None, Record | None]:
    """Write the tombstone; the first reason stays."""
    if row is None:
        return None, None
    before = row.record
    if before.tombstone:
        return row, before
    record = replace(before, tombstone=reason, intents=())
    return Row(record, None, min(now + keep_s, before.keep_until)), before


def binding(record: Record, now: float) -> Outcome | None:
    """The outcome that forbids sending the stored token now; None if it may be sent."""
    outcome = record.outcome if record.outcome is not None and record.outcome.rt == record.rt else None
    if _is_dead(record):
        return outcome or Outcome(OutcomeKind.DEAD, "", record.rt, "", now)
    return outcome if outcome is not None and now < outcome.not_before else None


def _gone(row: Row | None, now: float) -> Gone | None:
    if row is not None and row.record.tombstone:
        return Gone(row.record.tombstone, now)
    return None


def _is_dead(record: Record) -> bool:
    return bool(record.dead) and record.dead == record.rt


def _holds(row: Row, attempt: str, now: float) -> bool:
    return row.lease is not None and row.lease.attempt == attempt and now < row.lease.until


def _let_go(row: Row, attempt: str, *, lease: bool) -> Row:
    """Without the own intent and, by compare-and-delete, without the own lease.

    The same object if there was neither: nothing to write then.
    """
    intents = tuple(intent for intent in row.record.intents if intent.attempt != attempt)
    record = row.record if len(intents) == len(row.record.intents) else replace(row.record, intents=intents)
    kept = None if lease and row.lease is not None and row.lease.attempt == attempt else row.lease
    if record is row.record and kept is row.lease:
        return row
    return Row(record, kept, row.drop_at)
