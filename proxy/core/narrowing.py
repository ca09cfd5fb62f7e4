"""Who is meant by a question about one app: oauth2-proxy's parameters of `/oauth2/auth`."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from proxy.core.identity import allowed
from proxy.core.session import Identity

KINDS = {"allowed_groups": "group:", "allowed_emails": "email:", "allowed_email_domains": ""}
"""Parameter → beginning of the rule in `allow` that means the same."""


def fits(identity: Identity, parameters: Iterable[tuple[str, str]], *, groups_known: bool) -> bool:
    """Whether somebody is among those whom the parameters name.

    Each parameter that names anybody must be met; one match within it is enough.

    Args:
        parameters: of the query; their values are lists with commas.
        groups_known: the groups are young enough to be believed.
    """
    if not groups_known:
        identity = replace(identity, groups=())
    asked = list(parameters)
    for name, kind in KINDS.items():
        named = [item.strip() for key, value in asked if key == name for item in value.split(",")]
        named = [item for item in named if item]
        if not named:
            continue
        # A domain is only that: no word and no other kind of rule may slip in by its place.
        rules = [kind + item for item in named if kind or ("." in item and ":" not in item)]
        if not rules or not allowed(identity, rules):
            return False
    return True
