"""Tells the other replicas which cookie keys this one opens, and seals with what all of them open.

A key that was just added to one replica's ring would make cookies that the others refuse, so it
seals nothing before every live replica has announced it (design: key ring).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from proxy.core.origin import Origins
from proxy.errors import StoreUnavailable
from proxy.shell.store.contract import Store

log = logging.getLogger("nightporter.keys")

ANNOUNCE_S = 5.0
"""How often a replica says what it opens."""

KEEP_S = 20.0
"""A replica that said nothing for so long is not there any more."""


class Announcer:
    """See the module's docstring.

    Args:
        store: where replicas meet.
        replica: id of this process.
        origins: gives the ring as it is now; a reload changes it.
        changed: called after another key has begun to seal.
    """

    def __init__(
        self, store: Store, replica: str, origins: Callable[[], Origins], changed: Callable[[], None]
    ) -> None:
        self._store = store
        self._replica = replica
        self._origins = origins
        self._changed = changed

    async def once(self) -> bool:
        """Announce and agree; whether the store took it."""
        origins = self._origins()
        try:
            announced = await self._store.announce(self._replica, origins.key_ids, KEEP_S)
        except StoreUnavailable as error:
            log.debug("announce_failed", extra={"detail": error.detail})
            return False
        if origins.agree(announced):
            log.info("sealing_key_changed", extra={"key": origins.sealing})
            self._changed()
        return True

    async def run(self) -> None:
        """Announce until cancelled."""
        while True:
            await asyncio.sleep(ANNOUNCE_S)
            await self.once()
