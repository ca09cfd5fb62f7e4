"""The doctor against OPs with one thing wrong each: it finds that thing, and says what to change."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from proxy import wiring
from proxy.config import Loaded, Op, Refresh, Secret, Settings
from proxy.config.declaration import ForwardAuth
from proxy.core.answers import Tally
from proxy.doctor import documents, sessions
from proxy.doctor.login import kind_of
from proxy.doctor.report import Level, Report
from proxy.doctor.run import examine
from tests.integration.providers.house import settings_for
from tests.op.quirks import QUIRKS, QuirkyOP
from tests.op.scripted import CLIENT_SECRET, Reply, Request, Rotation, Script, ScriptedOP, _Refuse

BY_NAME = {quirks.name: quirks for quirks in QUIRKS}
REDIRECT_URI = "https://app.example.com/oauth2/callback"


class CheckedOP(ScriptedOP):
    """Answers `prompt=none` without a session as OIDC Core §3.1.2.6 says."""

    knows = REDIRECT_URI
    silent_error = "login_required"

    def _authorize(self, request: Request) -> Reply:
        params = dict(request.query)
        if "request_uri" in params:
            params = dict(self._par_requests.get(params["request_uri"], []))
        if params.get("prompt") == "none":
            if params.get("redirect_uri") != self.knows or params.get("client_id") != self.client_id:
                raise _Refuse("invalid_request")
            back = urlencode({"error": self.silent_error, "state": params["state"]})
            return Reply(302, b"", {"Location": f"{self.knows}?{back}"})
        return super()._authorize(request)


@pytest.fixture
def op() -> Iterator[CheckedOP]:
    with CheckedOP() as made:
        yield made


def run(
    op: ScriptedOP,
    settings: Settings | None = None,
    *,
    login: bool = False,
    aggressive: bool = False,
    wait_s: float = 0,
) -> Report:
    settings = settings or settings_for(op, idle_s=604_800.0)

    async def bring(url: str, redirect_uri: str) -> str:
        back = await asyncio.get_running_loop().run_in_executor(None, op.code_for, url)
        return f"{redirect_uri}?{urlencode(back)}"

    loaded = Loaded(settings, {}, (), ())
    return asyncio.run(examine(loaded, bring if login else None, aggressive=aggressive, grace_wait_s=wait_s))


def found(report: Report, check: str) -> tuple[Level, str, str]:
    """Level, what and remedy of a check that must be there."""
    hits = [each for each in report.findings if each.check == check]
    assert hits, f"no {check} in {[each.check for each in report.findings]}"
    return hits[-1].level, hits[-1].what, hits[-1].remedy


def of_the_op(report: Report) -> set[str]:
    return {
        each.check
        for each in report.findings
        if each.level is not Level.OK and each.check.startswith(("op", "login"))
    }


def test_a_sound_provider_is_found_sound(op: CheckedOP) -> None:
    report = run(op, login=True)
    assert of_the_op(report) == set()
    for check in (
        "op.issuer",
        "op.jwks",
        "op.secret",
        "op.redirect_uri",
        "login.refresh",
        "login.access_token",
        "login.groups",
    ):
        assert found(report, check)[0] is Level.OK


def _slash(op: CheckedOP) -> None:
    op.discovery = {"issuer": op.issuer + "/"}


def _other_issuer(op: CheckedOP) -> None:
    op.discovery = {"issuer": "https://other.example"}


def _template(op: CheckedOP) -> None:
    op.discovery = {"issuer": op.issuer + "/{tenantid}/v2.0"}


def _html(op: CheckedOP) -> None:
    op.always["discovery"] = Script(status=200, body="<html>", headers={"Content-Type": "text/html"})


def _no_keys(op: CheckedOP) -> None:
    op.published = []


def _wrong_keys(op: CheckedOP) -> None:
    op.published = [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "x", "x": "x", "y": "y"}]


def _symmetric(op: CheckedOP) -> None:
    op.discovery = {"id_token_signing_alg_values_supported": ["HS256"]}


def _plain_pkce(op: CheckedOP) -> None:
    op.discovery = {"code_challenge_methods_supported": ["plain"]}


def _no_refresh_grant(op: CheckedOP) -> None:
    op.discovery = {"grant_types_supported": ["authorization_code"]}


def _no_code_flow(op: CheckedOP) -> None:
    op.discovery = {"response_types_supported": ["id_token", "id_token token"]}


def _auth_method(op: CheckedOP) -> None:
    op.discovery = {"token_endpoint_auth_methods_supported": ["private_key_jwt"]}


def _no_scope(op: CheckedOP) -> None:
    op.discovery = {"scopes_supported": ["openid", "profile", "email"]}


def _no_logout(op: CheckedOP) -> None:
    op.discovery = {"end_session_endpoint": None}


def _no_revocation(op: CheckedOP) -> None:
    op.discovery = {"revocation_endpoint": None}


def _bad_secret(op: CheckedOP) -> None:
    op.client_secret = "changed"


def _grant_refused(op: CheckedOP) -> None:
    op.always["refresh"] = Script(process=False, status=400, body='{"error": "unauthorized_client"}')


def _wants_dpop(op: CheckedOP) -> None:
    op.always["refresh"] = Script(process=False, status=400, body='{"error": "use_dpop_nonce"}')


def _wants_dpop_as_keycloak_says_it(op: CheckedOP) -> None:
    body = json.dumps({"error": "invalid_request", "error_description": "DPoP proof is missing"})
    op.always["refresh"] = Script(process=False, status=400, body=body)


def _secret_expired(op: CheckedOP) -> None:
    words = "AADSTS7000222: The provided client secret keys for app are expired."
    body = json.dumps({"error": "invalid_client", "error_description": words})
    op.always["refresh"] = Script(process=False, status=401, body=body)


def _unclear(op: CheckedOP) -> None:
    op.always["refresh"] = Script(process=False, status=400, body='{"error": "invalid_request"}')


def _unregistered(op: CheckedOP) -> None:
    op.knows = "https://elsewhere.example/callback"


def _bad_scope(op: CheckedOP) -> None:
    op.silent_error = "invalid_scope"


def _par_broken(op: CheckedOP) -> None:
    op.par = "broken"


def _par_refuses_the_redirect_uri(op: CheckedOP) -> None:
    op.par = "offered"
    op.always["par"] = Script(process=False, status=400, body='{"error": "invalid_redirect_uri"}')


def _par_required_and_refused(op: CheckedOP) -> None:
    """Keycloak, with a wrong secret."""
    op.par = "required"
    op.always["par"] = Script(process=False, status=401, body='{"error": "invalid_request"}')


def _clock(op: CheckedOP) -> None:
    op.always["jwks"] = Script(headers={"Date": formatdate(op.now() + 45, usegmt=True)})
    op.always["refresh"] = Script(headers={"Date": formatdate(op.now() + 45, usegmt=True)})


def _far_clock(op: CheckedOP) -> None:
    op.always["refresh"] = Script(headers={"Date": formatdate(op.now() - 900, usegmt=True)})


@pytest.mark.parametrize(
    ("breaks", "check", "level", "says"),
    [
        (_slash, "op.issuer", Level.FAIL, "a slash at the end is missing"),
        (_other_issuer, "op.issuer", Level.FAIL, "says https://other.example"),
        (_template, "op.issuer", Level.FAIL, "a template for many tenants"),
        (_html, "op.discovery", Level.FAIL, "no JSON"),
        (_no_keys, "op.jwks", Level.FAIL, "no signing key"),
        (_wrong_keys, "op.jwks", Level.FAIL, "holds EC keys"),
        (_symmetric, "op.algorithms", Level.FAIL, "HS256 only"),
        (_plain_pkce, "op.pkce", Level.FAIL, "without S256"),
        (_no_refresh_grant, "op.grants", Level.WARN, "no refresh_token"),
        (_no_code_flow, "op.response_types", Level.FAIL, "and no code"),
        (_auth_method, "op.client_auth", Level.WARN, "announced is private_key_jwt"),
        (_no_scope, "config.scopes", Level.WARN, "offline_access"),
        (_no_logout, "op.logout", Level.WARN, "no logout endpoint"),
        (_no_revocation, "op.revocation", Level.WARN, "no revocation endpoint"),
        (_bad_secret, "op.secret", Level.FAIL, "the client is refused: invalid_client (HTTP 401)"),
        (_grant_refused, "op.refresh_grant", Level.FAIL, "may not use the refresh grant"),
        (_wants_dpop, "op.dpop", Level.FAIL, "(DPoP) are demanded of this client: use_dpop_nonce"),
        (_wants_dpop_as_keycloak_says_it, "op.dpop", Level.FAIL, "“DPoP proof is missing”"),
        (_par_refuses_the_redirect_uri, "op.par", Level.WARN, "refused: invalid_redirect_uri (HTTP 400)"),
        (_par_required_and_refused, "op.par", Level.FAIL, "refused: invalid_request (HTTP 401)"),
        (_secret_expired, "op.secret", Level.FAIL, "“AADSTS7000222: The provided client secret keys"),
        (_unclear, "op.secret", Level.WARN, "cannot tell"),
        (_unregistered, "op.redirect_uri", Level.FAIL, "shows an error page"),
        (_bad_scope, "op.redirect_uri", Level.FAIL, "invalid_scope"),
        (_par_broken, "op.par", Level.WARN, "pushed authorization requests: the PAR endpoint answered 500"),
        (_clock, "op.clock", Level.WARN, "s ahead of ours"),
        (_far_clock, "op.clock", Level.FAIL, "s behind ours"),
    ],
)
def test_one_thing_wrong_is_found_and_named(
    op: CheckedOP, breaks: Callable[[CheckedOP], None], check: str, level: Level, says: str
) -> None:
    settings = settings_for(op)
    breaks(op)
    report = run(op, settings)
    got, what, remedy = found(report, check)
    assert (got, says in what) == (level, True), what
    assert remedy or check == "op.jwks"
    assert report.exit_status == 2 or level is Level.WARN


@pytest.mark.parametrize(
    ("announced", "says"),
    [
        (
            {"backchannel_logout_supported": True, "backchannel_logout_session_supported": True},
            "backchannel_",
        ),
        ({"backchannel_logout_supported": True}, "all of the person's sessions"),
        ({"frontchannel_logout_supported": True}, "/oauth2/frontchannel-logout"),
        ({"http_logout_supported": True}, "best effort"),
        ({}, ""),
    ],
)
def test_the_address_for_logouts_at_the_provider_is_told(
    op: CheckedOP, announced: dict[str, bool], says: str
) -> None:
    settings = settings_for(op)
    op.discovery.update(announced)
    told = {each.check: each for each in run(op, settings).findings}.get("op.backchannel")
    if not says:
        assert told is None
        return
    assert told is not None
    assert told.level is Level.OK
    assert says in told.what
    if "backchannel_logout_supported" in announced:
        assert f"{settings.public_urls[0]}/oauth2/backchannel-logout" in told.what


@pytest.mark.parametrize(
    ("taken", "found_there"),
    [
        (
            "first",
            {
                "op.secret": (Level.OK, "client_secret are accepted"),
                "op.secret_next": (Level.WARN, "refused"),
            },
        ),
        (
            "next",
            {
                "op.secret": (
                    Level.WARN,
                    "client_secret is refused (invalid_client (HTTP 401)); client_secret_next",
                )
            },
        ),
        ("neither", {"op.secret": (Level.FAIL, "refused"), "op.secret_next": (Level.FAIL, "refused")}),
    ],
)
def test_of_two_secrets_each_is_looked_at(
    op: CheckedOP, taken: str, found_there: dict[str, tuple[Level, str]]
) -> None:
    two = {"client_secret": Secret("first"), "client_secret_next": Secret("next")}
    settings = settings_for(op, **two)
    op.client_secret = taken
    report = run(op, settings)
    for check, (level, says) in found_there.items():
        got, what, remedy = found(report, check)
        assert (got, says in what) == (level, True), what
        assert bool(remedy) is (level is not Level.OK)
    assert {each.check for each in report.findings if "secret" in each.check} == set(found_there)


def test_an_answer_that_names_no_issuer_matters_beside_other_providers() -> None:
    assert documents.names_itself({}, several=True).level is Level.WARN
    assert documents.names_itself({}, several=False).level is Level.OK
    named = {"authorization_response_iss_parameter_supported": True}
    assert "name their issuer" in documents.names_itself(named, several=True).what


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        (None, "opaque"),
        ({"aud": "api"}, "a JWT for api"),
        ({"aud": ["a", "b"]}, "a JWT for a, b"),
        ({}, "a JWT for nobody in particular"),
        ([], "opaque"),
    ],
)
def test_what_an_app_could_make_of_an_access_token(claims: object, says: str) -> None:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    assert says in kind_of("opaque.token" if claims is None else f"h.{middle}.s")


def test_an_op_that_is_away_is_one_finding_not_ten(op: CheckedOP) -> None:
    settings = settings_for(op)
    op.refuse()
    report = run(op, settings)
    assert of_the_op(report) == {"op.discovery"}


@pytest.mark.parametrize(
    ("provider", "changes", "says"),
    [
        ("okta", {"scopes": ("openid",)}, "offline_access is not among the scopes"),
        ("google", {"authorize_params": {}}, "lacks access_type=offline, prompt=consent"),
        ("google", {"authorize_params": {"access_type": "offline"}}, "lacks prompt=consent"),
        ("entra", {"scopes": ("openid", "email")}, "offline_access is not among the scopes"),
    ],
)
def test_the_missing_parameter_is_found_without_a_sign_in(
    op: CheckedOP, provider: str, changes: dict[str, Any], says: str
) -> None:
    """The guides' first entry: "users are logged out every hour"."""
    report = run(op, settings_for(op, provider=provider, **changes))
    level, what, remedy = found(report, "config.refresh_token")
    assert level is Level.FAIL
    assert says in what
    assert remedy


def test_what_other_providers_need_is_no_fault_where_it_is_not_needed(op: CheckedOP) -> None:
    for provider in ("keycloak", "gitlab", "cognito", "google"):
        report = run(op, settings_for(op, provider=provider))
        assert found(report, "config.refresh_token")[0] is Level.OK


def test_a_provider_that_is_known_for_having_no_logout_is_no_lasting_warning(op: CheckedOP) -> None:
    for provider in ("google", "authelia"):
        level, what, _ = found(run(op, settings_for(op, provider=provider)), "op.logout")
        assert (level, "has no logout endpoint" in what) == (Level.OK, True)


# -- with a sign-in --


def _without_rt(op: CheckedOP) -> None:
    op.issues_refresh_token = lambda grant: False  # type: ignore[method-assign]


def _no_life(op: CheckedOP) -> None:
    op.expires_in = None


def _refuses_refreshes(op: CheckedOP) -> None:
    op.always["refresh"] = Script(process=False, status=400, body='{"error": "invalid_grant"}')


def _somebody_else(op: CheckedOP) -> None:
    op.script_next(Script(), "code")

    def change(draft: Any) -> None:
        if op.refreshes()[1:]:  # the first one is the made-up token's
            draft.claims["sub"] = "eve"

    op.change_id_token = change


def _short_refresh_token(op: CheckedOP) -> None:
    def change(body: dict[str, Any]) -> None:
        body["refresh_expires_in"] = 120

    op.always["code"] = Script(change=change)


def _no_groups(op: CheckedOP) -> None:
    del op.user["groups"]


def _unverified(op: CheckedOP) -> None:
    del op.user["email_verified"]


def _many_groups(op: CheckedOP) -> None:
    op.user["groups"] = [f"a-group-with-a-long-name-{number}" for number in range(400)]


@pytest.mark.parametrize(
    ("breaks", "changes", "check", "level", "says"),
    [
        (_without_rt, {}, "login.refresh_token", Level.FAIL, "there is none"),
        (_no_life, {}, "login.expires_in", Level.WARN, "names no life"),
        (_refuses_refreshes, {}, "login.refresh", Level.FAIL, "refresh 1 was refused: invalid_grant"),
        (_somebody_else, {}, "login.refreshed_id_token", Level.FAIL, "sub"),
        (_short_refresh_token, {}, "login.lifetime", Level.WARN, "lives 120 s, shorter than"),
        (_no_groups, {"allow": ("group:staff",)}, "login.groups", Level.FAIL, "no claim groups"),
        (_unverified, {"allow": ("example.com",)}, "login.email", Level.WARN, "not said to be verified"),
        (_unverified, {"allow": ("example.com",)}, "login.allow", Level.WARN, "may not come in"),
        (_many_groups, {}, "login.headers", Level.WARN, "bytes"),
    ],
)
def test_a_sign_in_shows_what_documents_do_not(
    op: CheckedOP,
    breaks: Callable[[CheckedOP], None],
    changes: dict[str, Any],
    check: str,
    level: Level,
    says: str,
) -> None:
    settings = settings_for(op, **changes)
    breaks(op)
    got, what, remedy = found(run(op, settings, login=True), check)
    assert (got, says in what) == (level, True), what
    assert remedy


def _other_issuer_in_tokens(op: CheckedOP) -> None:
    op.change_id_token = lambda draft: draft.claims.update({"iss": "https://other.example"})


def _other_audience(op: CheckedOP) -> None:
    op.change_id_token = lambda draft: draft.claims.update({"aud": "another-client"})


def _clock_far_off(op: CheckedOP) -> None:
    op.change_id_token = lambda draft: draft.claims.update({"iat": op.now() + 900, "exp": op.now() + 1800})


def _no_id_token(op: CheckedOP) -> None:
    def omit(draft: Any) -> None:
        draft.omit = True

    op.change_id_token = omit


def _declined(op: CheckedOP) -> None:
    op.answer = lambda params: [("error", "access_denied"), *(each for each in params if each[0] != "code")]


def _bad_scope_there(op: CheckedOP) -> None:
    op.answer = lambda params: [("error", "invalid_scope"), *(each for each in params if each[0] != "code")]


def _wrong_paste(op: CheckedOP) -> None:
    op.answer = lambda params: [("state", "another"), ("code", "x")]


def _bound_tokens(op: CheckedOP) -> None:
    op.always["code"] = Script(change=lambda body: body.update({"token_type": "DPoP"}))


def _code_spent(op: CheckedOP) -> None:
    op.always["code"] = Script(process=False, status=400, body='{"error": "invalid_grant"}')


def _wrong_secret(op: CheckedOP) -> None:
    op.client_secret = "another"


@pytest.mark.parametrize(
    ("breaks", "code", "why", "remedy"),
    [
        (_wrong_secret, "invalid_client (HTTP 401", "refused to redeem the code", "client_secret"),
        (_other_issuer_in_tokens, "iss", "another issuer", "letter by letter"),
        (_other_audience, "aud", "for another client", "client_id"),
        (_clock_far_off, "iat", "clocks", "NTP"),
        (_no_id_token, "id_token_missing", "no ID token", "openid"),
        (_declined, "access_denied", "may not use the client", "Admit the person"),
        (_bad_scope_there, "op_error (error=invalid_scope)", "Nobody can sign in", "scope"),
        (_wrong_paste, "state_mismatch", "another sign-in", "paste the whole address"),
        (_bound_tokens, "token_type", "no app could use", "DPoP"),
        (_code_spent, "invalid_grant", "A code works once", "once"),
    ],
)
def test_a_sign_in_that_fails_is_told_to_the_operator_and_not_as_to_a_visitor(
    op: CheckedOP, breaks: Callable[[CheckedOP], None], code: str, why: str, remedy: str
) -> None:
    settings = settings_for(op)
    breaks(op)
    report = run(op, settings, login=True)
    (hit,) = [each for each in report.findings if each.check == "login"]
    assert (hit.level, code in hit.what) == (Level.FAIL, True), hit
    assert why in hit.why
    assert remedy in hit.remedy
    assert "request id" not in report.as_text(), "that is what a visitor is told"


def test_a_refresh_without_an_answer_is_no_refusal(op: CheckedOP) -> None:
    op.script_next(Script(), "refresh")  # the made-up token's
    op.script_next(Script(cut="at_once"), "refresh")
    level, what, remedy = found(run(op, login=True), "login.refresh")
    assert (level, "refresh 1 had no answer" in what) == (Level.FAIL, True), what
    assert "network" in remedy


def test_groups_that_graph_does_not_tell_fail_no_sign_in() -> None:
    from tests.integration.providers.test_ways_of_their_own import WithGraph

    with WithGraph(BY_NAME["entra"]) as op:
        op.graph_status = 403
        settings = settings_for(op, provider="entra", op=Op(userinfo="never"))
        report = run(op, settings, login=True)
        assert found(report, "login")[0] is Level.OK
        level, what, remedy = found(report, "login.groups")
        assert (level, "too many for the ID token" in what) == (Level.WARN, True)
        assert "User.Read" in remedy


@pytest.mark.parametrize(
    ("rotation", "reuse", "level", "says"),
    [
        (Rotation("family_revoke"), "profile", Level.WARN, "the newest one dies with it"),
        (Rotation("family_revoke"), "grace", Level.FAIL, "the newest one dies with it"),
        (Rotation("rotate"), "punished", Level.OK, "the newest one lives on"),
        (Rotation("idempotent", 60), "profile", Level.WARN, "the same successor again"),
        (Rotation("idempotent", 60), "idempotent", Level.OK, "the same successor again"),
        (Rotation("rotate", 1e6), "grace", Level.OK, "works once more at once and 90 s later"),
        (Rotation("family_revoke", 60), "grace", Level.OK, "90 s later it is refused and ends the newest"),
        (Rotation("rotate", 60), "grace", Level.OK, "90 s later it is refused"),
    ],
)
def test_aggressive_finds_what_becomes_of_a_used_token(
    op: CheckedOP,
    rotation: Rotation,
    reuse: Any,
    level: Level,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def pause(seconds: float) -> None:
        op.advance(seconds)

    monkeypatch.setattr("proxy.doctor.refreshes.pause", pause)
    op.rotation = rotation
    settings = settings_for(op, refresh=Refresh(reuse=reuse))
    report = run(op, settings, login=True, aggressive=True, wait_s=90)
    got, what, _ = found(report, "login.reuse")
    assert (got, says in what) == (level, True), what


def test_without_being_asked_nothing_is_presented_twice(op: CheckedOP) -> None:
    op.rotation = Rotation("family_revoke")
    run(op, login=True)
    assert op.reuse_events == 0


@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_providers_ways_pass_the_whole_examination(name: str) -> None:
    with QuirkyOP(BY_NAME[name]) as op:
        report = run(op, settings_for(op, provider=name), login=True)
        fails = [
            each for each in report.findings if each.level is Level.FAIL and not each.check.startswith("app.")
        ]
        assert fails == []
        assert found(report, "login.refresh")[0] is Level.OK


def test_no_token_code_or_secret_is_in_the_report(op: CheckedOP) -> None:
    report = run(op, login=True, aggressive=True)
    text = report.as_text() + report.as_json()
    for secret in (CLIENT_SECRET, "rt-", "at-", "eyJ", *op.revoked):
        assert secret not in text


# -- our own side --


def test_the_app_and_the_store_are_looked_at(op: CheckedOP, tmp_path: Path) -> None:
    from proxy.config import SecretUrl

    settings = settings_for(
        op,
        upstream=f"http://127.0.0.1:{op.port}",
        store=SecretUrl(f"sqlite:{tmp_path}/s.db"),
        public_urls=("http://app.example.com",),
    )
    report = run(op, settings)
    assert found(report, "app.reach")[0] is Level.OK
    assert found(report, "app.around")[0] is Level.OK
    assert found(report, "own.cookie")[0] is Level.WARN
    gone = run(
        op, settings_for(op, store=SecretUrl("sqlite:/nowhere/s.db"), upstream="http://10.255.255.1:80")
    )
    assert found(gone, "store.sqlite")[0] is Level.FAIL
    assert found(gone, "app.around")[0] is Level.WARN


@pytest.mark.parametrize(
    ("provider", "tallies", "level", "says", "remedy"),
    [
        ("okta", [("now", True, 5)], Level.OK, "5 live sessions, none of which lacks", ""),
        ("okta", [("then", False, 3), ("now", True, 5)], Level.WARN, "3 of 8", "sessions end-all"),
        ("okta", [("then", False, 3), ("now", False, 2)], Level.WARN, "2 began with", "check Refresh Token"),
        ("github-oauth-app", [("now", False, 4)], Level.OK, "4 live sessions, none", ""),
    ],
)
def test_sessions_from_before_the_change_are_counted(
    op: CheckedOP, provider: str, tallies: list[tuple[str, bool, int]], level: Level, says: str, remedy: str
) -> None:
    """The guides: "refresh tokens don't work after the change"; those sessions have none stored."""
    settings = settings_for(op, provider=provider)
    (epoch,) = wiring.epochs(settings)
    made = [
        Tally(provider, epoch if when == "now" else "0" * 12, refreshable, count)
        for when, refreshable, count in tallies
    ]
    finding = sessions.judged(made, settings)
    assert (finding.level, says in finding.what, remedy in finding.remedy) == (level, True, True), finding


def test_an_app_that_answers_on_this_machines_other_address_too_is_found(
    op: CheckedOP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound to every address: whoever reaches it needs no sign-in."""
    monkeypatch.setattr("proxy.doctor.house._own_address", lambda: "127.0.0.2")
    with socket.create_server(("127.0.0.1", 0)) as app:
        port = app.getsockname()[1]
        settings = settings_for(op, upstream=f"http://127.0.0.1:{port}")
        assert found(run(op, settings), "app.around")[0] is Level.OK
        with socket.create_server(("127.0.0.2", port)):
            level, what, remedy = found(run(op, settings), "app.around")
    assert (level, f"127.0.0.2:{port}" in what) == (Level.FAIL, True)
    assert "127.0.0.1 only" in remedy


def test_every_app_is_looked_at_and_forward_auth_has_none(op: CheckedOP, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as app:
        app.bind(str(path))
        app.listen()
        settings = settings_for(op, upstream=f"unix:{path}", upstreams={"/api/": "http://127.0.0.1:9"})
        levels = [each.level for each in run(op, settings).findings if each.check == "app.reach"]
    assert levels == [Level.OK, Level.FAIL]
    asked = settings_for(op, upstream="", forward_auth=ForwardAuth(listen="127.0.0.1:8082"))
    level, what, _ = found(run(op, asked), "app.around")
    assert (level, "engine" in what) == (Level.WARN, True)


# -- the command --


def command(op: ScriptedOP, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    given = {
        "NIGHTPORTER_ISSUER": op.issuer,
        "NIGHTPORTER_CLIENT_ID": op.client_id,
        "NIGHTPORTER_CLIENT_SECRET": op.client_secret,
        "NIGHTPORTER_UPSTREAM": f"http://127.0.0.1:{op.port}",
        "NIGHTPORTER_PUBLIC_URL": "https://app.example.com",
        "NIGHTPORTER_STORE": "memory:",
    }
    return subprocess.run(
        [sys.executable, "-m", "proxy", "check", "--live", *arguments],
        env={**os.environ, **given, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_prints_a_table_or_json_and_its_exit_status_tells(op: CheckedOP) -> None:
    table = command(op)
    assert table.returncode == 1, table.stderr  # memory: is a warning
    assert "OK    op.secret" in table.stdout
    assert "→ Set store to" in table.stdout
    told = command(op, "--json", NIGHTPORTER_CLIENT_SECRET="wrong-canary")
    assert told.returncode == 2
    body = json.loads(told.stdout)
    assert body["exit_status"] == 2
    secret = next(each for each in body["findings"] if each["check"] == "op.secret")
    assert secret["level"] == "FAIL"
    assert "canary" not in told.stdout + told.stderr


def test_the_person_pastes_the_address(op: CheckedOP) -> None:
    """`--login`: the URL is printed, the answer's address is read from standard input."""
    import threading

    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "check", "--login", "--json"],
        env={
            **os.environ,
            "NIGHTPORTER_ISSUER": op.issuer,
            "NIGHTPORTER_CLIENT_ID": op.client_id,
            "NIGHTPORTER_CLIENT_SECRET": op.client_secret,
            "NIGHTPORTER_UPSTREAM": f"http://127.0.0.1:{op.port}",
            "NIGHTPORTER_PUBLIC_URL": "https://app.example.com",
            "NIGHTPORTER_STORE": "memory:",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        url = next(line.strip() for line in process.stderr if line.strip().startswith("http"))
        back = op.code_for(url)
        process.stdin.write(f"{REDIRECT_URI}?{urlencode(back)}\n")
        process.stdin.close()
        process.stdin = None
        out, _ = process.communicate()
    finally:
        watchdog.cancel()
    body = json.loads(out)
    levels = {each["check"]: each["level"] for each in body["findings"]}
    assert levels["login.refresh"] == "OK"
    assert Op().revoke == "profile"
