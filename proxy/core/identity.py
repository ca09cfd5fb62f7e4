"""From claims to an identity, and who may come in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import Struct

from proxy.core.providers import GroupsFrom, Profile
from proxy.core.session import Identity
from proxy.errors import LoginError

MAX_GROUPS_CHARS = 65_536
MAX_CLAIMS_CHARS = 65_536
"""Further claims that headers name, all together."""

MAX_TEXT_CHARS = 1024
"""A longer name or address is none: whatever it is, it is not for a header."""


class ClaimRules(Struct, frozen=True):
    """Which claims mean what.

    Attributes:
        profile: the provider's ways with claims.
        groups: path of the groups, dots go down into objects; "" = the profile's.
        extra: further claims to keep, by path.
    """

    profile: Profile
    groups: str = ""
    extra: tuple[str, ...] = ()

    @property
    def groups_claim(self) -> str:
        """Path of the groups."""
        return self.groups or self.profile.groups_claim


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by path; an exact name wins over a path (Auth0 names claims by URL)."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        if not isinstance(value, dict):
            return None
        value = cast("dict[str, Any]", value).get(part)
    return value


def identity_of(claims: Mapping[str, Any], rules: ClaimRules, now: float, *, nonce: str = "") -> Identity:
    """The identity that these claims describe.

    Raises:
        LoginError: the groups are larger than any header can carry.
    """
    verified, denied = _email_verified(claims, rules.profile.email_verified_claim)
    email = _text(claims.get("email"))
    groups = _groups(claim(claims, rules.groups_claim))
    return Identity(
        iss=_text(claims.get("iss")),
        sub=_text(claims.get("sub")),
        email="" if denied else email,
        email_verified=verified or (bool(email) and not denied and rules.profile.email_trusted),
        preferred_username=next(
            (text for name in rules.profile.username_claims if (text := _text(claims.get(name)))), ""
        ),
        name=_text(claims.get("name")),
        tenant=_text(claims.get(rules.profile.tenant_claim)) if rules.profile.tenant_claim else "",
        groups=groups or (),
        groups_at=now if groups is not None else None,
        sid=_text(claims.get("sid")),
        auth_time=_number(claims.get("auth_time")),
        nonce=nonce,
        claims=_extra(claims, rules.extra),
    )


def _email_verified(claims: Mapping[str, Any], own_claim: str) -> tuple[bool, bool]:
    """Whether the address is said to be verified, and whether it is said not to be."""
    if own_claim != "email_verified" and own_claim in claims:
        # Entra's `xms_edov` comes as a boolean, a number or a text.
        verified = str(claims[own_claim]).lower() in ("true", "1")
        return verified, not verified
    said = claims.get("email_verified")
    verified = said is True or said == "true"  # Cognito sends a string
    return verified, "email_verified" in claims and not verified


def groups_elsewhere(claims: Mapping[str, Any], rules: ClaimRules) -> bool:
    """Whether the ID token says that there are groups, too many to name (Entra's overage)."""
    if not rules.profile.overage_api or claim(claims, rules.groups_claim) is not None:
        return False
    names = claims.get("_claim_names")
    named = isinstance(names, dict) and "groups" in cast("dict[str, Any]", names)
    return named or claims.get("hasgroups") in (True, "true")


def merged(claims: Mapping[str, Any] | None, userinfo: Mapping[str, Any] | None) -> dict[str, Any]:
    """What both say together; the signed ID token wins, and `email_verified` stays with its address.

    Userinfo's `email_verified` speaks of userinfo's `email`. It is taken for the ID token's address
    only if both are the same.
    """
    told = {**(userinfo or {}), **(claims or {})}
    alone = claims is not None and "email" in claims and "email_verified" not in claims
    if alone and (userinfo or {}).get("email") != told["email"]:
        told.pop("email_verified", None)
    return told


def refreshed_identity(
    claims: Mapping[str, Any] | None,
    userinfo: Mapping[str, Any] | None,
    before: Identity,
    rules: ClaimRules,
    now: float,
) -> Identity:
    """The identity after a refresh: what is said anew replaces, what is not said stays.

    Missing groups never mean "no groups" (GitLab, Authelia and Entra leave them out of refreshed ID
    tokens); `groups_at` keeps telling how old they are.
    """
    told = merged(claims, userinfo)
    if "email" not in told and "email_verified" in told:
        told["email"] = before.email
    told["iss"], told["sub"] = before.iss, before.sub
    new = identity_of(told, rules, now, nonce=before.nonce)
    said_email = "email" in told
    return Identity(
        iss=before.iss,
        sub=before.sub,
        email=new.email if said_email else before.email,
        email_verified=new.email_verified if said_email else before.email_verified,
        preferred_username=new.preferred_username or before.preferred_username,
        name=new.name or before.name,
        tenant=new.tenant or before.tenant,
        groups=new.groups if new.groups_at is not None else before.groups,
        groups_at=new.groups_at if new.groups_at is not None else before.groups_at,
        sid=new.sid or before.sid,
        auth_time=before.auth_time,
        nonce=before.nonce,
        claims={**before.claims, **new.claims},
    )


def needs_userinfo(claims: Mapping[str, Any], scopes: Sequence[str], rules: ClaimRules) -> bool:
    """Whether a sign-in's ID token lacks what was asked for."""
    if "email" in scopes and "email" not in claims:
        return True
    if "profile" in scopes and not claims.keys() & {"name", "preferred_username"}:
        return True
    wanted = "groups" in scopes or rules.profile.groups_from in (GroupsFrom.USERINFO, GroupsFrom.API)
    if wanted and claim(claims, rules.groups_claim) is None:
        return True
    return any(claim(claims, path) is None for path in rules.extra)


def allowed(identity: Identity, allow: Sequence[str]) -> bool:
    """Whether this person may come in; an empty list leaves it to the OP.

    A domain matches the part behind the one `@` of a *verified* address, whole and without
    regard to case (`evil@example.com@evil.org`, GHSA-c5c4-8r6x-56w3, matches nothing).
    """
    if not allow or "everyone" in allow:
        return True
    address = _lower(identity.email) if identity.email_verified else ""
    local, _, domain = address.partition("@")
    domain = domain if local and address.isprintable() and " " not in address and "@" not in domain else ""
    for entry in allow:
        kind, _, value = entry.partition(":")
        match kind:
            case "email" if value:
                hit = bool(domain) and address == _lower(value)
            case "group" if value:
                hit = value in identity.groups
            case "sub" if value:
                hit = identity.sub == value
            case "tenant" if value:
                hit = identity.tenant == value
            case _:
                hit = bool(domain) and domain == _lower(entry).removeprefix("@")
        if hit:
            return True
    return False


def _lower(text: str) -> str:
    """ASCII letters in lower case, the rest as it is: `str.lower` turns the Kelvin sign into a k."""
    return text.encode(errors="surrogatepass").lower().decode(errors="surrogatepass")


def _text(value: object) -> str:
    """A text that can be stored and sent: of reasonable length and real Unicode."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS or not _sound(value):
        return ""
    return value


def _sound(text: str) -> bool:
    """Whether there are no lone surrogates in it (JSON's \\ud800 makes some; UTF-8 has none)."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e12:
        return 0.0
    return float(value) if math.isfinite(value) else 0.0


def _extra(claims: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The further claims that are there and can be stored."""
    found: dict[str, Any] = {}
    size = 0
    for path in paths:
        value = claim(claims, path)
        if value is None:
            continue
        try:
            size += len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
        except (ValueError, RecursionError):  # no JSON: NaN, lone surrogates, bottomless nesting
            continue
        found[path] = value
    if size > MAX_CLAIMS_CHARS:
        raise LoginError(
            "claims_too_large",
            "The identity provider says more about your account than can be passed on. The operator can ask "
            "it for less.",
            status=403,
        )
    return found


def _groups(value: object) -> tuple[str, ...] | None:
    """Group names; None if nothing was said about groups.

    A list of names, one name, or an object whose keys are the names (Zitadel's roles).
    """
    if value is None:
        return None
    items: list[object] = list(cast("list[object]", value)) if isinstance(value, (list, dict)) else [value]
    groups = tuple(item for item in items if isinstance(item, str) and item and _sound(item))
    if sum(len(group) + 1 for group in groups) > MAX_GROUPS_CHARS:
        raise LoginError(
            "groups_too_large",
            "Your account is in more groups than can be passed on. The operator can ask the identity "
            "provider for fewer.",
            status=403,
        )
    return groups
