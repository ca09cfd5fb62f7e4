"""What the OP client believes, for how long, and what it asks the OP for: discovery, keys, PAR, client
authentication, userinfo, revocation."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from proxy.core.token_reply import Issued, judge
from proxy.errors import IdTokenRejected, NotSent, OPRejected, OPUnavailable
from tests.integration.op.support import (
    GENERIC,
    REDIRECT_URI,
    Person,
    SignedIn,
    query_of,
    until,
    with_person,
)
from tests.op.scripted import CLIENT_ID, Draft, Script, ScriptedOP, ec_key, jwks_of, rsa_key, scripted_op

HOUR_S = 3600.0


# -- discovery --


def test_discovery_is_fetched_once_and_at_first_use() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            assert not op.requests
            await asyncio.gather(*(person.client.metadata() for _ in range(20)))
            await person.client.metadata()

        with_person(op, work)
        assert op.hits == {"discovery": 1}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": "https://evil.example"}, "issuer"),
        ({"issuer": None}, "issuer"),
        ({"token_endpoint": None}, "token_endpoint"),
        ({"token_endpoint": "/token"}, "token_endpoint"),
        ({"token_endpoint": ["http://127.0.0.1/x"]}, "token_endpoint"),
        ({"token_endpoint": "http://op.example/token"}, "token_endpoint"),
        ({"token_endpoint": "http://127.0.0.1.evil.example/token"}, "token_endpoint"),
        ({"token_endpoint": "https://user@op.example/token"}, "token_endpoint"),
        ({"token_endpoint": "https://op.example:0x/token"}, "token_endpoint"),
        ({"token_endpoint": "https://op.example/to ken"}, "token_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri"),
        ({"revocation_endpoint": "http://op.example/revoke"}, "revocation_endpoint"),
    ],
)
def test_a_discovery_document_that_cannot_be_used(changes: dict[str, Any], why: str) -> None:
    with scripted_op(discovery=changes) as op, pytest.raises(OPUnavailable) as caught:
        with_person(op, lambda person: person.client.metadata())
    assert why in caught.value.detail
    assert "evil" not in caught.value.message


def test_an_issuer_that_differs_is_shown_beside_the_configured_one() -> None:
    with ScriptedOP() as op:
        op.discovery["issuer"] = op.issuer + "/"
        with pytest.raises(OPUnavailable) as caught:
            with_person(op, lambda person: person.client.metadata())
        assert repr(op.issuer + "/") in caught.value.detail
        assert repr(op.issuer) in caught.value.detail


def test_an_op_that_was_away_is_asked_again_but_not_more_than_once_a_second() -> None:
    with scripted_op(always={"discovery": Script(status=503, body="")}) as op:

        async def work(person: Person) -> None:
            for _ in range(5):
                with pytest.raises(OPUnavailable):
                    await person.client.metadata()
            assert op.hits["discovery"] == 1
            op.always.clear()
            person.clock.off_s += 1.1
            assert (await person.client.metadata()).issuer == op.issuer

        with_person(op, work)
        assert op.hits["discovery"] == 2


def test_the_last_good_document_serves_while_the_op_is_away() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            known = await person.client.metadata()
            op.always["discovery"] = Script(status=500, body="")
            person.clock.off_s += HOUR_S + 1
            for _ in range(3):
                assert await person.client.metadata() == known
            await until(lambda: op.hits["discovery"] == 2)
            await until(lambda: person.client._fetching is None)  # pyright: ignore
            await person.client.metadata()
            assert op.hits["discovery"] == 2  # and it is left alone for a while
            op.always.clear()
            op.discovery["scopes_supported"] = ["x"]
            op.discovery["end_session_endpoint"] = op.issuer + "/bye"
            person.clock.off_s += 61
            await person.client.metadata()
            await until(lambda: op.hits["discovery"] == 3)
            await until(lambda: person.client._fetching is None)  # pyright: ignore
            assert (await person.client.metadata()).end_session_endpoint == op.issuer + "/bye"

        with_person(op, work)


@pytest.mark.parametrize(
    "moved",
    [
        *("token_endpoint", "jwks_uri", "authorization_endpoint", "userinfo_endpoint"),
        *("revocation_endpoint", "end_session_endpoint", "pushed_authorization_request_endpoint"),
    ],
)
def test_an_endpoint_that_moves_to_another_host_is_not_followed(
    moved: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            known = await person.client.metadata()
            op.discovery[moved] = f"http://127.0.0.1:{op.port + 1}/collector"
            person.clock.off_s += HOUR_S + 1
            await person.client.metadata()
            await until(lambda: op.hits["discovery"] == 2)
            await until(lambda: person.client._fetching is None)  # pyright: ignore
            assert await person.client.metadata() == known

        with_person(op, work)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert moved.removeprefix("pushed_authorization_request_") in vars(caplog.records[0])["detail"] or (
            "par_endpoint" in vars(caplog.records[0])["detail"]
        )


def test_an_endpoint_may_move_on_its_own_host() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await person.client.metadata()
            op.discovery["userinfo_endpoint"] = op.issuer + "/v2/userinfo"
            person.clock.off_s += HOUR_S + 1
            await person.client.metadata()
            await until(lambda: op.hits["discovery"] == 2)
            await until(lambda: person.client._fetching is None)  # pyright: ignore
            assert (await person.client.metadata()).userinfo_endpoint.endswith("/v2/userinfo")

        with_person(op, work)


def test_plain_http_elsewhere_needs_the_word() -> None:
    async def may(person: Person) -> list[bool]:
        urls = ("http://op.internal/t", "http://127.0.0.1:1/t", "http://[::1]/t", "http://127.evil.example/t")
        return [person.config.may_use(url) for url in urls]

    with ScriptedOP() as op:
        assert with_person(op, may) == [False, True, True, False]
        assert with_person(op, may, insecure_http=True) == [True] * 4
    assert not Person("https://op.example").config.may_use("http://127.0.0.1:6379/token")


# -- keys --


async def verify(person: Person, op: ScriptedOP) -> None:
    """Redeem a code and check its ID token."""
    await person.sign_in(op.code_for)


def test_one_key_set_serves_many_sign_ins() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            for _ in range(4):
                await verify(person, op)

        with_person(op, work)
        assert op.hits["jwks"] == 1


def test_a_rotated_key_costs_one_fetch_even_right_after_the_first() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await verify(person, op)
            op.rotate_key()
            await verify(person, op)
            await verify(person, op)

        with_person(op, work)
        assert op.hits["jwks"] == 2


def test_parallel_sign_ins_after_a_rotation_share_the_fetch() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await verify(person, op)
            op.rotate_key()
            await asyncio.gather(*(verify(person, op) for _ in range(10)))

        with_person(op, work)
        assert op.hits["jwks"] == 2


def test_a_second_unknown_key_within_30_s_is_no_verdict_and_no_fetch() -> None:
    def unknown(draft: Draft) -> None:
        draft.header["kid"] = "nobody"

    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await verify(person, op)
            op.change_id_token = unknown
            with pytest.raises(IdTokenRejected) as caught:
                await verify(person, op)
            assert caught.value.code == "kid_unknown"
            for _ in range(5):
                with pytest.raises(OPUnavailable):
                    await verify(person, op)
            assert op.hits["jwks"] == 2
            op.change_id_token = None
            op.rotate_key()
            person.clock.off_s += 30
            await verify(person, op)
            assert op.hits["jwks"] == 3

        with_person(op, work)


def test_a_key_that_was_replaced_under_its_old_name_is_found() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await verify(person, op)
            op.rotate_key("k1", 1)
            await verify(person, op)

        with_person(op, work)


def test_bad_signatures_do_not_become_a_stream_of_fetches() -> None:
    def alter(draft: Draft) -> None:
        draft.altered = True

    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await verify(person, op)
            op.change_id_token = alter
            for _ in range(6):
                with pytest.raises(IdTokenRejected) as caught:
                    await verify(person, op)
                assert caught.value.code == "signature"

        with_person(op, work)
        assert op.hits["jwks"] == 2


@pytest.mark.parametrize("broken", [Script(status=500), Script(body="<html>"), Script(body='{"keys": []}')])
def test_the_last_good_keys_serve_while_the_jwks_is_broken(broken: Script) -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await verify(person, op)
            op.always["jwks"] = broken
            person.clock.off_s += HOUR_S + 1
            op.clock_off_s += HOUR_S + 1
            await verify(person, op)
            await until(lambda: op.hits["jwks"] == 2)
            await until(lambda: person.client._keys._renewing.done())  # pyright: ignore
            await verify(person, op)

        with_person(op, work)


def test_a_withdrawn_key_is_forgotten_within_the_hour() -> None:
    with ScriptedOP() as op:
        old = rsa_key("k1")

        def with_old(draft: Draft) -> None:
            draft.key, draft.header["kid"] = old, "k1"

        async def work(person: Person) -> None:
            await verify(person, op)
            op.rotate_key()
            person.clock.off_s += HOUR_S + 1
            op.clock_off_s += HOUR_S + 1
            await verify(person, op)
            op.change_id_token = with_old
            with pytest.raises((IdTokenRejected, OPUnavailable)):
                await verify(person, op)

        with_person(op, work)


def test_without_any_keys_the_op_is_asked_at_most_once_a_second() -> None:
    with scripted_op(always={"jwks": Script(status=500)}) as op:

        async def work(person: Person) -> None:
            for _ in range(4):
                with pytest.raises(OPUnavailable):
                    await verify(person, op)
            assert op.hits["jwks"] == 1
            op.always.clear()
            person.clock.off_s += 1.1
            await verify(person, op)

        with_person(op, work)


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "RSA", "e": "AQAB"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "n": "!!", "e": "AQAB"},
        {"kty": "RSA", "n": 5, "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "oct", "k": "AAAA"},
        {"kty": ["RSA"]},
        "nonsense",
        None,
    ],
    ids=str,
)
def test_unusable_keys_are_passed_over(entry: Any) -> None:
    with ScriptedOP() as op:
        named = {**entry, "kid": "k1"} if isinstance(entry, dict) else entry
        op.published = [named, *jwks_of(op.keys)]
        with_person(op, lambda person: verify(person, op))


@pytest.mark.parametrize(
    "change", [{"use": "enc"}, {"key_ops": ["encrypt"]}, {"alg": "RS512"}, {"alg": "RSA-OAEP"}], ids=str
)
def test_keys_for_other_uses_and_algorithms_do_not_verify(change: dict[str, Any]) -> None:
    with ScriptedOP() as op:
        op.published = [{**jwks_of(op.keys)[0], **change}]
        with pytest.raises(IdTokenRejected):
            with_person(op, lambda person: verify(person, op))


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        (rsa_key("k1"), "RS256"),
        (rsa_key("k1"), "RS512"),
        (rsa_key("k1"), "PS256"),
        (rsa_key("k1"), "PS384"),
        (ec_key("e1"), "ES256"),
        (ECKey.generate_key("P-384", {"kid": "e3"}), "ES384"),
        (ECKey.generate_key("P-521", {"kid": "e5"}), "ES512"),
        (OKPKey.generate_key("Ed25519", {"kid": "o1"}), "EdDSA"),
        (OKPKey.generate_key("Ed25519", {"kid": "o1"}), "Ed25519"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_announced_algorithms_verify_and_others_do_not(key: Any, alg: str) -> None:
    def sign(draft: Draft) -> None:
        draft.header["alg"] = alg
        draft.claims.pop("at_hash")

    with scripted_op(keys=[key], change_id_token=sign) as op:
        op.discovery["id_token_signing_alg_values_supported"] = [alg, "none", "HS256"]
        with_person(op, lambda person: verify(person, op))
        op.discovery["id_token_signing_alg_values_supported"] = ["ES256K"]
        with pytest.raises(IdTokenRejected) as caught:
            with_person(op, lambda person: verify(person, op))
        assert caught.value.code == "alg"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": ["RS256"]},
        {"alg": {"RS256": 1}},
        {"b64": False},
        {"crit": []},
        {"kid": {"a": 1}},
        {"kid": 5},
        {"x5c": "not a list"},
    ],
    ids=str,
)
def test_odd_headers_are_refused_and_nothing_breaks(header: dict[str, Any]) -> None:
    with ScriptedOP() as op:

        def change(draft: Draft) -> None:
            signed = draft.signed().split(".")
            from tests.op.scripted import b64

            draft.raw = ".".join([b64(json.dumps({**draft.header, **header}).encode()), *signed[1:]])

        op.change_id_token = change
        with pytest.raises((IdTokenRejected, OPUnavailable)):
            with_person(op, lambda person: verify(person, op))


def test_a_certificate_chain_in_the_header_is_no_hindrance() -> None:
    def chain(draft: Draft) -> None:
        draft.header["x5c"] = ["A" * 3000]
        draft.header["x5t"] = "abc"
        draft.header["something-new"] = {"a": 1}

    with scripted_op(change_id_token=chain) as op:
        with_person(op, lambda person: verify(person, op))


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "a.b",
        "a.b.c.d.e",
        "..",
        "é.b.c",
        "e30.e30.",
        "bnVsbA.e30.AA",
        "W10.e30.AA",
        "x" * 300_000 + ".b.c",
        "." * 100_000,
    ],
    ids=lambda raw: raw[:12],
)
def test_what_is_no_compact_jws_is_refused(raw: str) -> None:
    async def work(person: Person) -> str:
        with pytest.raises(IdTokenRejected) as caught:
            await person.client.verify_id_token(raw, nonce="n", access_token="", previous=None, now=0)
        return caught.value.code

    with ScriptedOP() as op:
        assert with_person(op, work) in ("malformed", "alg")
        assert "jwks" not in op.hits


def test_an_op_90_s_off_is_named_with_both_times() -> None:
    with scripted_op(clock_off_s=90.0) as op:
        with pytest.raises(IdTokenRejected) as caught:
            with_person(op, lambda person: verify(person, op))
        assert caught.value.code == "iat"
        assert "our clock" in caught.value.detail
        with_person(op, lambda person: verify(person, op), skew_s=120.0)
        op.clock_off_s = -50
        with_person(op, lambda person: verify(person, op))


# -- the authorization request --


def test_the_authorization_request() -> None:
    async def work(person: Person) -> dict[str, str]:
        flow = person.flow()
        url = await person.client.authorization_url(
            flow, redirect_uri=REDIRECT_URI, extra={"prompt": "login", "state": "mine", "request": "x"}
        )
        assert url.startswith(op.issuer + "/authorize?tenant=a%20b&")
        asked = query_of(url)
        assert asked["state"] == flow.id
        assert asked["nonce"] == flow.nonce
        assert flow.code_verifier not in url
        return asked

    with ScriptedOP() as op:
        op.discovery["authorization_endpoint"] = op.issuer + "/authorize?tenant=a%20b"
        asked = with_person(op, work, authorize_params={"access_type": "offline"})
    assert asked["response_type"] == "code"
    assert asked["client_id"] == CLIENT_ID
    assert asked["scope"] == "openid profile email offline_access"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert (asked["access_type"], asked["prompt"]) == ("offline", "login")
    assert "request" not in asked


@pytest.mark.parametrize("par", ["offered", "required"])
def test_par_is_used_where_it_is_offered(par: str) -> None:
    async def work(person: Person) -> None:
        url = await person.client.authorization_url(person.flow(), redirect_uri=REDIRECT_URI)
        assert query_of(url).keys() == {"client_id", "request_uri"}
        assert (await person.sign_in(op.code_for)).identity.sub == "ada-1"

    with scripted_op(par=par) as op:
        with_person(op, work)
        assert op.pushed == 2
        pushed = next(request for request in op.requests if request.path == "/par")
        assert "authorization" in pushed.headers


def test_par_that_fails_is_a_plain_request_where_that_will_do() -> None:
    with scripted_op(par="broken") as op:
        assert with_person(op, lambda person: person.sign_in(op.code_for)).identity.sub == "ada-1"
        op.discovery["require_pushed_authorization_requests"] = True
        with pytest.raises(OPUnavailable):
            with_person(op, lambda person: person.sign_in(op.code_for))
    with scripted_op(par="required", auth_methods=["client_secret_post"]) as op, pytest.raises(OPRejected):
        with_person(op, lambda person: person.sign_in(op.code_for), client_auth="basic")


# -- client authentication --

_PEM = RSAKey.generate_key(2048)


@pytest.mark.parametrize(
    ("announced", "config", "seen"),
    [
        (["client_secret_basic", "client_secret_post"], {}, "basic"),
        (["client_secret_post"], {}, "post"),
        (["client_secret_jwt"], {}, "client_secret_jwt"),
        (["client_secret_basic", "client_secret_post"], {"client_auth": "post"}, "post"),
        (["client_secret_jwt"], {"client_auth": "client_secret_jwt"}, "client_secret_jwt"),
        (["none"], {"client_secret": ""}, "none"),
        (["none"], {"client_secret": "", "client_auth": "none"}, "none"),
    ],
)
def test_client_authentication(announced: list[str], config: dict[str, Any], seen: str) -> None:
    with scripted_op(auth_methods=announced) as op:
        signed_in = with_person(op, lambda person: person.sign_in(op.code_for), **config)
        assert isinstance(signed_in, SignedIn)
        with_person(op, lambda person: person.refresh(signed_in.issued.refresh_token), **config)
        assert [call.auth for call in op.ledger] == [seen, seen]
        assert [call.outcome for call in op.ledger] == ["issued", "issued"]
        assert with_person(op, lambda person: person.client.revoke("rt-x", "refresh_token"), **config)


def test_basic_is_meant_where_nothing_is_announced() -> None:
    with ScriptedOP() as op:
        op.discovery["token_endpoint_auth_methods_supported"] = None
        with_person(op, lambda person: person.refresh(op.grant()))
        assert op.ledger[0].auth == "basic"


@pytest.mark.parametrize("audience", ["token_endpoint", "issuer"])
@pytest.mark.parametrize(
    "key",
    [_PEM, ECKey.generate_key("P-256"), ECKey.generate_key("P-384"), OKPKey.generate_key("Ed25519")],
    ids=["rsa", "p256", "p384", "ed25519"],
)
@pytest.mark.parametrize("form", ["pem", "jwk"])
def test_private_key_jwt(key: Any, form: str, audience: str) -> None:
    private = (
        key.as_pem(private=True).decode()
        if form == "pem"
        else json.dumps({**key.as_dict(private=True), "kid": "mine"})
    )
    with scripted_op(auth_methods=["private_key_jwt"], client_jwk=dict(key.as_dict(private=False))) as op:
        config = {"client_secret": "", "client_key": private, "assertion_audience": audience}
        for _ in range(2):  # each assertion is new
            with_person(op, lambda person: person.refresh(op.grant()), **config)
        assert [(call.auth, call.outcome) for call in op.ledger] == [("private_key_jwt", "issued")] * 2


def test_a_wrong_secret_is_invalid_client() -> None:
    async def work(person: Person) -> object:
        return judge(await person.refresh(op.grant()), GENERIC)

    with ScriptedOP() as op:
        judged: Any = with_person(op, work, client_secret="wrong")
        assert judged.code == "invalid_client"
        assert judged.kind == "client"


# -- redeem, userinfo, revocation --


def test_no_secret_shows_in_what_is_printed() -> None:
    person = Person("https://op.example", client_key="canary-key", proxy="http://u:canary-pass@p")
    shown = repr(person.config) + repr(person.flow())
    assert "canary" not in shown


def test_an_ops_cookies_are_not_kept() -> None:
    with scripted_op(
        always={"discovery": Script(headers={"Set-Cookie": "node=1; Path=/"}), "jwks": Script()}
    ) as op:
        with_person(op, lambda person: verify(person, op))
        assert not [request for request in op.requests if "cookie" in request.headers]


def test_a_code_is_sent_once_even_if_the_reply_is_lost() -> None:
    with scripted_op(always={"code": Script(cut="unanswered")}) as op:
        with pytest.raises(OPUnavailable):
            with_person(op, lambda person: person.sign_in(op.code_for))
        assert len(op.ledger) == 1


def test_a_kept_connection_that_went_stale_costs_a_get_nothing() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await person.client.metadata()
            op.script_next(Script(cut="at_once"), "jwks")
            await verify(person, op)

        with_person(op, work)
        assert op.hits["jwks"] == 2


async def _access_token(person: Person, op: ScriptedOP) -> str:
    return (await person.sign_in(op.code_for)).issued.access_token


def test_userinfo() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            token = await _access_token(person, op)
            assert (await person.client.userinfo(token, "ada-1"))["email"] == "ada@example.com"
            with pytest.raises(IdTokenRejected):
                await person.client.userinfo(token, "somebody-else")
            with pytest.raises(OPRejected) as caught:
                await person.client.userinfo("at-unknown", "ada-1")
            assert caught.value.http_status == 401

        with_person(op, work)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (Script(status=401), OPRejected),
        (Script(status=403, headers={"X-RateLimit-Remaining": "5"}), OPRejected),
        (Script(status=403, headers={"X-RateLimit-Remaining": "0"}), OPUnavailable),
        (Script(status=403, headers={"Retry-After": "30"}), OPUnavailable),
        (Script(status=429), OPUnavailable),
        (Script(status=500), OPUnavailable),
        (Script(status=302, headers={"Location": "/collector"}), OPUnavailable),
        (Script(body="<html>"), OPUnavailable),
        (Script(body="[]"), OPUnavailable),
        (Script(body="x" * (2 << 20)), OPUnavailable),
        (Script(cut="mid_body"), OPUnavailable),
        (Script(change=lambda body: body.pop("sub")), IdTokenRejected),
    ],
)
def test_userinfo_that_fails(script: Script, error: type[Exception]) -> None:
    with scripted_op(always={"userinfo": script}) as op:

        async def work(person: Person) -> None:
            with pytest.raises(error):
                await person.client.userinfo(await _access_token(person, op), "ada-1")

        with_person(op, work)
        assert "collector" not in op.hits


@pytest.mark.parametrize(
    ("claims", "altered", "good"),
    [
        ({"sub": "ada-1"}, False, True),
        ({"sub": "ada-1", "iss": ..., "aud": [CLIENT_ID]}, False, True),
        ({"sub": "ada-1"}, True, False),
        ({"sub": "ada-1", "iss": "https://evil.example"}, False, False),
        ({"sub": "ada-1", "aud": "another"}, False, False),
        ({"sub": "eve"}, False, False),
    ],
)
def test_signed_userinfo(claims: dict[str, Any], altered: bool, good: bool) -> None:
    with ScriptedOP() as op:
        told = {name: op.issuer if value is ... else value for name, value in claims.items()}
        key = op.keys[0]
        body = Draft({"alg": "RS256", "kid": key.kid}, told, key, altered=altered).signed()
        op.always["userinfo"] = Script(body=body, headers={"Content-Type": "application/jwt; charset=x"})

        async def work(person: Person) -> dict[str, Any]:
            return await person.client.userinfo(await _access_token(person, op), "ada-1")

        if good:
            assert with_person(op, work)["sub"] == "ada-1"
        else:
            with pytest.raises(IdTokenRejected):
                with_person(op, work)


def test_revocation_is_best_effort() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> list[bool]:
            token = op.grant()
            done = [await person.client.revoke(token, "refresh_token")]
            assert not op.is_valid(token)
            for script in (Script(status=503), Script(cut="unanswered"), Script(status=302)):
                op.script_next(script, "revoke")
                done.append(await person.client.revoke(token, "refresh_token"))
            return done

        assert with_person(op, work) == [True, False, False, False]
        op.discovery["revocation_endpoint"] = None
        assert with_person(op, lambda person: person.client.revoke("rt", "refresh_token")) is None
        op.refuse()
        assert with_person(op, lambda person: person.client.revoke("rt", "refresh_token")) is False


# -- logout tokens --

EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, ""),
        ({"sid": ...}, ""),
        ({"sub": ...}, ""),
        ({"exp": ...}, ""),
        ({"sub": ..., "sid": ...}, "sub"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"aud": "another"}, "aud"),
        ({"events": ...}, "events"),
        ({"events": {"http://schemas.openid.net/event/other": {}}}, "events"),
        ({"events": {EVENT: "x"}}, "events"),
        ({"nonce": "n"}, "nonce"),
        ({"jti": ...}, "jti"),
        ({"iat": ...}, "iat"),
        ({"exp": 1000}, "exp"),
        ({"exp": ..., "iat": 1000}, "exp"),
        ({"typ": "at+jwt"}, "typ"),
        ({"alg": "none"}, "alg"),
        ({"altered": True}, "signature"),
    ],
    ids=str,
)
def test_logout_tokens(changes: dict[str, Any], code: str) -> None:
    with ScriptedOP() as op:
        now = int(op.now())
        claims: dict[str, Any] = {
            "iss": op.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 120,
            "jti": "j1",
            "sub": "ada-1",
            "sid": "s1",
            "events": {EVENT: {}},
        }
        header: dict[str, Any] = {"alg": "RS256", "kid": "k1", "typ": "logout+jwt"}
        draft = Draft(header, claims, op.keys[0], altered="altered" in changes)
        for name, value in changes.items():
            if name in ("typ", "alg"):
                header[name] = value
            elif value is ...:
                del claims[name]
            elif name != "altered":
                claims[name] = value
        if header["alg"] == "none":
            header["alg"] = "RS256"
            parts = draft.signed().split(".")
            from tests.op.scripted import b64

            draft.raw = ".".join([b64(b'{"alg":"none"}'), parts[1], ""])

        async def work(person: Person) -> Any:
            return await person.client.verify_logout_token(draft.signed(), now=person.clock.now())

        if code:
            with pytest.raises(IdTokenRejected) as caught:
                with_person(op, work)
            assert caught.value.code == code
        else:
            token = with_person(op, work)
            assert (token.jti, token.sub, token.sid) == ("j1", claims.get("sub", ""), claims.get("sid", ""))
            assert token.until > now


def test_an_id_token_is_no_logout_token_nor_the_other_way_round() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            issued = (await person.sign_in(op.code_for)).issued
            assert isinstance(issued, Issued)
            with pytest.raises(IdTokenRejected):
                await person.client.verify_logout_token(issued.id_token, now=person.clock.now())

        with_person(op, work)


def test_an_op_that_cannot_be_reached_at_all() -> None:
    with ScriptedOP() as op:
        op.refuse()

        async def work(person: Person) -> None:
            with pytest.raises(NotSent):
                await person.client.metadata()
            with pytest.raises(NotSent):
                await person.client.connect()

        with_person(op, work)
