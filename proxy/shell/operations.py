"""The operations port: alive, ready, figures. Another door on the same data path."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Protocol

from proxy.core.gate import Answer, Verdict


class Head(Protocol):
    """What this door looks at."""

    @property
    def method(self) -> bytes: ...
    @property
    def path(self) -> bytes: ...


class OperationsDoor:
    """Answers `/livez`, `/readyz`, `/readyz/app`, `/let-go` and `/metrics`; everything else is a 404.

    `/ping` and `/ready` are what oauth2-proxy calls the first two.
    Ready means started and not draining. A store or an OP that is away shows in the body and
    in the metrics, never in the status: a blip must not take every replica out of service.
    `/readyz/app` is for a sidecar, whose app is in the same pod, on loopback, where no probe gets:
    ready, and the app accepts connections. `/let-go` is for its `preStop` hook, which can only GET:
    the app ends before the sidecar, and kept-alive connections must be gone by then. It does no
    harm to anybody who calls it otherwise.

    Args:
        ready: whether new requests are welcome.
        alive: whether the loop is well (false = restart us).
        away: names of dependencies that are known to be away.
        scrape: the figures in the Prometheus text format.
        app: whether the app accepts a connection now.
        let_go: gets rid of kept-alive connections.
    """

    def __init__(
        self,
        *,
        ready: Callable[[], bool],
        alive: Callable[[], bool],
        away: Callable[[], list[str]],
        scrape: Callable[[], bytes | Awaitable[bytes]],
        app: Callable[[], Awaitable[bool]],
        let_go: Callable[[], None],
    ) -> None:
        self._ready = ready
        self._alive = alive
        self._away = away
        self._scrape = scrape
        self._app = app
        self._let_go = let_go

    def admit(self, head: Head, peer: object) -> Verdict | Awaitable[Verdict]:
        """The answer to a probe or a scrape."""
        if head.method not in (b"GET", b"HEAD"):
            return Answer(405, [(b"Allow", b"GET, HEAD")], decision="operations")
        match head.path:
            case b"/livez" | b"/ping":
                return self._state("alive", self._alive())
            case b"/readyz" | b"/ready":
                return self._state("ready", self._ready())
            case b"/readyz/app":
                return self._ready_with_app()
            case b"/let-go":
                self._let_go()
                return self._state("ready", self._ready())
            case b"/metrics":
                text = self._scrape()
                return _figures(text) if isinstance(text, bytes) else self._collected(text)
            case _:
                return Answer(404, [(b"Content-Type", b"text/plain")], b"not found\n", "operations")

    async def _collected(self, waiting: Awaitable[bytes]) -> Verdict:
        return _figures(await waiting)

    async def _ready_with_app(self) -> Verdict:
        return self._state("ready", self._ready() and await self._app())

    def _state(self, word: str, good: bool) -> Answer:
        body = json.dumps({word: good, "away": self._away()}).encode() + b"\n"
        fields = [(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")]
        return Answer(200 if good else 503, fields, body, "operations")


def _figures(text: bytes) -> Answer:
    return Answer(200, [(b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")], text, "operations")
