"""What happens to a request: the verdicts, and below them the rules that reach them.

A verdict is a value. `shell/downstream.py` carries it out and decides nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from proxy.core.routes import Route
from proxy.core.session import Record, Tokens


@dataclass(slots=True)
class Forward:
    """Pass the request on to the app.

    Attributes:
        identity: ready header lines, each ending in CRLF, that tell the app who is
            calling; b"" on a public path without a session.
        decision: one word for the log and the metrics (``session``, ``public``, …).
        protected: the answer belongs to one person: without a Cache-Control of the app's
            it gets ``private``.
        shared_cache_ok: the route says that ``public``/``s-maxage`` of the app may stay.
        set_cookie: ready `Set-Cookie` field values of ours to add to the final response;
            with any, the response also gets ``Cache-Control: no-store``.
        watch: called once by the data path when this request became a tunnel (101) or an
            event stream, with a callback that closes it; returns a function to stop
            watching. None = nothing to watch (anonymous).
        unauthorized: called with the app's 401 ``WWW-Authenticate`` value (b"" if none) for a
            safe request without a body, before anything was sent downstream; answers a
            new `Forward` to replay once, or None to pass the 401 on.
    """

    identity: bytes = b""
    decision: str = "public"
    protected: bool = False
    shared_cache_ok: bool = False
    set_cookie: tuple[bytes, ...] = ()
    watch: Callable[[Callable[[], None]], Callable[[], None]] | None = None
    unauthorized: Callable[[bytes], Awaitable[Forward | None]] | None = None


@dataclass(slots=True)
class Answer:
    """Answer without the app: a redirect to sign in, a 401 problem, a 503.

    Attributes:
        status: HTTP status code.
        headers: field name → value, in order; Content-Length, Date, the request id and
            Connection are the data path's to add.
        body: the whole body.
        decision: one word for the log and the metrics.
        close: close the connection after the answer.
        ready: further field lines, each ending in CRLF, checked by whoever made them.
    """

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    body: bytes = b""
    decision: str = "answer"
    close: bool = False
    ready: bytes = b""


@dataclass(slots=True)
class Pages:
    """Hand the connection to the Starlette pages (everything below our prefix)."""

    decision: str = "page"


Verdict = Forward | Answer | Pages


# --- the rules --------------------------------------------------------------------------------


class Standing(enum.Enum):
    """What a session's tokens are good for at this moment.

    LIVE: go on. DUE: go on, and renew behind the request. EXPIRED: renew first. SPENT: no
    way to go on without the person.
    """

    LIVE = enum.auto()
    DUE = enum.auto()
    EXPIRED = enum.auto()
    SPENT = enum.auto()


def standing(record: Record, tokens: Tokens, now: float, *, retry_at: float, unsaved: bool) -> Standing:
    """Say what the tokens are good for.

    A verdict of the OP ends a session at once; a lost rotation (nobody ended the grant, we
    lost the successor) only once the access token is over, so that nobody notices earlier
    than must be.

    Args:
        now: store time.
        retry_at: no renewal is tried before this time.
        unsaved: `tokens` are newer than `record`.
    """
    alive = now < tokens.expires_at
    if record.dead and record.dead == record.rt and not unsaved:
        lost = record.outcome is not None and record.outcome.code == "rotation_lost"
        return Standing.LIVE if alive and lost else Standing.SPENT
    if not tokens.refresh_token:
        return Standing.LIVE if alive else Standing.SPENT
    if unsaved:
        return Standing.LIVE if alive else Standing.EXPIRED
    if not alive:
        return Standing.EXPIRED
    return Standing.DUE if now >= record.due and now >= retry_at else Standing.LIVE


class Action(enum.Enum):
    """What is done with a request."""

    PASS = enum.auto()
    PASS_AND_RENEW = enum.auto()
    RENEW_FIRST = enum.auto()
    PASS_ANONYMOUS = enum.auto()
    SIGN_IN = enum.auto()
    DENY = enum.auto()
    REFUSE_ORIGIN = enum.auto()
    REFUSE_PATH = enum.auto()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the rules look at in a request.

    Attributes:
        route: where its path leads.
        navigation: a person's browser is going to a page.
        foreign_socket: a WebSocket upgrade whose Origin is not one of ours.
    """

    route: Route
    navigation: bool
    foreign_socket: bool = False


def gate(asked: Asked, now: Standing | None) -> Action:
    """Decide about a request. Whatever is not plainly allowed is denied.

    Args:
        now: standing of the session that came with it; None = there is none.
    """
    if asked.route is Route.AMBIGUOUS and now in (None, Standing.SPENT):
        # With a session nothing hangs on the reading: the path is treated as a protected one.
        return Action.REFUSE_PATH
    if asked.route is Route.PUBLIC:
        # A public page never waits and never fails for a session's sake.
        known = now in (Standing.LIVE, Standing.DUE) and not asked.foreign_socket
        return Action.PASS if known else Action.PASS_ANONYMOUS
    if now is None or now is Standing.SPENT:
        return Action.SIGN_IN if asked.navigation else Action.DENY
    if asked.foreign_socket:
        return Action.REFUSE_ORIGIN
    if now is Standing.EXPIRED:
        return Action.RENEW_FIRST
    return Action.PASS_AND_RENEW if now is Standing.DUE else Action.PASS


def is_navigation(method: bytes, get: Callable[[bytes], bytes | None]) -> bool:
    """Whether a browser is going to a page, so that a redirect to sign in helps somebody.

    Fetch metadata decides where it is sent; a prefetch is never a navigation. Without it
    (old browsers, tools) an `Accept` that names HTML does.

    Args:
        get: field value by lower-case name, None if absent.

    Source: W3C Fetch Metadata; Sec-Purpose of the Fetch standard.
    """
    if method not in (b"GET", b"HEAD"):
        return False
    purpose = get(b"sec-purpose") or get(b"purpose") or b""
    if b"prefetch" in purpose.lower():
        return False
    mode = get(b"sec-fetch-mode")
    if mode is not None:
        return mode.lower() == b"navigate"
    if (get(b"x-requested-with") or b"").lower() == b"xmlhttprequest":
        return False
    return b"text/html" in (get(b"accept") or b"").lower()
