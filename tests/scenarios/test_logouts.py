"""H6 … H8: the OP says that somebody has signed out, to one of several replicas."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.op.scripted import Gate, Script, fingerprint
from tests.scenarios.back_channel import FORM, PATH, obeyed, tell
from tests.scenarios.house import House, until
from tests.scenarios.redis_house import ALL, RedisHouse, reply_of
from tests.scenarios.test_request_path import ended, head_of, tunnel


@pytest.mark.parametrize("by", ["sid", "sub"])
@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
def test_h6_a_logout_at_the_op_during_a_renewal_stays_one_and_the_new_token_is_revoked(
    strict: RedisHouse, processed: bool, by: str
) -> None:
    ada = strict.somebody()
    sid = strict.op.sids[-1]
    strict.expire()
    held, given_back = Gate(), Gate()
    strict.op.script_next(Script(after=held) if processed else Script(before=held), "refresh")
    strict.op.script_next(Script(before=given_back), "revoke")
    holder = ada.send("/a", replica=0)
    held.wait_reached()
    draft = strict.op.logout_draft(sid=sid) if by == "sid" else strict.op.logout_draft()
    obeyed(strict, draft.signed(), replica=1)
    given_back.wait_reached()  # the old token, by the replica that had the session open
    held.open()
    assert reply_of(holder).status == 401
    [call] = strict.calls()
    until(lambda: call.issued_rt in {fingerprint(token) for token in strict.op.revoked})
    given_back.open()
    until(lambda: call.rt in {fingerprint(token) for token in strict.op.revoked})
    assert strict.refused_everywhere(ada.jar) == {"signed_out_at_provider"}


def test_h6_a_sign_in_under_way_does_not_outlive_a_logout_of_the_same_session(strict: RedisHouse) -> None:
    ada = strict.browser()
    to_op = ada.get(ada.get("/page", navigation=True).get("location"), navigation=True).get("location")
    held = Gate()
    strict.op.script_next(Script(after=held), "code")
    waiting = ada.send(f"/oauth2/callback?{urlencode(strict.op.code_for(to_op))}", replica=0)
    held.wait_reached()
    obeyed(strict, strict.op.logout_draft(sid=strict.op.sids[-1]).signed(), replica=1)
    held.open()
    told = reply_of(waiting)
    assert (told.status, [line for line in told.all("set-cookie") if line.startswith("np=")]) == (400, [])
    assert ada.visit("/page").user == "ada-1"  # a new sign-in is another session


def test_h7_a_logout_token_works_once_whichever_replica_it_comes_to(strict: RedisHouse) -> None:
    ada = strict.somebody()
    draft = strict.op.logout_draft()
    obeyed(strict, draft.signed(), replica=0)
    assert strict.refused_everywhere(ada.jar) == {"signed_out_at_provider"}
    again = strict.somebody()
    for n in ALL:
        told = tell(strict, draft.signed(), replica=n)
        assert (told.status, told.json["error"]) == (400, "invalid_request")
    for body in (b"", b"logout_token=", b"logout_token=a&logout_token=b", b"token=x", b"logout_token=x"):
        told = strict.browser().ask("POST", PATH, headers=FORM, body=body)
        assert (told.status, told.get("cache-control"), told.get("location")) == (400, "no-store", "")
    fresh = strict.op.logout_draft().signed().encode()
    as_query = strict.browser().ask("POST", f"{PATH}?logout_token={fresh.decode()}", headers=FORM, body=b"")
    as_json = strict.browser().ask(
        "POST", PATH, headers={"Content-Type": "application/json"}, body=b"logout_token=" + fresh
    )
    assert (as_query.status, as_json.status) == (400, 400)
    huge = strict.browser().ask("POST", PATH, headers=FORM, body=b"logout_token=" + b"a" * 70_000)
    assert huge.status == 413
    asked = strict.browser().ask("GET", PATH)
    assert (asked.status, asked.get("allow")) == (405, "POST")
    for n in ALL:
        assert again.get("/a", replica=n).status == 200


def test_h8_a_logout_at_the_op_gives_the_refresh_token_back_once_although_nobody_asks_for_anything(
    strict: RedisHouse,
) -> None:
    ada, other = strict.somebody(), strict.somebody("ben-1")
    tokens = {n: ada.get("/warm", replica=n).token for n in (0, 2)}  # two replicas have it open
    assert len(set(tokens.values())) == 1
    sid = strict.op.sids[-2]
    obeyed(strict, strict.op.logout_draft(sub="", sid=sid).signed(), replica=1)
    until(lambda: strict.op.revoked)
    assert strict.refused_everywhere(ada.jar) == {"signed_out_at_provider"}
    assert not strict.op.access_token_works(tokens[0])  # the whole sign-in, the access token too
    assert other.get("/a").status == 200
    assert len(strict.op.revoked) == 1


def test_h8_where_no_replica_has_the_session_open_its_cookie_gives_the_token_back(
    redis_process: object, strict: RedisHouse
) -> None:
    ada = strict.somebody(replica=0)
    strict.replicas[0].stop()
    obeyed(strict, strict.op.logout_draft().signed(), replica=1)
    assert strict.op.revoked == []  # nobody can open it
    for _ in range(3):
        told = ada.get("/a", replica=2)
        assert (told.status, told.json["reason"]) == (401, "signed_out_at_provider")
    until(lambda: strict.op.revoked)
    assert len(strict.op.revoked) == 1


def test_h6_open_streams_end_with_a_logout_at_the_op(strict: RedisHouse) -> None:
    ada = strict.somebody()
    sock = tunnel(strict, ada)
    stream = ada.send("/events", replica=1)
    assert head_of(stream).startswith(b"HTTP/1.1 200")
    obeyed(strict, strict.op.logout_draft().signed(), replica=2)
    assert ended(sock)
    assert ended(stream)


def test_h6_a_logout_is_obeyed_while_the_op_answers_nothing_else(strict: RedisHouse) -> None:
    ada = strict.somebody(replica=1)  # this replica knows the OP's keys
    draft = strict.op.logout_draft()
    strict.op.refuse()
    strict.op.hang_up()
    obeyed(strict, draft.signed(), replica=1)
    assert strict.refused_everywhere(ada.jar) == {"signed_out_at_provider"}


@pytest.mark.parametrize("asked_again", [True, False], ids=["asked again", "not asked again"])
def test_h6_a_logout_while_the_store_is_away_is_refused_for_now_and_obeyed_once_it_is_back(
    strict: RedisHouse, asked_again: bool
) -> None:
    ada = strict.somebody(replica=1)
    assert ada.get("/a", replica=1).status == 200
    draft = strict.op.logout_draft()
    strict.proxies[1].refuse()
    strict.proxies[1].cut()
    told = tell(strict, draft.signed(), replica=1)
    assert (told.status, told.json["error"]) == (503, "temporarily_unavailable")
    assert (told.get("cache-control"), int(told.get("retry-after")) > 0) == ("no-store", True)
    # This replica heard it, and lets nobody in on the strength of what it has in memory.
    assert ada.get("/b", replica=1).status == 503
    strict.proxies[1].accept()
    if asked_again:
        until(lambda: tell(strict, draft.signed(), replica=1).status in (200, 400))
    until(lambda: ada.get("/b", replica=0).status == 401)
    until(lambda: strict.replicas[1].metric("nightporter_events_total", event="backchannel_logout") >= 1)
    assert strict.refused_everywhere(ada.jar) == {"signed_out_at_provider"}
    until(lambda: tell(strict, draft.signed(), replica=0).status == 400)  # and it works no more
    until(lambda: strict.op.revoked)


def test_a_logout_is_counted_and_logged_without_the_ops_session_id(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.somebody()
        sid = house.op.sids[-1]
        token = house.op.logout_draft(sid=sid).signed()
        assert tell(house, token).status == 200
        assert tell(house, token).status == 400
        [obeyed] = house.replica.events("backchannel_logout")
        assert (obeyed["sub"], obeyed["by"], obeyed["sessions"]) == ("ada-1", "sid", 1)
        [refused] = house.replica.events("backchannel_logout_refused")
        assert refused["code"] == "jti"
        for event in ("backchannel_logout", "backchannel_logout_refused"):
            assert house.replica.metric("nightporter_events_total", event=event) == 1
        log = house.replica.log.read_text()
        assert sid not in log
        assert token.split(".")[2] not in log
