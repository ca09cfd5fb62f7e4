"""Our own pages below the prefix: which path and method leads to which of them.

One Starlette app; the data path hands it the requests for the prefix. oauth2-proxy's names
answer as aliases.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.errors import ProxyError
from proxy.shell import callback, my_session, provider_logout, sign_in, sign_out, yes_no
from proxy.shell.desk import Desk, Visit
from proxy.shell.pages import Link, Page

__all__ = ["Desk", "build"]

log = logging.getLogger("nightporter.pages")

Handler = Callable[[Visit], Awaitable[Response]]


def build(desk: Desk) -> Starlette:
    """The app for everything below the prefix."""
    prefix = desk.settings.prefix
    signing_in = {"GET": sign_in.login}
    signing_out = {"GET": sign_out.confirm, "HEAD": sign_out.confirm, "POST": sign_out.sign_out}
    mine = {"GET": my_session.show, "HEAD": my_session.show}
    table: dict[str, Mapping[str, Handler]] = {
        "login": signing_in,
        "start": signing_in,
        "sign_in": signing_in,
        "logout": signing_out,
        "sign_out": signing_out,
        "logged-out": {"GET": sign_out.logged_out, "HEAD": sign_out.logged_out},
        "session": mine,
        "userinfo": mine,
        "session/refresh": {"POST": my_session.refresh},
        "auth": {"GET": yes_no.answer, "HEAD": yes_no.answer},
    }
    if any(each.profile.openid for each in desk.all):
        table["backchannel-logout"] = {"POST": provider_logout.BackChannel()}
        table["frontchannel-logout"] = {"GET": provider_logout.front_channel}
    for each in desk.all:
        back = {"GET": _back_to(each)}
        table[each.offer.callback] = table[f"callback/{each.name}"] = back
    routes = [Route(f"{prefix}/{path}", _Entry(desk, methods)) for path, methods in table.items()]
    app = Starlette(routes=routes)
    # A page has one address; whatever is none of them is told so, also outside the prefix.
    app.router.redirect_slashes = False
    app.router.default = _Entry(desk, {})
    return app


def _back_to(desk: Desk) -> Handler:
    """The callback of one provider: an answer that came to another one's address is not its own."""

    async def back(visit: Visit) -> Response:
        return await callback.finish(visit.at(desk))

    return back


class _Entry:
    """One path: picks the handler by method, and turns whatever goes wrong into a page.

    A class, because Starlette leaves the methods of an ASGI endpoint to it: HEAD must not
    start or finish a sign-in.
    """

    def __init__(self, desk: Desk, methods: Mapping[str, Handler]) -> None:
        self._desk = desk
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = Visit.of(Request(scope, receive), self._desk)
        try:
            answer: ASGIApp = await self._answer(visit)
        except ClientDisconnect:
            return
        await answer(scope, receive, send)

    async def _answer(self, visit: Visit) -> Response:
        if not self._methods:
            return visit.page(_nothing_here(visit))
        handler = self._methods.get(visit.request.method)
        if handler is None:
            allow = ", ".join(self._methods).encode()
            return visit.page(_wrong_method(), more=[(b"Allow", allow)])
        try:
            return await handler(visit)
        except ClientDisconnect:
            raise
        except ProxyError as error:
            log.warning(
                "page_refused",
                extra={"request": visit.request_id, "status": error.status, "detail": error.detail},
            )
            return visit.page(_failed(visit, error))
        except Exception:
            log.exception("page_failed", extra={"request": visit.request_id})
            return visit.page(_broken(visit))


def _home(visit: Visit) -> Link:
    return Link("Go to the start page", visit.origin.url + "/")


def _nothing_here(visit: Visit) -> Page:
    return Page(
        404,
        "not_found",
        "There is nothing here",
        "This address belongs to none of the sign-in pages.",
        sign="shut",
        links=(_home(visit),),
    )


def _wrong_method() -> Page:
    return Page(
        405,
        "method_not_allowed",
        "Not like that",
        "This address does not take requests of this kind.",
        sign="key",
    )


def _failed(visit: Visit, error: ProxyError) -> Page:
    if error.status != 503:
        return Page(
            error.status,
            "refused",
            "That did not work",
            error.message,
            sign="key",
            links=(_home(visit),),
        )
    request = visit.request
    again = Link("Try again", visit.origin.url + quote(request.url.path)) if request.method == "GET" else None
    return Page(
        503,
        "unavailable",
        "One moment, please",
        error.message,
        "Nobody has been signed out because of it.",
        sign="clock",
        links=(again or _home(visit),),
        retry_after_s=5,
    )


def _broken(visit: Visit) -> Page:
    return Page(
        500,
        "internal_error",
        "Something broke on our side",
        "This is our mistake, not yours, and it has been written down.",
        "Try again; if it stays, tell the operator the request id below.",
        sign="broken",
        links=(_home(visit),),
    )
