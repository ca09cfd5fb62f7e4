"""What a renewal may ask for, what may happen to it, and how it may end: plain values.

`core/refresh.py` turns events into steps; `shell/single_flight.py` carries the steps out.
"""

from __future__ import annotations

from msgspec import Struct

from proxy.core.answers import Changed, Committed, Condemned, FailedLately, Gone, Granted, Held, Unresolved
from proxy.core.discreet import Discreet
from proxy.core.session import Outcome, Record, Tokens
from proxy.core.token_reply import Issued, Refused

# --- what to do next -----------------------------------------------------------------------


class Connect(Struct, frozen=True):
    """Open a fresh connection to the token endpoint, closing the one before.

    → Connected | NotSent | Reply (the one before had answered after all)
    """


class Acquire(Struct, frozen=True):
    """Ask the store for the lease with what was read. → an answer of the store | StoreFailed"""

    gen: str
    rt: str


class Renew(Struct, frozen=True):
    """Extend the lease now. → Renewed | StoreFailed"""


class Send(Discreet, frozen=True):
    """Check the lease and send the token. → Reply | NotSent | Lost | TimedOut (after `for_s`)"""

    refresh_token: str
    scope: str
    for_s: float


class Linger(Struct, frozen=True):
    """Announce `result` to whoever waits, and read on. → Reply | Lost | TimedOut (after `for_s`)"""

    result: Result
    for_s: float


class Persist(Struct, frozen=True):
    """Commit. → Committed | Changed | Gone | StoreFailed"""

    tokens: Tokens
    consumed_rt: str
    acquired_gen: str


class Release(Struct, frozen=True):
    """Close the own intent, store `outcome`; with `lease` give the lease back. → Released | StoreFailed"""

    outcome: Outcome | None
    lease: bool = True


class Condemn(Struct, frozen=True):
    """Mark the token dead by compare-and-set. → Condemned | Unresolved | Changed | Gone | StoreFailed"""

    gen: str
    outcome: Outcome


class Peek(Struct, frozen=True):
    """Hang up, wait `for_s` or until the record changes, and read it. → Seen | Gone | StoreFailed"""

    for_s: float


class Wait(Struct, frozen=True):
    """Wait; if `announce` is set, tell whoever waits first. → Woke"""

    for_s: float
    announce: Result | None = None


class Revoke(Discreet, frozen=True):
    """Send a token to the revocation endpoint, best effort. → Released"""

    token: str
    access_token: str = ""


class Done(Struct, frozen=True):
    """The attempt is over."""

    result: Result


Step = Connect | Acquire | Renew | Send | Linger | Persist | Release | Condemn | Peek | Wait | Revoke | Done

# --- what happened (beside the store's own answers) ------------------------------------------


class Connected(Struct, frozen=True):
    """The connection stands."""


class NotSent(Struct, frozen=True):
    """Provably no byte of the token left. `lease_lost`: because the lease was not ours any more."""

    detail: str
    lease_lost: bool = False


class Reply(Struct, frozen=True):
    """The token endpoint answered; `sent_at` = store time at which the request was sent."""

    judged: Issued | Refused
    sent_at: float


class Lost(Struct, frozen=True):
    """Bytes left, and the connection broke without a reply."""

    detail: str


class TimedOut(Struct, frozen=True):
    """No reply yet; the connection is still open."""


class Renewed(Struct, frozen=True):
    """Whether the lease is still ours."""

    ours: bool


class Released(Struct, frozen=True):
    """Done, as far as it could be."""


class Seen(Struct, frozen=True):
    """The record as it is now."""

    record: Record


class Woke(Struct, frozen=True):
    """The wait is over."""


class StoreFailed(Struct, frozen=True):
    """The store did not answer; the operation may have happened."""

    detail: str


class GrantedTokens(Struct, frozen=True):
    """The lease is ours; `tokens` were opened from the record that the grant came with."""

    granted: Granted
    tokens: Tokens


Event = (
    Connected
    | NotSent
    | Reply
    | Lost
    | TimedOut
    | Renewed
    | Released
    | Seen
    | Woke
    | StoreFailed
    | GrantedTokens
    | Changed
    | Held
    | FailedLately
    | Gone
    | Committed
    | Condemned
    | Unresolved
)

# --- how it ended ---------------------------------------------------------------------------


class Refreshed(Discreet, frozen=True):
    """New tokens, durable."""

    record: Record
    tokens: Tokens
    id_token: str
    """The ID token that came with *this* reply; "" if none did."""


class Unsaved(Discreet, frozen=True):
    """New tokens that the store has not taken yet: this replica goes on with them."""

    tokens: Tokens
    id_token: str


class Adopted(Struct, frozen=True):
    """Somebody else renewed: here is the record."""

    record: Record


class Kept(Struct, frozen=True):
    """No new tokens, the session stays as it is; `outcome.not_before` says when to try again."""

    outcome: Outcome


class Dead(Struct, frozen=True):
    """The OP ended the grant (or `rotation_lost`): the stored refresh token is of no use."""

    record: Record
    outcome: Outcome


class Over(Struct, frozen=True):
    """There is no session any more."""

    reason: str


Result = Refreshed | Unsaved | Adopted | Kept | Dead | Over
