"""A model OP in virtual time: slow, and at times it loses a request or a reply."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.core.providers import Reuse
from proxy.core.token_reply import RawReply
from proxy.errors import NotSent, ReplyLost


@dataclass
class Ledger:
    """What the OP knows.

    Attributes:
        lost: replies that were processed and never read: with zero grace they may cost the session.
        killed: the family was ended by reuse.
        open_calls: token calls under way now; `most_open` at most.
    """

    lost: int = 0
    killed: bool = False
    open_calls: int = 0
    most_open: int = 0
    issued: list[str] = field(default_factory=lambda: ["rt0"])
    read: list[str] = field(default_factory=list[str])
    revoked: list[str] = field(default_factory=list[str])


class ChaosOP:
    """Rotates as its mode says; delays, drops before and drops after processing at random."""

    def __init__(self, mode: Reuse, rng: random.Random, faults: float) -> None:
        self.mode, self.rng, self.faults = mode, rng, faults
        self.ledger = Ledger()
        self.successor: dict[str, str] = {}

    async def connect(self) -> ChaosCall:
        await asyncio.sleep(self.rng.uniform(0, 0.05))
        if self.rng.random() < self.faults / 2:
            raise NotSent("refused")
        return ChaosCall(self)

    async def revoke(self, token: str, hint: str) -> bool:
        self.ledger.revoked.append(token)
        return True

    def process(self, token: str) -> RawReply:
        if self.ledger.killed:
            return _error()
        if self.mode is Reuse.NONE:
            return _issued(token, "rt0")
        next_token = self.successor.get(token)
        if next_token is not None:
            if self.mode is Reuse.GRACE:
                return self._rotate(token)
            if self.mode is Reuse.IDEMPOTENT:
                return _issued(token, next_token)
            self.ledger.killed = True
            return _error()
        return self._rotate(token)

    def _rotate(self, token: str) -> RawReply:
        new = f"rt{len(self.ledger.issued)}"
        self.ledger.issued.append(new)
        self.successor[token] = new
        return _issued(token, new)


def _issued(old: str, new: str) -> RawReply:
    body = {"access_token": f"at-{new}-{old}", "refresh_token": new, "expires_in": 60}
    return RawReply(200, {}, json.dumps(body).encode())


def _error() -> RawReply:
    return RawReply(400, {}, b'{"error":"invalid_grant"}')


class ChaosCall:
    def __init__(self, op: ChaosOP) -> None:
        self.op = op
        self.task: asyncio.Task[RawReply] | None = None

    async def refresh(
        self, refresh_token: str, *, scope: str = "", last_check: Callable[[], bool]
    ) -> RawReply:
        if not last_check():
            raise NotSent("lease")
        self.task = asyncio.get_running_loop().create_task(self._exchange(refresh_token))
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self.task.cancelled():
                raise ReplyLost("closed") from None
            self.task.cancel()
            raise

    async def _exchange(self, token: str) -> RawReply:
        op, rng, ledger = self.op, self.op.rng, self.op.ledger
        ledger.open_calls += 1
        ledger.most_open = max(ledger.most_open, ledger.open_calls)
        processed = False
        try:
            await asyncio.sleep(rng.choice((0.02, 0.3, 3.0, 14.0, 22.0)) * rng.random())
            if rng.random() < op.faults:
                raise ReplyLost("request lost")
            reply = op.process(token)
            processed = reply.status == 200
            await asyncio.sleep(rng.choice((0.0, 0.05, 2.0)) * rng.random())
            if rng.random() < op.faults:
                raise ReplyLost("reply lost")
            if processed:
                ledger.read.append(json.loads(reply.body)["refresh_token"])
                processed = False
            return reply
        finally:
            ledger.open_calls -= 1
            if processed and op.mode is Reuse.PUNISHED:
                ledger.lost += 1

    async def aclose(self) -> None:
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task])
