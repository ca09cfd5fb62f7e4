"""oauth2-proxy's alpha configuration: structured YAML, laid over the flags it replaces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from proxy.importing.flags import FLAGS
from proxy.importing.given import Elsewhere, Given, Header, Upstream

KEYS = frozenset(
    {
        "upstreamconfig",
        "injectrequestheaders",
        "injectresponseheaders",
        "server",
        "metricsserver",
        "providers",
    }
)

PROVIDER = {
    "clientid": "client-id",
    "clientsecret": "client-secret",
    "clientsecretfile": "client-secret-file",
    "provider": "provider",
    "name": "provider-display-name",
    "cafiles": "provider-ca-file",
    "usesystemtruststore": "use-system-trust-store",
    "loginurl": "login-url",
    "authrequestresponsemode": "auth-request-response-mode",
    "redeemurl": "redeem-url",
    "profileurl": "profile-url",
    "skipclaimsfromprofileurl": "skip-claims-from-profile-url",
    "resource": "resource",
    "validateurl": "validate-url",
    "scope": "scope",
    "allowedgroups": "allowed-group",
    "code_challenge_method": "code-challenge-method",
    "backendlogouturl": "backend-logout-url",
    "keycloakconfig.groups": "keycloak-group",
    "keycloakconfig.roles": "allowed-role",
    "azureconfig.tenant": "azure-tenant",
    "azureconfig.graphgroupfield": "azure-graph-group-field",
    "microsoftentraidconfig.allowedtenants": "entra-id-allowed-tenant",
    "microsoftentraidconfig.federatedtokenauth": "entra-id-federated-token-auth",
    "bitbucketconfig.team": "bitbucket-team",
    "bitbucketconfig.repository": "bitbucket-repository",
    "githubconfig.org": "github-org",
    "githubconfig.team": "github-team",
    "githubconfig.repo": "github-repo",
    "githubconfig.token": "github-token",
    "githubconfig.users": "github-user",
    "gitlabconfig.group": "gitlab-group",
    "gitlabconfig.projects": "gitlab-project",
    "googleconfig.group": "google-group",
    "googleconfig.adminemail": "google-admin-email",
    "googleconfig.serviceaccountjson": "google-service-account-json",
    "googleconfig.useapplicationdefaultcredentials": "google-use-application-default-credentials",
    "googleconfig.targetprincipal": "google-target-principal",
    "googleconfig.useorganizationid": "google-use-organization-id",
    "googleconfig.adminapiuserscope": "google-admin-api-user-scope",
    "oidcconfig.issuerurl": "oidc-issuer-url",
    "oidcconfig.insecureallowunverifiedemail": "insecure-oidc-allow-unverified-email",
    "oidcconfig.insecureskipissuerverification": "insecure-oidc-skip-issuer-verification",
    "oidcconfig.insecureskipnonce": "insecure-oidc-skip-nonce",
    "oidcconfig.skipdiscovery": "skip-oidc-discovery",
    "oidcconfig.jwksurl": "oidc-jwks-url",
    "oidcconfig.publickeyfiles": "oidc-public-key-file",
    "oidcconfig.emailclaim": "oidc-email-claim",
    "oidcconfig.groupsclaim": "oidc-groups-claim",
    "oidcconfig.useridclaim": "user-id-claim",
    "oidcconfig.audienceclaims": "oidc-audience-claim",
    "oidcconfig.extraaudiences": "oidc-extra-audience",
    "oidcconfig.enabledsigningalgs": "oidc-enabled-signing-alg",
    "logingovconfig.jwtkey": "jwt-key",
    "logingovconfig.jwtkeyfile": "jwt-key-file",
    "logingovconfig.pubjwkurl": "pubjwk-url",
}
"""A provider's fields and the flags that mean the same, keys in lower case."""

_IGNORED = frozenset({"id", "additionalclaims", "loginurlparameters", "adfsconfig.skipscope"})
_SERVERS = {
    "server": {
        "bindaddress": "http-address",
        "securebindaddress": "https-address",
        "tls.key.fromfile": "tls-key-file",
        "tls.cert.fromfile": "tls-cert-file",
        "tls.minversion": "tls-min-version",
        "tls.ciphersuites": "tls-cipher-suite",
    },
    "metricsServer": {
        "bindaddress": "metrics-address",
        "securebindaddress": "metrics-secure-address",
        "tls.key.fromfile": "metrics-tls-key-file",
        "tls.cert.fromfile": "metrics-tls-cert-file",
    },
}
_UPSTREAM_FLAGS = {
    "timeout": "upstream-timeout",
    "insecureskiptlsverify": "ssl-upstream-insecure-skip-verify",
    "passhostheader": "pass-host-header",
    "proxywebsockets": "proxy-websockets",
    "flushinterval": "flush-interval",
    "disablekeepalives": "disable-keep-alives",
}
_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}|\$([A-Za-z_]\w*)")


def is_one(document: Mapping[str, Any]) -> bool:
    """Whether a YAML document is alpha configuration."""
    return any(str(key).lower() in KEYS for key in document)


def from_alpha(document: Mapping[str, Any], name: str, env: Mapping[str, str]) -> Given:
    """Read alpha configuration.

    Args:
        name: of its file, for comments.
        env: variables that it refers to.
    """
    reader = _Reader(name, env)
    root = {str(key).lower(): value for key, value in document.items()}
    for key in root:
        if key not in KEYS:
            reader.given.troubles.append((key, "no part of alpha configuration that is known here"))
    for key, fields in _SERVERS.items():
        reader.fields(_table(root.get(key.lower())), fields, key, frozenset())
    reader.providers(_list(root.get("providers")))
    reader.upstreams(_table(root.get("upstreamconfig")))
    reader.given.request_headers = reader.headers(root, "injectRequestHeaders")
    reader.given.response_headers = reader.headers(root, "injectResponseHeaders")
    return reader.given


class _Reader:
    def __init__(self, name: str, env: Mapping[str, str]) -> None:
        self.given = Given()
        self._name = name
        self._env = env

    def fields(
        self, table: Mapping[str, Any], fields: Mapping[str, str], where: str, ignored: frozenset[str]
    ) -> None:
        """Put what has a flag of the same meaning."""
        for path, spelling, value in _leaves(table):
            place = f"{where}.{spelling}"
            if path in fields:
                flag = FLAGS[fields[path]]
                self.given.put(flag, self._filled(value, place, secret=flag.secret), place)
            elif path not in ignored:
                self.given.troubles.append((place, "no field of alpha configuration that is known here"))

    def providers(self, providers: list[dict[str, Any]]) -> None:
        """Of several, oauth2-proxy uses the first, too."""
        if len(providers) > 1:
            self.given.troubles.append(("providers", "several; only the first is read, as oauth2-proxy does"))
        for provider in providers[:1]:
            self.fields(provider, PROVIDER, "providers[0]", _IGNORED)
            lowered = {key.lower(): value for key, value in provider.items()}
            for parameter in _list(lowered.get("loginurlparameters")):
                defaults = parameter.get("default")
                place = f"providers[0].loginURLParameters.{parameter.get('name')}"
                if defaults:
                    words = cast("list[object]", defaults if isinstance(defaults, list) else [defaults])
                    filled = [str(self._filled(word, place)) for word in words]
                    self.given.parameters[str(parameter.get("name"))] = " ".join(filled)
                if parameter.get("allow"):
                    self.given.troubles.append(
                        (place, "a parameter that people may choose in the address; none is passed on here")
                    )

    def upstreams(self, config: Mapping[str, Any]) -> None:
        """The apps, in their order."""
        found: list[Upstream] = []
        for number, upstream in enumerate(_list(config.get("upstreams"))):
            place = f"upstreamConfig.upstreams[{number}]"
            values = {key.lower(): value for key, value in upstream.items()}
            static = values.get("static") is True
            code = values.get("staticcode", 200)
            found.append(
                Upstream(
                    "" if static else str(self._filled(values.get("uri", ""), place)),
                    str(values.get("path", "/")),
                    place,
                    str(values.get("rewritetarget", "")),
                    (code if isinstance(code, int) else 200) if static else 0,
                )
            )
            for key, flag in _UPSTREAM_FLAGS.items():
                if key in values and not static:
                    self.given.put(FLAGS[flag], values[key], f"{place}.{key}")
        self.given.upstreams = found

    def headers(self, root: Mapping[str, Any], name: str) -> list[Header]:
        """Injected headers."""
        found: list[Header] = []
        for number, header in enumerate(_list(root.get(name.lower()))):
            place = f"{name}[{number}]"
            values = {key.lower(): value for key, value in header.items()}
            claims: list[tuple[str, str]] = []
            password = False
            for value in _list(values.get("values")):
                source = {key.lower(): each for key, each in value.items()}
                # Both forms occur: nested, and spread out beside each other.
                nested = {key.lower(): each for key, each in _table(source.get("claimsource")).items()}
                claim = nested or source
                claims.append((str(claim.get("claim", "")), str(claim.get("prefix", ""))))
                password |= bool(claim.get("basicauthpassword"))
            kept = values.get("preserverequestvalue") is True
            found.append(Header(str(values.get("name", "")), tuple(claims), place, password, kept))
        return found

    def _filled(self, value: object, place: str, *, secret: bool = False) -> object:
        """A value with the environment's variables put in; a secret says where it is instead."""
        if isinstance(value, list):
            return [self._filled(item, place) for item in cast("list[object]", value)]
        if not isinstance(value, str):
            return value
        found = _VARIABLE.search(value)
        if found is None:
            return value
        if secret:
            return Elsewhere(f"the value of the variable {found[1] or found[3]}")

        def fill(match: re.Match[str]) -> str:
            name = match[1] or match[3]
            if name not in self._env and match[2] is None:
                self.given.troubles.append((place, f"the variable {name} is not set here"))
            return self._env.get(name) or match[2] or ""

        return _VARIABLE.sub(fill, value)


def _leaves(
    table: Mapping[str, Any], path: str = "", spelling: str = ""
) -> Iterator[tuple[str, str, object]]:
    """Every value below a table with its path, in lower case and as written."""
    for key, value in table.items():
        lower, written = f"{path}{str(key).lower()}", f"{spelling}{key}"
        if isinstance(value, dict):
            yield from _leaves(cast("dict[str, Any]", value), lower + ".", written + ".")
        elif value is not None:
            yield lower, written, value


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {}
    return {str(key): each for key, each in cast("dict[Any, Any]", value).items()}


def _list(value: object) -> list[dict[str, Any]]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [_table(cast("object", item)) for item in items if isinstance(item, dict)]
