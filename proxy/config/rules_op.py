"""Rules about the OpenID provider, the client there, and who may come in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from proxy.config.declaration import Settings
from proxy.config.grammar import DOMAIN, web_url
from proxy.config.rules import plain_allowed, reads, short
from proxy.errors import Problem

if TYPE_CHECKING:
    from proxy.core.providers import Profile

# Issuers that let the whole world sign in, where no profile says so (design: open providers).
_OPEN_HOSTS = frozenset({"accounts.google.com", "gitlab.com", "github.com", "appleid.apple.com"})

# Parameters that make the request what it is; an operator who sets one breaks or weakens it.
_OWN_PARAMETERS = frozenset(
    {
        *("client_id", "client_secret", "code_challenge", "code_challenge_method", "nonce", "redirect_uri"),
        *("request", "request_uri", "response_mode", "response_type", "scope", "state"),
    }
)


@reads("issuer", "provider", "insecure_http")
def _issuer(settings: Settings) -> Iterator[Problem]:
    profiles = _profiles()
    if settings.provider and settings.provider not in profiles:
        known = ", ".join(sorted(profiles))
        yield Problem("provider", f"no profile {short(settings.provider)}", f"write one of {known}")
        return
    profile = profiles.get(settings.provider)
    fixed = profile.issuer if profile else ""
    if not settings.issuer:
        if not settings.provider:
            remedy = "set issuer to the OP's issuer URL, or provider to a known one such as google"
            yield Problem("issuer", "neither issuer nor provider is set", remedy)
        elif not fixed:
            remedy = f"set issuer too, e.g. {profile.issuer_example if profile else ''}"
            yield Problem("issuer", f"not set, and {settings.provider} has no issuer of its own", remedy)
        return
    if fixed and fixed != settings.issuer and (profile is None or profile.openid):
        remedy = "leave one of the two out"
        yield Problem("issuer", f"not the issuer of provider {settings.provider}, {fixed}", remedy)
        return
    try:
        url = web_url(settings.issuer)
    except ValueError as error:
        remedy = "write the issuer of the OP's discovery document, e.g. https://login.example.com/realms/main"
        yield Problem("issuer", f"not an absolute URL ({error})", remedy)
        return
    if "?" in settings.issuer or "#" in settings.issuer:
        # OpenID Connect Discovery 1.0 §3: an issuer has neither query nor fragment.
        yield Problem("issuer", "a URL with a query or a fragment", "cut it off at the `?` or `#`")
    if settings.issuer.endswith("/.well-known/openid-configuration"):
        yield Problem("issuer", "the discovery document's URL", "cut off /.well-known/openid-configuration")
    if not plain_allowed(url.scheme, url.hostname, settings):
        remedy = "write https://, or set insecure_http = true for a trial"
        yield Problem("issuer", "plain http to a host that is not this machine", remedy)


@reads("client_id")
def _client_id(settings: Settings) -> Iterator[Problem]:
    if not settings.client_id.strip():
        yield Problem("client_id", "not set", "set it to the client id that the OP shows for this app")


@reads("client_auth", "client_secret", "client_secret_next", "client_key")
def _client_auth(settings: Settings) -> Iterator[Problem]:
    method = settings.client_auth
    if method in ("basic", "post", "client_secret_jwt") and not settings.client_secret:
        remedy = "set client_secret or NIGHTPORTER_CLIENT_SECRET_FILE"
        yield Problem("client_secret", f'not set, but client_auth is "{method}"', remedy)
    if method == "private_key_jwt" and not settings.client_key:
        remedy = "set client_key or NIGHTPORTER_CLIENT_KEY_FILE to a PEM or JWK private key"
        yield Problem("client_key", f'not set, but client_auth is "{method}"', remedy)
    if method == "auto" and not settings.client_secret and not settings.client_key:
        remedy = 'set client_secret or client_key, or client_auth = "none" for a public client'
        yield Problem("client_secret", "not set, and no client_key either", remedy)
    if method == "none" and (settings.client_secret or settings.client_key):
        which = "client_secret" if settings.client_secret else "client_key"
        yield Problem(which, 'set, but client_auth is "none"', 'remove it, or write client_auth = "auto"')
    if settings.client_secret_next and not settings.client_secret:
        remedy = "set client_secret, or write this one there"
        yield Problem("client_secret_next", "set, but there is no client_secret", remedy)
    key = settings.client_key.reveal().lstrip()
    if key and not re.match(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\{", key):
        remedy = "write a PEM block (BEGIN PRIVATE KEY) or a private JWK (a JSON object)"
        yield Problem("client_key", "neither a PEM private key nor a JWK", remedy)


@reads("scopes", "provider", "issuer")
def _scopes(settings: Settings) -> Iterator[Problem]:
    for scope in settings.scopes:
        # RFC 6749 §3.3: scope-token
        if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope):
            yield Problem("scopes", f"{short(scope)}, no scope", "write words such as openid profile email")
    if settings.scopes and "openid" not in settings.scopes and _profile(settings).openid:
        remedy = "write openid first: without it there is no ID token"
        yield Problem("scopes", "no openid in it", remedy)


@reads("authorize_params")
def _authorize_params(settings: Settings) -> Iterator[Problem]:
    own = sorted(_OWN_PARAMETERS.intersection(settings.authorize_params or ()))
    if own:
        remedy = "remove it: Nightporter sets it" + (" (use scopes)" if "scope" in own else "")
        yield Problem("authorize_params", f"{', '.join(own)} in it", remedy)


@reads("groups_claim")
def _groups_claim(settings: Settings) -> Iterator[Problem]:
    if settings.groups_claim and any(not part for part in settings.groups_claim.split(".")):
        yield Problem("groups_claim", short(settings.groups_claim), "write a claim's name, e.g. groups")


@reads("allow", "issuer", "provider", "groups_claim")
def _allow(settings: Settings) -> Iterator[Problem]:
    profile = _profile(settings)
    tenants = bool(profile.tenant_claim)
    groups = bool(settings.groups_claim) or profile.groups_from != "nowhere"
    for rule in settings.allow:
        kind, colon, value = rule.partition(":")
        match (colon and kind, value):
            case ("tenant", word) if word.strip() and not tenants:
                # A rule that can never match would deny without a word of why.
                found = f"{short(rule)}, but this provider's accounts belong to no tenant"
                yield Problem("allow", found, "remove it; tenant: is for provider entra and google")
            case ("group", word) if word.strip() and not groups:
                found = f"{short(rule)}, but {profile.title} tells no groups"
                yield Problem("allow", found, "write tenant:, a domain or email: instead")
            case ("email", address) if re.fullmatch(r"[^@\s,]+@[^@\s,]+", address):
                pass
            case ("group" | "sub" | "tenant", word) if word.strip():
                pass
            case ("", _) if rule == "everyone" or DOMAIN.fullmatch(rule.lower()):
                pass
            case _:
                remedy = "write a domain, email:ADDRESS, group:NAME, sub:SUBJECT, or everyone"
                hint = f"; here email:{rule}" if re.fullmatch(r"[^@:\s]+@[^@:\s]+", rule) else ""
                yield Problem("allow", f"{short(rule)}, no rule", remedy + hint)
    if "everyone" in settings.allow and len(settings.allow) > 1:
        remedy = "remove everyone, or everything else"
        yield Problem("allow", "everyone beside rules that then mean nothing", remedy)


@reads("allow", "issuer", "provider")
def _open(settings: Settings) -> Iterator[Problem]:
    if settings.allow or not _lets_everybody_in(settings):
        return
    who = settings.provider or urlsplit(settings.issuer).hostname
    remedy = "set allow to domains, email:ADDRESS, group:NAME or sub:SUBJECT, or to the word everyone"
    yield Problem("allow", f"not set, but anybody in the world can sign in at {who}", remedy)


@reads("ca_file")
def _ca_file(settings: Settings) -> Iterator[Problem]:
    if not settings.ca_file:
        return
    try:
        with open(settings.ca_file, "rb") as stream:
            good = b"-----BEGIN CERTIFICATE-----" in stream.read(1 << 24)
        found = f"{settings.ca_file} holds no PEM certificate"
    except OSError as error:
        good, found = False, f"{settings.ca_file}: {error.strerror}"
    except ValueError:  # a NUL in the path
        good, found = False, "no path of a file"
    if not good:
        yield Problem("ca_file", found, "name a readable PEM file with the CA's certificates")


@reads("op.proxy")
def _op_proxy(settings: Settings) -> Iterator[Problem]:
    proxy = settings.op.proxy.reveal()
    url = re.fullmatch(r"(https?://)(?:[^/@\s]*@)?([^/@\s]+)/?", proxy)
    try:
        if proxy:
            web_url(url[1] + url[2] if url else "")
    except ValueError:
        yield Problem("op.proxy", "no URL of a proxy", "write e.g. http://proxy.example.com:3128")


@reads("op.timeout_s", "op.connect_timeout_s", "refresh.wait_s")
def _waits(settings: Settings) -> Iterator[Problem]:
    op = settings.op
    if op.connect_timeout_s > op.timeout_s:
        found = f"{op.connect_timeout_s:g}, longer than op.timeout_s = {op.timeout_s:g}"
        yield Problem("op.connect_timeout_s", found, "write op.connect_timeout_s <= op.timeout_s")
    # A request gains nothing by waiting on after the calls it waits for were given up: the first
    # and, after an ambiguous end, one more inside the grace (design of the refresh).
    if settings.refresh.wait_s > 2 * op.timeout_s:
        found = f"{settings.refresh.wait_s:g}, longer than two requests to the OP may take"
        yield Problem("refresh.wait_s", found, f"write at most 2 x op.timeout_s = {2 * op.timeout_s:g}")


@reads("refresh.min_life_s", "refresh.max_life_s")
def _lives(settings: Settings) -> Iterator[Problem]:
    refresh = settings.refresh
    if refresh.min_life_s > refresh.max_life_s:
        found = f"{refresh.min_life_s:g}, longer than refresh.max_life_s = {refresh.max_life_s:g}"
        yield Problem("refresh.min_life_s", found, "write refresh.min_life_s <= refresh.max_life_s")


def _profiles() -> Mapping[str, Profile]:
    from proxy.core.providers import PROFILES

    return PROFILES


def _profile(settings: Settings) -> Profile:
    from proxy.core.providers import PROFILES, profile_for

    known = not settings.provider or settings.provider in PROFILES
    return profile_for(settings.provider if known else "generic", settings.issuer)


def _lets_everybody_in(settings: Settings) -> bool:
    host = (urlsplit(settings.issuer).hostname or "").rstrip(".")
    if host in _OPEN_HOSTS:
        return True
    # Whatever profile is named: the issuer says who is at the door.
    by_issuer = (profile for profile in _profiles().values() if profile.knows(settings.issuer.rstrip(".")))
    return any(profile.lets_everybody_in(settings.issuer) for profile in (_profile(settings), *by_issuer))
