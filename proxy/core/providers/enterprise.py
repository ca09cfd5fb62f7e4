"""Hosted and bought providers of organisations."""

from __future__ import annotations

from proxy.core.providers.profile import (
    Offline,
    OwnLogout,
    Profile,
    Reach,
    Reuse,
    Revocation,
    interaction,
    secret,
)

TABLE = (
    Profile(
        "entra",
        title="Microsoft",
        issuer_pattern=r"https://login\.microsoftonline\.(?:com|us)/[^/]+/v2\.0"
        r"|https://login\.partner\.microsoftonline\.cn/[^/]+/v2\.0",
        issuer_example="https://login.microsoftonline.com/TENANT-ID/v2.0",
        shared_tenants=("common", "organizations", "consumers"),
        offline=Offline.SCOPE,
        # No `scope` on a refresh: it would have to stay within one resource.
        rotates=True,
        # "The old token is not revoked": presenting it again costs nothing.
        reuse=Reuse.GRACE,
        new_id_token=True,
        tenant_claim="tid",
        email_verified_claim="xms_edov",
        overage_api="https://graph.microsoft.com/v1.0/me/transitiveMemberOf/microsoft.graph.group",
        revocation=Revocation.NONE,
        link="https://learn.microsoft.com/entra/identity-platform/refresh-tokens",
        read=("how", "rotation", "reuse", "words", "claims", "logout", "life"),
    ),
    Profile(
        "okta",
        title="Okta",
        issuer_pattern=r"https://[a-z0-9-]+\.(?:okta|oktapreview|okta-emea)\.com(?:/oauth2/[^/]+)?",
        issuer_example="https://ORG.okta.com or https://ORG.okta.com/oauth2/default",
        # Web apps do not rotate by default; one that does has a leeway of 30 s, and a token used
        # after it ends the family. The safe expectation is the worse one.
        rotates=None,
        reuse=Reuse.PUNISHED,
        grace_s=30.0,
        new_id_token=True,
        interaction_codes=interaction("access_denied"),
        reach=Reach.SIGN_IN,
        logout_needs_hint=True,
        link="https://developer.okta.com/docs/guides/refresh-tokens/main/",
        read=("how", "rotation", "reuse", "grace", "life", "revocation"),
    ),
    Profile(
        "auth0",
        title="Auth0",
        issuer_pattern=r"https://[a-z0-9-]+(?:\.[a-z]{2}(?:-\d)?)?\.auth0\.com",
        issuer_example="https://TENANT.eu.auth0.com/",
        issuer_slash=True,
        rotates=None,
        # Inside the overlap period the previous token works once more; the one before it is a breach.
        reuse=Reuse.PUNISHED,
        new_id_token=True,
        dead_status=(403,),
        # A wrong secret is a 401 `access_denied` there ("Unauthorized"), not `invalid_client`.
        secret_codes=secret("access_denied"),
        # "Refresh Token Revocation Deletes Grant" is on in tenants from before 2021.
        reach=Reach.GRANT,
        own_logout=OwnLogout("/v2/logout", "returnTo"),
        link="https://auth0.com/docs/secure/tokens/refresh-tokens/configure-refresh-token-rotation",
        read=("rotation", "reuse", "grace", "words", "revocation"),
    ),
    Profile(
        "pingfederate",
        title="PingFederate",
        issuer_example="https://sso.example.com",
        # The client's refresh grant decides; the scope is harmless where it is known.
        offline=Offline.CLIENT,
        scopes=("openid", "profile", "email"),
        rotates=None,
        rotates_at_times=True,
        reuse=Reuse.PUNISHED,
        reach=Reach.GRANT,
        own_logout=OwnLogout("/idp/startSLO.ping", "TargetResource"),
        link=(
            "https://docs.pingidentity.com/pingfederate/latest/administrators_reference_guide/"
            "help_authorizationserversettingstasklet_oauthauthorizationserversettingsstate.html"
        ),
        read=("how", "rotation", "grace", "life"),
    ),
    Profile(
        "cloudentity",
        title="SecureAuth Connect",
        issuer_pattern=r"https://[a-z0-9-]+(?:\.[a-z0-9-]+)?\.authz\.cloudentity\.io/[^/]+/[^/]+"
        r"|https://[a-z0-9-]+\.connect\.secureauth\.com/[^/]+/[^/]+",
        issuer_example="https://TENANT.eu.authz.cloudentity.io/TENANT/WORKSPACE",
        reuse=Reuse.UNKNOWN,
        reach=Reach.GRANT,
        link="https://docs.secureauth.com/ciam/en/refresh-token.html",
        read=("how", "life"),
    ),
    Profile(
        "cognito",
        title="Amazon Cognito",
        issuer_pattern=r"https://cognito-idp\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/[A-Za-z0-9_-]+",
        issuer_example="https://cognito-idp.REGION.amazonaws.com/POOL-ID",
        offline=Offline.ALWAYS,
        scopes=("openid", "profile", "email"),
        rotates=None,
        # Off by default; where it is on, the grace is 0 to 60 s.
        reuse=Reuse.NONE,
        new_id_token=True,
        username_claims=("preferred_username", "cognito:username"),
        groups_claim="cognito:groups",
        reach=Reach.SIGN_IN,
        own_logout=OwnLogout("/logout", "logout_uri"),
        link=(
            "https://docs.aws.amazon.com/cognito/latest/developerguide/"
            "amazon-cognito-user-pools-using-the-refresh-token.html"
        ),
        read=("how", "rotation", "reuse", "grace", "life", "revocation"),
    ),
)
