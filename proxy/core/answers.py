"""What is asked of a session store and what it may answer: plain values.

They live in the core because the refresh machine reads them; the store's contract
(`shell/store/contract.py`) says which operation gives which.
"""

from __future__ import annotations

from msgspec import Struct

from proxy.core.session import Outcome, Record


class Snapshot(Struct, frozen=True):
    """What a read saw: the record (None = not there) at store time `now`.

    `not_before` is the latest mark that concerns it: a session that began earlier is over.
    """

    record: Record | None
    now: float
    not_before: float = 0.0


class Ask(Struct, frozen=True):
    """Arguments of acquire.

    Attributes:
        attempt: random id, new for each attempt; the same id asked again is granted again.
        holder: id of this process.
        gen: `gen` that the caller read.
        rt: `rt` that the caller read.
        lease_s: life of the lease.
        durable: a lost lease could cost the session: it counts only once the store's replicas have it
            (where there are any, and the operator wants it).
    """

    attempt: str
    holder: str
    gen: str
    rt: str
    lease_s: float
    durable: bool = False


class Granted(Struct, frozen=True):
    """The lease is yours, an intent was added. The token to send comes from this record.

    `record.intents` holds the caller's own intent too.
    """

    record: Record
    now: float


class Changed(Struct, frozen=True):
    """`gen` or `rt` is not what the caller read: adopt this record."""

    record: Record
    now: float


class Held(Struct, frozen=True):
    """Somebody else holds the lease, for `for_s` more seconds."""

    for_s: float
    now: float


class FailedLately(Struct, frozen=True):
    """An outcome for exactly this token still holds: adopt it (dead: as long as `rt` stays)."""

    outcome: Outcome
    record: Record
    now: float


class Gone(Struct, frozen=True):
    """No such session (`reason` = "absent") or a tombstone (its reason)."""

    reason: str
    now: float


class Commit(Struct, frozen=True):
    """Arguments of commit: the new tokens, sealed, and what they consumed.

    Attributes:
        attempt: becomes `gen`.
        consumed_rt: fingerprint of the refresh token that was sent.
        acquired_gen: `gen` of the granted record.
        tokens: blob sealed for `attempt`.
        rt: fingerprint of the refresh token inside.
        due: when the next refresh becomes due.
        outcome: to store (kind OK).
    """

    attempt: str
    consumed_rt: str
    acquired_gen: str
    tokens: bytes
    rt: str
    due: float
    outcome: Outcome


class Committed(Struct, frozen=True):
    """Our tokens are the stored ones: written now, or found to have landed before."""

    record: Record
    now: float


class Condemned(Struct, frozen=True):
    """The stored token is now marked dead."""

    record: Record
    now: float


class Unresolved(Struct, frozen=True):
    """Others may still bring an answer for this token: no verdict yet.

    `until` = store time at which the last of those intents stops counting.
    """

    record: Record
    until: float
    now: float


class Tally(Struct, frozen=True):
    """How many live sessions have these properties in common.

    Attributes:
        provider: name of the provider.
        config: epoch of the configuration at their login.
        refreshable: whether they hold a refresh token.
        count: how many there are.
    """

    provider: str
    config: str
    refreshable: bool
    count: int


AcquireAnswer = Granted | Changed | Held | FailedLately | Gone
"""What acquire answers."""

CommitAnswer = Committed | Changed | Gone
"""What commit answers."""

CondemnAnswer = Condemned | Unresolved | Changed | Gone
"""What condemn answers."""
