"""Guides: hosted and bought providers of organisations."""

from __future__ import annotations

from proxy.guide.entry import Guide

TABLE = (
    Guide(
        "entra",
        steps=(
            "Microsoft Entra admin center > App registrations > New registration. Supported account types: "
            "this organizational directory only.",
            "Redirect URI: platform **Web** (not Single-page application), "
            "`https://app.example.com/oauth2/callback`.",
            "Authentication: Allow public client flows: No.",
            "Certificates & secrets > New client secret; note when it ends.",
            "API permissions: delegated `offline_access`, `openid`, `profile`, `email`; for groups also "
            "Token configuration > Add groups claim (and `User.Read`, for people in very many groups).",
        ),
        config=('issuer = "https://login.microsoftonline.com/TENANT-ID/v2.0"',),
        remedies={
            "refresh_token": "Keep offline_access in scopes and grant it under API permissions (delegated).",
            "refresh_grant": "App registrations > Authentication: the redirect URI must be of the "
            "platform Web.",
            "secret": "App registrations > Certificates & secrets: the secret is wrong or has expired; "
            "create "
            "one and use its Value, not its Secret ID.",
            "client": "Compare client_id with Application (client) ID on the app's Overview.",
            "redirect_uri": "App registrations > Authentication > Web > Redirect URIs: add it exactly.",
            "issuer": "Use https://login.microsoftonline.com/<Directory (tenant) ID>/v2.0; with v2.0 at "
            "the end.",
            "lifetime": "Refresh tokens of the platform Single-page application end after 24 hours: use Web. "
            "Conditional Access sign-in frequency ends them earlier.",
            "groups": "Token configuration > Add groups claim; for people in more than 200 groups add "
            "User.Read "
            "to scopes, so that Microsoft Graph can be asked.",
            "logout": "App registrations > Authentication: add the post-logout address to the redirect URIs.",
            "backchannel": "App registrations > Authentication > Front-channel logout URL: it knows no "
            "other way.",
            "scopes": "API permissions > Add a permission, or remove the scope from scopes.",
        },
        life="Access token 60 to 90 minutes. Refresh token 90 days unused (24 hours for single-page apps).",
        expect=(
            "Each refresh brings a new refresh token and the old one is not revoked: parallel use is "
            "harmless.",
            "Entra has no revocation endpoint: after a sign-out the refresh token, which nobody holds any "
            "more, ages out.",
            "`email` can be changed by its owner's administrator and is not verified: rules on domains match "
            "only with the optional claim `xms_edov`. Use `tenant:` or groups.",
            "`organizations` and `common` work: each ID token's issuer is compared with its own tenant.",
        ),
        hits=(
            (
                "Everybody must sign in after 24 hours.",
                "The redirect URI is of the platform Single-page application.",
            ),
            ("`interaction_required` (AADSTS50076).", "A new policy asks for MFA: people sign in once more."),
        ),
    ),
    Guide(
        "okta",
        steps=(
            "Admin Console > Applications > Create App Integration: OIDC, Web Application.",
            "Grant type: Authorization Code and **Refresh Token**.",
            "Sign-in redirect URI `https://app.example.com/oauth2/callback`, sign-out redirect URI "
            "`https://app.example.com/oauth2/logged-out`.",
            "Security > API > Authorization Servers > Scopes: `offline_access` must be allowed by an "
            "access policy rule.",
        ),
        config=('issuer = "https://ORG.okta.com/oauth2/default"',),
        remedies={
            "refresh_token": "Applications > your app > General > Grant type: check Refresh Token, and keep "
            "offline_access in scopes.",
            "refresh_grant": "Applications > your app > General > Grant type: check Refresh Token.",
            "secret": "Applications > your app > General > Client Credentials > Generate new secret.",
            "redirect_uri": "Applications > your app > General > Sign-in redirect URIs.",
            "rotation": 'Applications > your app > Refresh Token: "Use persistent token", or a grace '
            "period of 30 to 60 s.",
            "lifetime": "Security > API > your authorization server > Access Policies > rule: refresh token "
            'lifetime and "expires after" idle time.',
            "groups": "Security > API > your authorization server > Claims: add a groups claim to the ID "
            "token.",
            "logout": "Applications > your app > General > Sign-out redirect URIs.",
            "dpop": "Applications > your app > General > Proof of possession: uncheck Require Demonstrating "
            "Proof of Possession (DPoP) header in token requests.",
        },
        life="Refresh token: unlimited, or 7 days unused, by the access policy.",
        expect=(
            "With rotation on and after its grace, a second use of an old token ends the newest one and "
            "all access tokens since the sign-in.",
        ),
        hits=(
            (
                "The sign-in is refused with `invalid_scope`.",
                "No access policy rule of the authorization server allows `offline_access` to this client.",
            ),
        ),
    ),
    Guide(
        "auth0",
        steps=(
            "Dashboard > Applications > Create Application: Regular Web Application.",
            "Allowed Callback URLs: `https://app.example.com/oauth2/callback`; Allowed Logout URLs: "
            "`https://app.example.com/oauth2/logged-out`.",
            "Advanced Settings > Grant Types: Authorization Code, Refresh Token.",
            "With an API audience: Applications > APIs > your API > Allow Offline Access.",
        ),
        config=('issuer = "https://TENANT.eu.auth0.com/"   # with the slash',),
        remedies={
            "refresh_token": "Applications > APIs > your API > Allow Offline Access, and keep "
            "offline_access in scopes.",
            "refresh_grant": "Applications > your app > Advanced Settings > Grant Types: Refresh Token.",
            "secret": "Applications > your app > Settings > Client Secret (rotate if in doubt).",
            "redirect_uri": "Applications > your app > Settings > Allowed Callback URLs.",
            "issuer": "Auth0's issuer ends in a slash.",
            "rotation": "Applications > your app > Settings > Refresh Token Rotation: a Rotation Overlap "
            "Period of "
            "some seconds.",
            "lifetime": "Applications > your app > Settings > Refresh Token Expiration: idle lifetime.",
            "groups": "Add a Post-Login Action that sets a claim named by a URL, and name it in "
            "groups_claim.",
            "logout": "Applications > your app > Settings > Allowed Logout URLs.",
            "backchannel": "Applications > your app > Settings > Back-Channel Logout (by plan).",
            "dpop": "Applications > APIs > your API > Token Sender-Constraining: None.",
        },
        life="Idle and absolute lifetime, per application.",
        expect=(
            "A dead token is refused with HTTP 403, a wrong client secret with HTTP 401 `access_denied`.",
            "A sign-out does not revoke: tenants from before 2021 take back the whole grant with the token "
            '("Refresh Token Revocation Deletes Grant"). Where that is off, set `op.revoke = "always"`.',
        ),
        hits=(
            (
                "There is no refresh token although `offline_access` is asked for.",
                "The API named by `audience` does not Allow Offline Access.",
            ),
            (
                "Every ID token is refused (`iss`).",
                "The issuer was written without its slash at a custom domain: set `provider` there, too.",
            ),
        ),
    ),
    Guide(
        "pingfederate",
        steps=(
            "Applications > OAuth > Clients > Add Client; client authentication: client secret (or "
            "private key JWT).",
            "Redirection URIs: `https://app.example.com/oauth2/callback`.",
            "Allowed Grant Types: Authorization Code and **Refresh Token**.",
            "System > OAuth Settings > Authorization Server Settings: Persistent Grant Max Lifetime and Idle "
            "Timeout longer than the access token's life.",
            "Where the same page says that `offline_access` is required to issue refresh tokens, define that "
            "scope, add it to `scopes` here, and where it also asks for the consent prompt, set "
            '`authorize_params = {prompt = "consent"}`.',
        ),
        config=('provider = "pingfederate"', 'issuer = "https://sso.example.com"'),
        remedies={
            "refresh_token": "Clients > your client > Allowed Grant Types: Refresh Token. If Authorization "
            "Server Settings (or the client) require offline_access to issue refresh tokens, add it to "
            "scopes.",
            "refresh_grant": "Clients > your client > Allowed Grant Types: Refresh Token.",
            "secret": "Clients > your client > Client Secret > Change Secret. With a Client Secret Retention "
            "Period the old one stays valid meanwhile; client_secret_next bridges it from here.",
            "redirect_uri": "Clients > your client > Redirection URIs.",
            "scopes": "System > OAuth Settings > Scope Management: define the scope, or remove it from "
            "scopes.",
            "rotation": "Authorization Server Settings > Refresh Token Rolling Grace Period: its default "
            "is 0; "
            "allow some seconds.",
            "lifetime": "Authorization Server Settings > Persistent Grant Idle Timeout: longer than the "
            "access "
            "token's life.",
            "groups": "OpenID Connect Policy > Attribute Contract: add groups, and name the claim in "
            "groups_claim.",
            "logout": "Clients > your client > Logout URIs.",
            "dpop": "Clients > your client > Require Demonstrating Proof-of-Possession (DPoP): off.",
        },
        life="Grant lifetime and idle time-out are set on the server; 30 days is common.",
        expect=(
            "Rolling is a setting of the server and of each client, and may wait for a Refresh Token Rolling "
            "Interval: then only some refreshes bring another token, and the first that does is noticed.",
            "Whether a rolled token that comes back ends the grant is not said in the pages that were read; "
            'the worse is expected. With a rolling grace period set `refresh.reuse = "grace"`.',
            "Grants can be shared between sign-ins (Reuse Existing Persistent Access Grants), so a sign-out "
            'revokes nothing. Where they are not, set `op.revoke = "always"`.',
        ),
        hits=(
            (
                "One in many people is signed out after a lost reply.",
                'The rolling grace period is 0: allow some seconds and set `refresh.reuse = "grace"`.',
            ),
        ),
    ),
    Guide(
        "cloudentity",
        steps=(
            "Your workspace > Settings > Authorization > Allowed grant types: check Refresh token.",
            "Applications > Clients > Create Client: a server web application. Its OAuth view > Grant types: "
            "Authorization code and Refresh token.",
            "Redirect URI: `https://app.example.com/oauth2/callback`.",
            "The client's Scopes: subscribe it to `offline_access`.",
        ),
        config=('issuer = "https://TENANT.eu.authz.cloudentity.io/TENANT/WORKSPACE"',),
        remedies={
            "refresh_token": "Workspace > Settings > Authorization and Applications > Clients > your client "
            "> OAuth must both allow the Refresh token grant, and the client must be subscribed to "
            "offline_access.",
            "refresh_grant": "Applications > Clients > your client > OAuth > Grant types: Refresh token; "
            "and Workspace > Settings > Authorization > Allowed grant types.",
            "secret": "Applications > Clients > your client: rotate its secret. The old one stays valid "
            "until it is revoked: put the new one into client_secret_next first.",
            "redirect_uri": "Applications > Clients > your client > Redirect URI: add it exactly.",
            "lifetime": "Workspace > Settings: refresh token time to live.",
            "scopes": "Applications > Clients > your client > Scopes: subscribe it, or remove the scope from "
            "scopes.",
        },
        life="Refresh token time to live, per workspace.",
        expect=(
            "Whether it rotates is not said in the pages and the API description that were read; it is "
            "learned at run time. Until then a lost reply is repeated as late as the live access token "
            "allows.",
            "A workspace can have an issuer URL of its own, which looks like any other: set "
            '`provider = "cloudentity"` there.',
        ),
        hits=(
            (
                "The sign-in is refused with `invalid_scope`.",
                "The client is not subscribed to `offline_access`.",
            ),
        ),
    ),
    Guide(
        "cognito",
        steps=(
            "User pool > App clients > Create app client: Traditional web application (with a client "
            "secret).",
            "Login pages: Allowed callback URLs `https://app.example.com/oauth2/callback`, Allowed "
            "sign-out URLs "
            "`https://app.example.com/oauth2/logged-out`; grant type Authorization code; scopes openid, "
            "profile, email.",
            "Authentication flows: ALLOW_REFRESH_TOKEN_AUTH, or refresh token rotation with a grace period.",
        ),
        config=('issuer = "https://cognito-idp.REGION.amazonaws.com/POOL-ID"',),
        remedies={
            "refresh_token": "App clients > your client: the code grant always brings one; check the "
            "grant type.",
            "refresh_grant": "App clients > your client > Authentication flows: ALLOW_REFRESH_TOKEN_AUTH.",
            "secret": "App clients > your client: add a secret, or make a client that has one.",
            "scopes": "Remove offline_access from scopes: Cognito has no such scope.",
            "redirect_uri": "App clients > your client > Login pages > Allowed callback URLs.",
            "rotation": "App clients > your client > Refresh token rotation: a grace period of up to 60 s.",
            "lifetime": "App clients > your client > Refresh token expiration: 60 minutes to 10 years.",
            "groups": "Groups come as cognito:groups by themselves.",
            "logout": "App clients > your client > Login pages > Allowed sign-out URLs.",
        },
        life="Refresh token 30 days by default.",
        expect=("A sign-out revokes the tokens of that sign-in only.",),
        hits=(
            (
                "The sign-in is refused with `invalid_scope`.",
                "Remove offline_access from scopes: Cognito gives a refresh token without it.",
            ),
            ("“redirect_mismatch”.", "Allowed callback URLs hold another spelling of the address."),
        ),
    ),
)
