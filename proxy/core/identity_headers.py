"""The header lines that tell the app who is calling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from msgspec import Struct, field

from proxy.core.headers import identity_block
from proxy.core.session import Identity, Tokens

FIXED = ("User", "Email", "Preferred-Username", "Groups", "Access-Token")
"""What follows ``X-Forwarded-`` in the names that apps already read (oauth2-proxy's)."""


class IdentityHeaders(Struct, frozen=True):
    """Which headers an app gets.

    Attributes:
        extra: further header name → claim; one of the fixed names takes another claim so.
        access_token: `X-Forwarded-Access-Token` goes along.
        authorization: so does `Authorization: Bearer`.
        groups_max_age_s: groups learned longer ago are not said any more.
        providers: their names by issuer and client id, where there are several: two of them may
            use the same `sub`, so the app is told `name:sub`.
    """

    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    access_token: bool = False
    authorization: bool = False
    groups_max_age_s: float = 86_400.0
    providers: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that we may set, to be stripped from what clients send."""
        return (*(f"X-Forwarded-{name}" for name in FIXED), *self.extra)

    @property
    def all_names(self) -> tuple[str, ...]:
        """`names`, and `Authorization` where it is ours."""
        return (*self.names, "Authorization") if self.authorization else self.names

    def block(self, identity: Identity, tokens: Tokens, now: float) -> bytes:
        """The ready lines for one version of a session.

        Args:
            now: store time, Unix seconds.
        """
        known = identity.groups_at is not None and now - identity.groups_at < self.groups_max_age_s
        values: dict[str, str | tuple[str, ...]] = {
            "X-Forwarded-User": self._user(identity, tokens),
            "X-Forwarded-Email": identity.email,
            "X-Forwarded-Preferred-Username": identity.preferred_username,
            "X-Forwarded-Groups": identity.groups if known else (),
        }
        if self.extra:
            told = {_folded(name) for name in self.extra}
            values = {name: value for name, value in values.items() if _folded(name) not in told}
        for name, path in self.extra.items():
            values[name] = said(identity, path) if known or path != "groups" else ()
        if self.access_token:
            values["X-Forwarded-Access-Token"] = tokens.access_token
        block = identity_block([pair for pair in values.items() if pair[1]])
        if self.authorization:
            block += b"Authorization: Bearer %s\r\n" % tokens.access_token.encode("ascii")
        return block

    def _user(self, identity: Identity, tokens: Tokens) -> str:
        if not self.providers:
            return identity.sub
        return f"{self.providers.get((tokens.issuer, tokens.client_id), '')}:{identity.sub}"


def _folded(name: str) -> str:
    """A name as apps tell names apart (`X_Forwarded_User` is `X-Forwarded-User` to many)."""
    return re.sub(r"[^a-z0-9]", "-", name.lower())


def said(identity: Identity, path: str) -> str | tuple[str, ...]:
    """A claim as header text: lists keep their items, everything without a plain text is ""."""
    if path in ("sub", "email", "name", "preferred_username", "iss", "sid"):
        return str(getattr(identity, path))
    if path == "groups":
        return identity.groups
    value = identity.claims.get(path)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return tuple(str(item) for item in items if isinstance(item, (str, int, float)))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else ""
