"""Signing in: to the OP. `callback.py` is the way back.

Nothing here loops: a sign-in that cannot go on ends at a page, and only the person's click
starts another. `state` is the flow's random id and the name of its cookie.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.responses import Response

from proxy.core.choice import Offer, chosen
from proxy.core.gate import Standing
from proxy.core.login import Flow, after_refusal, prompt_with
from proxy.core.redirects import safe_return_target
from proxy.core.seal import random_id, random_token
from proxy.core.session import Outcome, OutcomeKind
from proxy.errors import ProxyError
from proxy.shell import flow_cookies
from proxy.shell.desk import Desk, Visit
from proxy.shell.open_session import OpenSession
from proxy.shell.pages import Link, Page
from proxy.shell.sign_in_failures import failed


async def login(visit: Visit) -> Response:
    """`GET login?rd=…`: open a flow and go to the OP."""
    if visit.scripted or visit.speculative:
        return visit.page(
            Page(
                403,
                "not_a_navigation",
                "Sign in from a page",
                "A sign-in starts when a person opens this address in a browser window, not from a script "
                "and not ahead of time.",
            )
        )
    home = _home_of_target(visit)
    if home is not None:
        return visit.redirect(home)
    return_to = _return_target(visit)
    another = visit.parameter("account") == "other"
    try:
        session = await visit.session()
        if session is not None and not another and await _good(visit.desk, session):
            return visit.redirect(visit.origin.url + return_to)
        wanted = None if another or session is None else await _wanted(visit)
        if wanted is not None:
            # The provider that refused knows why; which one it is needs no asking.
            visit, outcome = wanted
            desk = visit.desk
            extra = after_refusal(_params(desk), outcome.code, outcome.claims, ask=_ask(desk))
            return await _start(visit, return_to, extra)
        offers = _offers(visit, return_to)
        if len(offers) > 1:
            return visit.page(_choice(visit, offers, return_to, another=another))
        visit = visit.at(visit.desk.desks.get(offers[0].name, visit.desk))
        extra = {"prompt": prompt_with(_params(visit.desk), _ask(visit.desk))} if another else None
        return await _start(visit, return_to, extra)
    except ProxyError as error:
        return visit.page(failed(visit, error, return_to))


async def _start(visit: Visit, return_to: str, extra: Mapping[str, str] | None) -> Response:
    """Send the browser to the OP.

    Args:
        extra: authorization parameters beside the usual ones, and instead of them.
    """
    desk = visit.desk
    flow = Flow(
        id=random_id(),
        nonce=random_token(),
        code_verifier=random_token(),
        return_to=return_to,
        created_at=desk.now(),
        provider=desk.name,
    )
    url = await desk.op.authorization_url(flow, redirect_uri=visit.address(desk.offer.callback), extra=extra)
    desk.event("login_started", request=visit.request_id, provider=flow.provider)
    return visit.redirect(url, cookies=flow_cookies.keep(visit, flow))


def _offers(visit: Visit, return_to: str) -> list[Offer]:
    every = [desk.offer for desk in visit.desk.all]
    host = visit.origin.host
    found = chosen(every, host=host, path=return_to, hint=visit.parameter("provider"))
    return found or every[:1]


def _choice(visit: Visit, offers: list[Offer], return_to: str, *, another: bool) -> Page:
    """The sign-in page with a button for each provider."""
    account = {"account": "other"} if another else {}
    return Page(
        200,
        "choose_provider",
        "Sign in",
        "Choose the account to sign in with.",
        choices=tuple(
            Link(
                f"Continue with {offer.title}",
                visit.login(return_to, provider=offer.name, **account),
                offer.logo,
            )
            for offer in offers
        ),
    )


async def _good(desk: Desk, session: OpenSession) -> bool:
    """Whether the session gets its person through the door, so that sending them there ends well.

    Asked exactly like the door asks: a session that the door sends here must not be sent back.
    """
    standing = desk.keeper.standing(session)
    if standing is Standing.EXPIRED:
        return (await desk.keeper.renew(session)).word != "ended"
    return standing is not Standing.SPENT


async def _wanted(visit: Visit) -> tuple[Visit, Outcome] | None:
    """Where and for what the OP wants to see the person: its last answer to a refresh, if it was that."""
    session = await visit.session()  # again: the answer may have come a moment ago
    failure = visit.desk.keeper.last_failure(session) if session is not None else None
    if session is None or failure is None or failure.kind is not OutcomeKind.INTERACTION:
        return None
    return visit.at(visit.desk.of(session.tokens)), failure


def _params(desk: Desk) -> Mapping[str, str]:
    params = desk.settings.authorize_params
    return desk.profile.authorize_params if params is None else params


def _ask(desk: Desk) -> str:
    """The word that makes the OP ask who is there.

    Without it the OP would sign the same account in again without a word. Providers for everybody
    have an account chooser; what the others all understand is ``login`` (OIDC Core §3.1.2.1).
    """
    return "select_account" if desk.profile.open_to_all else "login"


def _asked_target(visit: Visit) -> str:
    """The return target as it is named: by `rd`, else by the field that nginx is told to set for it."""
    asked = visit.parameter("rd")
    fields = visit.request.headers.getlist("x-auth-request-redirect")
    return asked or (fields[0] if len(fields) == 1 else "")


def _return_target(visit: Visit) -> str:
    """Where to go after the sign-in; an address on our own origin counts as its path."""
    asked = _asked_target(visit)
    if asked.startswith(visit.origin.url + "/"):
        asked = asked[len(visit.origin.url) :]
    return safe_return_target(asked, visit.desk.settings.prefix)


def _home_of_target(visit: Visit) -> str | None:
    """The sign-in at another public origin of ours, if the target is there: each has its own session."""
    asked = _asked_target(visit)
    for origin in visit.desk.origins.all:
        if origin is not visit.origin and asked.startswith(origin.url + "/"):
            target = safe_return_target(asked[len(origin.url) :], visit.desk.settings.prefix)
            query = {"rd": target, "provider": visit.parameter("provider")}
            asked_for = urlencode({name: value for name, value in query.items() if value})
            return f"{origin.url}{visit.path('login')}?{asked_for}"
    return None
