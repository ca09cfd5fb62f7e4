"""What a person is told when a sign-in does not work, and what is written down about it."""

from __future__ import annotations

from typing import Any

from proxy.core.login import Flow
from proxy.core.session import Identity, OutcomeKind
from proxy.core.token_reply import Refused
from proxy.errors import LoginError, ProxyError
from proxy.shell.desk import Visit
from proxy.shell.pages import Link, Page

RETRY_S = 5
"""Suggested where nobody said how long an outage lasts."""

STALE = frozenset({"flow_unknown", "flow_spent", "flow_too_old"})
"""What an old or doubled callback address comes to: home, if home is open."""


def failed(visit: Visit, error: ProxyError, return_to: str) -> Page:
    """Write a failure down and say it.

    Args:
        return_to: where the sign-in was to lead: the next one leads there, too.
    """
    code = getattr(error, "code", "") or type(error).__name__
    visit.desk.event(
        "login_failed", request=visit.request_id, code=code, status=error.status, detail=error.detail
    )
    return _page(visit, error, return_to)


def refused(verdict: Refused) -> LoginError:
    """The token endpoint's refusal, as what it means to the person who is waiting."""
    detail = f"token endpoint: {verdict.kind} {verdict.code} {verdict.http_status}"
    match verdict.kind:
        case OutcomeKind.TRANSIENT | OutcomeKind.AMBIGUOUS:
            return LoginError(
                "op_unavailable",
                "The identity provider could not finish the sign-in at the moment.",
                status=503,
                detail=detail,
            )
        case OutcomeKind.DEAD:
            return LoginError("code_refused", "", detail=detail)
        case _:
            return LoginError(
                "op_refused",
                "The identity provider refused to finish the sign-in. If that stays so, tell the operator "
                "the request id.",
                status=502,
                detail=detail,
            )


def not_allowed(visit: Visit, identity: Identity, claims: dict[str, Any], flow: Flow) -> Page:
    """The account is not on the list; another one may be."""
    shown = [identity.email, claims.get("email"), identity.preferred_username, identity.name, identity.sub]
    account = next(text for text in shown if isinstance(text, str) and text)
    return Page(
        403,
        "not_allowed",
        "This account may not come in",
        "You signed in, but this account is not on the list for this site.",
        "Use another account, or ask the operator to let this one in.",
        sign="shut",
        account=account[:254],
        links=(Link("Use another account", visit.login(flow.return_to, account="other")),),
    )


def _page(visit: Visit, error: ProxyError, return_to: str) -> Page:
    again = Link("Start again", visit.login(return_to))
    home = Link("Go to the start page", visit.origin.url + "/")
    code = getattr(error, "code", "") or "unavailable"
    if code in STALE or code == "code_refused":
        return Page(
            400,
            code,
            "This sign-in link is no longer good",
            "It was already used, is too old, or belongs to another browser.",
            "Nothing is wrong with your account: start the sign-in again.",
            sign="key",
            links=(again, home),
        )
    if code == "access_denied":
        return Page(
            403,
            code,
            "Sign-in declined",
            error.message,
            "If that was not meant, start again.",
            sign="shut",
            links=(again, home),
        )
    if error.status == 503:
        return Page(
            503,
            code,
            "We cannot sign you in just now",
            error.message,
            "Nothing is wrong with your account.",
            sign="clock",
            links=(Link("Try again", visit.login(return_to)),),
            retry_after_s=RETRY_S,
        )
    return Page(
        error.status,
        code,
        "The sign-in did not work",
        error.message,
        sign="key",
        links=(again, home),
    )
