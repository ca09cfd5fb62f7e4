"""The demo's sample app: an ordinary web app that knows nothing of authentication.

It has no login, no session, no cookie and no OAuth library. It reads header fields, like any
app behind a reverse proxy, and shows what it was told. Because it sees the access token of
every request, it can count how often the token changed, and how many tokens have expired
while their owner was still here. It *verifies nothing*: an app that takes decisions from a
token must check it, or trust the proxy in front and be reachable through it only.

Run alone: ``python -m proxy.demo.app --port 8083``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import sys
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from proxy.demo.listening import run, takes_bind
from proxy.demo.pages import STYLE, page

TOKEN_HEADER = "x-forwarded-access-token"
IDENTITY = (
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-preferred-username",
    "x-forwarded-groups",
    TOKEN_HEADER,
)
MAX_VISITS = 200
KEEPALIVE_S = 15.0
"""Between two comments on a silent event stream, so that nobody in between takes it for dead."""


@dataclass(frozen=True, slots=True)
class Token:
    """What an access token says about itself, unverified.

    Attributes:
        fingerprint: short hash: enough to tell two tokens apart, useless to anybody else.
        sid: the sign-in it belongs to, "" if it does not say.
        issued_at, expires_at: Unix seconds; None for an opaque token.
    """

    fingerprint: str
    sid: str = ""
    issued_at: float | None = None
    expires_at: float | None = None


def read_token(value: str) -> Token | None:
    """Read a JWT's payload, for show only. An opaque token still has a fingerprint."""
    if not value:
        return None
    fingerprint = hashlib.sha256(value.encode()).hexdigest()[:8]
    parts = value.split(".")
    if len(parts) != 3:
        return Token(fingerprint)
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return Token(fingerprint)
    if not isinstance(payload, dict):
        return Token(fingerprint)
    claims = cast("dict[str, Any]", payload)
    return Token(
        fingerprint, str(claims.get("sid", "")), _seconds(claims.get("iat")), _seconds(claims.get("exp"))
    )


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the live log; `number` lets a stream go on where it broke off."""

    number: int
    at: float
    text: str


@dataclass(slots=True)
class Visit:
    """What the app noticed since one person first showed up.

    Attributes:
        refreshes: how often the access token became another one.
        outlived: how many of those tokens have expired while the person was still here.
    """

    since: float
    requests: int = 0
    refreshes: int = 0
    outlived: int = 0
    token: Token | None = None
    notes: deque[Note] = field(default_factory=lambda: deque[Note](maxlen=200))
    listeners: set[asyncio.Queue[Note]] = field(default_factory=set[asyncio.Queue[Note]])
    _noted: int = 0
    _recent: deque[str] = field(default_factory=lambda: deque[str](maxlen=64))
    _living: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def saw(self, token: Token | None, now: float) -> None:
        """Take a request into account."""
        self.requests += 1
        self._bury(now)
        # A request that was on its way when the token changed may still bring the old one.
        if token is None or token.fingerprint in self._recent:
            return
        self._recent.append(token.fingerprint)
        before, self.token = self.token, token
        number = 1 if before is None else self.refreshes + 2
        life = _life(token)
        if before is None:
            self._note(f"First request with access token 1{life}.", now)
        else:
            self.refreshes += 1
            left = "" if before.expires_at is None else _left(before.expires_at - now)
            self._note(f"Access token {number} arrived{left}{life}.", now)
        if token.expires_at is not None:
            self._living.append((token.expires_at, number))

    def _bury(self, now: float) -> None:
        for expires_at, number in [entry for entry in self._living if entry[0] <= now]:
            self._living.remove((expires_at, number))
            self.outlived += 1
            self._note(f"Access token {number} has expired. You are still here.", now)

    def _note(self, text: str, now: float) -> None:
        self._noted += 1
        note = Note(self._noted, now, text)
        self.notes.append(note)
        for queue in self.listeners:
            queue.put_nowait(note)


def _life(token: Token) -> str:
    if token.expires_at is None or token.issued_at is None:
        return ""
    return f"; it lives {token.expires_at - token.issued_at:.0f} s"


def _left(seconds: float) -> str:
    if seconds >= 0:
        return f", {seconds:.1f} s before the old one expires"
    return f", {-seconds:.1f} s after the old one had expired"


class SampleApp:
    """The app's endpoints.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._visits: OrderedDict[str, Visit] = OrderedDict()

    def asgi(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/", self.home),
                Route("/now", self.now),
                Route("/events", self.events),
                Route("/healthz", self.health),
                STYLE,
            ]
        )

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def home(self, request: Request) -> Response:
        """The page. It loads before anything is counted for it, so that a reload changes nothing."""
        visit = self._visit(request.headers)
        # form_action=None: signing out leads to a page of the provider, which no app knows.
        return page(
            "app.html",
            form_action=None,
            who=_who(request.headers),
            now=self._state(visit, request.headers),
            headers=[(name, _shorten(name, value)) for name, value in request.headers.items()],
            identity=[
                (_spell(name), _shorten(name, request.headers.get(name, "")), name == TOKEN_HEADER)
                for name in IDENTITY
            ],
        )

    async def now(self, request: Request) -> Response:
        """What the page asks for every second: a plain request like any other of an app."""
        visit = self._visit(request.headers)
        return JSONResponse(self._state(visit, request.headers), headers={"cache-control": "no-store"})

    async def events(self, request: Request) -> Response:
        """The live log as Server-Sent Events. The stream has headers once; the news come from the
        other requests of the same visit."""
        visit = self._visit(request.headers)
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else 0
        return StreamingResponse(
            self._stream(visit, after),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def _stream(self, visit: Visit, after: int) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[Note] = asyncio.Queue()
        visit.listeners.add(queue)
        try:
            yield b"retry: 2000\n\n"
            for note in [note for note in visit.notes if note.number > after]:
                yield _event(note)
            while True:
                try:
                    note = await asyncio.wait_for(queue.get(), KEEPALIVE_S)
                except TimeoutError:
                    yield b": still here\n\n"
                else:
                    yield _event(note)
        finally:
            visit.listeners.discard(queue)

    def _visit(self, headers: Headers) -> Visit:
        now = self._clock()
        token = read_token(headers.get(TOKEN_HEADER, ""))
        key = (token.sid if token else "") or headers.get("x-forwarded-user", "")
        visit = self._visits.get(key)
        if visit is None:
            visit = self._visits[key] = Visit(since=now)
            if len(self._visits) > MAX_VISITS:
                self._visits.popitem(last=False)
        self._visits.move_to_end(key)
        visit.saw(token, now)
        return visit

    def _state(self, visit: Visit, headers: Mapping[str, str]) -> dict[str, Any]:
        now = self._clock()
        token = visit.token
        remaining = None if token is None or token.expires_at is None else token.expires_at - now
        life = None
        if token is not None and token.expires_at is not None and token.issued_at is not None:
            life = token.expires_at - token.issued_at
        return {
            "who": _who(headers),
            "requests": visit.requests,
            "refreshes": visit.refreshes,
            "outlived": visit.outlived,
            "signed_in_s": round(now - visit.since, 3),
            "remaining_s": None if remaining is None else round(remaining, 3),
            "life_s": life,
            "token": None if token is None else token.fingerprint,
            "shown_token": _shorten(TOKEN_HEADER, headers.get(TOKEN_HEADER, "")),
        }


def _who(headers: Mapping[str, str]) -> str:
    """How to greet whoever this is: the first name that the app was told, "" if none."""
    for name in ("x-forwarded-preferred-username", "x-forwarded-email", "x-forwarded-user"):
        if headers.get(name):
            return headers[name]
    return ""


def _shorten(name: str, value: str) -> str:
    """A token is a key: the page shows that it is there, not what it is."""
    if value and name in (TOKEN_HEADER, "authorization"):
        fingerprint = hashlib.sha256(value.encode()).hexdigest()[:8]
        return f"{value[:8]}… ({len(value)} characters, fingerprint {fingerprint})"
    return value


def _spell(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("-"))


def _event(note: Note) -> bytes:
    data = json.dumps({"at": note.at, "text": note.text})
    return f"id: {note.number}\nevent: note\ndata: {data}\n\n".encode()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m proxy.demo.app", description="The demo's sample app.")
    parser.add_argument("--port", type=int, default=8083)
    takes_bind(parser)
    options = parser.parse_args(argv)
    run(SampleApp().asgi(), bind=options.bind, port=options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
