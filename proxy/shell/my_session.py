"""The session as its own person may see it: JSON for single-page apps. Never a token."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from proxy.core.gate import Standing
from proxy.errors import SessionGone
from proxy.shell.desk import Visit
from proxy.shell.keeper import RefreshResult
from proxy.shell.open_session import OpenSession
from proxy.shell.pages import Link, Page
from proxy.shell.sign_out import Asker

_STATUS = {"refreshed": 200, "still_fresh": 200, "too_soon": 200, "unavailable": 503, "ended": 401}


async def show(visit: Visit) -> Response:
    """`GET session`: who, and how long what lasts."""
    session = await visit.session()
    if session is None:
        return nobody(visit)
    return visit.json(200, _told(visit, session, visit.desk.now()))


async def refresh(visit: Visit) -> Response:
    """`POST session/refresh`: renew the tokens now, with the floor between two renewals."""
    if not Asker.of(visit).same_origin(visit.desk.origins.known, form_token=lambda: False):
        visit.desk.event("refresh_refused", request=visit.request_id)
        return visit.page(
            Page(403, "not_same_origin", "That did not come from here", "Nothing was done.", sign="key")
        )
    session = await visit.session()
    if session is None:
        return nobody(visit)
    result = await visit.desk.keeper.force(session)
    if result.word == "unavailable":
        return not_just_now(visit, result)
    if result.word == "ended":
        return nobody(visit, result.reason)
    told: dict[str, Any] = {"result": result.word}
    if result.retry_after_s:
        told["retry_after_s"] = result.retry_after_s
    return visit.json(_STATUS[result.word], told | _told(visit, session, visit.desk.now()))


def not_just_now(visit: Visit, result: RefreshResult) -> Response:
    """503: the session is kept, but its tokens could not be renewed."""
    return visit.page(
        Page(
            503,
            result.reason or "unavailable",
            "The session cannot be renewed just now",
            "The session is kept.",
            "Try again after a moment.",
            sign="clock",
            retry_after_s=result.retry_after_s,
        )
    )


def nobody(visit: Visit, reason: str = "") -> Response:
    """401: there is no session, or it ended for a reason."""
    page = Page(
        401,
        reason or "no_session",
        "You are not signed in",
        SessionGone("").message if reason else "There is no session in this browser.",
        sign="shut",
        links=(Link("Sign in", visit.address("login")),),
    )
    challenge = f'Nightporter realm="sign-in", login="{visit.path("login")}"'.encode()
    return visit.page(page, more=[(b"WWW-Authenticate", challenge)])


def _told(visit: Visit, session: OpenSession, now: float) -> dict[str, Any]:
    """Seconds are counted from now, so that no clock of the reader's has a part in it."""
    identity, record, tokens = session.identity, session.record, session.tokens
    standing = visit.desk.keeper.standing(session)
    refreshable = bool(tokens.refresh_token) and not (record.dead and record.dead == record.rt)
    next_at = max(record.due, visit.desk.keeper.retry_at(session))
    outcome = record.outcome
    return {
        "user": identity.sub,
        "email": identity.email or None,
        "email_verified": identity.email_verified,
        "preferred_username": identity.preferred_username or None,
        "preferredUsername": identity.preferred_username or None,  # as oauth2-proxy's userinfo spells it
        "name": identity.name or None,
        "groups": list(identity.groups),
        "issuer": identity.iss,
        "provider": record.provider,
        "signed_in": standing is not Standing.SPENT,
        "ends_in_s": _left(record.end, now),
        "idles_out_in_s": _left(record.seen + record.idle_s, now),
        "access_token": {
            "expires_in_s": _left(tokens.expires_at, now),
            "next_refresh_in_s": _left(next_at, now) if refreshable and record.due else None,
            "refreshable": refreshable,
        },
        "last_refresh": None
        if outcome is None
        else {"outcome": outcome.kind.value, "code": outcome.code, "ago_s": max(0, round(now - outcome.at))},
    }


def _left(at: float, now: float) -> int:
    return max(0, int(at - now))
