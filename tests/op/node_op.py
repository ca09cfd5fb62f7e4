"""npm `oidc-provider`, a certified OP, as a plain process (`node/provider.mjs` configures it).

Strict rotation: the second use of a refresh token revokes everything granted with it. A refresh
token comes only with `prompt=consent`; e-mail, name and groups come from userinfo, not from the ID
token (OIDC Core §5.4).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from proxy.demo.visitor import Reply, Visitor, forms
from tests.op.child import Child

HERE = Path(__file__).parent / "node"
CLIENT, SECRET = "node-client", "node canary: +%/&="
"""The secret needs form-encoding in Basic authentication (RFC 6749 §2.3.1)."""


class NodeOP:
    """The running provider.

    Args:
        home: directory for its log.
        app: public URL of the client.
        life_s: life of an access token.
        public_key: JWK of a client that proves itself by private_key_jwt; None = a secret, by Basic.
        issuer: what it calls itself, where something stands in front of it.
    """

    def __init__(
        self,
        home: Path,
        app: str,
        *,
        life_s: float = 300,
        public_key: Mapping[str, Any] | None = None,
        issuer: str = "",
    ) -> None:
        client: dict[str, Any] = {
            "client_id": CLIENT,
            "redirect_uris": [f"{app}/oauth2/callback"],
            "post_logout_redirect_uris": [f"{app}/oauth2/logged-out"],
            "grant_types": ["authorization_code", "refresh_token"],
        }
        if public_key is None:
            client["client_secret"] = SECRET
        else:
            client |= {
                "token_endpoint_auth_method": "private_key_jwt",
                "token_endpoint_auth_signing_alg": public_key["alg"],
                "jwks": {"keys": [dict(public_key)]},
            }
        asked = {"life_s": life_s, "clients": [client], "issuer": issuer}
        self.child = Child(
            "oidc-provider", ["node", "provider.mjs", json.dumps(asked)], home / "op.log", cwd=HERE
        )
        said = json.loads(self.child.line('{"port"'))
        self.port: int = said["port"]
        self.issuer: str = said["issuer"]

    @property
    def settings(self) -> dict[str, str]:
        """What an operator tells the product about it."""
        return {
            "NIGHTPORTER_ISSUER": self.issuer,
            "NIGHTPORTER_CLIENT_ID": CLIENT,
            "NIGHTPORTER_CLIENT_SECRET": SECRET,
            "NIGHTPORTER_SCOPES": "openid profile email groups offline_access",
            "NIGHTPORTER_AUTHORIZE_PARAMS": '{"prompt": "consent"}',
            "NIGHTPORTER_REFRESH_REUSE": "punished",
        }

    def sign_in(self, visitor: Visitor, page: Reply, name: str) -> Reply:
        """Fill in its forms, from its first page to the answer that leads back to the client."""
        return through_forms(visitor, page, {"login": name, "password": "any"})

    def ledger(self, endpoint: str = "", grant: str = "") -> list[dict[str, Any]]:
        """What it counted itself."""
        entries: list[dict[str, Any]] = json.loads(
            Visitor().get(f"http://127.0.0.1:{self.port}/ledger", {}).body
        )
        return [
            entry
            for entry in entries
            if endpoint in ("", entry["endpoint"]) and grant in ("", entry.get("grant"))
        ]

    def stop(self) -> None:
        self.child.stop()


def through_forms(
    visitor: Visitor, page: Reply, values: Mapping[str, str], *, press: Mapping[str, str] | None = None
) -> Reply:
    """Fill in and send the form of each page, up to the answer that leads to another origin: the client's.

    Args:
        page: the provider's first one.
        values: for fields of these names; the others go as they are.
        press: name and value of a button, which may stand outside of its form.
    """
    limit = 6
    origin = "/".join(page.url.split("/", 3)[:3]) + "/"
    for _ in range(limit):
        while page.redirect:
            if not page.redirect.startswith(origin):
                return page
            page = visitor.get(page.redirect)
        found = forms(page.text)
        assert found, f"{page.url} answered {page.status} without a form:\n{page.text[:3000]}"
        form = found[0]
        filled = {name: values.get(name, value) for name, value in form.fields.items()}
        page = visitor.post(urljoin(page.url, form.action), {**filled, **(press or {})})
    raise AssertionError(f"more than {limit} forms; the last was at {page.url}")
