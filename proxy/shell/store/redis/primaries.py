"""Notices that another server has become the primary, or the same one has started anew.

Either may have lost the last writes. For `HOLD_S` nobody then takes a lease, so that those who
remember what was lost can write it again first (`memory.py`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from redis import exceptions as foreign

log = logging.getLogger("nightporter.store")

HOLD_S = 2.0
"""How long no lease is taken after a change."""

BACK_S = 0.5
"""The same after an outage: whoever could not write down what an OP had issued goes first."""

SETTLE_S = 10.0
"""How long after a change others may still be writing again what was lost."""

_RUN_ID = re.compile(rb"run_id:([0-9a-f]{40})")


class Primaries:
    """Who answers us, by address and by the id that a server gives each of its runs.

    Args:
        one: whether all addresses are one primary's in turn (no cluster).
        monotonic: seconds.
        changed: told of a change, at once.
    """

    def __init__(
        self, *, one: bool, monotonic: Callable[[], float], changed: Callable[[], None] = lambda: None
    ) -> None:
        self._one = one
        self._monotonic = monotonic
        self.changed = changed
        self._runs: dict[str, bytes] = {}
        self._names: frozenset[str] = frozenset()
        self._blind = False
        self._broken = False
        self._away = False
        self._hold_until = 0.0
        self._settled_at = 0.0

    @property
    def unsettled(self) -> bool:
        """Whether there was a change a moment ago."""
        return self._monotonic() < self._settled_at

    @property
    def hold_s(self) -> float:
        """How much longer no lease may be taken; 0 = one may."""
        return max(0.0, self._hold_until - self._monotonic())

    async def greet(self, connection: Any) -> None:
        """Set up a new connection, and look who is at its other end (redis-py's connect hook)."""
        await connection.on_connect()
        address = "" if self._one else f"{connection.host}:{connection.port}"
        try:
            await connection.send_command("INFO", "server")
            found = _RUN_ID.search(await connection.read_response())
        except foreign.ResponseError:
            found = None
        if found is None:
            if not self._blind:
                log.warning(
                    "primary_unknown",
                    extra={"detail": "INFO is not allowed: every broken connection counts as a failover"},
                )
                self._blind = True
            if self._broken:
                self._broken = False
                self._note("a connection broke")
            return
        before = self._runs.get(address)
        self._runs[address] = found[1]
        if before is not None and before != found[1]:
            self._note("another server, or a restart")

    def broke(self) -> None:
        """A connection broke, or nobody answered."""
        self._broken = self._blind
        self._away = True

    def answered(self) -> None:
        """Somebody answered. The first time after an outage, no lease is taken for a moment."""
        if self._away:
            self._away = False
            self._hold_until = max(self._hold_until, self._monotonic() + BACK_S)

    def serve(self, names: frozenset[str]) -> None:
        """The cluster's primaries, as far as known now."""
        if names and self._names and names != self._names:
            self._note("the cluster has other primaries")
        self._names = names or self._names

    def _note(self, why: str) -> None:
        log.warning("primary_changed", extra={"detail": f"{why}: no renewal begins for {HOLD_S:g} s"})
        self._hold_until = self._monotonic() + HOLD_S
        self._settled_at = self._monotonic() + SETTLE_S
        self.changed()
