"""How the client proves itself, at the two providers that take every way.

A token call with a refresh token that never was: `invalid_grant` says that the client was believed,
`invalid_client` that it was not. Nobody has to sign in for that.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from proxy.shell.clock import SystemClock
from proxy.shell.op_client import OPClient, OPConfig
from tests.op.keycloak_op import KeycloakOP, KeycloakServer
from tests.op.node_op import NodeOP
from tests.op.real import FurtherClient, RealOP

NOWHERE = "http://127.0.0.1:9"
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


@dataclass(frozen=True)
class Way:
    """One way of proving it: the setting, what the provider calls it, and the key's algorithm."""

    setting: str
    method: str
    alg: str = ""

    @property
    def name(self) -> str:
        return f"{self.method}-{self.alg}".rstrip("-")


WAYS = [
    Way("basic", "client_secret_basic"),
    Way("post", "client_secret_post"),
    Way("client_secret_jwt", "client_secret_jwt"),
    *(
        Way("private_key_jwt", "private_key_jwt", alg)
        for alg in ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")
    ),
]


def new_key(alg: str) -> Any:
    says = {"kid": f"ours-{alg}", "alg": alg, "use": "sig"}
    if alg in _CURVES:
        return ECKey.generate_key(_CURVES[alg], says)
    if alg == "EdDSA":
        return OKPKey.generate_key("Ed25519", says)
    return RSAKey.generate_key(2048, says)


KEYS = {way.name: new_key(way.alg) for way in WAYS if way.alg}
SECRETS = {way.name: secrets.token_urlsafe(48) for way in WAYS if not way.alg}
CLIENTS = [
    FurtherClient(
        way.name,
        way.method,
        SECRETS.get(way.name, ""),
        KEYS[way.name].as_dict(private=False) if way.alg else None,
    )
    for way in WAYS
]


@pytest.fixture(scope="module", params=["oidc-provider", "keycloak"])
def op(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    keycloak: KeycloakServer | None,
) -> Iterator[RealOP]:
    if request.param == "keycloak":
        assert keycloak is not None
        made: RealOP = KeycloakOP(keycloak, NOWHERE, realm="client-auth", further=CLIENTS)
    else:
        made = NodeOP(tmp_path_factory.mktemp("client-auth"), NOWHERE, further=CLIENTS)
    yield made
    made.stop()


def answered(op: RealOP, way: Way, *, secret: str = "", key: Any = None) -> str:
    """The error that the provider answers with."""

    async def ask() -> str:
        config = OPConfig(
            issuer=op.issuer,
            client_id=way.name,
            client_secret=secret,
            client_key=json.dumps(key.as_dict(private=True)) if key else "",
            client_auth=way.setting,
        )
        call = await OPClient(config, SystemClock()).connect()
        try:
            reply = await call.refresh("never-was")
        finally:
            await call.aclose()
        return str(json.loads(reply.body)["error"])

    return asyncio.run(ask())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_the_client_is_believed_by_its_own_proof_only(op: RealOP, way: Way) -> None:
    if way.alg:
        assert answered(op, way, key=KEYS[way.name]) == "invalid_grant"
        assert answered(op, way, key=new_key(way.alg)) in ("invalid_client", "unauthorized_client")
    else:
        assert answered(op, way, secret=SECRETS[way.name]) == "invalid_grant"
        assert answered(op, way, secret=secrets.token_urlsafe(48)) in (
            "invalid_client",
            "unauthorized_client",
        )
