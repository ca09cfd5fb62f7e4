"""A Redis store's URL, read: every form, and every problem at once, none with a secret in it."""

from __future__ import annotations

import pytest

from proxy.config.redis_address import AddressError, RedisAddress, is_redis, redis_address

FORMS: list[tuple[str, RedisAddress]] = [
    ("redis://host", RedisAddress("single", (("host", 6379),))),
    ("redis://10.0.0.1:7000/3", RedisAddress("single", (("10.0.0.1", 7000),), db=3)),
    ("redis://[fd00::1]:7000", RedisAddress("single", (("fd00::1", 7000),))),
    ("rediss://host/", RedisAddress("single", (("host", 6379),), tls=True)),
    ("redis://:p%40ss@host", RedisAddress("single", (("host", 6379),), password="p@ss")),
    ("rediss://u:p%3A%2Fx@host:1", RedisAddress("single", (("host", 1),), True, "u", "p:/x")),
    (
        "redis+sentinel://u:p@s1,s2:26380/mymaster/2",
        RedisAddress("sentinel", (("s1", 26379), ("s2", 26380)), False, "u", "p", "mymaster", 2),
    ),
    ("rediss+sentinel://s1/main", RedisAddress("sentinel", (("s1", 26379),), True, service="main")),
    ("redis+cluster://n1:7001,n2", RedisAddress("cluster", (("n1", 7001), ("n2", 6379)))),
    ("rediss+cluster://n1", RedisAddress("cluster", (("n1", 6379),), True)),
]


@pytest.mark.parametrize(("url", "address"), FORMS)
def test_every_form_is_read(url: str, address: RedisAddress) -> None:
    assert is_redis(url)
    assert redis_address(url) == address


@pytest.mark.parametrize(
    ("url", "problems"),
    [
        ("redis://", ["a place without a host"]),
        ("redis://a,b", ["several hosts, which only redis+sentinel:// and redis+cluster:// take"]),
        ("redis://host:0", ["a port that is not from 1 to 65535"]),
        ("redis://host:x", ["a port that is not from 1 to 65535"]),
        ("redis://-host", ["a host that is no name and no address (IPv6 needs brackets)"]),
        ("redis://[::1", ["an IPv6 address that does not end in ]"]),
        ("redis://[host]", ["brackets without an IPv6 address in them"]),
        ("redis://canary@host", ["a user without a password"]),
        ("redis://u:can@ary@host", ["an @ in the user or password that is not percent-encoded"]),
        ("redis://u:can?ary@host/0", ["a query or a fragment (percent-encode ? and # in a password)"]),
        ("redis://host/name", ["a path that is no database number"]),
        ("redis+cluster://host/1", ["a database number, which no cluster has"]),
        (
            "redis+sentinel://canary@s1:99999,",
            [
                "a user without a password",
                "a port that is not from 1 to 65535",
                "a place without a host",
                "no name of the primary: it stands behind the Sentinels, as in …:26379/mymaster",
            ],
        ),
        ("redis://u:can ary@host", ["white space or characters that must be percent-encoded"]),
    ],
)
def test_problems_are_told_all_at_once_and_hold_no_secret(url: str, problems: list[str]) -> None:
    with pytest.raises(AddressError) as caught:
        redis_address(url)
    told = [problem for problem in caught.value.problems if problem in problems]
    assert told == problems
    assert "canary" not in str(caught.value)
    assert "ary@" not in str(caught.value)


def test_a_password_shows_nowhere() -> None:
    assert "canary" not in repr(redis_address("redis://u:canary@host"))


@pytest.mark.parametrize("url", ["sqlite:/x", "memory:", "postgres://x", "redis:host"])
def test_what_is_no_redis(url: str) -> None:
    assert not is_redis(url)
