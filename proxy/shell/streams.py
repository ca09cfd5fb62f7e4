"""Tunnels and event streams end with their session, although no request asks about it any more.

A request is judged when it comes; a WebSocket that was let through an hour ago is not. So sessions
with open streams are looked after here: what changed in the store is read again at once, limits
that ran out end them, and tokens that are due are renewed, because that is how a grant that
the OP took back comes to light. A stream is no activity: pages keep talking after everybody
has gone home, so the idle limit goes on counting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from proxy.core.gate import Standing
from proxy.core.session import ended
from proxy.errors import StoreUnavailable
from proxy.shell.background import Background
from proxy.shell.clock import StoreTime
from proxy.shell.keeper import Keeper
from proxy.shell.open_session import OpenSession
from proxy.shell.sessions import Sessions

log = logging.getLogger("nightporter.session")

LOOK_S = 0.5
"""An ending is seen within this time and a read of the store: less than a second."""

REST_S = 2.0
"""How long a store that did not answer is left alone."""

MAX_READS = 64
"""Sessions that are read again at once."""


class Streams:
    """Ends open streams when their session is over.

    Args:
        sessions: the cache; a session in it holds what closes its streams.
        time: the store's time.
        background: carries the reads.
    """

    def __init__(self, sessions: Sessions, time: StoreTime, background: Background) -> None:
        self._sessions = sessions
        self._time = time
        self._background = background
        self._reading: set[OpenSession] = set()
        self._rest_until = 0.0

    async def run(self, keeper: Callable[[], Keeper]) -> None:
        """Look after open streams until cancelled.

        Args:
            keeper: gives the one to renew with; a reload makes another.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(keeper())

    def look(self, keeper: Keeper) -> None:
        """Go through the sessions that have open streams, once.

        Args:
            keeper: renews what is due.
        """
        now = self._time.now()
        for session in self._sessions.cache.streaming():
            over = ended(session.record, now)
            if over:
                self._sessions.drop(session, over)
                continue
            standing = keeper.standing(session)
            if standing is Standing.SPENT:
                session.close_streams()
            elif standing is not Standing.LIVE and now >= keeper.retry_at(session):
                keeper.start(session)
            elif not self._sessions.believed(session):
                self._read(session)

    def _read(self, session: OpenSession) -> None:
        resting = self._time.now() < self._rest_until
        if resting or session in self._reading or len(self._reading) >= MAX_READS:
            return
        self._reading.add(session)
        self._background.spawn("stream's session", self._again(session))

    async def _again(self, session: OpenSession) -> None:
        try:
            await self._sessions.read_again(session)
        except StoreUnavailable as error:
            self._rest_until = self._time.now() + REST_S
            log.debug("stream_unread", extra={"session": session.key[:12], "detail": error.detail})
        finally:
            self._reading.discard(session)
