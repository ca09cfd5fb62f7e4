"""Keycloak takes longest to start, so it begins with the first test here and is waited for by the last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.op.keycloak_op import KeycloakServer


@pytest.fixture(scope="session", autouse=True)
def keycloak(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KeycloakServer | None]:
    """The server, perhaps still starting; None if no test of this run is about it."""
    if not any("keycloak" in item.nodeid for item in request.session.items):
        yield None
        return
    server = KeycloakServer(tmp_path_factory.mktemp("keycloak"))
    yield server
    server.stop()
