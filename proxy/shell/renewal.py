"""One renewal, carried out: does each step that `core/refresh.py` asks for and tells the outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from proxy.core import steps
from proxy.core.answers import Ask, Commit, Gone, Granted
from proxy.core.blobs import open_identity, open_tokens, seal_tokens
from proxy.core.providers import Profile, Revocation
from proxy.core.refresh import Attempt
from proxy.core.seal import random_id
from proxy.core.session import LEASE_S, Ended, Outcome, OutcomeKind
from proxy.core.timing import due_at, floor_s, jitter_of, token_life_s
from proxy.core.token_reply import Issued, RawReply, Refused, judge, own_words
from proxy.errors import CookieError, NotSent, OPUnavailable, ProxyError, ReplyLost, StoreUnavailable
from proxy.shell.held_lease import HeldLease
from proxy.shell.kit import Kit, TokenCall
from proxy.shell.subject import Subject

log = logging.getLogger("nightporter.refresh")

OP_UNREACHABLE = "op_unreachable"

JOIN_WAIT_S = 30.0
"""How long a renewal waits for another process that holds the lease."""


class Renewal:
    """Carries out one attempt's steps; keeps the connection, the lease and nothing else.

    Args:
        kit: what every renewal works with.
        subject: the session.
        announce: tells the waiters a first result, while the attempt goes on.
        changed: set when the session's record changed.
    """

    def __init__(
        self,
        kit: Kit,
        subject: Subject,
        announce: Callable[[steps.Result], Awaitable[None]],
        changed: asyncio.Event,
    ) -> None:
        self._kit = kit
        self._subject = subject
        self._announce = announce
        self._changed = changed
        self._attempt = Attempt(
            random_id(),
            subject.record,
            kit.observed.policy(kit.policy),
            spread=kit.spread(),
            waits=JOIN_WAIT_S,
        )
        self._lease = HeldLease(kit.store, kit.clock, subject.key, self._attempt.attempt_id)
        self._call: TokenCall | None = None
        self._reply: asyncio.Task[RawReply] | None = None
        self._sent_at = 0.0
        self._sent = ""
        self._commit: Commit | None = None
        self._told = False

    async def run(self) -> steps.Result:
        """Drive the attempt to its end."""
        kit = self._kit
        step = self._attempt.start(kit.time.now())
        try:
            while not isinstance(step, steps.Done):
                event = await self._do(step)
                step = self._attempt.feed(event, kit.time.now())
        finally:
            self._lease.stop()
            await self._hang_up()
            kit.breaker.returned()
        result = step.result
        if isinstance(result, steps.Kept) and result.outcome.code == OP_UNREACHABLE:
            kit.breaker.failed(OutcomeKind.TRANSIENT, OP_UNREACHABLE, None, kit.time.now())
        return result

    async def _do(self, step: steps.Step) -> steps.Event:
        match step:
            case steps.Connect():
                return await self._connect()
            case steps.Acquire():
                return await self._acquire(step)
            case steps.Send():
                return await self._send(step)
            case steps.Persist():
                return await self._persist(step)
            case steps.Release():
                return await self._release(step)
            case steps.Condemn():
                return await self._condemn(step)
            case steps.Renew():
                return await self._lease.renew()
            case steps.Linger():
                await self._announce(step.result)
                return await self._await_reply(step.for_s)
            case steps.Peek():
                return await self._peek(step)
            case steps.Wait():
                if step.announce is None:
                    await asyncio.sleep(step.for_s)
                    return steps.Woke()
                self._changed.clear()  # the write that just failed has set it
                if not self._told:
                    self._told = True
                    await self._announce(step.announce)
                with contextlib.suppress(TimeoutError):  # a store that is back says so
                    await asyncio.wait_for(self._changed.wait(), step.for_s)
                return steps.Woke()
            case steps.Revoke():
                return await self._revoke(step)
            case steps.Done():
                raise RuntimeError("Done is no step to carry out")

    # -- the connection and the call --

    async def _connect(self) -> steps.Event:
        if self._reply is not None and self._reply.done():
            reply, self._reply = self._reply, None
            event = self._read_reply(reply)
            if isinstance(event, steps.Reply):
                return event
        await self._hang_up()
        try:
            self._call = await self._kit.op.connect()
        except OPUnavailable as error:
            log.warning("op_unreachable", extra={"detail": error.detail})
            return steps.NotSent(OP_UNREACHABLE)
        return steps.Connected()

    async def _hang_up(self) -> None:
        call, self._call = self._call, None
        reply, self._reply = self._reply, None
        if call is not None:
            await call.aclose()
        if reply is not None:
            await asyncio.wait([reply])
            if not reply.cancelled():
                reply.exception()

    async def _send(self, step: steps.Send) -> steps.Event:
        assert self._call is not None
        self._sent_at, self._sent = self._kit.time.now(), step.refresh_token
        self._reply = asyncio.get_running_loop().create_task(
            self._call.refresh(step.refresh_token, scope=step.scope, last_check=self._lease.ours)
        )
        return await self._await_reply(step.for_s)

    async def _await_reply(self, for_s: float) -> steps.Event:
        assert self._reply is not None
        await asyncio.wait([self._reply], timeout=for_s)
        if not self._reply.done():
            return steps.TimedOut()
        reply, self._reply = self._reply, None  # each reply is read once
        return self._read_reply(reply)

    def _read_reply(self, task: asyncio.Task[RawReply]) -> steps.Event:
        kit = self._kit
        now = kit.time.now()
        try:
            raw = task.result()
        except NotSent as error:
            if not self._lease.ours():
                return steps.NotSent("lease_lost", lease_lost=True)
            log.warning("op_unreachable", extra={"detail": error.detail})
            return steps.NotSent(OP_UNREACHABLE)
        except (ReplyLost, OPUnavailable) as error:
            log.warning("refresh_answer_lost", extra={**self._whose(), "detail": error.detail})
            return steps.Lost(error.detail)
        judged = judge(raw, kit.profile, now=now)
        if isinstance(judged, Issued):
            kit.observed.refreshed(self._sent, judged)
            reckoned_s = token_life_s(judged, kit.policy)
            if odd := kit.observed.odd_life(judged, reckoned_s):
                log.warning("token_life_clamped", extra={"expires_in": odd, "reckoned_s": reckoned_s})
        else:
            self._tell_refusal(judged, raw)
        if isinstance(judged, Refused) and judged.kind in (OutcomeKind.TRANSIENT, OutcomeKind.CLIENT):
            if judged.kind is OutcomeKind.CLIENT and not kit.breaker.open:
                log.error("client_refused", extra=_told(judged, kit.profile))
            kit.breaker.failed(judged.kind, judged.code, judged.retry_after_s, now)
        else:
            kit.breaker.succeeded()
        return steps.Reply(judged, self._sent_at)

    def _tell_refusal(self, refused: Refused, raw: RawReply) -> None:
        """One line for whoever asks why somebody was signed out, or why renewals wait."""
        level = logging.ERROR if refused.kind is OutcomeKind.CLIENT else logging.WARNING
        says = {
            "outcome": refused.kind.value,
            "code": refused.code,
            "http_status": refused.http_status,
            "detail": own_words(raw, self._sent),
        }
        log.log(level, "refresh_refused", extra={**self._whose(), **says})

    def _whose(self) -> dict[str, str]:
        subject = self._subject
        try:
            identity = open_identity(subject.seal, subject.record)
        except CookieError:
            return {"session": subject.key[:12]}
        return {"session": subject.key[:12], "iss": identity.iss, "sub": identity.sub}

    # -- the store --

    async def _acquire(self, step: steps.Acquire) -> steps.Event:
        kit = self._kit
        asked_at = kit.clock.monotonic()
        ask = Ask(
            attempt=self._attempt.attempt_id,
            holder=kit.holder,
            gen=step.gen,
            rt=step.rt,
            lease_s=LEASE_S,
            durable=not kit.policy.repeat_is_safe,
        )
        try:
            if kit.journal is not None:
                await kit.journal.settle(self._subject.key, kit.store)
            answer = await kit.store.acquire(self._subject.key, ask)
        except StoreUnavailable as error:
            return steps.StoreFailed(error.detail)
        kit.time.observe(answer.now)
        if not isinstance(answer, Granted):
            return answer
        try:
            tokens = open_tokens(self._subject.seal, answer.record)
        except CookieError:
            # Same gen as was opened before: only a damaged store gets here.
            raise ProxyError("The session's tokens cannot be read.", detail="tokens blob") from None
        self._lease.granted(asked_at)
        return steps.GrantedTokens(answer, tokens)

    async def _persist(self, step: steps.Persist) -> steps.Event:
        kit, subject = self._kit, self._subject
        write = self.commit_of(step)
        try:
            answer = await kit.store.commit(subject.key, write)
        except StoreUnavailable as error:
            log.error("commit_failed", extra={"session": subject.key[:12], "detail": error.detail})
            if kit.journal is not None:
                await kit.journal.keep(subject.key, write)
            return steps.StoreFailed(error.detail)
        except Exception:
            # Whatever it is, the token in hand is the only valid one: it is tried again.
            log.exception("commit_failed", extra={"session": subject.key[:12]})
            return steps.StoreFailed("internal error")
        self._lease.stop()
        kit.time.observe(answer.now)
        if kit.journal is not None:
            await kit.journal.forget(subject.key, write.attempt)
        return answer

    def commit_of(self, step: steps.Persist) -> Commit:
        """The commit's arguments; sealed once, so that a repetition writes the same bytes."""
        if self._commit is None:
            kit, subject, tokens = self._kit, self._subject, step.tokens
            attempt = self._attempt.attempt_id
            rt = subject.seal.fingerprint(tokens.refresh_token)
            now = kit.time.now()
            life = tokens.expires_at - tokens.issued_at
            outcome = Outcome(
                OutcomeKind.OK, "ok", rt, attempt, now, not_before=tokens.issued_at + floor_s(life)
            )
            due = due_at(
                tokens.issued_at,
                tokens.expires_at,
                jitter_of(subject.key),
                kit.policy,
                tokens.refresh_until,
            )
            blob = seal_tokens(subject.seal, attempt, tokens)
            self._commit = Commit(attempt, step.consumed_rt, step.acquired_gen, blob, rt, due, outcome)
        return self._commit

    async def _release(self, step: steps.Release) -> steps.Event:
        if step.lease:
            self._lease.stop()
        try:
            await self._kit.store.abandon(
                self._subject.key, self._attempt.attempt_id, step.outcome, release=step.lease
            )
        except StoreUnavailable as error:
            return steps.StoreFailed(error.detail)
        return steps.Released()

    async def _condemn(self, step: steps.Condemn) -> steps.Event:
        try:
            answer = await self._kit.store.condemn(
                self._subject.key, self._attempt.attempt_id, step.gen, step.outcome
            )
        except StoreUnavailable as error:
            return steps.StoreFailed(error.detail)
        self._kit.time.observe(answer.now)
        return answer

    async def _peek(self, step: steps.Peek) -> steps.Event:
        await self._hang_up()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), step.for_s)
        self._changed.clear()
        try:
            snapshot = await self._kit.store.read(self._subject.key)
        except StoreUnavailable as error:
            return steps.StoreFailed(error.detail)
        self._kit.time.observe(snapshot.now)
        if snapshot.record is None or snapshot.record.tombstone:
            reason = snapshot.record.tombstone if snapshot.record is not None else Ended.ABSENT
            return Gone(reason, snapshot.now)
        return steps.Seen(snapshot.record)

    async def _revoke(self, step: steps.Revoke) -> steps.Event:
        try:
            if self._kit.profile.revocation is Revocation.API_DELETE:
                await self._kit.op.revoke(step.access_token, "access_token")
            else:
                await self._kit.op.revoke(step.token, "refresh_token")
        except ProxyError as error:
            log.warning("revocation_failed", extra={"detail": error.detail})
        return steps.Released()


def _told(refused: Refused, profile: Profile) -> dict[str, object]:
    """The operator's mistake, with what to change; every session is kept meanwhile."""
    from proxy.guide import remedy, topic_of

    return {
        "code": refused.code,
        "status": refused.http_status,
        "remedy": remedy(profile.name, topic_of(refused.code, refused.http_status)),
    }
