"""Sessions in one SQLite file: embedded, durable, for one process.

One connection on one thread of its own, so the loop never waits for a disk. Every change is
synced before it is answered: a rotated refresh token that was acknowledged survives a power
cut. Calls that queue up while a sync is under way share the next one; reads among them do
not wait for it.

A call whose task is cancelled runs on, and its listeners hear of it: only the answer is dropped.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from proxy.core import record as rules
from proxy.core.answers import Snapshot, Tally
from proxy.core.record import Row
from proxy.core.session import Record
from proxy.errors import StoreUnavailable
from proxy.shell.store import sqlite_marks
from proxy.shell.store.embedded import Answer, Change, EmbeddedStore

log = logging.getLogger("nightporter.store")

SCHEMA_VERSION = 2
_PURGE_EVERY = 64
_PURGE_ROWS = 256
_BATCH = 128
_PAGE = 256
_LOOK_S = 0.3
_TRY_S = 2.0
"""How often a write is tried while writes fail and nobody asks for one: what is well again says so."""
_WAL_BYTES = 16 * 1024 * 1024

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

_LOCKED = "locked by another program: close the tool that holds it"
_REMEDIES = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "read-only: make the file and its directory writable for this user",
    sqlite3.SQLITE_PERM: "no permission: make the file and its directory writable for this user",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: its directory must exist and be writable for this user",
    sqlite3.SQLITE_CORRUPT: "damaged: restore the file or start with another",
    sqlite3.SQLITE_NOTADB: "not a database: name another file",
    sqlite3.SQLITE_IOERR: "the disk fails: look at the kernel's log",
}

_WORDS = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
}
"""What is wrong, in one word, while writes fail."""

Work = Callable[[sqlite3.Connection], Any]


class _Call(NamedTuple):
    work: Work
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    reads: bool
    landed: Callable[[], None]  # called on the loop once the work is durable


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
        self._path = Path(path)
        self._clock = clock
        self._wait_s = wait_s
        self._busy_s = busy_s
        self._queue: deque[_Call] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._changes = 0
        self._version = 0
        self._inode = (0, 0)
        self._problem = ""
        self._try_at = 0.0

    @property
    def problem(self) -> str:
        """Why writes fail; reads may go on all the while."""
        return self._problem

    async def open(self) -> None:
        """Take the file and make it ready.

        Raises:
            StoreUnavailable: it cannot be had; the detail says why and what to do.
        """
        if self._thread is not None and self._thread.is_alive():
            raise StoreUnavailable(f"the SQLite store {self._path} is open already")
        self._closing = False
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Any] = loop.create_future()
        self._thread = threading.Thread(target=self._work, args=(ready, loop), name="sqlite", daemon=True)
        self._thread.start()
        try:
            await ready
        except asyncio.CancelledError:
            self._stop()
            raise

    async def close(self) -> None:
        self._stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 10.0)

    def _stop(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()

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

        return await self._run(work, landed=landed)

    async def read(self, key: str) -> Snapshot:
        def work(db: sqlite3.Connection) -> Snapshot:
            now = self._clock()
            row = rules.current(self._load(db, key), now)
            if row is None:
                return Snapshot(None, now)
            return Snapshot(row.record, now, sqlite_marks.not_before(db, row.record.user, now))

        return await self._run(work, reads=True)

    async def not_before(self, record: Record) -> float:
        return await self._run(lambda db: sqlite_marks.not_before(db, record.user, self._clock()), reads=True)

    async def note(self, name: str, keep_s: float, at: float = 0.0) -> float:
        return await self._run(lambda db: sqlite_marks.note(db, name, at, self._clock(), keep_s))

    async def noted(self, name: str) -> float:
        return await self._run(lambda db: sqlite_marks.noted(db, name, self._clock()), reads=True)

    async def mark(self, user: str, keep_s: float) -> float:
        return await self._run(
            lambda db: sqlite_marks.mark(db, user, self._clock(), keep_s),
            landed=lambda: self._listeners.tell(f"user:{user}" if user else ""),
        )

    async def sessions_of(self, name: str) -> list[str]:
        def work(db: sqlite3.Connection) -> list[str]:
            now = self._clock()
            found = db.execute("SELECT key FROM belongs WHERE name = ? AND drop_at > ?", (name, now))
            return [key for (key,) in found]

        return await self._run(work, reads=True)

    async def tally(self) -> list[Tally]:
        return await self._run(lambda db: sqlite_marks.tally(db, self._clock()), reads=True)

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

        return await self._run(work)

    async def _run(
        self, work: Work, *, reads: bool = False, landed: Callable[[], None] = lambda: None
    ) -> Any:
        """Queue `work`; a cancelled caller leaves it to finish and nobody else gets its answer."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._wake:
            if self._closing or self._thread is None or not self._thread.is_alive():
                raise StoreUnavailable("the SQLite store is closed")
            self._queue.append(_Call(work, future, loop, reads, landed))
            self._wake.notify()
        return await asyncio.shield(future)

    # -- the thread --

    def _work(self, ready: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        lock_fd = -1
        db: sqlite3.Connection | None = None
        refusal: StoreUnavailable | None = None
        try:
            try:
                if not self._path.parent.is_dir():
                    raise StoreUnavailable(
                        f"the directory {self._path.parent} of the SQLite store does not exist"
                    )
                lock_fd = self._take_lock()
                db = self._connect()
                self._prepare(db)
            except (StoreUnavailable, sqlite3.Error, OSError) as error:
                refusal = self._translated(error)
                return
            _answer(loop, ready, None, None)
            while (batch := self._next_batch()) is not None:
                self._look_outside(db, loop)
                self._try_to_write(db)
                reads = [call for call in batch if call.reads]
                writes = [call for call in batch if not call.reads]
                if reads:
                    self._batch(db, "BEGIN", reads)
                if writes:
                    self._batch(db, "BEGIN IMMEDIATE", writes)
        finally:
            # The lock last: whoever gets it may rely on nobody else having the file.
            if db is not None:
                db.close()
            if lock_fd >= 0:
                os.close(lock_fd)
            if refusal is not None:  # told only now: who hears it may open the file at once
                _answer(loop, ready, None, refusal)

    def _next_batch(self) -> list[_Call] | None:
        """Calls to do now, none after a while without any; None once all are done and we close."""
        with self._wake:
            if not self._queue and not self._closing:
                self._wake.wait(_LOOK_S)
            if self._closing and not self._queue:
                return None
            return [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))]

    def _look_outside(self, db: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Notice what an operator's command wrote: every open session is read again then."""
        try:
            version = db.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return  # the next call says what is wrong
        if self._version not in (0, version):
            try:
                loop.call_soon_threadsafe(self._listeners.tell, "")
            except RuntimeError:
                return  # the loop is closing
        self._version = version

    def _batch(self, db: sqlite3.Connection, begin: str, batch: list[_Call]) -> None:
        """Do several calls under one sync; none is answered before it."""
        answers: list[tuple[Any, Exception | None]] = []
        try:
            db.execute(begin)
            if not batch[0].reads:
                self._check_place()
            for call in batch:
                db.execute("SAVEPOINT one")
                try:
                    answer, problem = call.work(db), None
                except sqlite3.Error:
                    raise
                except Exception as error:
                    db.execute("ROLLBACK TO one")
                    answer, problem = None, error
                db.execute("RELEASE one")
                answers.append((answer, problem))
            db.execute("COMMIT")
            if not batch[0].reads:
                self._problem = ""
        except (sqlite3.Error, StoreUnavailable) as error:
            if not batch[0].reads:
                self._writes_fail(error)
            if db.in_transaction:
                try:
                    db.execute("ROLLBACK")
                except sqlite3.Error:
                    log.exception("rollback_failed")
            log.error("store_failed", extra={"detail": self._translated(error).detail})
            answers = [(None, self._translated(error)) for _ in batch]
        for call, (answer, problem) in zip(batch, answers, strict=True):
            _answer(call.loop, call.future, answer, problem, call.landed)

    def _writes_fail(self, error: sqlite3.Error | StoreUnavailable) -> None:
        moved = isinstance(error, StoreUnavailable)
        self._problem = "moved" if moved else _WORDS.get(_code(error), "failing")
        self._try_at = time.monotonic() + _TRY_S

    def _try_to_write(self, db: sqlite3.Connection) -> None:
        """While writes fail, try one that changes nothing, now and then."""
        if not self._problem or time.monotonic() < self._try_at:
            return
        try:
            self._check_place()
            db.execute("PRAGMA busy_timeout = 0")  # reads must not wait behind this
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except (sqlite3.Error, StoreUnavailable) as error:
            self._writes_fail(error)
            return
        finally:
            db.execute(f"PRAGMA busy_timeout = {int(self._busy_s * 1000)}")
        log.info("store_back", extra={"reason": self._problem})
        self._problem = ""

    def _connect(self) -> sqlite3.Connection:
        # SQLite gives its -wal and -shm the mode of the file.
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
            self._inode = _inode(os.fstat(fd))
        finally:
            os.close(fd)
        return sqlite3.connect(self._path, isolation_level=None, timeout=self._busy_s)

    def _check_place(self) -> None:
        """In WAL mode SQLite itself does not notice that its file is gone, and would go on into nowhere."""
        try:
            there = _inode(self._path.stat()) == self._inode
        except OSError:
            there = False
        if not there:
            raise StoreUnavailable(f"SQLite store {self._path}: moved or deleted while in use: restart")

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Check whose file it is, make the tables, bury what a process that is gone left open."""
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"{self._path} was written by a newer version (schema {version}, this one knows "
                f"{SCHEMA_VERSION}): start that version, or another file"
            )
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not {"session", "flow"} & tables:
            raise StoreUnavailable(f"{self._path} is another program's database: name another file")
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreUnavailable(
                f"{self._path}: this file system cannot do write-ahead logging (journal mode stays {mode}): "
                "use a local disk"
            )
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        tables = f"{_SCHEMA} {sqlite_marks.SCHEMA} PRAGMA user_version = {SCHEMA_VERSION};"
        db.executescript(f"BEGIN IMMEDIATE; {tables} COMMIT;")
        self._orphan(db)
        _sync_directory(self._path.parent)

    def _take_lock(self) -> int:
        """The open lock file. It stays when we go: to remove it would let two processes lock two files."""
        fd = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + self._wait_s
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return fd
                except BlockingIOError:
                    if time.monotonic() >= until or self._closing:
                        raise StoreUnavailable(
                            f"{self._path} is in use by another process: the SQLite store is for one "
                            "process; stop the other one, or use a shared store"
                        ) from None
                    time.sleep(0.05)
        except BaseException:
            os.close(fd)
            raise

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

    def _translated(self, error: Exception) -> StoreUnavailable:
        if isinstance(error, StoreUnavailable):
            return error
        if isinstance(error, sqlite3.Error):
            text = f"{_REMEDIES.get(_code(error), 'SQLite failed')} ({error})"
        elif isinstance(error, OSError) and error.errno == errno.EISDIR:
            text = "is a directory: name a file"
        else:
            text = f"{getattr(error, 'strerror', '')}: make the file and its directory writable for this user"
        unavailable = StoreUnavailable(f"SQLite store {self._path}: {text}")
        unavailable.__cause__ = error
        return unavailable


def _code(error: Exception) -> int:
    """SQLite's primary result code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _sync_directory(directory: Path) -> None:
    """Make the names of new files as durable as what is in them."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _answer(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    answer: Any,
    problem: Exception | None,
    landed: Callable[[], None] = lambda: None,
) -> None:
    try:
        loop.call_soon_threadsafe(_settle, future, answer, problem, landed)
    except RuntimeError:
        log.warning("store_answer_unwanted")  # the loop has closed under the call


def _settle(
    future: asyncio.Future[Any], answer: Any, problem: Exception | None, landed: Callable[[], None]
) -> None:
    if problem is None:
        landed()
    if future.done():
        return
    if problem is not None:
        future.set_exception(problem)
    else:
        future.set_result(answer)
