"""What happens to a request: the verdicts, and (below) the rules that reach them.

A verdict is a value. `shell/downstream.py` carries it out and decides nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


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
    """

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    body: bytes = b""
    decision: str = "answer"
    close: bool = False


@dataclass(slots=True)
class Pages:
    """Hand the connection to the Starlette pages (everything below our prefix)."""

    decision: str = "page"


Verdict = Forward | Answer | Pages
