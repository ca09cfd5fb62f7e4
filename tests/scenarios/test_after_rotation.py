"""B: the tokens are new and durable; whatever is asked with them afterwards fails. It costs no token."""

from __future__ import annotations

from pathlib import Path

from proxy.shell.aftercare import USERINFO_TRIES
from tests.op.scripted import Gate, Script
from tests.scenarios.house import Browser, House, until

ALWAYS = {"NIGHTPORTER_OP_USERINFO": "always"}
QUICK = {
    "NIGHTPORTER_OP_TIMEOUT_S": "2",
    "NIGHTPORTER_OP_CONNECT_TIMEOUT_S": "2",
    "NIGHTPORTER_REFRESH_WAIT_S": "4",
}


def test_b1_i7_new_tokens_are_durable_before_userinfo_is_asked(tmp_path: Path) -> None:
    with House(tmp_path, env=ALWAYS) as house:
        ada = house.somebody()
        house.expire()
        asked = Gate()
        house.op.always["userinfo"] = Script(before=asked, status=500, body="oops")
        assert ada.get("/a").status == 200  # userinfo is asked behind the request
        asked.wait_reached()
        house.replica.kill()  # nothing that comes later can have saved them
        asked.open()
        house.replica.start()
        assert ada.get("/b").status == 200
        house.expire()
        assert ada.get("/c").status == 200
        first, second = house.op.refreshes()
        assert second.rt == first.issued_rt
        assert house.op.reuse_events == 0


FAILURES = {
    "500": Script(status=500, body="oops"),
    "502": Script(status=502, body="<html>bad gateway</html>"),
    "503": Script(status=503, headers={"Retry-After": "1"}, body=""),
    "504": Script(status=504, body=""),
    "429": Script(status=429, headers={"Retry-After": "30"}, body=""),
    "403, rate limit": Script(status=403, headers={"X-RateLimit-Remaining": "0"}, body="{}"),
    "403": Script(status=403, body="{}"),
    "html": Script(body="<html>hello</html>", headers={"Content-Type": "text/html"}),
    "cut": Script(cut="unanswered"),
}


def test_b2_b3_b4_b6_a_failing_userinfo_is_retried_a_little_and_costs_no_further_token_call(
    tmp_path: Path,
) -> None:
    with House(tmp_path, env=ALWAYS) as house:
        op, ada, failures = house.op, house.somebody(), 0
        for name, script in FAILURES.items():
            house.expire()
            asked, called = op.hits["userinfo"], len(op.refreshes())
            op.always["userinfo"] = script
            assert ada.get("/a").user == "ada-1", name
            failures += USERINFO_TRIES  # then it is given up
            until(lambda n=failures: len(house.replica.events("userinfo_failed")) >= n)
            # A GET whose connection broke, or was kept for too long, is sent once more.
            assert USERINFO_TRIES <= op.hits["userinfo"] - asked <= 2 * USERINFO_TRIES, name
            del op.always["userinfo"]
            healthy(house, ada, called + 1)


def test_b2_a_userinfo_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with House(tmp_path, env={**ALWAYS, **QUICK}) as house:
        ada = house.somebody()
        house.expire()
        never = Gate()
        house.op.always["userinfo"] = Script(before=never)
        until(lambda: ada.get("/a").status == 200)
        until(lambda: len(house.replica.events("userinfo_failed")) == USERINFO_TRIES)
        never.open()
        del house.op.always["userinfo"]
        healthy(house, ada, 1)


def healthy(house: House, browser: Browser, calls: int) -> None:
    """B6: nothing is renewed because userinfo failed, and the chain of refresh tokens holds."""
    reply = browser.get("/b")
    assert (reply.status, reply.user) == (200, "ada-1")
    made = house.op.refreshes()
    assert len(made) == calls
    assert [call.rt for call in made[1:]] == [call.issued_rt for call in made[:-1]]
    assert house.op.reuse_events == 0


def test_b8_groups_that_cannot_be_asked_for_stay_until_their_age_and_then_are_not_claimed(
    tmp_path: Path,
) -> None:
    with House(tmp_path, env={**ALWAYS, "NIGHTPORTER_REFRESH_GROUPS_MAX_AGE_S": "1000"}) as house:
        house.op.id_token_claims = {"email"}
        ada = house.somebody()
        assert ada.get("/a").seen["x-forwarded-groups"] == "staff"
        house.op.always["userinfo"] = Script(status=500, body="oops")
        house.expire()
        assert ada.get("/b").seen["x-forwarded-groups"] == "staff"
        house.advance(1000)
        reply = ada.get("/c")
        assert reply.user == "ada-1"
        assert "x-forwarded-groups" not in reply.seen


def test_b9_a_refusal_with_an_unknown_code_ends_nothing(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        house.expire()
        house.op.script_next(
            Script(process=False, status=403, body='{"error": "computer_says_no"}'), "refresh"
        )
        assert ada.get("/a").status == 503
        house.advance(61)
        assert ada.get("/b").status == 200
