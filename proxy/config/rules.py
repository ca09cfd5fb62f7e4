"""The table of rules that one field's declaration cannot say.

Each rule names the settings it reads and is left out where one of them is already known to
be wrong, so that one mistake makes one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proxy.config.declaration import Settings
from proxy.config.grammar import is_loopback
from proxy.errors import Problem

Rule = Callable[[Settings], Iterable[Problem]]
RULES: list[tuple[tuple[str, ...], Rule]] = []


def reads(*keys: str) -> Callable[[Rule], Rule]:
    """Put a rule into the table, with the keys of the settings that it reads."""

    def register(rule: Rule) -> Rule:
        RULES.append((keys, rule))
        return rule

    return register


def plain_allowed(scheme: str, host: str | None, settings: Settings) -> bool:
    """Whether plain HTTP is fine here: on this machine only, or in a trial that says so."""
    return scheme == "https" or settings.insecure_http or is_loopback(host or "")


def short(text: str) -> str:
    """A value that is no secret, as a message repeats it."""
    return repr(text if len(text) <= 60 else text[:57] + "…")
