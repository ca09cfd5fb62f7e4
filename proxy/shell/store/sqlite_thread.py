"""The thread of a SQLite store: calls queue up, and those that wait together share one sync.

One connection on one thread of its own, so the loop never waits for a disk. Reads do not wait
for the sync of the writes beside them. A call whose task is cancelled runs on; only its answer
is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from proxy.errors import StoreUnavailable
from proxy.shell.store.sqlite_file import SqliteFile

log = logging.getLogger("nightporter.store")

_BATCH = 128
_LOOK_S = 0.3
_TRY_S = 2.0
"""How often a write is tried while writes fail and nobody asks for one: what is well again says so."""

Work = Callable[[sqlite3.Connection], Any]


class _Call(NamedTuple):
    work: Work
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    reads: bool
    landed: Callable[[], None]  # called on the loop once the work is durable


class SqliteThread:
    """`open` before use.

    Args:
        file: taken while the thread runs.
        prepare: called once with the new connection, before anything else.
        touch: a write that changes nothing.
        on_outside_write: called on the loop when another program has written to the file.

    Attributes:
        problem: why writes fail, in one word; reads may go on all the while. "" = they do not.
    """

    def __init__(
        self, file: SqliteFile, prepare: Work, touch: Work, on_outside_write: Callable[[], None]
    ) -> None:
        self.problem = ""
        self._file = file
        self._prepare = prepare
        self._touch = touch
        self._on_outside_write = on_outside_write
        self._queue: deque[_Call] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._version = 0
        self._try_at = 0.0

    async def open(self) -> None:
        """Take the file and make it ready.

        Raises:
            StoreUnavailable: it cannot be had; the detail says why and what to do.
        """
        if self._thread is not None and self._thread.is_alive():
            raise StoreUnavailable(f"the SQLite store {self._file.path} is open already")
        self._closing = False
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Any] = loop.create_future()
        self._thread = threading.Thread(target=self._serve, args=(ready, loop), name="sqlite", daemon=True)
        self._thread.start()
        try:
            await ready
        except asyncio.CancelledError:
            self._stop()
            raise

    async def close(self) -> None:
        """Do what was asked for until now, and let go of the file."""
        self._stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 10.0)

    def _stop(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()

    async def run(self, work: Work, *, reads: bool = False, landed: Callable[[], None] = lambda: None) -> Any:
        """Queue `work`; a cancelled caller leaves it to finish and nobody else gets its answer.

        Args:
            reads: it changes nothing.
            landed: called on the loop once it is durable, whatever has become of the caller.

        Raises:
            StoreUnavailable: closed, or SQLite failed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._wake:
            if self._closing or self._thread is None or not self._thread.is_alive():
                raise StoreUnavailable("the SQLite store is closed")
            self._queue.append(_Call(work, future, loop, reads, landed))
            self._wake.notify()
        return await asyncio.shield(future)

    # -- on the thread --

    def _serve(self, ready: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        db: sqlite3.Connection | None = None
        refusal: StoreUnavailable | None = None
        try:
            try:
                db = self._file.take(lambda: self._closing)
                self._prepare(db)
            except (StoreUnavailable, sqlite3.Error, OSError) as error:
                refusal = self._file.translated(error)
                return
            _answer(loop, ready, None, None)
            while (batch := self._next_batch()) is not None:
                self._look_outside(db, loop)
                self._try_to_write(db)
                reads = [call for call in batch if call.reads]
                writes = [call for call in batch if not call.reads]
                if reads:
                    self._do(db, "BEGIN", reads)
                if writes:
                    self._do(db, "BEGIN IMMEDIATE", writes)
        finally:
            self._file.release(db)
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
        """Notice what an operator's command wrote."""
        try:
            version = db.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return  # the next call says what is wrong
        if self._version not in (0, version):
            try:
                loop.call_soon_threadsafe(self._on_outside_write)
            except RuntimeError:
                return  # the loop is closing
        self._version = version

    def _do(self, db: sqlite3.Connection, begin: str, batch: list[_Call]) -> None:
        """Several calls under one sync; none is answered before it."""
        answers: list[tuple[Any, Exception | None]] = []
        writes = not batch[0].reads
        try:
            db.execute(begin)
            if writes:
                self._file.check_place()
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
            if writes:
                self.problem = ""
        except (sqlite3.Error, StoreUnavailable) as error:
            if writes:
                self._writes_fail(error)
            if db.in_transaction:
                try:
                    db.execute("ROLLBACK")
                except sqlite3.Error:
                    log.exception("rollback_failed")
            unavailable = self._file.translated(error)
            log.error("store_failed", extra={"detail": unavailable.detail})
            answers = [(None, self._file.translated(error)) for _ in batch]
        for call, (answer, problem) in zip(batch, answers, strict=True):
            _answer(call.loop, call.future, answer, problem, call.landed)

    def _writes_fail(self, error: Exception) -> None:
        self.problem = self._file.word_for(error)
        self._try_at = time.monotonic() + _TRY_S

    def _try_to_write(self, db: sqlite3.Connection) -> None:
        """While writes fail, try one that changes nothing, now and then."""
        if not self.problem or time.monotonic() < self._try_at:
            return
        try:
            self._file.check_place()
            self._file.wait_for_others(db, False)  # reads must not wait behind this
            self._touch(db)
        except (sqlite3.Error, StoreUnavailable) as error:
            self._writes_fail(error)
            return
        finally:
            self._file.wait_for_others(db, True)
        log.info("store_back", extra={"reason": self.problem})
        self.problem = ""


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
