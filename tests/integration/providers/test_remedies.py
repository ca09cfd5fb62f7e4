"""What goes wrong at the provider is logged once, with what to change in its console's words."""

from __future__ import annotations

import json
import logging

import pytest

from tests.integration.providers.house import Joined, run, settings_for
from tests.op.scripted import Script, ScriptedOP


def test_a_refused_client_is_one_line_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with ScriptedOP() as op:

        async def main(joined: Joined) -> None:
            browsers = [joined.browser() for _ in range(3)]
            for browser in browsers:
                await joined.sign_in(op, browser)
            op.client_secret = "renewed there, not here"
            await joined.expire(browsers[0])
            for _ in range(2):
                for browser in browsers:
                    await joined.ask(browser)
            lines = [each for each in caplog.records if each.getMessage() == "client_refused"]
            assert len(lines) == 1
            assert "Certificates & secrets" in vars(lines[0])["remedy"]
            assert len(op.refreshes()) == 1, "the breaker holds the others back"
            for browser in browsers:
                assert await joined.session(browser) is not None

        run(lambda: Joined(settings_for(op, provider="entra"), op), main)


def test_a_sign_in_without_a_refresh_token_is_a_line_with_the_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with ScriptedOP() as op:
        op.issues_refresh_token = lambda grant: False  # type: ignore[method-assign]

        async def main(joined: Joined) -> None:
            await joined.sign_in(op, joined.browser())
            (line,) = (each for each in caplog.records if each.getMessage() == "no_refresh_token")
            assert "Grant type: check Refresh Token" in vars(line)["remedy"]
            assert joined.parts.provider.observed.without_refresh_token == 1

        run(lambda: Joined(settings_for(op, provider="okta"), op), main)


@pytest.mark.parametrize("code", ["use_dpop_nonce", "invalid_dpop_proof"])
def test_f29_an_op_that_begins_to_demand_dpop_costs_no_session_and_the_switch_is_named(
    code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """docs/adr/0006: not offered. The proof is looked at before the token: nothing was processed."""
    caplog.set_level(logging.INFO)
    with ScriptedOP() as op:

        async def main(joined: Joined) -> None:
            browser = joined.browser()
            await joined.sign_in(op, browser)
            op.always["refresh"] = Script(process=False, status=400, body=json.dumps({"error": code}))
            await joined.expire(browser)
            result = await joined.ask(browser)
            assert result is not None
            assert (result.word, result.reason) == ("unavailable", code)
            (line,) = (each for each in caplog.records if each.getMessage() == "client_refused")
            assert "DPoP" in vars(line)["remedy"]
            op.always.clear()
            joined.advance(90)
            recovered = await joined.ask(browser)
            assert recovered is not None
            assert recovered.word == "refreshed"

        run(lambda: Joined(settings_for(op, provider="okta"), op), main)


def test_a_sign_in_that_brings_tokens_bound_to_a_key_is_refused() -> None:
    with ScriptedOP() as op:
        op.always["code"] = Script(change=lambda body: body.update({"token_type": "DPoP"}))

        async def main(joined: Joined) -> None:
            browser = joined.browser()
            reply = await joined.sign_in(op, browser)
            assert reply.status == 502
            assert await joined.session(browser) is None

        run(lambda: Joined(settings_for(op), op), main)
