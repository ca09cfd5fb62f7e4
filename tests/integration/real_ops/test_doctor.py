"""The doctor at two real providers: what they say when one thing is wrong, and what it makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.config import read
from proxy.demo.visitor import Visitor
from proxy.doctor.report import Level, Report
from proxy.doctor.run import examine
from tests.op.keycloak_op import KeycloakOP, KeycloakServer
from tests.op.node_op import NodeOP
from tests.op.real import RealOP

APP = "https://app.example.com"


def look(op: RealOP, *, login: bool = False, aggressive: bool = False, **changes: str) -> Report:
    """The report on a configuration for this provider; a person signs in as `ada`."""

    def came_back(url: str) -> str:
        visitor = Visitor()
        return str(op.sign_in(visitor, visitor.get(url), "ada").redirect)

    async def bring(url: str, redirect_uri: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(None, came_back, url)

    env = {
        **op.settings,
        "NIGHTPORTER_UPSTREAM": "http://127.0.0.1:9",
        "NIGHTPORTER_PUBLIC_URL": APP,
        "NIGHTPORTER_STORE": "memory:",
        **{f"NIGHTPORTER_{name.upper()}": value for name, value in changes.items()},
    }
    loaded = read(env=env)
    return asyncio.run(examine(loaded, bring if login else None, aggressive=aggressive, grace_wait_s=0))


def told(report: Report) -> dict[str, tuple[Level, str, str]]:
    """What is not fine about the provider, by check: level, what, remedy."""
    return {
        each.check: (each.level, each.what, each.remedy)
        for each in report.findings
        if each.level is not Level.OK and each.check.startswith(("op.", "login", "config."))
    }


# -- oidc-provider --


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeOP]:
    made = NodeOP(tmp_path_factory.mktemp("node"), APP)
    yield made
    made.stop()


def test_node_is_found_sound_and_its_family_revocation_is_found_out(node: NodeOP) -> None:
    assert told(look(node, login=True)) == {}
    found = told(look(node, login=True, aggressive=True))
    assert found.keys() == {"login.reuse"}
    assert "the newest one dies with it" in found["login.reuse"][1]


def test_node_without_consent_gives_no_refresh_token_and_the_remedy_says_consent(node: NodeOP) -> None:
    """OIDC Core §11: `offline_access` is ignored then; the guides' "missing parameter"."""
    found = told(look(node, login=True, authorize_params="{}"))
    level, what, remedy = found["login.refresh_token"]
    assert (level, "offline_access was asked for" in what) == (Level.FAIL, True), what
    assert 'authorize_params = {prompt = "consent"}' in remedy


@pytest.mark.parametrize(
    ("changes", "checks", "check", "remedy"),
    [
        ({"client_secret": "wrong"}, {"op.secret", "op.par"}, "op.secret", "client_secret"),
        (
            {"client_id": "nobody"},
            {"op.secret", "op.par", "op.redirect_uri"},
            "op.redirect_uri",
            "Compare client_id",
        ),
        (
            {"public_url": "https://other.example.com"},
            {"op.par", "op.redirect_uri"},
            "op.redirect_uri",
            "Register the redirect URI",
        ),
        ({"scopes": "openid email"}, {"config.refresh_token"}, "config.refresh_token", "Add offline_access"),
    ],
    ids=["secret", "client", "redirect-uri", "scope"],
)
def test_node_one_thing_wrong(
    node: NodeOP, changes: dict[str, str], checks: set[str], check: str, remedy: str
) -> None:
    found = told(look(node, **changes))
    assert found.keys() == checks
    assert found[check][0] is Level.FAIL
    assert remedy in found[check][2]


# -- Keycloak --


class Realm(KeycloakOP):
    """A realm whose settings a test changes."""

    def __init__(self, server: KeycloakServer) -> None:
        super().__init__(server, APP, realm="doctor")
        self.server = server

    def change_client(self, **attributes: str) -> None:
        path = f"/realms/doctor/clients?clientId={self.client_id}"
        client: dict[str, Any] = self.server.admin("GET", path)[0]
        client["attributes"] |= attributes
        self.server.admin("PUT", f"/realms/doctor/clients/{client['id']}", client)


@pytest.mark.timeout(900)
def test_keycloak_says_each_fault_in_its_own_words_and_the_switch_is_named(
    keycloak: KeycloakServer | None,
) -> None:
    assert keycloak is not None
    op = Realm(keycloak)
    try:
        # Revoke Refresh Token is off: a new token each time, and the old one works on.
        found = told(look(op, login=True, aggressive=True))
        assert found.keys() == {"login.reuse"}
        assert "works once more" in found["login.reuse"][1]

        found = told(look(op, client_secret="wrong"))
        assert found.keys() == {"op.secret", "op.par"}
        assert "“Invalid client or Invalid client credentials”" in found["op.secret"][1]
        assert all("Clients > your client > Credentials" in remedy for _, _, remedy in found.values())

        found = told(look(op, public_url="https://other.example.com"))
        assert found["op.redirect_uri"][0] is Level.FAIL
        assert "Valid redirect URIs" in found["op.redirect_uri"][2]

        op.change_client(**{"dpop.bound.access.tokens": "true"})
        found = told(look(op, login=True))
        assert found.keys() == {"op.dpop", "login"}
        assert all("Require DPoP bound tokens: Off" in remedy for _, _, remedy in found.values())
        op.change_client(**{"dpop.bound.access.tokens": "false", "use.refresh.tokens": "false"})
        found = told(look(op, login=True))
        assert "Use refresh tokens: On" in found["login.refresh_token"][2]
        op.change_client(**{"use.refresh.tokens": "true"})

        realm = keycloak.admin("GET", "/realms/doctor")
        keycloak.admin("PUT", "/realms/doctor", realm | {"ssoSessionIdleTimeout": 60})
        found = told(look(op, login=True))
        assert found.keys() == {"login.lifetime"}
        assert "SSO Session Idle" in found["login.lifetime"][2]
    finally:
        op.stop()
