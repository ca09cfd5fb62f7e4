"""Ends the sessions that an OP says are over, in the store, so on every replica.

Three things make it certain. Word is left for sign-ins under way before the lists are looked
through. Every session found gets a tombstone, which refuses the commit of a renewal under way. And
what cannot be written, because the store is away, is tried again for as long as this process
lives, while this process refuses what it has open. Few OPs ask twice.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf

from proxy.core.logout import LogoutToken
from proxy.core.session import Ended, logout_name, op_session_name, user_name
from proxy.core.timing import backoff_s
from proxy.errors import IdTokenRejected, StoreUnavailable
from proxy.shell.background import Background
from proxy.shell.clock import StoreTime
from proxy.shell.desk import Event
from proxy.shell.sessions import Sessions
from proxy.shell.store.contract import Store
from proxy.shell.store.marks import TOMBSTONE_S

log = logging.getLogger("nightporter.session")

WORD_S = 600.0
"""How long a sign-in that began before a logout may take to its end."""

AT_ONCE = 32
"""Sessions of one person that are ended side by side."""

MAX_UNWRITTEN = 1000
"""Logouts that wait for the store; each is a few hundred bytes."""

SLACK_S = 5.0
"""How far two replicas' readings of the store's time may be apart, busy as they may be."""

AGAIN_S = 5.0
"""A store that is away is tried at least this often."""


class Logouts:
    """See the module's docstring.

    Args:
        store: of the sessions.
        sessions: the cache of this process.
        background: carries what waits for the store.
        event: audit log.
        time: the store's time.
    """

    def __init__(
        self, store: Store, sessions: Sessions, background: Background, event: Event, time: StoreTime
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._background = background
        self._event = event
        self._time = time
        self._unwritten: set[str] = set()

    async def obey(self, logout: LogoutToken) -> int:
        """End what a verified logout token means, once; how many sessions that were.

        Raises:
            IdTokenRejected: it was obeyed before.
            StoreUnavailable: it is not written everywhere yet. It is remembered and tried again; asking
                again is good, too.
        """
        heard_at = self._time.now()
        try:
            ended = await self._obey(logout)
        except StoreUnavailable:
            self._remember(logout, heard_at)
            raise
        self._unwritten.discard(logout_name(logout.iss, logout.jti))  # the OP asked again
        return ended

    async def end(self, iss: str, sub: str, sid: str, *, born_by: float = inf) -> int:
        """End the sessions of an OP's session, or of a person's; how many were alive.

        Args:
            sub: "" = not named.
            sid: "" = not named: all sessions of `sub` are meant.
            born_by: store time; later sessions are spared.

        Raises:
            StoreUnavailable: perhaps not all of them are ended.
        """
        keys = await self._store.sessions_of(op_session_name(iss, sid) or user_name(iss, sub))
        person = user_name(iss, sub) if sub else ""
        ended = 0
        for start in range(0, len(keys), AT_ONCE):
            each = (self._end(key, person, born_by) for key in keys[start : start + AT_ONCE])
            ended += sum(await asyncio.gather(*each))
        return ended

    async def _obey(self, logout: LogoutToken, heard_at: float = 0.0) -> int:
        """Obey a logout token.

        Args:
            heard_at: store time when it came, where that was earlier: who has come in since is
                spared. 0 = now.
        """
        name = logout_name(logout.iss, logout.jti)
        if await self._store.noted(name):
            raise IdTokenRejected("jti", detail="this logout token was obeyed before")
        whose = op_session_name(logout.iss, logout.sid) or user_name(logout.iss, logout.sub)
        await self._store.note(whose, WORD_S, heard_at)
        born_by = heard_at + SLACK_S if heard_at else inf
        ended = await self.end(logout.iss, logout.sub, logout.sid, born_by=born_by)
        # Last: a token that was not obeyed whole must work again.
        await self._store.note(name, max(1.0, logout.until - self._time.now()))
        return ended

    async def _end(self, key: str, person: str, born_by: float) -> bool:
        """End one session, if it is this person's; whether it was alive."""
        record = (await self._store.read(key)).record
        if record is None or record.tombstone or record.born > born_by:
            return False
        if person and record.user and record.user != person:
            return False
        before = await self._store.end(key, Ended.PROVIDER, TOMBSTONE_S)
        session = self._sessions.cached(key)
        if session is not None:
            await self._sessions.look_again(session)  # closes its streams, gives its tokens back
        return before is not None and not before.tombstone

    # -- while the store is away --

    def _remember(self, logout: LogoutToken, heard_at: float) -> None:
        name = logout_name(logout.iss, logout.jti)
        if name in self._unwritten or len(self._unwritten) >= MAX_UNWRITTEN:
            return
        self._unwritten.add(name)
        refused = [each.key for each in self._sessions.cache.of_provider(logout.iss, logout.sub, logout.sid)]
        for key in refused:
            self._sessions.refuse(key, Ended.PROVIDER)
        self._background.spawn("logout", self._until_written(name, logout, heard_at, refused))

    async def _until_written(
        self, name: str, logout: LogoutToken, heard_at: float, refused: list[str]
    ) -> None:
        tries = 0
        try:
            while True:
                tries += 1
                await asyncio.sleep(min(AGAIN_S, 0.2 * backoff_s(tries, 0.5)))
                if name not in self._unwritten:
                    return  # the OP asked again, and that came through
                try:
                    ended = await self._obey(logout, heard_at)
                except StoreUnavailable:
                    continue
                except IdTokenRejected:
                    return  # the same, at another replica
                self._event("backchannel_logout", iss=logout.iss, sub=logout.sub, sessions=ended, tries=tries)
                return
        finally:
            self._unwritten.discard(name)
            for key in refused:
                self._sessions.refused_in_store(key)  # from here on, the store says it
