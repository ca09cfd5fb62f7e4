"""Storms against real processes at a strict OP: zero grace, and a consumed token that comes back kills
the family. A single second presentation would end a session. Real clocks, short token lives;
nothing depends on speed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.op.scripted import Rotation, Script, ScriptedOP
from tests.scenarios.house import House, burst, until


def strict_op() -> ScriptedOP:
    op = ScriptedOP()
    op.rotation = Rotation("family_revoke")
    op.old_at_dies = True
    return op


@pytest.fixture
def house(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    with House(tmp_path, op=strict_op(), life_s=getattr(request, "param", 2.0), clock="real") as made:
        yield made


def nobody_was_punished(house: House) -> None:
    assert (house.op.invalid_grant, house.op.reuse_events) == (0, 0)


def test_a1_sixty_four_requests_at_each_of_five_expiries_cost_five_token_calls(house: House) -> None:
    ada = house.somebody()
    for expiry in range(1, 6):
        house.expire(ada)
        before = len(house.op.refreshes())
        replies = ada.burst(64)
        assert [reply.status for reply in replies] == [200] * 64
        assert {reply.user for reply in replies} == {"ada-1"}
        assert len(house.op.refreshes()) - before == 1, f"expiry {expiry}"
    assert {call.at_once for call in house.op.refreshes()} == {1}
    nobody_was_punished(house)


def test_c20_ten_users_who_hang_up_during_the_refresh_stay_signed_in(house: House) -> None:
    people = [house.somebody(f"user-{n}") for n in range(10)]
    house.expire(people[-1])  # the others began, and so expire, earlier
    house.op.always["refresh"] = Script(reply_delay_s=0.3)
    before = len(house.op.refreshes())
    sockets = [person.send("/a") for person in people]
    house.op.wait_refreshes(before + 1)
    for sock in sockets:
        sock.close()
    house.op.wait_refreshes(before + 10)
    for _ in range(2):  # now, and at the next expiry
        for person in people:
            assert person.get("/b").status == 200
        house.expire(people[-1])
    nobody_was_punished(house)


@pytest.mark.parametrize("house", [6.0], indirect=True)
def test_a_token_endpoint_that_takes_three_seconds_signs_nobody_out(house: House) -> None:
    ada = house.somebody()
    house.expire(ada)
    house.op.always["refresh"] = Script(reply_delay_s=3.0)
    before = len(house.op.refreshes())
    assert [reply.status for reply in ada.burst(32)] == [200] * 32
    assert len(house.op.refreshes()) == before + 1
    del house.op.always["refresh"]
    house.expire(ada)
    assert ada.get("/b").status == 200
    nobody_was_punished(house)


def test_c19_sigterm_during_a_refresh_lets_it_land_and_the_next_start_goes_on(house: House) -> None:
    ada = house.somebody()
    house.expire(ada)
    house.op.script_next(Script(reply_delay_s=1.0), "refresh")
    before = len(house.op.refreshes())
    asked = threading.Thread(target=lambda: ada.get("/a"))
    asked.start()
    house.op.wait_refreshes(before + 1)
    assert house.replica.stop() == 0
    asked.join(10)
    house.replica.start()
    assert ada.get("/b").status == 200
    nobody_was_punished(house)


def test_ten_people_in_a_storm_cost_one_token_call_each(house: House) -> None:
    people = [house.somebody(f"user-{n}") for n in range(10)]
    house.expire(people[-1])
    before = len(house.op.refreshes())
    replies = burst(people, 100)
    for n, reply in enumerate(replies):
        assert (reply.status, reply.user) == (200, f"user-{n % 10}")  # I6: nobody gets another's identity
    assert len(house.op.refreshes()) == before + 10
    nobody_was_punished(house)


def test_i10_no_secret_reaches_the_logs(house: House) -> None:
    ada = house.somebody()
    house.expire(ada)
    token = ada.get("/page?code=canary-in-a-query").token
    assert token
    house.replica.operations("/metrics")
    assert house.replica.stop() == 0
    text = house.replica.log.read_text()
    assert '"event":"request"' in text
    issued = {key for request in house.op.requests for key in request.form.values() if len(key) > 16}
    issued -= {house.op.client_id, house.url + "/oauth2/callback", "authorization_code"}
    for secret in (house.op.client_secret, "canary-in-a-query", *ada.jar.values(), token, "state=", *issued):
        assert secret not in text


def test_a_person_who_hangs_up_at_sign_in_harms_nobody(house: House) -> None:
    ada = house.somebody()
    house.browser().send("/page").close()
    assert ada.get("/a").status == 200
    until(lambda: house.replica.metric("nightporter_connections") == 0)
