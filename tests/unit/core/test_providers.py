"""The tables of providers: sound in themselves, and what each word of them does."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from proxy.core.identity import ClaimRules, allowed, groups_elsewhere, identity_of, needs_userinfo
from proxy.core.logout import end_session_url, given_back, may_revoke
from proxy.core.metadata import Metadata, fixed_metadata, read_metadata
from proxy.core.providers import PROFILES, Offline, Profile, Reach, Reuse, Revocation, profile_for
from proxy.core.session import OutcomeKind, Tokens
from proxy.core.token_reply import RawReply, Refused, judge
from proxy.errors import OPUnavailable

FACTS = {"how", "rotation", "reuse", "grace", "words", "claims", "logout", "revocation", "life"}
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"


def refusal(profile: Profile, code: str, status: int) -> OutcomeKind:
    judged = judge(RawReply(status, {}, json.dumps({"error": code}).encode()), profile)
    assert isinstance(judged, Refused)
    return judged.kind


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_profile_is_sound_in_itself(profile: Profile) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", profile.name)
    assert profile.title
    assert profile.link.startswith("https://")
    assert set(profile.read) <= FACTS
    assert not profile.dead_codes & profile.client_codes, "one word, one meaning"
    assert not profile.dead_codes & profile.interaction_codes
    assert not profile.client_codes & profile.interaction_codes
    asks = "offline_access" in profile.scopes
    assert asks == (profile.offline is Offline.SCOPE), "the scope is asked for where it is what it takes"
    assert profile.openid == ("openid" in profile.scopes)
    if profile.rotates is False:
        assert profile.reuse is Reuse.NONE
    if profile.grace_s:
        assert "grace" in profile.read, "a figure that nobody read is no figure"
    if profile.issuer:
        assert profile.knows(profile.issuer)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_word_of_a_profile_gets_its_class_and_a_5xx_is_never_a_verdict(profile: Profile) -> None:
    for code in profile.dead_codes:
        for status in {400, 401, 403, *profile.dead_status}:
            assert refusal(profile, code, status) is OutcomeKind.DEAD, (code, status)
        assert refusal(profile, code, 500) is OutcomeKind.TRANSIENT
    for code in profile.client_codes:
        assert refusal(profile, code, 401) is OutcomeKind.CLIENT
    for code in profile.interaction_codes:
        assert refusal(profile, code, 400) is OutcomeKind.INTERACTION


@pytest.mark.parametrize(
    ("issuer", "name"),
    [
        ("https://accounts.google.com", "google"),
        ("https://github.com", "github"),
        ("https://gitlab.com", "gitlab"),
        ("https://gitlab.example.com", "gitlab"),
        (f"https://login.microsoftonline.com/{TENANT}/v2.0", "entra"),
        ("https://login.microsoftonline.com/organizations/v2.0", "entra"),
        ("https://acme.okta.com", "okta"),
        ("https://acme.oktapreview.com/oauth2/default", "okta"),
        ("https://acme.eu.auth0.com/", "auth0"),
        ("https://acme.auth0.com", "auth0"),
        ("https://acme.eu.authz.cloudentity.io/acme/workspace", "cloudentity"),
        ("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf", "cognito"),
        ("https://login.example.com/realms/main", "keycloak"),
        ("https://login.example.com/auth/realms/main", "keycloak"),
        ("https://acme-abc123.us1.zitadel.cloud", "zitadel"),
        ("https://login.example.com/dex", "dex"),
        ("https://login.example.com/application/o/app/", "authentik"),
        ("https://login.example.com", "generic"),
        ("https://accounts.google.com.evil.example", "generic"),
        ("https://evil.example/?https://acme.okta.com", "generic"),
    ],
)
def test_a_provider_is_known_by_its_issuer(issuer: str, name: str) -> None:
    assert profile_for("", issuer).name == name


def test_a_named_profile_wins_over_the_issuer() -> None:
    assert profile_for("generic", "https://acme.okta.com").name == "generic"


def test_the_slash_that_belongs_to_an_issuer_is_added() -> None:
    assert PROFILES["auth0"].issuer_of("https://acme.auth0.com") == "https://acme.auth0.com/"
    assert PROFILES["auth0"].issuer_of("https://acme.auth0.com/") == "https://acme.auth0.com/"
    assert PROFILES["okta"].issuer_of("https://acme.okta.com") == "https://acme.okta.com"
    assert PROFILES["google"].issuer_of("") == "https://accounts.google.com"


def document(issuer: str) -> dict[str, str]:
    return {
        "issuer": issuer,
        "authorization_endpoint": "https://o.example/a",
        "token_endpoint": "https://o.example/t",
        "jwks_uri": "https://o.example/k",
        "msgraph_host": "graph.example",
    }


def test_metadata_of_many_tenants_is_taken_at_a_shared_issuer_only() -> None:
    entra = PROFILES["entra"]
    shared = "https://login.microsoftonline.com/{tenantid}/v2.0"
    asked = "https://login.microsoftonline.com/organizations/v2.0"
    found = read_metadata(document(shared), asked, lambda url: True, None, entra)
    assert found.issuer == shared
    assert found.graph_host == "graph.example"
    pinned = f"https://login.microsoftonline.com/{TENANT}/v2.0"
    for profile, configured, named in (
        (entra, pinned, shared),
        (entra, asked, asked.replace("organizations", "{TenantId}")),
        (entra, asked, shared.replace("login.", "evil.")),
        (PROFILES["generic"], asked, shared),
    ):
        with pytest.raises(OPUnavailable):
            read_metadata(document(named), configured, lambda url: True, None, profile)


def test_a_token_names_its_own_tenant_there() -> None:
    entra, shared = PROFILES["entra"], "https://login.microsoftonline.com/{tenantid}/v2.0"
    own = shared.replace("{tenantid}", TENANT)
    assert entra.named_issuer(shared, {"iss": own, "tid": TENANT}) == (own, own)
    for claims in ({"iss": own}, {"iss": shared, "tid": "x"}, {"iss": own, "tid": TENANT.replace("7", "8")}):
        wanted, found = entra.named_issuer(shared, claims)
        assert wanted != found or "{tenantid}" in str(found)
    wanted, found = entra.named_issuer(shared, {"iss": own, "tid": "../" + TENANT})
    assert wanted != found


def test_googles_bare_issuer_is_google() -> None:
    google = PROFILES["google"]
    assert google.named_issuer(google.issuer, {"iss": "accounts.google.com"}) == (
        google.issuer,
        google.issuer,
    )
    wanted, found = PROFILES["generic"].named_issuer(google.issuer, {"iss": "accounts.google.com"})
    assert wanted != found


@pytest.mark.parametrize(
    ("name", "issuer", "opens"),
    [
        ("google", "", True),
        ("github", "https://github.com", True),
        ("github", "https://github.example.com", False),
        ("gitlab", "https://gitlab.com", True),
        ("gitlab", "https://gitlab.example.com", False),
        ("entra", "https://login.microsoftonline.com/common/v2.0", True),
        ("entra", "https://login.microsoftonline.com/COMMON/v2.0", True),
        ("entra", f"https://login.microsoftonline.com/{TENANT}/v2.0", False),
        ("keycloak", "https://login.example.com/realms/common", False),
    ],
)
def test_who_lets_the_world_in(name: str, issuer: str, opens: bool) -> None:
    assert PROFILES[name].lets_everybody_in(issuer) is opens


# -- claims --


def test_a_tenant_and_a_hosted_domain_can_be_allowed() -> None:
    entra = ClaimRules(PROFILES["entra"])
    person = identity_of({"iss": "i", "sub": "s", "tid": TENANT}, entra, 0.0)
    assert allowed(person, [f"tenant:{TENANT}"])
    assert not allowed(person, ["tenant:other"])
    google = identity_of({"iss": "i", "sub": "s", "hd": "example.com"}, ClaimRules(PROFILES["google"]), 0.0)
    assert allowed(google, ["tenant:example.com"])
    nobody = identity_of({"iss": "i", "sub": "s"}, entra, 0.0)
    assert not allowed(nobody, ["tenant:"])
    generic = identity_of({"iss": "i", "sub": "s", "tid": TENANT}, ClaimRules(PROFILES["generic"]), 0.0)
    assert not allowed(generic, [f"tenant:{TENANT}"])


@pytest.mark.parametrize(
    ("name", "claims", "verified", "shown"),
    [
        ("entra", {"email": "a@b.example"}, False, "a@b.example"),
        ("entra", {"email": "a@b.example", "xms_edov": True}, True, "a@b.example"),
        ("entra", {"email": "a@b.example", "xms_edov": "1"}, True, "a@b.example"),
        ("entra", {"email": "a@b.example", "xms_edov": 0}, False, ""),
        ("cognito", {"email": "a@b.example", "email_verified": "true"}, True, "a@b.example"),
        ("generic", {"email": "a@b.example", "email_verified": 1}, False, ""),
        ("generic", {"email": "a@b.example", "email_verified": None}, False, ""),
    ],
)
def test_an_address_is_as_verified_as_the_provider_says(
    name: str, claims: dict[str, object], verified: bool, shown: str
) -> None:
    person = identity_of({"iss": "i", "sub": "s", **claims}, ClaimRules(PROFILES[name]), 0.0)
    assert (person.email_verified, person.email) == (verified, shown)


def test_groups_come_from_where_the_provider_has_them() -> None:
    zitadel = ClaimRules(PROFILES["zitadel"])
    claims = {"iss": "i", "sub": "s", "urn:zitadel:iam:org:project:roles": {"admin": {"1": "acme"}}}
    assert identity_of(claims, zitadel, 0.0).groups == ("admin",)
    cognito = ClaimRules(PROFILES["cognito"])
    assert identity_of({"iss": "i", "sub": "s", "cognito:groups": ["a"]}, cognito, 0.0).groups == ("a",)
    chosen = ClaimRules(PROFILES["cognito"], "roles")
    assert identity_of({"iss": "i", "sub": "s", "roles": ["b"]}, chosen, 0.0).groups == ("b",)
    plain = {"email": "e", "name": "n"}
    assert needs_userinfo(plain, ("openid",), ClaimRules(PROFILES["gitlab"]))
    assert not needs_userinfo(plain, ("openid",), ClaimRules(PROFILES["generic"]))


def test_entra_says_that_the_groups_are_too_many() -> None:
    entra = ClaimRules(PROFILES["entra"])
    assert groups_elsewhere({"_claim_names": {"groups": "src1"}}, entra)
    assert groups_elsewhere({"hasgroups": "true"}, entra)
    assert not groups_elsewhere({"groups": ["g"], "hasgroups": True}, entra)
    assert not groups_elsewhere({}, entra)
    assert not groups_elsewhere({"hasgroups": True}, ClaimRules(PROFILES["generic"]))


# -- endings --

TOKENS = Tokens("at", "rt", "idt", "", 0.0, 1.0, "i", "c")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_what_is_given_back_is_what_the_provider_takes(profile: Profile) -> None:
    back = given_back(profile, TOKENS)
    match profile.revocation:
        case Revocation.NONE:
            assert back is None
        case Revocation.API_DELETE:
            assert back == ("at", "access_token")
        case _:
            assert back == ("rt", "refresh_token")


@pytest.mark.parametrize(
    ("reach", "alone", "with_op"),
    [
        (Reach.TOKEN, True, True),
        (Reach.SIGN_IN, True, True),
        (Reach.SESSION, False, True),
        (Reach.GRANT, False, False),
    ],
)
def test_a_revocation_never_ends_somebody_elses_session(reach: Reach, alone: bool, with_op: bool) -> None:
    assert may_revoke(reach, ends_at_op=False) is alone
    assert may_revoke(reach, ends_at_op=True) is with_op


def logout(name: str, *, end_session: str = "", id_token: str = "idt") -> str:
    metadata = Metadata(
        "https://o.example",
        "https://login.o.example/oauth2/authorize",
        "https://o.example/t",
        "https://o.example/k",
        end_session_endpoint=end_session,
    )
    return end_session_url(
        metadata,
        PROFILES[name],
        id_token=id_token,
        client_id="c",
        return_to="https://app.example/bye",
        state="s",
    )


def test_each_provider_is_left_in_its_own_way() -> None:
    assert logout("generic") == ""
    assert "id_token_hint=idt" in logout("generic", end_session="https://o.example/out")
    assert logout("okta", end_session="https://o.example/out", id_token="") == ""
    assert logout("okta", end_session="https://o.example/out")
    assert logout("google", end_session="https://o.example/out") == ""
    cognito = urlsplit(logout("cognito"))
    assert (cognito.netloc, cognito.path) == ("login.o.example", "/logout")
    assert parse_qs(cognito.query) == {"client_id": ["c"], "logout_uri": ["https://app.example/bye"]}
    assert parse_qs(urlsplit(logout("auth0")).query)["returnTo"] == ["https://app.example/bye"]
    assert "id_token_hint" in logout("auth0", end_session="https://o.example/oidc/logout")


def test_github_has_fixed_endpoints_here_and_at_an_own_installation() -> None:
    github = PROFILES["github"]
    assert github.api is not None
    here = fixed_metadata(github.api, github.issuer, github.api.at(github.issuer, github.issuer))
    assert here.token_endpoint == "https://github.com/login/oauth/access_token"
    assert here.userinfo_endpoint == "https://api.github.com/user"
    own = "https://github.example.com"
    there = fixed_metadata(github.api, own, github.api.at(own, github.issuer))
    assert there.authorization_endpoint == own + "/login/oauth/authorize"
    assert there.userinfo_endpoint == own + "/api/v3/user"
