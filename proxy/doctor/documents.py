"""What an OP's own documents say about the configuration: pure judgements, no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from proxy.config import Settings
from proxy.core.providers import Offline, Profile, Revocation
from proxy.doctor.report import Finding, fail, ok, warn
from proxy.guide import remedy

Document = Mapping[str, Any]

WEAK = frozenset({"none", "HS256", "HS384", "HS512"})


def issuer(document: Document, configured: str, profile: Profile) -> Finding:
    """Whether the document is the configured issuer's, with the difference if it is not."""
    found = document.get("issuer")
    if isinstance(found, str) and profile.metadata_fits(configured, found):
        return ok("op.issuer", f"the discovery document names the issuer {found}")
    why = "ID tokens name the document's issuer and would all be refused."
    return fail("op.issuer", difference(configured, found), why, remedy(profile.name, "issuer"))


def difference(configured: str, found: object) -> str:
    """Where two issuers differ, in words."""
    if not isinstance(found, str):
        return "the discovery document names no issuer"
    said = f"configured is {configured}, the discovery document says {found}"
    if configured.rstrip("/") == found.rstrip("/"):
        return f"{said}: a slash at the end is {'missing' if found.endswith('/') else 'too much'}"
    if configured.lower() == found.lower():
        return f"{said}: capitals differ"
    one, two = urlsplit(configured), urlsplit(found)
    if one.scheme != two.scheme and one[1:] == two[1:]:
        return f"{said}: {one.scheme} instead of {two.scheme}"
    if one.netloc != two.netloc and one[2:] == two[2:]:
        return f"{said}: another host"
    if "{" in found:
        return f"{said}: that is a template for many tenants; name one tenant, or use provider entra"
    return said


def endpoints(document: Document, profile: Profile, pages: str) -> Iterator[Finding]:
    """Sign-out and revocation: what the OP offers of it.

    Args:
        pages: public address of our pages.
    """
    if document.get("end_session_endpoint") and profile.end_session:
        yield ok("op.logout", "it has a logout endpoint")
    elif profile.own_logout is not None:
        yield ok("op.logout", f"it is left by its own address {profile.own_logout.path}")
    elif not profile.end_session:
        # Nothing that anybody could change: no warning that would never go away.
        yield ok("op.logout", remedy(profile.name, "logout"))
    else:
        yield warn(
            "op.logout",
            "it has no logout endpoint",
            "A sign-out ends the session here; at the provider the person stays signed in.",
            remedy(profile.name, "logout"),
        )
    if document.get("revocation_endpoint") or profile.revocation is Revocation.LOGOUT:
        yield ok("op.revocation", "tokens can be given back")
    else:
        yield warn(
            "op.revocation",
            "it has no revocation endpoint",
            "After a sign-out the refresh token, which nobody holds any more, ages out at the provider.",
            "Nothing to do; a short refresh token life helps.",
        )
    where = remedy(profile.name, "backchannel")
    if document.get("backchannel_logout_supported") is True:
        told = f"it can tell of sign-outs there, at {pages}/backchannel-logout. {where}"
        if document.get("backchannel_logout_session_supported") is not True:
            told += " It announces no session id: a sign-out there ends all of the person's sessions here."
        yield ok("op.backchannel", told)
    elif (
        document.get("frontchannel_logout_supported") is True or document.get("http_logout_supported") is True
    ):
        told = "it can tell of sign-outs there through the browser only, best effort"
        yield ok("op.backchannel", f"{told}, at {pages}/frontchannel-logout. {where}")


def algorithms(document: Document, jwks: Document, profile: Profile) -> Iterator[Finding]:
    """Keys and signature algorithms."""
    keys = [cast("Document", key) for key in _list(jwks, "keys") if isinstance(key, dict)]
    signing = [
        key for key in keys if key.get("use", "sig") == "sig" and key.get("kty") in ("RSA", "EC", "OKP")
    ]
    announced = set(_words(document, "id_token_signing_alg_values_supported")) or {"RS256"}
    usable = announced - WEAK
    if not usable:
        yield fail(
            "op.algorithms",
            f"it signs ID tokens with {', '.join(sorted(announced))} only",
            "Only public-key signatures are accepted.",
            "Let the provider sign with RS256, PS256, ES256 or EdDSA.",
        )
    else:
        yield ok("op.algorithms", f"ID tokens are signed with {', '.join(sorted(usable))}")
    kinds = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
    wanted = {kinds[alg[:2]] for alg in usable if alg[:2] in kinds}
    if not signing:
        yield fail("op.jwks", "the key set holds no signing key", "No ID token can be verified.", "")
    elif wanted and not wanted & {key.get("kty") for key in signing}:
        found = ", ".join(sorted({str(key.get("kty")) for key in signing}))
        yield fail(
            "op.jwks",
            f"the key set holds {found} keys, announced is {', '.join(sorted(usable))}",
            "No ID token can be verified.",
            "Publish the keys that sign.",
        )
    else:
        yield ok("op.jwks", f"{len(signing)} signing key{'s' if len(signing) != 1 else ''}")


def abilities(document: Document, profile: Profile) -> Iterator[Finding]:
    """Response types, PKCE, grants."""
    types = _words(document, "response_types_supported")
    if types and "code" not in types:
        yield fail(
            "op.response_types",
            f"it announces the response types {', '.join(types)}, and no code",
            "Sign-ins use the authorization code flow only.",
            "Allow the authorization code flow at the provider and for this client.",
        )
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and methods and "S256" not in methods:
        yield fail(
            "op.pkce",
            "it announces PKCE without S256",
            "Every sign-in uses PKCE with S256.",
            "Allow S256 for this client.",
        )
    else:
        yield ok("op.pkce", "PKCE with S256" if methods else "PKCE is not announced; it is used anyway")
    grants = document.get("grant_types_supported")
    # RFC 8414 §2: an absent list means authorization_code and implicit; many OPs leave it out all the same.
    if isinstance(grants, list) and "refresh_token" not in grants and profile.offline is not Offline.NEVER:
        yield warn(
            "op.grants",
            "the list of grants has no refresh_token",
            "Without it sessions end with their access token.",
            remedy(profile.name, "refresh_grant"),
        )
    elif profile.offline is not Offline.NEVER:
        yield ok("op.grants", "the refresh grant is offered" if grants else "grants are not announced")


def names_itself(document: Document, *, several: bool) -> Finding:
    """Whether answers to a sign-in say which provider they come from (RFC 9207, against mix-up)."""
    if document.get("authorization_response_iss_parameter_supported") is True:
        return ok("op.iss", "its answers name their issuer (RFC 9207)")
    if several:
        return warn(
            "op.iss",
            "its answers do not name their issuer (RFC 9207)",
            "Beside other providers that would tell a mixed-up answer; each callback address does it, too.",
            "Switch it on if the provider can; else nothing.",
        )
    return ok("op.iss", "its answers do not name their issuer; it is the only provider here")


def client_auth(document: Document, method: str, profile: Profile) -> Finding:
    """Whether the OP takes the way in which the client proves itself.

    Args:
        method: as RFC 8414 names it.
    """
    offered = _words(document, "token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    if method in offered:
        return ok("op.client_auth", f"the client proves itself by {method}")
    return warn(
        "op.client_auth",
        f"the client proves itself by {method}; announced is {', '.join(offered)}",
        "The token endpoint may refuse the client.",
        "Set client_auth to a method that is announced.",
    )


def asked_for(document: Document, settings: Settings, profile: Profile) -> Iterator[Finding]:
    """Whether what a sign-in asks for brings a refresh token, and is known to the OP."""
    scopes = settings.scopes or profile.scopes
    params = settings.authorize_params
    params = profile.authorize_params if params is None else params
    why = "Sessions without a refresh token end with their access token, mostly after an hour."
    known = _words(document, "scopes_supported")
    unasked = profile.offline is Offline.SCOPE and "offline_access" not in scopes
    if unasked and profile.offline_scope_optional and known and "offline_access" not in known:
        yield warn(
            "config.refresh_token",
            "cannot tell: offline_access is neither among the scopes nor among the announced ones",
            "Sessions without a refresh token end with their access token.",
            "`check --login` tells for certain. If there is none: " + remedy(profile.name, "refresh_token"),
        )
    elif unasked:
        yield fail(
            "config.refresh_token",
            "offline_access is not among the scopes",
            why,
            "Add offline_access to scopes. " + remedy(profile.name, "refresh_token"),
        )
    elif missing := profile.lacks(scopes, params):
        yield fail(
            "config.refresh_token",
            f"the authorization request lacks {', '.join(missing)}",
            why,
            remedy(profile.name, "refresh_token"),
        )
    else:
        yield ok("config.refresh_token", _how(profile))
    refused = profile.offline is Offline.PARAMETER and "offline_access" in scopes
    unknown = [scope for scope in scopes if known and scope not in known]
    if refused:
        yield fail(
            "config.scopes",
            "offline_access is among the scopes",
            f"{profile.title} has no such scope and may refuse the sign-in.",
            remedy(profile.name, "scopes"),
        )
    elif unknown:
        yield warn(
            "config.scopes",
            f"not among the announced scopes: {' '.join(unknown)}",
            "The provider may refuse or ignore them. Not every provider announces all.",
            remedy(profile.name, "scopes"),
        )
    elif scopes:
        yield ok("config.scopes", " ".join(scopes))


def _how(profile: Profile) -> str:
    match profile.offline:
        case Offline.SCOPE:
            return "offline_access is asked for"
        case Offline.PARAMETER:
            said = " and ".join(f"{name}={value}" for name, value in profile.authorize_params.items())
            return f"{said} are asked for"
        case Offline.ALWAYS:
            return f"{profile.title} issues a refresh token with every code"
        case Offline.CLIENT:
            return "a setting of the client decides; `--login` shows it"
        case Offline.NEVER:
            return "there is none here, and access tokens do not end"


def _list(document: Document, name: str) -> list[object]:
    value = document.get(name)
    return cast("list[object]", value) if isinstance(value, list) else []


def _words(document: Document, name: str) -> list[str]:
    return [word for word in _list(document, name) if isinstance(word, str)]
