"""RP-initiated logout: where the browser goes to end the OP's session too (OIDC RP-Initiated Logout §2)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit, urlunsplit

from proxy.core.metadata import Metadata
from proxy.core.providers import Profile


def end_session_url(
    metadata: Metadata,
    profile: Profile,
    *,
    id_token: str,
    client_id: str,
    return_to: str,
    state: str,
) -> str:
    """The OP's logout address with our parameters; "" if it has none or the profile knows better.

    Args:
        id_token: `id_token_hint`; left out when there is none.
        return_to: registered post-logout URL.
        state: comes back with the browser; nothing is ever taken from it.
    """
    if not metadata.end_session_endpoint or not profile.end_session:
        return ""
    params = {"client_id": client_id, "post_logout_redirect_uri": return_to, "state": state}
    if id_token:
        params = {"id_token_hint": id_token, **params}
    parts = urlsplit(metadata.end_session_endpoint)
    query = f"{parts.query}&{urlencode(params)}" if parts.query else urlencode(params)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def post_logout_target(asked: str, allowed: Sequence[str], default: str) -> str:
    """The asked-for page if it is in the allow-list, exactly; else our own signed-out page."""
    return asked if asked and asked in allowed else default
