"""Guides: providers for everybody."""

from __future__ import annotations

from proxy.guide.entry import Guide

_GITHUB_HITS = (
    (
        "Nobody of the organisation gets in.",
        "An organisation that restricts OAuth access must approve the app: Organization > Settings > "
        "Third-party Access.",
    ),
)

TABLE = (
    Guide(
        "google",
        steps=(
            "Google Cloud console > APIs & Services > OAuth consent screen (Google Auth Platform): choose "
            "Internal for one Workspace organisation, else External, and publish the app (Publishing "
            "status: In production).",
            "Credentials > Create credentials > OAuth client ID > Web application.",
            "Authorized redirect URIs: `https://app.example.com/oauth2/callback`.",
            "Copy Client ID and Client secret.",
        ),
        config=('provider = "google"', 'allow = ["tenant:example.com"]   # accounts of this Workspace only'),
        remedies={
            "refresh_token": "Google issues one only with access_type=offline and prompt=consent: remove "
            "authorize_params from the configuration, or put both into it.",
            "scopes": "Remove offline_access from scopes: Google has no such scope.",
            "secret": "Credentials > your OAuth client > Add secret, and put the new one into client_secret.",
            "redirect_uri": "Credentials > your OAuth client > Authorized redirect URIs: add it exactly.",
            "lifetime": "OAuth consent screen > Publish app: in the status Testing refresh tokens end "
            "after 7 days.",
            "groups": "Google puts no groups into tokens: use tenant: (the hosted domain), a domain or "
            "e-mail rules. Or put Dex in front, whose Google connector asks the Admin SDK for them.",
            "logout": "Google has no logout endpoint: a sign-out ends the session here only.",
        },
        life="Access token 1 hour. Refresh token: until it is unused for 6 months, the person or an admin "
        "takes it back, or the app is in status Testing (7 days).",
        expect=(
            "`prompt=consent` shows the consent page at each sign-in; without it only the first one brings "
            "a refresh token.",
            "A sign-out does not revoke: Google's revocation takes back the whole grant, on every device.",
        ),
        hits=(
            (
                "After a week everybody must sign in again.",
                "The app's publishing status is Testing: publish it.",
            ),
        ),
    ),
    Guide(
        "github",
        steps=(
            "Settings > Developer settings > GitHub Apps > New GitHub App.",
            'Callback URL: `https://app.example.com/oauth2/callback`. Keep "Expire user authorization '
            'tokens" checked: that is what brings refresh tokens. Webhook: not active.',
            "Permissions: Account > Email addresses: read-only; Organization > Members: read-only (for "
            "groups).",
            "Generate a client secret; install the app in the organisations whose members sign in.",
        ),
        config=('provider = "github"', 'allow = ["group:ORG", "group:ORG/TEAM"]'),
        remedies={
            "refresh_token": "GitHub App > Optional features > User-to-server token expiration: Opt-in.",
            "secret": "GitHub App > General > Client secrets > Generate a new client secret.",
            "redirect_uri": "GitHub App > General > Callback URL: add it exactly.",
            "groups": "GitHub App > Permissions > Organization > Members: read-only, and install the app in "
            "the organisation.",
            "logout": "GitHub has no logout endpoint: a sign-out deletes the token and ends the session "
            "here.",
        },
        life="Access token 8 hours, refresh token 6 months. A refresh ends the old pair at once.",
        expect=(
            "There is no ID token: identity comes from `/user`, `/user/emails`, `/user/orgs` and "
            "`/user/teams`; "
            "groups are `org` and `org/team`, the subject is the account's number.",
            "Errors come with HTTP 200 and are read by their words.",
            "If GitHub's API fails right after a refresh, the new tokens are stored already and stay.",
            "GitHub Enterprise Server: set `issuer` to its address.",
        ),
        hits=_GITHUB_HITS,
    ),
    Guide(
        "github-oauth-app",
        steps=(
            "Settings > Developer settings > OAuth Apps > New OAuth App.",
            "Authorization callback URL: `https://app.example.com/oauth2/callback`.",
            "Generate a new client secret.",
        ),
        config=('provider = "github-oauth-app"', 'allow = ["group:ORG"]'),
        remedies={
            "refresh_token": 'OAuth Apps have none; use a GitHub App (provider = "github") if tokens are '
            "to end.",
            "secret": "OAuth App > Generate a new client secret.",
            "redirect_uri": "OAuth App > Authorization callback URL.",
            "groups": "Keep read:org in scopes, and let the organisation approve the app.",
            "logout": "GitHub has no logout endpoint: a sign-out deletes the token and ends the session "
            "here.",
        },
        life="Access tokens do not end, and there is no refresh token: a session lasts until its own limits.",
        expect=(
            "Nothing is renewed, so groups are those of the sign-in; after `refresh.groups_max_age_s` they "
            "count as unknown. A GitHub App is the better choice.",
        ),
        hits=_GITHUB_HITS,
    ),
    Guide(
        "gitlab",
        steps=(
            "Admin area (or Group, or User settings) > Applications > Add new application.",
            "Redirect URI: `https://app.example.com/oauth2/callback`. Confidential: yes. Scopes: `openid`, "
            "`profile`, `email`.",
            "Copy Application ID and Secret.",
        ),
        config=('provider = "gitlab"', 'issuer = "https://gitlab.example.com"'),
        remedies={
            "refresh_token": "GitLab always issues one; if it does not, compare the application's id.",
            "secret": "Applications > your application > Renew secret.",
            "redirect_uri": "Applications > your application > Edit > Redirect URI.",
            "scopes": "Applications > your application > Edit > Scopes: check openid, profile and email; "
            "remove offline_access from scopes.",
            "groups": "GitLab tells groups by userinfo only; leave op.userinfo as it is.",
            "logout": "GitLab has no logout endpoint: a sign-out revokes the token and ends the session "
            "here.",
        },
        life="Access token 2 hours. Each refresh ends the tokens before it.",
        expect=("A refresh repeats the redirect URI, as GitLab's page asks.",),
        hits=(
            (
                "An app that keeps an access token of an earlier request gets a 401 from GitLab.",
                "Each refresh ends the access token before it: use the one of the request at hand.",
            ),
        ),
    ),
)
