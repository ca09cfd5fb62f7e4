"""Every flag of oauth2-proxy, and what becomes of it here. Data only.

Names and defaults are those of oauth2-proxy 7.15. `becomes` names our settings; where there
is none, `remark` says why and what to do instead.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import Literal, NamedTuple

Kind = Literal["text", "flag", "list", "duration", "whole"]


class Fate(enum.Enum):
    """What becomes of a flag: a setting of ours, nothing because nothing is needed, or nothing."""

    CARRIED = "carried over"
    NEEDLESS = "not needed"
    LOST = "no equivalent"


class Flag(NamedTuple):
    """One flag.

    Attributes:
        name: on the command line, without dashes.
        config: its key in the configuration file; in capitals, the variable.
        kind: how its value is written.
        fate: see `Fate`.
        becomes: our settings, as TOML writes them.
        remark: why it has none, and what to do; or what changes.
        fine: values with which nothing is lost (its default among them).
        secret: the value is never repeated.
    """

    name: str
    config: str
    kind: Kind
    fate: Fate
    becomes: tuple[str, ...] = ()
    remark: str = ""
    fine: tuple[object, ...] = ()
    secret: bool = False


def _carried(name: str, kind: Kind, becomes: str, remark: str = "", config: str = "", secret: bool = False):
    names = tuple(becomes.split())
    return Flag(name, config or name.replace("-", "_"), kind, Fate.CARRIED, names, remark, (), secret)


def _needless(name: str, kind: Kind, remark: str, config: str = "", secret: bool = False) -> Flag:
    config = config or name.replace("-", "_")
    return Flag(name, config, kind, Fate.NEEDLESS, (), remark, (), secret)


def _lost(name: str, kind: Kind, remark: str, *fine: object, config: str = "", secret: bool = False) -> Flag:
    config = config or name.replace("-", "_")
    return Flag(name, config, kind, Fate.LOST, (), remark, fine, secret)


_DISCOVERY = "Endpoints and keys come from the issuer's discovery document, which must be reachable."
_LOGS = "Logs are JSON lines on stdout; what reads stdout selects, formats and rotates."
_TLS = "TLS speaks 1.2 and 1.3 with the system's suites."
_TRUST = "Name the CA in `ca_file` instead of trusting everybody."
_PAGES = "The pages cannot be replaced."
_FORWARD_AUTH = (
    "A response header for the proxy that asks. Identity goes to the app with the request; a proxy that only "
    "asks uses forward auth."
)
_GOOGLE_GROUPS = (
    "Google tells groups through its Admin API only, which is not asked. Use domains or addresses."
)
_REDIS_URLS = "Part of the store's URL."
_REDIS_PLACE = "store store_username store_password_file"
_BEARER = "Requests are signed in by their session only; a bearer token of a program is not accepted."
_COOKIE = (
    "The cookie is `__Host-np` (Secure, HttpOnly, SameSite=Lax, Path=/, no Domain) and cannot be changed."
)

_TABLE = (
    # -- the provider --
    _carried("provider", "text", "provider issuer", "By name; see the providers below."),
    _carried("client-id", "text", "client_id"),
    _carried(
        "client-secret", "text", "client_secret_file", "Put it into a file: it is not repeated.", secret=True
    ),
    _carried("client-secret-file", "text", "client_secret_file"),
    _carried("oidc-issuer-url", "text", "issuer"),
    _carried("azure-tenant", "text", "issuer", "Part of the issuer."),
    _lost("azure-graph-group-field", "text", "Groups are the object ids, not names.", "", "id"),
    _carried("entra-id-allowed-tenant", "list", "allow", "`tenant:ID`", config="entra_id_allowed_tenants"),
    _lost(
        "entra-id-federated-token-auth",
        "flag",
        "A workload identity's token as client authentication is not supported; use a secret or "
        '`client_auth = "private_key_jwt"`.',
        False,
    ),
    _carried("scope", "text", "scopes", "`openid` is added where it is missing."),
    _carried("prompt", "text", "authorize_params"),
    _needless("approval-prompt", "text", "The profile asks for what brings a refresh token."),
    _carried("acr-values", "text", "authorize_params"),
    _carried("resource", "text", "authorize_params", "Entra's v2.0 endpoint takes scopes instead."),
    _needless("code-challenge-method", "text", "PKCE with S256 is always used."),
    _needless("force-code-challenge-method", "text", "PKCE with S256 is always used."),
    _carried("login-url", "text", "issuer", _DISCOVERY),
    _lost("redeem-url", "text", _DISCOVERY, ""),
    _lost("profile-url", "text", _DISCOVERY, ""),
    _lost("validate-url", "text", "Tokens are renewed by their `expires_in`, not validated by a call.", ""),
    _lost("oidc-jwks-url", "text", _DISCOVERY, ""),
    _lost("oidc-public-key-file", "list", _DISCOVERY, config="oidc_public_key_files"),
    _lost("skip-oidc-discovery", "flag", _DISCOVERY, False),
    _lost(
        "oidc-enabled-signing-alg",
        "list",
        "Algorithms are those that the provider announces, asymmetric ones only.",
        config="oidc_enabled_signing_algs",
    ),
    _carried("oidc-groups-claim", "text", "groups_claim"),
    _lost("oidc-email-claim", "text", "The address is read from the claim `email`.", "", "email"),
    _needless("user-id-claim", "text", "Deprecated there; a user is known by `sub`."),
    _lost(
        "oidc-audience-claim",
        "list",
        "The ID token's `aud` must hold the client id.",
        ("aud",),
        config="oidc_audience_claims",
    ),
    _lost(
        "oidc-extra-audience",
        "list",
        "The ID token's `aud` must hold the client id.",
        config="oidc_extra_audiences",
    ),
    _lost(
        "insecure-oidc-allow-unverified-email",
        "flag",
        "An address that the provider calls unverified is neither sent to the app nor matched.",
        False,
    ),
    _lost(
        "insecure-oidc-skip-issuer-verification",
        "flag",
        "The issuer is always checked; Entra's shared tenants are known to the profile.",
        False,
    ),
    _needless("insecure-oidc-skip-nonce", "flag", "The nonce is always checked."),
    _carried("skip-claims-from-profile-url", "flag", "op.userinfo"),
    _lost("auth-request-response-mode", "text", "The code comes back in the query.", "", "query"),
    _carried("provider-ca-file", "list", "ca_file", "One file: join several.", config="provider_ca_files"),
    _lost(
        "use-system-trust-store",
        "flag",
        "`ca_file` replaces the system's CAs: append them to the file.",
        False,
    ),
    _lost("ssl-insecure-skip-verify", "flag", _TRUST, False),
    _needless("provider-display-name", "text", "People go straight to the provider."),
    _carried("jwt-key", "text", "client_key_file client_auth", "Put it into a file.", secret=True),
    _carried("jwt-key-file", "text", "client_key_file client_auth"),
    _needless("pubjwk-url", "text", _DISCOVERY),
    _lost(
        "backend-logout-url", "text", "A sign-out goes on to the provider's announced logout by itself.", ""
    ),
    # -- who may come in --
    _carried("email-domain", "list", "allow", "`*` becomes `everyone`.", config="email_domains"),
    _carried("authenticated-emails-file", "text", "allow", "Each address becomes `email:ADDRESS`."),
    _carried("allowed-group", "list", "allow", "`group:NAME`", config="allowed_groups"),
    _carried("allowed-role", "list", "allow groups_claim", "`group:ROLE`", config="allowed_roles"),
    _carried("keycloak-group", "list", "allow", "`group:NAME`", config="keycloak_groups"),
    _carried("github-org", "text", "allow", "`group:ORG`"),
    _carried("github-team", "text", "allow", "`group:ORG/TEAM`"),
    _lost("github-repo", "text", "Who works on a repository is not asked. Use a team.", ""),
    _lost("github-token", "text", "Who works on a repository is not asked. Use a team.", "", secret=True),
    _lost(
        "github-user",
        "list",
        "A login name can change hands: write `sub:ID` with the number of `api.github.com/users/NAME`.",
        config="github_users",
    ),
    _carried("gitlab-group", "list", "allow", "`group:PATH`", config="gitlab_groups"),
    _lost("gitlab-project", "list", "Projects are not asked. Use a group.", config="gitlab_projects"),
    _lost("google-group", "list", _GOOGLE_GROUPS, config="google_groups"),
    _lost("google-admin-email", "text", _GOOGLE_GROUPS, ""),
    _lost("google-service-account-json", "text", _GOOGLE_GROUPS, ""),
    _lost("google-use-application-default-credentials", "flag", _GOOGLE_GROUPS, False),
    _lost("google-target-principal", "text", _GOOGLE_GROUPS, ""),
    _lost("google-use-organization-id", "flag", _GOOGLE_GROUPS, False),
    _lost("google-admin-api-user-scope", "text", _GOOGLE_GROUPS, ""),
    _lost("bitbucket-team", "text", "Bitbucket has no profile: it speaks no OpenID Connect.", ""),
    _lost("bitbucket-repository", "text", "Bitbucket has no profile: it speaks no OpenID Connect.", ""),
    _lost("htpasswd-file", "text", "Passwords are the provider's business.", ""),
    _lost(
        "htpasswd-user-group", "list", "Passwords are the provider's business.", config="htpasswd_user_groups"
    ),
    _needless("display-htpasswd-form", "flag", "Passwords are the provider's business."),
    _lost(
        "trusted-ip",
        "list",
        "Nobody comes in by an address. Let such clients reach the app another way.",
        config="trusted_ips",
    ),
    _carried(
        "skip-auth-route",
        "list",
        "public_paths",
        "Plain paths and prefixes; expressions beyond that, and methods, are not carried over.",
        config="skip_auth_routes",
    ),
    _carried("skip-auth-regex", "list", "public_paths", "As `skip-auth-route`."),
    _lost(
        "skip-auth-preflight",
        "flag",
        "A CORS preflight needs a session or a public path.",
        False,
    ),
    _lost("skip-jwt-bearer-tokens", "flag", _BEARER, False),
    _lost("extra-jwt-issuers", "list", _BEARER),
    _needless("bearer-token-login-fallback", "flag", _BEARER),
    _needless(
        "api-route",
        "list",
        "Scripts get a 401 and people a redirect, by what the browser says.",
        "api_routes",
    ),
    _needless("force-json-errors", "flag", "Scripts get problem JSON by themselves."),
    # -- sessions --
    _needless(
        "cookie-secret",
        "text",
        "It cannot be carried over: everybody signs in once more. Keys are made by `nightporter keygen`.",
        secret=True,
    ),
    _needless("cookie-secret-file", "text", "As `cookie-secret`."),
    _carried("cookie-expire", "duration", "idle_s absolute_s", "How long a session lasts."),
    _carried("cookie-refresh", "duration", "idle_s", "Renewal follows the token's own life by itself."),
    _lost("cookie-name", "text", _COOKIE, "_oauth2_proxy", "__Host-_oauth2_proxy", "__Secure-_oauth2_proxy"),
    _lost(
        "cookie-domain",
        "list",
        "Each public address has its own session (the provider's makes the next sign-in silent): name them "
        "all in `public_url`.",
        config="cookie_domains",
    ),
    _lost("cookie-path", "text", _COOKIE, "/"),
    _lost("cookie-secure", "flag", _COOKIE, True),
    _lost("cookie-httponly", "flag", _COOKIE, True),
    _lost("cookie-samesite", "text", _COOKIE, "", "lax"),
    _needless("cookie-csrf-per-request", "flag", "Every sign-in has its own cookie."),
    _needless("cookie-csrf-per-request-limit", "whole", "`limits.max_flows`, five by default."),
    _carried("cookie-csrf-expire", "duration", "limits.flow_s"),
    _lost("cookie-csrf-samesite", "text", _COOKIE, "", "lax"),
    _carried("session-store-type", "text", "store", "`cookie` becomes `sqlite:`: tokens leave the cookie."),
    _needless("session-cookie-minimal", "flag", "The cookie never holds a token."),
    _carried("redis-connection-url", "text", _REDIS_PLACE, secret=True),
    _carried("redis-username", "text", "store_username"),
    _carried("redis-password", "text", "store_password_file", secret=True),
    _carried("redis-use-sentinel", "flag", "store", "`redis+sentinel://`"),
    _carried("redis-sentinel-master-name", "text", "store", _REDIS_URLS),
    _carried("redis-sentinel-connection-urls", "list", _REDIS_PLACE, secret=True),
    _carried("redis-sentinel-password", "text", "store_sentinel_password_file", secret=True),
    _carried("redis-use-cluster", "flag", "store", "`redis+cluster://`"),
    _carried("redis-cluster-connection-urls", "list", _REDIS_PLACE, secret=True),
    _carried("redis-ca-path", "text", "store_ca_file"),
    _lost("redis-insecure-skip-tls-verify", "flag", "Name the CA in `store_ca_file`.", False),
    _needless("redis-connection-idle-timeout", "whole", "A connection that Redis closed is replaced."),
    # -- the network --
    _carried(
        "upstream",
        "list",
        "upstream upstreams",
        "Neither files nor fixed answers.",
        config="upstreams",
    ),
    _carried("upstream-timeout", "duration", "timeouts.first_byte_s"),
    _needless("flush-interval", "duration", "Answers are passed on as they come."),
    _lost("pass-host-header", "flag", "The app sees the Host that the browser sent.", True),
    _lost("proxy-websockets", "flag", "WebSockets pass where a session is; refuse them in the app.", True),
    _lost(
        "ssl-upstream-insecure-skip-verify",
        "flag",
        "Name the app's CA in `upstream_tls.ca_file` instead of trusting everybody.",
        False,
    ),
    _needless("disable-keep-alives", "flag", "Connections to the app are reused where it allows that."),
    _carried("redirect-url", "text", "public_url"),
    _lost("relative-redirect-url", "flag", "The public address is never taken from a request.", False),
    _carried("proxy-prefix", "text", "prefix"),
    _carried("http-address", "text", "listen"),
    _carried("https-address", "text", "listen", "Where a certificate is named."),
    _carried("tls-cert-file", "text", "tls.cert_file"),
    _carried("tls-key-file", "text", "tls.key_file"),
    _lost("tls-min-version", "text", _TLS, "", "TLS1.2"),
    _lost("tls-cipher-suite", "list", _TLS, config="tls_cipher_suites"),
    _carried("metrics-address", "text", "operations_listen"),
    _lost("metrics-secure-address", "text", "The operations port speaks plain HTTP: keep it inside.", ""),
    _lost("metrics-tls-cert-file", "text", "The operations port speaks plain HTTP: keep it inside.", ""),
    _lost("metrics-tls-key-file", "text", "The operations port speaks plain HTTP: keep it inside.", ""),
    _needless("reverse-proxy", "flag", "`trusted_proxies` alone says whose `X-Forwarded-*` are believed."),
    _carried("trusted-proxy-ip", "list", "trusted_proxies", config="trusted_proxy_ips"),
    _needless("real-client-ip-header", "text", "`X-Forwarded-For` of trusted proxies is extended."),
    _needless("force-https", "flag", "The public address says it; the edge redirects."),
    _carried(
        "whitelist-domain", "list", "post_logout_urls", "Whole URLs are needed.", config="whitelist_domains"
    ),
    _needless("encode-state", "flag", "The state is one plain word."),
    _needless("allow-query-semicolons", "flag", "Queries reach the app as they came."),
    _carried("ping-path", "text", "ping_path", "Also `/livez` of the operations port."),
    _lost(
        "ping-user-agent", "text", "A User-Agent lets nobody in. Probe `/livez` of the operations port.", ""
    ),
    _carried("ready-path", "text", "ready_path", "Also `/readyz` of the operations port."),
    _lost("gcp-healthchecks", "flag", "Probe `/readyz` of the operations port.", False),
    # -- what the app is told --
    _needless("pass-user-headers", "flag", "The `X-Forwarded-*` identity headers are always set."),
    _needless("pass-basic-auth", "flag", "The `X-Forwarded-*` identity headers are always set."),
    _lost(
        "basic-auth-password",
        "text",
        "No password is made up for the app: let it read the headers.",
        "",
        secret=True,
    ),
    _carried("prefer-email-to-user", "flag", "headers", '`"X-Forwarded-User" = "email"`'),
    _carried("pass-access-token", "flag", "pass_access_token"),
    _lost(
        "pass-authorization-header",
        "flag",
        "That is the ID token. `pass_authorization` sends the access token, which is made for it.",
        False,
    ),
    _carried("set-xauthrequest", "flag", "headers", "With forward auth; otherwise nobody reads them."),
    _lost("set-basic-auth", "flag", _FORWARD_AUTH, False),
    _lost("set-authorization-header", "flag", _FORWARD_AUTH, False),
    _lost("skip-auth-strip-headers", "flag", "Identity headers from outside are always removed.", True),
    _lost("signature-key", "text", "No signature is added.", "", secret=True),
    # -- pages and logs --
    _needless("skip-provider-button", "flag", "People go straight to the provider."),
    _lost("custom-templates-dir", "text", _PAGES, ""),
    _lost("custom-sign-in-logo", "text", _PAGES, "", "-"),
    _lost("banner", "text", _PAGES, "", "-"),
    _lost("footer", "text", _PAGES, "", "-"),
    _needless("show-debug-on-error", "flag", "Pages show a request id; the log has the rest."),
    _needless("auth-logging", "flag", _LOGS),
    _needless("auth-logging-format", "text", _LOGS),
    _needless("standard-logging", "flag", _LOGS),
    _needless("standard-logging-format", "text", _LOGS),
    _carried("request-logging", "flag", "access_log"),
    _needless("request-logging-format", "text", _LOGS),
    _needless("errors-to-info-log", "flag", _LOGS),
    _needless("exclude-logging-path", "list", _LOGS, "exclude_logging_paths"),
    _needless("silence-ping-logging", "flag", _LOGS),
    _needless("request-id-header", "text", "`X-Request-Id`."),
    _needless("logging-local-time", "flag", _LOGS),
    _lost("logging-filename", "text", _LOGS, ""),
    _needless("logging-max-size", "whole", _LOGS),
    _needless("logging-max-age", "whole", _LOGS),
    _needless("logging-max-backups", "whole", _LOGS),
    _needless("logging-compress", "flag", _LOGS),
    # -- of the command line only --
    _needless("config", "text", "Read along where it can be read."),
    _needless("alpha-config", "text", "Read along where it can be read."),
    _needless("config-test", "flag", "`nightporter check`."),
    _needless("convert-config-to-alpha", "flag", "–"),
    _needless("version", "flag", "`nightporter version`."),
)

FLAGS: MappingProxyType[str, Flag] = MappingProxyType({flag.name: flag for flag in _TABLE})

BY_CONFIG: MappingProxyType[str, Flag] = MappingProxyType(
    {flag.config: flag for flag in _TABLE} | {"google_group": FLAGS["google-group"]}
)
"""By key of the configuration file; one has an old spelling, too."""
