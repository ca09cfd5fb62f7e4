"""Providers at which anybody in the world has, or can make, an account."""

from __future__ import annotations

from types import MappingProxyType

from proxy.core.providers.profile import (
    Api,
    GroupsFrom,
    Offline,
    Profile,
    Reach,
    Reuse,
    Revocation,
    client,
    dead,
    interaction,
)

_GITHUB_API = Api(
    authorize="/login/oauth/authorize",
    token="/login/oauth/access_token",  # noqa: S106  # a path, not a secret
    base="https://api.github.com",
    base_elsewhere="/api/v3",
)
_GITHUB_DEAD = dead("bad_verification_code")
_GITHUB_CLIENT = client("redirect_uri_mismatch", "application_suspended")
_GITHUB_INTERACTION = interaction("access_denied", "unverified_user_email")

TABLE = (
    Profile(
        "google",
        title="Google",
        issuer="https://accounts.google.com",
        issuer_example="https://accounts.google.com",
        issuer_aliases=("accounts.google.com",),
        # `prompt=consent`, because a second sign-in without it brings no refresh token at all.
        offline=Offline.PARAMETER,
        scopes=("openid", "profile", "email"),
        authorize_params=MappingProxyType({"access_type": "offline", "prompt": "consent"}),
        rotates=False,
        reuse=Reuse.NONE,
        new_id_token=True,
        client_codes=client("deleted_client", "disabled_client", "org_internal"),
        interaction_codes=interaction("admin_policy_enforced"),
        tenant_claim="hd",
        # They are in the Admin SDK, for a service account with domain-wide delegation only.
        groups_from=GroupsFrom.NOWHERE,
        reach=Reach.GRANT,
        open_to_all=True,
        end_session=False,
        link="https://developers.google.com/identity/protocols/oauth2/web-server#offline",
        read=("how", "life"),
    ),
    Profile(
        "github",
        title="GitHub",
        issuer="https://github.com",
        issuer_example="https://github.com",
        api=_GITHUB_API,
        offline=Offline.CLIENT,
        scopes=(),
        rotates=True,
        reuse=Reuse.REFUSED,
        old_access_token_dies=True,
        new_id_token=False,
        dead_codes=_GITHUB_DEAD,
        client_codes=_GITHUB_CLIENT,
        interaction_codes=_GITHUB_INTERACTION,
        dead_status=(200,),
        groups_from=GroupsFrom.API,
        reach=Reach.SIGN_IN,
        revocation=Revocation.API_DELETE,
        open_to_all=True,
        end_session=False,
        link=(
            "https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/"
            "refreshing-user-access-tokens"
        ),
        read=("how", "rotation", "reuse", "grace", "words", "life", "revocation"),
    ),
    Profile(
        "github-oauth-app",
        title="GitHub",
        issuer="https://github.com",
        issuer_example="https://github.com",
        api=_GITHUB_API,
        # Its tokens neither end nor renew: a session lasts until its own limits.
        offline=Offline.NEVER,
        scopes=("read:user", "user:email", "read:org"),
        rotates=False,
        reuse=Reuse.NONE,
        new_id_token=False,
        dead_codes=_GITHUB_DEAD,
        client_codes=_GITHUB_CLIENT,
        interaction_codes=_GITHUB_INTERACTION,
        dead_status=(200,),
        life_s=2_592_000.0,
        groups_from=GroupsFrom.API,
        reach=Reach.SIGN_IN,
        revocation=Revocation.API_DELETE,
        open_to_all=True,
        end_session=False,
        link="https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps",
        read=("revocation",),
    ),
    Profile(
        "gitlab",
        title="GitLab",
        # An own installation looks like any other host: it is named by `provider`.
        issuer_pattern=r"https://gitlab\.com|https://gitlab\.[a-z0-9.-]+",
        issuer_example="https://gitlab.example.com",
        offline=Offline.ALWAYS,
        scopes=("openid", "profile", "email"),
        rotates=True,
        reuse=Reuse.REFUSED,
        old_access_token_dies=True,
        send_redirect_uri=True,
        username_claims=("preferred_username", "nickname"),
        groups_from=GroupsFrom.USERINFO,
        reach=Reach.TOKEN,
        open_issuers=("https://gitlab.com",),
        link="https://docs.gitlab.com/api/oauth2/",
        read=("how", "rotation", "reuse", "words", "claims", "life"),
    ),
)
