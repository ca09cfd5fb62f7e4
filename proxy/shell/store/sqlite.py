"""Sessions in one SQLite file: embedded, durable, for one process.

One connection on one thread of its own, so the loop never waits for a disk. Every change is
synced before it is answered: a rotated refresh token that was acknowledged survives a power
cut. Calls that queue up while a sync is under way share the next one.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from proxy.core import record as rules
from proxy.core.record import Row
from proxy.errors import StoreUnavailable
from proxy.shell.store.embedded import Answer, Change, EmbeddedStore

log = logging.getLogger("nightporter.store")

SCHEMA_VERSION = 1
_PURGE_EVERY = 64
_BATCH = 128

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Row).decode

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (
    key TEXT PRIMARY KEY, row BLOB NOT NULL, drop_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS session_drop_at ON session (drop_at);
CREATE TABLE IF NOT EXISTS flow (id TEXT PRIMARY KEY, drop_at REAL NOT NULL) WITHOUT ROWID;
"""

Work = Callable[[sqlite3.Connection], Any]


class SqliteStore(EmbeddedStore):
    """The contract on a SQLite file. `open` before use.

    Args:
        path: of the file; its directory must exist.
        clock: the store's time, Unix seconds.
        wait_s: how long to wait for another process to let go of the file (a restart).
    """

    def __init__(self, path: str | Path, clock: Callable[[], float], *, wait_s: float = 10.0) -> None:
        super().__init__()
        self._path = Path(path)
        self._clock = clock
        self._wait_s = wait_s
        self._queue: deque[tuple[Work, asyncio.Future[Any], asyncio.AbstractEventLoop]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._lock: IO[bytes] | None = None
        self._changes = 0

    async def open(self) -> None:
        """Take the file and make it ready.

        Raises:
            StoreUnavailable: it cannot be had; the detail says why and what to do.
        """
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Any] = loop.create_future()
        self._thread = threading.Thread(target=self._work, args=(ready, loop), name="sqlite", daemon=True)
        self._thread.start()
        await ready

    async def _change(self, key: str, change: Change[Answer]) -> Answer:
        def work(db: sqlite3.Connection) -> Answer:
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
                self._purge(db, now)
            return answer

        return await self._run(work)

    async def spend_flow(self, flow_id: str, keep_s: float) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            now = self._clock()
            db.execute("DELETE FROM flow WHERE drop_at <= ?", (now,))
            done = db.execute("INSERT OR IGNORE INTO flow VALUES (?, ?)", (flow_id, now + keep_s))
            return done.rowcount == 1

        return await self._run(work)

    async def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 10.0)

    # -- the thread --

    async def _run(self, work: Work) -> Any:
        """Queue `work`; a cancelled caller leaves it to finish and nobody else gets its answer."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._wake:
            if self._closing or self._thread is None or not self._thread.is_alive():
                raise StoreUnavailable("the SQLite store is closed")
            self._queue.append((work, future, loop))
            self._wake.notify()
        return await asyncio.shield(future)

    def _work(self, ready: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        try:
            db = self._prepare()
        except StoreUnavailable as error:
            loop.call_soon_threadsafe(ready.set_exception, error)
            return
        except (sqlite3.Error, OSError) as error:
            loop.call_soon_threadsafe(ready.set_exception, self._translated(error))
            return
        loop.call_soon_threadsafe(ready.set_result, None)
        try:
            while batch := self._next_batch():
                self._batch(db, batch)
        finally:
            db.close()
            if self._lock is not None:
                self._lock.close()

    def _next_batch(self) -> list[tuple[Work, asyncio.Future[Any], asyncio.AbstractEventLoop]]:
        with self._wake:
            while not self._queue and not self._closing:
                self._wake.wait()
            return [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))]

    def _batch(
        self,
        db: sqlite3.Connection,
        batch: list[tuple[Work, asyncio.Future[Any], asyncio.AbstractEventLoop]],
    ) -> None:
        """Do several calls under one sync; none is answered before it."""
        answers: list[tuple[asyncio.Future[Any], asyncio.AbstractEventLoop, Any, Exception | None]] = []
        try:
            db.execute("BEGIN IMMEDIATE")
            for work, future, loop in batch:
                db.execute("SAVEPOINT one")
                try:
                    answer, problem = work(db), None
                except sqlite3.Error:
                    raise
                except Exception as error:
                    db.execute("ROLLBACK TO one")
                    answer, problem = None, error
                db.execute("RELEASE one")
                answers.append((future, loop, answer, problem))
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                try:
                    db.execute("ROLLBACK")
                except sqlite3.Error:
                    log.exception("rollback_failed")
            failed = self._translated(error)
            log.error("store_failed", extra={"detail": failed.detail})
            answers = [(future, loop, None, failed) for _, future, loop in batch]
        for future, loop, answer, problem in answers:
            try:
                loop.call_soon_threadsafe(_settle, future, answer, problem)
            except RuntimeError:
                log.warning("store_answer_unwanted")  # the loop has closed under the call

    def _prepare(self) -> sqlite3.Connection:
        if not self._path.parent.is_dir():
            raise StoreUnavailable(f"the directory {self._path.parent} of the SQLite store does not exist")
        self._lock = self._take_lock()
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"{self._path} was written by a newer version (schema {version}, this one knows "
                f"{SCHEMA_VERSION}): start that version, or another file"
            )
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._orphan(db)
        return db

    def _take_lock(self) -> IO[bytes]:
        file = os.fdopen(os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        until = time.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    file.close()
                    raise StoreUnavailable(
                        f"{self._path} is in use by another process: the SQLite store is for one "
                        "process; stop the other one, or use a shared store"
                    ) from None
                time.sleep(0.05)
            else:
                return file

    def _orphan(self, db: sqlite3.Connection) -> None:
        """Whoever held leases is gone: free them; the intents stay, with nobody behind them."""
        db.execute("BEGIN IMMEDIATE")
        for key, blob in db.execute("SELECT key, row FROM session").fetchall():
            row = self._decoded(key, blob)
            if row is not None and (row.lease is not None or any(i.holder for i in row.record.intents)):
                db.execute("UPDATE session SET row = ? WHERE key = ?", (_encode(rules.orphaned(row)), key))
        db.execute("COMMIT")

    def _load(self, db: sqlite3.Connection, key: str) -> Row | None:
        found = db.execute("SELECT row FROM session WHERE key = ?", (key,)).fetchone()
        return self._decoded(key, found[0]) if found is not None else None

    @staticmethod
    def _decoded(key: str, blob: bytes) -> Row | None:
        try:
            return _decode(blob)
        except msgspec.DecodeError:
            log.error("record_unreadable", extra={"session": key[:12]})
            return None

    def _purge(self, db: sqlite3.Connection, now: float) -> None:
        self._changes += 1
        if self._changes % _PURGE_EVERY == 0:
            db.execute(
                "DELETE FROM session WHERE key IN "
                "(SELECT key FROM session WHERE drop_at <= ? ORDER BY drop_at LIMIT 256)",
                (now,),
            )

    def _translated(self, error: Exception) -> StoreUnavailable:
        text = str(error) if isinstance(error, sqlite3.Error) else (getattr(error, "strerror", "") or "")
        if "malformed" in text or "not a database" in text:
            text += ": restore the file or start with another"
        elif "full" in text:
            text += ": free disk space"
        elif "readonly" in text or "ermission" in text:
            text += ": make the file and its directory writable for this user"
        return StoreUnavailable(f"SQLite store {self._path.name}: {text}")


def _settle(future: asyncio.Future[Any], answer: Any, problem: Exception | None) -> None:
    if future.done():
        return
    if problem is not None:
        future.set_exception(problem)
    else:
        future.set_result(answer)
