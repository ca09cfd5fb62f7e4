"""Keeps open sessions alive: starts renewals, waits for them, takes in how they ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from proxy.core import steps
from proxy.core.gate import Standing, standing
from proxy.core.session import Outcome, OutcomeKind
from proxy.core.timing import floor_s
from proxy.errors import CookieError
from proxy.shell.clock import StoreTime
from proxy.shell.open_session import OpenSession
from proxy.shell.sessions import Sessions
from proxy.shell.single_flight import Flight, SingleFlight
from proxy.shell.subject import Subject

FORCED_EVERY_S = 300.0
"""An app's 401 forces at most one renewal in this time."""

FORCED_AGE_S = 10.0
"""A token younger than this is not the reason of an app's 401."""


class RefreshResult(Struct, frozen=True):
    """What became of an asked-for renewal.

    Attributes:
        word: refreshed; still_fresh; too_soon; unavailable (try again after `retry_after_s`);
            ended (`reason`).
        retry_after_s: whole seconds, at least 1 where it applies.
        reason: machine-readable word.
    """

    word: Literal["refreshed", "still_fresh", "too_soon", "unavailable", "ended"]
    retry_after_s: int = 0
    reason: str = ""


class Keeper:
    """Joins the session cache and the flights.

    Args:
        sessions: the cache.
        flights: renewals under way.
        time: the store's time.
        wait_s: how long a request waits for a renewal.
        count: told of every renewal's end: outcome, code, seconds.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        flights: Callable[[], SingleFlight],
        time: StoreTime,
        wait_s: float,
        count: Callable[[str, str, float], None],
    ) -> None:
        self._sessions = sessions
        self._flights = flights
        self._time = time
        self._wait_s = wait_s
        self._count = count

    def standing(self, session: OpenSession) -> Standing:
        """What the session's tokens are good for now."""
        self._sessions.wake(session)
        return standing(
            session.record,
            session.tokens,
            self._time.now(),
            retry_at=self.retry_at(session),
            unsaved=session.unsaved,
        )

    def retry_at(self, session: OpenSession) -> float:
        """Store time before which no renewal is tried: what we learned, or what the store says."""
        outcome = self.last_failure(session)
        return max(session.retry_at, outcome.not_before if outcome is not None else 0.0)

    def last_failure(self, session: OpenSession) -> Outcome | None:
        """The stored outcome of a fruitless renewal with the current token, if there is one."""
        outcome = session.record.outcome
        if outcome is None or outcome.kind is OutcomeKind.OK or outcome.rt != session.record.rt:
            return None
        return outcome

    def start(self, session: OpenSession) -> Flight:
        """Renew behind the request, or join the renewal under way."""
        op = (session.tokens.issuer, session.tokens.client_id)
        return self._flights().join(Subject(session.key, session.seal, session.record, op))

    async def renew(self, session: OpenSession) -> RefreshResult:
        """Renew and wait for it, within the budget."""
        now = self._time.now()
        wait_s = self.retry_at(session) - now
        if wait_s > 0:
            return self._unavailable(wait_s, session)
        result = await self._flights().wait(self.start(session), self._wait_s)
        return self.told(session, result)

    async def force(self, session: OpenSession) -> RefreshResult:
        """Renew although the token is alive, with the floor between renewals of a session."""
        tokens, now = session.tokens, self._time.now()
        if not tokens.refresh_token:
            return RefreshResult("ended", reason="no_refresh_token")
        too_soon_s = tokens.issued_at + floor_s(tokens.expires_at - tokens.issued_at) - now
        if too_soon_s > 0 or session.unsaved:
            return RefreshResult("too_soon", max(1, math.ceil(too_soon_s)))
        return await self.renew(session)

    async def after_unauthorized(self, session: OpenSession, challenge: bytes) -> bool:
        """The app answered 401: whether a forced renewal brought another token to try with.

        At most one per five minutes, never for a fresh token, never again after one that did
        not help: an app that always says 401 must not make us a storm.
        """
        now = self._time.now()
        if b"invalid_token" not in challenge.lower() or session.gone:
            return False
        if session.forced_gen == session.record.gen:
            return False  # this very token came from a forced renewal: it did not help
        if now - session.tokens.issued_at < FORCED_AGE_S or now - session.forced_at < FORCED_EVERY_S:
            return False
        session.forced_at = now
        used = session.tokens.access_token
        result = await self.force(session)
        if result.word == "refreshed" and session.tokens.access_token != used:
            session.forced_gen = session.record.gen
            return True
        return False

    def told(self, session: OpenSession, result: steps.Result | None) -> RefreshResult:
        """A flight's announcement as this session's answer; None = the wait was over first."""
        match result:
            case None:
                return RefreshResult("unavailable", 1, "refresh_slow")
            case steps.Refreshed() | steps.Unsaved() | steps.Adopted():
                if session.gone:
                    return RefreshResult("ended", reason=session.gone)
                return RefreshResult("refreshed")
            case steps.Kept(outcome):
                return self._unavailable(outcome.not_before - self._time.now(), session, outcome)
            case steps.Dead(_, outcome):
                return RefreshResult("ended", reason=outcome.code)
            case steps.Over(reason):
                return RefreshResult("ended", reason=reason)

    def _unavailable(
        self, wait_s: float, session: OpenSession, outcome: Outcome | None = None
    ) -> RefreshResult:
        outcome = outcome or self.last_failure(session)
        code = outcome.code if outcome is not None else "refresh_failed"
        if outcome is not None and outcome.kind is OutcomeKind.INTERACTION:
            return RefreshResult("ended", reason=code)
        return RefreshResult("unavailable", max(1, math.ceil(wait_s)), code)

    def settled(self, key: str, result: steps.Result, took_s: float) -> None:
        """Take in how a renewal ended, once, whoever waited for it."""
        session = self._sessions.cached(key)
        outcome, code = "ok", ""
        match result:
            case steps.Refreshed():
                pass
            case steps.Unsaved():
                outcome = "unsaved"
            case steps.Adopted():
                outcome = "adopted"
            case steps.Kept(kept):
                outcome, code = kept.kind.value, kept.code
                if session is not None:
                    session.retry_at = max(session.retry_at, kept.not_before)
                    session.good_until = 0.0
            case steps.Dead(record, verdict):
                outcome, code = "dead", verdict.code
                if session is not None:
                    try:
                        self._sessions.adopt(session, record)
                    except CookieError:
                        self._sessions.drop(session, verdict.code)
                    session.good_until = 0.0
            case steps.Over(reason):
                outcome, code = "over", reason
                if session is not None:
                    self._sessions.drop(session, reason)
        self._count(outcome, code, took_s)
