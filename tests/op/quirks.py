"""`QuirkyOP`: our own scripted OP with the documented ways of one hosted provider at a time.

**This is ours, not theirs.** No test here speaks for a provider: it says that the product gets along
with what the provider's pages say, as far as we read them. Each quirk names the page it was
taken from; "from memory" marks what nobody has looked up. Shares no code and no table with the
product's profiles, on purpose: the two are written from the pages twice.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.op.scripted import Draft, Grant, Reply, Request, Rotation, ScriptedOP

TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
Said = tuple[int, dict[str, Any]]


def said(status: int, error: str, **more: Any) -> Said:
    """A refusal: status and body."""
    return status, {"error": error, **more}


@dataclass(frozen=True)
class Quirks:
    """One provider's ways.

    Attributes:
        name: of the profile that is to get along with it.
        base: path of the issuer.
        slash: the issuer ends in one.
        paths: request path → endpoint, beside the plain ones.
        issues: whether a sign-in with these parameters brings a refresh token; `first` = the
            person never consented before.
        refuses_scopes: an authorization request with one of them fails.
        rotation, old_at_dies: see `ScriptedOP`.
        reuse_kills: a used refresh token, presented later, ends the newest one too.
        one_per_client: a new sign-in ends the refresh token of the one before.
        refresh_lacks: what a refresh reply leaves out.
        expires_in: as announced; ... = as it is, None = left out.
        id_token: whether there are ID tokens at all.
        groups_in: "id_token", "userinfo" (never in the ID token), or "first_id_token" (not in refreshed
            ones).
        groups_name: the claim.
        words: how it says what the protocol calls otherwise: code → status and word.
        wants, forbids: form fields that a refresh must and must not hold.
        dead, client, interaction, transient: what it documents to answer to a refresh.
        announces: endpoints of the discovery document that it lacks are None here.
        logout: path that a sign-out is sent to, "" = it has none.
        gives_back: the token that a sign-out gives back: "refresh", "access" or "".
        given_back_at: path and method of that.
    """

    name: str
    base: str = ""
    slash: bool = False
    paths: Mapping[str, str] = field(default_factory=dict[str, str])
    issues: Callable[[dict[str, str], bool], bool] = lambda params, first: (
        "offline_access" in params.get("scope", "").split()
    )
    refuses_scopes: frozenset[str] = frozenset()
    rotation: Rotation = field(default_factory=Rotation)
    old_at_dies: bool = False
    one_per_client: bool = False
    refresh_lacks: frozenset[str] = frozenset()
    expires_in: Any = ...
    id_token: bool = True
    groups_in: str = "id_token"
    groups_name: str = "groups"
    words: Mapping[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    wants: frozenset[str] = frozenset()
    forbids: frozenset[str] = frozenset()
    dead: tuple[Said, ...] = (said(400, "invalid_grant"),)
    client: tuple[Said, ...] = (said(401, "invalid_client"),)
    interaction: tuple[Said, ...] = ()
    transient: tuple[Said, ...] = (said(503, "temporarily_unavailable"), said(429, "rate_limited"))
    announces: Mapping[str, None] = field(default_factory=dict[str, None])
    logout: str = "/end-session"
    gives_back: str = "refresh"
    given_back_at: tuple[str, str] = ("POST", "/revoke")


def _always(params: dict[str, str], first: bool) -> bool:
    return True


def _google(params: dict[str, str], first: bool) -> bool:
    return params.get("access_type") == "offline" and (first or "consent" in params.get("prompt", "").split())


_GITHUB_PATHS = {
    "/login/oauth/authorize": "authorize",
    "/login/oauth/access_token": "token",
    "/api/v3/user": "userinfo",
    "/api/v3/user/emails": "userinfo",
    "/api/v3/user/orgs": "userinfo",
    "/api/v3/user/teams": "userinfo",
    "/api/v3/applications/np%20test%2Fclient/token": "revoke",
}
# https://docs.github.com/apps/oauth-apps/maintaining-oauth-apps/troubleshooting-oauth-app-access-token-request-errors
_GITHUB_CLIENT = (said(200, "incorrect_client_credentials"), said(200, "redirect_uri_mismatch"))

QUIRKS = (
    # OIDC Core §11, §12; RFC 6749 §5.2, §6: what certified providers do.
    Quirks("generic", rotation=Rotation("family_revoke")),
    # https://learn.microsoft.com/entra/identity-platform/refresh-tokens: a new token each time, the old one is
    # not revoked. …/reference-error-codes: the numbers are for people. …/v2-oauth2-auth-code-flow.
    Quirks(
        "entra",
        base=f"/{TENANT}/v2.0",
        rotation=Rotation("rotate", 1e9),
        forbids=frozenset({"scope"}),
        expires_in="300",  # old Azure AD: a string (mod_auth_openidc's ChangeLog)
        groups_in="first_id_token",
        dead=(
            said(400, "invalid_grant", error_codes=[70008], suberror="bad_token"),
            said(400, "invalid_grant", error_codes=[700082]),
            said(400, "invalid_grant", error_codes=[50173]),
        ),
        client=(said(401, "invalid_client", error_codes=[7000222]), said(400, "unauthorized_client")),
        interaction=(
            said(400, "interaction_required", error_codes=[50076], claims="{}"),
            said(400, "consent_required", error_codes=[65001]),
        ),
        transient=(said(503, "temporarily_unavailable", error_codes=[90006]), said(500, "server_error")),
        announces={"revocation_endpoint": None},
        gives_back="",
    ),
    # https://developers.google.com/identity/protocols/oauth2/web-server#offline: access_type, prompt; a refresh
    # reply has no refresh token. `offline_access` is no scope of Google's (from memory).
    Quirks(
        "google",
        issues=_google,
        refuses_scopes=frozenset({"offline_access"}),
        rotation=Rotation("none"),
        refresh_lacks=frozenset({"refresh_token"}),
        dead=(said(400, "invalid_grant"), said(400, "invalid_grant", error_subtype="invalid_rapt")),
        client=(said(401, "invalid_client"), said(401, "deleted_client")),
        announces={"end_session_endpoint": None},
        logout="",
        gives_back="",  # it would take back the whole grant, on every device
    ),
    # docs.github.com "Refreshing user access tokens": 8 h, 6 months, old ones stop working at once; errors
    # come with HTTP 200. REST "Apps > OAuth authorizations": DELETE /applications/{client_id}/token.
    Quirks(
        "github",
        paths=_GITHUB_PATHS,
        issues=_always,
        rotation=Rotation("rotate"),
        old_at_dies=True,
        id_token=False,
        groups_in="userinfo",
        words={
            "invalid_grant": (200, "bad_refresh_token"),
            "invalid_client": (200, "incorrect_client_credentials"),
        },
        dead=(said(200, "bad_refresh_token"),),
        client=_GITHUB_CLIENT,
        transient=(said(503, "temporarily_unavailable"), said(403, "rate_limited")),
        logout="",
        gives_back="access",
        given_back_at=("DELETE", "/api/v3/applications/np%20test%2Fclient/token"),
    ),
    # https://docs.gitlab.com/api/oauth2/: always a refresh token; it wants redirect_uri on a refresh; old tokens
    # stop working. …/integration/openid_connect_provider: groups are in userinfo only.
    Quirks(
        "gitlab",
        issues=_always,
        rotation=Rotation("rotate"),
        old_at_dies=True,
        groups_in="userinfo",
        wants=frozenset({"redirect_uri"}),
        announces={"end_session_endpoint": None},
        logout="",
    ),
    # https://developer.okta.com/docs/guides/refresh-tokens/main/: with rotation on and no leeway, reuse ends
    # the newest token and every access token.
    Quirks(
        "okta",
        base="/oauth2/default",
        rotation=Rotation("family_revoke"),
        dead=(said(400, "invalid_grant", error_description="The refresh token is invalid or expired."),),
        interaction=(said(400, "access_denied"),),
    ),
    # https://support.auth0.com "Unknown or invalid refresh token": HTTP 403. The issuer ends in a slash.
    # …/configure-refresh-token-rotation: the previous token works within the overlap period. A wrong secret is
    # 401 access_denied "Unauthorized" (auth0/express-openid-connect issue 363, auth0/node-auth0 issue 134).
    Quirks(
        "auth0",
        slash=True,
        rotation=Rotation("family_revoke", 30.0),
        words={"invalid_grant": (403, "invalid_grant"), "invalid_client": (401, "access_denied")},
        client=(said(401, "access_denied", error_description="Unauthorized"),),
        dead=(said(403, "invalid_grant", error_description="Unknown or invalid refresh token."),),
        announces={"end_session_endpoint": None},
        logout="/v2/logout",
        gives_back="",  # tenants from before 2021 take back the whole grant
    ),
    # docs.pingidentity.com "Configuring authorization server settings": rolling, grace 0 by default.
    Quirks(
        "pingfederate",
        issues=_always,
        refuses_scopes=frozenset({"offline_access"}),  # where nobody defined that scope
        rotation=Rotation("family_revoke"),
        announces={"end_session_endpoint": None},
        logout="/idp/startSLO.ping",
        gives_back="",  # persistent grants may be shared between sign-ins
    ),
    # The guide on refresh tokens: workspace grant, client grant, scope. Rotation: not told anywhere we read.
    Quirks("cloudentity", base="/tenant/workspace", gives_back=""),
    # docs.aws.amazon.com "Refresh tokens": always; no new one unless rotation is on. "The token revocation
    # endpoint": that sign-in's tokens. Logout is `/logout?client_id&logout_uri` (from memory).
    Quirks(
        "cognito",
        base="/eu-west-1_AbCdEf",
        issues=_always,
        refuses_scopes=frozenset({"offline_access"}),
        rotation=Rotation("none"),
        refresh_lacks=frozenset({"refresh_token"}),
        groups_name="cognito:groups",
        announces={"end_session_endpoint": None},
        logout="/logout",
    ),
    # Keycloak's TokenManager.java: the sentences; LogoutEndpoint.java: the refresh token posted there. A
    # wrong secret is 401 unauthorized_client.
    Quirks(
        "keycloak",
        base="/realms/main",
        issues=_always,
        rotation=Rotation("family_revoke"),
        words={"invalid_client": (401, "unauthorized_client")},
        dead=tuple(
            said(400, "invalid_grant", error_description=text)
            for text in ("Session not active", "Token is not active", "Stale token", "User disabled")
        ),
        client=(said(401, "unauthorized_client"),),
        given_back_at=("POST", "/realms/main/end-session"),
    ),
    # https://help.zitadel.com "How to enable and receive Refresh Tokens": the scope; it always rotates.
    # zitadel/zitadel internal/command/oidc_session.go: a used, idle or revoked token is "RefreshTokenInvalid",
    # and nothing else ends (issue 7321); internal/api/oidc/error.go: every such error is `invalid_request`,
    # status 400 (issue 11892).
    Quirks(
        "zitadel",
        groups_name="urn:zitadel:iam:org:project:roles",
        words={"invalid_grant": (400, "invalid_request")},
        dead=(
            said(400, "invalid_request", error_description="Errors.OIDCSession.RefreshTokenInvalid"),
            said(400, "invalid_request", error_description="Errors.User.RefreshToken.Invalid"),
        ),
        transient=(said(500, "server_error"), said(503, "server_error")),
    ),
    # dexidp/dex server/handlers.go: one refresh token per user, connector and client; a used or expired one
    # is 400 invalid_request, a failing connector 500 invalid_request; reuseInterval repeats the successor.
    Quirks(
        "dex",
        base="/dex",
        rotation=Rotation("idempotent", 3.0),
        one_per_client=True,
        words={"invalid_grant": (400, "invalid_request")},
        dead=(said(400, "invalid_request"), said(400, "invalid_grant")),
        transient=(said(500, "invalid_request"), said(500, "server_error")),
        announces={"end_session_endpoint": None, "revocation_endpoint": None},
        logout="",
        gives_back="",
    ),
    # goauthentik/authentik views/token.py: the old token is revoked at once; a `scope` without offline_access
    # is invalid_scope; the refreshed ID token has no nonce.
    Quirks("authentik", base="/application/o/app", slash=True, forbids=frozenset({"scope"})),
    # authelia.com: the scope and consent; groups, e-mail and name from userinfo only; no logout.
    Quirks(
        "authelia",
        rotation=Rotation("family_revoke"),
        old_at_dies=True,
        groups_in="userinfo",
        announces={"end_session_endpoint": None},
        logout="",
    ),
)


class QuirkyOP(ScriptedOP):
    """See the module's docstring.

    Attributes:
        calls: method and path of every request.
        api_unready: for so many calls the API knows no access token (GitHub, after issuing one).
        user_id: of the person at the API.
    """

    def __init__(self, quirks: Quirks) -> None:
        super().__init__()
        self.quirks = quirks
        self.rotation = quirks.rotation
        self.old_at_dies = quirks.old_at_dies
        self.expires_in = quirks.expires_in
        self.names_itself = False
        self.discovery = dict(quirks.announces)
        self.user = {**self.user, "groups": ["acme", "acme/staff"]}
        self.api_unready = 0
        self.user_id = 4711
        self._asked: dict[int, dict[str, str]] = {}
        self._consented = False
        self._newest: Grant | None = None

    @property
    def root(self) -> str:
        return super().issuer

    @property
    def issuer(self) -> str:
        return self.root + self.quirks.base + ("/" if self.quirks.slash else "")

    @property
    def calls(self) -> list[tuple[str, str]]:
        return [(request.method, request.path) for request in self.requests]

    def _endpoint(self, request: Request) -> str:
        name = self.quirks.paths.get(request.path, "")
        if not name:
            inner = request.path.removeprefix(self.quirks.base) if self.quirks.base else request.path
            plain = Request(request.method, inner, request.query, request.headers, request.body)
            return super()._endpoint(plain)
        if name == "token":
            return "refresh" if request.form.get("grant_type") == "refresh_token" else "code"
        return name

    def _document(self) -> dict[str, Any]:
        document = super()._document()
        doubled, plain = self.issuer.rstrip("/") + "//", self.issuer.rstrip("/") + "/"
        return {
            name: value.replace(doubled, plain) if isinstance(value, str) else value
            for name, value in document.items()
        }

    def _authorize(self, request: Request) -> Reply:
        params = dict(request.query)
        refused = self.quirks.refuses_scopes & set(params.get("scope", "").split())
        assert not refused, f"this provider has no scope {refused}"
        reply = super()._authorize(request)
        code = dict(parse_qsl(urlsplit(reply.headers["Location"]).query))["code"]
        self._asked[id(self._codes[code].grant)] = params
        return reply

    def issues_refresh_token(self, grant: Grant) -> bool:
        first, self._consented = not self._consented, True
        issues = self.quirks.issues(self._asked[id(grant)], first)
        if issues and self.quirks.one_per_client:
            if self._newest is not None:
                self._newest.valid.clear()
            self._newest = grant
        return issues

    def edit_id_token(self, draft: Draft, endpoint: str) -> None:
        groups = draft.claims.pop("groups", None)
        told = self.quirks.groups_in == "id_token" or (
            self.quirks.groups_in == "first_id_token" and endpoint == "code"
        )
        if told and groups is not None:
            named = {group: {} for group in groups} if "zitadel" in self.quirks.groups_name else groups
            draft.claims[self.quirks.groups_name] = named
        draft.omit = not self.quirks.id_token

    def edit_tokens(self, body: dict[str, Any], endpoint: str) -> None:
        if endpoint == "refresh":
            for name in self.quirks.refresh_lacks:
                body.pop(name, None)

    def _token(self, request: Request, endpoint: str, script: Any, entry: Any) -> Reply:
        form = request.form
        if endpoint == "refresh":
            missing = self.quirks.wants - form.keys()
            assert not missing, f"a refresh here needs {missing}"
            assert not self.quirks.forbids & form.keys(), (
                f"a refresh here must not have {self.quirks.forbids}"
            )
        return super()._token(request, endpoint, script, entry)

    def _process(self, request: Request, endpoint: str, script: Any, entry: Any) -> Reply:
        reply = super()._process(request, endpoint, script, entry)
        if isinstance(reply.body, dict) and "error" in reply.body:
            status, word = self.quirks.words.get(reply.body["error"], (reply.status, reply.body["error"]))
            return Reply(status, {"error": word}, reply.headers)
        return reply

    def _userinfo(self, request: Request) -> Reply:
        if self.quirks.id_token:
            return super()._userinfo(request)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.api_unready > 0 and request.path.endswith("/user"):
            self.api_unready -= 1
            return Reply(401, {"message": "Bad credentials"})
        if not self.access_token_works(token):
            return Reply(401, {"message": "Bad credentials"})
        last = request.path.rpartition("/")[2]
        lists: dict[str, list[dict[str, Any]]] = {
            "emails": [
                {"email": "noreply@users.example", "primary": False, "verified": True},
                {"email": self.user["email"], "primary": True, "verified": True},
            ],
            "orgs": [{"login": group} for group in self.user["groups"] if "/" not in group],
            "teams": [
                {"slug": group.partition("/")[2], "organization": {"login": group.partition("/")[0]}}
                for group in self.user["groups"]
                if "/" in group
            ],
        }
        if last in lists:
            return Reply(200, json.dumps(lists[last]).encode(), {"Content-Type": "application/json"})
        return Reply(200, {"id": self.user_id, "login": "ada", "name": "Ada Lovelace"})

    def _revoke(self, request: Request) -> Reply:
        if request.method != "DELETE":
            return super()._revoke(request)
        kind, _, pair = request.headers.get("authorization", "").partition(" ")
        good = f"{self.client_id}:{self.client_secret}".encode()
        if kind != "Basic" or base64.b64decode(pair) != good:
            return Reply(401, b"")
        token = json.loads(request.body)["access_token"]
        self.revoked.append(token)
        grant = self._by_at.get(token)
        if grant is None:
            return Reply(404, b"")
        grant.alive = False
        return Reply(204, b"")

    def _end_session(self, request: Request) -> Reply:
        if request.method != "POST":
            return super()._end_session(request)
        if self._authenticated(request) == "bad":
            return Reply(401, {"error": "unauthorized_client"})
        token = request.form.get("refresh_token", "")
        self.revoked.append(token)
        if token in self._by_rt:
            self._by_rt[token].alive = False
        return Reply(204, b"")
