"""What the demo's OP is asked, read strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from starlette.requests import Request

from proxy.demo.grants import AuthorizationRequest, Refused

SCOPES = ("openid", "profile", "email", "offline_access")
MAX_FORM_BYTES = 64 * 1024


class BadRequest(Exception):
    """A request that must not be answered by a redirect; the text is ours and safe to show."""


async def read_form(request: Request) -> list[tuple[str, str]]:
    """The fields of a form, read by hand: Starlette's reader wants one more dependency."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise BadRequest("The form is too large.")
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise BadRequest("The form cannot be read.") from None


def single(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Parameters by name; one that comes twice is an error (RFC 6749 §3.1)."""
    params = dict(pairs)
    if len(params) != len(pairs):
        raise BadRequest("The request repeats a parameter.")
    return params


def protocol_form(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The same for endpoints that answer programs: JSON instead of a page (RFC 6749 §3.2)."""
    try:
        return single(pairs)
    except BadRequest as error:
        raise Refused("invalid_request", str(error)) from None


def authorization_request(params: Mapping[str, str]) -> AuthorizationRequest:
    """Check what may be answered by an error at the redirect URI.

    Raises:
        Refused: with the codes of RFC 6749 §4.1.2.1 and OIDC Core §3.1.2.6.
    """
    if "request" in params:
        raise Refused("request_not_supported", "Request objects are not supported.")
    if "request_uri" in params:
        raise Refused("request_uri_not_supported", "Request objects are not supported.")
    if params.get("response_type") != "code":
        raise Refused("unsupported_response_type", "Only response_type=code.")
    if params.get("response_mode", "query") != "query":
        raise Refused("invalid_request", "Only response_mode=query.")
    scope = tuple(s for s in dict.fromkeys(params.get("scope", "").split()) if s in SCOPES)
    if "openid" not in scope:
        raise Refused("invalid_scope", "scope must contain openid.")
    challenge = params.get("code_challenge", "")
    if params.get("code_challenge_method") != "S256" or len(challenge) != 43:
        raise Refused("invalid_request", "PKCE with S256 is required here.")
    prompt = frozenset(params.get("prompt", "").split())
    if "none" in prompt and len(prompt) > 1:
        raise Refused("invalid_request", "prompt=none stands alone.")
    max_age = params.get("max_age", "")
    if max_age and not (max_age.isascii() and max_age.isdigit() and len(max_age) < 10):
        raise Refused("invalid_request", "max_age must be a number of seconds.")
    return AuthorizationRequest(
        redirect_uri=params["redirect_uri"],
        state=params.get("state", ""),
        nonce=params.get("nonce", ""),
        scope=scope,
        code_challenge=challenge,
        prompt=prompt,
        max_age_s=int(max_age) if max_age else None,
    )
