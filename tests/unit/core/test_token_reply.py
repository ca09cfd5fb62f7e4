"""What a token endpoint's reply means."""

from __future__ import annotations

import json

import pytest

from proxy.core.providers import PROFILES
from proxy.core.session import OutcomeKind
from proxy.core.timing import RefreshPolicy, due_at, floor_s, refresh_until, token_life_s
from proxy.core.token_reply import (
    Issued,
    RawReply,
    Refused,
    judge,
    life_s,
    own_words,
    refuses_secret,
    retry_after_s,
)

GENERIC = PROFILES["generic"]


def said(status: int, body: object, **headers: str) -> Issued | Refused:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge(RawReply(status, headers, raw), GENERIC)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, b"", OutcomeKind.TRANSIENT),
        (408, b"<html>", OutcomeKind.TRANSIENT),
        (500, {"error": "invalid_request"}, OutcomeKind.TRANSIENT),
        (500, {"error": "invalid_grant"}, OutcomeKind.TRANSIENT),
        (503, {}, OutcomeKind.TRANSIENT),
        (400, {"error": "temporarily_unavailable"}, OutcomeKind.TRANSIENT),
        (400, {"error": "slow_down"}, OutcomeKind.TRANSIENT),
        (500, b"", OutcomeKind.AMBIGUOUS),
        (502, b"<html>bad gateway", OutcomeKind.AMBIGUOUS),
        (200, b"<html>portal", OutcomeKind.AMBIGUOUS),
        (400, b"<html>blocked", OutcomeKind.AMBIGUOUS),
        (401, b"<html>login", OutcomeKind.AMBIGUOUS),
        (200, b'{"access_token":"a', OutcomeKind.AMBIGUOUS),
        (200, [], OutcomeKind.AMBIGUOUS),
        (200, {}, OutcomeKind.AMBIGUOUS),
        (200, {"access_token": ""}, OutcomeKind.AMBIGUOUS),
        (200, {"access_token": "a\nb"}, OutcomeKind.AMBIGUOUS),
        (401, {"error": "invalid_client"}, OutcomeKind.CLIENT),
        (200, {"error": "incorrect_client_credentials"}, OutcomeKind.CLIENT),
        (400, {"error": "invalid_scope"}, OutcomeKind.CLIENT),
        (400, {"error": "interaction_required"}, OutcomeKind.INTERACTION),
        (400, {"error": "invalid_grant"}, OutcomeKind.DEAD),
        (401, {"error": "invalid_grant"}, OutcomeKind.DEAD),
        (403, {"error": "invalid_grant"}, OutcomeKind.DEAD),
        (200, {"error": "bad_refresh_token"}, OutcomeKind.DEAD),
        (200, {"ok": False, "error": "invalid_refresh_token"}, OutcomeKind.DEAD),
        (400, {"error": "invalid_request"}, OutcomeKind.UNKNOWN),
        (400, {"error": 7}, OutcomeKind.UNKNOWN),
        (403, b"", OutcomeKind.UNKNOWN),
        (302, b"", OutcomeKind.UNKNOWN),
        (307, b"<html>", OutcomeKind.UNKNOWN),
    ],
)
def test_refusals_by_class(status: int, body: object, kind: OutcomeKind) -> None:
    reply = said(status, body)
    assert isinstance(reply, Refused)
    assert reply.kind is kind


@pytest.mark.parametrize(
    ("provider", "status", "body", "refused"),
    [
        ("generic", 401, {"error": "invalid_client"}, True),
        ("generic", 400, {"error": "invalid_client"}, True),
        ("generic", 401, b"", True),
        ("github", 200, {"error": "incorrect_client_credentials"}, True),
        ("github", 401, {"message": "Bad credentials"}, True),
        ("keycloak", 401, {"error": "unauthorized_client"}, True),
        ("auth0", 401, {"error": "access_denied"}, True),
        # The client is known here; what is wrong is something else.
        ("keycloak", 400, {"error": "unauthorized_client"}, False),
        ("auth0", 403, {"error": "access_denied"}, False),
        ("generic", 401, {"error": "access_denied"}, False),
        ("generic", 401, {"error": "invalid_grant"}, False),
        ("generic", 400, {"error": "invalid_grant"}, False),
        ("generic", 400, {"error": "unsupported_grant_type"}, False),
        # Nobody knows what such a one has done with the request.
        ("generic", 500, {"error": "invalid_client"}, False),
        ("generic", 401, b"<html>log in", False),
        ("generic", 200, {"access_token": "a"}, False),
    ],
)
def test_whether_a_reply_refuses_the_clients_secret(
    provider: str, status: int, body: object, refused: bool
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert refuses_secret(RawReply(status, {}, raw), PROFILES[provider]) is refused


def test_a_refused_secret_is_the_operators_business_in_every_providers_words() -> None:
    reply = RawReply(401, {}, b'{"error": "access_denied", "error_description": "Unauthorized"}')
    judged = [judge(reply, PROFILES[name]) for name in ("auth0", "okta")]
    assert [each.kind for each in judged if isinstance(each, Refused)] == [
        OutcomeKind.CLIENT,
        OutcomeKind.INTERACTION,
    ]


def test_an_error_code_that_is_no_word_is_not_repeated() -> None:
    for code in ("x" * 65, "a\r\nb", "ü"):
        reply = said(400, {"error": code})
        assert isinstance(reply, Refused)
        assert reply.code == "unreadable_error"


@pytest.mark.parametrize(
    ("named", "life"),
    [
        ("3599", 3599.0),  # E6: old Azure AD sends a string
        (3599, 3599.0),
        (None, 3600.0),  # E7
        (0, 3600.0),  # E8, and so on
        (-1, 3600.0),
        (1e12, 2_592_000.0),
        (0.001, 1.0),
        ("NaN", 3600.0),
        ("inf", 3600.0),
        ("9" * 400, 2_592_000.0),
        (True, 3600.0),
        ("soon", 3600.0),
        ([], 3600.0),
    ],
)
def test_e6_e7_e8_the_life_is_read_and_clamped(named: object, life: float) -> None:
    reply = said(200, {"access_token": "at", "expires_in": named})
    assert isinstance(reply, Issued)
    assert token_life_s(reply, RefreshPolicy()) == life


def test_e7_a_jwt_tells_its_life_where_the_reply_does_not() -> None:
    from proxy.core.seal import b64

    claims = b64(json.dumps({"iat": 1000, "exp": 1300}).encode()).decode()
    reply = said(200, {"access_token": f"e30.{claims}.sig"})
    assert isinstance(reply, Issued)
    assert token_life_s(reply, RefreshPolicy()) == 300.0


@pytest.mark.parametrize("life", [2.0, 5.0, 20.0, 60.0, 300.0, 3600.0])
def test_e9_the_window_is_a_share_of_the_life_and_never_below_the_floor(life: float) -> None:
    for jitter in (0.0, 0.5, 0.99):
        due = due_at(0.0, life, jitter, RefreshPolicy())
        assert floor_s(life) <= due < life
        assert due >= life - min(60.0, 0.2 * life)


@pytest.mark.parametrize(
    ("told", "life"),
    [
        ({}, None),
        ({"refresh_expires_in": 1800}, 1800.0),
        ({"refresh_token_expires_in": "15897600"}, 15897600.0),
        ({"refresh_expires_in": 0}, None),  # Keycloak's offline tokens: no end
        ({"refresh_expires_in": -1}, None),
        ({"refresh_expires_in": "nan"}, None),
        ({"refresh_expires_in": True}, None),
        ({"refresh_expires_in": 0, "refresh_token_expires_in": 60}, 60.0),
    ],
)
def test_the_refresh_tokens_life_is_read_where_it_is_told(
    told: dict[str, object], life: float | None
) -> None:
    reply = said(200, {"access_token": "at", **told})
    assert isinstance(reply, Issued)
    assert reply.refresh_expires_in_s == life
    assert refresh_until(reply, 1000.0) == (1000.0 + life if life else 0.0)


@pytest.mark.parametrize(
    ("access_s", "refresh_s", "latest"),
    [
        (3600.0, 1800.0, 900.0),  # an idle time-out shorter than the access token's life
        (1200.0, 1800.0, 900.0),  # not long after it: a click at 1000 s must do
        (300.0, 1800.0, 300.0),  # Keycloak's defaults: nothing changes
        (3600.0, 0.0, 3600.0),  # not told
        (60.0, 4.0, 10.0),  # never below the floor
    ],
)
def test_a_refresh_token_is_used_before_it_ends(access_s: float, refresh_s: float, latest: float) -> None:
    policy = RefreshPolicy()
    until = 1000.0 + refresh_s if refresh_s else 0.0
    due = due_at(1000.0, 1000.0 + access_s, 0.5, policy, until)
    assert due <= 1000.0 + latest
    assert due >= 1000.0 + floor_s(access_s)
    if latest == access_s:
        assert due == due_at(1000.0, 1000.0 + access_s, 0.5, policy)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("0", 0.0), ("", None), ("soon", None), ("-5", None), ("999999999999", 3600.0),
     ("Thu, 01 Jan 1970 00:00:40 GMT", 30.0), ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_bounded(text: str, seconds: float | None) -> None:
    assert retry_after_s(text, 10.0) == seconds


def test_life_s_never_makes_a_loop() -> None:
    assert life_s(float("-inf"), default_s=60, min_s=5, max_s=100) == 60


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Session not active", "Session not active"),
        ("AADSTS70043: The refresh token has expired", "AADSTS70043: The refresh token has expired"),
        (
            "Trace ID: 0a1b2c3d-0000-4444-8888-aaaabbbbcccc.",
            "Trace ID: 0a1b2c3d-0000-4444-8888-aaaabbbbcccc.",
        ),
        ("no such token: rt-1 at all", "no such token: … at all"),
        ("unknown: eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl", "unknown: …"),
        ("two\r\nlines\x1b[31m", "two  lines [31m"),
        ("x " * 500, ("x " * 150).strip()),
        (["no text"], ""),
        (None, ""),
    ],
)
def test_the_providers_own_words_are_fit_for_a_log(words: object, told: str) -> None:
    body = json.dumps({"error": "invalid_grant", "error_description": words}).encode()
    assert own_words(RawReply(400, {}, body), "rt-1") == told
    assert own_words(RawReply(502, {}, b"<html>"), "rt-1") == ""
