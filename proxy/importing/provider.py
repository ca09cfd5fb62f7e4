"""The provider and the client there."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from proxy.config.registry import declared
from proxy.core.providers import PROFILES, Offline, Profile, profile_for
from proxy.importing.draft import Draft
from proxy.importing.given import Elsewhere, Given

SECRETS = "/run/secrets"
"""Where the placeholders point: Docker's and Podman's directory, and a fair mount path elsewhere."""


class Counterpart(NamedTuple):
    """What stands in for one of oauth2-proxy's providers.

    Attributes:
        profile: our profile; "" = whichever knows the issuer; None = none at all.
        issuer: used where none is given.
        remark: what is different.
    """

    profile: str | None
    issuer: str = ""
    remark: str = ""


_PLAIN_OAUTH = (
    "It speaks no OpenID Connect and has no profile: put a provider that does in front of it (Dex)."
)

PROVIDERS: dict[str, Counterpart] = {
    "google": Counterpart("google"),
    "azure": Counterpart("entra", remark="The v2.0 endpoints are used."),
    "entra-id": Counterpart("entra"),
    "adfs": Counterpart(""),
    "github": Counterpart(
        "github", remark="`github` is for GitHub Apps; a client id of an OAuth App makes `github-oauth-app`."
    ),
    "gitlab": Counterpart("gitlab", "https://gitlab.com"),
    "keycloak": Counterpart("keycloak", remark="The issuer is taken from `login-url`."),
    "keycloak-oidc": Counterpart("keycloak"),
    "oidc": Counterpart(""),
    "cidaas": Counterpart(""),
    "login.gov": Counterpart("", "https://secure.login.gov/", "It issues no refresh token."),
    "nextcloud": Counterpart("", remark="By the issuer of Nextcloud's OIDC identity provider app."),
    "bitbucket": Counterpart(None, remark=_PLAIN_OAUTH),
    "digitalocean": Counterpart(None, remark=_PLAIN_OAUTH),
    "facebook": Counterpart(None, remark=_PLAIN_OAUTH),
    "linkedin": Counterpart(None, remark=_PLAIN_OAUTH),
    "sourcehut": Counterpart(None, remark=_PLAIN_OAUTH),
}
"""By value of `provider`."""

_STS = re.compile(r"https://sts\.windows\.net/([^/]+)/?")
_TENANT = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|common|organizations|consumers")
_ENTRA_V1 = re.compile(r"(https://login\.microsoftonline\.(?:com|us))/([^/]+)(?:/v1\.0)?/?")


def translate(given: Given, draft: Draft) -> Profile:
    """Write provider, issuer, client and what is asked for; answers the profile that will apply."""
    kind = given.text("provider") or "google"
    about = given.place("provider") or "provider"
    counterpart = PROVIDERS.get(kind)
    if counterpart is None:
        draft.decide(about, "no provider of that name is known here; set issuer by hand")
        counterpart = Counterpart("")
    elif counterpart.profile is None:
        draft.decide(about, f"{kind}: {counterpart.remark}")
        counterpart = Counterpart("")
    issuer = _issuer(given, draft, kind, counterpart)
    name = _profile_name(given, counterpart)
    if name and name not in PROFILES:
        draft.decide(about, f"this version has no profile {name}")
        name = ""
    if name:
        draft.put("provider", name, given.place("provider") or "oauth2-proxy's default")
    profile = profile_for(name, issuer)
    if issuer and issuer != profile.issuer:
        origin = given.place("oidc-issuer-url", "azure-tenant") or given.place("login-url")
        draft.put("issuer", issuer, origin or f"oauth2-proxy's default for {kind}")
    if kind == "azure" and given.items("allowed-group"):
        draft.changed(
            about, "groups come with the ID token: in the app registration, add the groups claim to it"
        )
    _client(given, draft)
    _scopes(given, draft, profile)
    _parameters(given, draft, profile)
    _authorities(given, draft)
    return profile


def _profile_name(given: Given, counterpart: Counterpart) -> str:
    name = counterpart.profile or ""
    # Client ids of GitHub Apps begin with Iv1. or Iv23; OAuth Apps have twenty hex digits or Ov23.
    if name == "github" and not given.text("client-id").startswith("Iv"):
        return "github-oauth-app"
    return name


def _issuer(given: Given, draft: Draft, kind: str, counterpart: Counterpart) -> str:
    issuer = given.text("oidc-issuer-url")
    if kind in ("azure", "entra-id") or _STS.fullmatch(issuer):
        return _entra(given, draft, issuer)
    if issuer:
        return issuer
    login = given.text("login-url")
    realm = re.match(r"(https?://.+?/realms/[^/]+)/protocol/openid-connect/", login)
    if kind == "keycloak" and realm:
        return realm[1]
    host = urlsplit(login)
    if kind == "github" and host.hostname not in (None, "github.com"):
        return f"{host.scheme}://{host.netloc}"
    if login and kind not in ("google", "github"):
        draft.missing(given.place("login-url"), "endpoints are found through the issuer: set issuer")
    return counterpart.issuer


def _entra(given: Given, draft: Draft, issuer: str) -> str:
    """Entra's v2.0 issuer, whatever form the tenant was named in."""
    version_1 = _STS.fullmatch(issuer) or _ENTRA_V1.fullmatch(issuer)
    if issuer and not version_1:
        return issuer
    tenant = version_1.groups()[-1] if version_1 else given.text("azure-tenant") or "common"
    if not _TENANT.fullmatch(tenant):
        draft.decide(
            given.place("azure-tenant", "oidc-issuer-url") or "azure_tenant",
            "the issuer holds the tenant's id: write it instead of the tenant's domain",
        )
    host = "https://login.microsoftonline.com"
    if version_1 and version_1.re is _ENTRA_V1:
        host = version_1[1]
    if version_1:
        draft.changed(
            given.place("oidc-issuer-url"),
            "Entra's v2.0 endpoint is used, which people and the app registration do not notice",
        )
    return f"{host}/{tenant}/v2.0"


def _client(given: Given, draft: Draft) -> None:
    kept = given.elsewhere.pop("client-id", None)
    if kept is not None:
        draft.from_variable("client_id", kept.place, str(kept.value))
    elif given.text("client-id"):
        draft.put("client_id", given.text("client-id"), given.place("client-id"))
    if given.text("client-secret"):
        secret_file(given, draft, "client-secret", "client_secret_file", "nightporter_client_secret")
    elif given.text("client-secret-file"):
        draft.put("client_secret_file", given.text("client-secret-file"), given.place("client-secret-file"))
    if given.text("jwt-key") or given.text("jwt-key-file"):
        draft.put("client_auth", "private_key_jwt", given.place("jwt-key", "jwt-key-file"))
        if given.text("jwt-key"):
            secret_file(given, draft, "jwt-key", "client_key_file", "nightporter_client_key.pem")
        else:
            draft.put("client_key_file", given.text("jwt-key-file"), given.place("jwt-key-file"))


def secret_file(given: Given, draft: Draft, flag: str, key: str, name: str) -> None:
    """Write the name of a file instead of a secret, and say what to put into it."""
    value, place = given.text(flag), given.place(flag)
    where = str(value) if isinstance(value, Elsewhere) else f"the value of {place}"
    advice = f"Put {where} into this file, readable for Nightporter only."
    if isinstance(value, Elsewhere):
        variable = declared()[key.removesuffix("_file")].variable
        advice = f"Put {where} into this file, or into {variable} instead of this line."
    draft.put(key, f"{SECRETS}/{name}", place, advice, secret="" if isinstance(value, Elsewhere) else value)


def _scopes(given: Given, draft: Draft, profile: Profile) -> None:
    scopes = tuple(given.text("scope").split())
    groups_asked = bool(given.items("allowed-group"))
    if not scopes:
        # oauth2-proxy's generic provider asks for groups as soon as a rule needs them.
        if groups_asked and given.text("provider") == "oidc" and "groups" not in profile.scopes:
            origin = f"{given.place('allowed-group')}: oauth2-proxy asks for groups then"
            draft.put("scopes", (*profile.scopes, "groups"), origin)
        return
    if profile.openid and "openid" not in scopes:
        scopes = ("openid", *scopes)
        draft.changed(given.place("scope"), "openid added: without it there is no ID token")
    draft.put("scopes", scopes, given.place("scope"))
    if profile.offline is Offline.SCOPE and "offline_access" not in scopes:
        draft.missing(
            given.place("scope"),
            "no offline_access in it: most providers then give no refresh token, and people sign in "
            "again when the access token ends. Add it, and allow it at the client",
        )


def _parameters(given: Given, draft: Draft, profile: Profile) -> None:
    found = dict(given.parameters)
    origins = [given.place("prompt", "acr-values", "resource")]
    if found:
        origins.append("loginURLParameters")
        found.pop("approval_prompt", None)
    if given.text("acr-values"):
        found["acr_values"] = given.text("acr-values")
    if given.text("resource"):
        if profile.name == "entra":
            draft.missing(
                given.place("resource"),
                "Entra's v2.0 endpoint takes no resource: add the scope RESOURCE/.default instead",
            )
        else:
            found["resource"] = given.text("resource")
    if given.text("prompt"):
        found["prompt"] = given.text("prompt")
    own = profile.authorize_params.get("prompt", "")
    if "prompt" in found and own and own not in found["prompt"].split():
        draft.changed(given.place("prompt") or "prompt", f"{own} added: without it there is no refresh token")
        found["prompt"] = f"{own} {found['prompt']}"
    if found:
        origin = ", ".join(part for part in origins if part)
        draft.put("authorize_params", {**profile.authorize_params, **found}, origin)


def _authorities(given: Given, draft: Draft) -> None:
    if given.flag("skip-claims-from-profile-url"):
        draft.put("op.userinfo", "never", given.place("skip-claims-from-profile-url"))
    files = given.items("provider-ca-file")
    if not files:
        return
    draft.put("ca_file", files[0], given.place("provider-ca-file"))
    if len(files) > 1:
        draft.decide(given.place("provider-ca-file"), "ca_file names one file: join the others to the first")
