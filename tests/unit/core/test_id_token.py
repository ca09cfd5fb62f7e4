"""Which check of an ID token speaks first: whose it is, before how old it is."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.id_token import Expected, Previous, check_claims
from proxy.errors import IdTokenRejected
from proxy.shell.aftercare import FORGIVEN

NOW = 1_800_000_000.0
HEADER = {"alg": "RS256"}
CLAIMS: dict[str, Any] = {
    "iss": "https://op.example",
    "sub": "ada",
    "aud": "app",
    "iat": NOW - 10,
    "exp": NOW + 300,
    "auth_time": 1000,
}


def refused(changes: dict[str, Any]) -> str:
    """The check that a refreshed ID token fails, "" if none."""
    expected = Expected(
        "https://op.example",
        "app",
        access_token="at",
        previous=Previous("https://op.example", "ada", auth_time=1000, nonce="n"),
    )
    try:
        check_claims(HEADER, {**CLAIMS, **changes}, expected, NOW)
    except IdTokenRejected as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    "stale", [{"exp": NOW - 3600}, {"iat": NOW + 3600}, {"nbf": NOW + 3600}, {"at_hash": "x"}]
)
@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"sub": "eve"}, "sub"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"aud": "another"}, "aud"),
        ({"azp": "another"}, "azp"),
        ({"auth_time": 2000}, "auth_time"),
        ({"nonce": "m"}, "nonce"),
    ],
)
def test_what_is_forgiven_never_hides_that_it_is_somebody_elses(
    stale: dict[str, Any], other: dict[str, Any], code: str
) -> None:
    assert refused({}) == ""
    assert refused(stale) in FORGIVEN
    assert refused({**stale, **other}) == code
    assert code not in FORGIVEN
