"""The doctor's refreshes: do two work, does the provider rotate, what becomes of a used token?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from proxy.config import Settings
from proxy.core.login import Flow
from proxy.core.providers import Reuse
from proxy.core.session import Identity, OutcomeKind
from proxy.core.token_reply import Issued, RawReply, Refused, judge, own_words
from proxy.doctor.report import Finding, Fingerprints, fail, ok, warn
from proxy.errors import IdTokenRejected, OPRejected, ProxyError
from proxy.guide import remedy, topic_of
from proxy.shell.aftercare import FORGIVEN
from proxy.shell.op_client import OPClient, OPConfig

SAME_SECOND_S = 1.2
"""Keycloak compares whole seconds: a used token that comes back within the same one goes unseen."""


@dataclass(slots=True)
class Grant:
    """What the sign-in brought and the refreshes made of it."""

    flow: Flow
    issued: Issued
    raw: RawReply
    identity: Identity
    refresh_token: str
    access_token: str
    rotated: bool = False
    before: str = ""


class RefreshCheck:
    """See the module's docstring.

    Args:
        settings: of this provider, whole.
        config: of its OP client.
        op: its client.
        names: names tokens without showing them.
        aggressive: present a used refresh token again, which may end the grant.
        grace_wait_s: how long after its use it is presented a second time; 0 = not.
    """

    def __init__(
        self,
        settings: Settings,
        config: OPConfig,
        op: OPClient,
        names: Fingerprints,
        *,
        aggressive: bool,
        grace_wait_s: float,
    ) -> None:
        self._settings = settings
        self._config = config
        self._profile = config.profile
        self._op = op
        self._names = names
        self._aggressive = aggressive
        self._grace_wait_s = grace_wait_s
        self._words = ""

    async def all(self, grant: Grant) -> AsyncIterator[Finding]:
        """Two refreshes and what follows from them; `grant` holds the newest tokens afterwards."""
        first_access = grant.access_token
        for count in (1, 2):
            issued = await self.once(grant.refresh_token)
            if isinstance(issued, Refused):
                yield self._refused(count, issued)
                return
            new = issued.refresh_token
            grant.rotated = bool(new) and new != grant.refresh_token
            grant.before = grant.refresh_token
            grant.refresh_token, grant.access_token = new or grant.refresh_token, issued.access_token
            if issued.id_token and self._profile.openid:
                try:
                    await self._op.verify_id_token(
                        issued.id_token,
                        nonce=None,
                        access_token=issued.access_token,
                        previous=grant.identity,
                        now=time.time(),
                    )
                except IdTokenRejected as error:
                    if error.code in FORGIVEN:
                        why = "Sessions go on; what the token says of the person is not taken over."
                        fix = "Compare the clocks if it speaks of times; else report it to the provider."
                        yield warn("login.refreshed_id_token", f"{error.code}: {error.detail}", why, fix)
                    else:
                        why = "Such a session is ended, because it may be somebody else's."
                        fix = "Report it to the provider."
                        yield fail("login.refreshed_id_token", f"{error.code}: {error.detail}", why, fix)
                        return
            has = "with" if issued.id_token else "without"
            name = self._names.of(new) if grant.rotated else "the same refresh token"
            yield ok("login.refresh", f"refresh {count} works, {has} an ID token, {name}")
        yield self._rotation(grant)
        async for finding in self._userinfo(grant, first_access):
            yield finding
        if self._aggressive and grant.rotated:
            async for finding in self._reuse(grant):
                yield finding

    def _refused(self, count: int, refused: Refused) -> Finding:
        name, check = self._profile.name, "login.refresh"
        why = "Sessions will end with their access token."
        if refused.http_status == 0:
            what = f"refresh {count} had no answer: {self._words}"
            return fail(
                check, what, "Renewals wait until the provider answers.", "Look at the network to it."
            )
        what = f"refresh {count} was refused: {refused.code} (HTTP {refused.http_status})"
        what += f", “{self._words}”" if self._words else ""
        match refused.kind:
            case OutcomeKind.CLIENT:
                return fail(
                    check, what, why, remedy(name, topic_of(refused.code, refused.http_status, self._words))
                )
            case OutcomeKind.TRANSIENT | OutcomeKind.AMBIGUOUS:
                return fail(
                    check, what, "Renewals wait until that is over.", "Look at the provider's status."
                )
            case _:
                return fail(check, what, why, remedy(name, "lifetime"))

    async def once(self, refresh_token: str) -> Issued | Refused:
        """One refresh; no answer is a refusal, too."""
        profile = self._profile
        try:
            call = await self._op.connect()
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    reply = await call.refresh(refresh_token)
            finally:
                await call.aclose()
        except ProxyError as error:
            self._words = error.detail or error.message
            return Refused(OutcomeKind.TRANSIENT, "no_answer")
        except TimeoutError:
            self._words = f"{self._config.timeout_s:.0f} s were not enough"
            return Refused(OutcomeKind.TRANSIENT, "no_answer")
        self._words = own_words(reply, refresh_token)
        return judge(reply, profile)

    def _rotation(self, grant: Grant) -> Finding:
        expected = self._profile.rotates
        if grant.rotated:
            what = "each refresh brings another refresh token"
            if self._aggressive:
                return ok("login.rotation", what)
            return ok("login.rotation", f"{what}; `--aggressive` tells what becomes of a used one")
        if expected:
            return ok("login.rotation", "no rotation, other than the profile expects; that is learned")
        return ok("login.rotation", "no rotation: a repeated refresh costs nothing")

    async def _userinfo(self, grant: Grant, first_access: str) -> AsyncIterator[Finding]:
        sub = grant.identity.sub
        metadata = await self._op.metadata()
        if not metadata.userinfo_endpoint:
            return
        try:
            await self._op.userinfo(grant.access_token, sub)
            yield ok("login.userinfo", "it answers for the refreshed token, with the same subject")
        except ProxyError as error:
            yield warn(
                "login.userinfo",
                f"it refuses: {error.detail or error.message}",
                "Groups and names that only it tells will be missing.",
                remedy(self._profile.name, "groups"),
            )
            return
        try:
            await self._op.userinfo(first_access, sub)
            yield ok("login.old_access_token", "it still works after the refresh")
        except OPRejected:
            yield ok(
                "login.old_access_token",
                "it dies with the refresh: an app's calls in flight may get a 401 once",
            )
        except ProxyError:
            pass  # nothing learned

    # -- a used token, again --

    async def _reuse(self, grant: Grant) -> AsyncIterator[Finding]:
        used, newest = grant.before, grant.refresh_token
        await pause(SAME_SECOND_S)
        again = await self.once(used)
        if isinstance(again, Refused):
            alive = await self.once(newest)
            if isinstance(alive, Refused):
                grant.refresh_token = ""
                yield self._verdict(
                    Reuse.PUNISHED, "a used refresh token is refused, and the newest one dies with it"
                )
            else:
                grant.refresh_token = alive.refresh_token or newest
                what = "a used refresh token is refused at once; the newest one lives on"
                yield self._verdict(Reuse.PUNISHED, what, mild=True)
            return
        same = again.refresh_token in ("", newest)
        what = "gives the same successor again" if same else "works once more"
        kind = Reuse.IDEMPOTENT if same else Reuse.GRACE
        grant.refresh_token = again.refresh_token or newest
        if self._grace_wait_s <= 0:
            yield self._verdict(kind, f"a used refresh token {what} at once")
            return
        await pause(self._grace_wait_s)
        later = await self.once(used)
        after = f"{self._grace_wait_s:.0f} s later"
        if isinstance(later, Issued):
            grant.refresh_token = later.refresh_token or grant.refresh_token
            yield self._verdict(kind, f"a used refresh token {what} at once and {after}")
            return
        alive = await self.once(grant.refresh_token)
        died = isinstance(alive, Refused)
        grant.refresh_token = "" if died else alive.refresh_token or grant.refresh_token
        end = "is refused and ends the newest one too" if died else "is refused"
        yield self._verdict(kind, f"a used refresh token {what} at once; {after} it {end}")

    def _verdict(self, found: Reuse, what: str, *, mild: bool = False) -> Finding:
        given = self._settings.refresh.reuse
        expected = self._profile.reuse if given == "profile" else Reuse(given)
        safe = (Reuse.NONE, Reuse.GRACE, Reuse.IDEMPOTENT)
        if found is Reuse.PUNISHED and expected in safe:
            why = f"Renewals are repeated as if a used token did no harm ({expected})."
            return fail("login.reuse", what, why, 'Set refresh.reuse = "punished".')
        if found in safe and expected not in safe:
            why = "A lost reply could be repeated at once; now the renewal waits as long as it can."
            return warn("login.reuse", what, why, f'Set refresh.reuse = "{found}" if the grace covers 20 s.')
        if found is Reuse.PUNISHED and not mild:
            why = "A reply that is lost on its way costs that session."
            return warn("login.reuse", what, why, remedy(self._profile.name, "rotation"))
        return ok("login.reuse", what)


async def pause(seconds: float) -> None:
    """Wait; by a name of its own, so that a test's clock can wait instead."""
    await asyncio.sleep(seconds)
