"""Every row of the tables of faulty OPs, as far as the OP client and the core judge it."""

from __future__ import annotations

import csv

import pytest

from proxy.core.session import OutcomeKind
from proxy.core.token_reply import Issued, judge
from proxy.errors import IdTokenRejected, ProxyError, ReplyLost
from proxy.shell.aftercare import FORGIVEN
from tests.integration.op.support import GENERIC, Person, Refusal, SignedIn, with_person
from tests.op.faulty import CASES, FAULTS, TABLE, Case, faulty_op
from tests.op.scripted import ScriptedOP

SIGN_IN = [case for case in CASES.values() if not case.on_refresh]
REFRESH = [case for case in CASES.values() if case.on_refresh]


def test_every_row_of_the_table_has_its_fault() -> None:
    with TABLE.open(newline="") as table:
        assert {row["case"] for row in csv.DictReader(table)} == FAULTS.keys()


def attempt(op: ScriptedOP, case: Case) -> SignedIn | Exception:
    limit = 0.4 if case.id == "tok-slow" else 5.0

    async def work(person: Person) -> SignedIn:
        if case.id == "rotate-before-sign":
            # The old keys are known already: the new one must be fetched.
            change, op.change_id_token = op.change_id_token, None
            await person.sign_in(op.code_for)
            op.change_id_token = change
        return await person.sign_in(op.code_for)

    try:
        return with_person(op, work, timeout_s=limit)
    except (ProxyError, Refusal) as error:
        return error


@pytest.mark.parametrize("case", SIGN_IN, ids=lambda case: case.id)
def test_sign_in(case: Case) -> None:
    with faulty_op(case.id) as op:
        came_to = attempt(op, case)
        if case.expect == "accept":
            assert isinstance(came_to, SignedIn), came_to
            assert came_to.identity.sub == "ada-1"
        if case.expect == "reject":
            assert isinstance(came_to, Exception), "it must not be believed"
            said = str(came_to) + str(getattr(came_to, "detail", ""))
            assert "<script>" not in str(came_to)
            assert op.client_secret not in said
        assert op.hits.get("collector", 0) == 0


def test_what_an_unverified_or_ambiguous_address_comes_to() -> None:
    for case, email in (("email-unverified", ""), ("email-multi-at", "a@evil@example.com")):
        with faulty_op(case) as op:
            came_to = attempt(op, CASES[case])
            assert isinstance(came_to, SignedIn)
            assert came_to.identity.email == email


@pytest.mark.parametrize("case", REFRESH, ids=lambda case: case.id)
def test_refresh(case: Case) -> None:
    with faulty_op(case.id) as op:

        async def work(person: Person) -> str:
            signed_in = await person.sign_in(op.code_for)
            before = signed_in.identity
            try:
                reply = await person.refresh(signed_in.issued.refresh_token)
            except ReplyLost:
                return "keep"  # ambiguous: it ends nothing by itself
            judged = judge(reply, GENERIC, now=person.clock.now())
            if not isinstance(judged, Issued):
                return "end" if judged.kind is OutcomeKind.DEAD else "keep"
            if not judged.id_token:
                return "keep"
            try:
                claims = await person.verify_refreshed(judged, before)
            except IdTokenRejected as error:
                return "keep" if error.code in FORGIVEN else "end"
            assert claims["sub"] == before.sub
            return "keep"

        came_to = with_person(op, work)
        assert case.expect in ("either", came_to)


@pytest.mark.parametrize(
    ("id_token", "expect"),
    [
        ("nonce-absent", "accept"),
        ("nonce-equal", "accept"),
        ("nonce-different", "nonce"),
        ("auth_time-changed", "auth_time"),
        ("auth_time-absent", "accept"),
        ("auth_time-huge", "time_type"),
    ],
)
def test_what_a_refreshed_id_token_must_keep(id_token: str, expect: str) -> None:
    name, _, how = id_token.partition("-")
    with ScriptedOP() as op:

        async def work(person: Person) -> str:
            signed_in = await person.sign_in(op.code_for)
            before = signed_in.identity
            if name == "nonce":
                op.nonce_on_refresh = how
            else:
                values = {"changed": before.auth_time + 7, "huge": 10**400}

                def change(draft: object) -> None:
                    claims = draft.claims  # type: ignore[attr-defined]
                    claims.pop("auth_time")
                    claims.update({"auth_time": values[how]} if how in values else {})

                op.change_id_token = change
            # The sign-in's own grant: another one would be of another second.
            judged = judge(await person.refresh(signed_in.issued.refresh_token), GENERIC)
            assert isinstance(judged, Issued)
            try:
                await person.verify_refreshed(judged, before)
            except IdTokenRejected as error:
                return error.code
            return "accept"

        assert with_person(op, work) == expect
