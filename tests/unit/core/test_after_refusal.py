"""F16: what a sign-in asks for after the OP refused a refresh because it wants to see the person."""

from __future__ import annotations

import json

import pytest

from proxy.core.login import after_refusal, prompt_with
from proxy.core.providers import PROFILES
from proxy.core.token_reply import MAX_CLAIMS_CHARS, RawReply, Refused, judge

POLICY = {"access_token": {"polids": {"essential": True, "values": ["p1"]}}}


@pytest.mark.parametrize(
    ("usual", "ask", "prompt"),
    [
        ({}, "login", "login"),
        ({"prompt": "consent"}, "login", "consent login"),
        ({"prompt": "none"}, "login", "login"),
        ({"prompt": "login"}, "login", "login"),
        ({"prompt": "consent select_account"}, "select_account", "consent select_account"),
    ],
)
def test_the_usual_prompt_is_kept_beside_the_asked_one(usual: dict[str, str], ask: str, prompt: str) -> None:
    assert prompt_with(usual, ask) == prompt


def test_a_demand_joins_the_configured_claims_request_and_wins_where_they_differ() -> None:
    usual = {"claims": json.dumps({"id_token": {"acr": None}, "access_token": {"polids": None, "x": None}})}
    extra = after_refusal(usual, "interaction_required", json.dumps(POLICY), ask="login")
    assert json.loads(extra["claims"]) == {
        "id_token": {"acr": None},
        "access_token": {"polids": POLICY["access_token"]["polids"], "x": None},
    }


def test_a_configured_claims_request_that_is_none_is_replaced() -> None:
    for broken in ("x", "[1]", "[" * 100_000):
        extra = after_refusal({"claims": broken}, "interaction_required", json.dumps(POLICY), ask="login")
        assert json.loads(extra["claims"]) == POLICY


def test_without_a_demand_the_configured_claims_request_stays_as_it_is() -> None:
    assert after_refusal({"claims": "{}"}, "login_required", "", ask="login") == {"prompt": "login"}


@pytest.mark.parametrize(
    ("claims", "kept"),
    [
        (json.dumps(POLICY), POLICY),
        (POLICY, POLICY),
        ("{}", None),
        ("[]", None),
        ("no JSON", None),
        (json.dumps({"x": "y" * MAX_CLAIMS_CHARS}), None),
        ("[" * 100_000, None),
        (7, None),
    ],
)
def test_a_reply_tells_its_claims_challenge_if_it_is_one(claims: object, kept: object) -> None:
    body = json.dumps({"error": "interaction_required", "claims": claims}).encode()
    judged = judge(RawReply(400, {}, body), PROFILES["entra"])
    assert isinstance(judged, Refused)
    assert (json.loads(judged.claims) if judged.claims else None) == kept


def test_only_a_refusal_that_wants_the_person_tells_one() -> None:
    body = json.dumps({"error": "invalid_grant", "claims": json.dumps(POLICY)}).encode()
    judged = judge(RawReply(400, {}, body), PROFILES["entra"])
    assert isinstance(judged, Refused)
    assert judged.claims == ""
