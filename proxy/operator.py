"""What an operator does to the sessions of a running service, from the command line.

Each command opens the configured store, writes or reads, and goes. Nothing here can open a session:
tokens are sealed with keys that only browsers hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from proxy import wiring
from proxy.config import Settings
from proxy.config.redis_address import is_redis
from proxy.core.answers import Tally
from proxy.core.session import Ended, user_name
from proxy.errors import StoreUnavailable
from proxy.shell.store.contract import Store
from proxy.shell.store.marks import TOMBSTONE_S
from proxy.shell.store.sqlite_marks import SqliteBeside


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Carry one command out.

    Returns:
        The exit status: 1 if the store could not be used.
    """
    try:
        print(asyncio.run(_run(settings, options)))
    except StoreUnavailable as error:
        print(f"nightporter: {error.detail}", file=sys.stderr)
        return 1
    return 0


async def _run(settings: Settings, options: argparse.Namespace) -> str:
    keep_s = settings.absolute_s
    async with StoreBeside(settings) as store:
        match options.what:
            case "end-all":
                await store.mark("", keep_s)
                return "Everybody is signed out: sessions that began before now are refused everywhere."
            case "end-user":
                name = user_name(options.issuer, options.subject)
                await store.mark(name, keep_s)
                ended = await _end_listed(store, name)
                return f"Signed out: {ended} session(s), and whatever of this person began before now."
            case _:
                return table(await store.tally(), wiring.epochs(settings))


async def _end_listed(store: Store | SqliteBeside, name: str) -> int:
    """End what is on the user's list at once; the mark alone refuses it already."""
    if isinstance(store, SqliteBeside):
        return await store.count_of(name)
    ended = 0
    for key in await store.sessions_of(name):
        before = await store.end(key, Ended.OPERATOR, TOMBSTONE_S)
        ended += before is not None and not before.tombstone
    return ended


class StoreBeside:
    """The configured store beside a running service, closed at the end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | SqliteBeside | None = None

    async def __aenter__(self) -> Store | SqliteBeside:
        settings = self._settings
        if is_redis(settings.store.reveal()):
            from proxy.shell.store.redis.store import beside

            self._store = beside(wiring.redis_options(settings), time.monotonic)
        elif settings.sqlite_path:
            self._store = SqliteBeside(settings.sqlite_path)
        else:
            raise StoreUnavailable("sessions in memory are only in the service's own process: restart it")
        return self._store

    async def __aexit__(self, *_: object) -> None:
        if self._store is not None:
            await self._store.close()


def table(tallies: list[Tally], epochs: frozenset[str]) -> str:
    """The counts, as a table to read.

    Args:
        epochs: of the configuration as it is now: sessions of another one began under other settings.
    """
    total = sum(tally.count for tally in tallies)
    without = sum(tally.count for tally in tallies if not tally.refreshable)
    lines = [f"{total} live session(s), {without} of them without a refresh token."]
    if tallies:
        rows = [("provider", "configuration", "refresh token", "sessions")]
        rows += [
            (
                tally.provider,
                (tally.config[:12] or "unknown") + (" (now)" if tally.config in epochs else " (earlier)"),
                "yes" if tally.refreshable else "no",
                str(tally.count),
            )
            for tally in sorted(tallies, key=lambda tally: -tally.count)
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines.append("")
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
    if without:
        lines += [
            "",
            "Those without one end with their access token. If the provider's settings were changed since",
            "they began, sign everybody out once: nightporter sessions end-all",
        ]
    return "\n".join(lines)
