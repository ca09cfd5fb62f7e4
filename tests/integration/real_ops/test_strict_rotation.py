"""The promise against a certified OP that punishes: npm oidc-provider, tokens that live five seconds.

Every use of a refresh token makes it void, and a second use ends the grant; so one needless
call would show in the OP's own ledger, and as a person who is signed out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import ECKey

from proxy.demo.visitor import NAVIGATION
from tests.integration.real_ops.house import Person, Porter
from tests.op.node_op import CLIENT, SECRET, NodeOP
from tests.scenarios.house import together

LIFE_S = 5
EXPIRIES = 10
TOGETHER = 64


@pytest.fixture
def porter(tmp_path: Path) -> Iterator[Porter]:
    made = Porter(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def op(tmp_path: Path, porter: Porter) -> Iterator[NodeOP]:
    made = NodeOP(tmp_path, porter.url, life_s=LIFE_S)
    yield made
    made.stop()


@pytest.mark.timeout(400)
def test_sixty_four_requests_at_each_of_ten_expiries_then_out(porter: Porter, op: NodeOP) -> None:
    porter.start(op.settings)
    ada = Person(porter, op)
    ada.sign_in()
    told = ada.headers()
    assert told["x-forwarded-user"] == "ada"
    assert told["x-forwarded-email"] == "ada@example.com"  # userinfo's: it is not in this OP's ID token
    assert told["x-forwarded-groups"] == "staff,node"

    tokens = {told["x-forwarded-access-token"]}
    for expiry in range(1, EXPIRIES + 1):
        ada.outlive_the_token()

        def ask(n: int) -> None:
            seen = ada.headers(f"/page/{n}")
            assert seen["x-forwarded-user"] == "ada"
            tokens.add(seen["x-forwarded-access-token"])

        together(ask, TOGETHER)
        assert len(op.ledger("token", "refresh_token")) == expiry
        assert len(tokens) == expiry + 1  # all sixty-four were given the same new one
    calls = op.ledger("token")
    assert [call["grant"] for call in calls] == ["authorization_code"] + ["refresh_token"] * EXPIRIES
    assert [call["error"] for call in calls] == [""] * (EXPIRIES + 1)
    assert not op.ledger("grant revoked")

    sign_out_there_too(ada, op)


def sign_out_there_too(ada: Person, op: NodeOP) -> None:
    """RP-initiated logout: the OP is sent the hint, asks, forgets the person and sends them back."""
    cookie = ada.browser.cookie_line(ada.porter.url)
    out = ada.sign_out()
    assert out.redirect.startswith(op.issuer + "/session/end?")
    asked = parse_qs(urlsplit(out.redirect).query)
    assert asked["post_logout_redirect_uri"] == [f"{ada.porter.url}/oauth2/logged-out"]
    assert asked["id_token_hint"]
    back = op.sign_out(ada.browser, ada.browser.get(out.redirect))
    assert back.redirect.startswith(ada.porter.url + "/oauth2/logged-out?state=")
    assert "You are signed out" in ada.browser.follow(back).text
    assert op.ledger("end_session_confirm")

    assert ada.ask().status == 401
    assert ada.browser.get(ada.porter.url, {**NAVIGATION, "Cookie": cookie}).status == 302  # the old one
    at_op = ada.browser.follow(ada.browser.get(ada.porter.url + "/page"))
    assert 'name="login"' in at_op.text  # the OP does not know them any more, either


def test_a_client_that_signs_with_its_own_key(porter: Porter, tmp_path: Path) -> None:
    key = ECKey.generate_key("P-256", {"kid": "ours", "alg": "ES256", "use": "sig"})
    op = NodeOP(tmp_path, porter.url, life_s=LIFE_S, public_key=key.as_dict(private=False))
    try:
        settings = op.settings | {
            "NIGHTPORTER_CLIENT_AUTH": "private_key_jwt",
            "NIGHTPORTER_CLIENT_KEY": json.dumps(key.as_dict(private=True)),
        }
        porter.start(settings)
        ada = Person(porter, op)
        ada.sign_in()
        for refreshes in (1, 2):
            ada.outlive_the_token()
            assert ada.headers()["x-forwarded-user"] == "ada"
            assert len(op.ledger("token", "refresh_token")) == refreshes
        calls = op.ledger("token")
        assert {(call["client"], call["client_auth"], call["error"]) for call in calls} == {
            (CLIENT, "private_key_jwt", "")
        }
        sign_out_there_too(ada, op)
    finally:
        op.stop()


def test_the_logs_hold_no_secret_of_the_walk(porter: Porter, op: NodeOP) -> None:
    porter.start(op.settings)
    ada = Person(porter, op)
    ada.sign_in()
    ada.outlive_the_token()
    token = ada.headers()["x-forwarded-access-token"]
    value = ada.browser.cookie_line(porter.url).partition("np=")[2].partition(";")[0]
    assert value
    assert porter.replica.stop() == 0
    text = porter.replica.log.read_text()
    assert porter.replica.events("request")
    for secret in (SECRET, token, value, "code=", "state="):
        assert secret not in text
