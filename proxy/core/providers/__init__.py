"""What is known about each provider: tables of frozen records, no class per provider.

A profile is what we *expect*; what a provider is observed to do wins over it (`core/observed.py`).
Nothing outside these tables asks for a provider's name. The texts for people (console steps,
remedies) are in `proxy/guide`, so that the running proxy does not carry them.
"""

from __future__ import annotations

from types import MappingProxyType

from proxy.core.providers import enterprise, everybody, self_hosted
from proxy.core.providers.profile import (
    Api,
    GroupsFrom,
    Offline,
    OwnLogout,
    Profile,
    Reach,
    Reuse,
    Revocation,
)

__all__ = [
    "PROFILES",
    "Api",
    "GroupsFrom",
    "Offline",
    "OwnLogout",
    "Profile",
    "Reach",
    "Reuse",
    "Revocation",
    "profile_for",
]

GENERIC = Profile(
    "generic",
    title="OpenID Connect",
    # django-oauth-toolkit and Canaille give a refresh token with every code and know no such scope.
    offline_scope_optional=True,
    # RFC 7009 §2.1 lets a revocation reach whatever shares the authorization grant. Certified
    # providers tie that to their own session of the person (oidc-provider: one grant per session and
    # client), so it goes out only where that session is being ended anyway.
    reach=Reach.SESSION,
    link="https://openid.net/specs/openid-connect-core-1_0.html#RefreshTokens",
    read=("how", "rotation", "reuse"),
)

PROFILES: MappingProxyType[str, Profile] = MappingProxyType(
    {profile.name: profile for profile in (GENERIC, *everybody.TABLE, *enterprise.TABLE, *self_hosted.TABLE)}
)


def profile_for(name: str, issuer: str) -> Profile:
    """The profile: as named, else the one whose issuers look like this, else the generic one."""
    if name:
        return PROFILES[name]
    return next((profile for profile in PROFILES.values() if profile.knows(issuer)), GENERIC)
