"""Three replicas on one Redis in front of providers that punish the second use of a refresh token.

Real time: tokens live five seconds, and the crowd comes to all replicas at once when they are over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.real_ops.house import Person, Porter
from tests.op.keycloak_op import KeycloakOP, KeycloakServer
from tests.op.node_op import NodeOP
from tests.op.real import RealOP
from tests.redis.servers import RedisServer
from tests.scenarios.house import together

LIFE_S = 5
EXPIRIES = 3
REPLICAS = 3
CROWD = 63


def node(home: Path, app: str, _: KeycloakServer | None) -> RealOP:
    return NodeOP(home, app, life_s=LIFE_S)


def keycloak_reuse_0(_: Path, app: str, server: KeycloakServer | None) -> RealOP:
    assert server is not None
    return KeycloakOP(server, app, life_s=LIFE_S, mode="reuse-0", realm="replicas")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.mark.timeout(900)
@pytest.mark.parametrize("make", [node, keycloak_reuse_0])
def test_a_crowd_at_all_replicas_costs_one_call_per_expiry(
    make: Callable[[Path, str, KeycloakServer | None], RealOP],
    tmp_path: Path,
    redis: RedisServer,
    keycloak: KeycloakServer | None,
) -> None:
    porter = Porter(tmp_path, replicas=REPLICAS, store=f"redis://127.0.0.1:{redis.port}/0")
    op = make(tmp_path, porter.url, keycloak)
    try:
        porter.start(op.settings)
        ada = Person(porter, op)
        ada.sign_in()
        for expiry in range(1, EXPIRIES + 1):
            ada.outlive_the_token()
            tokens: set[str] = set()

            def ask(n: int, tokens: set[str] = tokens) -> None:
                tokens.add(ada.headers(f"/page/{n}", replica=n % REPLICAS)["x-forwarded-access-token"])

            together(ask, CROWD)
            assert len(op.relay.refreshes()) == expiry
            assert tokens == {op.relay.refreshes()[-1].reply["access_token"]}
        assert [call.error for call in op.relay.refreshes()] == [""] * EXPIRIES
        out = ada.sign_out()
        assert out.redirect
        assert {ada.ask(replica=n).status for n in range(REPLICAS)} == {401}
    finally:
        porter.stop()
        op.stop()
