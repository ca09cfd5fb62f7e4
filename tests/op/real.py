"""What all real providers of the tests have in common.

Each is a program of somebody else, started as its makers say, seen through a `Relay` that keeps the
ledger. `node_op`, `django_op`, `canaille_op` and `keycloak_op` start one each.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote_plus, urlencode, urljoin, urlsplit

from proxy.demo.visitor import Reply, Visitor, forms
from tests.op.relay import Relay, forward

ROOT = Path(__file__).parents[2]
OPS = ROOT / "build" / "ops"
"""Where `make test-ops` puts the providers that are not Node packages."""


@dataclass(frozen=True)
class FurtherClient:
    """Another client of a provider, which proves itself in a way of its own. It signs nobody in.

    Attributes:
        client_id: its name.
        method: as `token_endpoint_auth_method` says it.
        secret: "" where it has a key.
        key: its public key as a JWK with `alg`.
    """

    client_id: str
    method: str
    secret: str = ""
    key: Mapping[str, Any] | None = None


class RealOP:
    """A provider that runs, and its one client.

    Attributes:
        issuer: as its discovery document says it.
        client_id, client_secret: of the client.
        scopes: that the product asks for.
        profile: the product's profile for it, "" = generic.
        authorize_params: what else the product sends to get a refresh token.
        fields: what a person fills in, by field name; `{name}` stands for their name.
        agree: the button of a sign-out page that says yes.
        relay: in front of it.
    """

    scopes = "openid profile email"
    profile = ""
    authorize_params: ClassVar[Mapping[str, str]] = {}
    fields: ClassVar[Mapping[str, str]] = {"username": "{name}", "password": "{name}"}
    agree: ClassVar[Mapping[str, str]] = {}

    def __init__(self, issuer: str, client_id: str, client_secret: str, relay: Relay) -> None:
        self.issuer = issuer
        self.client_id = client_id
        self.client_secret = client_secret
        self.relay = relay

    @property
    def settings(self) -> dict[str, str]:
        """What an operator tells the product about it."""
        told = {
            "NIGHTPORTER_ISSUER": self.issuer,
            "NIGHTPORTER_PROVIDER": self.profile,
            "NIGHTPORTER_CLIENT_ID": self.client_id,
            "NIGHTPORTER_CLIENT_SECRET": self.client_secret,
            "NIGHTPORTER_SCOPES": self.scopes,
            "NIGHTPORTER_AUTHORIZE_PARAMS": json.dumps(self.authorize_params)
            if self.authorize_params
            else "",
        }
        return {name: value for name, value in told.items() if value}

    def sign_in(self, visitor: Visitor, page: Reply, name: str) -> Reply:
        """Fill in its forms, from its first page to the answer that leads back to the client."""
        values = {field: value.format(name=name) for field, value in self.fields.items()}
        return through_forms(visitor, page, values)

    def sign_out(self, visitor: Visitor, page: Reply) -> Reply:
        """Say yes wherever it asks, until it leads back to the client."""
        return through_forms(visitor, page, {}, press=self.agree)

    def leave(self, visitor: Visitor) -> None:
        """Sign out at its own page, as somebody who came from nowhere."""
        page = visitor.follow(visitor.get(self.metadata()["end_session_endpoint"]))
        form = next(form for form in forms(page.text) if form.method == "post")
        done = visitor.follow(visitor.post(urljoin(page.url, form.action), {**form.fields, **self.agree}))
        assert done.status == 200, (done.status, done.text[:1000])

    def metadata(self) -> dict[str, Any]:
        """Its discovery document."""
        return json.loads(Visitor().get(f"{self.issuer}/.well-known/openid-configuration", {}).body)

    def post(self, endpoint: str, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """A POST of the test's own as the client, past the relay: it is not in the ledger."""
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
        parts = urlsplit(endpoint)
        fields = [
            ("Host", parts.netloc),
            ("Accept", "application/json"),
            ("Authorization", "Basic " + base64.b64encode(pair.encode()).decode()),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ]
        status, _, answer = forward(self.relay.upstream, "POST", parts.path, fields, urlencode(form).encode())
        try:
            return status, json.loads(answer)
        except ValueError:
            return status, {}

    def refresh(self, refresh_token: str) -> tuple[int, dict[str, Any]]:
        """Present a refresh token, as somebody who has got hold of it and of the client's secret."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return self.post(self.metadata()["token_endpoint"], form)

    def knows(self, access_token: str) -> bool:
        """Whether it takes the access token at its userinfo endpoint."""
        reply = Visitor().get(
            self.metadata()["userinfo_endpoint"], {"Authorization": f"Bearer {access_token}"}
        )
        assert reply.status in (200, 401, 403), (reply.status, reply.text[:500])
        return reply.status == 200

    def end_grant(self, refresh_token: str) -> None:
        """Revoke a refresh token at the provider (RFC 7009), behind the product's back."""
        endpoint = self.metadata()["revocation_endpoint"]
        status, answer = self.post(endpoint, {"token": refresh_token, "token_type_hint": "refresh_token"})
        assert status == 200, (status, answer)

    def stop(self) -> None:
        """End it, and the relay."""
        self.relay.stop()


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
        found = [form for form in forms(page.text) if form.method == "post"]
        assert found, f"{page.url} answered {page.status} without a form:\n{page.text[:3000]}"
        form = found[0]
        filled = {name: values.get(name, value) for name, value in form.fields.items()}
        page = visitor.post(urljoin(page.url, form.action), {**filled, **(press or {})})
    raise AssertionError(f"more than {limit} forms; the last was at {page.url}")
