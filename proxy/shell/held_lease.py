"""The lease of one attempt: renewed in the background while a call or a commit is open."""

from __future__ import annotations

import asyncio

from proxy.core import steps
from proxy.core.session import LEASE_S, RENEW_S
from proxy.errors import StoreUnavailable
from proxy.shell.clock import Clock
from proxy.shell.store.contract import Store

SEND_SLACK_S = 1.0
"""A call is not begun in the last second of a lease."""


class HeldLease:
    """See the module's docstring. Until `granted` it is not ours.

    Args:
        store: which lends it.
        clock: of this process; it counts from before the store was asked.
        key: of the session.
        attempt: id of the attempt.
    """

    def __init__(self, store: Store, clock: Clock, key: str, attempt: str) -> None:
        self._store = store
        self._clock = clock
        self._key = key
        self._attempt = attempt
        self._until = 0.0
        self._renewer: asyncio.Task[None] | None = None

    def granted(self, asked_at: float) -> None:
        """It is ours, and is kept so until `stop`.

        Args:
            asked_at: monotonic time before the store was asked for it.
        """
        self._until = asked_at + LEASE_S
        self.stop()
        self._renewer = asyncio.get_running_loop().create_task(self._keep())

    def stop(self) -> None:
        """Renew it no more."""
        if self._renewer is not None:
            self._renewer.cancel()
            self._renewer = None

    def ours(self) -> bool:
        """Whether a call may still begin under it."""
        return self._clock.monotonic() < self._until - SEND_SLACK_S

    async def renew(self) -> steps.Event:
        """Renew it now."""
        asked_at = self._clock.monotonic()
        try:
            ours = await self._store.renew(self._key, self._attempt, LEASE_S)
        except StoreUnavailable as error:
            return steps.StoreFailed(error.detail)
        self._until = asked_at + LEASE_S if ours else 0.0
        return steps.Renewed(ours)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self.renew()
