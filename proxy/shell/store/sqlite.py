"""Sessions in one SQLite file: embedded, durable, for one process.

Every change is synced before it is answered: a rotated refresh token that was acknowledged
survives a power cut. How the calls come to the disk is `sqlite_thread.py`'s, whose file it is
`sqlite_file.py`'s.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from proxy.core import record as rules
from proxy.core.answers import Snapshot, Tally
from proxy.core.record import Row
from proxy.core.session import Record
from proxy.errors import StoreUnavailable
from proxy.shell.store import sqlite_marks
from proxy.shell.store.embedded import Answer, Change, EmbeddedStore
from proxy.shell.store.sqlite_file import SqliteFile
from proxy.shell.store.sqlite_thread import SqliteThread

log = logging.getLogger("nightporter.store")

SCHEMA_VERSION = 2
_PURGE_EVERY = 64
_PURGE_ROWS = 256
_PAGE = 256

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Row).decode

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (
    key TEXT PRIMARY KEY, row BLOB NOT NULL, drop_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS session_drop_at ON session (drop_at);
CREATE TABLE IF NOT EXISTS belongs (
    name TEXT, key TEXT, drop_at REAL NOT NULL, PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS belongs_drop_at ON belongs (drop_at);
CREATE TABLE IF NOT EXISTS flow (id TEXT PRIMARY KEY, drop_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS flow_drop_at ON flow (drop_at);
"""
_SIGN = f"PRAGMA user_version = {SCHEMA_VERSION}"


def _sign(db: sqlite3.Connection) -> None:
    """A write that changes nothing: the version is there already."""
    db.execute(_SIGN)


class SqliteStore(EmbeddedStore):
    """The contract on a SQLite file. `open` before use.

    Args:
        path: of the file; its directory must exist.
        clock: the store's time, Unix seconds; called on the store's thread.
        wait_s: how long to wait for another process to let go of the file (a restart).
        busy_s: how long a write waits for another program (an operator's shell) that locks the file.
    """

    def __init__(
        self, path: str | Path, clock: Callable[[], float], *, wait_s: float = 10.0, busy_s: float = 5.0
    ) -> None:
        super().__init__()
        self._clock = clock
        self._file = SqliteFile(Path(path), wait_s, busy_s)
        # What an operator's command wrote may be about any session: every open one is read again.
        self._thread = SqliteThread(self._file, self._prepare, _sign, lambda: self._listeners.tell(""))
        self._changes = 0

    @property
    def problem(self) -> str:
        """Why writes fail; reads may go on all the while."""
        return self._thread.problem

    async def open(self) -> None:
        """Take the file and make it ready.

        Raises:
            StoreUnavailable: it cannot be had; the detail says why and what to do.
        """
        await self._thread.open()

    async def close(self) -> None:
        await self._thread.close()

    # -- operations --

    async def _change(self, key: str, change: Change[Answer]) -> Answer:
        told = False

        def work(db: sqlite3.Connection) -> Answer:
            nonlocal told
            now = self._clock()
            before = rules.current(self._load(db, key), now)
            after, answer = change(before, now)
            if after is None:
                if before is not None:
                    db.execute("DELETE FROM session WHERE key = ?", (key,))
            elif after is not before:
                db.execute(
                    "INSERT INTO session VALUES (?, ?, ?) ON CONFLICT (key) "
                    "DO UPDATE SET row = excluded.row, drop_at = excluded.drop_at",
                    (key, _encode(after), after.drop_at),
                )
                if before is None:
                    self._index(db, key, after.record)
                self._purge(db, now)
            told = rules.others_must_know(before, after)
            return answer

        def landed() -> None:
            if told:
                self._listeners.tell(key)

        return await self._thread.run(work, landed=landed)

    async def read(self, key: str) -> Snapshot:
        def work(db: sqlite3.Connection) -> Snapshot:
            now = self._clock()
            row = rules.current(self._load(db, key), now)
            if row is None:
                return Snapshot(None, now)
            return Snapshot(row.record, now, sqlite_marks.not_before(db, row.record.user, now))

        return await self._thread.run(work, reads=True)

    async def not_before(self, record: Record) -> float:
        return await self._thread.run(
            lambda db: sqlite_marks.not_before(db, record.user, self._clock()), reads=True
        )

    async def note(self, name: str, keep_s: float, at: float = 0.0) -> float:
        return await self._thread.run(lambda db: sqlite_marks.note(db, name, at, self._clock(), keep_s))

    async def noted(self, name: str) -> float:
        return await self._thread.run(lambda db: sqlite_marks.noted(db, name, self._clock()), reads=True)

    async def mark(self, user: str, keep_s: float) -> float:
        return await self._thread.run(
            lambda db: sqlite_marks.mark(db, user, self._clock(), keep_s),
            landed=lambda: self._listeners.tell(f"user:{user}" if user else ""),
        )

    async def sessions_of(self, name: str) -> list[str]:
        def work(db: sqlite3.Connection) -> list[str]:
            now = self._clock()
            found = db.execute("SELECT key FROM belongs WHERE name = ? AND drop_at > ?", (name, now))
            return [key for (key,) in found]

        return await self._thread.run(work, reads=True)

    async def tally(self) -> list[Tally]:
        return await self._thread.run(lambda db: sqlite_marks.tally(db, self._clock()), reads=True)

    async def spend_flow(self, flow_id: str, keep_s: float) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            now = self._clock()
            db.execute(
                "DELETE FROM flow WHERE id IN (SELECT id FROM flow WHERE drop_at <= ? LIMIT ?)",
                (now, _PURGE_ROWS),
            )
            done = db.execute(
                "INSERT INTO flow VALUES (?, ?) ON CONFLICT (id) "
                "DO UPDATE SET drop_at = excluded.drop_at WHERE drop_at <= ?",
                (flow_id, now + keep_s, now),
            )
            return done.rowcount == 1

        return await self._thread.run(work)

    # -- on the thread --

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Check whose file it is, make the tables, bury what a process that is gone left open."""
        path = self._file.path
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"{path} was written by a newer version (schema {version}, this one knows "
                f"{SCHEMA_VERSION}): start that version, or another file"
            )
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not {"session", "flow"} & tables:
            raise StoreUnavailable(f"{path} is another program's database: name another file")
        self._file.make_durable(db)
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {sqlite_marks.SCHEMA} {_SIGN}; COMMIT;")
        self._orphan(db)
        self._file.sync_names()

    def _orphan(self, db: sqlite3.Connection) -> None:
        """Whoever held leases is gone: free them; the intents stay, with nobody behind them."""
        db.execute("BEGIN IMMEDIATE")
        last = ""
        while page := db.execute(
            "SELECT key, row FROM session WHERE key > ? ORDER BY key LIMIT ?", (last, _PAGE)
        ).fetchall():
            for key, blob in page:
                row = self._decoded(key, blob)
                if row is not None and (row.lease is not None or any(i.holder for i in row.record.intents)):
                    db.execute(
                        "UPDATE session SET row = ? WHERE key = ?", (_encode(rules.orphaned(row)), key)
                    )
            last = page[-1][0]
        db.execute("COMMIT")

    def _load(self, db: sqlite3.Connection, key: str) -> Row | None:
        found = db.execute("SELECT row FROM session WHERE key = ?", (key,)).fetchone()
        return self._decoded(key, found[0]) if found is not None else None

    @staticmethod
    def _decoded(key: str, blob: bytes) -> Row | None:
        try:
            return _decode(blob)
        except (msgspec.DecodeError, TypeError, ValueError):
            log.error("record_unreadable", extra={"session": key[:12]})
            return None

    @staticmethod
    def _index(db: sqlite3.Connection, key: str, record: Record) -> None:
        for name in filter(None, (record.user, record.op_session)):
            db.execute("INSERT OR REPLACE INTO belongs VALUES (?, ?, ?)", (name, key, record.end))

    def _purge(self, db: sqlite3.Connection, now: float) -> None:
        self._changes += 1
        if self._changes % _PURGE_EVERY == 0:
            db.execute(
                "DELETE FROM session WHERE key IN "
                "(SELECT key FROM session WHERE drop_at <= ? ORDER BY drop_at LIMIT ?)",
                (now, _PURGE_ROWS),
            )
            db.execute(
                "DELETE FROM belongs WHERE (name, key) IN "
                "(SELECT name, key FROM belongs WHERE drop_at <= ? ORDER BY drop_at LIMIT ?)",
                (now, _PURGE_ROWS),
            )
