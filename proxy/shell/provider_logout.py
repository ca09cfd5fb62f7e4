"""Logout that begins at the OP: it calls us (back-channel), or has the browser call us (front-channel).

Neither ever redirects. A back-channel call is believed for its signature. A front-channel one comes
without one, and mostly without our cookie: a cookie with SameSite does not travel in a frame of
another site. What it must know instead is the OP's own id of the session, `sid`, with `iss`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.responses import Response

from proxy.core.logout import LogoutToken, addressed
from proxy.errors import BadRequest, IdTokenRejected, OPUnavailable, ProxyError, StoreUnavailable
from proxy.shell.desk import Desk, Visit
from proxy.shell.pages import Page

RETRY_S = 5
"""Suggested to an OP that asks while the store or the keys cannot be had."""

MAX_AT_ONCE = 256
"""Calls under way in one process; each costs a signature and a few answers of the store."""

MAX_VALUE_CHARS = 1024


# -- back-channel --


class BackChannel:
    """`POST backchannel-logout` (OIDC Back-Channel Logout §2.5 … §2.8)."""

    def __init__(self) -> None:
        self._under_way = 0

    async def __call__(self, visit: Visit) -> Response:
        if self._under_way >= MAX_AT_ONCE:
            return _not_now(visit, "too many logouts at once")
        self._under_way += 1
        try:
            return await self._answer(visit)
        finally:
            self._under_way -= 1

    async def _answer(self, visit: Visit) -> Response:
        event = visit.desk.event
        try:
            raw = await _logout_token(visit)
            desk = _addressee(visit.desk, raw)
            logout = await desk.op.verify_logout_token(raw, now=desk.now())
            ended = await desk.logouts.obey(logout)
        except (BadRequest, IdTokenRejected) as error:
            code = error.code if isinstance(error, IdTokenRejected) else "request"
            event("backchannel_logout_refused", request=visit.request_id, code=code, detail=error.detail)
            return _refused(visit, error.status if error.status == 413 else 400, code)
        except (OPUnavailable, StoreUnavailable) as error:
            event("backchannel_logout_failed", request=visit.request_id, detail=error.detail)
            return _not_now(visit, error.message)
        event(
            "backchannel_logout",
            request=visit.request_id,
            provider=desk.name,
            sessions=ended,
            **_meant(logout),
        )
        return visit.empty(200)


def _meant(logout: LogoutToken) -> dict[str, str]:
    return {"iss": logout.iss, "sub": logout.sub, "by": "sid" if logout.sid else "sub"}


async def _logout_token(visit: Visit) -> str:
    """The one `logout_token` of a posted form.

    Raises:
        BadRequest: there is none, or more than one.
    """
    found = [value for name, value in await visit.form_fields() if name == "logout_token"]
    if len(found) != 1 or not found[0]:
        raise BadRequest(400, "One logout_token in a form is needed.")
    return found[0]


def _addressee(desk: Desk, raw: str) -> Desk:
    """The provider that a logout token names; its own checks decide whether it really comes from there.

    Raises:
        IdTokenRejected: no configured provider is its issuer, or not for this client.
    """
    every = [each for each in desk.all if each.profile.openid]
    if len(every) == 1:
        return every[0]
    iss, audience = addressed(raw)
    ours = [each for each in every if each.issuer == iss]
    if not ours:
        raise IdTokenRejected("iss", detail="no configured provider is the logout token's issuer")
    for each in ours:
        if each.settings.client_id in audience:
            return each
    raise IdTokenRejected("aud", detail="a logout token for another client")


def _refused(visit: Visit, status: int, code: str) -> Response:
    """RFC 6749 §5.2's form of an error, as OIDC Back-Channel Logout §2.8 has it."""
    description = f"The logout token was not accepted ({code}). The relying party's log says more."
    return visit.json(status, {"error": "invalid_request", "error_description": description})


def _not_now(visit: Visit, why: str) -> Response:
    """503: unlike a 400, it says that asking again is good."""
    body = {"error": "temporarily_unavailable", "error_description": why}
    response = visit.json(503, body)
    response.headers["Retry-After"] = str(RETRY_S)
    return response


# -- front-channel --


async def front_channel(visit: Visit) -> Response:
    """`GET frontchannel-logout?iss=…&sid=…` in a frame of the OP's (OIDC Front-Channel Logout §3).

    Whether anything was ended does not show in the answer.
    """
    desk = visit.desk
    if visit.speculative:
        return visit.page(Page(403, "not_a_navigation", "Not yet", "Nothing was done."))
    iss, sid = visit.parameter("iss"), visit.parameter("sid")
    if not iss or not sid or len(iss) > MAX_VALUE_CHARS or len(sid) > MAX_VALUE_CHARS:
        # Without them any page could sign people out: the OP must be told to send them.
        desk.event("frontchannel_logout_refused", request=visit.request_id, code="iss_and_sid_missing")
        return visit.framed(400, await _origins(desk))
    forget: list[bytes] = []
    try:
        session = await visit.session()
        ended = 0
        if session is None:
            ended = await desk.logouts.end(iss, "", sid)
        elif (session.identity.iss, session.identity.sid) == (iss, sid):
            forget = [desk.register.forget_cookie(visit.origin)]
            ended = await desk.logouts.end(iss, session.identity.sub, sid)
    except StoreUnavailable as error:
        desk.event("frontchannel_logout_failed", request=visit.request_id, detail=error.detail)
        return visit.framed(503, await _origins(desk))
    desk.event("frontchannel_logout", request=visit.request_id, sessions=ended)
    return visit.framed(200, await _origins(desk), cookies=forget)


async def _origins(desk: Desk) -> list[str]:
    """Whose pages may frame the answer: the providers', wherever people meet them."""
    found: set[str] = set()
    for each in desk.all:
        urls = [each.issuer]
        try:
            metadata = await each.op.metadata()
            urls += [metadata.authorization_endpoint, metadata.end_session_endpoint]
        except ProxyError:
            pass  # the issuer's own origin remains
        parts = [urlsplit(url) for url in urls if url]
        found |= {f"{part.scheme}://{part.netloc}" for part in parts}
    return sorted(found)
