"""Watches the configuration's files, and asks for a new reading when one changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable

Signature = tuple[int, int, int, int]

WATCH_S = 2.0
"""How often the files are looked at: a `stat` each. Notifications would not do: mounted secrets are
swapped by a link somewhere above the file."""


class Watch:
    """Calls `again` after a change of a file, or when it is told to.

    Args:
        files: paths to look at; may be set anew at any time.
        again: reads and takes over; must not raise.
        every_s: how often.
    """

    def __init__(
        self, files: Iterable[str], again: Callable[[], Awaitable[None]], *, every_s: float = WATCH_S
    ) -> None:
        self.files = tuple(files)
        self._again = again
        self._every_s = every_s
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Read again now (SIGHUP)."""
        self._asked.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        seen = self._seen()
        while True:
            asked = await self._turn()
            now = self._seen()
            if not asked and now == seen:
                continue
            # Noted before the reading: what changes while we read is read once more.
            seen = now
            await self._again()
            seen = {path: seen.get(path, mark) for path, mark in self._seen().items()}

    async def _turn(self) -> bool:
        try:
            async with asyncio.timeout(self._every_s):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    def _seen(self) -> dict[str, Signature | None]:
        return {path: signature(path) for path in self.files}


def signature(path: str) -> Signature | None:
    """What changes when a file is written or replaced; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
