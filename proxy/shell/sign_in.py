"""Signing in: to the OP, and back from it.

Nothing here loops: a sign-in that cannot go on ends at a page, and only the person's click
starts another. `state` is the flow's random id and the name of its cookie, so several tabs
sign in side by side. A flow is spent in the store before its code is redeemed: whoever
comes second, with whatever copy of the address, redeems nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from proxy.core import cookies
from proxy.core.choice import Offer, chosen
from proxy.core.gate import Standing
from proxy.core.identity import allowed, groups_elsewhere, identity_of, merged, needs_userinfo
from proxy.core.login import Flow, after_refusal, check_callback, prompt_with, single
from proxy.core.logout import given_back, may_revoke
from proxy.core.providers import Offline, Profile
from proxy.core.redirects import safe_return_target
from proxy.core.seal import Purpose, random_id, random_token
from proxy.core.session import Identity, Outcome, OutcomeKind, Tokens
from proxy.core.timing import refresh_until
from proxy.core.token_reply import Issued, RawReply, Refused, judge, life_s
from proxy.errors import (
    CookieError,
    IdTokenRejected,
    LoginError,
    OPRejected,
    ProxyError,
    SessionGone,
    StoreUnavailable,
)
from proxy.shell.desk import Desk, Visit
from proxy.shell.giving_back import give_back
from proxy.shell.pages import Link, Page
from proxy.shell.sessions import OpenSession

FLOW_COOKIES_BYTES = 4096
"""All pending sign-ins' cookies together: each request of the browser carries them."""

RETRY_S = 5
"""Suggested where nobody said how long an outage lasts."""

_STALE = frozenset({"flow_unknown", "flow_spent", "flow_too_old"})
"""What an old or doubled callback address comes to: home, if home is open."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A flow with the cookie that holds it."""

    flow: Flow
    name: bytes
    size: int


# -- to the OP --


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
        _note(visit, error)
        return visit.page(_page_for(visit, error, return_to))


async def _start(visit: Visit, return_to: str, extra: Mapping[str, str] | None) -> Response:
    """Send the browser to the OP.

    Args:
        extra: authorization parameters beside the usual ones, and instead of them.
    """
    desk = visit.desk
    now = await desk.sessions.now()
    flow = Flow(
        id=random_id(),
        nonce=random_token(),
        code_verifier=random_token(),
        return_to=return_to,
        created_at=now,
        provider=desk.name,
    )
    url = await desk.op.authorization_url(flow, redirect_uri=visit.address(desk.offer.callback), extra=extra)
    name = _cookie_name(visit, flow.id)
    value = visit.origin.ring.seal(Purpose.FLOW, name, flow.encode())
    names = visit.origin.names
    lines = [cookies.set_line(names, old, b"", 0) for old in _crowded_out(visit, now, len(name) + len(value))]
    lines.append(cookies.set_line(names, name, value, int(desk.settings.limits.flow_s)))
    desk.event("login_started", request=visit.request_id, provider=flow.provider)
    return visit.redirect(url, cookies=lines)


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


def _cookie_name(visit: Visit, flow_id: str) -> bytes:
    return visit.origin.names.flow_prefix + flow_id.encode()


def _crowded_out(visit: Visit, now: float, new_size: int) -> list[bytes]:
    """Names of flow cookies that must go to make room: unreadable, too old, then the oldest."""
    limits = visit.desk.settings.limits
    keep: list[Pending] = []
    gone: list[bytes] = []
    for name, value in cookies.with_prefix(visit.cookie, visit.origin.names.flow_prefix).items():
        flow = _opened(visit, name, value)
        if flow is None or not 0 <= now - flow.created_at <= limits.flow_s:
            gone.append(name)
        else:
            keep.append(Pending(flow, name, len(name) + len(value)))
    keep.sort(key=lambda pending: pending.flow.created_at)
    while keep and (
        len(keep) >= limits.max_flows or sum(each.size for each in keep) + new_size > FLOW_COOKIES_BYTES
    ):
        gone.append(keep.pop(0).name)
    return gone


def _opened(visit: Visit, name: bytes, value: bytes) -> Flow | None:
    try:
        plain, _ = visit.origin.ring.open(Purpose.FLOW, name, value)
        return Flow.decode(plain)
    except CookieError:
        return None


# -- back from the OP --


async def callback(visit: Visit) -> Response:
    """`GET callback`: check the OP's answer, redeem its code, begin the session."""
    if visit.speculative:
        return visit.page(
            Page(403, "not_a_navigation", "Not yet", "This address is not for loading ahead of time.")
        )
    flow: Flow | None = None
    spent = False
    try:
        params = single(visit.parameters())
        flow = _flow(visit, params.get("state", ""))
        if flow is None:
            raise LoginError("flow_unknown", "")
        metadata = await visit.desk.op.metadata()
        now = await visit.desk.sessions.now()
        flow_s = visit.desk.settings.limits.flow_s
        code = check_callback(params, flow, metadata, now, flow_s=flow_s)
        # Remembered for longer than any copy of the flow's cookie is accepted.
        if not await visit.desk.store.spend_flow(flow.id, 2 * flow_s):
            raise LoginError("flow_spent", "")
        spent = True
        return await _redeem(visit, flow, code, visit.desk.issuer)
    except ProxyError as error:
        if isinstance(error, LoginError) and error.code in _STALE:
            session = await visit.session()
            if session is not None and visit.desk.keeper.standing(session) is not Standing.SPENT:
                return visit.redirect(visit.origin.url + (flow.return_to if flow else "/"))
        _note(visit, error)
        page = _page_for(visit, error, flow.return_to if flow else "/")
        # What may still succeed by loading the page again keeps its cookie.
        over = flow is not None and (spent or isinstance(error, LoginError))
        return visit.page(page, cookies=[_drop(visit, flow)] if flow is not None and over else [])


def _flow(visit: Visit, state: str) -> Flow | None:
    """The flow that `state` names, if this browser holds its cookie."""
    if not (state.isascii() and state.isalnum() and len(state) <= 64):
        return None
    name = _cookie_name(visit, state)
    value = cookies.one(visit.cookie, name)
    flow = _opened(visit, name, value) if value is not None else None
    if flow is None or flow.provider != visit.desk.name:
        return None
    return flow


def _drop(visit: Visit, flow: Flow) -> bytes:
    return cookies.set_line(visit.origin.names, _cookie_name(visit, flow.id), b"", 0)


async def _redeem(visit: Visit, flow: Flow, code: str, issuer: str) -> Response:
    """From the code to the session. The flow is spent: whatever fails now, fails for good."""
    desk = visit.desk
    sent_at = await desk.sessions.now()
    reply = await desk.op.redeem(code, flow.code_verifier, redirect_uri=visit.address(desk.offer.callback))
    verdict = judge(reply, desk.profile, now=sent_at)
    if isinstance(verdict, Refused):
        raise _refused(verdict)
    desk.observed.signed_in(verdict)
    _demand_bearer(reply)
    claims = await _claims(desk, verdict, flow, await desk.sessions.now())
    identity = identity_of(claims, desk.claims, await desk.sessions.now(), nonce=flow.nonce)
    tokens = _tokens(desk, verdict, sent_at, issuer)
    if not allowed(identity, desk.settings.allow):
        _discard(desk, tokens)
        desk.event("login_denied", request=visit.request_id, iss=identity.iss, sub=identity.sub)
        return visit.page(_not_allowed(visit, identity, claims, flow), cookies=[_drop(visit, flow)])
    if not desk.sessions.fits(identity, tokens):
        _discard(desk, tokens)
        raise LoginError(
            "identity_too_large",
            "What the identity provider says of this account, mostly its groups, is too long to be passed "
            "on. Ask the operator to have fewer groups sent.",
            status=403,
            detail=f"{len(identity.groups)} groups; half of limits.max_head_bytes is the limit",
        )
    try:
        session = await _replaced(visit)
        line = await desk.sessions.create(
            visit.origin, tokens, identity, provider=flow.provider, replaces=session
        )
    except StoreUnavailable:
        _discard(desk, tokens)
        raise
    except SessionGone as error:
        _discard(desk, tokens)
        raise LoginError(
            "signed_out_meanwhile", "You were signed out everywhere while you were signing in. Sign in again."
        ) from error
    desk.event(
        "login_succeeded",
        request=visit.request_id,
        provider=desk.name,
        iss=identity.iss,
        sub=identity.sub,
    )
    if not tokens.refresh_token and desk.profile.offline is not Offline.NEVER:
        desk.event(
            "no_refresh_token",
            request=visit.request_id,
            provider=desk.name,
            consequence="the session lasts as long as its access token",
            remedy=_remedy(desk.profile),
        )
    return visit.redirect(visit.origin.url + flow.return_to, cookies=[line, _drop(visit, flow)])


async def _with_groups(desk: Desk, issued: Issued, claims: dict[str, Any]) -> dict[str, Any]:
    """The claims with the groups that were too many for the ID token."""
    try:
        found = await desk.op.groups(issued.access_token)
    except OPRejected as error:
        # The token is for another resource, or lacks the permission: rules on groups deny.
        desk.event("groups_refused", provider=desk.profile.name, detail=error.detail)
        return claims
    return {**claims, desk.claims.groups_claim: found}


async def _replaced(visit: Visit) -> OpenSession | None:
    """The session that came along and is superseded by the new one."""
    try:
        return await visit.session()
    except StoreUnavailable:
        return None  # creating the new one will say the same


async def _claims(desk: Desk, issued: Issued, flow: Flow, now: float) -> dict[str, Any]:
    """The checked claims of the ID token, with userinfo's where asked for; the ID token's win."""
    if not desk.profile.openid:
        return await desk.op.userinfo(issued.access_token, "")
    if not issued.id_token:
        raise IdTokenRejected("id_token_missing")
    claims = await desk.op.verify_id_token(
        issued.id_token, nonce=flow.nonce, access_token=issued.access_token, previous=None, now=now
    )
    if groups_elsewhere(claims, desk.claims):
        claims = await _with_groups(desk, issued, claims)
    when = desk.settings.op.userinfo
    wanted = when == "always" or (when == "when_missing" and needs_userinfo(claims, desk.scopes, desk.claims))
    if not wanted or not (await desk.op.metadata()).userinfo_endpoint:
        return claims
    return merged(claims, await desk.op.userinfo(issued.access_token, claims["sub"]))


def _demand_bearer(reply: RawReply) -> None:
    """Refuse a token of a type that we cannot use (RFC 6749 §7.1); a missing type is let pass.

    Several OPs leave `token_type` out or write it in their own case; a MAC or DPoP token sent
    as a bearer token would only fail at the app.
    """
    kind = json.loads(reply.body).get("token_type")
    if kind is not None and (not isinstance(kind, str) or kind.lower() != "bearer"):
        raise LoginError(
            "token_type",
            "The identity provider issued a kind of token that cannot be used here. Tell the operator the "
            "request id.",
            status=502,
        )


def _tokens(desk: Desk, issued: Issued, sent_at: float, issuer: str) -> Tokens:
    refresh = desk.settings.refresh
    life = life_s(
        issued.expires_in_s,
        default_s=desk.profile.life_s or refresh.expires_in_default_s,
        min_s=refresh.min_life_s,
        max_s=refresh.max_life_s,
    )
    return Tokens(
        access_token=issued.access_token,
        refresh_token=issued.refresh_token,
        id_token=issued.id_token,
        scope=issued.scope,
        issued_at=sent_at,
        expires_at=sent_at + life,
        issuer=issuer,
        client_id=desk.settings.client_id,
        refresh_until=refresh_until(issued, sent_at),
    )


def _discard(desk: Desk, tokens: Tokens) -> None:
    """Tokens that nobody will use are revoked, where that reaches nothing but them."""
    back = given_back(desk.profile, tokens)
    if back is not None and may_revoke(desk.profile.reach, ends_at_op=False):
        desk.background.spawn("revoke", give_back(desk.op, *back))


def _remedy(profile: Profile) -> str:
    """What to change at the provider, in its console's words."""
    from proxy.guide import remedy  # texts that nobody needs while all is well

    return f"{remedy(profile.name, 'refresh_token')} See {profile.link}"


# -- when it does not work --


def _refused(verdict: Refused) -> LoginError:
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


def _note(visit: Visit, error: ProxyError) -> None:
    code = getattr(error, "code", "") or type(error).__name__
    visit.desk.event(
        "login_failed", request=visit.request_id, code=code, status=error.status, detail=error.detail
    )


def _page_for(visit: Visit, error: ProxyError, return_to: str) -> Page:
    again = Link("Start again", visit.login(return_to))
    home = Link("Go to the start page", visit.origin.url + "/")
    code = getattr(error, "code", "") or "unavailable"
    if code in _STALE or code == "code_refused":
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


def _not_allowed(visit: Visit, identity: Identity, claims: dict[str, Any], flow: Flow) -> Page:
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
