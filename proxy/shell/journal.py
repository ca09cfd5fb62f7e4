"""Commits that could not land yet, on disk: a rotated token must outlive the process too.

One file per attempt, holding the commit's arguments; the tokens inside are sealed as ever with the
session's data key, so the directory gives nothing away. Written and fsynced before the
next try, removed once the store has answered, replayed by the next start, and before anything is
sent for its session.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from proxy.core.answers import Commit
from proxy.errors import StoreUnavailable
from proxy.shell.store.contract import Store

log = logging.getLogger("nightporter.journal")

_SUFFIX = ".commit"


class Entry(msgspec.Struct, frozen=True):
    """One commit that waits.

    Attributes:
        key: store key of the session.
        write: the commit's arguments.
    """

    key: str
    write: Commit


class Journal:
    """A directory of waiting commits.

    Args:
        directory: must exist and be writable; files are created 0600.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kept: set[Path] = set()

    async def keep(self, key: str, write: Commit) -> None:
        """Make one commit durable. A failure is logged: memory still has it."""
        path = self._path(key, write.attempt)
        if path in self._kept:
            return
        try:
            await asyncio.to_thread(self._write, path, Entry(key, write))
        except OSError as error:
            log.error("journal_failed", extra={"detail": str(error.strerror)})
        else:
            self._kept.add(path)

    async def forget(self, key: str, attempt: str) -> None:
        """The store has answered: nothing waits any more."""
        path = self._path(key, attempt)
        if path in self._kept:
            self._kept.discard(path)
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def settle(self, key: str, store: Store) -> None:
        """Commit what waits for one session, whoever left it.

        Asked before the session's stored refresh token may be sent: if an entry waits, that token
        is consumed, and its successor is in the entry.

        Raises:
            StoreUnavailable: the store is away; the entries stay.
        """
        for path in await asyncio.to_thread(self._waiting, f"{key}.*"):
            await self._settle(path, store)

    async def replay(self, store: Store) -> int:
        """Commit what earlier processes left. Returns how many entries were settled.

        The commit's own conditions decide what still fits; an answer of any kind settles the entry.

        Raises:
            StoreUnavailable: the store is away; the entries stay.
        """
        return sum([await self._settle(path, store) for path in await asyncio.to_thread(self._waiting, "*")])

    async def _settle(self, path: Path, store: Store) -> bool:
        try:
            entry = msgspec.msgpack.decode(await asyncio.to_thread(path.read_bytes), type=Entry)
        except FileNotFoundError:
            return False  # somebody else was faster
        except (OSError, msgspec.DecodeError) as error:
            log.error("journal_unreadable", extra={"file": path.name, "detail": type(error).__name__})
            return False
        answer = await store.commit(entry.key, entry.write)
        log.info("journal_replayed", extra={"answer": type(answer).__name__})
        await asyncio.to_thread(path.unlink, missing_ok=True)
        return True

    def _waiting(self, name: str) -> list[Path]:
        return sorted(self._directory.glob(name + _SUFFIX))

    def _path(self, key: str, attempt: str) -> Path:
        """Named by the session's store key, so that its entries are found without reading others."""
        return self._directory / f"{key}.{attempt}{_SUFFIX}"

    def _write(self, path: Path, entry: Entry) -> None:
        draft = path.with_suffix(".draft")
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(file, msgspec.msgpack.encode(entry))
            os.fsync(file)
        finally:
            os.close(file)
        draft.rename(path)
        folder = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


__all__ = ["Journal", "StoreUnavailable"]
