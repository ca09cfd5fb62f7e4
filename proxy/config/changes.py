"""What differs between two configurations, and what a running process cannot take over."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proxy.config.declaration import Settings
from proxy.config.registry import Setting, declared

NEEDS_RESTART = frozenset(
    {
        *("listen", "operations_listen", "admin_listen", "journal.dir"),
        *("forward_auth.listen", "forward_auth.engine", "workers"),
    }
) | {key for key in declared() if key.partition("_")[0] == "store"}
"""What is opened once: listening sockets, the store, the journal's directory."""


def changed(before: Settings, after: Settings) -> tuple[str, ...]:
    """Keys of the settings that differ, in the order of their declaration."""
    keys = [
        setting.key for setting in declared().values() if _value(before, setting) != _value(after, setting)
    ]
    return (*keys, "providers") if before.providers != after.providers else tuple(keys)


def kept(before: Settings, after: Settings, keys: frozenset[str] = NEEDS_RESTART) -> Settings:
    """`after`, with the values that `before` has for `keys`."""
    flat: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for key in keys:
        setting = declared()[key]
        target = nested.setdefault(setting.group, {}) if setting.group else flat
        target[setting.attribute] = _value(before, setting)
    for group, values in nested.items():
        flat[group] = replace(getattr(after, group), **values)
    return replace(after, **flat)


def _value(settings: Settings, setting: Setting) -> object:
    holder: object = getattr(settings, setting.group) if setting.group else settings
    return getattr(holder, setting.attribute)
