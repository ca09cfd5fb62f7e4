"""Who may come in: nothing widens without somebody deciding."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.importing.arguments import from_arguments
from proxy.importing.draft import Draft, Weight
from proxy.importing.translation import translate

BASE = (
    "--client-id=a",
    "--client-secret=b",
    "--redirect-url=https://app.example.com/oauth2/callback",
    "--upstream=http://127.0.0.1:9000",
)
OIDC = ("--provider=oidc", "--oidc-issuer-url=https://login.example.com")
KEYCLOAK = ("--provider=keycloak-oidc", "--oidc-issuer-url=https://login.example.com/realms/main")
GITLAB = ("--provider=gitlab", "--oidc-issuer-url=https://gitlab.example.com")
NOBODY = ("group:decide-who-may-come-in",)


def draft_of(*arguments: str) -> Draft:
    return translate(from_arguments([*BASE, *arguments]))


def allow(draft: Draft) -> object:
    line = draft.lines.get("allow")
    return None if line is None else line.value


def decisions(draft: Draft) -> list[str]:
    return [note.about for note in draft.notes if note.weight is Weight.DECIDE]


@pytest.mark.parametrize(
    ("arguments", "rules"),
    [
        ((*OIDC, "--email-domain=*"), ("everyone",)),
        ((*OIDC, "--email-domain=Example.COM"), ("example.com",)),
        ((*OIDC, "--email-domain=a.example,b.example"), ("a.example", "b.example")),
        ((*OIDC, "--email-domain=*", "--allowed-group=staff"), ("group:staff",)),
        ((*OIDC, "--allowed-group=a", "--allowed-group=b"), ("group:a", "group:b")),
        ((*KEYCLOAK, "--allowed-role=admin"), ("group:admin",)),
        ((*KEYCLOAK, "--keycloak-group=/staff"), ("group:/staff",)),
        ((*GITLAB, "--gitlab-group=a/b", "--email-domain=*"), ("group:a/b",)),
        (("--provider=github", "--github-org=octo"), ("group:octo",)),
        (("--provider=github", "--github-team=octo:cats,hex:dogs"), ("group:octo/cats", "group:hex/dogs")),
        (("--provider=github", "--github-org=octo", "--github-team=cats"), ("group:octo/cats",)),
        ((*GITLAB, "--gitlab-group=a", "--gitlab-project=x/y"), ("group:a",)),  # an alternative less
    ],
)
def test_rules_that_mean_the_same(arguments: tuple[str, ...], rules: tuple[str, ...]) -> None:
    draft = draft_of(*arguments)
    assert allow(draft) == rules
    assert decisions(draft) == []


@pytest.mark.parametrize(
    ("arguments", "rules", "about"),
    [
        # Both were asked for, one is enough here: the narrower one stays.
        ((*OIDC, "--email-domain=example.com", "--allowed-group=a"), ("group:a",), "--email-domain"),
        # A restriction without an equivalent.
        (("--google-group=a@example.com", "--email-domain=example.com"), ("example.com",), "--google-group"),
        (("--google-group=a@example.com", "--email-domain=*"), NOBODY, "--google-group"),
        ((*GITLAB, "--gitlab-project=x/y", "--email-domain=*"), NOBODY, "--gitlab-project"),
        (("--provider=github", "--github-repo=o/r", "--email-domain=*"), NOBODY, "--github-repo"),
        (("--provider=github", "--github-user=ada", "--email-domain=*"), NOBODY, "--github-user"),
        # Rules that cannot be written.
        ((*OIDC, "--email-domain=.example.com"), NOBODY, "--email-domain"),
        ((*OIDC, "--authenticated-emails-file=/nowhere/at/all"), NOBODY, "--authenticated-emails-file"),
        (("--provider=github", "--github-team=cats"), NOBODY, "--github-team"),
        ((*KEYCLOAK, "--allowed-role=a", "--allowed-role=app:b"), NOBODY, "--allowed-role"),
        ((*KEYCLOAK, "--allowed-role=my.app:b"), NOBODY, "--allowed-role"),
        ((*KEYCLOAK, "--allowed-role=a", "--allowed-group=g"), ("group:g",), "--allowed-role"),
    ],
)
def test_rules_that_somebody_must_decide(
    arguments: tuple[str, ...], rules: tuple[str, ...], about: str
) -> None:
    draft = draft_of(*arguments)
    assert allow(draft) == rules
    assert about in decisions(draft)


def test_roles_name_the_claim_that_holds_them() -> None:
    assert draft_of(*KEYCLOAK, "--allowed-role=a").lines["groups_claim"].value == "realm_access.roles"
    client = draft_of(*KEYCLOAK, "--allowed-role=app:a", "--allowed-role=app:b")
    assert client.lines["groups_claim"].value == "resource_access.app.roles"


def test_addresses_of_a_file_become_rules(tmp_path: Path) -> None:
    path = tmp_path / "emails"
    path.write_text("# people\nada@example.com\n\n  bob@example.org \n")
    draft = draft_of(*OIDC, f"--authenticated-emails-file={path}", "--email-domain=example.net")
    assert allow(draft) == ("example.net", "email:ada@example.com", "email:bob@example.org")


def test_entra_calls_no_address_verified_and_that_is_said() -> None:
    tenant = "6d5f3c3e-6a76-4d2e-8a52-2f0c9c7d1f00"
    entra = ("--provider=entra-id", f"--oidc-issuer-url=https://login.microsoftonline.com/{tenant}/v2.0")
    assert decisions(draft_of(*entra, "--email-domain=example.com")) == ["--email-domain"]
    assert decisions(draft_of(*entra, f"--entra-id-allowed-tenant={tenant}")) == []
    assert allow(draft_of(*entra, f"--entra-id-allowed-tenant={tenant}")) == (f"tenant:{tenant}",)
