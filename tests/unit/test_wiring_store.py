"""A password of its own reaches Redis as it is, whatever characters it has."""

from __future__ import annotations

import pytest

from proxy.config import load
from proxy.wiring import redis_options

BASE: dict[str, object] = {
    "issuer": "https://login.example.com",
    "client_id": "app",
    "client_secret": "secret",
    "upstream": "http://127.0.0.1:9000",
    "public_url": "https://app.example.com",
    "cookie_keys": "A" * 43,
}


@pytest.mark.parametrize(
    "url", ["redis://redis:6379/2", "redis+sentinel://a,b/main/2", "redis+cluster://a,b"]
)
def test_a_password_beside_the_url_is_taken_as_it_is(url: str) -> None:
    toml = {**BASE, "store": url, "store_username": "np", "store_password": "p@ss/w%41rd: #"}
    address = redis_options(load(env={}, toml=toml)).address
    assert (address.username, address.password) == ("np", "p@ss/w%41rd: #")


def test_a_password_in_the_url_is_percent_decoded() -> None:
    address = redis_options(load(env={}, toml={**BASE, "store": "redis://np:p%40ss@redis"})).address
    assert (address.username, address.password) == ("np", "p@ss")
