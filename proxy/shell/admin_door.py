"""The door for the operator: one page to read, on a listener that only this machine reaches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import urlsplit

from proxy.config.grammar import is_loopback
from proxy.core.gate import Answer, Verdict
from proxy.wire.head import RequestHead

_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)


class Page(Protocol):
    """What is shown."""

    async def html(self) -> bytes: ...

    async def as_json(self) -> bytes: ...


class AdminDoor:
    """Answers `/` and `/report.json`; everything else is a 404.

    A page of some website, open in a browser on this machine, may try to get here: by a name of
    its own for 127.0.0.1 (DNS rebinding), or by plain requests whose answers it cannot read. The first has
    another Host, the second says so (Fetch Metadata); both are refused.

    Args:
        page: what is shown.
        known: whether a Host names this machine.
    """

    def __init__(self, page: Page, known: Callable[[bytes], bool]) -> None:
        self._page = page
        self._known = known

    def admit(self, head: RequestHead, peer: object) -> Verdict | Awaitable[Verdict]:
        """The answer."""
        if not self._known(head.host):
            return _text(403, b"This page is for this machine: call it by 127.0.0.1 or localhost.\n")
        if (head.get(b"sec-fetch-site") or b"none") not in (b"none", b"same-origin"):
            return _text(403, b"Another website asked for this page.\n")
        if head.method not in (b"GET", b"HEAD"):
            return Answer(405, [(b"Allow", b"GET, HEAD")], decision="admin")
        match head.path:
            case b"/":
                return self._shown(self._page.html(), b"text/html; charset=utf-8")
            case b"/report.json":
                return self._shown(self._page.as_json(), b"application/json")
            case _:
                return _text(404, b"not found\n")

    async def _shown(self, made: Awaitable[bytes], kind: bytes) -> Verdict:
        fields = [
            (b"Content-Type", kind),
            (b"Cache-Control", b"no-store"),
            (b"Content-Security-Policy", _POLICY),
            (b"X-Content-Type-Options", b"nosniff"),
            (b"Referrer-Policy", b"no-referrer"),
        ]
        return Answer(200, fields, await made, "admin")


def names_this_machine(host: bytes) -> bool:
    """Whether a Host can only mean this machine."""
    try:
        name = urlsplit("//" + host.decode("latin-1")).hostname
    except ValueError:
        return False
    return bool(name) and is_loopback(name or "")


def _text(status: int, text: bytes) -> Answer:
    return Answer(status, [(b"Content-Type", b"text/plain"), (b"Cache-Control", b"no-store")], text, "admin")
