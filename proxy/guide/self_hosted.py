"""Guides: providers that people run themselves."""

from __future__ import annotations

from proxy.guide.entry import Guide

TABLE = (
    Guide(
        "keycloak",
        steps=(
            "Admin console > your realm > Clients > Create client: OpenID Connect, Client authentication: "
            "On, "
            "Standard flow.",
            "Valid redirect URIs: `https://app.example.com/oauth2/callback`; Valid post logout redirect "
            "URIs: "
            "`https://app.example.com/oauth2/logged-out`.",
            "Credentials: copy the Client secret.",
            "For groups: Client scopes > your client's dedicated scope > Add mapper > Group Membership, "
            "Full group path: Off.",
        ),
        config=('issuer = "https://login.example.com/realms/REALM"',),
        remedies={
            "refresh_token": "Clients > your client > Advanced > OpenID Connect Compatibility Modes: Use "
            "refresh tokens: On.",
            "refresh_grant": "Clients > your client > Settings > Standard flow: On.",
            "secret": "Clients > your client > Credentials: copy the Client secret, or Regenerate it.",
            "client": "Clients: compare the Client ID; Client authentication must be On.",
            "redirect_uri": "Clients > your client > Settings > Valid redirect URIs: add it exactly.",
            "issuer": "Realm settings > Frontend URL (or --hostname): the issuer follows it.",
            "rotation": "Realm settings > Tokens > Revoke Refresh Token: Off, or Refresh Token Max Reuse "
            "of 1.",
            "lifetime": "Realm settings > Sessions > SSO Session Idle must be longer than the access "
            "token's life; or add "
            "offline_access to scopes for sessions that outlive it.",
            "groups": "Client scopes > your client's dedicated scope > Add mapper > Group Membership; or "
            "groups_claim = "
            '"realm_access.roles" with a mapper that adds the roles to the ID token.',
            "logout": "Clients > your client > Settings > Valid post logout redirect URIs.",
            "backchannel": "Clients > your client > Settings > Logout settings: Front channel logout: Off; "
            "Backchannel logout URL; Backchannel logout session required: On.",
            "dpop": "Clients > your client > Settings > Require DPoP bound tokens: Off.",
        },
        life="Bound to the SSO session: idle 30 minutes, 10 hours at most by default. With "
        "`offline_access`: 30 days "
        "unused, beyond a sign-out at Keycloak.",
        expect=(
            "With Revoke Refresh Token on, a token that is used too often costs the client its session.",
            "A sign-out at Keycloak is told by back-channel logout, but not with `offline_access` among the "
            "scopes: such a session is no part of the one that was signed out of (seen at 26.7).",
            "A sign-out posts the refresh token to the logout endpoint, which ends this one session. The "
            "revocation endpoint is not used: it takes back the consent and all sessions at the client.",
        ),
        hits=(
            (
                "People who pause for half an hour must sign in again.",
                "SSO Session Idle is 30 minutes: raise it, or add offline_access to scopes.",
            ),
        ),
    ),
    Guide(
        "zitadel",
        steps=(
            "Project > New Application: Web, Code (with client secret) or PKCE.",
            "Redirect settings: `https://app.example.com/oauth2/callback`; post logout: "
            "`https://app.example.com/oauth2/logged-out`.",
            "OIDC Configuration > Grant Types: check **Refresh Token**.",
            "Token Settings: User roles inside ID Token (for groups).",
            'Your own installation looks like any other host: set `provider = "zitadel"` for it, because a '
            "dead refresh token is told in words of its own.",
        ),
        config=('issuer = "https://INSTANCE.zitadel.cloud"',),
        remedies={
            "refresh_token": "Application > OIDC Configuration > Grant Types: Refresh Token, and keep "
            "offline_access "
            "in scopes.",
            "refresh_grant": "Application > OIDC Configuration > Grant Types: Refresh Token.",
            "secret": "Application > Actions > Regenerate Client Secret.",
            "redirect_uri": "Application > Redirect Settings.",
            "lifetime": "Instance settings > OIDC token lifetimes: refresh token idle expiration.",
            "groups": "Application > Token Settings: User roles inside ID Token; roles are asked for by "
            '"Assert Roles on Authentication" of the project.',
            "logout": "Application > Redirect Settings > Post Logout URIs.",
        },
        life="Access token 12 hours. Refresh token 30 days unused, 90 days in all; per instance.",
        expect=(
            "Every refresh brings another refresh token. A used one is refused, and the newest one lives on.",
            "Everything that is wrong with a refresh token is HTTP 400 `invalid_request`, not "
            "`invalid_grant`; this profile reads that as an end.",
        ),
        hits=(
            (
                "At an own installation people get a 503 page, not the sign-in, once their time is over.",
                'Set `provider = "zitadel"`: without it `invalid_request` is no verdict.',
            ),
        ),
    ),
    Guide(
        "dex",
        steps=(
            "staticClients: an entry with `id`, `secret` and redirectURIs "
            "`https://app.example.com/oauth2/callback`.",
            "The connector must support refresh (LDAP, OIDC, GitHub, … do; SAML does not).",
            "expiry.refreshTokens: `reuseInterval: 10s`, `validIfNotUsedFor`, `absoluteLifetime`.",
        ),
        config=('provider = "dex"', 'issuer = "https://login.example.com/dex"'),
        remedies={
            "refresh_token": "Keep offline_access in scopes; the connector behind must support refresh "
            "(SAML does not).",
            "secret": "staticClients[].secret.",
            "redirect_uri": "staticClients[].redirectURIs: add it exactly.",
            "rotation": "expiry.refreshTokens.reuseInterval: 10s or more.",
            "lifetime": "expiry.refreshTokens.validIfNotUsedFor: longer than idTokens.",
            "groups": "Keep groups in scopes; the connector must provide them.",
            "logout": "Dex of before 2026 has no logout endpoint: a sign-out ends the session here only.",
        },
        life="`validIfNotUsedFor` and `absoluteLifetime`.",
        expect=(
            "Dex keeps **one refresh token per person, connector and client**: a sign-in in a second browser "
            "ends the renewals of the first one. Long-lived ID tokens (`expiry.idTokens`) make that "
            "rarer; it "
            "cannot be had otherwise.",
            "A used or expired token is HTTP 400 `invalid_request`; the same word with a 5xx is dex's own "
            "trouble and ends nothing.",
        ),
        hits=(
            (
                "People with two browsers are signed out in one of them.",
                "One refresh token per client: see above.",
            ),
        ),
    ),
    Guide(
        "authentik",
        steps=(
            "Admin interface > Applications > Create with provider: OAuth2/OpenID, client type Confidential.",
            "Redirect URIs (strict): `https://app.example.com/oauth2/callback`.",
            "Advanced protocol settings > Scopes: add `authentik default OAuth Mapping: OpenID "
            "'offline_access'`.",
        ),
        config=('issuer = "https://login.example.com/application/o/APP/"   # with the slash',),
        remedies={
            "refresh_token": "Provider > Advanced protocol settings > Scopes: add the mapping for "
            "offline_access.",
            "secret": "Provider > Client Secret.",
            "redirect_uri": "Provider > Redirect URIs/Origins: add it exactly (strict).",
            "issuer": "The issuer ends in a slash; Provider > Issuer mode decides whether it names the "
            "application.",
            "rotation": "Provider > Refresh token threshold.",
            "lifetime": "Provider > Refresh Token validity: longer than Access Token validity.",
            "groups": "Groups come with the scope profile.",
        },
        life="Access and refresh token validity of the provider.",
        expect=(
            "No `scope` is sent with a refresh: without offline_access in it authentik refuses.",
            "It asks for consent wherever offline_access is asked for, and drops that scope without a word "
            "where the mapping is not selected.",
        ),
        hits=(
            (
                "There is no refresh token since 2024.2.",
                "The scope mapping for `offline_access` is not selected; older versions did not ask for it.",
            ),
        ),
    ),
    Guide(
        "authelia",
        steps=(
            "identity_providers.oidc.clients: an entry with `client_id`, `client_secret` (hashed), "
            "redirect_uris "
            "`https://app.example.com/oauth2/callback`.",
            "scopes: openid, profile, email, groups, offline_access; grant_types: authorization_code, "
            "refresh_token; "
            "response_types: code.",
            "Give the client a lifespan with a refresh token longer than 90 minutes.",
        ),
        config=('provider = "authelia"', 'issuer = "https://auth.example.com"'),
        remedies={
            "refresh_token": "clients[].scopes: offline_access and clients[].grant_types: refresh_token.",
            "refresh_grant": "clients[].grant_types: refresh_token.",
            "secret": "clients[].client_secret holds the hash of the secret that is in client_secret here.",
            "redirect_uri": "clients[].redirect_uris: add it exactly.",
            "lifetime": "lifespans.custom.….refresh_token: its default is 90 minutes.",
            "groups": "clients[].scopes: groups; they come by userinfo.",
            "logout": "Authelia has no logout endpoint for clients: a sign-out revokes the tokens and "
            "ends the "
            "session here.",
        },
        life="Refresh token 90 minutes by default: raise it.",
        expect=(
            "Groups, e-mail and name come by userinfo, not in the ID token.",
            "It asks for consent explicitly wherever offline_access is asked for.",
        ),
        hits=(
            (
                "People who pause for an hour and a half must sign in again.",
                "The refresh token's lifespan is at its default of 90 minutes.",
            ),
        ),
    ),
)
