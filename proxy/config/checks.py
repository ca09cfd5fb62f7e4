"""Judge a configuration as a whole: every problem, and what deserves a warning."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator

from proxy.config import rules_op, rules_store, rules_traffic
from proxy.config.declaration import Settings
from proxy.config.grammar import is_loopback
from proxy.config.redis_address import redis_address
from proxy.config.rules import RULES
from proxy.errors import Problem

RULE_MODULES = (rules_op, rules_store, rules_traffic)  # importing them fills the table


def check(settings: Settings, bad: set[str], *, about: Collection[str] = ()) -> list[Problem]:
    """Every problem of a configuration whose fields converted, except those in `bad`.

    Args:
        about: only rules that read one of these keys; empty = all.
    """
    rules = (rule for keys, rule in RULES if not bad.intersection(keys) and _concerns(keys, about))
    return [problem for rule in rules for problem in rule(settings)]


def _without_refresh_token(settings: Settings) -> Iterator[str]:
    """Providers whose sign-ins are asked for in a way that brings no refresh token."""
    from proxy.core.providers import profile_for

    several = {f"providers.{name}: ": one.settings for name, one in settings.providers.items()}
    for place, each in (several or {"": settings}).items():
        profile = profile_for(each.provider, each.issuer)
        params = profile.authorize_params if each.authorize_params is None else each.authorize_params
        missing = profile.lacks(each.scopes or profile.scopes, params)
        if missing:
            from proxy.guide import remedy  # texts that nobody needs while all is well

            asked = f"{place}sign-ins are asked for without {' and '.join(missing)}"
            why = f"{profile.title} may issue no refresh token, and sessions end with their access token"
            yield f"{asked}: {why}. {remedy(profile.name, 'refresh_token')}"


def _concerns(keys: Collection[str], about: Collection[str]) -> bool:
    return not about or not set(about).isdisjoint(keys)


def warnings(settings: Settings) -> tuple[str, ...]:
    """What is allowed and still deserves a line in the log at every start."""
    return (*_examined(settings), *cautions(settings))


def _examined(settings: Settings) -> Iterator[str]:
    """What the doctor has a check of its own for."""
    if settings.store.reveal().startswith("memory:"):
        yield "store is memory: every session ends when this process stops."
    yield from _without_refresh_token(settings)


def cautions(settings: Settings) -> tuple[str, ...]:
    """The rest of the warnings: setting and state, a colon, what that means."""
    lines: list[str] = []
    if settings.insecure_http:
        lines.append("insecure_http is on: tokens and cookies may travel in the clear. For trials only.")
    if settings.store.reveal().startswith("memory:") and not settings.cookie_keys:
        lines.append("cookie_keys is not set: random keys are used until this process stops.")
    if settings.store.reveal().startswith("redis") and not settings.store.reveal().startswith("rediss"):
        hosts = redis_address(settings.store.reveal()).hosts
        if any(not is_loopback(host) for host, _ in hosts):
            lines.append("store is Redis without TLS: sealed sessions and its password travel in the clear.")
    if "everyone" in settings.allow:
        lines.append("allow is everyone: whoever has an account at the provider comes in.")
    lines += [
        f"trusted_proxies holds {network}: anybody may say who they come from."
        for network in settings.trusted_proxies
        if ipaddress.ip_network(network).prefixlen == 0
    ]
    return tuple(lines)
