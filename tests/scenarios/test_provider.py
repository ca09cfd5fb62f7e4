"""F: what providers do. Each case is a whole refresh through the running product."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.op.scripted import Draft, Rotation, Script, ScriptedOP, fingerprint
from tests.scenarios.browser import Browser
from tests.scenarios.house import House, until
from tests.scenarios.redis_house import RedisHouse


def said(status: int, body: dict[str, object] | str, **headers: str) -> Script:
    """The token endpoint does nothing and answers this."""
    fields = {"Content-Type": "application/json", **{n.replace("_", "-"): v for n, v in headers.items()}}
    text = body if isinstance(body, str) else json.dumps(body)
    return Script(process=False, status=status, body=text, headers=fields)


def chain_holds(op: ScriptedOP) -> None:
    """Every refresh token that was sent is the one that was issued last, and none came twice."""
    calls = [call for call in op.refreshes() if call.outcome == "issued"]
    assert [call.rt for call in calls[1:]] == [call.issued_rt for call in calls[:-1]]
    assert op.reuse_events == 0


def signed_out_for(house: House, browser: Browser, reason: str) -> None:
    """Programs are told why; a person is led through a sign-in to the same page, once."""
    told = browser.get("/api")
    assert (told.status, told.json["reason"]) == (401, reason)
    assert told.get("x-nightporter-reason") == reason
    assert told.get("www-authenticate")
    browser.trail.clear()
    back = browser.visit("/page?x=7")
    assert (back.status, back.url) == (200, house.url + "/page?x=7")
    assert sum("/authorize" in url for _, url in browser.trail) == 1


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One house for a table of replies; each row signs a new person in."""
    with House(tmp_path_factory.mktemp("provider")) as house:
        yield house


@pytest.fixture
def shared(long_lived: House) -> Iterator[House]:
    yield long_lived
    long_lived.op.reset()
    long_lived.advance(61)  # whatever quiet somebody asked for is over


@pytest.mark.parametrize("how", ["omit", "empty"])
def test_f1_a_reply_without_a_refresh_token_keeps_the_old_one(shared: House, how: str) -> None:
    shared.op.rotation = Rotation("none")
    shared.op.rt_in_reply = how
    ada, calls = shared.somebody(), len(shared.op.refreshes())
    for _ in range(3):
        shared.expire()
        assert ada.get("/a").status == 200
    made = shared.op.refreshes()[calls:]
    assert len({call.rt for call in made}) == 1
    assert [call.outcome for call in made] == ["issued"] * 3


@pytest.mark.parametrize("kind", ["rotate", "idempotent", "deferred", "family_revoke"])
def test_f2_f5_a_new_refresh_token_replaces_the_old_one(shared: House, kind: str) -> None:
    shared.op.rotation = Rotation(kind)
    shared.op.old_at_dies = True
    ada, calls, reuses = shared.somebody(), len(shared.op.refreshes()), shared.op.reuse_events
    for _ in range(3):
        shared.expire()
        reply = ada.get("/a")
        assert reply.status == 200
        assert shared.op.access_token_works(reply.token)
    made = shared.op.refreshes()[calls:]
    assert [call.rt for call in made[1:]] == [call.issued_rt for call in made[:-1]]
    assert len(made) == 3
    assert shared.op.reuse_events == reuses


def test_f3_a_sign_in_without_a_refresh_token_is_said_and_borrows_none(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        change = lambda body: body.pop("refresh_token")  # noqa: E731
        house.op.script_next(Script(change=change), "code")
        house.expire()
        house.op.end_grants()
        assert ada.visit("/page").status == 200  # the session that came along is superseded
        [event] = house.replica.events("no_refresh_token")
        assert "offline_access" in event["remedy"]
        calls = len(house.op.refreshes())
        assert ada.session()["access_token"]["refreshable"] is False
        house.expire()
        signed_out_for(house, ada, "no_refresh_token")
        assert len(house.op.refreshes()) == calls


def test_f6_a_family_that_somebody_else_ended_is_one_sign_in(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.op.rotation = Rotation("family_revoke")
        ada = house.somebody()
        house.expire()
        house.op.end_grants()
        signed_out_for(house, ada, "invalid_grant")
        assert house.replica.metric("nightporter_refresh_total", outcome="dead", code="invalid_grant") == 1
        assert len(house.op.refreshes()) == 1


def test_f7_j6_an_apps_401_is_answered_by_one_renewal_and_no_loop(tmp_path: Path) -> None:
    from tests.scenarios.app import Answer, Seen

    with House(tmp_path) as house:
        house.op.old_at_dies = True
        refusal = Answer(401, [("WWW-Authenticate", 'Bearer error="invalid_token"')], b"no")

        def api(seen: Seen) -> Answer | None:
            token = seen.get("x-forwarded-access-token")
            return None if house.op.access_token_works(token) else refusal

        house.app.answers["/api"] = api
        ada = house.somebody()
        house.advance(30)
        for grant in house.op._by_rt.values():
            grant.access.clear()  # the OP ends the access token early
        replies = ada.burst(20, "/api")
        assert {reply.status for reply in replies} <= {200, 401}
        assert 200 in {reply.status for reply in replies}
        assert len(house.op.refreshes()) == 1
        house.app.answers["/api"] = refusal  # now it always says so
        for _ in range(5):
            house.advance(15)
            assert ada.get("/api").status == 401
        assert ada.post("/api", b"x").status == 401
        assert len(house.op.refreshes()) == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (said(200, {"error": "bad_refresh_token"}), "bad_refresh_token"),
        (said(403, {"error": "invalid_grant"}), "invalid_grant"),
        (said(400, {"error": "invalid_grant"}), "invalid_grant"),
        (said(200, {"ok": False, "error": "invalid_refresh_token"}), "invalid_refresh_token"),
        (
            said(400, {"error": "interaction_required", "error_description": "AADSTS50076"}),
            "interaction_required",
        ),
        (said(400, {"error": "consent_required", "error_description": "AADSTS65001"}), "consent_required"),
        (said(400, {"error": "interaction_required", "error_codes": [99]}), "interaction_required"),
    ],
    ids=["f8_github", "f10_auth0", "invalid_grant", "f15_slack", "f16_entra", "f16_consent", "f17_numbers"],
)
def test_f8_f10_f15_f16_f17_a_verdict_is_a_sign_in_at_whatever_status(
    shared: House, reply: Script, reason: str
) -> None:
    ada, calls = shared.somebody(), len(shared.op.refreshes())
    shared.expire()
    shared.op.script_next(reply, "refresh")
    signed_out_for(shared, ada, reason)
    assert len(shared.op.refreshes()) == calls + 1
    assert ada.get("/b").status == 200


CHALLENGE = {"access_token": {"polids": {"essential": True, "values": ["9ab0-policy"]}}}


@pytest.mark.parametrize(
    ("code", "prompt"),
    [
        ("interaction_required", "login"),
        ("login_required", "login"),
        ("consent_required", "consent"),
        ("account_selection_required", "select_account"),
    ],
)
def test_f16_the_sign_in_after_a_refusal_asks_for_what_the_op_wants(
    strict: RedisHouse, code: str, prompt: str
) -> None:
    ada = strict.somebody()
    strict.expire()
    strict.op.script_next(said(400, {"error": code, "claims": json.dumps(CHALLENGE)}), "refresh")
    told = ada.get("/api", replica=0)
    assert (told.status, told.json["reason"]) == (401, code)
    to_login = ada.get("/page?x=1", navigation=True, replica=1)
    assert (to_login.status, to_login.get("location")) == (302, "/oauth2/login?rd=/page%3Fx%3D1")
    to_op = ada.get(to_login.get("location"), navigation=True, replica=2).get("location")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(to_op).query).items()}
    assert asked["prompt"] == prompt
    assert json.loads(asked["claims"]) == CHALLENGE
    assert len(strict.calls()) == 1
    strict.advance(61)  # nobody signed in: the refresh token is kept, and tried once the OP may have changed
    assert ada.get("/api", replica=1).status == 200
    assert ada.visit(to_op).user == "ada-1"
    again = ada.get("/oauth2/login?account=other", navigation=True).get("location")
    assert "claims=" not in again


def test_f16_what_is_no_claims_request_is_not_passed_on(shared: House) -> None:
    for claims in ("{}", "[]", "x", json.dumps({"a": "b" * 3000}), 7, None):
        ada = shared.somebody()
        shared.expire()
        refusal = {"error": "interaction_required", "claims": claims}
        shared.op.script_next(said(400, refusal), "refresh")
        to_op = ada.get("/oauth2/login?rd=/x", navigation=True).get("location")
        asked = parse_qs(urlsplit(to_op).query)
        assert (asked["prompt"], "claims" in asked) == (["login"], False)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (said(200, {"error": "incorrect_client_credentials"}), "client"),
        (said(401, {"error": "invalid_client"}), "client"),
        (said(500, {"error": "invalid_request"}), "transient"),
        (said(400, {"error": "invalid_request"}), "unknown"),
        (said(400, "<html>blocked</html>", Content_Type="text/html"), "ambiguous"),
        (said(401, "<html>sign in</html>", Content_Type="text/html"), "ambiguous"),
        (said(200, "<html>hello</html>", Content_Type="text/html"), "ambiguous"),
        (said(503, "maintenance"), "ambiguous"),
        (said(503, {"error": "temporarily_unavailable"}), "transient"),
        (said(429, "", Retry_After="5"), "transient"),
    ],
    ids=[
        "f9_github_client",
        "invalid_client",
        "f11_dex_500",
        "f12_invalid_request",
        "f13_html_400",
        "f13_html_401",
        "f13_html_200",
        "f13_503",
        "503_json",
        "429",
    ],
)
def test_f9_f11_f12_f13_what_is_no_verdict_keeps_the_session(
    shared: House, reply: Script, outcome: str
) -> None:
    def counted(name: str) -> float:
        return shared.replica.metric("nightporter_refresh_total", outcome=name)

    ada = shared.somebody()
    jar, dead, found = dict(ada.jar), counted("dead"), counted(outcome)
    shared.op.always["refresh"] = reply
    shared.into_window()
    assert ada.get("/a").status == 200  # the token is alive: nobody notices
    until(lambda: counted(outcome) > found)
    shared.advance(60)
    for navigation in (False, True):
        told = ada.get("/b", navigation=navigation)
        assert told.status == 503
        assert int(told.get("retry-after")) >= 1
        assert not told.all("set-cookie")
    del shared.op.always["refresh"]
    shared.advance(61)
    assert ada.get("/c").status == 200
    assert ada.jar == jar
    assert counted("dead") == dead


def test_f14_retry_after_silences_the_provider_for_everybody(tmp_path: Path) -> None:
    with House(tmp_path, life_s=3600.0) as house:
        ada, bob = house.somebody("ada-1"), house.somebody("bob-1")
        house.op.script_next(said(429, "", Retry_After="30"), "refresh")
        house.into_window()
        assert ada.get("/a").status == 200
        until(lambda: house.replica.metric("nightporter_refresh_total", outcome="transient") >= 1)
        for person in (ada, bob, ada, bob):
            assert person.get("/b").status == 200
            house.advance(3)
        assert len(house.op.refreshes()) == 1
        house.advance(19)  # 31 s in all
        assert ada.get("/c").status == 200
        house.op.wait_refreshes(2)
        until(lambda: bob.get("/c").status == 200 and len(house.op.refreshes()) == 3)


def test_f18_the_scope_is_not_sent_with_a_refresh(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        narrow = Script(change=lambda body: body.update(scope="openid"))
        house.op.script_next(narrow, "refresh")
        for _ in range(2):
            house.expire()
            assert ada.get("/a").status == 200
        for call in house.op.refreshes():
            assert call.scope is None
            assert set(call.form) <= {"grant_type", "refresh_token", "client_id", "client_secret"}


def another(**claims: object) -> Script:
    def change(draft: Draft) -> None:
        draft.claims.update(claims)

    return Script(change_id_token=change)


def altered(draft: Draft) -> None:
    draft.altered = True


@pytest.mark.parametrize(
    ("script", "check"),
    [
        (another(sub="somebody-else"), "sub"),
        (another(iss="https://evil.example.net"), "iss"),
        (another(aud="another-client"), "aud"),
        (Script(change_id_token=altered), "signature"),
        (another(auth_time=7), "auth_time"),
        (another(nonce="another-nonce"), "nonce"),
    ],
    ids=["sub", "iss", "aud", "signature", "f22_auth_time", "f22_nonce"],
)
def test_f20_f22_somebody_elses_id_token_ends_the_session_and_rings(
    shared: House, script: Script, check: str
) -> None:
    ada = shared.somebody()
    alarms, revoked = len(shared.replica.events("refreshed_identity_mismatch")), len(shared.op.revoked)
    seen = len(shared.app.seen)
    shared.expire()
    shared.op.script_next(script, "refresh")
    told = ada.get("/api")
    assert (told.status, told.json["reason"]) == (401, "identity_mismatch")
    rung = shared.replica.events("refreshed_identity_mismatch")[alarms:]
    assert {alarm["check"] for alarm in rung} == {check}
    until(lambda: len(shared.op.revoked) > revoked)  # stored first, then revoked, not dropped in silence
    issued = shared.op.refreshes()[-1].issued_rt
    assert issued in {fingerprint(token) for token in shared.op.revoked[revoked:]}
    assert ada.get("/api").status == 401
    assert len(shared.app.seen) == seen  # the app saw neither of the two
    assert ada.visit("/page").user == "ada-1"


@pytest.mark.parametrize("how", ["none", "absent", "equal"])
def test_f21_f22_a_refresh_without_id_token_or_nonce_changes_nothing(shared: House, how: str) -> None:
    shared.op.id_token_on_refresh = how != "none"
    shared.op.nonce_on_refresh = how if how != "none" else "absent"
    ada = shared.browser()
    before = {name: value for name, value in ada.sign_in().seen.items() if name.startswith("x-forwarded")}
    alarms = len(shared.replica.events("refreshed_identity_mismatch"))
    shared.expire()
    after = ada.get("/page?x=1").seen
    for name in before.keys() - {"x-forwarded-access-token"}:
        assert after[name] == before[name]
    assert len(shared.replica.events("refreshed_identity_mismatch")) == alarms


def test_f23_f24_groups_follow_the_provider_and_missing_ones_are_not_none(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.op.user["groups"] = ["staff", "admins"]
        ada = house.somebody()
        assert ada.get("/a").seen["x-forwarded-groups"] == "staff,admins"
        house.op.user["groups"] = ["staff"]
        house.expire()
        ada.get("/b")
        until(lambda: ada.get("/b").seen["x-forwarded-groups"] == "staff")
        house.op.id_token_claims = {"email"}  # refreshed ID tokens name no groups: userinfo does
        house.op.user["groups"] = ["staff", "oncall"]
        house.expire()
        ada.get("/c")
        until(lambda: ada.get("/c").seen["x-forwarded-groups"] == "staff,oncall")


def test_f25_keys_that_were_rotated_are_fetched_once_and_tokens_are_kept_anyway(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        fetched = house.op.hits["jwks"]
        house.op.rotate_key()
        house.expire()
        assert ada.get("/a").status == 200
        assert house.op.hits["jwks"] == fetched + 1
        house.op.rotate_key("k3", 2)
        house.op.always["jwks"] = Script(status=500, body="oops")
        house.expire()
        assert ada.get("/b").status == 200  # it cannot be checked now: that is no verdict
        house.expire()
        assert ada.get("/c").status == 200
        chain_holds(house.op)


def test_f26_known_endpoints_serve_while_discovery_is_away(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        house.op.always["discovery"] = Script(status=500, body="oops")
        for _ in range(13):
            house.advance(301)  # more than an hour
            assert ada.get("/a").status == 200
        assert len(house.op.refreshes()) == 13
        chain_holds(house.op)


def test_f27_a_token_endpoint_that_moves_to_another_host_is_not_followed(tmp_path: Path) -> None:
    with House(tmp_path) as house, ScriptedOP() as elsewhere:
        ada = house.somebody()
        house.op.discovery["token_endpoint"] = elsewhere.issuer.replace("127.0.0.1", "localhost") + "/token"
        asked = house.op.hits["discovery"]
        for _ in range(20):
            house.advance(301)
            assert ada.get("/a").status == 200
        assert house.op.hits["discovery"] > asked  # it was read, and not believed
        assert elsewhere.hits == {}
        assert house.replica.events("discovery_failed")


def test_f28_a_redirect_of_the_token_endpoint_is_not_followed(tmp_path: Path) -> None:
    with House(tmp_path) as house, ScriptedOP() as elsewhere:
        ada = house.somebody()
        house.expire()
        to = {"Location": elsewhere.issuer + "/token"}
        house.op.script_next(Script(process=False, status=307, headers=to, body=""), "refresh")
        assert ada.get("/a").status == 503
        assert elsewhere.hits == {}
        house.advance(61)
        assert ada.get("/b").status == 200


def test_f30_large_tokens_are_kept_behind_a_small_cookie(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.op.rt_bytes = 8192
        house.op.user["groups"] = [f"group-{n:03d}-{'x' * 140}" for n in range(200)]  # an ID token of 30 KB
        ada = house.browser()
        page = ada.visit("/page")
        assert page.status == 200
        assert len(ada.cookie) < 1024
        house.expire()
        assert ada.get("/a").status == 200
        chain_holds(house.op)


def test_f30_more_groups_than_an_app_can_take_are_refused_at_the_sign_in_in_so_many_words(
    tmp_path: Path,
) -> None:
    with House(tmp_path) as house:
        ada = house.somebody()
        house.op.user["groups"] = [f"group-{n:03d}-{'x' * 140}" for n in range(300)]
        page = house.browser().visit("/page")
        assert page.status == 403
        assert "groups" in page.text
        [failed] = house.replica.events("login_failed")
        assert failed["code"] == "identity_too_large"
        assert "300 groups" in failed["detail"]
        house.expire()
        assert ada.get("/a").seen["x-forwarded-groups"] == "staff"  # who is in stays in, as they were
        until(lambda: house.replica.events("identity_too_large"))
        assert ada.get("/b").seen["x-forwarded-groups"] == "staff"


def test_f12_f19_a_profile_knows_its_providers_words_and_wishes(tmp_path: Path) -> None:
    refused = said(400, {"error": "invalid_request"})
    with House(tmp_path / "dex", env={"NIGHTPORTER_PROVIDER": "dex"}) as house:
        ada = house.somebody()
        house.expire()
        house.op.script_next(refused, "refresh")
        signed_out_for(house, ada, "invalid_request")
    env = {"NIGHTPORTER_PROVIDER": "gitlab", "NIGHTPORTER_ALLOW": "everyone"}
    with House(tmp_path / "gitlab", env=env) as house:
        ada = house.somebody()
        house.expire()
        assert ada.get("/a").status == 200
        [request] = [r for r in house.op.requests if r.form.get("grant_type") == "refresh_token"]
        assert request.form["redirect_uri"] == house.url + "/oauth2/callback"
        assert "scope" not in request.form
