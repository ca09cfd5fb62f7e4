"""Several providers side by side: the choice, the callback of each, sessions that know theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.providers.house import APP, Joined, run, settings_for, several
from tests.op.scripted import ScriptedOP


@pytest.fixture
def ops() -> Iterator[tuple[ScriptedOP, ScriptedOP]]:
    with ScriptedOP() as one, ScriptedOP() as two:
        two.user = {**two.user, "email": "ada@two.example", "name": "Ada the Second"}
        yield one, two


def house(ops: tuple[ScriptedOP, ScriptedOP], **of_two: object) -> Joined:
    base = settings_for(ops[0], public_urls=(APP, "https://staff.example.com"))
    made = several(
        base, one=(ops[0], {"title": "The First"}), two=(ops[1], {"title": "Second & Co", **of_two})
    )
    return Joined(made, *ops)


def test_people_choose_and_the_app_is_told_whose_subject_it_is(ops: tuple[ScriptedOP, ScriptedOP]) -> None:
    async def main(joined: Joined) -> None:
        browser = joined.browser()
        page = await browser.get("/oauth2/login?rd=/reports?x=1")
        assert page.status == 200
        for text in ("Continue with The First", "Continue with Second &amp; Co", ">TF<", "provider=two"):
            assert text in page.text
        assert ops[0].hits.get("authorize", 0) == 0
        back = await joined.sign_in(ops[1], browser, rd="/reports?x=1", provider="two")
        assert (back.status, back["location"]) == (302, APP + "/reports?x=1")
        session = await joined.open(browser)
        headers = joined.headers(session)
        assert headers["X-Forwarded-User"] == "two:ada-1"
        assert headers["X-Forwarded-Email"] == "ada@two.example"
        assert session.record.provider == "two"
        other = joined.browser()
        await joined.sign_in(ops[0], other, provider="one")
        assert joined.headers(await joined.open(other))["X-Forwarded-User"] == "one:ada-1"

    run(lambda: house(ops), main)


def test_each_session_is_renewed_at_its_own_provider_only(ops: tuple[ScriptedOP, ScriptedOP]) -> None:
    async def main(joined: Joined) -> None:
        browsers = [joined.browser(), joined.browser()]
        for name, op, browser in zip(("one", "two"), ops, browsers, strict=True):
            await joined.sign_in(op, browser, provider=name)
        ops[0].always["refresh"] = ops[0].always.get("refresh") or _unavailable()
        for _ in range(3):
            await joined.expire(browsers[1])
            for browser in browsers:
                await joined.ask(browser)
        assert len(ops[1].refreshes()) == 3
        assert joined.parts.providers["one"].breaker.open, "one is in trouble"
        assert not joined.parts.providers["two"].breaker.open, "two is not"
        assert await joined.session(browsers[0]) is not None

    run(lambda: house(ops), main)


def _unavailable() -> object:
    from tests.op.scripted import Script

    return Script(process=False, status=503, body='{"error": "temporarily_unavailable"}')


def test_an_answer_at_another_providers_callback_is_no_answer(ops: tuple[ScriptedOP, ScriptedOP]) -> None:
    """RFC 9700 §4.4: mix-up. Each provider has a callback of its own."""

    async def main(joined: Joined) -> None:
        browser = joined.browser()
        there = await browser.get("/oauth2/login?provider=one")
        assert "callback%2Fone" in there["location"]
        back = ops[0].code_for(there["location"])
        from urllib.parse import urlencode

        for path in ("callback/two", "callback"):
            reply = await browser.get(f"/oauth2/{path}?{urlencode(back)}")
            assert reply.status in (400, 404)
        assert not ops[0].ledger
        assert not ops[1].ledger
        assert (await browser.get(f"/oauth2/callback/one?{urlencode(back)}")).status == 302

    run(lambda: house(ops), main)


def test_a_host_has_its_own_provider_and_no_hint_changes_that(ops: tuple[ScriptedOP, ScriptedOP]) -> None:
    async def main(joined: Joined) -> None:
        staff = joined.browser("staff.example.com")
        for query in ("", "?provider=one", "?provider=nobody"):
            there = await staff.get(f"/oauth2/login{query}")
            assert there["location"].startswith(ops[1].issuer)
        public = joined.browser()
        assert (await public.get("/oauth2/login?provider=two"))["location"].startswith(ops[0].issuer)
        await joined.sign_in(ops[1], staff)
        assert joined.headers(await joined.open(staff))["X-Forwarded-User"] == "two:ada-1"

    run(lambda: house(ops, hosts=("staff.example.com",)), main)


def test_a_path_chooses_unasked(ops: tuple[ScriptedOP, ScriptedOP]) -> None:
    async def main(joined: Joined) -> None:
        browser = joined.browser()
        assert (await browser.get("/oauth2/login?rd=/admin/users"))["location"].startswith(ops[1].issuer)
        assert (await browser.get("/oauth2/login?rd=/")).status == 200
        hinted = await browser.get("/oauth2/login?rd=/admin/users&provider=one")
        assert hinted["location"].startswith(ops[0].issuer)

    run(lambda: house(ops, paths=("/admin/",)), main)


def test_a_removed_provider_signs_its_people_in_again_without_an_error(
    ops: tuple[ScriptedOP, ScriptedOP],
) -> None:
    """G11. And whoever takes it back finds the sessions as they were."""

    async def main(joined: Joined) -> None:
        both = joined.parts.settings
        browsers = [joined.browser(), joined.browser()]
        await joined.sign_in(ops[0], browsers[0], provider="one")
        await joined.sign_in(ops[1], browsers[1], provider="two")
        from msgspec.structs import replace

        joined.reconfigure(replace(both, providers={"one": both.providers["one"]}))
        assert await joined.session(browsers[0]) is not None
        assert await joined.session(browsers[1]) is None
        browsers[1].app = joined.app
        there = await browsers[1].get("/oauth2/login?rd=/x")
        assert (there.status, there["location"].startswith(ops[0].issuer)) == (302, True)
        joined.reconfigure(both)
        assert await joined.session(browsers[1]) is not None, "nothing was lost"
        assert not ops[1].revoked

    run(lambda: house(ops), main)


def test_a_signed_in_person_is_not_asked_to_choose_again(ops: tuple[ScriptedOP, ScriptedOP]) -> None:
    async def main(joined: Joined) -> None:
        browser = joined.browser()
        await joined.sign_in(ops[1], browser, provider="two")
        home = await browser.get("/oauth2/login?rd=/x")
        assert (home.status, home["location"]) == (302, APP + "/x")
        other = await browser.get("/oauth2/login?rd=/x&account=other")
        assert other.status == 200
        assert "account=other" in other.text

    run(lambda: house(ops), main)


def test_a_sign_out_goes_to_the_sessions_own_provider(ops: tuple[ScriptedOP, ScriptedOP]) -> None:
    async def main(joined: Joined) -> None:
        browser = joined.browser()
        await joined.sign_in(ops[1], browser, provider="two")
        done = await browser.post("/oauth2/logout", origin=APP)
        assert done["location"].startswith(ops[1].issuer + "/end-session?")
        await joined.settled()
        assert len(ops[1].revoked) == 1
        assert not ops[0].revoked

    run(lambda: house(ops), main)


def test_what_each_provider_does_is_told_by_its_name(ops: tuple[ScriptedOP, ScriptedOP]) -> None:
    async def main(joined: Joined) -> None:
        browser = joined.browser()
        await joined.sign_in(ops[1], browser, provider="two")
        await joined.expire(browser)
        await joined.ask(browser)
        seen = joined.parts.providers["two"].observed
        assert (seen.refreshes, seen.rotates, seen.new_id_token, seen.sign_ins) == (1, True, True, 1)
        telemetry = joined.base.telemetry
        telemetry.observed = lambda: {name: each.observed for name, each in joined.parts.providers.items()}
        text = telemetry.scrape().decode()
        assert 'nightporter_provider_rotates{provider="two"} 1.0' in text
        assert 'nightporter_provider_sign_ins_total{provider="two"} 1.0' in text
        assert 'nightporter_provider_rotates{provider="one"}' not in text, "not seen yet"

    run(lambda: house(ops), main)


def test_a_renewal_under_way_ends_at_its_own_provider_although_that_is_removed(
    ops: tuple[ScriptedOP, ScriptedOP],
) -> None:
    """I9: neither its token nor its identity is ever another provider's business."""
    from msgspec.structs import replace

    from tests.op.scripted import Gate, Script

    async def main(joined: Joined) -> None:
        both = joined.parts.settings
        browser = joined.browser()
        await joined.sign_in(ops[1], browser, provider="two")
        await joined.expire(browser)
        session = await joined.open(browser)
        gate = Gate()
        ops[1].script_next(Script(after=gate), "refresh")
        flight = joined.parts.keeper.start(session)
        import asyncio

        await asyncio.get_running_loop().run_in_executor(None, gate.wait_reached)
        joined.reconfigure(replace(both, providers={"one": both.providers["one"]}))
        gate.open()
        await joined.parts.flights.wait(flight, 10.0)
        await joined.settled()
        assert await joined.session(browser) is None, "not served"
        assert not ops[0].ledger
        assert joined.base.telemetry.events["refreshed_identity_mismatch"] == 0
        joined.reconfigure(both)
        again = await joined.open(browser)
        assert ops[1].is_valid(again.tokens.refresh_token), "the rotated token was saved"

    run(lambda: house(ops), main)


def test_a_removed_providers_token_goes_to_nobody(ops: tuple[ScriptedOP, ScriptedOP]) -> None:
    from msgspec.structs import replace

    async def main(joined: Joined) -> None:
        both = joined.parts.settings
        browser = joined.browser()
        await joined.sign_in(ops[1], browser, provider="two")
        await joined.expire(browser)
        session = await joined.open(browser)
        joined.reconfigure(replace(both, providers={"one": both.providers["one"]}))
        result = await joined.parts.keeper.renew(session)
        assert (result.word, result.reason) == ("unavailable", "provider_removed")
        assert not ops[0].ledger
        assert not ops[1].refreshes()

    run(lambda: house(ops), main)


def test_a_logout_token_goes_to_the_provider_that_it_names_and_to_no_other(
    ops: tuple[ScriptedOP, ScriptedOP],
) -> None:
    async def tell(joined: Joined, token: str) -> int:
        caller = joined.browser()
        return (await caller.post("/oauth2/backchannel-logout", {"logout_token": token})).status

    async def main(joined: Joined) -> None:
        browsers = [joined.browser(), joined.browser()]
        ops[1].rotate_key("k2", 1)
        for name, op, browser in zip(("one", "two"), ops, browsers, strict=True):
            await joined.sign_in(op, browser, provider=name)
        forged = ops[0].logout_draft()
        forged.claims["iss"] = ops[1].issuer  # signed by the first, in the second's name
        stranger = ops[0].logout_draft()
        stranger.claims["iss"] = "https://evil.example.net"
        elsewhere = ops[1].logout_draft()
        elsewhere.claims["aud"] = "another-client"
        for draft in (forged, stranger, elsewhere):
            assert await tell(joined, draft.signed()) == 400
        assert await tell(joined, "no.logout.token") == 400
        assert await tell(joined, ops[1].logout_draft().signed()) == 200
        assert await joined.session(browsers[0]) is not None
        assert await joined.session(browsers[1]) is None

    run(lambda: house(ops), main)
