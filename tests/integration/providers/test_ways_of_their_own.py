"""What only one provider does. See `tests/op/quirks.py` for whose word that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.config import Op
from tests.integration.pages.house import Browser
from tests.integration.providers.house import Joined, run, settings_for
from tests.op.quirks import QUIRKS, TENANT, QuirkyOP
from tests.op.scripted import Draft, Reply, Request, Script

BY_NAME = {quirks.name: quirks for quirks in QUIRKS}


class WithGraph(QuirkyOP):
    """Entra with Microsoft Graph beside it, on the same socket."""

    graph_status = 200

    def _endpoint(self, request: Request) -> str:
        return "collector" if request.path.startswith("/v1.0/me/") else super()._endpoint(request)

    def _process(self, request: Request, endpoint: str, script: Any, entry: Any) -> Reply:
        if endpoint != "collector":
            return super()._process(request, endpoint, script, entry)
        if self.graph_status != 200:
            return Reply(self.graph_status, {"error": {"code": "Authorization_RequestDenied"}})
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        assert self.access_token_works(token)
        page = dict(request.query).get("page")
        if page is None:
            return Reply(
                200, {"value": [{"id": "g-1"}], "@odata.nextLink": f"{self.root}{request.path}?page=2"}
            )
        return Reply(200, {"value": [{"id": "g-2"}]})

    def _document(self) -> dict[str, Any]:
        return super()._document() | {"msgraph_host": f"127.0.0.1:{self.port}"}

    def edit_id_token(self, draft: Draft, endpoint: str) -> None:
        draft.claims.pop("groups", None)
        draft.claims["_claim_names"] = {"groups": "src1"}


@pytest.fixture
def github() -> Iterator[QuirkyOP]:
    with QuirkyOP(BY_NAME["github"]) as op:
        yield op


@pytest.fixture
def entra() -> Iterator[WithGraph]:
    with WithGraph(BY_NAME["entra"]) as op:
        yield op


def joined_for(op: QuirkyOP, /, **changes: Any) -> Joined:
    return Joined(settings_for(op, **{"provider": op.quirks.name, **changes}), op)


async def in_through(joined: Joined, op: QuirkyOP) -> Browser:
    browser = joined.browser()
    reply = await joined.sign_in(op, browser)
    assert reply.status == 302, reply.text
    return browser


# -- GitHub --


def test_github_a_person_is_who_the_api_says(github: QuirkyOP) -> None:
    async def main(joined: Joined) -> None:
        session = await joined.open(await in_through(joined, github))
        assert joined.headers(session) == {
            "X-Forwarded-User": "4711",
            "X-Forwarded-Email": "ada@example.com",
            "X-Forwarded-Preferred-Username": "ada",
            "X-Forwarded-Groups": "acme,acme/staff",
        }
        assert session.identity.email_verified
        assert ("GET", "/.well-known/openid-configuration") not in github.calls

    run(lambda: joined_for(github, allow=("group:acme/staff",)), main)


def test_github_an_organisation_is_demanded(github: QuirkyOP) -> None:
    async def main(joined: Joined) -> None:
        browser = joined.browser()
        reply = await joined.sign_in(github, browser)
        assert reply.status == 403
        assert await joined.session(browser) is None
        await joined.settled()
        assert len(github.revoked) == 1, "the token that nobody will use is given back"

    run(lambda: joined_for(github, allow=("group:other",)), main)


@pytest.mark.parametrize("status", [500, 502, 401, 403, 429])
def test_github_a_validation_that_fails_after_the_refresh_loses_no_token(
    github: QuirkyOP, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """coder #23473: the new token is stored before anything looks at it."""
    monkeypatch.setattr("proxy.shell.aftercare.USERINFO_TRIES", 1)  # the others would only take time

    async def main(joined: Joined) -> None:
        browser = await in_through(joined, github)
        await joined.expire(browser)
        github.always["userinfo"] = Script(process=False, status=status, body="{}")
        result = await joined.ask(browser)
        assert result is not None
        assert result.word == "refreshed"
        session = await joined.open(browser)
        assert github.is_valid(session.tokens.refresh_token)
        assert joined.headers(session)["X-Forwarded-Groups"] == "acme,acme/staff"
        github.always.clear()
        await joined.expire(browser)
        again = await joined.ask(browser)
        assert again is not None
        assert again.word == "refreshed"
        assert (github.invalid_grant, github.reuse_events) == (0, 0)

    run(lambda: joined_for(github), main)


def test_github_a_new_token_that_is_not_known_everywhere_yet_is_asked_again(github: QuirkyOP) -> None:
    async def main(joined: Joined) -> None:
        github.api_unready = 2
        await in_through(joined, github)
        assert github.api_unready == 0

    run(lambda: joined_for(github), main)


def test_b5_a_renewed_token_that_is_not_known_everywhere_yet_costs_nothing(github: QuirkyOP) -> None:
    """coder #23473: GitHub's API answers 401 for some milliseconds after the refresh."""

    async def main(joined: Joined) -> None:
        browser = await in_through(joined, github)
        await joined.expire(browser)
        github.user["groups"] = ["acme"]
        github.api_unready = 2
        result = await joined.ask(browser)
        assert result is not None
        assert result.word == "refreshed"
        await joined.settled()
        assert github.api_unready == 0
        assert joined.headers(await joined.open(browser))["X-Forwarded-Groups"] == "acme"

    run(lambda: joined_for(github), main)


def test_github_tokens_of_somebody_else_end_the_session(github: QuirkyOP) -> None:
    """F20: there is no ID token that would tell."""

    async def main(joined: Joined) -> None:
        browser = await in_through(joined, github)
        await joined.expire(browser)
        github.user_id = 4712
        await joined.ask(browser)
        await joined.settled()
        assert await joined.session(browser) is None
        assert joined.base.telemetry.events["refreshed_identity_mismatch"] == 1

    run(lambda: joined_for(github), main)


def test_github_an_oauth_apps_session_lasts_without_a_refresh_token() -> None:
    """Its tokens do not end: no sign-in every hour, and no warning about it."""
    quirks = BY_NAME["github"]
    with QuirkyOP(quirks) as op:
        op.expires_in = None
        op.at_life_s = 1e9
        op.issues_refresh_token = lambda grant: False  # type: ignore[method-assign]

        async def main(joined: Joined) -> None:
            browser = await in_through(joined, op)
            joined.advance(6 * 86_400)
            assert await joined.ask(browser) is None, "still alive"
            assert joined.base.telemetry.events["no_refresh_token"] == 0

        run(lambda: joined_for(op, provider="github-oauth-app"), main)


# -- Entra --


def test_entra_groups_that_are_too_many_come_from_graph(entra: WithGraph) -> None:
    async def main(joined: Joined) -> None:
        browser = await in_through(joined, entra)
        assert joined.headers(await joined.open(browser))["X-Forwarded-Groups"] == "g-1,g-2"
        entra.graph_status = 503
        await joined.expire(browser)
        await joined.ask(browser)
        assert joined.headers(await joined.open(browser))["X-Forwarded-Groups"] == "g-1,g-2"

    run(lambda: joined_for(entra, op=Op(userinfo="never")), main)


def test_entra_without_the_permission_groups_are_unknown_and_a_rule_on_them_denies(entra: WithGraph) -> None:
    async def main(joined: Joined) -> None:
        entra.graph_status = 403
        reply = await joined.sign_in(entra, joined.browser())
        assert reply.status == 403
        assert joined.base.telemetry.events["groups_refused"] == 1

    run(lambda: joined_for(entra, op=Op(userinfo="never"), allow=("group:g-1",)), main)


def test_entra_many_tenants_sign_in_and_each_token_names_its_own() -> None:
    shared = replace_base("entra", "/organizations/v2.0")
    with QuirkyOP(shared) as op:
        own = f"{op.root}/{TENANT}/v2.0"
        op.discovery = {**op.discovery, "issuer": f"{op.root}/{{tenantid}}/v2.0"}

        def name_tenant(draft: Draft) -> None:
            draft.claims |= {"iss": own, "tid": TENANT}

        op.change_id_token = name_tenant

        async def main(joined: Joined) -> None:
            browser = await in_through(joined, op)
            session = await joined.open(browser)
            assert session.identity.iss == own
            await joined.expire(browser)
            result = await joined.ask(browser)
            assert result is not None
            assert result.word == "refreshed"

            def claim_another(draft: Draft) -> None:
                draft.claims |= {"iss": own, "tid": TENANT.replace("7", "8")}

            op.change_id_token = claim_another
            assert (await joined.sign_in(op, joined.browser())).status >= 400

        run(lambda: joined_for(op, allow=(f"tenant:{TENANT}",)), main)


def replace_base(name: str, base: str) -> Any:
    from dataclasses import replace as changed

    return changed(BY_NAME[name], base=base)


# -- dex --


def test_dex_a_second_sign_in_ends_the_first_ones_renewals_and_nothing_else() -> None:
    """One refresh token per person, connector and client: said in its page; here it must not loop."""
    with QuirkyOP(BY_NAME["dex"]) as op:

        async def main(joined: Joined) -> None:
            first, second = await in_through(joined, op), await in_through(joined, op)
            await joined.expire(first)
            ended = await joined.ask(first)
            assert ended is not None
            assert (ended.word, ended.reason) == ("ended", "invalid_request")
            calls = len(op.refreshes())
            for _ in range(3):
                await joined.session(first)
            assert len(op.refreshes()) == calls
            renewed = await joined.ask(second)
            assert renewed is not None
            assert renewed.word == "refreshed"

        run(lambda: joined_for(op), main)


# -- learned --


def test_what_is_observed_wins_over_the_profile() -> None:
    """G9, G10: a Keycloak that does not rotate is repeated at once, like every provider without rotation."""
    from dataclasses import replace as changed

    quirks = changed(BY_NAME["keycloak"], rotation=BY_NAME["google"].rotation)
    with QuirkyOP(quirks) as op:

        async def main(joined: Joined) -> None:
            browser = await in_through(joined, op)
            for _ in range(3):
                await joined.expire(browser)
                await joined.ask(browser)
            await joined.expire(browser)
            op.script_next(Script(cut="unanswered"), "refresh")
            result = await joined.ask(browser)
            assert result is not None
            assert result.word == "refreshed", "the lost reply was asked for again"

        run(lambda: joined_for(op), main)


def test_the_configuration_may_name_the_profile_that_the_issuer_hides(entra: WithGraph) -> None:
    made = joined_for(entra)
    settings = replace(made.parts.settings, provider="")
    assert Joined(settings, entra).parts.provider.profile.name == "generic", "no Microsoft host"
