"""Gives tokens back at the OP for sessions that a mark ended: wherever they can still be opened.

Nobody but a cookie's bearer can open a session's tokens. So this happens in a replica whose cache
holds them, else when the cookie next shows up, else they age out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from proxy.core.logout import given_back, may_revoke
from proxy.core.providers import Profile
from proxy.core.session import Ended, Tokens
from proxy.errors import ProxyError, StoreUnavailable
from proxy.shell.background import Background
from proxy.shell.sessions import OpenSession
from proxy.shell.store.contract import Store
from proxy.shell.store.marks import TOMBSTONE_S

log = logging.getLogger("nightporter.session")

AT_ONCE = 4
"""Revocations at a time: signing everybody out must not become a storm at the OP."""


class Revoker(Protocol):
    """The part of the OP client that this uses."""

    async def revoke(self, token: str, hint: str) -> bool: ...


class GivingBack:
    """Call it with a session that a mark ended; nothing waits for it.

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

    def __call__(self, session: OpenSession) -> None:
        self._background.spawn("giving_back", self._give_back(session))

    async def _give_back(self, session: OpenSession) -> None:
        async with self._places:
            try:
                before = await self._store.end(session.key, Ended.OPERATOR, TOMBSTONE_S)
            except StoreUnavailable:
                return  # the mark refuses the session all the same; its cookie may come again
            if before is None or before.tombstone:
                return  # another replica was here
            issuer = self._issuer_of(session.tokens)
            if issuer is None:
                return
            profile, op = issuer
            back = given_back(profile, session.tokens)
            # Where a revocation reaches further, it could end what the person has begun since.
            if back is None or not may_revoke(profile.reach, ends_at_op=False):
                return
            try:
                await op.revoke(*back)
            except ProxyError as error:
                log.warning("revocation_failed", extra={"session": session.key[:12], "detail": error.detail})
