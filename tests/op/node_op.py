"""npm `oidc-provider`, a certified OP, as a plain process (`node/provider.mjs` configures it).

Strict rotation: the second use of a refresh token revokes everything granted with it. A refresh
token comes only with `prompt=consent`; e-mail, name and groups come from userinfo, not from the ID
token (OIDC Core §5.4).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from proxy.demo.visitor import Visitor
from tests.op.child import Child
from tests.op.real import FurtherClient, RealOP
from tests.op.relay import Relay

HERE = Path(__file__).parent / "node"
CLIENT, SECRET = "node-client", "node canary: +%/&="
"""The secret needs form-encoding in Basic authentication (RFC 6749 §2.3.1)."""


class NodeOP(RealOP):
    """The running provider.

    Args:
        home: directory for its log.
        app: public URL of the client.
        life_s: life of an access token.
        public_key: JWK of a client that proves itself by private_key_jwt; None = a secret, by Basic.
        further: clients beside it.
        back_channel: it tells the client of sign-outs.
    """

    scopes = "openid profile email groups offline_access"
    authorize_params: ClassVar[Mapping[str, str]] = {"prompt": "consent"}
    fields: ClassVar[Mapping[str, str]] = {"login": "{name}", "password": "any"}
    agree: ClassVar[Mapping[str, str]] = {"logout": "yes"}

    def __init__(
        self,
        home: Path,
        app: str,
        *,
        life_s: float = 300,
        public_key: Mapping[str, Any] | None = None,
        further: Sequence[FurtherClient] = (),
        back_channel: bool = False,
    ) -> None:
        client: dict[str, Any] = {
            "client_id": CLIENT,
            "redirect_uris": [f"{app}/oauth2/callback"],
            "post_logout_redirect_uris": [f"{app}/oauth2/logged-out"],
            "grant_types": ["authorization_code", "refresh_token"],
        }
        if back_channel:
            client |= {
                "backchannel_logout_uri": f"{app}/oauth2/backchannel-logout",
                "backchannel_logout_session_required": True,
            }
        if public_key is None:
            client["client_secret"] = SECRET
        else:
            client |= {
                "token_endpoint_auth_method": "private_key_jwt",
                "token_endpoint_auth_signing_alg": public_key["alg"],
                "jwks": {"keys": [dict(public_key)]},
            }
        relay = Relay()
        super().__init__(relay.url, CLIENT, "" if public_key else SECRET, relay)
        clients = [
            client,
            *({**client_of(each), "redirect_uris": client["redirect_uris"]} for each in further),
        ]
        asked = {"life_s": life_s, "clients": clients, "issuer": self.issuer}
        self.child = Child(
            "oidc-provider", ["node", "provider.mjs", json.dumps(asked)], home / "op.log", cwd=HERE
        )
        relay.upstream = json.loads(self.child.line('{"port"'))["port"]

    def ledger(self, endpoint: str = "", grant: str = "") -> list[dict[str, Any]]:
        """What it counted itself."""
        entries: list[dict[str, Any]] = json.loads(Visitor().get(f"{self.issuer}/ledger", {}).body)
        return [
            entry
            for entry in entries
            if endpoint in ("", entry["endpoint"]) and grant in ("", entry.get("grant"))
        ]

    def stop(self) -> None:
        super().stop()
        self.child.stop()


def client_of(further: FurtherClient) -> dict[str, Any]:
    """A client's metadata (OpenID Connect Dynamic Client Registration §2)."""
    says: dict[str, Any] = {
        "client_id": further.client_id,
        "token_endpoint_auth_method": further.method,
        "grant_types": ["authorization_code", "refresh_token"],
    }
    if further.key is None:
        return {**says, "client_secret": further.secret}
    return {
        **says,
        "token_endpoint_auth_signing_alg": further.key["alg"],
        "jwks": {"keys": [dict(further.key)]},
    }
