"""How the client proves itself at the OP's endpoints (RFC 6749 §2.3, RFC 7523 §2.2)."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote_plus

from proxy.core.metadata import Metadata
from proxy.core.seal import random_id
from proxy.errors import ConfigError, Problem
from proxy.shell.op_client.config import OPConfig

ASSERTION_S = 60

_METHODS = {
    "basic": "client_secret_basic",
    "post": "client_secret_post",
    "client_secret_jwt": "client_secret_jwt",
    "private_key_jwt": "private_key_jwt",
    "none": "none",
}

_CURVE_ALG = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}


def method_of(config: OPConfig, metadata: Metadata) -> str:
    """The authentication method: as configured, else what is configured and offered."""
    if config.client_auth != "auto":
        return _METHODS[config.client_auth]
    if config.client_key:
        return "private_key_jwt"
    if not config.client_secret:
        return "none"
    for method in ("client_secret_basic", "client_secret_post", "client_secret_jwt"):
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
        kind, assertion = _assertion(config, metadata, method, now)
        return {**form, "client_assertion_type": kind, "client_assertion": assertion}, {}
    return form, {}


def _assertion(config: OPConfig, metadata: Metadata, method: str, now: float) -> tuple[str, str]:
    """The assertion's type and the assertion."""
    from authlib.oauth2 import rfc7523
    from joserfc.errors import JoseError
    from joserfc.jwk import OctKey

    authlib: Any = rfc7523
    audience = metadata.issuer if config.assertion_audience == "issuer" else metadata.token_endpoint
    says: dict[str, Any] = {
        "client_id": config.client_id,
        "token_endpoint": audience,
        "claims": {"jti": random_id()},
        "issued_at": int(now),
        "expires_in": ASSERTION_S,
    }
    try:
        if method == "client_secret_jwt":
            signed: str = authlib.client_secret_jwt_sign(OctKey.import_key(config.client_secret), **says)
        else:
            key, alg, kid = signing_key(config.client_key)
            header = {"kid": kid} if kid else {}
            signed = authlib.private_key_jwt_sign(key, alg=alg, header=header, **says)
    except (JoseError, ValueError, TypeError) as error:
        remedy = "give a private key as PEM or JWK"
        raise ConfigError(
            [Problem("client_key", f"cannot sign with it ({type(error).__name__})", remedy)]
        ) from None
    return str(authlib.JWTBearerClientAssertion.CLIENT_ASSERTION_TYPE), signed


def signing_key(text: str) -> tuple[Any, str, str]:
    """The private key, its algorithm and its `kid` from a PEM or a JWK.

    Raises:
        ValueError: there is no usable private key in it.
    """
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    key: Any = None
    says: dict[str, Any] = {}
    if text.lstrip().startswith("{"):
        says = json.loads(text)
        maker = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}.get(says.get("kty", ""))
        key = maker.import_key(says) if maker is not None else None
    else:
        for maker in (RSAKey, ECKey, OKPKey):
            try:
                key = maker.import_key(text)
                break
            except (JoseError, ValueError, TypeError):
                continue
    if key is None or not key.is_private:
        raise ValueError("no private key")
    alg = "RS256" if key.key_type == "RSA" else _CURVE_ALG.get(key.curve_name, "")
    return key, says.get("alg") or alg, says.get("kid") or ""
