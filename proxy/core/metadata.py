"""An OP's discovery document, read strictly (OIDC Discovery §3, RFC 8414 §2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from msgspec import Struct

from proxy.core.providers import PROFILES, Api, Profile
from proxy.errors import OPUnavailable

ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "end_session_endpoint",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
)


class Metadata(Struct, frozen=True):
    """What an OP says of itself.

    Attributes:
        issuer: equal to the configured one; with ``{tenantid}`` where that stands for many tenants.
        authorization_endpoint: where people are sent.
        token_endpoint: where tokens come from.
        jwks_uri: where its keys are.
        userinfo_endpoint: "" if it has none; so for the three below.
        end_session_endpoint: RP-initiated logout.
        revocation_endpoint: RFC 7009.
        par_endpoint: RFC 9126.
        par_required: it takes no plain authorization requests.
        names_itself: it sends `iss` with authorization responses (RFC 9207).
        signing_algs: of ID tokens, as announced.
        userinfo_algs: of signed userinfo answers, as announced; mostly empty.
        auth_methods: of clients at the token endpoint.
        graph_host: where Microsoft Graph is for this cloud; "" at every other OP.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    revocation_endpoint: str = ""
    par_endpoint: str = ""
    par_required: bool = False
    names_itself: bool = False
    signing_algs: tuple[str, ...] = ("RS256",)
    userinfo_algs: tuple[str, ...] = ()
    auth_methods: tuple[str, ...] = ("client_secret_basic",)
    graph_host: str = ""


def read_metadata(
    document: object,
    issuer: str,
    allowed: Callable[[str], bool],
    before: Metadata | None = None,
    profile: Profile = PROFILES["generic"],
) -> Metadata:
    """Read a discovery document.

    Args:
        document: parsed JSON.
        issuer: as configured; must be equal, byte for byte (OIDC Discovery §4.3).
        allowed: whether an endpoint's URL may be used at all (https, or loopback).
        before: what was believed so far: a document that moves an endpoint to another host is
            not believed.
        profile: the provider's ways with issuers.

    Raises:
        OPUnavailable: it cannot be used; the detail says why.
    """
    if not isinstance(document, dict):
        raise OPUnavailable("the discovery document is no JSON object")
    body = cast("Mapping[str, Any]", document)
    found = body.get("issuer")
    if not isinstance(found, str) or not profile.metadata_fits(issuer, found):
        raise OPUnavailable(
            f"the discovery document names the issuer {found!r:.200}, configured is {issuer!r}"
        )
    urls = {name: _url(body, name, allowed) for name in ENDPOINTS}
    for name in ENDPOINTS[:3]:
        if not urls[name]:
            raise OPUnavailable(f"the discovery document has no usable {name}")
    made = Metadata(
        issuer=found,
        authorization_endpoint=urls["authorization_endpoint"],
        token_endpoint=urls["token_endpoint"],
        jwks_uri=urls["jwks_uri"],
        userinfo_endpoint=urls["userinfo_endpoint"],
        end_session_endpoint=urls["end_session_endpoint"],
        revocation_endpoint=urls["revocation_endpoint"],
        par_endpoint=urls["pushed_authorization_request_endpoint"],
        par_required=body.get("require_pushed_authorization_requests") is True,
        names_itself=body.get("authorization_response_iss_parameter_supported") is True,
        signing_algs=_words(body, "id_token_signing_alg_values_supported", ("RS256",)),
        userinfo_algs=_words(body, "userinfo_signing_alg_values_supported", ()),
        auth_methods=_words(body, "token_endpoint_auth_methods_supported", ("client_secret_basic",)),
        graph_host=_host(body.get("msgraph_host")) if profile.overage_api else "",
    )
    if before is not None:
        _refuse_moves(before, made)
    return made


def fixed_metadata(api: Api, issuer: str, base: str) -> Metadata:
    """The endpoints of a provider without discovery, as its own pages name them.

    Args:
        base: of its API.
    """
    return Metadata(
        issuer=issuer,
        authorization_endpoint=issuer.rstrip("/") + api.authorize,
        token_endpoint=issuer.rstrip("/") + api.token,
        jwks_uri="",
        userinfo_endpoint=base + "/user",
        auth_methods=("client_secret_post",),
    )


def _url(body: Mapping[str, Any], name: str, allowed: Callable[[str], bool]) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not allowed(value):
        raise OPUnavailable(f"the discovery document's {name} is no URL that may be used")
    return value


def _host(value: object) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[a-z0-9.-]+(?::\d+)?", value) else ""


def _words(body: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = body.get(name)
    if not isinstance(value, list):
        return default
    return tuple(word for word in cast("list[object]", value) if isinstance(word, str)) or default


def _refuse_moves(before: Metadata, after: Metadata) -> None:
    """Refuse a document that sends what only the OP may see (tokens, secrets, people) elsewhere.

    An endpoint that is new may only be where another one already was.
    """
    known = {_origin(url) for url in _secrets_go_to(before)}
    for name, old, new in zip(_GUARDED, _secrets_go_to(before), _secrets_go_to(after), strict=True):
        if not new or _origin(new) == _origin(old) or (not old and _origin(new) in known):
            continue
        raise OPUnavailable(
            f"the discovery document moves {name} from {_origin(old) or 'nowhere'} to {_origin(new)}: "
            "not followed; restart to accept it"
        )


_GUARDED = (
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "end_session_endpoint",
    "revocation_endpoint",
    "par_endpoint",
)


def _secrets_go_to(metadata: Metadata) -> tuple[str, ...]:
    return tuple(str(getattr(metadata, name)) for name in _GUARDED)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower() if url else ""
