"""The OP's signing keys and what they signed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from proxy.core.seal import unb64
from proxy.errors import CookieError, IdTokenRejected, OPUnavailable
from proxy.shell.clock import Clock
from proxy.shell.op_client.config import OPConfig
from proxy.shell.op_client.http import Http, unusable

log = logging.getLogger("nightporter.op")

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Public-key signatures only: a shared secret (HS*) must never verify what a public key could
have been tricked into (CVE-2022-29217), and `none` is no signature."""

MAX_TOKEN_CHARS = 262_144

_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_KTY = {"R": "RSA", "P": "RSA", "E": "EC"}


class Keys:
    """A cached JWKS: the last good set stays while the OP is away.

    Args:
        config: of the provider.
        http: to fetch with.
        uri: gives the current `jwks_uri`.
        clock: of this process.
    """

    def __init__(self, config: OPConfig, http: Http, uri: Callable[[], Awaitable[str]], clock: Clock) -> None:
        self._config = config
        self._http = http
        self._uri = uri
        self._clock = clock
        self._keys: list[dict[str, str]] = []
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def verified(self, token: str, announced: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Verify a compact JWS.

        Args:
            token: as received.
            announced: algorithms that the OP says it signs with.

        Returns:
            Its header and its claims.

        Raises:
            IdTokenRejected: it is not validly signed by the OP.
            OPUnavailable: the keys cannot be had just now.
        """
        header = _header(token)
        alg = header.get("alg")
        if alg not in ALGORITHMS or alg not in announced:
            raise IdTokenRejected("alg", detail=f"alg {alg!r:.20} is not accepted")
        if "crit" in header:
            raise IdTokenRejected("crit", detail="the header names extensions that must be understood")
        candidates = await self._candidates(header, alg)
        from joserfc import jws
        from joserfc.errors import JoseError
        from joserfc.jwk import ECKey, OKPKey, RSAKey

        makers = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
        registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)
        for key in candidates:
            try:
                made = makers[key["kty"]].import_key(key)  # pyright: ignore[reportArgumentType]
                found = jws.deserialize_compact(token, made, registry=registry)
                claims: object = json.loads(found.payload)
            except (JoseError, ValueError, RecursionError):
                continue
            if not isinstance(claims, dict):
                raise IdTokenRejected("malformed", detail="the payload is no JSON object")
            return header, cast("dict[str, Any]", claims)
        raise IdTokenRejected("signature", detail="no key of the OP's verifies the signature")

    async def _candidates(self, header: dict[str, Any], alg: str) -> list[dict[str, str]]:
        kid = header.get("kid")
        found = self._matching(kid, alg)
        if not found:
            await self._refetch()
            found = self._matching(kid, alg)
        if not found:
            raise IdTokenRejected("kid_unknown", detail="the OP publishes no such key")
        return found

    def _matching(self, kid: object, alg: str) -> list[dict[str, str]]:
        kty = _KTY.get(alg[0], "EC") if alg != "EdDSA" else "OKP"
        fitting = [key for key in self._keys if key["kty"] == kty and key.get("alg", alg) == alg]
        return [key for key in fitting if key.get("kid") == kid] if kid is not None else fitting

    async def _refetch(self) -> None:
        """Fetch the keys, at most once per `jwks_refetch_s`; concurrent callers share one fetch."""
        async with self._fetching:
            now = self._clock.monotonic()
            if self._keys and now - self._fetched_at < self._config.jwks_refetch_s:
                return
            try:
                keys = await self._fetch()
            except OPUnavailable:
                if self._keys:
                    log.warning("jwks_unavailable")
                    return
                raise
            if keys:
                self._keys = keys
            self._fetched_at = now

    async def _fetch(self) -> list[dict[str, str]]:
        reply = await self._http.get(await self._uri())
        if reply.status != 200:
            raise unusable(reply, "the JWKS")
        try:
            document: object = json.loads(reply.body)
        except (ValueError, RecursionError):
            raise unusable(reply, "the JWKS") from None
        listed = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise unusable(reply, "the JWKS")
        return [key for entry in cast("list[object]", listed)[:100] if (key := _public(entry)) is not None]


def _public(entry: object) -> dict[str, str] | None:
    """The public part of a signing key; None for anything else. A leaked private part is left out."""
    if not isinstance(entry, dict):
        return None
    key = cast("dict[str, Any]", entry)
    parts = _PUBLIC.get(str(key.get("kty")))
    if parts is None or key.get("use", "sig") != "sig":
        return None
    operations = key.get("key_ops")
    if isinstance(operations, list) and "verify" not in operations:
        return None
    if not all(isinstance(key.get(part), str) for part in parts):
        return None
    kept = ("kty", "kid", "alg", *parts)
    return {name: key[name] for name in kept if isinstance(key.get(name), str)}


def _header(token: str) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_CHARS or token.count(".") != 2 or not token.isascii():
        raise IdTokenRejected("malformed", detail="no compact JWS of acceptable size")
    try:
        header: object = json.loads(unb64(token.partition(".")[0].encode()))
    except (ValueError, RecursionError, CookieError):
        raise IdTokenRejected("malformed", detail="the header is not readable") from None
    if not isinstance(header, dict):
        raise IdTokenRejected("malformed", detail="the header is no JSON object")
    return cast("dict[str, Any]", header)
