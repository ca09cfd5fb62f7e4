"""One real sign-in, looked at closely: what it brought, who came, the refreshes (`refreshes.py`), the end.

The person signs in with their own browser. They come back to the registered redirect URI, whose code
nobody but us can redeem (PKCE), and paste that address here; where the redirect URI is on this
machine and free, we listen there ourselves.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from proxy.config import Settings
from proxy.core.identity import ClaimRules, allowed, groups_elsewhere, identity_of, merged, needs_userinfo
from proxy.core.identity_headers import IdentityHeaders
from proxy.core.login import Flow, check_callback, single
from proxy.core.logout import given_back
from proxy.core.providers import Offline, Profile, Reach
from proxy.core.seal import random_id, random_token
from proxy.core.session import Tokens
from proxy.core.timing import RefreshPolicy, token_life_s
from proxy.core.token_reply import Issued, Refused, judge, own_words
from proxy.doctor.refreshes import Grant, RefreshCheck
from proxy.doctor.refusals import failed_sign_in, refused_code
from proxy.doctor.report import Finding, Fingerprints, fail, ok, warn
from proxy.errors import IdTokenRejected, LoginError, OPRejected, ProxyError
from proxy.guide import remedy
from proxy.shell.op_client import OPClient, OPConfig

HEADERS_BYTES = 8_000
"""Many apps and servers take 8 KiB of header fields in all."""

Bring = Callable[[str, str], Awaitable[str]]
"""Shows an address to the person and brings back the one they returned to; told the redirect URI."""


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
        self._names = Fingerprints()
        self._refreshes = RefreshCheck(
            settings, config, op, self._names, aggressive=aggressive, grace_wait_s=grace_wait_s
        )
        self._no_groups = ""

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
            async for finding in self._refreshes.all(grant):
                yield finding
        async for finding in self._end(grant):
            yield finding

    # -- in --

    async def _sign_in(self) -> Grant:
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
        return Grant(flow, issued, raw, identity, issued.refresh_token, issued.access_token)

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

    def _token_reply(self, grant: Grant) -> list[Finding]:
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

    def _person(self, grant: Grant) -> list[Finding]:
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

    def _tokens(self, grant: Grant) -> Tokens:
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

    # -- out --

    async def _end(self, grant: Grant) -> AsyncIterator[Finding]:
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
        dead = not grant.refresh_token or isinstance(await self._refreshes.once(grant.refresh_token), Refused)
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
