"""What only the SQLite store promises: durability, one process, clear errors, cancelled callers."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from proxy.core.answers import Changed, Committed, Condemned, Granted, Held
from proxy.core.session import LEASE_S
from proxy.errors import StoreUnavailable
from proxy.shell.store.sqlite import SCHEMA_VERSION, SqliteStore
from tests.contract.sessions import KEY, ask, dead, grant, new_record, reply, stored
from tests.fakes import Clock

ROOT = Path(__file__).parents[2]


class OpenedUp(SqliteStore):
    """The store, with a way to its connection."""

    async def sql(self, statement: str, *values: object) -> list[Any]:
        return await self.on_thread(lambda db: db.execute(statement, values).fetchall())

    async def on_thread(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        return await self._thread.run(work, reads=True)

    @asynccontextmanager
    async def stalled(self) -> AsyncGenerator[None]:
        """The thread is busy meanwhile; what is asked queues up behind it."""
        busy, go = threading.Event(), threading.Event()

        def stall(db: sqlite3.Connection) -> None:
            busy.set()
            go.wait(30)

        stalling = asyncio.create_task(self.on_thread(stall))
        await asyncio.to_thread(busy.wait, 30)
        try:
            yield
        finally:
            go.set()
            await stalling


class File:
    """A path for a database and a clock for whoever opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()

    def play(self, script: Callable[[OpenedUp], Awaitable[None]], **options: float) -> None:
        async def body() -> None:
            async with self.opened(**options) as store:
                await script(store)

        asyncio.run(body())

    @asynccontextmanager
    async def opened(self, **options: float) -> AsyncGenerator[OpenedUp]:
        store = OpenedUp(
            self.path, self.clock, wait_s=options.get("wait_s", 0.0), busy_s=options.get("busy_s", 5.0)
        )
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    def refused(self, **options: float) -> str:
        """Open it, which must be refused; the detail."""

        async def body() -> str:
            with pytest.raises(StoreUnavailable) as caught:
                async with self.opened(**options):
                    pass
            return caught.value.detail

        return asyncio.run(body())


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "sessions.db")


# Durability.


def test_a_commit_is_synced_and_the_log_is_write_ahead(file: File) -> None:
    async def script(store: OpenedUp) -> None:
        assert await store.sql("PRAGMA journal_mode") == [("wal",)]
        assert await store.sql("PRAGMA synchronous") == [(2,)], "FULL"

    file.play(script)


def test_a_restart_keeps_the_session_and_frees_what_the_old_process_held(file: File) -> None:
    async def before(store: OpenedUp) -> None:
        await store.create(KEY, new_record())
        await store.create("idle", new_record())
        await grant(store, "a")
        await store.spend_flow("flow", 600)

    async def after(store: OpenedUp) -> None:
        assert await stored(store, "idle") == new_record()
        assert [(i.attempt, i.holder) for i in (await stored(store)).intents] == [("a", "")]
        assert await store.renew(KEY, "a", LEASE_S) is False, "the lease is gone with its holder"
        granted = await grant(store, "b")
        assert [i.attempt for i in granted.record.intents] == ["a", "b"], "still ambiguous for the next one"
        assert isinstance(await store.condemn(KEY, "b", "login", dead()), Condemned), "nobody to wait for"
        assert isinstance(await store.commit(KEY, reply("a")), Committed), (
            "a journal may still bring its reply"
        )
        assert await store.spend_flow("flow", 600) is False

    file.play(before)
    file.play(after)


def test_a_restart_frees_more_sessions_than_one_page(file: File) -> None:
    async def before(store: OpenedUp) -> None:
        await asyncio.gather(*(store.create(f"k{n}", new_record()) for n in range(700)))
        await asyncio.gather(*(store.acquire(f"k{n}", ask("a")) for n in range(0, 700, 7)))

    async def after(store: OpenedUp) -> None:
        for n in range(700):
            answer = await store.acquire(f"k{n}", ask("b"))
            assert isinstance(answer, Granted)
            assert [i.holder for i in answer.record.intents[:-1]] == ([""] if n % 7 == 0 else [])

    file.play(before)
    file.play(after)


def test_what_was_answered_survives_kill_9(file: File) -> None:
    chance = random.Random(9)
    printed = 0
    for _ in range(4):
        child = writer(file.path)
        assert child.stdout is not None
        for _ in range(chance.randint(1, 60)):
            printed = int(child.stdout.readline())
        spin_until = time.perf_counter() + chance.random() * 0.004
        while time.perf_counter() < spin_until:
            pass
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
        printed = int(rest[-1]) if rest and rest[-1].isdigit() else printed
        file.clock.now = time.time()

        async def check(store: OpenedUp, at_least: int = printed) -> None:
            record = await stored(store)
            assert at_least <= int(record.gen) <= at_least + 1
            assert record.tokens == reply(record.gen).tokens
            assert record.rt == f"rt of {record.gen}"
            assert all(i.holder == "" for i in record.intents)
            assert await store.sql("PRAGMA integrity_check") == [("ok",)]

        file.play(check)


def writer(path: Path) -> subprocess.Popen[str]:
    """Another process that has the file, and says so."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.writer_process", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_calls_that_queue_up_share_one_sync(file: File) -> None:
    statements: list[str] = []

    async def script(store: OpenedUp) -> None:
        await store.on_thread(lambda db: db.set_trace_callback(statements.append))
        async with store.stalled():
            creating = [asyncio.create_task(store.create(f"k{n}", new_record())) for n in range(50)]
            await asyncio.sleep(0)
            statements.clear()
        await asyncio.gather(*creating)
        assert statements.count("BEGIN IMMEDIATE") == 1
        for n in range(50):
            await stored(store, f"k{n}")

    file.play(script)


def test_a_call_that_fails_in_a_batch_fails_alone(file: File) -> None:
    class Broken(OpenedUp):
        async def broken(self) -> None:
            def work(db: sqlite3.Connection) -> None:
                db.execute("DELETE FROM session")
                raise ZeroDivisionError

            await self._thread.run(work)

    async def body() -> None:
        store = Broken(file.path, file.clock)
        await store.open()
        await store.create(KEY, new_record())
        async with store.stalled():
            calls = [
                asyncio.create_task(call)
                for call in (store.create("a", new_record()), store.broken(), store.create("b", new_record()))
            ]
            await asyncio.sleep(0)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), ZeroDivisionError, type(None)]
        for key in (KEY, "a", "b"):
            await stored(store, key)
        await store.close()

    asyncio.run(body())


# One process.


def test_a_second_process_is_refused_with_cause_and_remedy_and_let_in_when_the_first_is_gone(
    file: File,
) -> None:
    child = writer(file.path)
    try:
        detail = file.refused()
        assert "in use by another process" in detail
        assert "one process; stop the other one, or use a shared store" in detail
    finally:
        child.kill()
        child.communicate()
    file.clock.now = time.time()

    async def script(store: OpenedUp) -> None:
        await stored(store)

    file.play(script)


def test_a_restart_that_overlaps_waits_for_the_old_process(file: File) -> None:
    async def body() -> None:
        first = OpenedUp(file.path, file.clock)
        await first.open()
        await first.create(KEY, new_record())
        second = OpenedUp(file.path, file.clock, wait_s=30)
        opening = asyncio.create_task(second.open())
        await asyncio.sleep(0)
        await stored(first)
        assert not opening.done()
        await first.close()
        await opening
        await stored(second)
        await second.close()

    asyncio.run(body())


def test_an_opening_that_is_cancelled_leaves_nothing_behind(file: File) -> None:
    async def body() -> None:
        first = OpenedUp(file.path, file.clock)
        await first.open()
        second = OpenedUp(file.path, file.clock, wait_s=30)
        opening = asyncio.create_task(second.open())
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        await second.close()
        await first.close()
        async with file.opened():
            pass

    asyncio.run(body())


def test_an_opening_that_failed_lets_go_of_the_file(file: File) -> None:
    file.path.write_bytes(b"not a database, but long enough to be asked: " * 40)
    file.refused()
    file.path.unlink()
    file.play(lambda store: store.create(KEY, new_record()))


def test_only_the_owner_may_read_the_file_and_what_lies_beside_it(file: File) -> None:
    file.path.touch(mode=0o644)
    file.path.chmod(0o644)

    async def script(store: OpenedUp) -> None:
        await store.create(KEY, new_record())
        files = sorted(file.path.parent.iterdir())
        assert [path.name for path in files] == [
            "sessions.db",
            *(f"sessions.db{end}" for end in ("-shm", "-wal", ".lock")),
        ]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

    file.play(script)


# Files that cannot be used.


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert (
        f"the directory {tmp_path / 'none'} of the SQLite store does not exist"
        in File(tmp_path / "none" / "s").refused()
    )


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    assert "is a directory: name a file" in File(tmp_path).refused()


def test_a_file_that_is_no_database_is_left_alone(file: File) -> None:
    text = b"dear diary, today I was nearly overwritten by a proxy\n" * 40
    file.path.write_bytes(text)
    assert "not a database: name another file" in file.refused()
    assert file.path.read_bytes() == text


def test_another_programs_database_is_left_alone(file: File) -> None:
    with sqlite3.connect(file.path) as db:
        db.execute("CREATE TABLE diary (line TEXT)")
    db.close()
    assert "another program's database" in file.refused()
    db = sqlite3.connect(file.path)
    assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("diary",)]
    db.close()


def test_a_newer_schema_refuses_to_open_and_changes_nothing(file: File) -> None:
    file.play(lambda store: store.create(KEY, new_record()))
    db = sqlite3.connect(file.path)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    detail = file.refused()
    assert f"newer version (schema {SCHEMA_VERSION + 1}, this one knows {SCHEMA_VERSION})" in detail
    db = sqlite3.connect(file.path)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.close()
    file.play(lambda store: store.create("another", new_record()))


# A disk that fails while we run.


def test_a_full_disk_refuses_writes_still_reads_and_recovers(file: File) -> None:
    told: list[str] = []

    async def script(store: OpenedUp) -> None:
        store.listen(told.append)
        await store.create(KEY, new_record())
        pages = (await store.sql("PRAGMA page_count"))[0][0]
        await store.sql(f"PRAGMA max_page_count = {pages}")
        big = replace(reply("a"), tokens=bytes(1_000_000))
        with pytest.raises(StoreUnavailable) as caught:
            await store.commit(KEY, big)
        assert "the disk is full: free some space" in caught.value.detail
        assert store.problem == "full", "although reads go on"
        assert await stored(store) == new_record()
        assert told == [], "nothing happened, nobody hears of it"
        await store.sql("PRAGMA max_page_count = 1000000")
        assert isinstance(await store.commit(KEY, big), Committed), "the same attempt may be repeated"
        assert store.problem == ""
        assert told == [KEY]

    file.play(script)


def test_a_read_only_file_is_named(file: File) -> None:
    async def script(store: OpenedUp) -> None:
        await store.create(KEY, new_record())
        await store.sql("PRAGMA query_only = 1")
        with pytest.raises(StoreUnavailable) as caught:
            await store.commit(KEY, reply("a"))
        assert "read-only: make the file and its directory writable" in caught.value.detail
        assert (await stored(store)).gen == "login"
        assert store.problem == "read-only"

    file.play(script)


def test_writes_that_are_possible_again_are_noticed_although_nobody_writes(file: File) -> None:
    async def script(store: OpenedUp) -> None:
        await store.create(KEY, new_record())
        await store.sql("PRAGMA query_only = 1")
        with pytest.raises(StoreUnavailable):
            await store.commit(KEY, reply("a"))
        assert store.problem == "read-only"
        await store.sql("PRAGMA query_only = 0")
        async with asyncio.timeout(60):
            while store.problem:
                assert (await stored(store)).gen == "login"
                await asyncio.sleep(0.05)

    file.play(script)


def test_a_deleted_file_refuses_writes_that_nobody_would_find_again(file: File) -> None:
    async def script(store: OpenedUp) -> None:
        await store.create(KEY, new_record())
        file.path.unlink()
        with pytest.raises(StoreUnavailable) as caught:
            await store.commit(KEY, reply("a"))
        assert "moved or deleted while in use: restart" in caught.value.detail

    file.play(script)


def test_a_damaged_file_is_named_and_nothing_crashes(file: File) -> None:
    async def fill(store: OpenedUp) -> None:
        await asyncio.gather(*(store.create(f"k{n}", new_record(tokens=bytes(3000))) for n in range(100)))

    file.play(fill)
    with file.path.open("r+b") as raw:
        raw.seek(4096)
        raw.write(b"\xff" * (file.path.stat().st_size - 4096))

    assert "damaged: restore the file or start with another" in file.refused()


def test_while_another_program_holds_the_write_lock_reads_go_on_and_writes_are_refused_in_time(
    file: File,
) -> None:
    async def script(store: OpenedUp) -> None:
        await store.create(KEY, new_record())
        shell = sqlite3.connect(file.path, isolation_level=None)
        shell.execute("BEGIN IMMEDIATE")
        ticks = 0
        writing = asyncio.create_task(store.commit(KEY, reply("a")))
        while not writing.done():
            await asyncio.sleep(0)
            ticks += 1
        with pytest.raises(StoreUnavailable) as caught:
            await writing
        assert "locked by another program" in caught.value.detail
        assert ticks > 20, "the loop went on while the thread waited"
        assert (await stored(store)).gen == "login"
        shell.execute("ROLLBACK")
        shell.close()
        assert isinstance(await store.commit(KEY, reply("a")), Committed)

    file.play(script, busy_s=0.1)


# Rows.


@pytest.mark.parametrize("blob", [b"", b"garbage", b"\x80", b"\x81\xa6record\xc0", b"\xa1\xff", "text", 7])
def test_a_row_that_cannot_be_decoded_is_absent_and_logged(
    file: File, blob: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def spoil(store: OpenedUp) -> None:
        await store.create(KEY, new_record())
        await store.create("other", new_record())
        await store.sql("UPDATE session SET row = ? WHERE key = ?", blob, KEY)

    async def script(store: OpenedUp) -> None:
        with caplog.at_level(logging.ERROR, "nightporter.store"):
            assert (await store.read(KEY)).record is None
        assert [(r.message, r.__dict__["session"]) for r in caplog.records[-1:]] == [
            ("record_unreadable", KEY[:12])
        ]
        assert await store.end(KEY, "signed_out", 60) is None
        await stored(store, "other")

    file.play(spoil)
    file.play(script)


def test_a_field_that_a_later_version_added_is_no_reason_to_sign_anybody_out(file: File) -> None:
    async def script(store: OpenedUp) -> None:
        await store.create(KEY, new_record())
        [(blob,)] = await store.sql("SELECT row FROM session")
        row = msgspec.msgpack.decode(blob)
        row["record"]["mood"] = "new"
        await store.sql("UPDATE session SET row = ?", msgspec.msgpack.encode(row))
        assert await stored(store) == new_record()

    file.play(script)


def test_expired_rows_are_dropped_little_by_little_without_a_timer(file: File) -> None:
    async def script(store: OpenedUp) -> None:
        await asyncio.gather(
            *(store.create(f"k{n}", new_record(end=file.clock.now + 10)) for n in range(1000))
        )
        await store.create(KEY, new_record())
        for n in range(1000):
            await store.spend_flow(f"f{n}", 5)
        file.clock.advance(10)
        left = await count(store)
        assert left["session"] == 1001
        fewest = left
        for n in range(600):
            await store.touch(KEY, file.clock.now + n)
            if n < 10:
                await store.spend_flow(f"new{n}", 600)
            now_left = await count(store)
            assert fewest["session"] - now_left["session"] <= 256, "bounded per call"
            assert fewest["flow"] - now_left["flow"] <= 256
            fewest = now_left
        assert fewest == {"session": 1, "flow": 10}
        await stored(store)

    file.play(script)


async def count(store: OpenedUp) -> dict[str, int]:
    return {table: (await store.sql(f"SELECT count(*) FROM {table}"))[0][0] for table in ("session", "flow")}


# Cancelled callers.


@pytest.mark.parametrize("ticks", range(8))
def test_a_commit_cancelled_at_any_await_happens_whole_and_others_get_their_own_answers(
    file: File, ticks: int
) -> None:
    async def script(store: OpenedUp) -> None:
        told: list[str] = []
        store.listen(told.append)
        for key in ("mine", "other"):
            await store.create(key, new_record(tokens=key.encode()))
        task = asyncio.create_task(store.commit("mine", reply("a")))
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        neighbour = asyncio.create_task(store.read("other"))
        snapshot = await neighbour
        assert snapshot.record is not None
        assert snapshot.record.tokens == b"other"
        await asyncio.wait([task])
        await store.close()
        async with file.opened() as again:
            landed = (await stored(again, "mine")).gen == "a"
        assert landed or ticks == 0, "once asked it happens"
        assert told == (["mine"] if landed else [])

    file.play(script)


def test_in_a_storm_of_cancellations_nothing_crosses_between_sessions(file: File) -> None:
    chance = random.Random(12)

    async def one_life(store: OpenedUp, key: str) -> None:
        for n in range(12):
            record = await stored(store, key)
            assert record.who == key.encode(), "somebody else's answer"
            assert record.tokens.split(b"|")[0] == key.encode()
            write = reply(f"{key}|{n}", record.rt, record.gen)
            mine = replace(write, tokens=f"{key}|{n}".encode())
            answer = await store.acquire(key, ask(write.attempt, record.gen, record.rt))
            if isinstance(answer, Held):
                continue
            assert isinstance(answer, Granted | Changed)
            assert answer.record.who == key.encode()
            done = await store.commit(key, mine)
            assert isinstance(done, Committed | Changed)
            assert done.record.who == key.encode()
            await store.touch(key, file.clock.now + n)

    async def script(store: OpenedUp) -> None:
        keys = [f"s{n}" for n in range(40)]
        for key in keys:
            await store.create(key, new_record(who=key.encode(), tokens=key.encode(), rt=f"rt {key}"))
        lives: set[asyncio.Task[None]] = set()
        for _ in range(600):
            lives.add(asyncio.create_task(one_life(store, chance.choice(keys))))
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
            if len(lives) > 30 or chance.random() < 0.5:
                victim = chance.choice(sorted(lives, key=lambda task: task.get_name()))
                victim.cancel()
            for task in [task for task in lives if task.done()]:
                lives.discard(task)
                if not task.cancelled():
                    task.result()
        for task in lives:
            task.cancel()
        for result in await asyncio.gather(*lives, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), result
        for key in keys:
            record = await stored(store, key)
            assert record.who == key.encode()
            assert record.tokens.split(b"|")[0] == key.encode()

    file.play(script)


# Opening and closing.


def test_closing_lets_what_was_asked_finish(file: File) -> None:
    async def body() -> None:
        async with file.opened() as store:
            creating = [asyncio.create_task(store.create(f"k{n}", new_record())) for n in range(300)]
            await asyncio.sleep(0)
            await store.close()
            assert all(task.done() for task in creating)
            await asyncio.gather(*creating)
        async with file.opened() as store:
            assert (await count(store))["session"] == 300

    asyncio.run(body())


def test_a_store_that_is_not_open_says_so(file: File) -> None:
    async def body() -> None:
        store = OpenedUp(file.path, file.clock)
        with pytest.raises(StoreUnavailable, match="Sessions cannot be read"):
            await store.read(KEY)
        await store.close()
        await store.open()
        await store.create(KEY, new_record())
        with pytest.raises(StoreUnavailable) as caught:
            await store.open()
        assert "open already" in caught.value.detail
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable) as caught:
            await store.commit(KEY, reply("a"))
        assert "closed" in caught.value.detail

    asyncio.run(body())
