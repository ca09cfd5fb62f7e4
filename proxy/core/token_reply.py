"""What a reply of the token endpoint means, from its raw status, headers and body.

Raw, because the meaning is in the details that client libraries drop: the status beside
the error code, `Retry-After`, and whether the body is the protocol's at all. The same
judgement serves sign-in and refresh.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, cast

from msgspec import Struct

from proxy.core.discreet import Discreet
from proxy.core.providers import Profile
from proxy.core.session import OutcomeKind

MAX_RETRY_AFTER_S = 3600.0
"""A longer `Retry-After` is cut: an hour without renewal is the OP's outage, not its wish."""

MAX_CLAIMS_CHARS = 2048
"""A longer claims challenge is left out: it is kept with the session and travels in an address."""

_LONG_WORD = re.compile(r"[A-Za-z0-9_.~+/=-]{24,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\.?")
"""Trace and correlation ids, by which a provider's support finds its own logs."""

_SECRET_CODES = frozenset({"invalid_client", "incorrect_client_credentials"})
_TRANSIENT_CODES = frozenset({"temporarily_unavailable", "server_error", "slow_down"})


class RawReply(Discreet, frozen=True):
    """An HTTP reply as it came.

    Attributes:
        status: HTTP status code.
        headers: lower-case field names.
        body: at most the configured answer cap.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Issued(Discreet, frozen=True):
    """The OP issued tokens (RFC 6749 §5.1).

    Attributes:
        access_token: never empty.
        refresh_token: "" if omitted or empty: the old one stays (RFC 6749 §6).
        id_token: "" if there is none.
        scope: "" if it was not said (then it is what was asked, RFC 6749 §5.1).
        expires_in_s: None if missing or no number.
        refresh_expires_in_s: life of the refresh token where the OP tells it (Keycloak, GitHub: no
            standard has it); None where it does not, or where there is no end.
    """

    access_token: str
    refresh_token: str
    id_token: str
    scope: str
    expires_in_s: float | None
    refresh_expires_in_s: float | None = None


class Refused(Struct, frozen=True):
    """The OP issued nothing; `kind` says what that means for the session.

    Attributes:
        kind: TRANSIENT (not processed), AMBIGUOUS (perhaps processed), CLIENT, INTERACTION,
            DEAD or UNKNOWN.
        code: the OP's error code if it is a plain word, else a word of ours.
        http_status: 0 if there was no reply.
        retry_after_s: from `Retry-After`, None if there was none.
        claims: what the OP demands of the next sign-in, as its `claims` parameter takes it (Entra's claims
            challenge, OIDC Core §5.5); "" = nothing.
    """

    kind: OutcomeKind
    code: str
    http_status: int = 0
    retry_after_s: float | None = None
    claims: str = ""


def judge(reply: RawReply, profile: Profile, *, now: float = 0.0) -> Issued | Refused:
    """Say what a token endpoint's reply means. The order of the questions is the rule.

    1. 429, and 408: not processed. 2. A 5xx with protocol JSON: not processed, whatever
    its code (dex answers 500 `invalid_request` when its own database is away). 3. A 5xx
    without it, or any body that is not the protocol's (a WAF page, a captive portal): perhaps
    processed. 4. Protocol JSON with an error: its code decides, at whatever status (GitHub
    refuses with 200, Auth0 with 403). 5. A 2xx with an access token: issued.

    Args:
        reply: as it came.
        profile: whose words count.
        now: Unix seconds, to read a `Retry-After` date with.
    """
    after = retry_after_s(reply.headers.get("retry-after", ""), now)
    if reply.status in (408, 429):
        return Refused(OutcomeKind.TRANSIENT, f"http_{reply.status}", reply.status, after)
    body = _protocol_json(reply)
    if body is None:
        return Refused(OutcomeKind.AMBIGUOUS, "not_the_protocol", reply.status, after)
    code = _error_code(body)
    if reply.status >= 500:
        return Refused(OutcomeKind.TRANSIENT, code or f"http_{reply.status}", reply.status, after)
    if code:
        kind = _kind(code, reply.status, profile)
        demand = _demand(body) if kind is OutcomeKind.INTERACTION else ""
        return Refused(kind, code, reply.status, after, demand)
    if 200 <= reply.status < 300:
        issued = _issued(body)
        if issued is not None:
            return issued
        # A 2xx in JSON without a usable token: the OP may well have rotated.
        return Refused(OutcomeKind.AMBIGUOUS, "no_access_token", reply.status, after)
    if 300 <= reply.status < 400:
        return Refused(OutcomeKind.UNKNOWN, "redirect", reply.status, after)
    return Refused(OutcomeKind.UNKNOWN, f"http_{reply.status}", reply.status, after)


def refuses_secret(reply: RawReply, profile: Profile) -> bool:
    """Whether a reply says that the client did not prove who it is (RFC 6749 §5.2, `invalid_client`).

    Then nothing of the request was processed, and the same one may be sent again with another secret.
    """
    body = _protocol_json(reply)
    if body is None or reply.status >= 500:
        return False
    code = _error_code(body)
    return _refuses_secret(code, reply.status, profile) or (reply.status == 401 and not code)


def own_words(reply: RawReply, token: str) -> str:
    """The OP's own words about a refusal, fit for a log: short, printable, and without anything
    that might be a token. "" if it said nothing.

    "Session not active" or an AADSTS number is what tells an operator which switch it was; but some
    OPs repeat what they were sent.

    Args:
        token: that was presented.
    """
    body = _protocol_json(reply) or {}
    words = body.get("error_description")
    if not isinstance(words, str):
        return ""
    if token:
        words = words.replace(token, "…")
    words = "".join(char if char.isprintable() else " " for char in words[:4096])
    return _LONG_WORD.sub(lambda found: found[0] if _UUID.fullmatch(found[0]) else "…", words)[:300].strip()


def retry_after_s(value: str, now: float) -> float | None:
    """Read `Retry-After` (RFC 9110 §10.2.3): seconds or a date; None if neither. Bounded."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_S)
    if not value:
        return None
    from email.utils import parsedate_to_datetime

    try:
        at = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, min(at - now, MAX_RETRY_AFTER_S))


def life_s(expires_in_s: float | None, *, default_s: float, min_s: float, max_s: float) -> float:
    """The access token's life to reckon with: clamped, so that no reply makes a tight loop
    or a token that never needs renewal.

    A missing, zero, negative or non-finite life is the default: "already expired" would
    renew on every request, "for ever" never (RFC 6749 §5.1 leaves it open).
    """
    if expires_in_s is None or not math.isfinite(expires_in_s) or expires_in_s <= 0:
        return default_s
    return min(max(expires_in_s, min_s), max_s)


def _protocol_json(reply: RawReply) -> dict[str, Any] | None:
    """The body as the protocol's JSON object; None for everything else.

    An empty body of a 4xx counts as "said no, without a word" (some OPs do that): it is
    protocol enough to be UNKNOWN, and no sign of a middlebox.
    """
    if not reply.body.strip():
        return {} if 400 <= reply.status < 500 or 300 <= reply.status < 400 else None
    try:
        body = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {} if 300 <= reply.status < 400 else None
    return cast("dict[str, Any]", body) if isinstance(body, dict) else None


def _error_code(body: dict[str, Any]) -> str:
    """The OP's error code, if it is one: printable ASCII (RFC 6749 §5.2) and short."""
    code = body.get("error")
    if code is None and body.get("ok") is False:  # Slack's envelope
        code = "unknown_error"
    if not isinstance(code, str) or not code:
        return "unreadable_error" if code else ""
    return code if len(code) <= 64 and code.isascii() and code.isprintable() else "unreadable_error"


def _demand(body: dict[str, Any]) -> str:
    """The `claims` of a refusal, if they are a claims request: a JSON object that is short and not empty."""
    said = body.get("claims")
    try:
        demand: object = json.loads(said) if isinstance(said, str) else said
    except (ValueError, RecursionError):
        return ""
    if not isinstance(demand, dict) or not demand:
        return ""
    text = json.dumps(demand, separators=(",", ":"))
    return text if len(text) <= MAX_CLAIMS_CHARS else ""


def _kind(code: str, status: int, profile: Profile) -> OutcomeKind:
    if code in _TRANSIENT_CODES:
        return OutcomeKind.TRANSIENT
    if _refuses_secret(code, status, profile):
        return OutcomeKind.CLIENT
    if code in profile.dead_codes:
        return OutcomeKind.DEAD
    if code in profile.client_codes:
        return OutcomeKind.CLIENT
    if code in profile.interaction_codes:
        return OutcomeKind.INTERACTION
    return OutcomeKind.UNKNOWN


def _refuses_secret(code: str, status: int, profile: Profile) -> bool:
    return code in _SECRET_CODES or (status == 401 and code in profile.secret_codes)


def _issued(body: dict[str, Any]) -> Issued | None:
    access_token = _text(body.get("access_token"))
    if not access_token:
        return None
    return Issued(
        access_token=access_token,
        refresh_token=_text(body.get("refresh_token")),
        id_token=_text(body.get("id_token")),
        scope=_text(body.get("scope")),
        expires_in_s=_number(body.get("expires_in")),
        refresh_expires_in_s=_refresh_life(body),
    )


def _refresh_life(body: dict[str, Any]) -> float | None:
    for name in ("refresh_expires_in", "refresh_token_expires_in"):
        life = _number(body.get(name))
        if life is not None and math.isfinite(life) and life > 0:  # Keycloak: 0 = no end
            return life
    return None


def _text(value: object) -> str:
    """A token as it can travel in a header: visible ASCII, else it is none (RFC 6749 §A)."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        return ""
    return value


def _number(value: object) -> float | None:
    """`expires_in` as a number; old Azure AD sends it as a string."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value if not isinstance(value, str) else value.strip()[:32])
    except (ValueError, OverflowError):
        return None
