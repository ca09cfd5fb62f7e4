"""What is looked at once new tokens are durable: the ID token, then userinfo. It costs no token.

OIDC Core §12.2 says what a refreshed ID token must keep. One that speaks of somebody else ends
the session; one that cannot be checked just now changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from proxy.core import steps
from proxy.core.blobs import open_identity, seal_identity
from proxy.core.logout import given_back
from proxy.core.providers import PROFILES
from proxy.core.seal import random_id
from proxy.core.session import Ended, Identity, Record, Tokens
from proxy.core.timing import backoff_s
from proxy.errors import CookieError, IdTokenRejected, OPUnavailable, ProxyError, StoreUnavailable
from proxy.shell.background import Background
from proxy.shell.giving_back import give_back
from proxy.shell.sessions import Sessions
from proxy.shell.store.contract import Store
from proxy.shell.store.marks import TOMBSTONE_S
from proxy.shell.subject import Subject

log = logging.getLogger("nightporter.refresh")

CHECK_S = 8.0
"""An ID token whose check takes longer (keys that cannot be fetched) is not waited for."""

FORGIVEN = frozenset({"exp", "iat", "nbf", "clock_skew", "kid_unknown", "nonce_missing", "at_hash"})
"""Failed checks that speak of clocks, of keys not seen yet or of another access token, not of another
person: the old identity stays, the session goes on. `at_hash` is among them because a provider that
answers a repeated refresh with the tokens of the first may make the ID token anew, for an access token
that it then throws away (django-oauth-toolkit within its grace)."""

USERINFO_TRIES = 4


class Verifier(Protocol):
    """The part of the OP client that aftercare uses."""

    async def verify_id_token(
        self, raw: str, *, nonce: str | None, access_token: str, previous: Identity | None, now: float
    ) -> dict[str, Any]: ...

    async def userinfo(self, access_token: str, sub: str) -> dict[str, Any]: ...

    async def groups(self, access_token: str) -> list[str]: ...

    async def revoke(self, token: str, hint: str) -> bool | None: ...


class IdentityRules(Struct, frozen=True):
    """How identity is learned at this provider.

    Attributes:
        learn: claims of an ID token, claims of userinfo (None = not asked), the identity so
            far, now → the new identity.
        userinfo: whether userinfo is asked after a refresh, given the ID token's claims (None =
            no ID token came) and the identity so far.
        elsewhere: whether an ID token says that its groups are to be had elsewhere.
        given_back: the token to give back at an end, and its hint; None = nothing can be.
        groups_claim: where groups that were had elsewhere are put.
    """

    learn: Callable[[dict[str, Any] | None, dict[str, Any] | None, Identity, float], Identity]
    userinfo: Callable[[dict[str, Any] | None, Identity], bool]
    elsewhere: Callable[[dict[str, Any]], bool] = lambda claims: False
    given_back: Callable[[Tokens], tuple[str, str] | None] = lambda tokens: given_back(
        PROFILES["generic"], tokens
    )
    groups_claim: str = "groups"


class Aftercare:
    """Examines what a renewal brought, before anybody uses it.

    Args:
        sessions: the cache to bring up to date.
        store: to end a session, to write the `who` blob.
        op: checks signatures, asks userinfo, revokes.
        rules: of the provider.
        now: store time.
        background: carries what nobody waits for.
        alarm: told when a refreshed ID token speaks of somebody else.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        store: Store,
        op: Verifier,
        rules: IdentityRules,
        now: Callable[[], float],
        background: Background,
        alarm: Callable[[str], None],
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._op = op
        self._rules = rules
        self._now = now
        self._background = background
        self._alarm = alarm

    async def examine(self, subject: Subject, result: steps.Result) -> steps.Result:
        """Check and take over new tokens; answers `Over` if they speak of somebody else."""
        if isinstance(result, steps.Adopted):
            self._adopt(subject, result.record)
            return result
        if not isinstance(result, (steps.Refreshed, steps.Unsaved)):
            return result
        before = self._identity(subject)
        claims: dict[str, Any] | None = None
        if result.id_token and before is not None:
            with self._sessions.unjudged(subject.key):
                try:
                    claims = await self._checked(result, before)
                except IdTokenRejected as error:
                    return await self._mismatch(subject, result.tokens, error)
        if isinstance(result, steps.Refreshed):
            self._adopt(subject, result.record)
            if before is not None:
                await self._learn(subject, result, before, claims)
        else:
            session = self._sessions.cached(subject.key)
            if session is not None:
                self._sessions.take(session, result.tokens)
        return result

    async def _checked(
        self, result: steps.Refreshed | steps.Unsaved, before: Identity
    ) -> dict[str, Any] | None:
        """The refreshed ID token's claims; None if it could not be judged now.

        Raises:
            IdTokenRejected: it speaks of somebody else, or somebody else signed it.
        """
        try:
            async with asyncio.timeout(CHECK_S):
                return await self._op.verify_id_token(
                    result.id_token,
                    nonce=None,
                    access_token=result.tokens.access_token,
                    previous=before,
                    now=self._now(),
                )
        except IdTokenRejected as error:
            if error.code not in FORGIVEN:
                raise
            log.warning("id_token_not_used", extra={"check": error.code, "detail": error.detail})
        except (OPUnavailable, TimeoutError) as error:
            log.warning("id_token_unchecked", extra={"detail": type(error).__name__})
        return None

    async def _mismatch(self, subject: Subject, tokens: Tokens, error: IdTokenRejected) -> steps.Result:
        """Somebody else's tokens: end the session, revoke what was stored, raise the alarm."""
        self._alarm(error.code)
        log.error(
            "refreshed_identity_mismatch",
            extra={"session": subject.key[:12], "check": error.code, "detail": error.detail},
        )
        # From here on, whatever the store says: its record holds the other one's tokens until then.
        self._sessions.refuse(subject.key, Ended.MISMATCH)
        self._background.spawn("end_mismatch", self._end_until_written(subject, tokens))
        return steps.Over(Ended.MISMATCH)

    async def _end_until_written(self, subject: Subject, tokens: Tokens) -> None:
        tries = 0
        while True:
            try:
                await self._store.end(subject.key, Ended.MISMATCH, TOMBSTONE_S)
                break
            except StoreUnavailable:
                tries += 1
                await asyncio.sleep(backoff_s(tries, 0.5))
        self._sessions.refused_in_store(subject.key)
        back = self._rules.given_back(tokens)
        if back is not None:
            await give_back(self._op, *back)

    def _adopt(self, subject: Subject, record: Record) -> None:
        session = self._sessions.cached(subject.key)
        if session is None:
            return
        try:
            self._sessions.adopt(session, record)
        except CookieError as error:
            log.warning("session_unreadable", extra={"session": subject.key[:12], "detail": error.detail})
            self._sessions.drop(session, Ended.ABSENT)

    def _identity(self, subject: Subject) -> Identity | None:
        session = self._sessions.cached(subject.key)
        if session is not None:
            return session.identity
        try:
            return open_identity(subject.seal, subject.record)
        except CookieError:
            return None

    async def _learn(
        self,
        subject: Subject,
        result: steps.Refreshed,
        before: Identity,
        claims: dict[str, Any] | None,
    ) -> None:
        if self._rules.userinfo(claims, before) or (claims is not None and self._rules.elsewhere(claims)):
            # Nobody waits for userinfo: the tokens are good, the identity follows.
            self._background.spawn("userinfo", self._learn_from_userinfo(subject, result, before, claims))
        elif claims is not None:
            await self._write(subject, result.record, before, claims, None)

    async def _learn_from_userinfo(
        self, subject: Subject, result: steps.Refreshed, before: Identity, claims: dict[str, Any] | None
    ) -> None:
        userinfo: dict[str, Any] | None = None
        token = result.tokens.access_token
        for tries in range(1, USERINFO_TRIES + 1):
            try:
                if claims is not None and self._rules.elsewhere(claims):
                    claims = {**claims, self._rules.groups_claim: await self._op.groups(token)}
                if self._rules.userinfo(claims, before):
                    userinfo = await self._op.userinfo(token, before.sub)
                break
            except IdTokenRejected as error:
                if claims is None and error.code == "userinfo_sub":
                    # No ID token vouches for the person: these are somebody else's tokens.
                    await self._mismatch(subject, result.tokens, error)
                    return
                log.warning("userinfo_not_used", extra={"session": subject.key[:12], "check": error.code})
                break
            except ProxyError as error:
                log.warning(
                    "userinfo_failed",
                    extra={"session": subject.key[:12], "tries": tries, "detail": error.detail},
                )
                if tries < USERINFO_TRIES:
                    await asyncio.sleep(0.3 * 2.0**tries)
        if claims is not None or userinfo is not None:
            await self._write(subject, result.record, before, claims, userinfo)

    async def _write(
        self,
        subject: Subject,
        record: Record,
        before: Identity,
        claims: dict[str, Any] | None,
        userinfo: dict[str, Any] | None,
    ) -> None:
        try:
            identity = self._rules.learn(claims, userinfo, before, self._now())
        except ProxyError as error:
            log.warning("claims_not_used", extra={"session": subject.key[:12], "detail": error.message})
            return
        if identity == before:
            return
        session = self._sessions.cached(subject.key)
        if session is not None and not self._sessions.fits(identity, session.tokens):
            log.warning(
                "identity_too_large", extra={"session": subject.key[:12], "groups": len(identity.groups)}
            )
            return
        who_id = random_id()
        blob = seal_identity(subject.seal, who_id, identity)
        try:
            landed = await self._store.identify(subject.key, record.gen, blob, who_id)
        except StoreUnavailable as error:
            log.warning("identity_not_written", extra={"session": subject.key[:12], "detail": error.detail})
            return
        session = self._sessions.cached(subject.key)
        if landed and session is not None:
            self._sessions.take_identity(session, identity)
