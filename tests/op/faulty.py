"""The faulty OPs of `tests/data/oidc_login_cases.csv`, each as a variation of the scripted OP.

One entry per case: what the OP does wrong. The expectation comes from the table. A test of the
whole product signs in against a case like this::

    with faulty_op("nonce-wrong") as op: ...

and finds `accept`, `reject` or `either` (sign-in), `keep` or `end` (refresh) in `CASES[id].expect`.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc.jwk import OctKey, RSAKey

from tests.op.scripted import Draft, Params, Script, ScriptedOP, ec_key, jwks_of, rsa_key

TABLE = Path(__file__).parent.parent / "data" / "oidc_login_cases.csv"

Fault = Callable[[ScriptedOP], None]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    id: str
    expect: str
    fault: str
    apply: Fault

    @property
    def on_refresh(self) -> bool:
        """Whether it shows only at a refresh."""
        return self.expect in ("keep", "end") or self.id.startswith("rf-")


def _claims(**changes: Any) -> Fault:
    """Change claims of the ID token; `...` removes one, a function computes one from the others."""

    def change(draft: Draft) -> None:
        for name, value in changes.items():
            if value is ...:
                draft.claims.pop(name, None)
            else:
                draft.claims[name] = value(draft.claims) if callable(value) else value

    return _id_token(change)


def _id_token(change: Callable[[Draft], None]) -> Fault:
    def apply(op: ScriptedOP) -> None:
        op.change_id_token = change

    return apply


def _user(**changes: Any) -> Fault:
    def apply(op: ScriptedOP) -> None:
        op.user.update(changes)

    return apply


def _answer(change: Callable[[Params], Params]) -> Fault:
    def apply(op: ScriptedOP) -> None:
        op.answer = change

    return apply


def _always(endpoint: str, **script: Any) -> Fault:
    def apply(op: ScriptedOP) -> None:
        op.always[endpoint] = Script(**script)

    return apply


def _both(*faults: Fault) -> Fault:
    def apply(op: ScriptedOP) -> None:
        for fault in faults:
            fault(op)

    return apply


def _refreshed(**changes: Any) -> Fault:
    """Change claims of refreshed ID tokens only."""

    def change(draft: Draft) -> None:
        draft.claims.update(changes)

    return _always("refresh", change_id_token=change)


def _nothing(op: ScriptedOP) -> None:
    """The happy path."""


# -- faults that need more than a line --


def _alter(draft: Draft) -> None:
    draft.altered = True


def _empty_signature(draft: Draft) -> None:
    draft.raw = draft.signed().rpartition(".")[0] + "."


def _unsigned(alg: Any) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        header = {"alg": alg, "typ": "JWT", "kid": draft.header["kid"]}
        parts = (
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
            for part in (header, draft.claims)
        )
        draft.raw = ".".join(parts) + "."

    return change


def _hs256(secret: Callable[[ScriptedOP], bytes]) -> Fault:
    def apply(op: ScriptedOP) -> None:
        def change(draft: Draft) -> None:
            draft.header["alg"] = "HS256"
            draft.key = OctKey.import_key(secret(op))

        op.change_id_token = change

    return apply


def _es256(*, altered: bool) -> Fault:
    def apply(op: ScriptedOP) -> None:
        op.keys.append(ec_key("ec1"))
        if altered:
            op.change_id_token = _alter

    return apply


def _kid(value: Any) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        if value is None:
            draft.header.pop("kid")
        else:
            draft.header["kid"] = value

    return change


def _two_keys(op: ScriptedOP) -> None:
    op.keys.append(rsa_key("k2", 1))
    op.change_id_token = _kid(None)


def _attacker(**header: Callable[[ScriptedOP, RSAKey], Any]) -> Fault:
    """Signed by a key of the attacker's that the header offers itself."""

    def apply(op: ScriptedOP) -> None:
        key = rsa_key("evil", 2)

        def change(draft: Draft) -> None:
            draft.key = key
            draft.header.update({name: make(op, key) for name, make in header.items()})
            draft.header["kid"] = "evil"

        op.change_id_token = change

    return apply


def _crit(draft: Draft) -> None:
    draft.header |= {"crit": ["bork"], "bork": True}


def _rotate_before_signing(op: ScriptedOP) -> None:
    def change(draft: Draft) -> None:
        if op.keys[-1].kid == "k1":
            op.rotate_key()
        draft.key = op.keys[-1]
        draft.header["kid"] = op.keys[-1].kid

    op.change_id_token = change


def _garbage_first(op: ScriptedOP) -> None:
    op.published = [{"kty": "PQC", "kid": "x", "pub": "AAAA"}, {"kid": "y"}, *jwks_of(op.keys)]


def _enc_only(op: ScriptedOP) -> None:
    op.published = [{**key, "use": "enc"} for key in jwks_of(op.keys)]


def _leaks_private(op: ScriptedOP) -> None:
    op.published = jwks_of(op.keys, private=True)


def _other_subject_in_userinfo(op: ScriptedOP) -> None:
    op.id_token_claims = {"sub"}
    op.always["userinfo"] = Script(change=lambda body: body.update(sub="somebody-else"))


def _html_userinfo(op: ScriptedOP) -> None:
    op.id_token_claims = {"sub"}
    op.always["userinfo"] = Script(body="<html>hello</html>", headers={"Content-Type": "text/html"})


def _logout_token(draft: Draft) -> None:
    draft.header["typ"] = "logout+jwt"
    draft.claims["events"] = {"http://schemas.openid.net/event/backchannel-logout": {}}


def _altered_state(params: Params) -> Params:
    return [(n, v[:-1] + ("A" if v[-1] != "A" else "B")) if n == "state" else (n, v) for n, v in params]


def _redirect_elsewhere(op: ScriptedOP) -> None:
    op.always["code"] = Script(status=302, headers={"Location": op.issuer + "/collector"}, body="")


def _not_consumed(**script: Any) -> Fault:
    return _always("refresh", process=False, **script)


_HTML = {"body": "<html><h1>It works!</h1></html>", "headers": {"Content-Type": "text/html"}}

SLOW_S = 20.0

FAULTS: dict[str, Fault] = {
    "happy": _nothing,
    "sig-rs256": _nothing,
    "iss-wrong": _claims(iss="https://evil.example.net"),
    "iss-slash": _claims(iss=lambda c: c["iss"] + "/"),
    "iss-prefix": _claims(iss=lambda c: c["iss"][:-1]),
    "sub-missing": _claims(sub=...),
    "sub-empty": _claims(sub=""),
    "sub-number": _claims(sub=12),
    "aud-wrong": _claims(aud="another-client"),
    "aud-missing": _claims(aud=...),
    "aud-extra-azp": _claims(azp=lambda c: c["aud"], aud=lambda c: [c["aud"], "other"]),
    "aud-extra-untrusted": _claims(aud=lambda c: [c["aud"], "other"]),
    "azp-wrong": _claims(azp="another-client"),
    "iat-missing": _claims(iat=...),
    "iat-week-old": _claims(iat=lambda c: c["iat"] - 7 * 86400),
    "exp-missing": _claims(exp=...),
    "exp-past": _claims(exp=lambda c: c["iat"] - 600),
    "exp-string": _claims(exp=lambda c: str(c["exp"])),
    "nbf-future": _claims(nbf=lambda c: c["iat"] + 600),
    "nonce-missing": _claims(nonce=...),
    "nonce-wrong": _claims(nonce="another-nonce"),
    "sig-bad": _id_token(_alter),
    "sig-empty": _id_token(_empty_signature),
    "alg-none": _id_token(_unsigned("none")),
    "alg-null": _id_token(_unsigned(None)),
    "alg-None-case": _id_token(_unsigned("nOnE")),
    "alg-hs256-secret": _hs256(lambda op: op.client_secret.encode()),
    "alg-hs256-pubkey": _hs256(lambda op: op.keys[0].as_pem(private=False)),
    "alg-es256-ok": _es256(altered=False),
    "alg-es256-bad": _es256(altered=True),
    "kid-absent-single": _id_token(_kid(None)),
    "kid-absent-multi": _two_keys,
    "kid-unknown": _id_token(_kid("nobody")),
    "kid-path": _id_token(_kid("../../dev/null")),
    "jwk-header": _attacker(jwk=lambda _, key: dict(key.as_dict(private=False))),
    "jku-header": _attacker(jku=lambda op, _: op.issuer + "/collector"),
    "crit-unknown": _id_token(_crit),
    "rotate-before-sign": _rotate_before_signing,
    "jwks-garbage-first": _garbage_first,
    "jwks-enc-key": _enc_only,
    "jwks-500": _always("jwks", status=500, body="oops"),
    "jwks-html": _always("jwks", **_HTML),
    "jwks-private": _leaks_private,
    "at-hash-wrong": _claims(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "at-hash-missing": _claims(at_hash=...),
    "userinfo-sub": _other_subject_in_userinfo,
    "userinfo-html": _html_userinfo,
    "logout-typ": _id_token(_logout_token),
    "email-unverified": _user(email_verified=False),
    "email-multi-at": _user(email="a@evil@example.com"),
    "claims-crlf": _user(
        name="Ada\r\nX-Forwarded-User: root\r\n\x00",
        email="ada\r\nx: y@example.com",
        groups=["a\r\nb", "c\x00"],
    ),
    "claims-utf8": _user(name="Ådá Łovelace 日本"),
    "claims-64k": _user(groups=[f"group-{n:04d}-{'x' * 53}" for n in range(1000)]),
    "state-wrong": _answer(_altered_state),
    "state-missing": _answer(lambda params: [p for p in params if p[0] != "state"]),
    "state-dup": _answer(lambda params: [*params, ("state", "another")]),
    "resp-iss-wrong": _answer(
        lambda params: [(n, "https://evil.example.net" if n == "iss" else v) for n, v in params]
    ),
    "error-denied": _answer(
        lambda params: [
            *(p for p in params if p[0] != "code"),
            ("error", "access_denied"),
            ("error_description", "<script>alert(1)</script>"),
        ]
    ),
    "code-missing": _answer(lambda params: [p for p in params if p[0] != "code"]),
    "tok-500": _always("code", process=False, status=500, body="oops"),
    "tok-429": _always("code", process=False, status=429, headers={"Retry-After": "5"}, body=""),
    "tok-html": _always("code", **_HTML),
    "tok-trunc": _always("code", body='{"access_token": "at-cut", "token_ty'),
    "tok-array": _always("code", body='["access_token", "at-array"]'),
    "tok-no-idt": _always("code", change=lambda body: body.pop("id_token")),
    "tok-no-at": _always("code", change=lambda body: body.pop("access_token")),
    "tok-type-mac": _always("code", change=lambda body: body.update(token_type="mac")),
    "tok-exp-str": _always("code", change=lambda body: body.update(expires_in="300")),
    "tok-exp-neg": _always("code", change=lambda body: body.update(expires_in=-1)),
    "tok-redirect": _redirect_elsewhere,
    "tok-10mb": _always("code", body=b'{"access_token": "' + b"x" * (10 << 20) + b'"}'),
    "tok-reset": _always("code", cut="mid_body"),
    "tok-slow": _always("code", delay_s=SLOW_S),
    "rf-happy": _nothing,
    "rf-norotate": lambda op: setattr(op.rotation, "kind", "none"),
    "rf-no-idt": lambda op: setattr(op, "id_token_on_refresh", False),
    "rf-no-nonce": lambda op: setattr(op, "nonce_on_refresh", "absent"),
    "rf-iss": _refreshed(iss="https://evil.example.net"),
    "rf-sub": _refreshed(sub="somebody-else"),
    "rf-aud": _refreshed(aud="another-client"),
    "rf-sig": _always("refresh", change_id_token=_alter),
    "rf-invalid-grant": _not_consumed(status=400, body='{"error": "invalid_grant"}'),
    "rf-invalid-client": _not_consumed(status=401, body='{"error": "invalid_client"}'),
    "rf-500": _not_consumed(status=500, body="oops"),
    "rf-429": _not_consumed(status=429, headers={"Retry-After": "5"}, body=""),
    "rf-html": _not_consumed(**_HTML),
    "rf-trunc": _not_consumed(body='{"access_token": "at-cut", "token_ty'),
    "rf-lost": _always("refresh", cut="unanswered"),
    "disc-iss": lambda op: op.discovery.update(issuer=op.issuer + "/other"),
    "disc-500": _always("discovery", status=500, body="oops"),
}


def _cases() -> dict[str, Case]:
    with TABLE.open(newline="") as table:
        rows = list(csv.DictReader(table))
    return {row["case"]: Case(row["case"], row["expect"], row["fault"], FAULTS[row["case"]]) for row in rows}


CASES = _cases()


@contextlib.contextmanager
def faulty_op(case: str) -> Iterator[ScriptedOP]:
    """A running OP with this case's fault."""
    with ScriptedOP() as op:
        CASES[case].apply(op)
        yield op
