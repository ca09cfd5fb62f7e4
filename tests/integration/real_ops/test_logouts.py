"""Real providers call the back-channel logout address themselves: two replicas on one Redis.

Somebody signs out at the provider's own page, or an administrator does it for them; the app has no part in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.real_ops.house import Person, Porter
from tests.op.keycloak_op import KeycloakOP, KeycloakServer
from tests.op.node_op import NodeOP
from tests.op.real import RealOP
from tests.redis.servers import RedisServer
from tests.scenarios.house import until

REPLICAS = (0, 1)


def node(home: Path, app: str, _: KeycloakServer | None) -> RealOP:
    return NodeOP(home, app, back_channel=True)


def keycloak(_: Path, app: str, server: KeycloakServer | None) -> RealOP:
    assert server is not None
    return KeycloakOP(server, app, realm="back-channel", back_channel=True)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def refused(ada: Person) -> None:
    """The cookie opens nothing, at either replica, and for that reason."""
    for n in REPLICAS:
        until(lambda n=n: ada.ask(replica=n).status == 401)
        assert json.loads(ada.ask(replica=n).body)["reason"] == "signed_out_at_provider"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("make", [node, keycloak])
def test_a_sign_out_at_the_provider_ends_that_session_on_every_replica_and_no_other(
    make: Callable[[Path, str, KeycloakServer | None], RealOP],
    tmp_path: Path,
    redis: RedisServer,
    keycloak: KeycloakServer | None,
) -> None:
    porter = Porter(tmp_path, replicas=2, store=f"redis://127.0.0.1:{redis.port}/0")
    op = make(tmp_path, porter.url, keycloak)
    try:
        porter.start(op.settings)
        ada, elsewhere = Person(porter, op), Person(porter, op)
        for person in (ada, elsewhere):  # two browsers, two sessions at the provider
            person.sign_in()
            assert {person.ask(replica=n).status for n in REPLICAS} == {200}
        op.leave(ada.browser)
        refused(ada)
        [obeyed] = porter.replica.events("backchannel_logout")
        assert (obeyed["by"], obeyed["sessions"]) == ("sid", 1)
        assert {elsewhere.ask(replica=n).status for n in REPLICAS} == {200}
        ada.browser = type(ada.browser)()
        ada.sign_in()  # and in again
        assert {ada.ask(replica=n).status for n in REPLICAS} == {200}
    finally:
        porter.stop()
        op.stop()


@pytest.mark.timeout(900)
def test_an_administrator_of_keycloak_signs_somebody_out_everywhere(
    tmp_path: Path, redis: RedisServer, keycloak: KeycloakServer | None
) -> None:
    assert keycloak is not None
    porter = Porter(tmp_path, replicas=2, store=f"redis://127.0.0.1:{redis.port}/0")
    realm = "administrator"
    op = KeycloakOP(keycloak, porter.url, realm=realm, back_channel=True)
    try:
        porter.start(op.settings)
        here, there, ben = Person(porter, op), Person(porter, op), Person(porter, op, "ben")
        for person in (here, there, ben):
            person.sign_in()
        [account] = keycloak.admin("GET", f"/realms/{realm}/users?username=ada&exact=true")
        keycloak.admin("POST", f"/realms/{realm}/users/{account['id']}/logout")
        for person in (here, there):
            refused(person)
        assert {ben.ask(replica=n).status for n in REPLICAS} == {200}
    finally:
        porter.stop()
        op.stop()
