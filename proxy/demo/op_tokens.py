"""The demo OP's tokens: made, signed and read."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey
from joserfc.jwt import Token

from proxy.demo.grants import Family, Person
from proxy.demo.rp import Client

ID_LIFE_S = 300


class Mint:
    """See the module's docstring. It has a key of its own.

    Args:
        issuer: of the tokens.
        client: whom they are for.
        life_s: of an access token.
    """

    def __init__(self, issuer: str, client: Client, life_s: int) -> None:
        self._issuer = issuer
        self._client = client
        self._life_s = life_s
        self._key = RSAKey.generate_key(2048, parameters={"use": "sig", "alg": "RS256"}, auto_kid=True)

    def jwks(self) -> dict[str, Any]:
        """The public key, as a set."""
        return dict(KeySet([self._key]).as_dict(private=False))

    def tokens(self, family: Family, nonce: str, now: int) -> dict[str, Any]:
        """The token endpoint's reply."""
        common = {"iss": self._issuer, "sub": family.person.sub, "iat": now, "sid": family.sid}
        access_token = self._sign(
            "at+jwt",  # RFC 9068 §2.1
            {
                **common,
                "aud": self._client.origin,
                "client_id": self._client.client_id,
                "scope": " ".join(family.scope),
                "exp": now + self._life_s,
                "auth_time": family.auth_time,
                "jti": secrets.token_urlsafe(12),
            },
        )
        left_half = hashlib.sha256(access_token.encode()).digest()[:16]  # OIDC Core §3.1.3.6
        claims = {
            **common,
            **claims_for(family.person, family.scope),
            "aud": self._client.client_id,
            "exp": now + ID_LIFE_S,
            "auth_time": family.auth_time,
            "at_hash": base64.urlsafe_b64encode(left_half).rstrip(b"=").decode(),
        }
        if nonce:
            claims["nonce"] = nonce
        reply = {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": self._life_s,
            "scope": " ".join(family.scope),
            "id_token": self._sign("JWT", claims),
        }
        if family.current:
            reply["refresh_token"] = family.current
        return reply

    def claims_of_access_token(self, token: str, now: float) -> dict[str, Any] | None:
        """The claims of a live access token of ours."""
        read = self._read(token)
        if read is None or read.header.get("typ") != "at+jwt" or now >= read.claims["exp"]:
            return None
        return dict(read.claims)

    def claims_of_hint(self, id_token: str) -> dict[str, Any] | None:
        """The claims of an ID token of ours, also an expired one (RP-Initiated Logout §4)."""
        read = self._read(id_token)
        if (
            read is None
            or read.header.get("typ") != "JWT"
            or read.claims.get("aud") != self._client.client_id
        ):
            return None
        return dict(read.claims)

    def _sign(self, kind: str, claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "RS256", "typ": kind, "kid": self._key.kid}, claims, self._key)

    def _read(self, token: str) -> Token | None:
        try:
            return jwt.decode(token, self._key, algorithms=["RS256"])
        except (JoseError, ValueError):
            return None


def claims_for(person: Person, scope: Sequence[str]) -> dict[str, Any]:
    """The claims that a scope stands for (OIDC Core §5.4)."""
    claims: dict[str, Any] = {}
    if "profile" in scope:
        claims |= {
            "name": person.name,
            "preferred_username": person.preferred_username,
            "groups": list(person.groups),
        }
    if "email" in scope:
        claims |= {"email": person.email, "email_verified": True}
    return claims
