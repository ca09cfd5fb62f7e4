"""What a reading of the store means for a session, whoever asked for it: a request, or an open stream."""

from __future__ import annotations

from msgspec import Struct

from proxy.core.answers import Snapshot
from proxy.core.session import Ended, Record, ended


class Known(Struct, frozen=True):
    """What this process knows of a session beside the store.

    Attributes:
        ends_at: its absolute limit by its cookie, store time.
        record: as last seen here; None = it is not open here.
        refused: why it is over although the store cannot say so yet; "" = it is not.
        unjudged: its new tokens are stored, and still being checked.
    """

    ends_at: float
    record: Record | None = None
    refused: str = ""
    unjudged: bool = False


class Take(Struct, frozen=True):
    """The session lives: go on with this record."""

    record: Record


class Wait(Struct, frozen=True):
    """The session lives, but its record holds tokens that nobody has looked at: go on with the ones before.

    They are good while they live; whoever finds them expired joins the renewal, and hears what
    became of it. The next request reads again.
    """


class Over(Struct, frozen=True):
    """There is no session any more.

    Attributes:
        reason: a word of `Ended`; ABSENT where there is no telling.
        give_back: the record, where neither its browser nor a limit ended it: whoever can open its tokens
            gives them back.
    """

    reason: str
    give_back: Record | None = None


Reading = Take | Wait | Over


def judge(snapshot: Snapshot, known: Known) -> Reading:
    """Say what becomes of the session.

    Args:
        snapshot: what the store holds, on its time.
        known: what this process knows beside it.
    """
    record, now = snapshot.record, snapshot.now
    why = known.refused or ended(record, now, snapshot.not_before)
    if record is not None and _from_outside(why, record):
        return Over(why, record)
    if why == Ended.ABSENT and known.record is not None:
        why = ended(known.record, now) or why  # stores forget what is over
    if why in (Ended.NO, Ended.ABSENT) and now >= known.ends_at:
        why = Ended.ABSOLUTE
    if why or record is None:
        return Over(why)
    if known.unjudged and known.record is not None:
        return Wait()
    return Take(record)


def _from_outside(why: str, record: Record) -> bool:
    """Whether tokens are still to be given back. A tombstone of the operator's is written by whoever does."""
    return why == Ended.PROVIDER or (why == Ended.OPERATOR and not record.tombstone)
