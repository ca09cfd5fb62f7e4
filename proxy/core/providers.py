"""What is known about each provider: one table of frozen records, no class per provider.

A profile is what we *expect*; what a provider is observed to do wins over it. Nothing
outside this table asks for a provider's name.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType


class Reuse(enum.StrEnum):
    """What becomes of a refresh token that is presented again after it was used.

    UNKNOWN: nobody said; NONE: it does not rotate, nothing happens; GRACE: it still works
    for a while; IDEMPOTENT: it answers with the same successor; PUNISHED: the whole
    family of tokens dies (RFC 9700 §4.14.2).
    """

    UNKNOWN = "unknown"
    NONE = "none"
    GRACE = "grace"
    IDEMPOTENT = "idempotent"
    PUNISHED = "punished"


class Reach(enum.StrEnum):
    """How far a revocation (RFC 7009) reaches: this token, the OP's session, or the whole grant."""

    TOKEN = "token"  # noqa: S105  # a word, not a secret
    SESSION = "session"
    GRANT = "grant"


@dataclass(frozen=True, slots=True)
class Profile:
    """One provider's ways.

    Attributes:
        name: key in `PROFILES` and value of the setting `provider`.
        issuer: fixed issuer, "" if the operator names it.
        scopes: asked for at sign-in when the operator names none.
        authorize_params: further authorization parameters that make it issue a refresh token.
        reuse: see `Reuse`.
        dead_codes: error codes that mean "this refresh token is dead", at any status < 500.
        client_codes: error codes that are the operator's mistake: sessions are kept.
        interaction_codes: error codes that ask for the person.
        send_scope: send the *granted* scope with a refresh (otherwise none is sent).
        send_redirect_uri: send the redirect URI with a refresh (GitLab).
        strict_auth_time: a changed `auth_time` in a refreshed ID token ends the session.
        email_trusted: an e-mail without `email_verified` may match rules.
        reach: see `Reach`.
        open_to_all: anybody in the world can sign in: the operator must say who may.
        end_session: the OP understands RP-initiated logout if it announces it.
        link: the provider's page that these facts come from.
    """

    name: str
    issuer: str = ""
    scopes: tuple[str, ...] = ("openid", "profile", "email", "offline_access")
    authorize_params: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    reuse: Reuse = Reuse.UNKNOWN
    dead_codes: frozenset[str] = frozenset({"invalid_grant", "bad_refresh_token", "invalid_refresh_token"})
    client_codes: frozenset[str] = frozenset(
        {
            "invalid_client",
            "unauthorized_client",
            "unsupported_grant_type",
            "invalid_scope",
            "incorrect_client_credentials",
        }
    )
    interaction_codes: frozenset[str] = frozenset(
        {"interaction_required", "login_required", "consent_required", "account_selection_required"}
    )
    send_scope: bool = False
    send_redirect_uri: bool = False
    strict_auth_time: bool = True
    email_trusted: bool = False
    reach: Reach = Reach.GRANT
    open_to_all: bool = False
    end_session: bool = True
    link: str = ""


_TABLE = (
    Profile("generic", link="https://openid.net/specs/openid-connect-core-1_0.html"),
    Profile(
        "google",
        issuer="https://accounts.google.com",
        scopes=("openid", "profile", "email"),
        authorize_params=MappingProxyType({"access_type": "offline", "prompt": "consent"}),
        reuse=Reuse.NONE,
        open_to_all=True,
        end_session=False,
        link="https://developers.google.com/identity/protocols/oauth2/web-server#offline",
    ),
    Profile(
        "keycloak",
        scopes=("openid", "profile", "email"),
        reuse=Reuse.PUNISHED,
        reach=Reach.SESSION,
        link="https://www.keycloak.org/docs/latest/server_admin/#_timeouts",
    ),
)

PROFILES: MappingProxyType[str, Profile] = MappingProxyType({profile.name: profile for profile in _TABLE})
