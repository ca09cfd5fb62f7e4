"""A client secret that is being replaced: two are configured, and whichever the OP takes is used (G3)."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.config import Secret, Settings
from proxy.core.providers import PROFILES
from proxy.core.token_reply import RawReply
from proxy.errors import ReplyLost
from proxy.shell.op_client import OPClient
from tests.integration.op.support import Person, until, with_person
from tests.integration.providers.house import Joined, run, settings_for
from tests.op.quirks import QUIRKS, QuirkyOP
from tests.op.scripted import Gate, Script, ScriptedOP

NEXT = "the next secret %&"
TWO = {"client_secret": "the first secret", "client_secret_next": NEXT}
BY_NAME = {quirks.name: quirks for quirks in QUIRKS}


def first_op(**knobs: Any) -> ScriptedOP:
    """An OP that takes the first secret."""
    op = ScriptedOP()
    op.client_secret = TWO["client_secret"]
    for name, value in knobs.items():
        setattr(op, name, value)
    return op


def outcomes(op: ScriptedOP) -> list[tuple[str, str]]:
    return [(call.auth, call.outcome) for call in op.ledger]


async def refreshed(person: Person, token: str) -> RawReply:
    call = await person.client.connect()
    try:
        return await call.refresh(token, last_check=lambda: True)
    finally:
        await call.aclose()


def test_the_first_is_used_while_it_is_taken_and_the_other_from_its_refusal_on() -> None:
    with first_op() as op:

        async def work(person: Person) -> None:
            await refreshed(person, op.grant())
            op.client_secret = NEXT  # the provider switches
            for _ in range(3):
                assert (await refreshed(person, op.grant())).status == 200
            op.client_secret = TWO["client_secret"]  # and back
            assert (await refreshed(person, op.grant())).status == 200

        with_person(op, work, **TWO)
        assert outcomes(op) == [
            ("basic", "issued"),
            ("bad", "invalid_client"),
            *[("basic", "issued")] * 3,
            ("bad", "invalid_client"),
            ("basic", "issued"),
        ]
        assert op.reuse_events == 0


def test_sign_in_par_and_revocation_use_whichever_is_taken() -> None:
    with first_op(par="required") as op:
        op.client_secret = NEXT

        async def work(person: Person) -> None:
            signed_in = await person.sign_in(op.code_for)
            assert signed_in.identity.sub == "ada-1"
            assert [call.auth for call in op.ledger] == ["basic"], "the pushed request had found out"
            op.client_secret = TWO["client_secret"]
            assert await person.client.revoke(signed_in.issued.refresh_token, "refresh_token")
            assert (await refreshed(person, op.grant())).status == 200
            assert [call.auth for call in op.ledger] == ["basic"] * 2, "the revocation had found out"

        with_person(op, work, **TWO)
        assert len(op.revoked) == 1


def test_both_refused_is_a_refusal_and_nothing_is_switched(caplog: pytest.LogCaptureFixture) -> None:
    with first_op() as op:
        op.client_secret = "a third one"

        async def work(person: Person) -> None:
            reply = await refreshed(person, op.grant())
            assert json.loads(reply.body)["error"] == "invalid_client"
            op.client_secret = TWO["client_secret"]
            assert (await refreshed(person, op.grant())).status == 200

        with_person(op, work, **TWO)
        assert [call.auth for call in op.ledger] == ["bad", "bad", "basic"]
        assert "client_secret_switched" not in caplog.text


def test_one_secret_is_tried_once() -> None:
    with first_op() as op:
        op.client_secret = "another"
        with_person(op, lambda person: refreshed(person, op.grant()), client_secret="only")
        with_person(
            op,
            lambda person: refreshed(person, op.grant()),
            client_secret="only",
            client_secret_next="only",
        )
        assert len(op.ledger) == 2


def test_no_answer_to_the_other_one_is_ambiguous_and_proves_nothing() -> None:
    """The OP may have taken it, and may have rotated."""
    with first_op() as op:
        op.client_secret = NEXT
        op.script_next(Script(), "refresh")
        op.script_next(Script(cut="unanswered"), "refresh")

        async def work(person: Person) -> None:
            with pytest.raises(ReplyLost):
                await refreshed(person, op.grant())
            op.script_next(Script(), "refresh")
            op.script_next(Script(process=False, status=503, body="{}"), "refresh")
            assert (await refreshed(person, op.grant())).status == 503
            calls = len(op.ledger)
            assert (await refreshed(person, op.grant())).status == 200
            assert len(op.ledger) == calls + 2, "still the first one first"

        with_person(op, work, **TWO)


def test_the_other_one_is_not_sent_without_the_lease_nor_after_the_call_was_given_up() -> None:
    with first_op() as op:
        op.client_secret = NEXT
        asked: list[int] = []

        def last_check() -> bool:
            asked.append(1)
            return len(asked) == 1

        async def without_lease(person: Person) -> RawReply:
            call = await person.client.connect()
            try:
                return await call.refresh(op.grant(), last_check=last_check)
            finally:
                await call.aclose()

        reply = with_person(op, without_lease, **TWO)
        assert json.loads(reply.body)["error"] == "invalid_client"
        assert (len(asked), len(op.ledger)) == (2, 1)

        gate = Gate()

        async def given_up(person: Person) -> None:
            op.script_next(Script(after=gate), "refresh")
            call = await person.client.connect()
            asking = asyncio.create_task(call.refresh(op.grant(), last_check=lambda: True))
            await until(gate.reached.is_set)
            await call.aclose()
            with pytest.raises(ReplyLost):
                await asking
            gate.open()

        with_person(op, given_up, **TWO)
        assert len(op.ledger) == 2


def test_a_call_that_is_given_up_between_the_two_sends_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.shell.op_client import client

    with first_op() as op:
        op.client_secret = NEXT
        real, opening, go_on = client.connect, asyncio.Event(), asyncio.Event()

        async def held(config: Any, *rest: Any) -> Any:
            if config.client_secret == NEXT:
                opening.set()
                await go_on.wait()
            return await real(config, *rest)

        monkeypatch.setattr(client, "connect", held)

        async def work(person: Person) -> RawReply:
            call = await person.client.connect()
            asking = asyncio.create_task(call.refresh(op.grant(), last_check=lambda: True))
            await opening.wait()
            await call.aclose()
            go_on.set()
            return await asking

        reply = with_person(op, work, **TWO)
        assert json.loads(reply.body)["error"] == "invalid_client"
        assert len(op.ledger) == 1


def test_a_new_configuration_begins_with_the_one_that_is_taken() -> None:
    with first_op() as op:
        op.client_secret = NEXT

        async def work(person: Person) -> None:
            await refreshed(person, op.grant())
            told: list[bool] = []
            after = OPClient(person.config, person.clock, told.append)
            after.learn_from(person.client)
            person.client, old = after, person.client
            await old.close()
            assert (await refreshed(person, op.grant())).status == 200
            assert told == [False, True]

        with_person(op, work, **TWO)
        assert [call.outcome for call in op.ledger] == ["invalid_client", "issued", "issued"]


@pytest.mark.parametrize("name", ["github", "keycloak", "auth0", "zitadel", "entra"])
def test_g3_nobody_notices_the_switch_whatever_the_provider_calls_a_refusal(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with QuirkyOP(BY_NAME[name]) as op:
        settings = replace(settings_for(op, provider=name), client_secret_next=Secret(NEXT))

        async def main(joined: Joined) -> None:
            browser = joined.browser()
            assert (await joined.sign_in(op, browser)).status == 302
            assert joined.parts.provider.observed.next_secret is False
            op.client_secret = NEXT
            for _ in range(3):
                await joined.expire(browser)
                result = await joined.ask(browser)
                assert result is not None
                assert result.word == "refreshed"
            refused = [call for call in op.refreshes() if call.auth == "bad"]
            assert len(refused) == 1, "then the other one is known"
            assert not joined.parts.provider.breaker.open
            assert joined.parts.provider.observed.next_secret is True
            figures = {name: value for name, _, value in joined.parts.provider.observed.figures()}
            assert figures["next_secret"] == 1
            (line,) = (each for each in caplog.records if each.getMessage() == "client_secret_switched")
            assert vars(line)["in_use"] == "client_secret_next"
            assert NEXT not in caplog.text
            await browser.post("/oauth2/logout", origin="https://app.example.com")
            await joined.settled()
            assert bool(op.revoked) is bool(op.quirks.gives_back)

        run(lambda: Joined(settings, op), main)


def test_there_must_be_a_first_one() -> None:
    from proxy.config.checks import check

    settings = Settings(
        issuer="https://login.example.com",
        client_id="app",
        client_auth="none",
        client_secret_next=Secret(NEXT),
        upstream="http://127.0.0.1:9",
        public_urls=("https://app.example.com",),
    )
    assert "client_secret_next" in {problem.key for problem in check(settings, set())}
    assert PROFILES["generic"].secret_codes == {"unauthorized_client"}
