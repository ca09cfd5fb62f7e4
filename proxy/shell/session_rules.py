"""How sessions are served under one configuration."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from proxy.core.gate import Forward
from proxy.core.session import Identity, Tokens
from proxy.core.session_policy import SessionPolicy
from proxy.core.timing import RefreshPolicy
from proxy.shell.open_session import OpenSession


class SessionRules(Struct, frozen=True):
    """See the module's docstring.

    Attributes:
        policy: limits.
        refresh: renewal policy (for the first due time).
        block: makes the header lines that tell the app who is calling, at a store time.
        dress: completes a session's verdict (hooks of the data path).
    """

    policy: SessionPolicy
    refresh: RefreshPolicy
    block: Callable[[Identity, Tokens, float], bytes]
    dress: Callable[[OpenSession, Forward], Forward]
