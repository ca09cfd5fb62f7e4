"""Keycloak takes longest to start, so it begins with the first test here and is waited for by the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.op.keycloak_op import KeycloakServer

HERE = Path(__file__).parent


def _about_keycloak(item: pytest.Item) -> bool:
    return "keycloak" in item.nodeid


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the tests here, the ones that need Keycloak come last; no other test moves."""
    slots = [n for n, item in enumerate(items) if HERE in item.path.parents]
    for slot, item in zip(slots, sorted((items[n] for n in slots), key=_about_keycloak), strict=True):
        items[slot] = item


@pytest.fixture(scope="session", autouse=True)
def keycloak(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KeycloakServer | None]:
    """The server, perhaps still starting; None if no test of this run is about it."""
    if not any(_about_keycloak(item) for item in request.session.items):
        yield None
        return
    server = KeycloakServer(tmp_path_factory.mktemp("keycloak"))
    yield server
    server.stop()
