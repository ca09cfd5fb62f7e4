"""A: one renewal per session, whoever asks. One process here; the same over replicas needs Redis."""

from __future__ import annotations

from pathlib import Path

from tests.op.scripted import Gate, Script
from tests.scenarios.house import House, until


def test_a1_two_hundred_requests_cost_one_token_call_and_all_carry_the_new_token(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.browser()
        old = ada.sign_in().token
        house.expire()
        replies = ada.burst(200)
        assert [reply.status for reply in replies] == [200] * 200
        tokens = {reply.token for reply in replies}
        assert len(tokens) == 1
        assert old not in tokens
        [call] = house.op.refreshes()
        house.expire()
        assert ada.get("/a").status == 200
        # The store held the successor: it is what was sent next.
        assert house.op.refreshes()[1].rt == call.issued_rt
        assert house.op.reuse_events == 0


def test_a4_while_the_token_is_alive_no_request_waits_for_its_renewal(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.browser()
        old = ada.sign_in().token
        house.into_window()
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        replies = ada.burst(50)  # all are answered while the OP keeps us waiting
        assert [(reply.status, reply.token) for reply in replies] == [(200, old)] * 50
        held.wait_reached()
        held.open()
        until(lambda: ada.get("/a").token != old)
        assert len(house.op.refreshes()) == 1


def test_a10_two_browsers_of_one_person_renew_independently(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        first, second = house.somebody(), house.somebody()
        house.expire()
        held = Gate()
        house.op.script_next(Script(before=held), "refresh")
        waiting = first.send("/first")
        held.wait_reached()
        assert second.get("/second").status == 200  # while the other's renewal stands still
        held.open()
        assert waiting.recv(16).startswith(b"HTTP/1.1 200")
        waiting.close()
        assert len({call.rt for call in house.op.refreshes()}) == len(house.op.refreshes()) == 2


def test_a14_a_renewal_that_outlasts_the_budget_is_a_503_and_never_a_sign_in(tmp_path: Path) -> None:
    with House(tmp_path, env={"NIGHTPORTER_REFRESH_WAIT_S": "0.5"}) as house:
        ada = house.somebody()
        before = dict(ada.jar)
        house.expire()
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        fetched, visited = ada.get("/api"), ada.get("/page", navigation=True)
        assert fetched.status == visited.status == 503
        assert int(fetched.get("retry-after")) >= 1
        assert int(visited.get("retry-after")) >= 1
        assert fetched.get("content-type") == "application/problem+json"
        assert fetched.json["reason"] == "refresh_slow"
        assert visited.get("content-type").startswith("text/html")
        assert fetched.json["request_id"] == fetched.get("x-request-id")
        assert visited.get("x-request-id") in visited.text
        held.open()
        until(lambda: ada.get("/api").status == 200)
        assert ada.jar == before
        assert len(house.op.refreshes()) == 1


def test_a12_all_who_wait_hear_the_same_verdict_from_one_call(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        house.expire()
        house.op.end_grants()
        held = Gate()
        house.op.script_next(Script(before=held), "refresh")
        first = ada.send("/a")
        held.wait_reached()
        held.open()
        replies = ada.burst(50)
        assert {(reply.status, reply.json["reason"]) for reply in replies} == {(401, "invalid_grant")}
        assert first.recv(12) == b"HTTP/1.1 401"
        first.close()
        assert len(house.op.refreshes()) == 1


def test_a13_a_failure_for_now_is_not_tried_again_by_each_who_waited(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        house.expire()
        house.op.always["refresh"] = Script(process=False, status=503, body='{"error": "server_error"}')
        for _ in range(3):
            assert {reply.status for reply in ada.burst(30)} == {503}
        assert len(house.op.refreshes()) <= 3
        house.op.always.clear()
        house.advance(61)
        assert {reply.status for reply in ada.burst(30)} == {200}
