"""Which lines tell the app who is calling."""

from __future__ import annotations

from proxy.core.identity_headers import IdentityHeaders
from proxy.core.session import Identity, Tokens

ADA = Identity(
    iss="https://op.example",
    sub="ada-1",
    email="ada@example.com",
    email_verified=True,
    preferred_username="ada",
    groups=("staff", "a,b"),
    groups_at=1000.0,
    claims={"department": "engines"},
)
TOKENS = Tokens("at", "rt", "", "", 1000.0, 1300.0, "https://op.example", "app")


def lines(headers: IdentityHeaders, identity: Identity = ADA, now: float = 1000.0) -> list[str]:
    return headers.block(identity, TOKENS, now).decode().splitlines()


def test_the_usual_four() -> None:
    assert lines(IdentityHeaders()) == [
        "X-Forwarded-User: ada-1",
        "X-Forwarded-Email: ada@example.com",
        "X-Forwarded-Preferred-Username: ada",
        "X-Forwarded-Groups: staff,a%2Cb",
    ]


def test_a_usual_name_may_hold_another_claim_and_then_holds_only_that() -> None:
    told = lines(IdentityHeaders({"X-Forwarded-User": "email"}))
    assert [line for line in told if line.startswith("X-Forwarded-User")] == [
        "X-Forwarded-User: ada@example.com"
    ]
    spelled = lines(IdentityHeaders({"x_forwarded_email": "department"}))
    assert "x_forwarded_email: engines" in spelled
    assert not any(line.startswith("X-Forwarded-Email") for line in spelled)


def test_a_usual_name_whose_other_claim_is_missing_is_left_out() -> None:
    told = lines(IdentityHeaders({"X-Forwarded-User": "employee"}))
    assert not any(line.startswith("X-Forwarded-User") for line in told)


def test_groups_that_are_too_old_are_told_under_no_name() -> None:
    told = lines(IdentityHeaders({"X-Teams": "groups"}, groups_max_age_s=60.0), now=1061.0)
    assert not any("staff" in line for line in told)
    assert "X-Teams: staff,a%2Cb" in lines(IdentityHeaders({"X-Teams": "groups"}, groups_max_age_s=60.0))


def test_the_access_token_goes_along_where_it_is_asked_for() -> None:
    told = lines(IdentityHeaders(access_token=True, authorization=True))
    assert told[-2:] == ["X-Forwarded-Access-Token: at", "Authorization: Bearer at"]
