"""Logout between us and the OP.

RP-initiated: where the browser goes to end the OP's session too (OIDC RP-Initiated Logout §2).
Back-channel: what a logout token must say, once its signature holds (OIDC Back-Channel Logout §2.6).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlencode, urlsplit, urlunsplit

from msgspec import Struct

from proxy.core.id_token import numeric_date
from proxy.core.metadata import Metadata
from proxy.core.providers import Profile, Reach, Revocation
from proxy.core.seal import unb64
from proxy.core.session import Tokens
from proxy.errors import CookieError, IdTokenRejected

MAX_HINT_CHARS = 8192
"""A longer `id_token_hint` is left out: no OP reads a request line that long; `client_id` remains."""

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

MAX_TOKEN_AGE_S = 600.0
"""A logout token without `exp` is obeyed for this long after its `iat`."""

MAX_TOKEN_LIFE_S = 86_400.0
"""However late its `exp`: until then it must be remembered, so that it works once."""


def end_session_url(
    metadata: Metadata,
    profile: Profile,
    *,
    id_token: str,
    client_id: str,
    return_to: str,
    state: str,
) -> str:
    """The OP's logout address with our parameters; "" if it has none or the profile knows better.

    Args:
        id_token: `id_token_hint`; left out when there is none, or one with too many groups in it.
        return_to: registered post-logout URL.
        state: comes back with the browser; nothing is ever taken from it.
    """
    if not 0 < len(id_token) <= MAX_HINT_CHARS:
        id_token = ""
    if not metadata.end_session_endpoint and profile.own_logout is not None:
        parts = urlsplit(metadata.authorization_endpoint)
        query = urlencode({"client_id": client_id, profile.own_logout.return_parameter: return_to})
        return urlunsplit((parts.scheme, parts.netloc, profile.own_logout.path, query, ""))
    if not metadata.end_session_endpoint or not profile.end_session:
        return ""
    if profile.logout_needs_hint and not id_token:
        return ""  # it would only show an error page
    params = {"client_id": client_id, "post_logout_redirect_uri": return_to, "state": state}
    if id_token:
        params = {"id_token_hint": id_token, **params}
    parts = urlsplit(metadata.end_session_endpoint)
    query = f"{parts.query}&{urlencode(params)}" if parts.query else urlencode(params)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def post_logout_target(asked: str, allowed: Sequence[str], default: str) -> str:
    """The asked-for page if it is in the allow-list, exactly; else our own signed-out page."""
    return asked if asked and asked in allowed else default


def given_back(profile: Profile, tokens: Tokens) -> tuple[str, str] | None:
    """The token to give back at the end of a session and its RFC 7009 hint; None = nothing can be."""
    match profile.revocation:
        case Revocation.NONE:
            return None
        case Revocation.API_DELETE:
            return tokens.access_token, "access_token"
        case _:
            return (tokens.refresh_token, "refresh_token") if tokens.refresh_token else None


def may_revoke(reach: Reach, *, ends_at_op: bool) -> bool:
    """Whether giving tokens back ends nobody else's session.

    Args:
        ends_at_op: the person's session at the OP is being ended anyway.
    """
    return reach in (Reach.TOKEN, Reach.SIGN_IN) or (reach is Reach.SESSION and ends_at_op)


class LogoutToken(Struct, frozen=True):
    """What a back-channel logout token ends.

    Attributes:
        iss: issuer.
        sub: subject, "" if it names none; with `sid` = "" all sessions of that person end.
        sid: the OP's session id, "" if it names none.
        jti: to be remembered until `until`: a token works once.
        until: Unix seconds; afterwards the token is too old anyway.
    """

    iss: str
    sub: str
    sid: str
    jti: str
    until: float


def read_logout_token(
    header: Mapping[str, Any],
    claims: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    skew_s: float,
    now: float,
) -> LogoutToken:
    """Check a logout token's claims.

    Args:
        header: the verified JOSE header.
        claims: the verified claims.
        now: Unix seconds.

    Raises:
        IdTokenRejected: `code` names the first check that failed.
    """
    if str(header.get("typ", "JWT")).lower() not in ("logout+jwt", "jwt"):
        raise IdTokenRejected("typ", detail="no logout token")
    if claims.get("iss") != issuer:
        raise IdTokenRejected("iss", detail="a logout token of another issuer")
    aud: object = claims.get("aud")
    if client_id not in (cast("list[object]", aud) if isinstance(aud, list) else [aud]):
        raise IdTokenRejected("aud", detail="a logout token for another client")
    events: object = claims.get("events")
    if not isinstance(events, dict) or not isinstance(
        cast("dict[str, object]", events).get(LOGOUT_EVENT), dict
    ):
        raise IdTokenRejected("events", detail="not the back-channel logout event")
    if "nonce" in claims:
        # §2.4: prohibited, so that no ID token can be passed off as a logout token.
        raise IdTokenRejected("nonce", detail="a logout token has no nonce")
    iat, exp = numeric_date(claims, "iat"), numeric_date(claims, "exp")
    if iat is None:
        raise IdTokenRejected("iat", detail="iat is missing")
    last = min(exp, iat + MAX_TOKEN_LIFE_S) if exp is not None else iat + MAX_TOKEN_AGE_S
    until = last + skew_s
    if not iat - skew_s <= now < until:
        raise IdTokenRejected("exp", detail=f"iat {iat:.0f}, valid until {until:.0f}, our clock {now:.0f}")
    sub, sid, jti = (claims.get(name, "") for name in ("sub", "sid", "jti"))
    if not (isinstance(sub, str) and isinstance(sid, str) and (sub or sid)):
        raise IdTokenRejected("sub", detail="neither sub nor sid")
    if not isinstance(jti, str) or not 0 < len(jti) <= 255:
        raise IdTokenRejected("jti", detail="jti is missing")
    return LogoutToken(issuer, sub, sid, jti, until)


def addressed(raw: str) -> tuple[str, list[object]]:
    """Whose and for whom a logout token says it is: `iss` and `aud`, unverified; "" and [] if unreadable.

    To choose the provider that is to verify it, and for nothing else.
    """
    parts = raw.split(".")
    if len(parts) != 3:
        return "", []
    try:
        claims: object = json.loads(unb64(parts[1].encode()))
    except (ValueError, RecursionError, CookieError):
        return "", []
    if not isinstance(claims, dict):
        return "", []
    said = cast("dict[str, object]", claims)
    iss, aud = said.get("iss"), said.get("aud")
    audience = cast("list[object]", aud) if isinstance(aud, list) else [aud]
    return (iss if isinstance(iss, str) else ""), audience
