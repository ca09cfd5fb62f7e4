"""Begins and ends sessions, and writes the cookies that say so."""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from proxy.core import cookies
from proxy.core.beginning import first_record
from proxy.core.origin import Origin
from proxy.core.seal import new_ticket
from proxy.core.session import Ended, Identity, Record, Tokens, store_key
from proxy.errors import SessionGone, StoreUnavailable
from proxy.shell.clock import StoreTime
from proxy.shell.open_session import OpenSession
from proxy.shell.sessions import Sessions
from proxy.shell.store.contract import Store
from proxy.shell.store.marks import TOMBSTONE_S

log = logging.getLogger("nightporter.session")

TOUCH_S = 60.0
"""Activity is written at most this often."""


class Register:
    """See the module's docstring.

    Args:
        store: the record keeper.
        sessions: the open ones, and the rules for new ones.
        time: the store's time.
    """

    def __init__(self, store: Store, sessions: Sessions, time: StoreTime) -> None:
        self._store = store
        self._sessions = sessions
        self._time = time

    async def begin(
        self,
        origin: Origin,
        tokens: Tokens,
        identity: Identity,
        *,
        provider: str,
        replaces: OpenSession | None,
    ) -> bytes:
        """Begin a session: new id, new data key; ends the one that came with the request.

        Returns:
            The `Set-Cookie` field value.

        Raises:
            StoreUnavailable: nothing was begun that a cookie could reach.
            SessionGone: everybody, or this user, was signed out while they were signing in.
        """
        rules = self._sessions.rules
        ticket = new_ticket(self._time.now())
        record = first_record(
            ticket, tokens, identity, provider=provider, policy=rules.policy, refresh=rules.refresh
        )
        key = store_key(ticket.session_id)
        await self._store.create(key, record)
        if why := await self._over_already(record, tokens.issued_at):
            await self._store.end(key, why, TOMBSTONE_S)
            raise SessionGone(why)
        if replaces is not None:
            try:
                await self.end(replaces, Ended.SUPERSEDED)
            except StoreUnavailable as error:
                log.warning("supersede_failed", extra={"session": replaces.key[:12], "detail": error.detail})
        value = origin.ring.seal_ticket(origin.names.session, ticket)
        return cookies.set_line(origin.names, origin.names.session, value, int(rules.policy.absolute_s))

    async def _over_already(self, record: Record, asked_at: float) -> str:
        """Why a session that was just written is over: somebody was signed out while they signed in.

        Whoever signs people out leaves word first and looks through the lists then; here the session is on
        its lists first, and word is looked for then. One of the two sees the other.

        Args:
            asked_at: when the tokens were asked for.
        """
        names = [name for name in (record.user, record.op_session) if name]
        mark, *notes = await asyncio.gather(
            self._store.not_before(record), *(self._store.noted(name) for name in names)
        )
        if record.born < mark:
            return Ended.OPERATOR
        return Ended.PROVIDER if any(asked_at < at for at in notes) else Ended.NO

    async def end(self, session: OpenSession, reason: str) -> None:
        """End a session here and in the store; its tombstone refuses every later commit.

        Raises:
            StoreUnavailable: it could not be written; the session goes on.
        """
        await asyncio.shield(asyncio.ensure_future(self._end(session, reason)))

    async def _end(self, session: OpenSession, reason: str) -> None:
        await self._store.end(session.key, reason, TOMBSTONE_S)
        self._sessions.drop(session, reason)

    async def touch(self, session: OpenSession) -> None:
        """Write the activity down; the idle limit counts from here. Failure is tried again later."""
        now = self._time.now()
        session.touched_at = now
        try:
            await self._store.touch(session.key, now)
            session.record = replace(session.record, seen=now)
        except StoreUnavailable as error:
            session.touched_at = now - TOUCH_S + 5.0
            log.warning("touch_failed", extra={"session": session.key[:12], "detail": error.detail})

    def reseal(self, session: OpenSession) -> bytes:
        """`Set-Cookie` for the same session under the newest key."""
        names = session.origin.names
        value = session.origin.ring.seal_ticket(names.session, session.ticket)
        left_s = session.ticket.login_at + self._sessions.rules.policy.absolute_s - self._time.now()
        session.newest_key = True
        return cookies.set_line(names, names.session, value, max(1, int(left_s)))

    def forget_cookie(self, origin: Origin) -> bytes:
        """`Set-Cookie` that deletes the session cookie."""
        return cookies.set_line(origin.names, origin.names.session, b"", 0)
