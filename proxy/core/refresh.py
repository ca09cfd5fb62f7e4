"""What to do next at every turn of a renewal (when it is due: `core/timing.py`).

`Attempt` is one renewal as a pure state machine: it is told what happened and answers with the
one thing to do next. `shell/single_flight.py` does it and tells the outcome. There is no
await, no clock and no socket here, so every interleaving can be played through in a test.

The order of a renewal, and why it is so (each rule has a counterexample when left out)::

    Connect ──> Acquire ──> Send ──> Persist ──> Done(Refreshed)
       │           │          │         └─ store away: announce from memory, try on until it lands
       │           │          ├─ refused ──> Release(outcome) ──> Done(Kept)
       │           │          ├─ DEAD ─────> Release, Condemn (compare-and-set) ──> Done(Dead)
       │           │          └─ lost ─────> the profile decides: once more, or as late as possible
       │           ├─ changed: adopt what is stored
       │           └─ held: wait, look again; never send while another's lease lives
       └─ provably not sent: try again freely

- The connection is open before the lease is asked for, so the lease covers the call alone.
- The token that is sent comes from the reply that granted the lease, never from a cache.
- New tokens are written before anything looks at them; the write asks for the consumed
  token and the acquired `gen`, not for the lease: a slow holder saves the only valid token.
- DEAD is a verdict on a token. It is believed only if the stored token still is that token and
  nobody else may come back with its successor.
- Nothing but a verdict, a sign-out or a limit ever ends a session.

Source: RFC 6749 §6 and §5.2; RFC 9700 §4.14; OIDC Core §12.
"""

from __future__ import annotations

import enum

from proxy.core.answers import Changed, Committed, Condemned, FailedLately, Gone, Held, Unresolved
from proxy.core.session import INTENT_KEEP_S, Ended, Outcome, OutcomeKind, Record, Tokens
from proxy.core.steps import (
    Acquire,
    Adopted,
    Condemn,
    Connect,
    Connected,
    Dead,
    Done,
    Event,
    GrantedTokens,
    Kept,
    Linger,
    Lost,
    NotSent,
    Over,
    Peek,
    Persist,
    Refreshed,
    Release,
    Released,
    Renew,
    Renewed,
    Reply,
    Result,
    Revoke,
    Seen,
    Send,
    Step,
    StoreFailed,
    TimedOut,
    Unsaved,
    Wait,
    Woke,
)
from proxy.core.timing import RefreshPolicy, backoff_s, merge
from proxy.core.token_reply import Issued, Refused

VERDICT_PENDING = "verdict_pending"
"""The OP refused the token, but somebody else may still come back with its successor."""

TAKEOVER_PAUSE_S = 2.0
"""How long a successor waits, with the lease, for a commit of whoever was granted this token before."""


class _Phase(enum.Enum):
    CONNECTING = enum.auto()
    ACQUIRING = enum.auto()
    LOOKING = enum.auto()
    CALLING = enum.auto()
    LINGERING = enum.auto()
    PAUSING = enum.auto()
    RENEWING = enum.auto()
    RECONNECTING = enum.auto()
    PERSISTING = enum.auto()
    STORE_AWAY = enum.auto()
    CLOSING_INTENT = enum.auto()
    CONDEMNING = enum.auto()
    WAITING_FOR_INTENTS = enum.auto()
    FINISHING = enum.auto()
    OVER = enum.auto()


class Attempt:
    """One renewal. `start` once, then `feed` each event; every answer is the next step.

    Args:
        attempt_id: random, new for every attempt.
        record: as it was read.
        policy: of the provider.
        spread: in [0, 1), random: spreads back-offs.
        waits: how long to wait for another holder before giving up, seconds.
    """

    def __init__(
        self,
        attempt_id: str,
        record: Record,
        policy: RefreshPolicy,
        *,
        spread: float = 0.5,
        waits: float = 30.0,
    ) -> None:
        self.attempt_id = attempt_id
        self._record = record
        self._policy = policy
        self._spread = spread
        self._waits = waits
        self._phase = _Phase.CONNECTING
        self._started_at = 0.0
        self._tokens: Tokens | None = None
        self._tries = 0
        self._unsent_until = 0.0
        self._unsent = 0
        self._ambiguous = False
        self._store_tries = 0
        self._new: tuple[Tokens, str] | None = None
        self._verdict: Outcome | None = None
        self._verdict_until = 0.0
        self._wait_until = 0.0
        self._final: Result | None = None
        self._paused = False

    def start(self, now: float) -> Step:
        """The first step.

        Args:
            now: store time, Unix seconds.
        """
        self._started_at = now
        self._unsent_until = now + self._policy.unsent_budget_s
        self._wait_until = now + self._waits
        return self._connect(_Phase.CONNECTING)

    def feed(self, event: Event, now: float) -> Step:
        """The step after `event`.

        Raises:
            RuntimeError: an event that cannot follow the last step: a defect of the driver.
        """
        handler = getattr(self, "_on_" + self._phase.name.lower())
        step: Step | None = handler(event, now)
        if step is None:
            raise RuntimeError(f"{type(event).__name__} cannot follow in phase {self._phase.name}")
        return step

    # -- before the token leaves --

    def _connect(self, phase: _Phase) -> Step:
        self._phase = phase
        return Connect()

    def _on_connecting(self, event: Event, now: float) -> Step | None:
        if isinstance(event, Connected):
            self._phase = _Phase.ACQUIRING
            return Acquire(self._record.gen, self._record.rt)
        if isinstance(event, NotSent):
            # No lease, no intent: nothing to give back.
            return self._unsent_again(event, now) or self._done(Kept(self._fruitless(now, event.detail)))
        if isinstance(event, Woke):
            return self._connect(_Phase.CONNECTING)
        return None

    def _unsent_again(self, event: NotSent, now: float) -> Step | None:
        """A pause before the next free try, None once the budget is spent."""
        if event.lease_lost or now >= self._unsent_until:
            return None
        self._unsent += 1
        return Wait(min(0.1 * 2.0**self._unsent, 1.0))

    def _on_acquiring(self, event: Event, now: float) -> Step | None:
        if isinstance(event, GrantedTokens):
            return self._granted(event, now)
        if isinstance(event, Changed):
            return self._done(Adopted(event.record))
        if isinstance(event, Held):
            return self._held(event.for_s, now)
        if isinstance(event, FailedLately):
            return self._failed_lately(event.outcome, event.record)
        if isinstance(event, Gone):
            return self._done(Over(event.reason))
        if isinstance(event, StoreFailed):
            # It may have been granted: asking again under the same id is answered the same.
            self._store_tries += 1
            if self._store_tries <= 2:
                return Wait(0.2 * self._store_tries)
            # Not for long: once the store is back, nobody is to be sent away any more.
            return self._done(Kept(self._outcome(OutcomeKind.TRANSIENT, "store_unavailable", now, now + 0.2)))
        if isinstance(event, Woke):
            return Acquire(self._record.gen, self._record.rt)
        return None

    def _failed_lately(self, outcome: Outcome, record: Record) -> Step:
        if outcome.kind is OutcomeKind.DEAD:
            return self._done(Dead(record, outcome))
        if outcome.kind is OutcomeKind.OK:
            # Renewed a moment ago, and the floor between renewals holds us off: nothing failed.
            return self._done(Adopted(record))
        return self._done(Kept(outcome))

    def _held(self, for_s: float, now: float) -> Step:
        """Another process renews: look again when the record changes or its lease runs out."""
        if now >= self._wait_until:
            return self._done(Kept(self._outcome(OutcomeKind.TRANSIENT, "held_elsewhere", now, now + 1.0)))
        self._phase = _Phase.LOOKING
        return Peek(max(0.05, min(for_s + 0.05, 1.0, self._wait_until - now)))

    def _on_looking(self, event: Event, now: float) -> Step | None:
        if isinstance(event, Gone):
            return self._done(Over(event.reason))
        if isinstance(event, StoreFailed):
            return self._held(1.0, now)
        if not isinstance(event, Seen):
            return None
        record = event.record
        if (record.gen, record.rt) != (self._record.gen, self._record.rt):
            return self._done(Adopted(record))
        outcome = record.outcome
        fresh = outcome is not None and outcome.rt == record.rt and outcome.at >= self._started_at
        if outcome is not None and fresh and (outcome.not_before > now or record.dead == record.rt):
            return self._failed_lately(outcome, record)
        return self._connect(_Phase.CONNECTING)

    def _granted(self, event: GrantedTokens, now: float) -> Step:
        record = event.granted.record
        self._record, self._tokens = record, event.tokens
        last = record.outcome
        if last is not None and last.rt == record.rt:
            self._ambiguous = last.ambiguous
            self._tries = last.tries
            if last.code == VERDICT_PENDING:
                # The OP has judged this very token; it is not shown to it again (C5).
                self._ambiguous = True
                return self._dead(Refused(OutcomeKind.DEAD, VERDICT_PENDING, last.http_status), now)
        others = [
            intent
            for intent in record.intents
            if intent.attempt != self.attempt_id
            and intent.rt == record.rt
            and (not intent.holder or now - intent.at < INTENT_KEEP_S)
        ]
        if others:
            # Somebody was granted this token and never said how it went: it may be consumed.
            self._ambiguous = True
            if not self._policy.repeats_at_once and now < self._latest(now):
                return self._give_up(OutcomeKind.AMBIGUOUS, "unanswered_intent", now, self._latest(now))
            alive = any(intent.holder for intent in others)
            if alive and not self._policy.repeat_is_safe and not self._paused:
                # If they live, they hold the successor and could not write it: the store was away, from them
                # or from all of us. It has to be theirs before this token is shown to the OP again (D2).
                self._paused = True
                self._phase = _Phase.ACQUIRING
                return Wait(TAKEOVER_PAUSE_S)
        return self._send()

    # -- the call --

    def _send(self) -> Step:
        assert self._tokens is not None
        self._phase = _Phase.CALLING
        scope = self._tokens.scope if self._policy.send_scope else ""
        return Send(self._tokens.refresh_token, scope, self._policy.call_s)

    def _on_calling(self, event: Event, now: float) -> Step | None:
        if isinstance(event, Reply):
            return self._replied(event, now)
        if isinstance(event, Lost):
            return self._ambiguity(now, "reply_lost")
        if isinstance(event, TimedOut):
            if self._policy.repeat_is_safe and not self._repeated:
                return self._ambiguity(now, "timeout")
            return self._linger(now)
        if isinstance(event, NotSent):
            if event.lease_lost:
                return self._release(None, Kept(self._outcome(OutcomeKind.TRANSIENT, "lease_lost", now, 0.0)))
            again = self._unsent_again(event, now)
            if again is None:
                return self._give_up(OutcomeKind.TRANSIENT, event.detail, now)
            self._phase = _Phase.PAUSING
            return again
        return None

    def _linger(self, now: float) -> Step:
        """Give the call up but go on listening: a late token is still the only valid one.

        The intent and the lease go back first, so that nobody waits for us.
        """
        self._ambiguous = True
        self._tries += 1
        not_before = max(self._latest(now), now + self._policy.linger_s)
        outcome = self._outcome(OutcomeKind.AMBIGUOUS, "timeout", now, not_before)
        self._phase = _Phase.LINGERING
        self._final = Kept(outcome)
        return Release(outcome)

    def _on_lingering(self, event: Event, now: float) -> Step | None:
        assert isinstance(self._final, Kept)
        if isinstance(event, (Released, StoreFailed)):
            return Linger(self._final, self._policy.linger_s)
        if isinstance(event, Reply):
            return self._replied(event, now)
        if isinstance(event, (Lost, TimedOut)):
            return self._done(self._final)
        return None

    def _replied(self, event: Reply, now: float) -> Step:
        judged = event.judged
        assert self._tokens is not None
        if isinstance(judged, Issued):
            tokens = merge(self._tokens, judged, event.sent_at, self._policy)
            self._new = (tokens, judged.id_token)
            return self._persist()
        if judged.kind is OutcomeKind.AMBIGUOUS:
            return self._ambiguity(now, judged.code, judged.http_status)
        if judged.kind is OutcomeKind.DEAD:
            return self._dead(judged, now)
        self._tries += 1
        wait = judged.retry_after_s
        if wait is None:
            wait = 60.0 if judged.kind is OutcomeKind.INTERACTION else backoff_s(self._tries, self._spread)
        outcome = self._outcome(judged.kind, judged.code, now, now + wait, judged.http_status, judged.claims)
        return self._release(outcome, Kept(outcome))

    # -- perhaps processed --

    _repeated = False

    def _ambiguity(self, now: float, code: str, http_status: int = 0) -> Step:
        """No usable reply: the OP may hold a successor that we never saw. The profile decides."""
        self._ambiguous = True
        self._tries += 1
        late = self._latest(now)
        if self._repeated or (not self._policy.repeats_at_once and now < late):
            not_before = max(late if not self._repeated else 0.0, now + backoff_s(self._tries, self._spread))
            return self._give_up(OutcomeKind.AMBIGUOUS, code, now, not_before, http_status)
        self._repeated = True
        self._unsent_until = now + self._policy.unsent_budget_s
        self._phase = _Phase.PAUSING
        # A reuse-punishing OP gets time to finish with a request whose connection broke.
        return Wait(0.1 if self._policy.repeats_at_once else 2.0)

    def _latest(self, now: float) -> float:
        """As late as the live access token allows; `now` if there is nothing left to wait for."""
        if self._tokens is None:
            return now
        life = self._tokens.expires_at - self._tokens.issued_at
        return max(now, self._tokens.expires_at - min(10.0, 0.1 * life))

    def _on_pausing(self, event: Event, now: float) -> Step | None:
        if isinstance(event, Woke):
            # No renewal, no second try.
            self._phase = _Phase.RENEWING
            return Renew()
        return None

    def _on_renewing(self, event: Event, now: float) -> Step | None:
        if isinstance(event, Renewed) and event.ours:
            return self._connect(_Phase.RECONNECTING)
        if isinstance(event, (Renewed, StoreFailed)):
            kind = OutcomeKind.AMBIGUOUS if self._ambiguous else OutcomeKind.TRANSIENT
            return self._give_up(kind, "lease_lost", now)
        return None

    def _on_reconnecting(self, event: Event, now: float) -> Step | None:
        if isinstance(event, Connected):
            return self._send()
        if isinstance(event, Reply):
            # The first call's answer came after all, before its connection was closed.
            return self._replied(event, now)
        if isinstance(event, NotSent):
            again = self._unsent_again(event, now)
            if again is None:
                kind = OutcomeKind.AMBIGUOUS if self._repeated else OutcomeKind.TRANSIENT
                return self._give_up(kind, event.detail, now)
            self._phase = _Phase.PAUSING
            return again
        return None

    # -- commit first --

    def _persist(self) -> Step:
        assert self._new is not None
        self._phase = _Phase.PERSISTING
        return Persist(self._new[0], self._record.rt, self._record.gen)

    def _on_persisting(self, event: Event, now: float) -> Step | None:
        assert self._new is not None
        tokens, id_token = self._new
        if isinstance(event, Committed):
            return self._done(Refreshed(event.record, tokens, id_token))
        if isinstance(event, Changed):
            # Somebody was faster. A loser never revokes: where revocation reaches the grant it
            # would kill the winner.
            return self._done(Adopted(event.record))
        if isinstance(event, Gone):
            over = Over(event.reason)
            if event.reason in (Ended.SUPERSEDED, Ended.ABSENT):
                return self._done(over)
            self._phase, self._final = _Phase.FINISHING, over
            return Revoke(tokens.refresh_token, tokens.access_token)
        if isinstance(event, StoreFailed):
            if now >= self._record.end:
                return self._done(Over(Ended.ABSOLUTE))
            self._store_tries += 1
            self._phase = _Phase.STORE_AWAY
            return Wait(min(0.1 * 2.0 ** min(self._store_tries, 6), 5.0), announce=Unsaved(tokens, id_token))
        return None

    def _on_store_away(self, event: Event, now: float) -> Step | None:
        return self._persist() if isinstance(event, Woke) else None

    # -- a verdict on the token --

    def _dead(self, refused: Refused, now: float) -> Step:
        code = "rotation_lost" if self._ambiguous else refused.code
        self._verdict = self._outcome(OutcomeKind.DEAD, code, now, 0.0, refused.http_status)
        self._verdict_until = now + self._policy.intent_wait_s
        # Two holders that were told DEAD must not wait for each other: the own intent goes first.
        self._phase = _Phase.CLOSING_INTENT
        return Release(None, lease=False)

    def _on_closing_intent(self, event: Event, now: float) -> Step | None:
        if isinstance(event, (Released, StoreFailed)):
            return self._condemn()
        return None

    def _condemn(self) -> Step:
        assert self._verdict is not None
        self._phase = _Phase.CONDEMNING
        return Condemn(self._record.gen, self._verdict)

    def _on_condemning(self, event: Event, now: float) -> Step | None:
        assert self._verdict is not None
        if isinstance(event, Condemned):
            return self._done(Dead(event.record, self._verdict))
        if isinstance(event, Changed):
            return self._release(None, Adopted(event.record))
        if isinstance(event, Gone):
            return self._done(Over(event.reason))
        if isinstance(event, Unresolved):
            if now < self._verdict_until:
                self._phase = _Phase.WAITING_FOR_INTENTS
                return Wait(0.25)
            http_status = self._verdict.http_status
            return self._give_up(OutcomeKind.UNKNOWN, VERDICT_PENDING, now, event.until, http_status)
        if isinstance(event, StoreFailed):
            if now < self._verdict_until:
                self._phase = _Phase.WAITING_FOR_INTENTS
                return Wait(0.5)
            return self._give_up(OutcomeKind.TRANSIENT, "store_unavailable", now)
        return None

    def _on_waiting_for_intents(self, event: Event, now: float) -> Step | None:
        return self._condemn() if isinstance(event, Woke) else None

    # -- endings --

    def _outcome(
        self,
        kind: OutcomeKind,
        code: str,
        now: float,
        not_before: float,
        http_status: int = 0,
        claims: str = "",
    ) -> Outcome:
        return Outcome(
            kind=kind,
            code=code,
            rt=self._record.rt,
            attempt=self.attempt_id,
            at=now,
            not_before=not_before,
            tries=self._tries,
            http_status=http_status,
            ambiguous=self._ambiguous,
            claims=claims,
        )

    def _fruitless(self, now: float, code: str) -> Outcome:
        self._tries += 1
        return self._outcome(OutcomeKind.TRANSIENT, code, now, now + backoff_s(self._tries, self._spread))

    def _give_up(
        self, kind: OutcomeKind, code: str, now: float, not_before: float | None = None, http_status: int = 0
    ) -> Step:
        """Give lease and intent back, store why and until when, keep the session."""
        if not_before is None:
            self._tries += 1
            not_before = now + backoff_s(self._tries, self._spread)
        outcome = self._outcome(kind, code, now, not_before, http_status)
        return self._release(outcome, Kept(outcome))

    def _release(self, outcome: Outcome | None, final: Result) -> Step:
        self._phase, self._final = _Phase.FINISHING, final
        return Release(outcome)

    def _on_finishing(self, event: Event, now: float) -> Step | None:
        if isinstance(event, (Released, StoreFailed)):
            assert self._final is not None
            return self._done(self._final)
        return None

    def _done(self, result: Result) -> Step:
        self._phase = _Phase.OVER
        return Done(result)
