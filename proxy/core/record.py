"""The rules of the session store: what each operation does to one row.

A row is an `Entry`: the record, its lease, and when the store may forget it. Every
operation on it is a pure function `(entry, arguments, now) -> Step`; a store only brings
the row, writes back the new one and hands the answer on. The embedded stores call these
functions; the Redis scripts say the same in Lua and are held against them.

An entry that is absent, or whose `keep_until` has passed, comes in as None (`living`).
A `Step` whose `entry` is the very object that came in changes nothing and needs no write.
No rule deletes a row: rows end by `keep_until` alone.
"""

from __future__ import annotations

import enum

import msgspec
from msgspec.structs import replace

from proxy.core.session import INTENT_KEEP_S, Intent, Outcome, OutcomeKind, Record, unresolved


class Lease(msgspec.Struct, frozen=True):
    """The right to send the stored token.

    Attributes:
        attempt: who holds it.
        until: first moment at which it is nobody's.
    """

    attempt: str
    until: float


class Entry(msgspec.Struct, frozen=True):
    """One row of a store.

    Attributes:
        record: the session.
        keep_until: first moment at which the row counts as absent. While the session lives:
            the record's own `keep_until`; behind a tombstone: what `end` set, for good.
        lease: the last lease taken and not given back, live or run out; None = none.
    """

    record: Record
    keep_until: float
    lease: Lease | None = None


class Word(enum.StrEnum):
    """What an operation answers; the Redis scripts answer with the same words."""

    DONE = "done"
    NO = "no"
    GRANTED = "granted"
    CHANGED = "changed"
    HELD = "held"
    FAILED_LATELY = "failed_lately"
    GONE = "gone"
    COMMITTED = "committed"
    CONDEMNED = "condemned"
    UNRESOLVED = "unresolved"
    EXISTS = "exists"


class Step(msgspec.Struct, frozen=True):
    """What became of a row, and the answer.

    Attributes:
        entry: the row afterwards; the same object as before if nothing changed.
        word: the answer.
        tell: whether listeners must hear of it.
        reason: with GONE, why.
        at: with HELD, the end of the lease; with UNRESOLVED, when the last intent stops counting.
        outcome: with FAILED_LATELY, the one to adopt.
    """

    entry: Entry | None
    word: Word
    tell: bool = False
    reason: str = ""
    at: float = 0.0
    outcome: Outcome | None = None


def living(entry: Entry | None, now: float) -> Entry | None:
    """The entry, or None once the store may forget it."""
    return entry if entry is not None and now < entry.keep_until else None


def lease_of(entry: Entry, now: float) -> str:
    """The attempt that holds a live lease, "" if nobody does."""
    return entry.lease.attempt if entry.lease is not None and now < entry.lease.until else ""


def gone(entry: Entry | None) -> str:
    """Why there is no session to work on, "" if there is one."""
    return "absent" if entry is None else entry.record.tombstone


def create(entry: Entry | None, now: float, record: Record) -> Step:
    """A new row. The same login asked again has landed before; another's key is refused."""
    if entry is None:
        return Step(Entry(record, record.keep_until), Word.DONE)
    return Step(entry, Word.DONE if entry.record.gen == record.gen else Word.EXISTS)


def acquire(
    entry: Entry | None, now: float, *, attempt: str, holder: str, gen: str, rt: str, lease_s: float
) -> Step:
    """Take the lease and note the intent, or say why not; the order of the checks matters.

    Asked again by the holder, the lease and the intent start anew: the caller's deadline
    counts from its last question, the store's must not end before that.
    """
    if entry is None or entry.record.tombstone:
        return Step(entry, Word.GONE, reason=gone(entry))
    record = entry.record
    if record.gen != gen or record.rt != rt:
        return Step(entry, Word.CHANGED)
    owner = lease_of(entry, now)
    if owner != attempt:
        if owner:
            return Step(entry, Word.HELD, at=entry.lease.until if entry.lease else now)
        outcome = binding(record, now)
        if outcome is not None:
            return Step(entry, Word.FAILED_LATELY, outcome=outcome)
    intents = tuple(
        intent for intent in record.intents if intent.attempt != attempt and now - intent.at < INTENT_KEEP_S
    )
    intents += (Intent(attempt, holder, rt, now),)
    entry = replace(entry, record=replace(record, intents=intents), lease=Lease(attempt, now + lease_s))
    return Step(entry, Word.GRANTED)


def binding(record: Record, now: float) -> Outcome | None:
    """The stored outcome that forbids sending the stored token now, if there is one."""
    outcome = record.outcome if record.outcome is not None and record.outcome.rt == record.rt else None
    if record.dead and record.dead == record.rt:
        return outcome or Outcome(OutcomeKind.DEAD, "", record.rt, "", now)
    return outcome if outcome is not None and now < outcome.not_before else None


def renew(entry: Entry | None, now: float, *, attempt: str, lease_s: float) -> Step:
    """Extend the own live lease. One that ran out is gone even if nobody took it since."""
    if entry is None or lease_of(entry, now) != attempt:
        return Step(entry, Word.NO)
    return Step(replace(entry, lease=Lease(attempt, now + lease_s)), Word.DONE)


def commit(
    entry: Entry | None,
    now: float,
    *,
    attempt: str,
    consumed_rt: str,
    acquired_gen: str,
    tokens: bytes,
    rt: str,
    due: float,
    outcome: Outcome,
) -> Step:
    """Persist a reply if the token that it consumed is still the stored one. No lease asked for."""
    if entry is None:
        return Step(entry, Word.GONE, reason=gone(entry))
    record = entry.record
    if record.gen == attempt:
        return Step(entry, Word.COMMITTED)
    if record.tombstone:
        return Step(entry, Word.GONE, reason=gone(entry))
    if record.rt != consumed_rt or record.gen != acquired_gen:
        return Step(_settle(entry, attempt), Word.CHANGED)
    entry = _settle(entry, attempt)
    record = replace(
        entry.record,
        gen=attempt,
        rt=rt,
        tokens=tokens,
        due=due,
        outcome=outcome,
        dead="" if record.dead == consumed_rt else record.dead,
    )
    return Step(replace(entry, record=record), Word.COMMITTED, tell=True)


def abandon(entry: Entry | None, now: float, *, attempt: str, outcome: Outcome | None, release: bool) -> Step:
    """Close the own intent, and the own lease if asked to.

    A dead mark outranks every later outcome of the same token: its own stays.
    """
    if entry is None or entry.record.tombstone:
        return Step(entry, Word.DONE)
    mine = lease_of(entry, now) == attempt
    settled = _settle(entry, attempt, release=release)
    record = settled.record
    if outcome is not None and mine and outcome.rt == record.rt and not (record.dead and record.dead == record.rt):
        settled = replace(settled, record=replace(record, outcome=outcome))
    return Step(settled, Word.DONE)


def condemn(entry: Entry | None, now: float, *, attempt: str, gen: str, outcome: Outcome) -> Step:
    """Mark the stored token dead, unless it is another by now or somebody may still bring an answer."""
    if entry is None or entry.record.tombstone:
        return Step(entry, Word.GONE, reason=gone(entry))
    record = entry.record
    if record.gen != gen or record.rt != outcome.rt:
        return Step(entry, Word.CHANGED)
    others = unresolved(record, attempt, now)
    if others:
        return Step(entry, Word.UNRESOLVED, at=max(intent.at for intent in others) + INTENT_KEEP_S)
    entry = _settle(entry, attempt)
    record = replace(entry.record, dead=outcome.rt, outcome=outcome)
    return Step(replace(entry, record=record), Word.CONDEMNED, tell=True)


def identify(entry: Entry | None, now: float, *, gen: str, who: bytes, who_id: str) -> Step:
    """Replace what is known of the person, if the tokens it was learned with are still the stored ones."""
    if entry is None or entry.record.tombstone or entry.record.gen != gen:
        return Step(entry, Word.NO)
    record = replace(entry.record, who=who, who_id=who_id)
    return Step(replace(entry, record=record), Word.DONE, tell=True)


def touch(entry: Entry | None, now: float, *, seen: float) -> Step:
    """Note activity, and with it a later idle limit."""
    if entry is None or entry.record.tombstone or seen <= entry.record.seen:
        return Step(entry, Word.DONE)
    record = replace(entry.record, seen=seen)
    return Step(replace(entry, record=record, keep_until=record.keep_until), Word.DONE)


def end(entry: Entry | None, now: float, *, reason: str, keep_s: float) -> Step:
    """Write the tombstone; the first one stays as it is, its time to live too."""
    if entry is None or entry.record.tombstone:
        return Step(entry, Word.DONE)
    record = replace(entry.record, tombstone=reason, intents=())
    return Step(Entry(record, min(now + keep_s, record.keep_until)), Word.DONE, tell=True)


def orphan(entry: Entry) -> Entry:
    """The entry after a restart of the one process that used it.

    Whoever held the lease is provably gone. Intents stay, without a holder: the request may
    have been processed, and nobody will come back with its reply.
    """
    intents = tuple(replace(intent, holder="") for intent in entry.record.intents)
    return replace(entry, record=replace(entry.record, intents=intents), lease=None)


def _settle(entry: Entry, attempt: str, *, release: bool = True) -> Entry:
    """Without the attempt's intent and, with `release`, its lease: compare-and-delete, never another's."""
    record = entry.record
    if any(intent.attempt == attempt for intent in record.intents):
        record = replace(record, intents=tuple(i for i in record.intents if i.attempt != attempt))
    lease = None if release and entry.lease is not None and entry.lease.attempt == attempt else entry.lease
    if record is entry.record and lease is entry.lease:
        return entry
    return replace(entry, record=record, lease=lease)
