"""The door for engines: forward auth on a listener of its own, on the own data path."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from proxy.core.forward_auth import Answers, Original, Questions, target_name
from proxy.core.forward_auth import Engine as Engine
from proxy.core.gate import Answer, Forward, Pages, Verdict
from proxy.core.problem import problem
from proxy.wire.head import RequestHead
from proxy.wire.memo import LONGEST
from proxy.wire.passes import Pass, Passes

log = logging.getLogger("nightporter")


class Front(Protocol):
    """The front door; see `door.py`."""

    def admit(self, head: Original, peer: object, /) -> Verdict | Awaitable[Verdict]: ...
    def warm(self, path: bytes, cookie: bytes, host: bytes, /) -> Forward | None: ...


class AuthDoor:
    """Asks the front door about the original request, and words its verdict for the engine.

    Args:
        engine: who asks.
        front: decides.
        names: every header that we may set for the app.
        home: public origin for a Host.
        head_bytes: the longest question that is read.

    Attributes:
        standing: the pass to a question, if it is known (`wire/passes.py`).
    """

    def __init__(
        self,
        engine: Engine,
        front: Front,
        names: tuple[str, ...],
        home: Callable[[bytes], str],
        head_bytes: int = LONGEST,
    ) -> None:
        self._home = home
        self._engine = engine
        self._front = front
        self._questions = Questions(engine)
        self._answers = Answers(engine, names)
        self._passes = Passes(target_name(engine), front.warm, head_bytes)
        self.standing = self._passes.standing
        self._passed: tuple[RequestHead, Original, Forward] | None = None

    @property
    def found(self) -> int:
        """How many questions were known by their bytes; see `Passes`."""
        return self._passes.found

    def begin(self) -> None:
        """Something is read next that is not known."""
        self._passed = None

    def keep(self, data: bytes) -> None:
        """Know it again if it was a question that was let through, and is as most of the engine's are.

        Args:
            data: all that was read since `begin`, from an engine that was owed nothing.
        """
        passed, self._passed = self._passed, None
        if (
            passed is None
            or self._front.warm(passed[1].path, passed[1].cookie, passed[1].host) is not passed[2]
        ):
            return  # it would not be found standing
        if self._passes.resting or not self._kept(data, *passed):
            self._passes.missed()

    def _kept(self, data: bytes, head: RequestHead, asked: Original, forward: Forward) -> bool:
        # Only a head that came before has anything in common with others.
        if head.ready is None or head.has_body or not head.keep_alive or asked.upgrade_websocket:
            return False
        lines = self._answers.passed(forward, head.cookie_line).ready
        ready = b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\nDate: " % lines
        given = Pass(asked.cookie, forward.identity, forward.decision, ready)
        return self._passes.keep(data, head.method, asked.target, asked.host, given)

    def admit(self, head: RequestHead, peer: object) -> Verdict | Awaitable[Verdict]:
        """The answer to the engine's question; never a request passed on."""
        asked = self._questions.original(head)
        if asked is None:
            log.warning(
                "forward_auth_malformed",
                extra={"engine": str(self._engine), "request_id": head.request_id.decode("latin-1")},
            )
            return self._refusal(head, "The engine did not say plainly which request it asks about.")
        head.path = asked.path  # for the log; the engine's own path says nothing
        verdict = self._front.admit(asked, peer)
        if isinstance(verdict, Forward):
            self._passed = (head, asked, verdict)
            return self._answers.passed(verdict, head.cookie_line)
        if isinstance(verdict, (Answer, Pages)):
            return self._worded(head, asked, verdict)
        return self._later(head, asked, verdict)

    async def _later(self, head: RequestHead, asked: Original, waiting: Awaitable[Verdict]) -> Verdict:
        return self._worded(head, asked, await waiting)

    def _worded(self, head: RequestHead, asked: Original, verdict: Verdict) -> Answer:
        if isinstance(verdict, Forward):
            return self._answers.passed(verdict, head.cookie_line)
        if isinstance(verdict, Answer) and verdict.status >= 300:
            return self._answers.refused(verdict, self._home(asked.host))
        return self._refusal(head, "Requests below our prefix belong to the public listener.")

    def _refusal(self, head: RequestHead, detail: str) -> Answer:
        fields, body = problem(
            403, "", detail, head.request_id.decode("latin-1"), code="forward_auth_refused"
        )
        return Answer(403, fields, body, "refused")
