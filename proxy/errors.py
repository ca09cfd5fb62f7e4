"""Every error of ours, one tree.

::

    ProxyError
    ├── ConfigError           refuse to start; lists every problem at once
    ├── CookieError           the request becomes anonymous
    ├── SessionGone           signed out, superseded, over, or never there
    ├── LoginError            a sign-in that cannot go on: a page, never a loop
    ├── IdTokenRejected       an ID token that must not be believed
    ├── OPUnavailable         the OP did not answer usefully; a session is kept
    │   ├── NotSent           provably no byte of the request left
    │   └── ReplyLost         it may have been processed; nobody knows
    ├── OPRejected            the OP said no, in the protocol's words
    ├── StoreUnavailable      a cached live session goes on, else 503; never signed out
    ├── BadRequest            the downstream message is refused before the app sees a byte
    └── UpstreamError         502 or 504

Each class carries the HTTP `status` that a person's browser gets if nothing better is
known, and a message that is safe to show: it says what happened and what to do, and never
holds a token, a secret or text that a peer sent. What a log may say beyond that goes into
`detail`. Adapters translate foreign exceptions at their edge; nothing above `shell/` sees
a type of redis, httpx2 or joserfc. Expected outcomes are values, not exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class ProxyError(Exception):
    """Base of the tree.

    Args:
        message: what happened and what to do; safe to show to anybody.
        detail: more for the log, still free of secrets; never shown.
    """

    status = 500

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class Problem(Struct, frozen=True):
    """One thing that is wrong with the configuration.

    Attributes:
        key: the setting as TOML writes it, e.g. ``refresh.wait_s``.
        found: the value's shape, never the value of a secret.
        remedy: what to write instead.
    """

    key: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.found}; {self.remedy}"


class ConfigError(ProxyError):
    """The configuration cannot be used; `problems` holds all of it, not the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{len(self.problems)} problem(s) in the configuration:\n{lines}")


class CookieError(ProxyError):
    """The session cookie cannot be opened: the request is anonymous, never a 500."""

    status = 401


class SessionGone(ProxyError):
    """There is no such session any more; `reason` says which way it ended."""

    status = 401

    def __init__(self, reason: str) -> None:
        super().__init__("This session has ended. Sign in again.", detail=reason)
        self.reason = reason


class LoginError(ProxyError):
    """A sign-in that cannot be finished. The page offers to start again; nothing loops.

    Args:
        code: short machine word for logs and metrics, e.g. ``state_unknown``.
    """

    status = 400

    def __init__(self, code: str, message: str, *, status: int = 400, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.code = code
        self.status = status


class IdTokenRejected(ProxyError):
    """An ID token failed a check; `code` names the check (``iss``, ``aud``, ``signature``, …)."""

    status = 502

    def __init__(self, code: str, *, detail: str = "") -> None:
        super().__init__(
            "The identity provider's answer did not pass our checks. Try again; if it "
            "stays, tell the operator the request id.",
            detail=detail or code,
        )
        self.code = code


class OPUnavailable(ProxyError):
    """The OP could not be reached or did not answer usefully. Sessions are kept."""

    status = 503

    def __init__(self, detail: str) -> None:
        super().__init__(
            "The identity provider cannot be reached at the moment. Try again shortly.", detail=detail
        )


class NotSent(OPUnavailable):
    """Provably no byte of the request left this process: sending it again is free."""


class ReplyLost(OPUnavailable):
    """Bytes left, no usable reply came: the OP may have processed the request."""


class OPRejected(ProxyError):
    """The OP refused, in the protocol's words (RFC 6749 §5.2); `code` is its error code."""

    status = 502

    def __init__(self, code: str, *, http_status: int = 0, detail: str = "") -> None:
        super().__init__(
            "The identity provider refused the request. Try again; if it stays, tell the "
            "operator the request id.",
            detail=detail,
        )
        self.code = code
        self.http_status = http_status


class StoreUnavailable(ProxyError):
    """The session store did not answer. Nobody is signed out by this."""

    status = 503

    def __init__(self, detail: str) -> None:
        super().__init__("Sessions cannot be read at the moment. Try again shortly.", detail=detail)


class BadRequest(ProxyError):
    """A downstream message that is not plainly legal HTTP/1.1; it never reaches the app.

    Args:
        status: 400, 414, 417, 431, 501 or 505 (RFC 9110 §15.5, RFC 6585 §5).
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UpstreamError(ProxyError):
    """The app could not be reached (502), broke off (502) or did not answer in time (504)."""

    def __init__(self, status: int, message: str, *, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.status = status
