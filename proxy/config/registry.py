"""The declared settings as a flat list: key, variable, kind, limits, default of each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args, get_origin

from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import fields

from proxy.config.declaration import (
    Cache,
    ForwardAuth,
    Journal,
    Limits,
    Op,
    Refresh,
    Settings,
    Several,
    Timeouts,
    Tls,
    UpstreamTls,
)
from proxy.config.secret import Secret, SecretUrl

GROUPS: dict[str, type[Struct]] = {
    "refresh": Refresh,
    "cache": Cache,
    "op": Op,
    "journal": Journal,
    "limits": Limits,
    "timeouts": Timeouts,
    "tls": Tls,
    "upstream_tls": UpstreamTls,
    "forward_auth": ForwardAuth,
}

NOT_PLAIN = frozenset({"providers", "settings"})
"""Holds settings itself: see `several.py`."""

KINDS: dict[Any, str] = {
    str: "text",
    bool: "flag",
    int: "whole",
    float: "number",
    tuple: "list",
    dict: "table",
    Literal: "choice",
    Secret: "secret",
    SecretUrl: "url",
}


class Setting(Struct, frozen=True, kw_only=True):
    """One setting as its declaration says it.

    Attributes:
        key: as TOML writes it, e.g. ``refresh.wait_s``.
        attribute: the field's name in its group.
        kind: text, flag, whole, number, list, table, choice, secret or url.
        type: the annotated type, for msgspec.
    """

    key: str
    group: str
    attribute: str
    kind: str
    type: Any
    meta: Meta
    choices: tuple[str, ...]
    default: Any

    @property
    def variable(self) -> str:
        return "NIGHTPORTER_" + self.key.replace(".", "_").upper()

    @property
    def has_file(self) -> bool:
        """Whether the value may also come from a file: ``…_FILE``, ``…_file``."""
        return self.kind in ("secret", "url")

    @property
    def unit(self) -> str:
        for suffix, unit in (("_s", "seconds"), ("_bytes", "bytes"), ("_share", "share")):
            if self.kind in ("whole", "number") and self.key.endswith(suffix):
                return unit
        return ""

    @property
    def help(self) -> str:
        return self.meta.description or ""


def _settings(struct: type[Struct], group: str) -> Iterator[Setting]:
    for each in fields(struct):
        if each.encode_name in NOT_PLAIN:
            continue
        if each.encode_name in GROUPS and not group:
            yield from _settings(GROUPS[each.encode_name], each.encode_name)
            continue
        base, meta = get_args(each.type)
        shape = get_origin(base) or base
        if shape not in KINDS:  # dict | None
            shape = get_origin(get_args(base)[0])
        kind = KINDS[shape]
        yield Setting(
            key=f"{group}.{each.encode_name}" if group else each.encode_name,
            group=group,
            attribute=each.name,
            kind=kind,
            type=each.type,
            meta=meta,
            choices=get_args(base) if kind == "choice" else (),
            default=each.default_factory() if each.default is NODEFAULT else each.default,
        )


OF_A_PROVIDER = (
    *("provider", "issuer", "client_id", "client_secret", "client_secret_next", "client_key"),
    *("client_auth", "scopes", "authorize_params", "allow", "groups_claim"),
)
"""What each of several providers may have of its own."""

NEVER_SHARED = frozenset(
    {"provider", "issuer", "client_id", "client_secret", "client_secret_next", "client_key"}
)
"""What several providers cannot have in common."""


@cache
def of_a_provider() -> dict[str, Setting]:
    """The settings of a table `[providers.NAME]`, by their key inside it."""
    found = {key: declared()[key] for key in OF_A_PROVIDER}
    return found | {setting.key: setting for setting in _settings(Several, "")}


@cache
def declared() -> dict[str, Setting]:
    """Every setting by its key, in the order of the declaration."""
    return {setting.key: setting for setting in _settings(Settings, "")}
