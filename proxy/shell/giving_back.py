"""Gives tokens back at the OP for sessions that the operator or the OP ended: wherever they can still be
opened.

Nobody but a cookie's bearer can open a session's tokens. So this happens in a replica whose cache
holds them, else when the cookie next shows up, else they age out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from proxy.core.logout import given_back, may_revoke
from proxy.core.providers import Profile
from proxy.core.session import Ended, Tokens
from proxy.errors import ProxyError, StoreUnavailable
from proxy.shell.background import Background
from proxy.shell.open_session import OpenSession
from proxy.shell.store.contract import Store
from proxy.shell.store.marks import TOMBSTONE_S

log = logging.getLogger("nightporter.session")

AT_ONCE = 4
"""Revocations at a time: signing everybody out must not become a storm at the OP."""

PAUSES_S = (1.0, 5.0, 30.0)
"""Between the tries of one revocation. RFC 7009 §2.2.1: 503 means to try again later."""

REMEMBERED = 4096
"""Sessions whose tokens were given back: their cookies may go on asking."""


class Revoker(Protocol):
    """The part of the OP client that this uses."""

    async def revoke(self, token: str, hint: str) -> bool | None: ...


async def give_back(
    op: Revoker, token: str, hint: str, *, places: AbstractAsyncContextManager[object] | None = None
) -> None:
    """Give a token back at the OP, behind the request; a few times if the OP cannot take it just now.

    Each failure is logged. After the last the token ages out: nobody holds it any more.

    Args:
        places: held during each try, not between them.
    """
    for pause_s in (*PAUSES_S, None):
        try:
            async with places or nullcontext():
                taken = await op.revoke(token, hint)
        except ProxyError as error:
            log.warning("revocation_failed", extra={"detail": error.detail})
            taken = False
        if taken is not False or pause_s is None:
            return
        await asyncio.sleep(pause_s)


class GivingBack:
    """Call it with a session that was ended from outside (`gone` says by whom); nothing waits for it.

    Args:
        store: gets the tombstone; whoever writes it first gives back.
        issuer_of: the OP that issued these tokens, with its profile; None = not configured any more.
        background: carries it.
    """

    def __init__(
        self,
        store: Store,
        issuer_of: Callable[[Tokens], tuple[Profile, Revoker] | None],
        background: Background,
    ) -> None:
        self._store = store
        self._issuer_of = issuer_of
        self._background = background
        self._places = asyncio.Semaphore(AT_ONCE)
        self._done: dict[str, None] = {}

    def __call__(self, session: OpenSession) -> None:
        if session.key not in self._done:
            self._background.spawn("giving_back", self._give_back(session))

    async def _ours(self, session: OpenSession) -> bool:
        """Whether it falls to us: of all the replicas that can open the session, to one."""
        if session.gone == Ended.PROVIDER:
            return await self._store.spend_flow(f"back:{session.key}", TOMBSTONE_S)
        before = await self._store.end(session.key, Ended.OPERATOR, TOMBSTONE_S)
        return before is not None and not before.tombstone

    async def _give_back(self, session: OpenSession) -> None:
        async with self._places:
            try:
                ours = await self._ours(session)
            except StoreUnavailable:
                return  # the session is refused all the same; its cookie may come again
            self._done[session.key] = None
            if len(self._done) > REMEMBERED:
                del self._done[next(iter(self._done))]
            if not ours:
                return
            issuer = self._issuer_of(session.tokens)
            if issuer is None:
                return
            profile, op = issuer
            back = given_back(profile, session.tokens)
            # Where a revocation reaches further, it could end what the person has begun since. The session at
            # the OP is over where the OP itself said so.
            if back is None or not may_revoke(profile.reach, ends_at_op=session.gone == Ended.PROVIDER):
                return
        await give_back(op, *back, places=self._places)
