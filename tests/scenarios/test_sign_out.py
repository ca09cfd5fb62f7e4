"""H: signing out, and what is in flight then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.op.scripted import Gate, Rotation, Script, fingerprint
from tests.scenarios.house import House, until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
def test_h3_a_sign_out_during_a_renewal_stays_one_and_the_new_token_is_revoked(
    tmp_path: Path, processed: bool
) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        cookie = dict(ada.jar)
        house.expire()
        held, given_back = Gate(), Gate()
        script = Script(after=held) if processed else Script(before=held)
        house.op.script_next(script, "refresh")
        house.op.script_next(Script(before=given_back), "revoke")
        waiting = ada.send("/a")
        held.wait_reached()
        assert ada.post("/oauth2/logout").json["signed_out"] is True
        given_back.wait_reached()  # the sign-out gives back the old token; else it might end the grant first
        held.open()
        assert waiting.recv(12) == b"HTTP/1.1 401"
        waiting.close()
        [call] = house.op.refreshes()
        assert call.issued_rt
        until(lambda: call.issued_rt in {fingerprint(token) for token in house.op.revoked})
        given_back.open()
        until(lambda: call.rt in {fingerprint(token) for token in house.op.revoked})
        replay = house.browser()
        replay.jar = cookie
        assert replay.get("/b").status == 401
        house.replica.stop()
        house.replica.start()
        assert replay.get("/b").status == 401  # and it is no matter of memory
        assert len(house.op.refreshes()) == 1


def test_h4_an_old_cookie_opens_nothing_after_a_sign_out(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada, other = house.somebody(), house.somebody()
        stolen = house.browser()
        stolen.jar = dict(ada.jar)
        assert stolen.get("/a").status == 200
        assert ada.post("/oauth2/logout").status == 200
        assert ada.jar == {}
        told = stolen.get("/a")
        assert (told.status, told.json["reason"]) == (401, "signed_out")
        assert other.get("/a").status == 200  # the person's other browser is another session


@pytest.mark.parametrize("how", ["500", "absent", "away"])
def test_h9_a_sign_out_succeeds_whatever_the_ops_revocation_does(tmp_path: Path, how: str) -> None:
    with House(tmp_path) as house:
        if how == "absent":
            house.op.discovery["revocation_endpoint"] = None
        ada = house.somebody()
        cookie = dict(ada.jar)
        house.op.always["revoke"] = Script(status=503, body="")
        if how == "away":
            house.op.refuse()
            house.op.hang_up()
        assert ada.post("/oauth2/logout").json["signed_out"] is True
        ada.jar = cookie
        assert ada.get("/a").status == 401


def test_h9_a_revocation_that_the_op_cannot_take_is_tried_again(shared: House) -> None:
    ada, revoked = shared.somebody(), len(shared.op.revoked)
    tried = shared.op.hits.get("revoke", 0)
    shared.op.script_next(Script(process=False, status=503, body=""), "revoke")
    assert ada.post("/oauth2/logout").json["signed_out"] is True
    until(lambda: len(shared.op.revoked) > revoked)
    assert shared.op.hits["revoke"] == tried + 2


def test_h10_without_an_id_token_hint_the_sign_out_goes_on_with_the_client_id(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        told = ada.post("/oauth2/logout?rd=https://evil.example.net/").json
        assert told["continue_at"].startswith(house.op.issuer + "/end-session?")
        assert "client_id=" in told["continue_at"]
        assert "evil" not in told["continue_at"]
        assert told["signed_out_page"] == house.url + "/oauth2/logged-out"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example.net"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Origin": ""},
    ],
    ids=["foreign", "null", "none"],
)
def test_h11_another_site_signs_nobody_out(shared: House, headers: dict[str, str]) -> None:
    ada = shared.somebody()
    fields = {name: value for name, value in headers.items() if value}
    assert ada.ask("POST", "/oauth2/logout", headers=fields, body=b"").status == 403
    assert ada.get("/oauth2/logout", navigation=True).status == 200  # only asks
    assert ada.get("/a").status == 200


def test_h12_a_sign_in_in_another_tab_supersedes_a_renewal_in_flight_and_is_not_harmed_by_it(
    tmp_path: Path,
) -> None:
    with House(tmp_path) as house:
        house.op.rotation = Rotation("family_revoke")
        ada = house.somebody()
        house.expire()
        held = Gate()
        house.op.script_next(Script(after=held), "refresh")
        old_tab = ada.send("/a")
        held.wait_reached()
        again = ada.get("/oauth2/login?rd=/new&account=other", navigation=True)
        back = ada.visit(again.get("location"))
        assert (back.status, back.url) == (200, house.url + "/new")
        held.open()
        assert old_tab.recv(12) == b"HTTP/1.1 401"
        old_tab.close()
        assert ada.get("/b").user == "ada-1"
        house.expire()
        assert ada.get("/c").status == 200
        assert house.op.reuse_events == 0
