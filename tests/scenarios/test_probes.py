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


def asked(house: House, path: str, cookie: str = "") -> int:
    """What an engine is answered that asks about a path."""
    port = int(house.replica.env[AUTH_PORT].rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    fields = {"X-Original-Method": "GET", "X-Original-URI": path, "Host": house.url.rpartition("/")[2]}
    connection.request("GET", "/", headers=fields | ({"Cookie": cookie} if cookie else {}))
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("path", ["/ping", "/ready"])
def test_forward_auth_lets_nobody_pass_there(house: House, path: str) -> None:
    assert asked(house, path) == 401


def test_forward_auth_lets_nobody_pass_to_our_own_yes_or_no(house: House) -> None:
    cookie = house.somebody().cookie
    assert asked(house, "/page", cookie) == 200
    assert asked(house, "/oauth2/auth", cookie) == 403
    assert asked(house, "/oauth2/auth") in (401, 403)


def test_the_operations_port_knows_oauth2_proxys_names(house: House) -> None:
    assert house.replica.operations("/ping").status == 200
    assert house.replica.operations("/ready").status == 200
