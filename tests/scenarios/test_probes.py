"""Probes at the public port, where they are configured, and nowhere they could open a door."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from tests.scenarios.house import House, free_port

AUTH_PORT = "NIGHTPORTER_FORWARD_AUTH_LISTEN"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    env = {
        "NIGHTPORTER_PING_PATH": "/ping",
        "NIGHTPORTER_READY_PATH": "/ready",
        AUTH_PORT: f"127.0.0.1:{free_port()}",
    }
    with House(tmp_path_factory.mktemp("house"), env=env) as house:
        yield house


@pytest.mark.parametrize("path", ["/ping", "/ready", "/ping?from=balancer"])
def test_a_balancer_is_answered_and_the_app_is_not_asked(house: House, path: str) -> None:
    reply = house.browser().get(path)
    assert (reply.status, reply.text) == (200, "OK\n")
    assert house.somebody().get(path).text == "OK\n"
    assert house.app.reached(path.partition("?")[0]) == []


@pytest.mark.parametrize("path", ["/ping/", "/pings", "/ping/../private", "/%70ing", "//ping"])
def test_only_these_very_paths_are(house: House, path: str) -> None:
    assert house.browser().get(path).status in (400, 401)


def test_another_method_is_the_apps(house: House) -> None:
    assert house.browser().post("/ping").status == 401


@pytest.mark.parametrize("path", ["/ping", "/ready"])
def test_forward_auth_lets_nobody_pass_there(house: House, path: str) -> None:
    port = int(house.replica.env[AUTH_PORT].rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/", headers={"X-Original-Method": "GET", "X-Original-URI": path})
    assert connection.getresponse().status == 401
    connection.close()


def test_the_operations_port_knows_oauth2_proxys_names(house: House) -> None:
    assert house.replica.operations("/ping").status == 200
    assert house.replica.operations("/ready").status == 200
