"""The door for engines: forward auth on a listener of its own, on the own data path."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from proxy.core.forward_auth import Answers, Original, Questions
from proxy.core.forward_auth import Engine as Engine
from proxy.core.gate import Answer, Forward, Pages, Verdict
from proxy.core.problem import problem
from proxy.wire.head import RequestHead

log = logging.getLogger("nightporter")

Ask = Callable[[Original, object], Verdict | Awaitable[Verdict]]


class AuthDoor:
    """Asks the front door about the original request, and words its verdict for the engine.

    Args:
        engine: who asks.
        ask: the front door's `admit`.
        names: every header that we may set for the app.
        home: public origin for a Host.
    """

    def __init__(
        self, engine: Engine, ask: Ask, names: tuple[str, ...], home: Callable[[bytes], str]
    ) -> None:
        self._home = home
        self._engine = engine
        self._ask = ask
        self._questions = Questions(engine)
        self._answers = Answers(engine, names)

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
        verdict = self._ask(asked, peer)
        if isinstance(verdict, Forward):
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
