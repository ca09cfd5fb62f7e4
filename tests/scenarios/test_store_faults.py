"""D: the store is away. The fault is real: the database file is moved from under the running process,
which the store notices at every write, and moved back. What needs a fault at a read (D6) or between a
write and its answer (D4) is also shown with a fault-injecting store in virtual time (see README.md).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tests.op.scripted import Gate, Rotation, Script
from tests.scenarios.house import House, until


@contextlib.contextmanager
def store_away(home: Path) -> Iterator[None]:
    there, away = home / "sessions.db", home / "sessions.away"
    there.rename(away)
    try:
        yield
    finally:
        away.rename(there)


def test_d1_d2_new_tokens_are_served_from_memory_until_the_store_takes_them(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.browser()
        old = ada.sign_in().token
        house.expire()
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        waiting = ada.send("/a")
        held.wait_reached()
        with store_away(tmp_path):
            held.open()
            assert waiting.recv(16).startswith(b"HTTP/1.1 200")
            waiting.close()
            reply = ada.get("/b")
            assert (reply.status, reply.user) == (200, "ada-1")
            assert reply.token != old
            assert house.replica.metric("nightporter_refresh_total", outcome="unsaved") >= 1
            assert house.replica.events("commit_failed")
        until(lambda: house.replica.metric("nightporter_refresh_total", outcome="ok") == 1)
        house.replica.kill()
        house.replica.start()
        assert ada.get("/c").token == reply.token
        [call] = house.op.refreshes()
        house.expire()
        assert ada.get("/d").status == 200
        assert house.op.refreshes()[1].rt == call.issued_rt
        assert house.op.reuse_events == 0


def test_d1_a_journal_saves_them_even_if_the_process_dies_before_the_store_is_back(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.mkdir(mode=0o700)
    with House(tmp_path, env={"NIGHTPORTER_JOURNAL_DIR": str(journal)}) as house:
        ada = house.somebody()
        house.expire()
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        waiting = ada.send("/a")
        held.wait_reached()
        with store_away(tmp_path):
            held.open()
            assert waiting.recv(16).startswith(b"HTTP/1.1 200")
            waiting.close()
            token = ada.get("/b").token
            house.replica.kill()
        house.replica.start()
        until(lambda: ada.get("/c").status == 200)
        assert ada.get("/c").token == token
        assert len(house.op.refreshes()) == 1
        assert not list(journal.iterdir())


def test_d1_a_token_in_the_journal_is_written_before_its_predecessor_could_be_sent(tmp_path: Path) -> None:
    """The next start is slow to come to the entry; a request of that very session is faster."""
    journal = tmp_path / "journal"
    journal.mkdir(mode=0o700)
    with House(tmp_path, env={"NIGHTPORTER_JOURNAL_DIR": str(journal)}) as house:
        house.op.rotation = Rotation("family_revoke")
        ada = house.somebody()
        house.expire()
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        waiting = ada.send("/a")
        held.wait_reached()
        with store_away(tmp_path):
            held.open()
            assert waiting.recv(16).startswith(b"HTTP/1.1 200")
            waiting.close()
            token = ada.get("/b").token
            house.replica.kill()
        for n in range(5000):
            (journal / f"0000-{n}.commit").write_bytes(b"no entry at all")
        house.replica.start()
        assert ada.get("/c").token == token
        assert len(house.op.refreshes()) == 1
        assert house.op.reuse_events == 0


def test_d3_without_the_store_nobody_renews(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.browser()
        old = ada.sign_in().token
        house.into_window()
        with store_away(tmp_path):
            reply = ada.get("/a")
            assert (reply.status, reply.token) == (200, old)
            house.advance(40)
            told = ada.get("/b")
            assert (told.status, told.json["reason"]) == (503, "store_unavailable")
            assert not told.all("set-cookie")
            assert house.op.refreshes() == []
        house.advance(5)
        assert ada.get("/c").status == 200


def test_d5_a_slow_store_delays_a_renewal_and_nobody_else(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.browser()
        old = ada.sign_in().token
        house.into_window()
        with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # somebody else writes: nobody gets a lease for the moment
            replies = ada.burst(20)
            assert {(reply.status, reply.token) for reply in replies} == {(200, old)}
            assert house.op.refreshes() == []
            other.execute("ROLLBACK")
        until(lambda: ada.get("/a").token != old)
        assert len(house.op.refreshes()) == 1


def test_d6_a_sign_in_while_the_store_is_away_is_a_calm_503_and_touches_no_cookie(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada, stranger = house.somebody(), house.browser()
        before = dict(ada.jar)
        with store_away(tmp_path):
            told = stranger.visit("/page?x=5")
            assert told.status == 503
            assert told.get("retry-after")
            assert told.get("x-request-id") in told.text
            assert ada.get("/a").user == "ada-1"
            assert ada.post("/oauth2/logout").status == 503  # a sign-out that was not written is none
            assert ada.get("/a").user == "ada-1"
        assert ada.jar == before
        assert stranger.visit("/page?x=5").user == "ada-1"
        assert house.op.refreshes() == []


def test_d12_a_store_that_was_emptied_is_one_clean_sign_in_each(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        house.replica.stop()
        for file in tmp_path.glob("sessions.db*"):
            file.unlink()
        house.replica.start()
        assert ada.get("/api").status == 401
        back = ada.visit("/page?x=4")
        assert (back.status, back.url) == (200, house.url + "/page?x=4")
        assert ada.get("/api").status == 200


def test_d13_a_store_that_reads_but_takes_no_writes_is_told_and_told_again_when_it_is_well(
    tmp_path: Path,
) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        assert "store" not in house.replica.operations("/readyz").text
        with store_away(tmp_path):
            house.advance(120)  # activity is written at most once a minute
            assert ada.get("/a").status == 200  # reads go on in the file that is open
            until(lambda: '"store"' in house.replica.operations("/readyz").text)
            assert house.replica.operations("/readyz").status == 200  # a blip takes no pod away
            assert house.replica.metric("nightporter_store_up") == 0
            assert ada.get("/b").status == 200
        # Nobody need come: the store finds out by itself.
        until(lambda: house.replica.metric("nightporter_store_up") == 1)
        assert "store" not in house.replica.operations("/readyz").text
