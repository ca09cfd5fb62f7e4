"""The OP's signing keys and what they signed."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import warnings
from collections.abc import Awaitable, Callable, Collection
from typing import Any, cast

from msgspec import Struct, field

from proxy.core.seal import unb64
from proxy.errors import CookieError, IdTokenRejected, OPUnavailable
from proxy.shell.clock import Clock
from proxy.shell.op_client.config import OPConfig
from proxy.shell.op_client.http import Http, unusable

log = logging.getLogger("nightporter.op")

ALGORITHMS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", "")),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
"""Algorithm → key type and curve. Public-key signatures only: a shared secret (HS*) must never
verify what a public key could have been tricked into (CVE-2022-29217), and `none` is no signature."""

MAX_TOKEN_CHARS = 262_144
MAX_HEADER_CHARS = 16_384
MAX_KEYS = 100
MAX_TRIED = 8
"""Keys tried for a token that names none."""

KEYS_S = 3600.0
"""A key set is believed for an hour, then fetched again behind the requests."""

RETRY_S = 1.0
"""Without any key set, the OP is asked at most this often."""

_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_RSA_BITS = range(2048, 8193)  # RFC 7518 §3.3: at least 2048; more than 8192 only costs time


class _Key(Struct):
    """One published key: its public part, and joserfc's key object once it was needed."""

    jwk: dict[str, str]
    made: Any = field(default=None)

    def fits(self, kid: object, alg: str) -> bool:
        kty, crv = ALGORITHMS[alg]
        bound = self.jwk.get("alg", alg)
        return (
            self.jwk["kty"] == kty
            and self.jwk.get("crv", "") == crv
            and (bound == alg or kty == "OKP")  # one algorithm, two names (RFC 9864)
            and (kid is None or self.jwk.get("kid") == kid)
        )


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
        self._keys: list[_Key] | None = None
        self._version = 0
        self._fetched_at = float("-inf")
        self._asked_at = float("-inf")
        self._failed_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None

    def learn_from(self, other: Keys) -> None:
        """Take over the key set of another client of the same OP."""
        self._keys, self._fetched_at = other._keys, other._fetched_at

    async def verified(self, token: str, announced: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Verify a compact JWS.

        A token that no known key verifies makes us ask for the keys once more, at most once per
        `jwks_refetch_s`: a bad token must not become a stream of requests (OIDC Core §10.1.1).

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
        if not isinstance(alg, str) or alg not in ALGORITHMS or alg not in announced:
            raise IdTokenRejected("alg", detail=f"alg {alg!r:.20} is not accepted")
        if "crit" in header or "b64" in header:
            raise IdTokenRejected("crit", detail="the header names extensions that must be understood")
        kid = header.get("kid")
        await self._first()
        tried = self._version
        payload = self._payload(token, kid, alg)
        if payload is None and await self._newer_than(tried, unknown=not self._matching(kid, alg)):
            payload = self._payload(token, kid, alg)
        if payload is None:
            if not self._matching(kid, alg):
                raise IdTokenRejected("kid_unknown", detail="the OP publishes no such key")
            raise IdTokenRejected("signature", detail="no key of the OP's verifies the signature")
        try:
            claims: object = json.loads(payload)
        except (ValueError, RecursionError):
            claims = None
        if not isinstance(claims, dict):
            raise IdTokenRejected("malformed", detail="the payload is no JSON object")
        return header, cast("dict[str, Any]", claims)

    async def close(self) -> None:
        """Stop what runs behind."""
        if self._renewing is not None:
            self._renewing.cancel()

    def _matching(self, kid: object, alg: str) -> list[_Key]:
        return [key for key in self._keys or () if key.fits(kid, alg)][:MAX_TRIED]

    def _payload(self, token: str, kid: object, alg: str) -> bytes | None:
        """The payload, if one of the known keys verifies the signature."""
        from joserfc import jws
        from joserfc.errors import JoseError
        from joserfc.jwk import import_key

        registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)
        # Ours bound the whole token already; joserfc's own bounds are too small for a header with a
        # certificate chain (512 bytes) and for many groups.
        registry.max_header_length = MAX_HEADER_CHARS
        registry.max_payload_length = MAX_TOKEN_CHARS
        registry.max_signature_length = 2048
        for key in self._matching(kid, alg):
            try:
                if key.made is None:
                    key.made = import_key(cast("Any", key.jwk))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # "EdDSA" is an old name, not a weak algorithm
                    return jws.deserialize_compact(token, key.made, registry=registry).payload
            except (JoseError, ValueError, TypeError):
                continue
        return None

    async def _first(self) -> None:
        """Make sure that there is a key set, and that it is no older than an hour for long."""
        now = self._clock.monotonic()
        if self._keys is None:
            async with self._fetching:
                now = self._clock.monotonic()
                if self._keys is None:
                    if now - self._failed_at < RETRY_S:
                        raise OPUnavailable("the JWKS could not be had a moment ago")
                    await self._fetch()
            return
        old = now - self._fetched_at >= KEYS_S and now - self._failed_at >= self._config.jwks_refetch_s
        if old and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        try:
            async with self._fetching:
                await self._fetch()
        except OPUnavailable as error:
            log.warning("jwks_unavailable", extra={"detail": error.detail})

    async def _newer_than(self, tried: int, *, unknown: bool) -> bool:
        """Whether there are newer keys than those that were tried; fetches them if that may be.

        Raises:
            OPUnavailable: the key is unknown, and nobody can say now whether the OP has it.
        """
        async with self._fetching:
            if self._version != tried:
                return True
            now = self._clock.monotonic()
            try:
                if now - self._asked_at < self._config.jwks_refetch_s:
                    raise OPUnavailable("an unknown key, and the JWKS was asked for a moment ago")
                self._asked_at = now
                await self._fetch()
            except OPUnavailable as error:
                log.warning("jwks_unavailable", extra={"detail": error.detail})
                if unknown:
                    raise
                return False
            return True

    async def _fetch(self) -> None:
        """Fetch the keys; a set without any usable one does not replace a good one."""
        try:
            keys = await self._read()
        except OPUnavailable:
            self._failed_at = self._clock.monotonic()
            raise
        if keys or not self._keys:
            self._keys = keys
        self._version += 1
        self._fetched_at = self._clock.monotonic()

    async def _read(self) -> list[_Key]:
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
        entries = cast("list[object]", listed)[:MAX_KEYS]
        return [_Key(jwk) for entry in entries if (jwk := _public(entry)) is not None]


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
    if "n" in parts and _bits(key["n"]) not in _RSA_BITS:
        return None
    kept = ("kty", "kid", "alg", *parts)
    return {name: key[name] for name in kept if isinstance(key.get(name), str)}


def _bits(number: str) -> int:
    try:
        return int.from_bytes(base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))).bit_length()
    except ValueError:
        return 0


def _header(token: str) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_CHARS or token.count(".") != 2 or not token.isascii():
        raise IdTokenRejected("malformed", detail="no compact JWS of acceptable size")
    encoded = token.partition(".")[0]
    if len(encoded) > MAX_HEADER_CHARS:
        raise IdTokenRejected("malformed", detail="the header is longer than allowed")
    try:
        header: object = json.loads(unb64(encoded.encode()))
    except (ValueError, RecursionError, CookieError):
        raise IdTokenRejected("malformed", detail="the header is not readable") from None
    if not isinstance(header, dict):
        raise IdTokenRejected("malformed", detail="the header is no JSON object")
    return cast("dict[str, Any]", header)
