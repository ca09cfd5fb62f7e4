"""A session: what the cookie opens, what the store keeps, and what time does to it.

The words are those of the store's record; the meaning of each field is fixed here and
nowhere else. Times are Unix seconds on the **store's** clock, so that replicas whose own
clocks differ agree on them.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Any

import msgspec

INTENT_KEEP_S = 120.0
"""How long an unanswered intent counts. A call ends after 15 s, its one repetition and the
commit are over well inside two minutes; after that nobody can come back with its answer."""

LEASE_S = 20.0
"""Life of a lease between renewals, on the store's clock. Longer than one call (15 s)."""

RENEW_S = 5.0
"""How often a holder renews its lease while a call or a commit is open."""


class OutcomeKind(enum.StrEnum):
    """What the last refresh of a session came to (see `core/token_reply.py` for the classes)."""

    OK = "ok"
    TRANSIENT = "transient"
    AMBIGUOUS = "ambiguous"
    CLIENT = "client"
    INTERACTION = "interaction"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Outcome(msgspec.Struct, frozen=True):
    """The last refresh, as its lease's holder stored it for the others.

    Attributes:
        kind: the class of the reply.
        code: the OP's error code, or a short word of ours (``rotation_lost``, ``timeout``).
        rt: fingerprint of the refresh token it speaks of; it binds nobody once the stored
            token is another.
        attempt: id of the attempt that stored it.
        at: when it was stored.
        not_before: no further attempt with this token before this time; 0 = at once.
        tries: tries in a row that brought nothing, with this token.
        http_status: status of the OP's reply, 0 if there was none.
        ambiguous: an earlier try with this token may have been processed; a later verdict is
            then `rotation_lost`, not a revocation.
        claims: what the OP demands of the next sign-in (see `core.token_reply.Refused`).
    """

    kind: OutcomeKind
    code: str
    rt: str
    attempt: str
    at: float
    not_before: float = 0.0
    tries: int = 0
    http_status: int = 0
    ambiguous: bool = False
    claims: str = ""


class Intent(msgspec.Struct, frozen=True):
    """Somebody was granted the right to send this token and has not said how it went.

    Attributes:
        attempt: id of the attempt.
        holder: the process that holds it; "" once that process is known to be gone.
        rt: fingerprint of the token.
        at: when it was granted.
    """

    attempt: str
    holder: str
    rt: str
    at: float


class Record(msgspec.Struct, frozen=True, gc=False):
    """One session as the store keeps it. Only the two blobs hold anything secret.

    Attributes:
        gen: random id of the attempt whose commit wrote `tokens` (of the login at first).
        rt: fingerprint of the refresh token inside `tokens`; "" if there is none.
        tokens: sealed `Tokens`, bound to the session id and `gen`.
        who: sealed `Identity`, bound to the session id and `who_id`.
        who_id: random id under which `who` is sealed.
        born: time of the login.
        seen: last activity, written at most once a minute.
        end: absolute limit; nothing moves it.
        idle_s: idle limit that applies to this session, seconds.
        due: when a refresh becomes due; 0 = never (no refresh token).
        provider: name of the provider it belongs to.
        config: epoch of the configuration at login.
        intents: granted attempts that nobody answered for yet.
        dead: fingerprint of the token that the OP rejected for good; "" = none. A verdict on
            that token only: a commit that consumed exactly it clears the mark.
        outcome: of the last refresh.
        tombstone: why the session ended; "" while it lives. It refuses every commit.
        user: `user_name` of whose session it is; "" = from before there were indexes.
        op_session: `op_session_name` of the OP's session that it belongs to; "" = none was named. For the
            store's lists: a record that was read need not hold it.
    """

    gen: str
    rt: str
    tokens: bytes
    who: bytes
    who_id: str
    born: float
    seen: float
    end: float
    idle_s: float
    due: float
    provider: str
    config: str
    intents: tuple[Intent, ...] = ()
    dead: str = ""
    outcome: Outcome | None = None
    tombstone: str = ""
    user: str = ""
    op_session: str = ""

    @property
    def keep_until(self) -> float:
        """When the store may forget the record: the idle or the absolute limit."""
        return min(self.end, self.seen + self.idle_s)


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """What the OP issued, as the store keeps it sealed.

    Attributes:
        access_token: opaque to us.
        refresh_token: "" if the OP gave none.
        id_token: the last ID token as received, for `id_token_hint`; "" if none.
        scope: granted scope, space-separated; "" if never said.
        issued_at: when the token *request* was sent.
        expires_at: end of the access token's life, counted from `issued_at`.
        issuer: of the OP that issued them: they go nowhere else.
        client_id: the client they were issued to.
        refresh_until: end of the refresh token's life where the OP told it; 0 = it did not.
    """

    access_token: str
    refresh_token: str
    id_token: str
    scope: str
    issued_at: float
    expires_at: float
    issuer: str
    client_id: str
    refresh_until: float = 0.0

    def __repr__(self) -> str:
        return f"Tokens(expires_at={self.expires_at:.0f}, refreshable={bool(self.refresh_token)})"


class Identity(msgspec.Struct, frozen=True):
    """Who the session belongs to, from the ID token and userinfo.

    Attributes:
        iss: issuer; together with `sub` the only key to a person (OIDC Core §2, §5.7).
        sub: subject.
        email: "" unless it may be shown to the app (an address that the OP calls
            unverified is not).
        email_verified: True only if the OP said so.
        preferred_username: display name for log-in, may change.
        name: display name.
        tenant: the organisation at a provider of many (Entra's `tid`, Google's `hd`), "" = none.
        groups: names of groups, possibly empty.
        groups_at: when `groups` was last learned; None = never.
        sid: the OP's session id, "" if it gave none.
        auth_time: when the person authenticated at the OP, 0 = unknown.
        nonce: of the sign-in; a refreshed ID token may repeat it, never have another.
        claims: further claims that configured headers name.
    """

    iss: str
    sub: str
    email: str = ""
    email_verified: bool = False
    preferred_username: str = ""
    name: str = ""
    groups: tuple[str, ...] = ()
    groups_at: float | None = None
    sid: str = ""
    auth_time: float = 0.0
    nonce: str = ""
    claims: dict[str, Any] = {}
    tenant: str = ""


class Ended(enum.StrEnum):
    """Why a session is no session any more."""

    NO = ""
    ABSENT = "absent"
    IDLE = "idle_limit"
    ABSOLUTE = "absolute_limit"
    SIGNED_OUT = "signed_out"
    SUPERSEDED = "superseded"
    MISMATCH = "identity_mismatch"
    OPERATOR = "ended_by_operator"
    PROVIDER = "signed_out_at_provider"


def ended(record: Record | None, now: float, not_before: float = 0.0) -> str:
    """Say why `record` is no live session at `now`, or "" if it is one.

    A dead refresh token does not end a session here: its access token may still live, and
    a late commit may revive it.

    Args:
        now: Unix seconds, store time.
        not_before: a mark of the operator's: sessions that began before it are over.
    """
    if record is None:
        return Ended.ABSENT
    if record.tombstone:
        return record.tombstone
    if record.born < not_before:
        return Ended.OPERATOR
    if now >= record.end:
        return Ended.ABSOLUTE
    if now >= record.seen + record.idle_s:
        return Ended.IDLE
    return Ended.NO


def store_key(session_id: bytes) -> str:
    """The store's name for a session: SHA-256 of its id, so that a dump names no session."""
    return hashlib.sha256(session_id).hexdigest()


def user_name(iss: str, sub: str) -> str:
    """The store's name for a person: issuer and subject are the only key to one (OIDC Core §5.7)."""
    return _index_name("user", iss, sub)


def op_session_name(iss: str, sid: str) -> str:
    """The store's name for a session at the OP; "" if the OP named none."""
    return _index_name("sid", iss, sid) if sid else ""


def logout_name(iss: str, jti: str) -> str:
    """The store's name for a logout token that was obeyed."""
    return _index_name("jti", iss, jti)


def _index_name(kind: str, iss: str, value: str) -> str:
    parts = (kind.encode(), iss.encode(), value.encode())
    return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in parts)).hexdigest()[:32]


def unresolved(record: Record, attempt: str, now: float) -> tuple[Intent, ...]:
    """Intents of *others* on the stored token whose answer may still come.

    An intent whose process is known to be gone is none of them: nobody can come back with
    its reply. It still makes what follows ambiguous.
    """
    return tuple(
        intent
        for intent in record.intents
        if intent.attempt != attempt
        and intent.rt == record.rt
        and intent.holder
        and now - intent.at < INTENT_KEEP_S
    )
