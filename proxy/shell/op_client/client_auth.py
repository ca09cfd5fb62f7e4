"""How the client proves itself at the OP's endpoints (RFC 6749 §2.3, RFC 7523 §2.2)."""

from __future__ import annotations

import base64
from urllib.parse import quote_plus

from proxy.core.metadata import Metadata
from proxy.core.seal import random_id
from proxy.errors import ConfigError, Problem
from proxy.shell.op_client.config import OPConfig

ASSERTION_S = 60
_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

_METHODS = {
    "basic": "client_secret_basic",
    "post": "client_secret_post",
    "client_secret_jwt": "client_secret_jwt",
    "private_key_jwt": "private_key_jwt",
    "none": "none",
}


def method_of(config: OPConfig, metadata: Metadata) -> str:
    """The authentication method: as configured, else what is configured and offered."""
    if config.client_auth != "auto":
        return _METHODS[config.client_auth]
    if config.client_key:
        return "private_key_jwt"
    if not config.client_secret:
        return "none"
    for method in ("client_secret_basic", "client_secret_post"):
        if method in metadata.auth_methods:
            return method
    return "client_secret_basic"


def authenticate(
    config: OPConfig, metadata: Metadata, form: dict[str, str], now: float
) -> tuple[dict[str, str], dict[str, str]]:
    """The form and the header fields with the client's proof added.

    Raises:
        ConfigError: the key cannot be used.
    """
    method = method_of(config, metadata)
    if method == "client_secret_basic":
        # Both parts are form-encoded first (RFC 6749 §2.3.1); many clients forget it.
        pair = f"{quote_plus(config.client_id)}:{quote_plus(config.client_secret)}"
        return form, {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    form = {**form, "client_id": config.client_id}
    if method == "client_secret_post":
        return {**form, "client_secret": config.client_secret}, {}
    if method in ("client_secret_jwt", "private_key_jwt"):
        return {
            **form,
            "client_assertion_type": _TYPE,
            "client_assertion": _assertion(config, metadata, method, now),
        }, {}
    return form, {}


def _assertion(config: OPConfig, metadata: Metadata, method: str, now: float) -> str:
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import OctKey

    claims = {
        "iss": config.client_id,
        "sub": config.client_id,
        "aud": metadata.token_endpoint,
        "jti": random_id(),
        "iat": int(now),
        "exp": int(now) + ASSERTION_S,
    }
    try:
        if method == "client_secret_jwt":
            return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(config.client_secret))
        key, alg, kid = _signing_key(config.client_key)
        header = {"alg": alg} | ({"kid": kid} if kid else {})
        return jwt.encode(header, claims, key)
    except (JoseError, ValueError) as error:
        raise ConfigError(
            [
                Problem(
                    "client_key", f"cannot sign with it ({type(error).__name__})", "give a private PEM or JWK"
                )
            ]
        ) from None


def _signing_key(text: str):  # type: ignore[no-untyped-def]  # joserfc's key classes share no useful base
    """The key, its algorithm and its `kid` from a PEM or a JWK."""
    import json

    from joserfc.jwk import ECKey, OKPKey, RSAKey

    makers = {"RSA": (RSAKey, "RS256"), "EC": (ECKey, "ES256"), "OKP": (OKPKey, "EdDSA")}
    if text.lstrip().startswith("{"):
        jwk = json.loads(text)
        maker, alg = makers[jwk.get("kty", "")]
        return maker.import_key(jwk), jwk.get("alg", alg), jwk.get("kid", "")
    for maker, alg in makers.values():
        try:
            return maker.import_key(text), alg, ""
        except ValueError:
            continue
    raise ValueError("no key in it")
