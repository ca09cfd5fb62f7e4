"""Several providers side by side: `[providers.NAME]`, each with the settings of a configuration whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from proxy.config.checks import check
from proxy.config.declaration import Settings, Several
from proxy.config.registry import OF_A_PROVIDER, of_a_provider
from proxy.errors import Problem

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


def several_of(name: str, base: Settings, own: Mapping[str, object]) -> Several:
    """One provider: what it has of its own over what all have.

    Args:
        own: converted values by key inside the table.
    """
    from proxy.core.providers import PROFILES

    mine: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    for key, value in own.items():
        setting = of_a_provider()[key]
        (mine if key in OF_A_PROVIDER else choice)[setting.attribute] = value
    if not mine.get("provider") and name in PROFILES:
        mine["provider"] = name  # [providers.google] needs no provider = "google"
    return Several(settings=replace(base, **mine), **choice)


def check_one(name: str, one: Several, bad: set[str]) -> Iterator[Problem]:
    """What is wrong with one of the providers by itself; keys are those inside its table."""
    if not _NAME.fullmatch(name):
        # It becomes a part of the callback's address and of what the app is told.
        yield Problem(
            "", "no name for a provider", "write lower-case letters, digits and hyphens, e.g. staff"
        )
    yield from check(one.settings, bad, about=OF_A_PROVIDER)
    known = {urlsplit(url).hostname for url in one.settings.public_urls}
    for host in one.hosts:
        if host.lower() not in known:
            remedy = f"write one of {', '.join(sorted(str(each) for each in known))}"
            yield Problem("hosts", f"{host!r:.60}, no host of public_url", remedy)
    for path in one.paths:
        if not path.startswith("/"):
            yield Problem("paths", f"{path!r:.60}, no path", "write paths such as /admin/")


def check_together(several: Mapping[str, Several], base: Settings) -> Iterator[Problem]:
    """What is wrong with the providers side by side."""
    from proxy.core.providers import profile_for

    seen: dict[tuple[str, str], str] = {}
    for name, one in several.items():
        given = one.settings
        try:
            issuer = profile_for(given.provider, given.issuer).issuer_of(given.issuer)
        except KeyError:
            continue  # an unknown profile has been told
        who = (issuer, given.client_id)
        if all(who) and who in seen:
            found = f"the same issuer and client_id as providers.{seen[who]}"
            yield Problem(f"providers.{name}.client_id", found, "leave one of the two out")
        seen.setdefault(who, name)
    for url in base.public_urls:
        host = urlsplit(url).hostname or ""
        if not any(not one.hosts or host in map(str.lower, one.hosts) for one in several.values()):
            remedy = "add the host to the hosts of a provider, or leave hosts out there"
            yield Problem("providers", f"nobody signs in at {host}", remedy)
