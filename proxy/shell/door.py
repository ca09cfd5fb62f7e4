"""The front door: asks the gate about each request head and does what it says.

`admit` is called once per head. A warm request is one dict lookup and a comparison; everything else
is decided in `core/gate.py` and carried out here. Whatever goes wrong on the way, a
protected request is never forwarded without a decision.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable
from functools import partial
from typing import Protocol
from urllib.parse import quote

from proxy.core import notice
from proxy.core.gate import Action, Answer, Asked, Forward, Pages, Standing, Verdict, gate, is_navigation
from proxy.core.origin import Origin, Origins
from proxy.core.routes import Route, Routes
from proxy.core.session import ended
from proxy.errors import StoreUnavailable
from proxy.shell.background import Background
from proxy.shell.clock import Clock, StoreTime
from proxy.shell.keeper import Keeper, RefreshResult
from proxy.shell.open_session import OpenSession
from proxy.shell.register import TOUCH_S, Register
from proxy.shell.sessions import Sessions

PAGES = Pages()


class Head(Protocol):
    """What the door looks at in a request head (see `wire/head.py`)."""

    @property
    def method(self) -> bytes: ...
    @property
    def target(self) -> bytes: ...
    @property
    def path(self) -> bytes: ...
    @property
    def host(self) -> bytes: ...
    @property
    def cookie(self) -> bytes: ...
    @property
    def request_id(self) -> bytes: ...
    @property
    def upgrade_websocket(self) -> bool: ...
    def get(self, name: bytes, /) -> bytes | None: ...


class FrontDoor:
    """See the module's docstring.

    Args:
        origins: our public origins.
        routes: path rules.
        sessions: opens sessions.
        register: writes activity down, and cookies anew.
        keeper: renewals.
        clock: of this process.
        time: the store's time.
        background: carries activity writes.
        prefix: of our pages.
        ttl_s: how long a cached session needs no store.
        token_passed: the app is given the access token, so its 401 may mean the token.
    """

    def __init__(
        self,
        *,
        origins: Origins,
        routes: Routes,
        sessions: Sessions,
        register: Register,
        keeper: Keeper,
        clock: Clock,
        time: StoreTime,
        background: Background,
        prefix: str,
        ttl_s: float,
        token_passed: bool,
    ) -> None:
        self._origins = origins
        self._only = origins.main if len(origins.all) == 1 else None
        self._routes = routes
        self._pages = routes.pages
        self._prefix = routes.pages[:-1]
        self._auth = routes.pages + b"auth"
        self._sessions = sessions
        self._register = register
        self._by_line = sessions.cache.by_line
        self._coherence = sessions.coherence
        self._keeper = keeper
        self._monotonic = clock.monotonic
        self._time = time
        self._background = background
        self._login = prefix + "/login"
        self._ttl_s = ttl_s
        self._token_passed = token_passed

    def admit(self, head: Head, peer: object) -> Verdict | Awaitable[Verdict]:
        """The verdict on a request; an awaitable one where store or OP must be asked first."""
        warm = self.warm(head.path, head.cookie, head.host)
        return self._cold(head) if warm is None or head.upgrade_websocket else warm

    def warm(self, path: bytes, cookie: bytes, host: bytes) -> Forward | None:
        """The verdict on a request that is no WebSocket's, where it is at hand.

        Returns:
            None = something has to be decided, asked or written down: that is for `admit`.
        """
        session = self._by_line.get(cookie)
        if session is None or session.origin is not (self._only or self._origins.of(host)):
            return None
        now = self._monotonic()
        if now >= session.good_until or now >= self._coherence.until or path.startswith(self._prefix):
            return None
        return session.forward

    def _cold(self, head: Head) -> Verdict | Awaitable[Verdict]:
        path = head.path
        if path.startswith(self._prefix):
            if head.target == self._auth and head.method == b"GET":
                return self._yes_or_no(head)
            if path.startswith(self._pages) or path == self._prefix:
                return PAGES
        route, origin = self._routes.of(path), self._origins.of(head.host)
        if route is Route.PAGES:
            return PAGES
        session = self._by_line.get(head.cookie)
        if session is not None and session.origin is origin and self._sessions.believed(session):
            return self._with_session(head, route, session)
        if head.cookie.find(origin.names.session) < 0:
            return self._without_session(head, route, "no_session")
        return self._open(head, route, origin)

    # -- `auth`: a proxy asks about each request, so this is no page (`yes_no.py` knows the rarer forms) --

    def _yes_or_no(self, head: Head) -> Verdict | Awaitable[Verdict]:
        """Whether a protected path would be open; what is told of it is yes or no."""
        origin = self._origins.of(head.host)
        session = self._by_line.get(head.cookie)
        if session is not None and session.origin is origin and self._sessions.believed(session):
            verdict = self._with_session(head, Route.PROTECTED, session)
        elif head.cookie.find(origin.names.session) < 0:
            verdict = self._without_session(head, Route.PROTECTED, "no_session")
        else:
            verdict = self._open(head, Route.PROTECTED, origin)
        if isinstance(verdict, (Forward, Answer, Pages)):
            return self._told(head, verdict)
        return self._told_later(head, verdict)

    async def _told_later(self, head: Head, waiting: Awaitable[Verdict]) -> Verdict:
        return self._told(head, await waiting)

    def _told(self, head: Head, verdict: Verdict) -> Answer:
        if isinstance(verdict, Forward):
            fields = [(b"Cache-Control", b"no-store")]
            fields += [(b"Set-Cookie", value) for value in verdict.set_cookie]
            return Answer(202, fields, decision="asked")
        if isinstance(verdict, Answer) and verdict.status != 302:
            return verdict
        # The browser's own fields come along; where it goes is for the proxy to say.
        return self._problem(head, 401, "Sign-in required", "sign_in_required", "denied", sign_in=True)

    async def _open(self, head: Head, route: Route, origin: Origin) -> Verdict:
        if self._sessions.store_away_since is not None:
            # A store that does not answer costs a known session no time: it is asked behind the request.
            known = self._bridge(head, origin)
            if known is not None and self._sessions.look(origin, head.cookie):
                return self._bridged(head, route, known)
        try:
            session = await self._sessions.opened(origin, head.cookie)
        except StoreUnavailable:
            known = self._bridge(head, origin)
            if known is not None:
                return self._bridged(head, route, known)
            if route is Route.PUBLIC:
                return Forward()
            return self._unavailable(head, 2, "store_unavailable")
        if isinstance(session, str):
            return self._without_session(head, route, session)
        verdict = self._with_session(head, route, session)
        return verdict if isinstance(verdict, (Forward, Answer, Pages)) else await verdict

    def _bridge(self, head: Head, origin: Origin) -> OpenSession | None:
        """The known session with a live token that may go on although the store is away."""
        session = self._sessions.remembered(origin, head.cookie)
        if session is None or self._time.now() >= session.tokens.expires_at:
            return None
        return session if self._sessions.bridgeable(session) else None

    def _bridged(self, head: Head, route: Route, session: OpenSession) -> Verdict:
        """The store is away: a session that we know, with a live token, goes on."""
        spent = self._keeper.standing(session) is Standing.SPENT
        action = gate(self._asked(head, route, session), Standing.SPENT if spent else Standing.LIVE)
        if action is Action.PASS:
            return session.forward
        return self._other(head, action, session.gone or "refresh_token_dead")

    def _asked(self, head: Head, route: Route, session: OpenSession | None) -> Asked:
        foreign = False
        if head.upgrade_websocket and session is not None:
            # Browsers send Origin with every WebSocket handshake; no cookie rides without it.
            claimed = head.get(b"origin")
            foreign = claimed is not None and not self._origins.known(claimed.decode("latin-1"))
        return Asked(route, is_navigation(head.method, head.get), foreign)

    def _without_session(self, head: Head, route: Route, reason: str) -> Verdict:
        return self._other(head, gate(self._asked(head, route, None), None), reason)

    def _with_session(self, head: Head, route: Route, session: OpenSession) -> Verdict | Awaitable[Verdict]:
        now = self._time.now()
        over = ended(session.record, now)
        if over:
            self._sessions.drop(session, over)
            return self._without_session(head, route, over)
        standing = self._keeper.standing(session)
        asked = self._asked(head, route, session)
        action = gate(asked, standing)
        if action is Action.PASS_AND_RENEW or (action is Action.PASS and standing is Standing.DUE):
            self._keeper.start(session)
            return self._pass(session, asked, now)
        if action is Action.PASS:
            return self._pass(session, asked, now)
        if action is Action.RENEW_FIRST:
            return self._renewed(head, route, session)
        return self._other(head, action, self._why(session))

    async def _renewed(self, head: Head, route: Route, session: OpenSession) -> Verdict:
        # On a busy loop our turn may come when another request's renewal is through already.
        if not session.gone and self._keeper.standing(session) in (Standing.LIVE, Standing.DUE):
            result = RefreshResult("refreshed")
        else:
            result = await self._keeper.renew(session)
        if result.word == "refreshed":
            asked = self._asked(head, route, session)
            action = gate(asked, self._keeper.standing(session))
            if action in (Action.PASS, Action.PASS_AND_RENEW):
                return self._pass(session, asked, self._time.now())
            result = RefreshResult("unavailable", 1, "refresh_useless")
        if result.word == "ended":
            return self._other(head, gate(self._asked(head, route, session), Standing.SPENT), result.reason)
        return self._unavailable(head, result.retry_after_s, result.reason)

    def _pass(self, session: OpenSession, asked: Asked, now: float) -> Forward:
        if now - session.touched_at >= TOUCH_S:
            self._background.spawn("touch", self._register.touch(session))
        self._settle(session, now)
        if not session.newest_key and asked.navigation:
            forward = session.forward
            return Forward(
                identity=forward.identity,
                decision=forward.decision,
                protected=True,
                set_cookie=(self._register.reseal(session),),
                watch=forward.watch,
                unauthorized=forward.unauthorized,
            )
        return session.forward

    def _settle(self, session: OpenSession, now: float) -> None:
        """Until when this session's requests need no decision."""
        if not session.newest_key or not self._sessions.believed(session):
            session.good_until = 0.0
            return
        record = session.record
        renew_at = session.tokens.expires_at
        if record.due and not session.unsaved:
            renew_at = min(renew_at, max(record.due, self._keeper.retry_at(session)))
        until = min(renew_at, record.end, record.seen + record.idle_s, session.touched_at + TOUCH_S)
        session.good_until = min(session.read_at + self._ttl_s, self._time.to_monotonic(until))

    def _why(self, session: OpenSession) -> str:
        outcome = session.record.outcome
        if session.record.dead and outcome is not None:
            return outcome.code
        return "no_refresh_token" if not session.tokens.refresh_token else "refresh_token_dead"

    # -- answers --

    def _other(self, head: Head, action: Action, reason: str) -> Verdict:
        match action:
            case Action.PASS_ANONYMOUS:
                return Forward()
            case Action.SIGN_IN:
                return Answer(
                    302,
                    [(b"Location", self._login_address(head)), (b"Cache-Control", b"no-store")],
                    decision="sign_in",
                )
            case Action.REFUSE_ORIGIN:
                return self._problem(head, 403, "Foreign origin", "origin_not_allowed", "refused")
            case Action.REFUSE_PATH:
                return self._problem(head, 400, "Ambiguous path", "ambiguous_path", "refused")
            case _:
                return self._problem(head, 401, "Sign-in required", reason, "denied", sign_in=True)

    def _login_address(self, head: Head) -> bytes:
        target = head.target.decode("latin-1") if head.method in (b"GET", b"HEAD") else "/"
        return f"{self._login}?rd={quote(target, safe='/~')}".encode()

    def _problem(
        self, head: Head, status: int, title: str, reason: str, decision: str, *, sign_in: bool = False
    ) -> Answer:
        body: dict[str, object] = {
            "type": "about:blank",
            "title": title,
            "status": status,
            "reason": reason,
            "request_id": head.request_id.decode("latin-1"),
        }
        fields = [(b"Content-Type", b"application/problem+json"), (b"Cache-Control", b"no-store")]
        if sign_in:
            body["login"] = self._login
            fields.append(
                (b"WWW-Authenticate", b'Nightporter realm="sign-in", login="%s"' % self._login.encode())
            )
            fields.append((b"X-Nightporter-Reason", reason.encode("latin-1", "replace")))
        return Answer(status, fields, json.dumps(body).encode(), decision)

    def _unavailable(self, head: Head, retry_s: int, reason: str) -> Answer:
        """503 with Retry-After: the session is kept, the cookie untouched."""
        if is_navigation(head.method, head.get):
            text = (
                "Your session could not be renewed at this moment. You are still signed in; this "
                "page tries again by itself."
            )
            body = notice.page("One moment", text, head.request_id, retry_s=retry_s)
            return Answer(503, notice.headers(retry_s=retry_s), body, "unavailable")
        answer = self._problem(head, 503, "Session cannot be used at the moment", reason, "unavailable")
        answer.headers.append((b"Retry-After", b"%d" % retry_s))
        return answer

    # -- what a session's verdict carries --

    def dress(self, session: OpenSession, forward: Forward) -> Forward:
        """Complete a session's ready verdict with the data path's hooks."""

        async def unauthorized(challenge: bytes) -> Forward | None:
            helped = await self._keeper.after_unauthorized(session, challenge)
            return session.forward if helped else None

        forward.watch = partial(self._sessions.cache.watch, session)
        if self._token_passed:
            forward.unauthorized = unauthorized
        return forward
