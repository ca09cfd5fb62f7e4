"""Several providers in the configuration: tables, variables, and every problem at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config import load, read
from proxy.config.reference import show
from proxy.errors import ConfigError

BASE: dict[str, Any] = {
    "upstream": "http://127.0.0.1:9000",
    "public_url": ["https://app.example.com", "https://staff.example.com"],
    "store": "memory:",
}
GOOGLE: dict[str, Any] = {"client_id": "g", "client_secret": "canary-g", "allow": ["example.com"]}
STAFF: dict[str, Any] = {
    "issuer": "https://login.example.com/realms/main",
    "client_id": "s",
    "client_secret": "canary-s",
}


def toml(**providers: Any) -> dict[str, Any]:
    return {**BASE, "providers": providers}


def problems(content: dict[str, Any], env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(env=env or {}, toml=content)
    return [str(problem) for problem in caught.value.problems]


def test_each_table_is_a_whole_configuration_over_what_all_have() -> None:
    settings = load(
        env={}, toml=toml(google=GOOGLE, staff={**STAFF, "hosts": ["staff.example.com"], "title": "S"})
    )
    google, staff = settings.providers["google"], settings.providers["staff"]
    assert google.settings.provider == "google", "a table named like a profile needs no provider"
    assert staff.settings.provider == ""
    assert google.settings.upstream == staff.settings.upstream == "http://127.0.0.1:9000"
    assert (google.settings.allow, staff.settings.allow) == (("example.com",), ())
    assert (staff.title, staff.hosts) == ("S", ("staff.example.com",))
    assert google.settings.client_secret.reveal() == "canary-g"


def test_variables_and_overrides_reach_into_a_table(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    given = {key: value for key, value in GOOGLE.items() if key != "client_secret"}
    env = {
        "NIGHTPORTER_PROVIDERS_GOOGLE_CLIENT_SECRET_FILE": str(secret),
        "NIGHTPORTER_PROVIDERS_GITHUB_OAUTH_APP_CLIENT_ID": "gh",
        "NIGHTPORTER_PROVIDERS_GITHUB_OAUTH_APP_CLIENT_SECRET": "x",
        "NIGHTPORTER_PROVIDERS_GITHUB_OAUTH_APP_ALLOW": "group:acme",
    }
    loaded = read(env=env, toml=toml(google=given), overrides=["providers.google.client_id=other"])
    found = loaded.settings.providers
    assert found["google"].settings.client_secret.reveal() == "from-a-file"
    assert found["google"].settings.client_id == "other"
    assert found["github-oauth-app"].settings.provider == "github-oauth-app"
    assert str(secret) in loaded.files, "a changed secret is noticed"


def test_nothing_secret_is_shown() -> None:
    text = show(read(env={}, toml=toml(google=GOOGLE, staff=STAFF)))
    assert "[providers.staff]" in text
    assert "canary" not in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (toml(google=GOOGLE) | {"client_id": "x"}, "client_id: set beside the tables [providers.google]"),
        (toml(google={**GOOGLE, "allow": []}), "providers.google.allow: not set, but anybody"),
        (toml(google={**GOOGLE, "client_id": ""}), "providers.google.client_id: not set"),
        (toml(staff={**STAFF, "isuer": "x"}), "isuer: no such setting; did you mean issuer?"),
        (toml(a=STAFF, b=STAFF), "providers.b.client_id: the same issuer and client_id as providers.a"),
        (toml(staff={**STAFF, "hosts": ["else.example.com"]}), "providers.staff.hosts: 'else.example.com'"),
        (
            toml(staff={**STAFF, "hosts": ["staff.example.com"]}),
            "providers: nobody signs in at app.example.com",
        ),
        (toml(staff={**STAFF, "paths": ["admin/"]}), "providers.staff.paths: 'admin/', no path"),
        (toml(**{"Staff!": STAFF}), "providers.Staff!: no name for a provider"),
        (toml(nix={**STAFF, "provider": "nix"}), "providers.nix.provider: no profile 'nix'"),
        ({**BASE, "providers": "google"}, "providers: the text 'google'"),
        (toml(google="x"), "providers.google: the text 'x'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(content: dict[str, Any], expected: str) -> None:
    found = problems(content)
    assert any(expected in line for line in found), found


def test_a_rule_of_all_holds_for_each() -> None:
    settings = load(
        env={}, toml=toml(google={k: v for k, v in GOOGLE.items() if k != "allow"}) | {"allow": "example.com"}
    )
    assert settings.providers["google"].settings.allow == ("example.com",)


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        (
            {**STAFF, "issuer": "https://acme.okta.com", "scopes": ["openid"]},
            "without offline_access: Okta may issue",
        ),
        (
            {**GOOGLE, "provider": "google", "authorize_params": {}},
            "without access_type=offline and prompt=consent",
        ),
        (STAFF | {"scopes": ["openid"]}, ""),  # Keycloak needs no scope for it
        (GOOGLE | {"provider": "google"}, ""),
    ],
)
def test_a_sign_in_that_brings_no_refresh_token_is_warned_of(provider: dict[str, Any], says: str) -> None:
    """The guides' first entry, found without asking anybody."""
    loaded = read(env={}, toml=toml(one=provider))
    found = [line for line in loaded.warnings if "sign-ins are asked for" in line]
    assert bool(found) == bool(says)
    for line in found:
        assert line.startswith("providers.one: ")
        assert says in line
