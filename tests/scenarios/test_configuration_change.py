"""G: the configuration, or the provider, is another one after a restart; the sessions are the old ones.
(Changes without a restart: `test_reload.py`.)
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from tests.op.scripted import Rotation, ScriptedOP
from tests.scenarios.house import House


def restarted(house: House, **env: str) -> None:
    house.replica.stop()
    house.replica.env |= {f"NIGHTPORTER_{name.upper()}": value for name, value in env.items()}
    house.replica.start()


def test_g4_a_scope_that_is_added_disturbs_no_session_and_counts_for_the_next_sign_in(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        restarted(house, scopes="openid profile email offline_access reports")
        for _ in range(2):
            house.expire()
            assert ada.get("/a").status == 200
        assert {call.scope for call in house.op.refreshes()} == {None}
        bob = house.browser()
        bob.sign_in()
        asked = [url for _, url in bob.trail if "/authorize?" in url]
        assert len(asked) == 1
        assert "reports" in asked[0]


def test_g5_sessions_without_refresh_token_sign_in_once_and_then_have_one(tmp_path: Path) -> None:
    with House(tmp_path, env={"NIGHTPORTER_SCOPES": "openid email"}) as house:
        ada = house.somebody()
        assert ada.session()["access_token"]["refreshable"] is False
        restarted(house, scopes="openid email offline_access")
        assert ada.get("/a").status == 200  # until its access token is over
        house.expire()
        assert ada.get("/a").status == 401
        ada.trail.clear()
        assert ada.visit("/page").status == 200
        assert sum("/authorize" in url for _, url in ada.trail) == 1
        house.expire()
        assert ada.get("/a").status == 200


def test_g6_i9_a_refresh_token_never_goes_to_another_issuer_or_for_another_client(tmp_path: Path) -> None:
    with House(tmp_path) as house, ScriptedOP() as another:
        ada = house.somebody()
        house.expire()
        restarted(house, issuer=another.issuer)
        told = ada.get("/a")
        assert (told.status, told.json["reason"]) == (401, "another_client")
        assert another.ledger == []
        assert house.op.refreshes() == []
        ada.trail.clear()
        assert ada.visit("/page").status == 200  # one sign-in at the new one
        assert [call.grant for call in another.ledger] == ["authorization_code"]
        house.expire()
        another.advance(301)
        assert ada.get("/a").status == 200
        assert house.op.refreshes() == []
        another.client_id = "another-client"
        restarted(house, client_id="another-client")
        calls = len(another.ledger)
        assert ada.get("/a").status == 401
        assert len(another.ledger) == calls


def test_g9_another_reuse_policy_disturbs_no_session(tmp_path: Path) -> None:
    with House(tmp_path, env={"NIGHTPORTER_REFRESH_REUSE": "none"}) as house:
        ada = house.somebody()
        for reuse in ("punished", "profile"):
            restarted(house, refresh_reuse=reuse)
            house.expire()
            assert ada.get("/a").status == 200
        assert len(house.op.refreshes()) == 2
        assert house.op.reuse_events == 0


def test_g10_an_op_that_begins_or_ends_to_rotate_is_followed(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        for kind in ("none", "rotate", "none", "family_revoke", "none", "idempotent", "deferred"):
            house.op.rotation = Rotation(kind)
            house.expire()
            assert ada.get("/a").status == 200, kind
        calls = house.op.refreshes()
        for before, after in pairwise(calls):
            assert after.rt == (before.issued_rt or before.rt)
        assert (house.op.reuse_events, house.op.invalid_grant) == (0, 0)


def test_g11_another_provider_altogether_is_one_sign_in_and_no_crash(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        restarted(house, provider="google", issuer="", allow="everyone")
        assert ada.get("/a").status == 401
        assert ada.get("/page", navigation=True).status == 302
        assert ada.get("/oauth2/session").status == 401
        assert ada.post("/oauth2/logout").status == 200
