"""Hears what other processes changed, and proves again and again that it would hear it.

Messages are hints: they make a cache read again, never decide. What makes a cache believable is the
heartbeat: we publish through every primary to a channel of our own, and what comes back on the
subscription proves that everything published there before had come, too. So a cache is
believed until `TRUST_S` after the *sending* of the last heartbeat that came back, and a change
made elsewhere is seen in less than a second however the subscription broke.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis import exceptions as foreign

from proxy.shell.store.coherence import Coherence
from proxy.shell.store.redis.link import Link

log = logging.getLogger("nightporter.store")

BEAT_S = 0.2
"""How often a heartbeat is sent."""

TRUST_S = 0.8
"""How long one proves anything, from its sending. With a request's own time it is below a second."""

SILENT_S = 3.0
"""A subscription on which no heartbeat has come back for so long is made anew."""

RETRY_S = (0.1, 0.2)
"""Pauses between attempts to subscribe. Short ones: a renewal's write that waits for Redis goes out with
the subscription (`primaries.BACK_S`)."""


class Channel:
    """The subscription of one process.

    Args:
        link: the connections.
        prefix: of the channels.
        sender: our name in messages; our own are not heard (whoever sent them has told already).
        coherence: what is proven.
        monotonic: the clock that `coherence` is compared with.
        heard: told of each message: words behind the sender's name.
        renewed: told when the subscription is new: anything may have been missed before.
    """

    def __init__(
        self,
        link: Link,
        *,
        prefix: str,
        sender: str,
        coherence: Coherence,
        monotonic: Callable[[], float],
        heard: Callable[[list[str]], None],
        renewed: Callable[[], None],
    ) -> None:
        self._link = link
        self._changes = f"{prefix}changed"
        self._beats = f"{prefix}beat:{sender}"
        self._sender = sender
        self._coherence = coherence
        self._monotonic = monotonic
        self._heard = heard
        self._renewed = renewed
        self._sent: dict[str, float] = {}
        self._proven: dict[str, float] = {}
        self._count = 0
        self._since = 0.0
        self._well = False
        self._beating: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Subscribe, and again whenever that breaks; until cancelled."""
        tries = 0
        while True:
            began = self._monotonic()
            pubsub: Any = None
            try:
                pubsub = self._link.client.pubsub()
                await self._subscribed(pubsub)
            except (foreign.RedisError, foreign.RedisClusterException, OSError, TimeoutError) as error:
                self._link.noted(error)
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("subscription_failed")
            finally:
                self._coherence.until = 0.0
                self._proven.clear()
                self._sent.clear()
                self._say()
                if pubsub is not None:
                    await _closed(pubsub)
            tries = 0 if self._monotonic() - began > 5.0 else tries + 1
            await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])

    async def _subscribed(self, pubsub: Any) -> None:
        async with asyncio.timeout(self._link.timeout_s):
            await self._link.ready()
            await pubsub.subscribe(self._changes, self._beats)
        self._since = self._monotonic()
        beat = asyncio.get_running_loop().create_task(self._beat())
        try:
            while True:
                message = await pubsub.get_message(timeout=BEAT_S)
                if message is not None:
                    self._take(message)
                elif self._silent():
                    return
        finally:
            beat.cancel()

    def _silent(self) -> bool:
        last = min(self._proven.values(), default=self._since)
        return self._monotonic() - max(last, self._since) > SILENT_S

    # -- what comes --

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            # The first, or the client's own after it had reconnected behind our back.
            if message["channel"] == self._changes.encode():
                self._proven.clear()
                self._sent.clear()
                self._coherence.until = 0.0
                self._renewed()
            return
        if message["type"] != "message":
            return
        words = message["data"].decode("utf-8", "replace").split(" ")
        if message["channel"] == self._beats.encode():
            self._came_back(words)
        elif len(words) > 1 and words[0] != self._sender:
            self._heard(words[1:])

    def _came_back(self, words: list[str]) -> None:
        sent_at = self._sent.pop(" ".join(words), None)
        if sent_at is None:
            return  # older than the subscription
        primary = words[0]
        self._proven[primary] = max(sent_at, self._proven.get(primary, 0.0))
        places = self._link.primaries()
        if all(name in self._proven for name in places):
            self._coherence.until = min(self._proven[name] for name in places) + TRUST_S
        self._say()

    # -- what goes --

    async def _beat(self) -> None:
        """Send heartbeats; each in a task of its own, so that one that hangs holds up no other."""
        while True:
            self._count += 1
            for name in self._link.primaries():
                if len(self._beating) < 32:
                    task = asyncio.get_running_loop().create_task(self._send(name, self._count))
                    self._beating.add(task)
                    task.add_done_callback(self._beating.discard)
            self._say()
            horizon = self._monotonic() - SILENT_S
            for beat in [beat for beat, at in self._sent.items() if at < horizon]:
                del self._sent[beat]
            await asyncio.sleep(BEAT_S)

    async def _send(self, name: str, count: int) -> None:
        text = f"{name} {count}"
        self._sent[text] = self._monotonic()
        await self._link.publish(name, self._beats, text)

    def _say(self) -> None:
        well = self._monotonic() < self._coherence.until
        if well is not self._well:
            self._well = well
            if well:
                log.info("subscription_well")
            else:
                log.warning("subscription_lost", extra={"detail": "every request reads its session again"})


async def _closed(pubsub: Any) -> None:
    try:
        await pubsub.aclose()
    except (foreign.RedisError, OSError, ValueError):
        log.debug("subscription_not_closed")
