"""The OP client: discovery, sign-in, tokens, keys, userinfo, revocation."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from proxy.core.id_token import Expected, Previous, check_claims, check_signed_userinfo
from proxy.core.login import Flow, authorization_params
from proxy.core.logout import LogoutToken, read_logout_token
from proxy.core.metadata import Metadata, fixed_metadata, read_metadata
from proxy.core.providers import Revocation
from proxy.core.session import Identity
from proxy.core.token_reply import RawReply, Refused, judge
from proxy.errors import IdTokenRejected, NotSent, OPRejected, OPUnavailable, ProxyError, ReplyLost
from proxy.shell.clock import Clock
from proxy.shell.op_client.api import groups_by_graph, person, rate_limited
from proxy.shell.op_client.client_auth import authenticate
from proxy.shell.op_client.config import OPConfig
from proxy.shell.op_client.http import Http, unusable
from proxy.shell.op_client.keys import Keys
from proxy.shell.op_client.token_call import TokenCall, connect
from proxy.shell.op_client.two_secrets import CallWithTwoSecrets, Told, TwoSecrets

log = logging.getLogger("nightporter.op")

METADATA_S = 3600.0
"""A discovery document is believed for an hour, then fetched again behind the requests."""

RETRY_S = 1.0
"""After a failed discovery the OP is left alone for this long."""

RENEW_RETRY_S = 60.0
"""The same while an older document still serves."""

OPTIONAL_PAR_S = 5.0
"""Where a pushed request is a courtesy, a sign-in does not wait longer for it."""


class OPClient:
    """One provider.

    Args:
        config: as configured.
        clock: of this process.
        told: hears which of two secrets is in use.
    """

    def __init__(self, config: OPConfig, clock: Clock, told: Told | None = None) -> None:
        self._config = config
        self._secrets = TwoSecrets(config, told)
        self._profile = config.profile
        self._clock = clock
        self._http = Http(config)
        self._keys = Keys(config, self._http, self._jwks_uri, clock)
        self._metadata: Metadata | None = None
        self._fetched_at = float("-inf")
        self._failed_at = float("-inf")
        self._failure = ""
        self._fetching: asyncio.Task[Metadata] | None = None

    def learn_from(self, other: OPClient) -> None:
        """Take over what another client knows of the same OP, in case it is away just now."""
        ours, theirs = self._config, other._config
        if (ours.issuer, ours.insecure_http) == (theirs.issuer, theirs.insecure_http):
            self._metadata, self._fetched_at = other._metadata, other._fetched_at
            self._keys.learn_from(other._keys)
        if (ours.issuer, ours.client_id) == (theirs.issuer, theirs.client_id):
            self._secrets.learn_from(other._secrets)

    async def metadata(self) -> Metadata:
        """The discovery document, cached; the last good one stays while the OP is away.

        Raises:
            OPUnavailable: there is none yet and it cannot be had.
        """
        now = self._clock.monotonic()
        if self._metadata is not None and now - self._fetched_at < METADATA_S:
            return self._metadata
        if self._profile.api is not None:
            self._metadata = fixed_metadata(self._profile.api, self._config.issuer, self._api)
            return self._metadata
        if self._fetching is None:
            if now - self._failed_at < (RETRY_S if self._metadata is None else RENEW_RETRY_S):
                if self._metadata is not None:
                    return self._metadata
                raise OPUnavailable(self._failure)
            self._fetching = asyncio.get_running_loop().create_task(self._discover())
            self._fetching.add_done_callback(self._discovered)
        if self._metadata is not None:
            return self._metadata
        return await asyncio.shield(self._fetching)

    async def authorization_url(
        self, flow: Flow, *, redirect_uri: str, extra: Mapping[str, str] | None = None
    ) -> str:
        """Where to send the browser; pushes the request first where the OP wants that (RFC 9126)."""
        metadata = await self.metadata()
        params = self.authorization_request(flow, redirect_uri=redirect_uri, extra=extra)
        if metadata.par_endpoint:
            try:
                params = await self.pushed(params)
            except (OPRejected, OPUnavailable) as error:
                if metadata.par_required:
                    raise
                log.warning("par_failed", extra={"detail": error.detail})
        parts = urlsplit(metadata.authorization_endpoint)
        query = f"{parts.query}&{urlencode(params)}" if parts.query else urlencode(params)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))

    def authorization_request(
        self, flow: Flow, *, redirect_uri: str, extra: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The parameters of an authorization request."""
        from authlib.oauth2 import rfc7636

        authlib: Any = rfc7636
        challenge: Callable[[str], str] = authlib.create_s256_code_challenge
        return authorization_params(
            flow,
            client_id=self._config.client_id,
            redirect_uri=redirect_uri,
            scopes=self._config.scopes,
            code_challenge=challenge(flow.code_verifier),
            extra={**self._config.authorize_params, **(extra or {})},
        )

    async def pushed(self, params: dict[str, str]) -> dict[str, str]:
        """Push an authorization request (RFC 9126 §2); what to send the browser with instead.

        Raises:
            OPRejected: it is refused. OPUnavailable: no usable answer.
        """
        metadata = await self.metadata()
        limit = None if metadata.par_required else OPTIONAL_PAR_S
        reply = await self._signed_post(metadata, metadata.par_endpoint, params, timeout_s=limit)
        body = _object(reply, "the PAR endpoint")
        uri = body.get("request_uri")
        if reply.status not in (200, 201) or not isinstance(uri, str) or not uri:
            judged = judge(reply, self._profile)
            code = judged.code if isinstance(judged, Refused) else "par_refused"
            detail = f"PAR answered {reply.status} {code}"
            raise OPRejected(code, http_status=reply.status, detail=detail)
        return {"client_id": self._config.client_id, "request_uri": uri}

    async def redeem(self, code: str, verifier: str, *, redirect_uri: str) -> RawReply:
        """Exchange a code (RFC 6749 §4.1.3); the reply is returned raw.

        On a connection of its own, like a refresh: a code works once, and so does the try.

        Raises:
            OPUnavailable: no usable answer within the deadline.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        try:
            async with asyncio.timeout(self._config.timeout_s):
                call = await self.connect()
                try:
                    return await call.post(form)
                finally:
                    await call.aclose()
        except TimeoutError:
            raise ReplyLost("the token endpoint did not answer in time") from None

    async def connect(self) -> TokenCall | CallWithTwoSecrets:
        """Open a connection for one call of the token endpoint.

        Raises:
            NotSent: it could not be opened, or nobody knows where to.
        """
        try:
            metadata = await self.metadata()
        except OPUnavailable as error:
            raise NotSent(error.detail) from None

        def another(config: OPConfig) -> Awaitable[TokenCall]:
            return connect(
                config,
                self._http,
                metadata.token_endpoint,
                lambda form: authenticate(config, metadata, form, self._clock.now()),
            )

        call = await another(self._secrets.config)
        if not self._config.client_secret_next:
            return call
        return CallWithTwoSecrets(call, self._secrets, another)

    async def verify_id_token(
        self, raw: str, *, nonce: str | None, access_token: str, previous: Identity | None, now: float
    ) -> dict[str, Any]:
        """Check an ID token whole; its claims.

        Args:
            nonce: of the sign-in; None when refreshing.
            access_token: that came with it.
            previous: the identity so far when refreshing.

        Raises:
            IdTokenRejected: it must not be believed.
            OPUnavailable: the keys cannot be had just now.
        """
        metadata = await self.metadata()
        header, claims = await self._keys.verified(raw, metadata.signing_algs)
        before = None
        if previous is not None:
            strict = self._profile.strict_auth_time
            before = Previous(previous.iss, previous.sub, previous.auth_time, previous.nonce, strict)
        issuer, named = self._profile.named_issuer(metadata.issuer, claims)
        claims = {**claims, "iss": named}
        expected = Expected(
            issuer=issuer,
            client_id=self._config.client_id,
            skew_s=self._config.skew_s,
            access_token=access_token,
            nonce=nonce,
            previous=before,
        )
        check_claims(header, claims, expected, now)
        return claims

    async def verify_logout_token(self, raw: str, *, now: float) -> LogoutToken:
        """Check a back-channel logout token whole (OIDC Back-Channel Logout §2.6); what it ends.

        The caller remembers `jti`: a token works once.

        Raises:
            IdTokenRejected: it must not be obeyed.
            OPUnavailable: the keys cannot be had just now.
        """
        metadata = await self.metadata()
        header, claims = await self._keys.verified(raw, metadata.signing_algs)
        return read_logout_token(
            header,
            claims,
            issuer=metadata.issuer,
            client_id=self._config.client_id,
            skew_s=self._config.skew_s,
            now=now,
        )

    async def userinfo(self, access_token: str, sub: str) -> dict[str, Any]:
        """Ask userinfo (OIDC Core §5.3), or the provider's API where it has none.

        Args:
            sub: the ID token's; the answer's must be equal. "" at a sign-in without ID token.

        Raises:
            OPRejected: it refuses the token.
            OPUnavailable: no usable answer.
            IdTokenRejected: it speaks of somebody else.
        """
        metadata = await self.metadata()
        if self._profile.api is not None:
            claims = await person(self._http, self._api, metadata.issuer, access_token)
            if sub and claims["sub"] != sub:
                raise IdTokenRejected("userinfo_sub", detail="the API names another user")
            return claims
        if not metadata.userinfo_endpoint:
            return {}
        reply = await self._http.get(metadata.userinfo_endpoint, {"Authorization": f"Bearer {access_token}"})
        if reply.status == 403 and rate_limited(reply):
            raise unusable(reply, "userinfo (rate limit)")
        if reply.status in (400, 401, 403):
            raise OPRejected(
                f"userinfo_{reply.status}", http_status=reply.status, detail="userinfo refuses the token"
            )
        if reply.status != 200:
            raise unusable(reply, "userinfo")
        if reply.headers.get("content-type", "").lower().startswith("application/jwt"):
            token = reply.body.decode("ascii", "replace").strip()
            _, claims = await self._keys.verified(token, metadata.signing_algs + metadata.userinfo_algs)
            check_signed_userinfo(claims, metadata.issuer, self._config.client_id)
        else:
            claims = _object(reply, "userinfo")
        if claims.get("sub") != sub:
            raise IdTokenRejected("userinfo_sub", detail="userinfo is of another subject")
        return claims

    async def groups(self, access_token: str) -> list[str]:
        """The groups that were too many for the ID token, from the provider's API.

        Raises:
            OPRejected: the access token may not ask.
            OPUnavailable: no usable answer.
        """
        url = self._profile.overage_api
        host = (await self.metadata()).graph_host
        if host:
            parts = urlsplit(url)
            scheme = "https" if self._config.may_use(f"https://{host}/") else parts.scheme
            if self._config.may_use(f"http://{host}/"):
                scheme = "http"  # a scripted Graph on this machine
            url = urlunsplit((scheme, host, parts.path, "", ""))
        return await groups_by_graph(self._http, url, access_token)

    async def revoke(self, token: str, hint: str) -> bool | None:
        """Give a token back in the provider's way, once; whether the OP took it.

        Returns:
            None where trying again is of no use: there is no way, or the OP refuses.

        Args:
            token: the refresh token (the access token where the API deletes tokens).
            hint: RFC 7009 §2.1.
        """
        try:
            reply = await self._given_back(token, hint, await self.metadata())
        except ProxyError as error:
            log.warning("revocation_failed", extra={"detail": error.detail or error.message})
            return False
        if reply is None:
            return None
        # GitHub and Keycloak answer 204. GitHub's 422 and 404 say that the token is no more.
        if reply.status not in (200, 204, 404, 422):
            log.warning("revocation_failed", extra={"detail": f"the OP answered {reply.status}"})
        if 400 <= reply.status < 500 and reply.status not in (408, 429):
            return None
        return reply.status in (200, 204)

    async def _given_back(self, token: str, hint: str, metadata: Metadata) -> RawReply | None:
        match self._profile.revocation:
            case Revocation.RFC7009 if metadata.revocation_endpoint:
                url, form = metadata.revocation_endpoint, {"token": token, "token_type_hint": hint}
            case Revocation.LOGOUT if metadata.end_session_endpoint:
                url, form = metadata.end_session_endpoint, {"refresh_token": token}
            case Revocation.API_DELETE:
                return await self._deleted(token)
            case _:
                return None
        return await self._signed_post(metadata, url, form)

    async def _deleted(self, access_token: str) -> RawReply:
        """GitHub's `DELETE /applications/{client_id}/token`: Basic by id and secret, token in JSON."""
        url = f"{self._api}/applications/{quote(self._config.client_id, safe='')}/token"
        content = json.dumps({"access_token": access_token}).encode()

        async def send(config: OPConfig) -> RawReply:
            pair = f"{config.client_id}:{config.client_secret}"
            headers = {
                "Authorization": "Basic " + base64.b64encode(pair.encode()).decode(),
                "Content-Type": "application/json",
            }
            return await self._http.delete(url, content, headers)

        return await self._secrets.ask(send)

    async def _signed_post(
        self, metadata: Metadata, url: str, form: dict[str, str], *, timeout_s: float | None = None
    ) -> RawReply:
        """POST a form with the client's authentication to an endpoint other than the token endpoint."""

        async def send(config: OPConfig) -> RawReply:
            signed, headers = authenticate(config, metadata, form, self._clock.now())
            return await self._http.post(url, signed, headers, timeout_s=timeout_s)

        return await self._secrets.ask(send)

    @property
    def _api(self) -> str:
        api = self._profile.api
        assert api is not None
        return api.at(self._config.issuer, self._profile.issuer)

    async def close(self) -> None:
        """Close idle connections and stop what runs behind."""
        if self._fetching is not None:
            self._fetching.cancel()
        await self._keys.close()
        await self._http.close()

    async def _jwks_uri(self) -> str:
        return (await self.metadata()).jwks_uri

    async def _discover(self) -> Metadata:
        url = self._config.issuer.rstrip("/") + "/.well-known/openid-configuration"
        reply = await self._http.get(url)
        if reply.status != 200:
            raise unusable(reply, "the discovery document")
        document = _object(reply, "the discovery document")
        return read_metadata(
            document, self._config.issuer, self._config.may_use, self._metadata, self._profile
        )

    def _discovered(self, task: asyncio.Task[Metadata]) -> None:
        self._fetching = None
        now = self._clock.monotonic()
        error = task.exception() if not task.cancelled() else None
        if error is None and not task.cancelled():
            self._metadata = task.result()
            self._fetched_at = now
            return
        self._failed_at = now
        self._failure = error.detail if isinstance(error, OPUnavailable) else "discovery failed"
        log.error("discovery_failed", extra={"detail": self._failure, "kept": self._metadata is not None})


def _object(reply: RawReply, what: str) -> dict[str, Any]:
    try:
        body: object = json.loads(reply.body)
    except (ValueError, RecursionError):
        raise unusable(reply, what) from None
    if not isinstance(body, dict):
        raise unusable(reply, what)
    return cast("dict[str, Any]", body)
