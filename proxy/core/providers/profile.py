"""The shape of a profile: every way in which providers differ, as one field each."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct, field

_TENANT = "{tenantid}"


class Reuse(enum.StrEnum):
    """What becomes of a refresh token that is presented again after it was used.

    UNKNOWN: nobody said; NONE: it does not rotate, nothing happens; GRACE: it still works
    for a while; IDEMPOTENT: it answers with the same successor; REFUSED: it is refused, and
    nothing else happens; PUNISHED: the whole family of tokens dies (RFC 9700 §4.14.2).
    """

    UNKNOWN = "unknown"
    NONE = "none"
    GRACE = "grace"
    IDEMPOTENT = "idempotent"
    REFUSED = "refused"
    PUNISHED = "punished"


class Reach(enum.StrEnum):
    """How far a revocation reaches: this token, this sign-in's tokens, the OP's session with all that
    hangs on it, or everything this person ever granted to this client."""

    TOKEN = "token"  # noqa: S105  # a word, not a secret
    SIGN_IN = "sign_in"
    SESSION = "session"
    GRANT = "grant"


class Revocation(enum.StrEnum):
    """How tokens are given back.

    RFC7009: at the announced revocation endpoint; LOGOUT: the refresh token is posted to the
    logout endpoint, which ends the one session it belongs to (Keycloak); API_DELETE: the access
    token is deleted through the provider's API (GitHub); NONE: there is no way.
    """

    RFC7009 = "rfc7009"
    LOGOUT = "logout"
    API_DELETE = "api_delete"
    NONE = "none"


class Offline(enum.StrEnum):
    """What makes the provider issue a refresh token.

    SCOPE: `offline_access`; PARAMETER: an authorization parameter, and `offline_access` is refused or
    ignored; ALWAYS: the code grant brings one; CLIENT: a setting of the client decides alone;
    NEVER: there is none.
    """

    SCOPE = "scope"
    PARAMETER = "parameter"
    ALWAYS = "always"
    CLIENT = "client"
    NEVER = "never"


class GroupsFrom(enum.StrEnum):
    """Where groups are told: in the ID token, by userinfo only, by the provider's own API, or nowhere."""

    ID_TOKEN = "id_token"  # noqa: S105  # a word, not a secret
    USERINFO = "userinfo"
    API = "api"
    NOWHERE = "nowhere"


class Api(Struct, frozen=True):
    """A provider without OpenID Connect: fixed endpoints, identity from its API.

    Attributes:
        authorize, token: below the issuer.
        base: of the API, where the issuer is the profile's own.
        base_elsewhere: below any other issuer (an own installation).
    """

    authorize: str
    token: str
    base: str
    base_elsewhere: str

    def at(self, issuer: str, own: str) -> str:
        """The API's base address for an issuer.

        Args:
            own: the profile's issuer.
        """
        return self.base if issuer == own else issuer.rstrip("/") + self.base_elsewhere


class OwnLogout(Struct, frozen=True):
    """A logout address that is no `end_session_endpoint`.

    Attributes:
        path: at the authorization endpoint's host.
        return_parameter: carries the address to come back to.
    """

    path: str
    return_parameter: str


_DEAD = frozenset({"invalid_grant", "bad_refresh_token", "invalid_refresh_token"})
_CLIENT = frozenset(
    {
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "incorrect_client_credentials",
        # It demands DPoP (RFC 9449 §5, §8), which nobody offers it here: docs/adr/0006.
        "invalid_dpop_proof",
        "use_dpop_nonce",
    }
)
# RFC 6749 §5.2 gives HTTP 401 to a client that failed to authenticate; Keycloak says this word with it.
_SECRET = frozenset({"unauthorized_client"})
_INTERACTION = frozenset(
    {"interaction_required", "login_required", "consent_required", "account_selection_required"}
)


def dead(*codes: str) -> frozenset[str]:
    """The protocol's words for a dead token, and the provider's own."""
    return _DEAD | set(codes)


def client(*codes: str) -> frozenset[str]:
    """The protocol's words for the operator's mistakes, and the provider's own."""
    return _CLIENT | set(codes)


def secret(*codes: str) -> frozenset[str]:
    """What refuses the client's secret at HTTP 401, and the provider's own words for it."""
    return _SECRET | set(codes)


def interaction(*codes: str) -> frozenset[str]:
    """The protocol's words that ask for the person, and the provider's own."""
    return _INTERACTION | set(codes)


class Profile(Struct, frozen=True):
    """One provider's ways.

    Attributes:
        name: key in `PROFILES` and value of the setting `provider`.
        title: as people write it; on the sign-in page's button.
        issuer: fixed issuer, "" if the operator names it.
        issuer_pattern: regular expression by which an issuer is known to be this provider's.
        issuer_example: for messages and documents.
        issuer_slash: the issuer ends in a slash, which people forget to write.
        issuer_aliases: other `iss` values of ID tokens that mean the same issuer.
        shared_tenants: path words that stand for many tenants: the metadata then names
            ``{tenantid}`` and each ID token its own tenant.
        api: set for a provider without OpenID Connect.
        offline: see `Offline`.
        offline_scope_optional: some that go by this profile issue a refresh token without the scope.
        scopes: asked for at sign-in when the operator names none.
        authorize_params: further authorization parameters that make it issue a refresh token.
        rotates: whether a refresh brings a new refresh token; None = a setting of the client.
        rotates_at_times: it may bring the same token for hours and then another one (a rolling interval), so
            that "does not rotate" is never learned.
        reuse: see `Reuse`; the expectation under the provider's defaults.
        grace_s: how long a used token still works by default; 0 = it does not, or nobody said.
        old_access_token_dies: a refresh ends the access token before it.
        one_per_client: a second sign-in of the person at the same client ends the first one's
            refresh token.
        new_id_token: whether a refresh brings an ID token; None = not told.
        dead_codes: error codes that mean "this refresh token is dead", at any status < 500.
        client_codes: error codes that are the operator's mistake: sessions are kept.
        secret_codes: of all codes, those that refuse the client's secret when they come with HTTP 401
            (`invalid_client` does at any status).
        interaction_codes: error codes that ask for the person.
        dead_status: statuses that the provider sends dead words with, for the tests and the pages.
        send_scope: send the *granted* scope with a refresh (otherwise none is sent).
        send_redirect_uri: send the redirect URI with a refresh.
        life_s: life of an access token whose reply names none; 0 = the setting decides.
        strict_auth_time: a changed `auth_time` in a refreshed ID token ends the session.
        email_trusted: an e-mail without `email_verified` may match rules.
        email_verified_claim: says whether the address is verified.
        tenant_claim: names the organisation, for rules `tenant:…`; "" = it has none.
        username_claims: where the display name for log-in is, first match.
        groups_claim: where the groups are when the operator names no claim.
        groups_from: see `GroupsFrom`.
        overage_api: asked for the groups when the ID token says that they are too many for it.
        reach: see `Reach`.
        revocation: see `Revocation`.
        open_to_all: anybody in the world can sign in: the operator must say who may.
        open_issuers: the same, at these issuers of it only.
        end_session: the OP understands RP-initiated logout if it announces it.
        logout_needs_hint: it refuses a logout without `id_token_hint`.
        own_logout: used where no `end_session_endpoint` is announced; None = there is none.
        link: the provider's page on refresh tokens.
        read: which facts were read in the provider's own pages or source; the others are common
            knowledge that nobody has checked here: "how", "rotation", "reuse", "grace", "words",
            "claims", "logout", "revocation", "life".
    """

    name: str
    title: str = ""
    issuer: str = ""
    issuer_pattern: str = ""
    issuer_example: str = "https://login.example.com"
    issuer_slash: bool = False
    issuer_aliases: tuple[str, ...] = ()
    shared_tenants: tuple[str, ...] = ()
    api: Api | None = None
    offline: Offline = Offline.SCOPE
    offline_scope_optional: bool = False
    scopes: tuple[str, ...] = ("openid", "profile", "email", "offline_access")
    authorize_params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rotates: bool | None = None
    rotates_at_times: bool = False
    reuse: Reuse = Reuse.UNKNOWN
    grace_s: float = 0.0
    old_access_token_dies: bool = False
    one_per_client: bool = False
    new_id_token: bool | None = None
    dead_codes: frozenset[str] = _DEAD
    client_codes: frozenset[str] = _CLIENT
    secret_codes: frozenset[str] = _SECRET
    interaction_codes: frozenset[str] = _INTERACTION
    dead_status: tuple[int, ...] = (400,)
    send_scope: bool = False
    send_redirect_uri: bool = False
    life_s: float = 0.0
    strict_auth_time: bool = True
    email_trusted: bool = False
    email_verified_claim: str = "email_verified"
    tenant_claim: str = ""
    username_claims: tuple[str, ...] = ("preferred_username",)
    groups_claim: str = "groups"
    groups_from: GroupsFrom = GroupsFrom.ID_TOKEN
    overage_api: str = ""
    reach: Reach = Reach.GRANT
    revocation: Revocation = Revocation.RFC7009
    open_to_all: bool = False
    open_issuers: tuple[str, ...] = ()
    end_session: bool = True
    logout_needs_hint: bool = False
    own_logout: OwnLogout | None = None
    link: str = ""
    read: tuple[str, ...] = ()

    @property
    def openid(self) -> bool:
        """Whether it speaks OpenID Connect: discovery, ID tokens."""
        return self.api is None

    def knows(self, issuer: str) -> bool:
        """Whether this issuer is plainly one of this provider's."""
        if self.issuer:
            return issuer.rstrip("/") == self.issuer
        return bool(
            self.issuer_pattern and re.fullmatch(self.issuer_pattern, issuer.rstrip("/"), re.IGNORECASE)
        )

    def issuer_of(self, configured: str) -> str:
        """The issuer to work with: the profile's own, or the configured one as the provider writes it."""
        issuer = configured or self.issuer
        if self.issuer_slash and issuer and not issuer.endswith("/"):
            return issuer + "/"
        return issuer

    def lets_everybody_in(self, issuer: str) -> bool:
        """Whether anybody in the world can sign in at this issuer of it."""
        if issuer.rstrip("/") in self.open_issuers:
            return True
        if self.open_to_all and (not issuer or not self.issuer or issuer.rstrip("/") == self.issuer):
            return True
        return any(f"/{word}/" in issuer.lower() + "/" for word in self.shared_tenants)

    def lacks(self, scopes: Sequence[str], params: Mapping[str, str]) -> list[str]:
        """What an authorization request lacks for a refresh token, e.g. ``prompt=consent``."""
        match self.offline:
            case Offline.SCOPE if "offline_access" not in scopes:
                return ["offline_access"]
            case Offline.PARAMETER:
                wanted = self.authorize_params.items()
                return [f"{name}={value}" for name, value in wanted if params.get(name) != value]
            case _:
                return []

    def metadata_fits(self, configured: str, found: object) -> bool:
        """Whether a discovery document that names `found` is the configured issuer's.

        Byte for byte (OIDC Discovery §4.3), except at an issuer that stands for many tenants.
        """
        if found == configured:
            return True
        shared = (configured.replace(f"/{word}/", f"/{_TENANT}/") for word in self.shared_tenants)
        return any(other == found for other in shared if _TENANT in other)

    def named_issuer(self, metadata_issuer: str, claims: Mapping[str, object]) -> tuple[str, object]:
        """The issuer that a token must name, and the one that it does name, in its canonical spelling."""
        found = claims.get("iss")
        if found in self.issuer_aliases:
            found = metadata_issuer
        tenant = claims.get(self.tenant_claim) if self.shared_tenants else None
        if isinstance(tenant, str) and re.fullmatch(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", tenant):
            return metadata_issuer.replace(_TENANT, tenant), found
        return metadata_issuer, found
