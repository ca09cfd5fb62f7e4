"""C: crashes, lost replies, slow answers, in one process that goes on or comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.op.scripted import Gate, Rotation, Script
from tests.scenarios.house import House, until

GRACE = {"NIGHTPORTER_REFRESH_REUSE": "grace"}
PUNISHED = {"NIGHTPORTER_REFRESH_REUSE": "punished"}
QUICK = {
    "NIGHTPORTER_OP_TIMEOUT_S": "2",
    "NIGHTPORTER_OP_CONNECT_TIMEOUT_S": "2",
    "NIGHTPORTER_REFRESH_WAIT_S": "4",
}


def test_c1_c2_a_crash_before_the_op_acted_costs_nobody_anything(tmp_path: Path) -> None:
    with House(tmp_path, env=GRACE) as house:
        ada = house.somebody()
        house.expire()
        held = Gate()
        house.op.script_next(Script(before=held, cut="at_once"), "refresh")
        sock = ada.send("/a")
        held.wait_reached()
        house.replica.kill()
        held.open()
        sock.close()
        house.replica.start()
        until(lambda: ada.get("/b").status == 200)
        assert house.op.invalid_grant == 0


@pytest.mark.parametrize("kind", ["rotate", "idempotent", "deferred"])
def test_c3_a_crash_after_the_op_rotated_is_survived_within_its_grace(tmp_path: Path, kind: str) -> None:
    with House(tmp_path, env=GRACE) as house:
        house.op.rotation = Rotation(kind, 60.0)
        ada = house.somebody()
        house.expire()
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        sock = ada.send("/a")
        held.wait_reached()
        house.replica.kill()
        held.open()
        sock.close()
        house.replica.start()
        until(lambda: ada.get("/b").status == 200)
        assert house.op.invalid_grant == 0


def test_c4_c5_a_crash_after_a_rotation_without_grace_is_one_clean_sign_in(tmp_path: Path) -> None:
    with House(tmp_path, env=PUNISHED) as house:
        house.op.rotation = Rotation("family_revoke")
        ada = house.somebody()
        house.expire()
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        sock = ada.send("/a")
        held.wait_reached()
        house.replica.kill()
        held.open()
        sock.close()
        house.replica.start()
        until(lambda: ada.get("/api").status == 401)
        told = ada.get("/api")
        assert told.json["reason"] == "rotation_lost"
        assert told.get("x-nightporter-reason") == "rotation_lost"
        assert len(house.op.refreshes()) == 2  # one second presentation, no third
        assert ada.visit("/page?x=2").url == house.url + "/page?x=2"
        assert ada.get("/api").status == 200


def test_c6_a_lost_reply_is_repeated_within_the_grace(tmp_path: Path) -> None:
    with House(tmp_path, env=GRACE) as house:
        house.op.rotation = Rotation("rotate", 30.0)
        ada = house.somebody()
        house.expire()
        house.op.script_next(Script(cut="unanswered"), "refresh")
        assert ada.get("/a").status == 200
        first, second = house.op.refreshes()
        assert first.rt == second.rt
        assert first.processed
        assert {first.at_once, second.at_once} == {1}  # never while the first connection is open
        house.expire()
        assert ada.get("/b").status == 200
        assert house.op.refreshes()[2].rt == second.issued_rt


@pytest.mark.parametrize("kind", ["rotate", "family_revoke"])
def test_c7_c8_a_rotation_that_is_lost_shows_only_when_the_live_token_is_over(
    tmp_path: Path, kind: str
) -> None:
    with House(tmp_path) as house:
        house.op.rotation = Rotation(kind)
        ada = house.browser()
        old = ada.sign_in().token
        house.into_window()
        house.op.script_next(Script(cut="unanswered"), "refresh")
        assert ada.get("/a").token == old
        until(lambda: house.replica.metric("nightporter_refresh_total", code="rotation_lost") == 1)
        assert [call.outcome for call in house.op.refreshes()] == ["issued", "invalid_grant"]
        assert ada.get("/b").token == old  # nobody notices while it lives
        house.advance(40)
        told = ada.get("/api")
        assert (told.status, told.json["reason"]) == (401, "rotation_lost")
        back = ada.visit("/page?x=3")
        assert (back.status, back.url) == (200, house.url + "/page?x=3")
        assert len(house.op.refreshes()) == 2


def test_c9_an_op_that_cannot_be_reached_is_tried_again_freely(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        before = dict(ada.jar)
        house.expire()
        house.op.refuse()
        house.op.hang_up()
        told = ada.get("/a")
        assert (told.status, told.json["reason"]) == (503, "op_unreachable")
        house.op.accept()
        house.advance(61)
        assert ada.get("/b").status == 200
        assert ada.jar == before
        assert len(house.op.refreshes()) == 1
        assert house.replica.metric("nightporter_refresh_total", outcome="ambiguous") == 0


def test_c10_a_reply_after_the_deadline_is_still_persisted(tmp_path: Path) -> None:
    with House(tmp_path, env=QUICK) as house:
        ada = house.somebody()
        house.expire()
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        assert ada.get("/a").status == 503  # given up on
        held.open()
        until(lambda: house.replica.metric("nightporter_refresh_total", outcome="ok") == 1)
        house.replica.kill()  # it is in the store, not only in memory
        house.replica.start()
        assert ada.get("/b").status == 200
        [call] = house.op.refreshes()
        house.expire()
        until(lambda: ada.get("/c").status == 200)
        assert house.op.refreshes()[1].rt == call.issued_rt
