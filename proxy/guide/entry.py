"""The shape of a guide, and the one that holds for every provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TOPICS = (
    "refresh_token",
    "refresh_grant",
    "secret",
    "client",
    "redirect_uri",
    "scopes",
    "issuer",
    "rotation",
    "lifetime",
    "groups",
    "logout",
    "backchannel",
    "dpop",
)

_TOPIC_OF = {
    "invalid_client": "secret",
    "incorrect_client_credentials": "secret",
    "unsupported_grant_type": "refresh_grant",
    "unauthorized_client": "refresh_grant",
    "invalid_scope": "scopes",
    "invalid_dpop_proof": "dpop",
    "use_dpop_nonce": "dpop",
}


def topic_of(code: str, status: int, words: str = "") -> str:
    """What an operator has to look at when the token endpoint refuses the client.

    Args:
        code: its error code.
        words: its own words; Keycloak says "DPoP proof is missing" with `invalid_request`.
    """
    if "dpop" in f"{code} {words}".lower():
        return "dpop"
    if status == 401:
        return "secret"  # RFC 6749 §5.2; Keycloak says `unauthorized_client` with it
    return _TOPIC_OF.get(code, "client")


@dataclass(frozen=True, slots=True)
class Guide:
    """One provider, for people.

    Attributes:
        name: of the profile.
        steps: in its console, in order.
        config: lines of TOML that differ from the profile's defaults; `client_id` and the rest is added.
        remedies: by topic, one sentence each.
        life: how long its tokens last.
        expect: further things worth knowing, a sentence each.
        hits: what users meet: symptom and answer.
    """

    name: str
    steps: tuple[str, ...]
    config: tuple[str, ...] = ()
    remedies: Mapping[str, str] = field(default_factory=dict[str, str])
    life: str = ""
    expect: tuple[str, ...] = ()
    hits: tuple[tuple[str, str], ...] = ()


GENERIC = Guide(
    "generic",
    steps=(
        "Create a confidential client (web application, server-side) that uses the authorization code flow.",
        "Allow it the grants `authorization_code` and `refresh_token`, and the scope `offline_access`.",
        "Register the redirect URI `https://app.example.com/oauth2/callback` and, for signing out, the "
        "post-logout redirect URI `https://app.example.com/oauth2/logged-out`.",
        "Copy the client id and the secret.",
    ),
    config=('issuer = "https://login.example.com"',),
    remedies={
        "refresh_token": "Allow the client the refresh_token grant and the scope offline_access; if it has "
        'both, set authorize_params = {prompt = "consent"}, without which certified providers ignore '
        "offline_access (OIDC Core §11). Then sign in again: sessions from before the change keep having no "
        "refresh token.",
        "refresh_grant": "Add refresh_token to the client's grant types.",
        "secret": "Compare client_id and client_secret with the provider's; if the secret has expired, "
        "create a new one there and put it into client_secret (or its file, which is read again by itself).",
        "client": "Compare client_id with the provider's list of clients.",
        "redirect_uri": "Register the redirect URI exactly as it is shown here.",
        "scopes": "Remove the scope from `scopes`, or allow it to the client.",
        "issuer": "Set issuer to what the provider's discovery document calls it, letter by letter; the "
        "document is at that address and /.well-known/openid-configuration.",
        "rotation": "If the provider can, allow a used refresh token some seconds of grace.",
        "lifetime": "Make the refresh token's idle time-out longer than the access token's life.",
        "groups": "Let the provider put the groups into the ID token or userinfo and name the claim in "
        "groups_claim.",
        "logout": "Register the post-logout redirect URI at the client.",
        "backchannel": "Enter it as the client's backchannel_logout_uri, and let the provider send the "
        "session id (backchannel_logout_session_required).",
        "dpop": "Do not demand DPoP of this client: an app that knows nothing of it cannot use such tokens, "
        "and a confidential client's refresh token is bound to the client already.",
    },
    life="The provider decides; `nightporter check --login` shows it.",
    hits=(
        (
            "People are signed out about once an hour.",
            "Their sessions have no refresh token: see what `check --live` says about it, change that, and "
            "sign in again.",
        ),
    ),
)
