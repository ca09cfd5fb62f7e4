"""The OP, asked without a person: documents, clock, certificate, redirect URI, secret."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from msgspec.structs import replace

from proxy.config import Settings
from proxy.core.login import Flow
from proxy.core.metadata import Metadata, read_metadata
from proxy.core.providers import Profile
from proxy.core.seal import random_id, random_token
from proxy.core.session import OutcomeKind
from proxy.core.token_reply import Issued, RawReply, Refused, judge, own_words
from proxy.doctor import documents
from proxy.doctor.report import Finding, Level, fail, ok, warn
from proxy.errors import OPRejected, OPUnavailable, ProxyError
from proxy.guide import remedy, topic_of
from proxy.shell.clock import SystemClock
from proxy.shell.op_client import OPClient, OPConfig
from proxy.shell.op_client.client_auth import method_of
from proxy.shell.op_client.http import Http

CERTIFICATE_DAYS = 14
SKEW_S = 30.0

_PAR_TOPIC = {
    "invalid_client": "secret",
    "invalid_scope": "scopes",
    "invalid_request": "redirect_uri",
    "invalid_redirect_uri": "redirect_uri",
}

_KNOWS_US = frozenset(
    {"login_required", "interaction_required", "consent_required", "account_selection_required"}
)


Judged = Issued | Refused | str
"""What the token endpoint said; a text = why it could not be asked."""


class Probes:
    """One provider under examination.

    Args:
        settings: of this provider, whole.
        config: of its OP client.
        op: its client.
    """

    def __init__(self, settings: Settings, config: OPConfig, op: OPClient) -> None:
        self._settings = settings
        self._config = config
        self._profile: Profile = config.profile
        self._op = op
        self._http = Http(config)
        self._date: tuple[float, float] | None = None
        self._words = ""

    @property
    def _pages(self) -> str:
        return self._settings.public_urls[0].rstrip("/") + self._settings.prefix

    async def close(self) -> None:
        await self._http.close()

    async def all(self) -> AsyncIterator[Finding]:
        """Every check that needs nobody."""
        metadata: Metadata | None = None
        if self._profile.openid:
            async for finding, found in self._discovery():
                metadata = found or metadata
                yield finding
            if metadata is None:
                return
        else:
            metadata = await self._op.metadata()
            yield ok("op.discovery", f"{self._profile.title} has fixed endpoints")
            for finding in documents.asked_for({}, self._settings, self._profile):
                yield finding
        async for finding in self._secrets():
            yield finding
        async for finding in self._redirect_uri(metadata):
            yield finding
        if self._date is not None:
            yield self._clock(*self._date)
        finding = await self._certificate(metadata)
        if finding is not None:
            yield finding

    # -- documents --

    async def _discovery(self) -> AsyncIterator[tuple[Finding, Metadata | None]]:
        profile, issuer = self._profile, self._config.issuer
        url = issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            document = await self._json(url)
        except OPUnavailable as error:
            why = "Nobody can sign in, and nothing can be renewed."
            what = f"{url}: {error.detail or error.message}"
            nothing_there = error.detail.startswith(("HTTP 4", "no JSON"))
            fix = remedy(profile.name, "issuer") if nothing_there else _reach(error.detail)
            yield fail("op.discovery", what, why, fix), None
            return
        yield ok("op.discovery", url), None
        told = documents.issuer(document, issuer, profile)
        yield told, None
        try:
            metadata = read_metadata(document, issuer, self._config.may_use, None, profile)
        except OPUnavailable as error:
            if not told.why:  # the issuer was fine: it is something else
                yield (
                    fail("op.endpoints", error.detail, "The document cannot be used.", "Ask the provider."),
                    None,
                )
            return
        hosts = {urlsplit(str(getattr(metadata, name))).netloc for name in ("token_endpoint", "jwks_uri")}
        yield ok("op.endpoints", f"authorization, token and keys at {', '.join(sorted(hosts))}"), metadata
        try:
            jwks = await self._json(metadata.jwks_uri)
        except OPUnavailable as error:
            what = f"{metadata.jwks_uri}: {error.detail}"
            yield fail("op.jwks", what, "No ID token can be verified.", _reach(error.detail)), None
            jwks = {}
        if jwks:
            for finding in documents.algorithms(document, jwks, profile):
                yield finding, None
        for finding in documents.abilities(document, profile):
            yield finding, None
        several = bool(self._settings.providers)
        yield documents.names_itself(document, several=several), None
        yield documents.client_auth(document, method_of(self._config, metadata), profile), None
        for finding in documents.asked_for(document, self._settings, profile):
            yield finding, None
        for finding in documents.endpoints(document, profile, self._pages):
            yield finding, None

    async def _json(self, url: str) -> dict[str, Any]:
        asked = time.time()
        reply = await self._http.get(url)
        self._note_date(reply, asked)
        if reply.status != 200:
            raise OPUnavailable(f"HTTP {reply.status}")
        try:
            body: object = json.loads(reply.body)
        except (ValueError, RecursionError):
            kind = reply.headers.get("content-type", "nothing said")
            raise OPUnavailable(f"no JSON ({kind})") from None
        if not isinstance(body, dict):
            raise OPUnavailable("no JSON object")
        return cast("dict[str, Any]", body)

    # -- clock and certificate --

    def _note_date(self, reply: RawReply, asked: float) -> None:
        with contextlib.suppress(ValueError, TypeError):
            said = parsedate_to_datetime(reply.headers.get("date", "")).timestamp()
            self._date = (said, (asked + time.time()) / 2)

    def _clock(self, said: float, here: float) -> Finding:
        off = said - here
        if abs(off) <= SKEW_S:
            return ok("op.clock", f"its clock and ours differ by {abs(off):.0f} s")
        where = "ahead of" if off > 0 else "behind"
        what = f"its clock is {abs(off):.0f} s {where} ours"
        why = "ID tokens look expired or not yet valid."
        make = fail if abs(off) > self._settings.op.clock_skew_s else warn
        return make("op.clock", what, why, "Synchronise this machine's clock (NTP).")

    async def _certificate(self, metadata: Metadata) -> Finding | None:
        url = urlsplit(metadata.token_endpoint)
        if url.scheme != "https" or self._config.proxy:
            return None
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                reader, writer = await asyncio.open_connection(
                    url.hostname, url.port or 443, ssl=self._http.tls(), server_hostname=url.hostname
                )
        except (OSError, TimeoutError) as error:
            return fail(
                "op.tls",
                f"{url.netloc}: {getattr(error, 'verify_message', '') or type(error).__name__}",
                "Nothing can be renewed.",
                "Set ca_file to the CA that signed it, or repair the certificate.",
            )
        certificate: dict[str, Any] = writer.get_extra_info("peercert")
        writer.close()
        del reader
        days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86_400
        if days > CERTIFICATE_DAYS:
            return ok("op.tls", f"the certificate is good for {days:.0f} days")
        return warn(
            "op.tls",
            f"the certificate ends in {days:.0f} days",
            "Then nothing can be renewed.",
            "Renew the provider's certificate.",
        )

    # -- active --

    async def _secrets(self) -> AsyncIterator[Finding]:
        """The client's secret; where there are two, each by itself, and which of them is in use."""
        config = self._config
        first = await self._asked(self._op if not config.client_secret_next else None, config)
        if not config.client_secret_next:
            yield self._judged(first)
            return
        second = await self._asked(None, replace(config, client_secret=config.client_secret_next))
        taken = [isinstance(each, Refused) and each.kind is OutcomeKind.DEAD for each in (first, second)]
        why = "It is tried first again after each start, and refused again."
        match taken:
            case [True, True]:
                yield ok("op.secret", "client_secret and client_secret_next are both accepted")
            case [True, False]:
                yield ok("op.secret", "client id and client_secret are accepted")
                what = f"client_secret_next is refused: {_said(second)}"
                fix = "Enter it at the provider, or remove it here."
                yield warn("op.secret_next", what, "It could not take over from client_secret.", fix)
            case [False, True]:
                what = f"client_secret is refused ({_said(first)}); client_secret_next is accepted and used"
                yield warn("op.secret", what, why, "Write the next one into client_secret.")
            case _:
                yield self._judged(first)
                yield self._judged(second, "op.secret_next")

    async def _asked(self, op: OPClient | None, config: OPConfig) -> Judged:
        """What the token endpoint says to a refresh token that nobody issued.

        Args:
            op: to ask by; None = a client of its own, with this configuration's first secret only.
        """
        bogus = "nightporter-check-" + secrets.token_urlsafe(24)
        asked = time.time()
        own = None if op is not None else OPClient(replace(config, client_secret_next=""), SystemClock())
        try:
            call = await (op or own or self._op).connect()
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    reply = await call.refresh(bogus)
            finally:
                await call.aclose()
        except ProxyError as error:
            return str(error.detail or error.message)
        except TimeoutError:
            return "no answer in time"
        finally:
            if own is not None:
                await own.close()
        self._note_date(reply, asked)
        self._words = own_words(reply, bogus)
        return judge(reply, self._profile)

    def _judged(self, judged: Judged, check: str = "op.secret") -> Finding:
        """A refresh token that nobody issued: whoever refuses the token has accepted the client."""
        name = self._profile.name
        if isinstance(judged, str):
            what = f"the token endpoint cannot be asked: {judged}"
            return fail(check, what, "Nothing can be renewed.", _reach(judged))
        if isinstance(judged, Issued):
            return fail(
                check,
                "the token endpoint issued tokens for a made-up refresh token",
                "This is no provider to trust.",
                "Check what answers at that address.",
            )
        said = _said(judged)
        topic = topic_of(judged.code, judged.http_status, self._words)
        match judged.kind:
            case OutcomeKind.DEAD:
                return ok(check, f"client id and secret are accepted: a made-up token is refused by {said}")
            case OutcomeKind.CLIENT if topic == "refresh_grant":
                return fail(
                    "op.refresh_grant",
                    f"the client may not use the refresh grant: {self._quoted(said)}",
                    "Sessions end with their access token.",
                    remedy(name, topic),
                )
            case OutcomeKind.CLIENT | OutcomeKind.UNKNOWN if topic == "dpop":
                return fail(
                    "op.dpop",
                    f"tokens bound to a key (DPoP) are demanded of this client: {self._quoted(said)}",
                    "Nobody can sign in, and nothing can be renewed.",
                    remedy(name, topic),
                )
            case OutcomeKind.CLIENT:
                return fail(
                    check,
                    f"the client is refused: {self._quoted(said)}",
                    "The secret is wrong or has expired, or the client id is unknown. Nobody can sign in; "
                    "renewals wait until it is right, and no session is lost.",
                    remedy(name, "secret"),
                )
            case _:
                return warn(
                    check,
                    f"cannot tell: the token endpoint answers {self._quoted(said)}",
                    "A made-up refresh token should be refused as such.",
                    "`check --live --login` tells for certain.",
                )

    def _quoted(self, said: str) -> str:
        """With the provider's own words, which often name the very switch."""
        return f"{said}, “{self._words}”" if self._words else said

    async def _redirect_uri(self, metadata: Metadata) -> AsyncIterator[Finding]:
        """An authorization request with `prompt=none` and no cookies: does the OP know us?"""
        name, redirect_uri = self._profile.name, self._config.redirect_uri
        if urlsplit(redirect_uri).scheme != "https" and self._config.issuer.startswith("https://"):
            yield warn(
                "op.redirect_uri.scheme",
                f"{redirect_uri} is plain HTTP",
                "Most providers refuse that.",
                "Set public_url to the https address that people use.",
            )
        flow = Flow(random_id(), random_token(), random_token(), "/", time.time(), name)
        if metadata.par_endpoint:
            finding = await self._par(flow, metadata)
            yield finding
            if finding.level is Level.FAIL:
                return
        try:
            url = await self._op.authorization_url(flow, redirect_uri=redirect_uri, extra={"prompt": "none"})
        except ProxyError as error:
            yield fail(
                "op.redirect_uri",
                f"no authorization request can be made: {error.detail}",
                "Nobody can sign in.",
                _reach(str(error.detail)),
            )
            return
        try:
            reply = await self._http.get(url)
        except ProxyError as error:
            yield fail(
                "op.redirect_uri", f"the authorization endpoint: {error.detail}", "Nobody can sign in.", ""
            )
            return
        yield self._told(reply, redirect_uri)

    async def _par(self, flow: Flow, metadata: Metadata) -> Finding:
        """A pushed request: the OP looks at client, redirect URI and scopes at once (RFC 9126 §2.3)."""
        name = self._profile.name
        params = self._op.authorization_request(flow, redirect_uri=self._config.redirect_uri)
        try:
            await self._op.pushed(params)
        except OPRejected as error:
            what = f"the pushed authorization request is refused: {error.code} (HTTP {error.http_status})"
            topic = "secret" if error.http_status == 401 else _PAR_TOPIC.get(error.code, "client")
        except ProxyError as error:
            what, topic = f"the endpoint for pushed authorization requests: {error.detail}", ""
        else:
            return ok("op.par", "authorization requests are pushed")
        fix = remedy(name, topic) if topic else _reach(what)
        if metadata.par_required:
            return fail("op.par", what, "The provider demands pushed requests: nobody can sign in.", fix)
        return warn("op.par", what, "Sign-ins go on without pushing, and may be refused there as well.", fix)

    def _told(self, reply: RawReply, redirect_uri: str) -> Finding:
        name = self._profile.name
        location = reply.headers.get("location", "")
        if 300 <= reply.status < 400 and location.startswith(redirect_uri):
            error = dict(parse_qsl(urlsplit(location).query)).get("error", "")
            if error in _KNOWS_US or not error:
                return ok("op.redirect_uri", f"{redirect_uri} is registered")
            topic = "scopes" if error == "invalid_scope" else "client"
            return fail(
                "op.redirect_uri",
                f"{redirect_uri} is registered, and a sign-in is refused: {_word(error)}",
                "Nobody can sign in.",
                remedy(name, topic),
            )
        elsewhere = 300 <= reply.status < 400 and "error" in location.lower()
        # A 5xx is the provider's own failure: django-oauth-toolkit falls over prompt=none, and signs in well.
        if 400 <= reply.status < 500 or elsewhere:
            return fail(
                "op.redirect_uri",
                f"the provider shows an error page (HTTP {reply.status}) for {redirect_uri}",
                "The redirect URI is not registered, or the client id is unknown. Nobody can sign in.",
                f"{remedy(name, 'redirect_uri')} If it is there: {remedy(name, 'client')}",
            )
        return warn(
            "op.redirect_uri",
            f"cannot tell: the provider answers a silent request with HTTP {reply.status}",
            f"It must know {redirect_uri}.",
            remedy(name, "redirect_uri"),
        )


def _said(judged: Judged) -> str:
    return f"{judged.code} (HTTP {judged.http_status})" if isinstance(judged, Refused) else str(judged)


def _word(error: str) -> str:
    return error if error.isascii() and error.isprintable() and len(error) <= 64 else "unreadable"


def _reach(detail: str) -> str:
    if "CERTIFICATE" in detail.upper() or "SSL" in detail.upper():
        return "Set ca_file to the CA that signed the provider's certificate."
    return "Check the issuer, DNS, the egress proxy (op.proxy) and firewalls from this machine."
