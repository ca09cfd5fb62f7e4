"""What all connections of one listener share: the door, the limits, the app, the figures.

A site also keeps the coarse clock: one `tick` a second moves it, so no connection needs a
timer, and setting a deadline costs an addition.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.shell.done import Counters, Done
from proxy.wire.date import http_date
from proxy.wire.head import RequestHeads
from proxy.wire.response import ResponseHeads

if TYPE_CHECKING:
    from proxy.shell.client import Client
    from proxy.shell.handover import PageServer
    from proxy.shell.serving import Serving

log = logging.getLogger("nightporter.datapath")

SWEEP_S = 1.0
"""How often the coarse clock moves, and so how old it may be."""


class Site:
    """See the module's docstring.

    Args:
        serving: the configuration.
        pages: our own pages; None = there are none here.
        on_done: called once per exchange; must not raise and must not block.
    """

    __slots__ = (
        "_date",
        "_date_at",
        "_id_prefix",
        "_ids",
        "_trust",
        "_trusted",
        "admit",
        "connections",
        "counters",
        "draining",
        "limits",
        "now",
        "on_done",
        "on_idle",
        "pages",
        "policy",
        "request_heads",
        "response_heads",
        "timeouts",
        "upstreams",
    )

    def __init__(
        self,
        serving: Serving,
        *,
        pages: PageServer | None = None,
        on_done: Callable[[Done], None] | None = None,
    ) -> None:
        self.pages = pages
        self.on_done = on_done
        self.counters = Counters()
        self.connections: set[Client] = set()
        self._serve(serving)
        self.draining = False
        self.on_idle: Callable[[], None] | None = None
        self.now = time.monotonic()
        self._id_prefix = secrets.token_hex(5).encode("ascii")
        self._ids = 0
        self._date = b""
        self._date_at = 0

    def _serve(self, serving: Serving) -> None:
        limits, policy = serving.limits, serving.policy
        self.admit = serving.door.admit
        self.policy = policy
        self.limits = limits
        self.timeouts = serving.timeouts
        self.upstreams = serving.upstreams
        for pool in serving.upstreams.pools() if serving.upstreams is not None else ():
            pool.counters = self.counters
        self.request_heads = RequestHeads(policy, limits.request_head)
        self.response_heads = ResponseHeads(policy, limits.response_head)
        self._trusted = serving.trusted
        self._trust: dict[str, bool] = {}

    def reconfigure(self, serving: Serving) -> None:
        """Read every head that comes from now on by other rules; exchanges under way end as they began."""
        self._serve(serving)
        for connection in self.connections:
            connection.reconfigured()

    def new_id(self) -> bytes:
        """A request id: the process's random prefix and a counter."""
        self._ids += 1
        return b"%b%08x" % (self._id_prefix, self._ids)

    def trusts(self, address: str) -> bool:
        """Whether this peer's word about the client is believed."""
        known = self._trust.get(address)
        if known is None:
            if len(self._trust) >= 4_096:
                self._trust.clear()
            known = self._trust[address] = address in self._trusted
        return known

    def date(self) -> bytes:
        """The `Date` of this second (RFC 9110 §6.6.1)."""
        now = int(time.time())
        if now != self._date_at:
            self._date = http_date(now)
            self._date_at = now
        return self._date

    def forget(self, connection: Client) -> None:
        """A client's connection is gone or handed over."""
        self.connections.discard(connection)
        if self.on_idle is not None and not self.connections:
            self.on_idle()
