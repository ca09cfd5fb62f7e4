"""When to renew, how long things live, how long to wait: time arithmetic and nothing else."""

from __future__ import annotations

import json
from typing import Any, cast

from msgspec import Struct

from proxy.core.providers import Reuse
from proxy.core.seal import unb64
from proxy.core.session import Tokens
from proxy.core.token_reply import Issued, life_s
from proxy.errors import CookieError

JITTER_SHARE = 0.3
"""At most this share of the margin is given away to spread renewals of many sessions."""

FLOOR_S = 10.0
"""Smallest interval between renewals of a session, or half the token's life if that is less
(Entra punishes loops: AADSTS50196)."""


class RefreshPolicy(Struct, frozen=True):
    """How renewals of one provider's sessions are done.

    Attributes:
        reuse: what the OP does with a consumed token.
        margin_s: the window before the end of the token's life opens at most this early.
        margin_share: … and at most this share of the life early.
        call_s: a call is waited for this long; its reply is still read afterwards.
        linger_s: how much longer the connection of a given-up call is read.
        unsent_budget_s: how long provably unsent calls are tried again.
        intent_wait_s: how long a verdict waits for others who may have the successor.
        default_life_s: life of an access token that names none.
        min_life_s: lower clamp of a named life.
        max_life_s: upper clamp of a named life.
        send_scope: send the granted scope along.
    """

    reuse: Reuse = Reuse.UNKNOWN
    margin_s: float = 60.0
    margin_share: float = 0.2
    call_s: float = 15.0
    linger_s: float = 30.0
    unsent_budget_s: float = 4.0
    intent_wait_s: float = 5.0
    default_life_s: float = 3600.0
    min_life_s: float = 1.0
    max_life_s: float = 2_592_000.0
    send_scope: bool = False

    @property
    def repeats_at_once(self) -> bool:
        """Whether a token whose reply was lost may be presented once more at once."""
        return self.reuse is not Reuse.PUNISHED

    @property
    def repeat_is_safe(self) -> bool:
        """Whether a second presentation is known to cost nothing."""
        return self.reuse in (Reuse.NONE, Reuse.GRACE, Reuse.IDEMPOTENT)


def due_at(
    issued_at: float, expires_at: float, jitter: float, policy: RefreshPolicy, refresh_until: float = 0.0
) -> float:
    """When a renewal becomes due: the margin before the end, spread, never below the floor.

    A refresh token that ends before, or not long after, the access token (an idle time-out at the OP
    that is shorter than the token's life) is used at half of its own life: renewals ride on
    requests, and people do not click at the last moment.

    Args:
        issued_at: when the token request was sent, store time.
        expires_at: end of the access token's life.
        jitter: in [0, 1), the session's own.
        refresh_until: end of the refresh token's life; 0 = not told.
    """
    life = expires_at - issued_at
    margin = min(policy.margin_s, policy.margin_share * life)
    due = expires_at - margin * (1.0 - JITTER_SHARE * jitter)
    if refresh_until > issued_at:
        due = min(due, (issued_at + refresh_until) / 2)
    return max(due, issued_at + floor_s(life))


def refresh_until(issued: Issued, sent_at: float) -> float:
    """End of the refresh token's life, counted from when the request was sent; 0 = not told."""
    return sent_at + issued.refresh_expires_in_s if issued.refresh_expires_in_s is not None else 0.0


def floor_s(life: float) -> float:
    """Smallest interval between two renewals for a token of this life, seconds."""
    return min(FLOOR_S, max(life, 0.0) / 2)


def jitter_of(key: str) -> float:
    """The session's own jitter in [0, 1), from its store key."""
    return int(key[:8], 16) / 2**32


def merge(old: Tokens, issued: Issued, sent_at: float, policy: RefreshPolicy) -> Tokens:
    """The tokens after a refresh. What the reply leaves out stays (RFC 6749 §6, OIDC Core §12.2).

    Args:
        old: the stored tokens.
        issued: the reply.
        sent_at: store time at which the request was sent; the life counts from here.
    """
    return Tokens(
        access_token=issued.access_token,
        refresh_token=issued.refresh_token or old.refresh_token,
        id_token=issued.id_token or old.id_token,
        scope=issued.scope or old.scope,
        issued_at=sent_at,
        expires_at=sent_at + token_life_s(issued, policy),
        issuer=old.issuer,
        client_id=old.client_id,
        refresh_until=refresh_until(issued, sent_at),
    )


def token_life_s(issued: Issued, policy: RefreshPolicy) -> float:
    """Life of the new access token: as named, else from its own claims, else the default.

    A JWT's `exp − iat` is only a hint about time here, so no signature is asked for; it is
    used where the OP named no life at all, and clamped like one it had named.
    """
    named = issued.expires_in_s
    if named is None:
        named = _jwt_life_s(issued.access_token)
    return life_s(named, default_s=policy.default_life_s, min_s=policy.min_life_s, max_s=policy.max_life_s)


def _jwt_life_s(token: str) -> float | None:
    parts = token.split(".")
    if len(parts) != 3 or len(parts[1]) > 65536:
        return None
    try:
        claims: object = json.loads(unb64(parts[1].encode()))
    except (ValueError, RecursionError, CookieError):
        return None
    if not isinstance(claims, dict):
        return None
    body = cast("dict[str, Any]", claims)
    exp, iat = body.get("exp"), body.get("iat")
    if isinstance(exp, (int, float)) and isinstance(iat, (int, float)):
        return float(exp) - float(iat)
    return None


def backoff_s(tries: int, spread: float) -> float:
    """Wait after the n-th fruitless try in a row: 1, 2, 4 … 60 s, spread by ± 25 %."""
    return min(60.0, 2.0 ** min(max(tries - 1, 0), 6)) * (0.75 + 0.5 * spread)
