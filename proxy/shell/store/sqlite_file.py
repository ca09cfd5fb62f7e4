"""The file of a SQLite store: who has it, where it is, and what is wrong with it."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from proxy.errors import StoreUnavailable

_WAL_BYTES = 16 * 1024 * 1024

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


class SqliteFile:
    """One file for one process at a time, by a lock on a file beside it.

    Args:
        path: of the file; its directory must exist.
        wait_s: how long to wait for another process to let go of it (a restart).
        busy_s: how long a write waits for another program (an operator's shell) that locks it.
    """

    def __init__(self, path: Path, wait_s: float, busy_s: float) -> None:
        self.path = path
        self._wait_s = wait_s
        self._busy_s = busy_s
        self._lock_fd = -1
        self._inode = (0, 0)

    def take(self, unwanted: Callable[[], bool]) -> sqlite3.Connection:
        """A connection, once nobody else has the file; `release` it.

        Args:
            unwanted: whether to stop waiting.

        Raises:
            StoreUnavailable: no directory, or another process has it.
            sqlite3.Error: SQLite cannot have it; see `translated`.
            OSError: nor can anybody.
        """
        if not self.path.parent.is_dir():
            raise StoreUnavailable(f"the directory {self.path.parent} of the SQLite store does not exist")
        self._lock(unwanted)
        # SQLite gives its -wal and -shm the mode of the file.
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
            self._inode = _inode(os.fstat(fd))
        finally:
            os.close(fd)
        return sqlite3.connect(self.path, isolation_level=None, timeout=self._busy_s)

    def _lock(self, unwanted: Callable[[], bool]) -> None:
        # The lock file stays when we go: to remove it would let two processes lock two files.
        self._lock_fd = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until or unwanted():
                    raise StoreUnavailable(
                        f"{self.path} is in use by another process: the SQLite store is for one "
                        "process; stop the other one, or use a shared store"
                    ) from None
                time.sleep(0.05)

    def release(self, db: sqlite3.Connection | None) -> None:
        """Let another process have it."""
        # The lock last: whoever gets it may rely on nobody else having the file.
        if db is not None:
            db.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def make_durable(self, db: sqlite3.Connection) -> None:
        """What is committed survives a power cut.

        Raises:
            StoreUnavailable: not on this file system.
        """
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreUnavailable(
                f"{self.path}: this file system cannot do write-ahead logging (journal mode stays {mode}): "
                "use a local disk"
            )
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")

    def sync_names(self) -> None:
        """Make the names of new files as durable as what is in them."""
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def wait_for_others(self, db: sqlite3.Connection, wait: bool) -> None:
        """Whether a write that meets another program's lock waits."""
        db.execute(f"PRAGMA busy_timeout = {int(self._busy_s * 1000) if wait else 0}")

    def check_place(self) -> None:
        """In WAL mode SQLite itself does not notice that its file is gone, and would go on into nowhere.

        Raises:
            StoreUnavailable: it is.
        """
        try:
            there = _inode(self.path.stat()) == self._inode
        except OSError:
            there = False
        if not there:
            raise StoreUnavailable(f"SQLite store {self.path}: moved or deleted while in use: restart")

    def word_for(self, error: Exception) -> str:
        """What is wrong, in one word."""
        return "moved" if isinstance(error, StoreUnavailable) else _WORDS.get(_code(error), "failing")

    def translated(self, error: Exception) -> StoreUnavailable:
        """What is wrong and what to do, as our error."""
        if isinstance(error, StoreUnavailable):
            return error
        if isinstance(error, sqlite3.Error):
            text = f"{_REMEDIES.get(_code(error), 'SQLite failed')} ({error})"
        elif isinstance(error, OSError) and error.errno == errno.EISDIR:
            text = "is a directory: name a file"
        else:
            text = f"{getattr(error, 'strerror', '')}: make the file and its directory writable for this user"
        unavailable = StoreUnavailable(f"SQLite store {self.path}: {text}")
        unavailable.__cause__ = error
        return unavailable


def _code(error: Exception) -> int:
    """SQLite's primary result code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
