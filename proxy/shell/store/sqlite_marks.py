"""Not-before marks and counts in a SQLite store, from inside it and from an operator's command beside it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from proxy.core.answers import Tally
from proxy.core.record import Row, current, tallied
from proxy.core.session import Record, ended
from proxy.errors import StoreUnavailable

SCHEMA = """
CREATE TABLE IF NOT EXISTS mark (
    user TEXT PRIMARY KEY, at REAL NOT NULL, drop_at REAL NOT NULL
) WITHOUT ROWID;
"""

Answer = TypeVar("Answer")

_decode = msgspec.msgpack.Decoder(Row).decode


def mark(db: sqlite3.Connection, user: str, now: float, keep_s: float) -> float:
    """Write a mark; one that is there only moves forward. Returns the time that counts."""
    db.execute("DELETE FROM mark WHERE drop_at <= ?", (now,))
    db.execute(
        "INSERT INTO mark VALUES (?, ?, ?) ON CONFLICT (user) DO UPDATE "
        "SET at = max(at, excluded.at), drop_at = max(drop_at, excluded.drop_at)",
        (user, now, now + keep_s),
    )
    return float(db.execute("SELECT at FROM mark WHERE user = ?", (user,)).fetchone()[0])


def not_before(db: sqlite3.Connection, user: str, now: float) -> float:
    """The latest mark for this user or for everybody; 0 = none."""
    query = "SELECT max(at) FROM mark WHERE user IN ('', ?) AND drop_at > ?"
    return float(db.execute(query, (user, now)).fetchone()[0] or 0.0)


def note(db: sqlite3.Connection, name: str, at: float, now: float, keep_s: float) -> float:
    """Remember that something happened; at 0 = now. Notes share the marks' table by names of their own."""
    db.execute("DELETE FROM mark WHERE drop_at <= ?", (now,))
    at = max(at or now, noted(db, name, now))
    db.execute("INSERT OR REPLACE INTO mark VALUES (?, ?, ?)", (f"note:{name}", at, now + keep_s))
    return at


def noted(db: sqlite3.Connection, name: str, now: float) -> float:
    """When it happened; 0 = never, or it is forgotten."""
    query = "SELECT at FROM mark WHERE user = ? AND drop_at > ?"
    found = db.execute(query, (f"note:{name}", now)).fetchone()
    return float(found[0]) if found is not None else 0.0


def tally(db: sqlite3.Connection, now: float) -> list[Tally]:
    """Count the live sessions."""
    live: list[Record] = []
    for (blob,) in db.execute("SELECT row FROM session WHERE drop_at > ?", (now,)):
        try:
            row = current(_decode(blob), now)
        except (msgspec.DecodeError, TypeError, ValueError):
            continue
        if row is not None and not ended(row.record, now, not_before(db, row.record.user, now)):
            live.append(row.record)
    return tallied(live)


class SqliteBeside:
    """The file of a store that another process may have open: an operator's command.

    The service notices within a second (`SqliteStore._look_outside`).

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def mark(self, user: str, keep_s: float) -> float:
        return await asyncio.to_thread(self._with, lambda db: mark(db, user, time.time(), keep_s))

    async def tally(self) -> list[Tally]:
        return await asyncio.to_thread(self._with, lambda db: tally(db, time.time()))

    async def count_of(self, name: str) -> int:
        """How many sessions are on a user's list."""
        query = "SELECT count(*) FROM belongs WHERE name = ? AND drop_at > ?"
        return await asyncio.to_thread(
            self._with, lambda db: int(db.execute(query, (name, time.time())).fetchone()[0])
        )

    async def close(self) -> None:
        """Nothing stays open between two calls."""

    def _with(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        if not self._path.is_file():
            raise StoreUnavailable(f"there is no SQLite store at {self._path}")
        try:
            db = sqlite3.connect(self._path, timeout=10.0)
            try:
                with db:
                    db.executescript(SCHEMA)
                    return work(db)
            finally:
                db.close()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"SQLite store {self._path}: {error}") from error
