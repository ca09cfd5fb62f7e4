"""What a replica remembers against failovers, without a Redis: only what is known to be lost comes back."""

from __future__ import annotations

import msgspec
import pytest

from proxy.core.answers import Commit
from proxy.core.session import Record
from proxy.shell.store.redis import memory
from proxy.shell.store.redis.memory import KEEP_S, Memory
from tests.contract.sessions import new_record, reply
from tests.fakes import Clock

KEY = "key"


def at(gen: str, **fields: object) -> Record:
    return new_record(gen=gen, **fields)


class Past:
    """A memory that saw the login, and then these commits of its own."""

    def __init__(self, *attempts: str) -> None:
        self.clock = Clock()
        self.memory = Memory(self.clock)
        self.memory.saw(KEY, at("login"))
        before = "login"
        for attempt in attempts:
            self.commits(attempt, before)
            before = attempt

    def commits(self, attempt: str, acquired: str) -> Commit:
        write = reply(attempt, gen=acquired)
        self.memory.sends(KEY, write)
        self.memory.wrote(KEY, write)
        return write

    def lost(self, gen: str, **fields: object) -> str:
        """Which attempt is written again over this record; "" = none."""
        write = self.memory.lost(KEY, at(gen, **fields))
        return write.attempt if write is not None else ""


def test_the_newest_commit_comes_back_over_any_ancestor_and_over_nothing_else() -> None:
    past = Past("a", "b")
    assert [past.lost(gen) for gen in ("login", "a", "b", "stranger")] == ["b", "b", "", ""]


def test_what_others_committed_after_us_is_never_overwritten() -> None:
    past = Past("a")
    past.memory.saw(KEY, at("theirs"))
    assert past.lost("theirs") == ""
    assert past.lost("login") == "a", "ours at least, if theirs is lost as well"


def test_a_successor_that_is_seen_before_our_own_answer_comes_is_not_taken_for_an_ancestor() -> None:
    """The commit lands, somebody builds on it, we read that, and only then is our commit answered."""
    past = Past()
    write = reply("a")
    past.memory.sends(KEY, write)
    past.memory.saw(KEY, at("theirs"))
    past.memory.wrote(KEY, write)
    assert past.lost("theirs") == ""
    assert past.lost("login") == "a"


def test_a_commit_that_was_refused_is_not_remembered() -> None:
    past = Past()
    past.memory.sends(KEY, reply("a"))
    past.memory.saw(KEY, at("theirs"))
    assert past.lost("login") == ""


def test_a_commit_from_a_version_that_nobody_here_saw_has_no_ancestors() -> None:
    past = Past()
    past.commits("a", "unseen")
    assert past.lost("login") == ""
    assert not past.memory.follows(KEY, "login", reply("a", gen="unseen"))


def test_a_tombstone_is_never_committed_over() -> None:
    assert Past("a").lost("login", tombstone="signed_out") == ""


def test_a_write_is_forgotten_after_ten_minutes() -> None:
    past = Past("a")
    past.clock.advance(KEEP_S - 1)
    assert past.lost("login") == "a"
    assert list(past.memory.written()) == [KEY]
    past.clock.advance(2)
    assert past.lost("login") == ""
    assert list(past.memory.written()) == []


def test_a_store_that_went_back_behind_the_acquired_version_is_noticed_at_the_commit() -> None:
    past = Past("a")
    write = reply("b", "rt of a", "a")
    past.memory.sends(KEY, write)
    assert past.memory.follows(KEY, "login", write)
    assert not past.memory.follows(KEY, "a", write), "that is what it started from"
    assert not past.memory.follows(KEY, "theirs", write)


def test_remembered_tokens_are_bounded_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_BYTES", 10_000)
    kept = Memory(Clock())
    for n in range(20):
        write = replace_tokens(reply(f"a{n}"), b"x" * 1_000)
        kept.saw(f"k{n}", at("login"))
        kept.sends(f"k{n}", write)
        kept.wrote(f"k{n}", write)
    assert list(kept.written()) == [f"k{n}" for n in range(10, 20)]


def test_the_same_session_over_and_over_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_BYTES", 2_500)
    past = Past()
    before = "login"
    for n in range(50):
        write = replace_tokens(reply(f"a{n}", gen=before), b"x" * 1_000)
        past.memory.sends(KEY, write)
        past.memory.wrote(KEY, write)
        before = f"a{n}"
    assert past.lost("a48") == "a49"


def test_endings_and_marks_are_remembered_for_a_while_the_first_reason_and_the_latest_mark() -> None:
    clock = Clock()
    kept = Memory(clock)
    kept.ended(KEY, "signed_out", 60.0)
    kept.ended(KEY, "superseded")
    found = kept.returned(KEY)
    assert found is not None
    assert (found.reason, found.keep_s) == ("signed_out", 60.0)
    kept.marked("", 100.0)
    kept.marked("", 90.0)
    kept.marked("ada", 0.0)  # a message that made no sense
    assert [(user, mark.at) for user, mark in kept.marks()] == [("", 100.0)]
    clock.advance(KEEP_S + 1)
    assert list(kept.endings()) == []
    kept.marked("ada", 200.0)
    assert [user for user, _ in kept.marks()] == ["ada"]


def replace_tokens(write: Commit, tokens: bytes) -> Commit:
    return msgspec.structs.replace(write, tokens=tokens)


def test_the_first_version_seen_is_an_ancestor_of_what_others_and_we_wrote_after_it() -> None:
    past = Past()
    past.memory.saw(KEY, at("login"))
    past.memory.saw(KEY, at("theirs"))
    past.commits("ours", "theirs")
    assert past.lost("login") == past.lost("theirs") == "ours"


def test_only_so_many_sessions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_KEYS", 2)
    past = Past()
    for key in ("a", "b"):
        past.memory.saw(key, at("login"))
    past.memory.saw(KEY, at("theirs"))  # its first version is forgotten, so it is the first one
    past.commits("ours", "theirs")
    assert past.lost("login") == ""
