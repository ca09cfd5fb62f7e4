"""Limits of sessions and of their cache, and whose sessions are served where."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from proxy.core.origin import Origin
from proxy.core.session import Tokens


class Served(Struct, frozen=True):
    """A provider whose sessions are served.

    Attributes:
        config: epoch of the configuration, for the record.
        hosts: authorities at which they are good; empty = all.
    """

    config: str = ""
    hosts: frozenset[str] = frozenset()


class SessionPolicy(Struct, frozen=True):
    """Limits of sessions and of their cache.

    Attributes:
        idle_s: idle limit for new sessions.
        absolute_s: absolute limit, from the login.
        ttl_s: how long an entry is believed without asking the store.
        stale_s: how long it may go on while the store is away.
        max_bytes: of the cache.
        max_identity_bytes: of all identity header lines together.
        serve: by issuer and client id, whose tokens are served: a session of another OP or client is
            not ours to use, and its tokens go nowhere. Empty = not asked.
    """

    idle_s: float
    absolute_s: float
    ttl_s: float = 30.0
    stale_s: float = 300.0
    max_bytes: int = 7 << 20
    max_identity_bytes: int = 32_768
    serve: Mapping[tuple[str, str], Served] = field(default_factory=dict[tuple[str, str], Served])

    def serves(self, tokens: Tokens, origin: Origin) -> bool:
        """Whether these tokens were issued by a configured OP to its configured client, for this origin."""
        if not self.serve:
            return True
        served = self.serve.get((tokens.issuer, tokens.client_id))
        return served is not None and (not served.hosts or origin.host in served.hosts)

    def config_of(self, tokens: Tokens) -> str:
        """Epoch of the configuration under which these tokens are issued now."""
        return self.serve.get((tokens.issuer, tokens.client_id), Served()).config
