"""Back from the OP: its answer is checked, its code redeemed, the session begun.

A flow is spent in the store before its code is redeemed: whoever comes second, with whatever copy
of the address, redeems nothing.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from proxy.core.gate import Standing
from proxy.core.identity import allowed, groups_elsewhere, identity_of, merged, needs_userinfo
from proxy.core.login import Flow, check_callback, single
from proxy.core.logout import given_back, may_revoke
from proxy.core.providers import Offline, Profile
from proxy.core.session import Tokens
from proxy.core.timing import refresh_until
from proxy.core.token_reply import Issued, RawReply, Refused, judge, life_s
from proxy.errors import (
    IdTokenRejected,
    LoginError,
    OPRejected,
    ProxyError,
    SessionGone,
    StoreUnavailable,
)
from proxy.shell import flow_cookies
from proxy.shell.desk import Desk, Visit
from proxy.shell.giving_back import give_back
from proxy.shell.open_session import OpenSession
from proxy.shell.pages import Page
from proxy.shell.sign_in_failures import STALE, failed, not_allowed, refused


async def finish(visit: Visit) -> Response:
    """`GET callback`."""
    if visit.speculative:
        return visit.page(
            Page(403, "not_a_navigation", "Not yet", "This address is not for loading ahead of time.")
        )
    flow: Flow | None = None
    spent = False
    try:
        params = single(visit.parameters())
        flow = flow_cookies.find(visit, params.get("state", ""))
        if flow is None:
            raise LoginError("flow_unknown", "")
        metadata = await visit.desk.op.metadata()
        now = visit.desk.now()
        flow_s = visit.desk.settings.limits.flow_s
        code = check_callback(params, flow, metadata, now, flow_s=flow_s)
        # Remembered for longer than any copy of the flow's cookie is accepted.
        if not await visit.desk.store.spend_flow(flow.id, 2 * flow_s):
            raise LoginError("flow_spent", "")
        spent = True
        return await _redeem(visit, flow, code, visit.desk.issuer)
    except ProxyError as error:
        if isinstance(error, LoginError) and error.code in STALE:
            session = await visit.session()
            if session is not None and visit.desk.keeper.standing(session) is not Standing.SPENT:
                return visit.redirect(visit.origin.url + (flow.return_to if flow else "/"))
        page = failed(visit, error, flow.return_to if flow else "/")
        # What may still succeed by loading the page again keeps its cookie.
        over = flow is not None and (spent or isinstance(error, LoginError))
        return visit.page(page, cookies=[flow_cookies.drop(visit, flow)] if flow is not None and over else [])


async def _redeem(visit: Visit, flow: Flow, code: str, issuer: str) -> Response:
    """From the code to the session. The flow is spent: whatever fails now, fails for good."""
    desk = visit.desk
    sent_at = desk.now()
    reply = await desk.op.redeem(code, flow.code_verifier, redirect_uri=visit.address(desk.offer.callback))
    verdict = judge(reply, desk.profile, now=sent_at)
    if isinstance(verdict, Refused):
        raise refused(verdict)
    desk.observed.signed_in(verdict)
    _demand_bearer(reply)
    claims = await _claims(desk, verdict, flow, desk.now())
    identity = identity_of(claims, desk.claims, desk.now(), nonce=flow.nonce)
    tokens = _tokens(desk, verdict, sent_at, issuer)
    if not allowed(identity, desk.settings.allow):
        _discard(desk, tokens)
        desk.event("login_denied", request=visit.request_id, iss=identity.iss, sub=identity.sub)
        return visit.page(
            not_allowed(visit, identity, claims, flow), cookies=[flow_cookies.drop(visit, flow)]
        )
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
        line = await desk.register.begin(
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
    return visit.redirect(visit.origin.url + flow.return_to, cookies=[line, flow_cookies.drop(visit, flow)])


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
    if odd := desk.observed.odd_life(issued, life):
        desk.event("token_life_clamped", provider=desk.name, expires_in=odd, reckoned_s=life)
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
