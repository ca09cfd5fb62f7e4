"""A realm whose SSO session idles out before an access token ends: the users' "signed out every half hour".

Keycloak tells the life of its refresh token with every reply. It is used at half of that life, so
whoever keeps clicking stays signed in.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.real_ops.house import Person, Porter
from tests.op.keycloak_op import KeycloakOP, KeycloakServer
from tests.scenarios.house import until

ACCESS_S, IDLE_S = 3600, 1800


@pytest.mark.timeout(900)
def test_an_idle_time_out_shorter_than_the_access_token_signs_nobody_out(
    tmp_path: Path, keycloak: KeycloakServer | None
) -> None:
    assert keycloak is not None
    porter = Porter(tmp_path, movable=True)
    idle = {"ssoSessionIdleTimeout": IDLE_S, "ssoSessionMaxLifespan": 36_000}
    op = KeycloakOP(keycloak, porter.url, life_s=ACCESS_S, realm="short-idle", settings=idle)
    try:
        porter.start(op.settings | {"NIGHTPORTER_OP_CLOCK_SKEW_S": "600"})
        ada = Person(porter, op)
        ada.sign_in()
        reply = op.relay.calls[-1].reply
        assert reply["refresh_expires_in"] <= IDLE_S < reply["expires_in"]
        assert ada.session()["access_token"]["next_refresh_in_s"] <= IDLE_S / 2

        since = len(op.relay.calls)
        porter.advance(IDLE_S / 2 - 60)
        assert ada.ask().status == 200
        assert not op.relay.refreshes(since)  # not yet
        porter.advance(61)
        assert ada.ask().status == 200
        until(lambda: op.relay.refreshes(since))
        assert op.relay.refreshes(since)[0].status == 200
        until(lambda: ada.session()["access_token"]["next_refresh_in_s"] > IDLE_S / 2 - 60)
    finally:
        porter.stop()
        op.stop()
