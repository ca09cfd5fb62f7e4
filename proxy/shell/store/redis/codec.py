"""A session's record in Redis: a MessagePack map with short names, and two blobs beside it.

Short names, and one string instead of a hash: Redis spends some 80 bytes on every field of one
that holds anything long. Names that this version does not know are skipped here and kept
by the scripts, so that replicas of two versions can share a session.
"""

from __future__ import annotations

from sys import intern

import msgspec
from msgspec import field

from proxy.core.session import Intent, Outcome, OutcomeKind, Record


class _Intent(msgspec.Struct, frozen=True, array_like=True):
    attempt: str
    holder: str
    rt: str
    at: float


class _Outcome(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    code: str
    rt: str
    attempt: str
    at: float
    not_before: float
    tries: int
    http_status: int
    ambiguous: bool
    claims: str = ""


class _Lease(msgspec.Struct, frozen=True, array_like=True):
    attempt: str
    until: float


class _Meta(msgspec.Struct, frozen=True, omit_defaults=True):
    """The record's map; the scripts know these names, too (`lua/*.lua`)."""

    gen: str = field(name="g")
    rt: str = field(name="r")
    who_id: str = field(name="wi")
    born: float = field(name="b")
    seen: float = field(name="s")
    end: float = field(name="e")
    idle_s: float = field(name="i")
    due: float = field(name="d")
    provider: str = field(name="p")
    config: str = field(name="c", default="")
    intents: tuple[_Intent, ...] = field(name="n", default=())
    dead: str = field(name="x", default="")
    outcome: _Outcome | None = field(name="o", default=None)
    tombstone: str = field(name="z", default="")
    lease: _Lease | None = field(name="l", default=None)
    user: str = field(name="u", default="")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Meta).decode


def pack_record(record: Record) -> bytes:
    """Everything of a new record but its blobs."""
    return _encode(
        _Meta(
            gen=record.gen,
            rt=record.rt,
            who_id=record.who_id,
            born=record.born,
            seen=record.seen,
            end=record.end,
            idle_s=record.idle_s,
            due=record.due,
            provider=record.provider,
            config=record.config,
            intents=tuple(_Intent(i.attempt, i.holder, i.rt, i.at) for i in record.intents),
            dead=record.dead,
            outcome=None if record.outcome is None else _outcome(record.outcome),
            tombstone=record.tombstone,
            user=record.user,
        )
    )


def pack_outcome(outcome: Outcome) -> bytes:
    """An outcome as the scripts store it."""
    return _encode(_outcome(outcome))


def _outcome(outcome: Outcome) -> _Outcome:
    return _Outcome(
        str(outcome.kind),
        outcome.code,
        outcome.rt,
        outcome.attempt,
        outcome.at,
        outcome.not_before,
        outcome.tries,
        outcome.http_status,
        outcome.ambiguous,
        outcome.claims,
    )


def unpack_record(meta: bytes, tokens: bytes, who: bytes) -> Record:
    """The record as a script answered it.

    Raises:
        msgspec.DecodeError: something else wrote under this key.
    """
    found = _decode(meta)
    outcome = found.outcome
    return Record(
        gen=found.gen,
        rt=found.rt,
        tokens=tokens,
        who=who,
        who_id=found.who_id,
        born=found.born,
        seen=found.seen,
        end=found.end,
        idle_s=found.idle_s,
        due=found.due,
        provider=intern(found.provider),  # few values, in every session that is open
        config=intern(found.config),
        intents=tuple(Intent(i.attempt, i.holder, i.rt, i.at) for i in found.intents),
        dead=found.dead,
        outcome=None
        if outcome is None
        else Outcome(
            _kind(outcome.kind),
            outcome.code,
            outcome.rt,
            outcome.attempt,
            outcome.at,
            outcome.not_before,
            outcome.tries,
            outcome.http_status,
            outcome.ambiguous,
            outcome.claims,
        ),
        tombstone=found.tombstone,
        user=found.user,
    )


def lease_until(meta: bytes) -> float:
    """Store time until which somebody holds the lease; 0 = nobody."""
    lease = _decode(meta).lease
    return lease.until if lease is not None else 0.0


def _kind(word: str) -> OutcomeKind:
    """A class of outcomes that only a newer version knows is handled like an unknown reply."""
    try:
        return OutcomeKind(word)
    except ValueError:
        return OutcomeKind.UNKNOWN
