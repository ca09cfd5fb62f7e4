"""E: lives, limits and clocks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from proxy.core.session import store_key
from proxy.core.timing import RefreshPolicy, due_at, jitter_of
from tests.op.scripted import Gate, Script
from tests.scenarios.house import House, until


def told_life_s(house: House, announced: object) -> int:
    """The life that a session reckons with when the OP announces this one at a refresh."""
    house.op.expires_in = ...
    ada = house.somebody()
    house.expire()
    house.op.expires_in = announced
    assert ada.get("/a").status == 200
    for n in range(20):
        assert ada.get(f"/{n}").status == 200
    life: int = ada.session()["access_token"]["expires_in_s"]
    return life


def test_e6_e7_e8_announced_lives_are_read_and_clamped_and_never_make_a_loop(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        near = 60  # seconds that a slow machine may take
        for announced, at_least, at_most in (
            ("3599", 3599 - near, 3599),  # E6
            (None, 3600 - near, 3600),  # E7: the configured default
            (0, 3600 - near, 3600),
            (-1, 3600 - near, 3600),
            (float("nan"), 3600 - near, 3600),
            ("9" * 400, 2_592_000 - near, 2_592_000),
            (1e12, 2_592_000 - near, 2_592_000),
        ):
            before = len(house.op.refreshes())
            life = told_life_s(house, announced)
            assert at_least <= life <= at_most, announced
            assert len(house.op.refreshes()) == before + 1, announced
        told = [line["expires_in"] for line in house.replica.events("token_life_clamped")]
        assert told == ["0", "-1", "nan", "1e+32", "1e+12"]  # each once, not with every renewal


def test_e7_a_jwt_access_token_tells_its_life_where_the_reply_does_not(tmp_path: Path) -> None:
    token = "e30.eyJpYXQiOjEwMCwiZXhwIjoxMzAwfQ.c2ln"  # iat 100, exp 1300
    with House(tmp_path) as house:
        ada = house.somebody()
        house.expire()
        house.op.expires_in = None
        house.op.id_token_on_refresh = False  # it would hold the hash of another access token
        house.op.script_next(Script(change=lambda body: body.update(access_token=token)), "refresh")
        assert ada.get("/a").token == token
        assert 1140 <= ada.session()["access_token"]["expires_in_s"] <= 1200


def test_e9_a_short_life_is_not_renewed_with_every_request(tmp_path: Path) -> None:
    with House(tmp_path, life_s=60.0) as house:
        ada = house.somebody()
        for _ in range(4):
            house.advance(11)  # 44 s of 60: the window opens at 48
            assert ada.get("/a").status == 200
        assert house.op.refreshes() == []
        house.advance(13)
        assert ada.get("/a").status == 200
        until(lambda: len(house.op.refreshes()) == 1)
        for _ in range(4):
            house.advance(11)
            assert ada.get("/a").status == 200
        assert len(house.op.refreshes()) == 1


def test_e4_a_wall_clock_that_jumps_in_the_middle_of_a_renewal_loses_nothing(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        for jump in (3600.0, -3600.0):
            house.expire()
            held = Gate()
            calls = len(house.op.refreshes())
            house.op.script_next(Script(after=held), "refresh")
            waiting = ada.send("/a")
            held.wait_reached()
            house.replica.step_wall(jump)
            held.open()
            # An hour that passed at once may have taken the new token's life with it: then this one
            # request is asked to come again. No time-out fires, and nobody is signed out.
            assert waiting.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 503")
            waiting.close()
            assert len(house.op.refreshes()) == calls + 1
            house.replica.step_wall(0.0)
            assert ada.get("/b").status == 200
        assert (house.op.reuse_events, house.op.invalid_grant) == (0, 0)


@pytest.mark.parametrize("off_s", [90.0, -90.0])
def test_e5_an_op_whose_clock_is_off_is_believed_within_the_configured_skew(
    tmp_path: Path, off_s: float
) -> None:
    with House(tmp_path, env={"NIGHTPORTER_OP_CLOCK_SKEW_S": "120"}) as house:
        house.op.clock_off_s = off_s
        house.op.change_id_token = lambda draft: draft.claims.update(exp=draft.claims["iat"] + 60)
        assert house.browser().sign_in().user == "ada-1"


def test_e5_beyond_it_the_log_names_both_times(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.op.clock_off_s = 90.0
        page = house.browser().visit("/page")
        assert page.status == 502
        [failed] = house.replica.events("login_failed")
        assert "clock" in failed["detail"]
        assert failed["request"] in page.text


def test_e10_sessions_that_began_together_are_not_renewed_together() -> None:
    """The pure rule: ten thousand sessions of one moment, tokens of an hour."""
    keys = [store_key(n.to_bytes(16, "big")) for n in range(10_000)]
    due = [due_at(0.0, 3600.0, jitter_of(key), RefreshPolicy()) for key in keys]
    per_second = Counter(int(at) for at in due)
    spread = max(due) - min(due)
    assert spread > 15
    assert max(per_second.values()) < 1.3 * len(keys) / spread
    assert max(due) < 3600 - 30


def test_e11_after_three_days_asleep_there_is_one_sign_in_and_the_same_page(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        ada.trail.clear()
        house.advance(3 * 86_400)
        house.op.end_grants()  # its idle limit was a day
        back = ada.visit("/page?x=6")
        assert (back.status, back.url) == (200, house.url + "/page?x=6")
        assert sum("/authorize" in url for _, url in ada.trail) == 1
        assert len(house.op.refreshes()) == 1


def test_e12_the_absolute_limit_ends_a_session_whose_token_is_good(tmp_path: Path) -> None:
    with House(tmp_path, env={"NIGHTPORTER_ABSOLUTE_S": "1000", "NIGHTPORTER_IDLE_S": "900"}) as house:
        ada = house.somebody()
        for _ in range(3):
            house.advance(310)
            assert ada.get("/a").status == 200
        assert len(house.op.refreshes()) == 3
        house.advance(71)
        told = ada.get("/api")
        assert (told.status, told.json["reason"]) == (401, "absolute_limit")
        assert ada.get("/page", navigation=True).status == 302
        house.replica.stop()
        house.replica.start()  # nothing of it is a matter of memory
        assert ada.get("/api").json["reason"] == "absolute_limit"
        assert len(house.op.refreshes()) == 3


def test_e12_the_idle_limit_ends_a_session_that_nobody_used(tmp_path: Path) -> None:
    with House(tmp_path, env={"NIGHTPORTER_IDLE_S": "1000"}) as house:
        ada = house.somebody()
        for _ in range(5):
            house.advance(400)
            assert ada.get("/a").status == 200
        house.advance(1001)
        told = ada.get("/api")
        assert (told.status, told.json["reason"]) == (401, "idle_limit")
