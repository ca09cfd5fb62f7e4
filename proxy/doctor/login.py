"""One real sign-in, looked at closely: refresh token, two refreshes, rotation, claims, sizes.

The person signs in with their own browser. They come back to the registered redirect URI, whose code
nobody but us can redeem (PKCE), and paste that address here; where the redirect URI is on this
machine and free, we listen there ourselves.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from proxy.config import Settings
from proxy.core.identity import ClaimRules, allowed, groups_elsewhere, identity_of, merged, needs_userinfo
from proxy.core.identity_headers import IdentityHeaders
from proxy.core.login import Flow, check_callback, single
from proxy.core.logout import given_back
from proxy.core.providers import Offline, Profile, Reach, Reuse
from proxy.core.seal import random_id, random_token
from proxy.core.session import Identity, OutcomeKind, Tokens
from proxy.core.timing import RefreshPolicy, token_life_s
from proxy.core.token_reply import Issued, RawReply, Refused, judge, own_words
from proxy.doctor.refusals import failed_sign_in, refused_code
from proxy.doctor.report import Finding, Fingerprints, fail, ok, warn
from proxy.errors import IdTokenRejected, LoginError, OPRejected, ProxyError
from proxy.guide import remedy, topic_of
from proxy.shell.aftercare import FORGIVEN
from proxy.shell.op_client import OPClient, OPConfig

HEADERS_BYTES = 8_000
"""Many apps and servers take 8 KiB of header fields in all."""

SAME_SECOND_S = 1.2
"""Keycloak compares whole seconds: a used token that comes back within the same one goes unseen."""

Bring = Callable[[str, str], Awaitable[str]]
"""Shows an address to the person and brings back the one they returned to; told the redirect URI."""


@dataclass(slots=True)
class _Grant:
    """What the sign-in brought and the refreshes made of it."""

    flow: Flow
    issued: Issued
    raw: RawReply
    identity: Identity
    refresh_token: str
    access_token: str
    rotated: bool = False
    before: str = ""


class LoginCheck:
    """One sign-in at one provider.

    Args:
        settings: of this provider, whole.
        config: of its OP client.
        op: its client.
        claims: which claims mean what.
        headers: which headers the app gets.
        bring: see `Bring`.
        aggressive: present a used refresh token again, which may end the grant.
        grace_wait_s: how long after its use it is presented a second time; 0 = not.
    """

    def __init__(
        self,
        settings: Settings,
        config: OPConfig,
        op: OPClient,
        claims: ClaimRules,
        headers: IdentityHeaders,
        bring: Bring,
        *,
        aggressive: bool = False,
        grace_wait_s: float = 35.0,
    ) -> None:
        self._settings = settings
        self._config = config
        self._profile: Profile = config.profile
        self._op = op
        self._claims = claims
        self._headers = headers
        self._bring = bring
        self._aggressive = aggressive
        self._grace_wait_s = grace_wait_s
        self._names = Fingerprints()
        self._no_groups = ""
        self._words = ""

    async def all(self) -> AsyncIterator[Finding]:
        """The checks, in order; the grant is given back at the end, where that reaches nobody else."""
        try:
            grant = await self._sign_in()
        except TimeoutError:
            yield fail("login", "nobody came back from the provider in time", "", "Run the check again.")
            return
        except ProxyError as error:
            yield failed_sign_in(error, self._profile)
            return
        yield ok("login", f"signed in as {grant.identity.sub}")
        for finding in self._token_reply(grant):
            yield finding
        for finding in self._person(grant):
            yield finding
        if grant.refresh_token:
            async for finding in self._refreshes(grant):
                yield finding
        async for finding in self._end(grant):
            yield finding

    # -- in --

    async def _sign_in(self) -> _Grant:
        op, redirect_uri = self._op, self._config.redirect_uri
        flow = Flow(random_id(), random_token(), random_token(), "/", time.time(), self._profile.name)
        url = await op.authorization_url(flow, redirect_uri=redirect_uri)
        back = await self._bring(url, redirect_uri)
        params = single(parse_qsl(urlsplit(back.strip()).query, keep_blank_values=True))
        code = check_callback(params, flow, await op.metadata(), time.time())
        raw = await op.redeem(code, flow.code_verifier, redirect_uri=redirect_uri)
        issued = judge(raw, self._profile)
        if isinstance(issued, Refused):
            raise refused_code(issued, own_words(raw, code))
        kind = json.loads(raw.body).get("token_type")
        if kind is not None and str(kind).lower() != "bearer":
            raise LoginError("token_type", "", detail=f"token_type {str(kind)!r:.40}")
        claims = await self._told(issued, flow)
        identity = identity_of(claims, self._claims, time.time(), nonce=flow.nonce)
        return _Grant(flow, issued, raw, identity, issued.refresh_token, issued.access_token)

    async def _told(self, issued: Issued, flow: Flow) -> dict[str, Any]:
        if not self._profile.openid:
            return await self._op.userinfo(issued.access_token, "")
        if not issued.id_token:
            raise IdTokenRejected("id_token_missing")
        claims: dict[str, Any] = await self._op.verify_id_token(
            issued.id_token,
            nonce=flow.nonce,
            access_token=issued.access_token,
            previous=None,
            now=time.time(),
        )
        if groups_elsewhere(claims, self._claims):
            try:
                found = await self._op.groups(issued.access_token)
            except OPRejected as error:
                self._no_groups = error.detail  # a sign-in goes on without them
            else:
                claims = claims | {self._claims.groups_claim: found}
        when = self._settings.op.userinfo
        missing = needs_userinfo(claims, self._config.scopes, self._claims)
        if when == "always" or (when == "when_missing" and missing):
            sub = str(claims["sub"])
            claims = merged(claims, await self._op.userinfo(issued.access_token, sub))
        return claims

    # -- what it brought --

    def _token_reply(self, grant: _Grant) -> list[Finding]:
        name, issued = self._profile.name, grant.issued
        found: list[Finding] = []
        if issued.refresh_token:
            found.append(ok("login.refresh_token", f"there is one ({self._names.of(issued.refresh_token)})"))
        elif self._profile.offline is Offline.NEVER:
            found.append(ok("login.refresh_token", "there is none here, and access tokens do not end"))
        else:
            what = "there is none"
            asked, granted = self._config.scopes, issued.scope.split()
            if "offline_access" in asked and granted and "offline_access" not in granted:
                what += f": offline_access was asked for, and granted were {' '.join(granted)}"
            why = "The session ends with its access token: people are signed out about once an hour."
            found.append(fail("login.refresh_token", what, why, remedy(name, "refresh_token")))
        body: dict[str, Any] = json.loads(grant.raw.body)
        life = token_life_s(issued, RefreshPolicy())
        if issued.expires_in_s is None and self._profile.life_s == 0:
            found.append(
                warn(
                    "login.expires_in",
                    f"the reply names no life; {life:.0f} s are assumed",
                    "A wrong guess renews too late.",
                    "Set refresh.expires_in_default_s to the access token's life.",
                )
            )
        elif issued.expires_in_s is not None:
            kind = " (as a text)" if isinstance(body.get("expires_in"), str) else ""
            found.append(ok("login.expires_in", f"the access token lives {issued.expires_in_s:.0f} s{kind}"))
        found.append(ok("login.access_token", kind_of(issued.access_token)))
        idle = body.get("refresh_expires_in", body.get("refresh_token_expires_in"))
        if isinstance(idle, (int, float)) and 0 < idle < life:
            found.append(
                warn(
                    "login.lifetime",
                    f"the refresh token lives {idle:.0f} s, shorter than the access token's {life:.0f} s",
                    "It is used at half of its life; whoever asks for nothing from then to its end is "
                    "signed out although their access token lives.",
                    remedy(name, "lifetime"),
                )
            )
        asked, granted = set(self._config.scopes), set(issued.scope.split())
        if granted and asked - granted - {"offline_access"}:
            left = " ".join(sorted(asked - granted - {"offline_access"}))
            why = "What hangs on them (names, groups) will be missing."
            found.append(warn("login.scope", f"not granted: {left}", why, remedy(name, "scopes")))
        return found

    def _person(self, grant: _Grant) -> list[Finding]:
        name, identity, allow = self._profile.name, grant.identity, self._settings.allow
        found: list[Finding] = []
        wants_groups = any(rule.startswith("group:") for rule in allow)
        if identity.groups_at is not None:
            found.append(
                ok("login.groups", f"{len(identity.groups)} groups from {self._claims.groups_claim}")
            )
        elif wants_groups or self._no_groups:
            what = f"no claim {self._claims.groups_claim}"
            if self._no_groups:
                what = f"the groups are too many for the ID token, and {self._no_groups}"
            why = (
                "allow holds rules on groups: they deny everybody." if wants_groups else "The app gets none."
            )
            made = fail if wants_groups else warn
            found.append(made("login.groups", what, why, remedy(name, "groups")))
        else:
            found.append(ok("login.groups", f"no claim {self._claims.groups_claim}, and no rule needs one"))
        if identity.email and not identity.email_verified and any("@" in r or ":" not in r for r in allow):
            why = "Rules on addresses and domains match verified ones only."
            fix = "Let the provider say email_verified, or use group:, tenant: or sub: rules."
            found.append(warn("login.email", "the address is not said to be verified", why, fix))
        if not allowed(identity, allow):
            why = "After the sign-in they see a page that says so."
            found.append(warn("login.allow", "this person may not come in", why, "Look at allow."))
        else:
            found.append(ok("login.allow", "this person may come in"))
        size = len(self._headers.block(identity, self._tokens(grant), time.time()))
        if size > HEADERS_BYTES:
            why = "Many apps take 8 KiB of header fields in all, and answer 431 or 400 beyond."
            fix = "Name fewer claims in headers, ask for fewer groups, or leave pass_access_token off."
            found.append(warn("login.headers", f"the identity headers take {size} bytes", why, fix))
        else:
            found.append(ok("login.headers", f"the identity headers take {size} bytes"))
        return found

    def _tokens(self, grant: _Grant) -> Tokens:
        now = time.time()
        return Tokens(
            grant.access_token,
            grant.refresh_token,
            grant.issued.id_token,
            grant.issued.scope,
            now,
            now + token_life_s(grant.issued, RefreshPolicy()),
            self._config.issuer,
            self._config.client_id,
        )

    # -- refreshes --

    async def _refreshes(self, grant: _Grant) -> AsyncIterator[Finding]:
        first_access = grant.access_token
        for count in (1, 2):
            issued = await self._refresh(grant.refresh_token)
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

    async def _refresh(self, refresh_token: str) -> Issued | Refused:
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

    def _rotation(self, grant: _Grant) -> Finding:
        expected = self._profile.rotates
        if grant.rotated:
            what = "each refresh brings another refresh token"
            if self._aggressive:
                return ok("login.rotation", what)
            return ok("login.rotation", f"{what}; `--aggressive` tells what becomes of a used one")
        if expected:
            return ok("login.rotation", "no rotation, other than the profile expects; that is learned")
        return ok("login.rotation", "no rotation: a repeated refresh costs nothing")

    async def _userinfo(self, grant: _Grant, first_access: str) -> AsyncIterator[Finding]:
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

    async def _reuse(self, grant: _Grant) -> AsyncIterator[Finding]:
        used, newest = grant.before, grant.refresh_token
        await pause(SAME_SECOND_S)
        again = await self._refresh(used)
        if isinstance(again, Refused):
            alive = await self._refresh(newest)
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
        later = await self._refresh(used)
        after = f"{self._grace_wait_s:.0f} s later"
        if isinstance(later, Issued):
            grant.refresh_token = later.refresh_token or grant.refresh_token
            yield self._verdict(kind, f"a used refresh token {what} at once and {after}")
            return
        alive = await self._refresh(grant.refresh_token)
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

    # -- out --

    async def _end(self, grant: _Grant) -> AsyncIterator[Finding]:
        back = given_back(self._profile, self._tokens(grant))
        if back is None or not back[0]:
            return
        if self._profile.reach is Reach.GRANT:
            yield ok("login.revocation", "left alone: it would end this person's other sessions as well")
            return
        if not await self._op.revoke(*back):
            yield warn(
                "login.revocation",
                "the token could not be given back",
                "After a sign-out it ages out at the provider.",
                "Allow the client to use the revocation endpoint.",
            )
            return
        dead = not grant.refresh_token or isinstance(await self._refresh(grant.refresh_token), Refused)
        yield (
            ok("login.revocation", "given back; it works no more")
            if dead
            else warn(
                "login.revocation",
                "given back, and it still works",
                "A sign-out does not end the grant at the provider.",
                "Report it to the provider.",
            )
        )


def kind_of(access_token: str) -> str:
    """What an app could make of the access token; it is looked at, not believed."""
    try:
        middle = access_token.split(".")[1] if access_token.count(".") == 2 else ""
        claims: object = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        return "it is opaque: an app that gets it must ask the provider about it"
    said = cast("dict[str, Any]", claims).get("aud")
    names = [said] if isinstance(said, str) else cast("list[object]", said) if isinstance(said, list) else []
    audience = ", ".join(str(name)[:80] for name in names) or "nobody in particular"
    return f"it is a JWT for {audience}"


async def pause(seconds: float) -> None:
    """Wait; by a name of its own, so that a test's clock can wait instead."""
    await asyncio.sleep(seconds)
