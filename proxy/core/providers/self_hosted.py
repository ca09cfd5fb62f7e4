"""Providers that people run themselves."""

from __future__ import annotations

from proxy.core.providers.profile import (
    GroupsFrom,
    Offline,
    Profile,
    Reach,
    Reuse,
    Revocation,
    dead,
)

TABLE = (
    Profile(
        "keycloak",
        title="Keycloak",
        issuer_pattern=r"https?://[^/]+(?:/auth)?/realms/[^/]+",
        issuer_example="https://login.example.com/realms/REALM",
        # Tied to its SSO session; with the scope `offline_access` one that outlives it.
        offline=Offline.ALWAYS,
        scopes=("openid", "profile", "email"),
        # "Revoke Refresh Token" is off by default; where it is on, a token used too often costs the
        # client its session, the newest token included. The safe expectation is the worse one.
        rotates=None,
        reuse=Reuse.PUNISHED,
        new_id_token=True,
        # Its RFC 7009 endpoint takes back the person's consent and with it every session at this
        # client; the refresh token posted to the logout endpoint ends the one session.
        reach=Reach.SESSION,
        revocation=Revocation.LOGOUT,
        link="https://www.keycloak.org/docs/latest/server_admin/#_timeouts",
        read=("how", "rotation", "reuse", "words", "life", "revocation"),
    ),
    Profile(
        "zitadel",
        title="ZITADEL",
        issuer_pattern=r"https://[a-z0-9-]+(?:\.[a-z0-9]+)?\.zitadel\.cloud",
        issuer_example="https://INSTANCE.zitadel.cloud",
        rotates=True,
        # Used once and no more; the newest one lives on (its issue 7321 asks for the family to end).
        reuse=Reuse.REFUSED,
        new_id_token=True,
        # Whatever is wrong with a refresh token is a 400 `invalid_request` there (its issue 11892).
        dead_codes=dead("invalid_request"),
        groups_claim="urn:zitadel:iam:org:project:roles",
        reach=Reach.SIGN_IN,
        link="https://help.zitadel.com/how-to-enable-and-receive-refresh-tokens",
        read=("how", "rotation", "reuse", "grace", "words", "life", "revocation"),
    ),
    Profile(
        "dex",
        title="Dex",
        issuer_pattern=r"https?://[^/]+/dex",
        issuer_example="https://login.example.com/dex",
        scopes=("openid", "profile", "email", "groups", "offline_access"),
        rotates=True,
        # `reuseInterval` (default 3 s): the old token brings the same successor again.
        reuse=Reuse.IDEMPOTENT,
        grace_s=3.0,
        one_per_client=True,
        new_id_token=True,
        # At 400 only: with a 5xx it is dex's own trouble, and a 5xx is never a verdict.
        dead_codes=dead("invalid_request"),
        # With sessions on, `auth_time` is the person's last sign-in anywhere at this dex.
        strict_auth_time=False,
        username_claims=("preferred_username", "name"),
        reach=Reach.GRANT,
        link="https://dexidp.io/docs/configuration/tokens/",
        read=("how", "rotation", "reuse", "grace", "words", "life"),
    ),
    Profile(
        "authentik",
        title="authentik",
        issuer_pattern=r"https?://[^/]+/application/o/[^/]+",
        issuer_example="https://login.example.com/application/o/APP/",
        issuer_slash=True,
        rotates=True,
        # Its `refresh_token_threshold`: only a token that is near its end is replaced.
        rotates_at_times=True,
        reuse=Reuse.REFUSED,
        new_id_token=True,
        reach=Reach.TOKEN,
        link="https://docs.goauthentik.io/add-secure-apps/providers/oauth2/",
        read=("how", "rotation", "reuse", "grace", "words"),
    ),
    Profile(
        "authelia",
        title="Authelia",
        issuer_example="https://auth.example.com",
        offline=Offline.SCOPE,
        scopes=("openid", "profile", "email", "groups", "offline_access"),
        rotates=True,
        # Its library (Fosite) ends the whole sign-in when a used token comes back.
        reuse=Reuse.PUNISHED,
        old_access_token_dies=True,
        groups_from=GroupsFrom.USERINFO,
        reach=Reach.SIGN_IN,
        end_session=False,
        link="https://www.authelia.com/integration/openid-connect/introduction/",
        read=("how", "words", "claims", "logout", "life"),
    ),
)
