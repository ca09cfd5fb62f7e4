"""The same walks at every real provider: in, three renewals, a crowd at expiry, an old token, a lost
answer, out, and a grant that the provider ended.

The table below says what each provider does; the walks see it do so, through the product and, with a
token call of their own, at the provider itself. The providers live in real time; the product's clock
is the test's, so that no walk waits for a token to age.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from proxy.config import read
from proxy.core.providers import PROFILES, Reuse
from proxy.demo.visitor import NAVIGATION, Visitor, forms
from proxy.doctor.report import Level
from proxy.doctor.run import examine
from tests.integration.real_ops.house import Person, Porter
from tests.op.canaille_op import CanailleOP
from tests.op.django_op import DjangoOP
from tests.op.keycloak_op import REUSE_BLIND_S, KeycloakOP, KeycloakServer
from tests.op.node_op import NodeOP
from tests.op.real import RealOP
from tests.op.relay import Call
from tests.scenarios.house import together, until

LIFE_S = 30
PATIENT_LIFE_S = 120
"""Where a refresh token has to be used in real time before the access token is over."""

CROWD = 32


class Old(enum.Enum):
    """What the provider does when a refresh token comes back that was used already."""

    WORKS = enum.auto()  # it does not rotate: the same token, any number of times
    ONCE_MORE = enum.auto()  # by count: another successor, the one before is void and ends the grant
    SAME_AGAIN = enum.auto()  # the same successor to everybody
    REFUSED = enum.auto()  # refused, and nothing else happens
    ENDS_ALL = enum.auto()  # refused, and the successor dies too


@dataclass(frozen=True)
class Mode:
    """A provider in one of its ways.

    Attributes:
        make: starts it for a client at this URL.
        old: see `Old`.
        survives_a_lost_answer: the session outlives a refresh whose answer never came.
        id_token_again: a refresh brings an ID token.
        old_access_token_dies: at the rotation.
        refresh_token_outlives: the access token that came with it.
        groups: that the app is told.
        par: it takes pushed authorization requests.
        sign_out_ends_others: signing out in one browser ends the person's other ones too, at the provider.
        given_back_at: name of the endpoint where the product gives the token back on sign-out, "" = nowhere.
        whole_seconds: access tokens of the same second are the same.
    """

    name: str
    make: Callable[[Path, str, KeycloakServer | None], RealOP]
    old: Old
    survives_a_lost_answer: bool = False
    id_token_again: bool = True
    old_access_token_dies: bool = False
    refresh_token_outlives: bool = True
    groups: str = ""
    par: bool = False
    sign_out_ends_others: bool = False
    given_back_at: str = ""
    whole_seconds: bool = False


def node(home: Path, app: str, _: KeycloakServer | None) -> RealOP:
    return NodeOP(home, app, life_s=LIFE_S)


def canaille(home: Path, app: str, _: KeycloakServer | None) -> RealOP:
    return CanailleOP(home, app, life_s=PATIENT_LIFE_S)


def django(mode: str) -> Callable[[Path, str, KeycloakServer | None], RealOP]:
    return lambda home, app, _: DjangoOP(home, app, life_s=LIFE_S, mode=mode)


def keycloak_realm(mode: str) -> Callable[[Path, str, KeycloakServer | None], RealOP]:
    def make(home: Path, app: str, server: KeycloakServer | None) -> RealOP:
        assert server is not None
        return KeycloakOP(server, app, life_s=LIFE_S, mode=mode)

    return make


KEYCLOAK = Mode("", keycloak_realm(""), Old.ENDS_ALL, par=True, given_back_at="end_session_endpoint")
DJANGO = Mode("", django(""), Old.REFUSED, old_access_token_dies=True, sign_out_ends_others=True)

MODES = [
    Mode(
        "oidc-provider",
        node,
        Old.ENDS_ALL,
        groups="staff,node",
        par=True,
        given_back_at="revocation_endpoint",
    ),
    replace(DJANGO, name="django-rotate", make=django("rotate")),
    replace(DJANGO, name="django-protect", make=django("protect"), old=Old.ENDS_ALL),
    replace(
        DJANGO,
        name="django-grace",
        make=django("grace"),
        old=Old.SAME_AGAIN,
        survives_a_lost_answer=True,
    ),
    Mode(
        "canaille",
        canaille,
        Old.REFUSED,
        id_token_again=False,
        old_access_token_dies=True,
        refresh_token_outlives=False,
        groups="staff",
        given_back_at="revocation_endpoint",
        whole_seconds=True,
    ),
    replace(
        KEYCLOAK,
        name="keycloak-off",
        make=keycloak_realm("off"),
        old=Old.WORKS,
        survives_a_lost_answer=True,
    ),
    replace(KEYCLOAK, name="keycloak-reuse-0", make=keycloak_realm("reuse-0")),
    replace(
        KEYCLOAK,
        name="keycloak-reuse-1",
        make=keycloak_realm("reuse-1"),
        old=Old.ONCE_MORE,
        survives_a_lost_answer=True,
    ),
    replace(KEYCLOAK, name="keycloak-offline", make=keycloak_realm("offline")),
]


@dataclass
class Place:
    """A provider and the product in front of it."""

    mode: Mode
    op: RealOP
    porter: Porter

    def person(self) -> Person:
        """Somebody who has just signed in."""
        self.another_second()
        somebody = Person(self.porter, self.op)
        somebody.sign_in()
        return somebody

    def expire(self) -> None:
        """Everybody's access token is over; where the refresh token dies with it: nearly."""
        self.another_second()
        self.porter.advance(LIFE_S + 1 if self.mode.refresh_token_outlives else PATIENT_LIFE_S - 1)

    def another_second(self) -> None:
        """Tokens that come from now on differ from those that came before, of this session and of others."""
        if self.mode.whole_seconds:
            last = max((call.at for call in self.op.relay.calls if call.grant), default=0.0)
            # Two, because it stamps its answer some time after the call came: perhaps in the next second.
            until(lambda: time.monotonic() > last + 2.0)

    def renewed(self, person: Person, *, since: int) -> None:
        """Ask for a page until the renewal that this set off is through."""

        def done() -> bool:
            assert person.ask().status == 200
            return len(self.op.relay.refreshes(since)) > 0

        until(done)

    @property
    def now(self) -> int:
        """A mark in the ledger."""
        return len(self.op.relay.calls)


@pytest.fixture(scope="module", params=MODES, ids=[mode.name for mode in MODES])
def place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    keycloak: KeycloakServer | None,
) -> Iterator[Place]:
    mode: Mode = request.param
    home = tmp_path_factory.mktemp(mode.name)
    porter = Porter(home, movable=True)
    op = mode.make(home, porter.url, keycloak)
    try:
        # The provider's clock stays behind when the product's moves on.
        porter.start(op.settings | {"NIGHTPORTER_OP_CLOCK_SKEW_S": "600"})
        yield Place(mode, op, porter)
        assert porter.replica.stop() == 0
    finally:
        porter.stop()
        op.stop()


pytestmark = pytest.mark.timeout(900)  # the first one waits until its provider is up


def test_in_and_the_app_knows_who(place: Place) -> None:
    ada = place.person()
    told = ada.headers()
    assert told["x-forwarded-email"] == "ada@example.com"
    assert told.get("x-forwarded-groups", "") == place.mode.groups
    session = ada.session()
    assert session["access_token"]["refreshable"]
    assert session["issuer"] == place.op.issuer
    assert session["user"] == told["x-forwarded-user"]
    assert place.op.knows(told["x-forwarded-access-token"])
    # Where the provider takes the request from us directly (RFC 9126), no parameter passes the browser.
    pushed = place.op.metadata().get("pushed_authorization_request_endpoint", "")
    sent = parse_qs(urlsplit(ada.asked).query)
    assert sent.keys() == ({"client_id", "request_uri"} if pushed else sent.keys() | {"state", "nonce"})
    assert bool(pushed) == place.mode.par


def test_three_renewals_one_call_each(place: Place) -> None:
    ada = place.person()
    user, tokens = ada.headers()["x-forwarded-user"], [ada.token]
    presented: list[str] = []
    for _ in range(3):
        since = place.now
        place.expire()
        place.renewed(ada, since=since)
        until(lambda: ada.token != tokens[-1])
        (call,) = place.op.relay.refreshes(since)
        assert (call.status, call.error) == (200, "")
        assert bool(call.reply.get("id_token")) == place.mode.id_token_again
        presented.append(call.form["refresh_token"])
        tokens.append(ada.token)
        assert call.reply["access_token"] == tokens[-1]
        assert place.op.knows(tokens[-1])
        assert place.op.knows(tokens[-2]) != place.mode.old_access_token_dies
        assert ada.headers()["x-forwarded-user"] == user
        assert ada.headers().get("x-forwarded-groups", "") == place.mode.groups
    rotates = place.mode.old is not Old.WORKS
    assert len(set(presented)) == (3 if rotates else len(set(presented)))
    assert len(set(tokens)) == 4
    assert not place.porter.replica.events("id_token_not_used")
    assert not place.porter.replica.events("id_token_unchecked")


def test_a_crowd_at_expiry_costs_one_call(place: Place) -> None:
    ada = place.person()
    for _ in range(2):
        crowd_at_expiry(place, ada)


def crowd_at_expiry(place: Place, ada: Person) -> None:
    since = place.now
    place.expire()
    tokens: set[str] = set()

    def ask(n: int) -> None:
        tokens.add(ada.headers(f"/page/{n}")["x-forwarded-access-token"])

    together(ask, CROWD)
    until(lambda: bool(place.op.relay.refreshes(since)))
    until(lambda: ada.token == place.op.relay.refreshes(since)[-1].reply["access_token"])
    (call,) = place.op.relay.refreshes(since)
    assert (call.status, call.error) == (200, "")
    if place.mode.refresh_token_outlives:
        assert tokens == {call.reply["access_token"]}  # nobody was served with an expired one


def test_an_old_refresh_token_does_what_the_table_says(place: Place) -> None:
    ada = place.person()
    since = place.now
    place.expire()
    place.renewed(ada, since=since)
    (call,) = place.op.relay.refreshes(since)
    old, new = call.form["refresh_token"], call.reply.get("refresh_token", "")
    until(lambda: time.monotonic() > call.at + REUSE_BLIND_S)  # Keycloak's second

    status, answer = place.op.refresh(old)
    match place.mode.old:
        case Old.WORKS:
            assert status == 200
        case Old.ONCE_MORE:
            assert status == 200
            assert answer["refresh_token"] != new
        case Old.SAME_AGAIN:
            assert status == 200
            assert (answer["refresh_token"], answer["access_token"]) == (new, call.reply["access_token"])
        case Old.REFUSED | Old.ENDS_ALL:
            assert (status, answer["error"]) == (400, "invalid_grant")

    place.expire()
    if place.mode.old in (Old.ENDS_ALL, Old.ONCE_MORE):
        signed_out(place, ada)
    else:
        since = place.now
        place.renewed(ada, since=since)
        assert ada.headers()["x-forwarded-email"] == "ada@example.com"


def signed_out(place: Place, person: Person) -> None:
    """What becomes of a person whose grant is over: a way in for people, 401 for programs, no loop."""

    def over() -> bool:
        return person.ask().status == 401

    until(over)
    since = place.now
    page = person.browser.get(place.porter.url + "/page", NAVIGATION)
    assert page.redirect.startswith(place.porter.url + "/oauth2/login"), (page.status, page.text[:500])
    for _ in range(3):
        assert person.ask().status == 401
    assert not place.op.relay.refreshes(since)  # a dead token is not presented again
    arrived = person.browser.follow(page)
    if arrived.url != place.porter.url + "/page":  # the provider wants to see the person
        back = place.op.sign_in(person.browser, arrived, person.name)
        arrived = person.browser.follow(back)
    assert (arrived.url, arrived.status) == (place.porter.url + "/page", 200)


def test_an_answer_that_is_lost(place: Place) -> None:
    ada = place.person()
    since = place.now
    place.expire()
    place.op.relay.lose_next()
    # Nobody is told to sign in before the provider has refused: at worst, to come again in a moment.
    statuses = {ada.ask().status}
    until(lambda: bool(place.op.relay.refreshes(since)))
    if place.mode.survives_a_lost_answer:
        until(lambda: len(place.op.relay.refreshes(since)) == 2)
        until(lambda: ada.ask().status == 200)
        first, again = place.op.relay.refreshes(since)
        assert first.lost
        assert not again.lost
        assert first.form["refresh_token"] == again.form["refresh_token"]
        assert statuses <= {200}
        assert ada.session()["signed_in"]
        since = place.now
        place.expire()
        place.renewed(ada, since=since)
        assert place.op.relay.refreshes(since)[0].status == 200
    else:
        signed_out(place, ada)
        last = place.porter.replica.events("refresh")[-1:]
        assert place.porter.replica.metric("nightporter_refresh_total", code="rotation_lost") >= 1, last


def test_out_there_too(place: Place) -> None:
    ada = place.person()
    since = place.now
    token = next(call.reply for call in reversed(place.op.relay.calls) if call.grant)
    out = ada.sign_out()
    assert out.redirect.startswith(place.op.metadata()["end_session_endpoint"])
    assert ada.ask().status == 401
    back = place.op.sign_out(ada.browser, ada.browser.get(out.redirect))
    assert back.redirect.startswith(place.porter.url + "/oauth2/logged-out")
    assert "You are signed out" in ada.browser.follow(back).text

    again = ada.browser.get(ada.browser.get(place.porter.url + "/oauth2/login?rd=/page").redirect)
    while again.redirect:
        assert not again.redirect.startswith(place.porter.url), "the provider still knows them"
        again = ada.browser.get(again.redirect)
    assert place.op.fields.keys() & forms(again.text)[0].fields.keys()  # it asks who they are

    def given_back_now() -> list[Call]:
        return [call for call in place.op.relay.calls[since:] if token["refresh_token"] in call.form.values()]

    if place.mode.given_back_at:
        endpoint = place.op.metadata()[place.mode.given_back_at]
        until(lambda: len(given_back_now()) == 1)
        (call,) = given_back_now()
        assert place.op.relay.url + call.path == endpoint
        assert call.status in (200, 204)
    else:
        assert not given_back_now()
    assert place.op.refresh(token["refresh_token"])[0] == 400  # nothing is left at the provider


def test_out_in_one_browser_in_in_the_other(place: Place) -> None:
    here, there = place.person(), place.person()
    out = here.sign_out()
    back = place.op.sign_out(here.browser, here.browser.get(out.redirect))
    assert "You are signed out" in here.browser.follow(back).text
    if place.mode.given_back_at:
        path = place.op.metadata()[place.mode.given_back_at].removeprefix(place.op.relay.url)
        until(lambda: bool(place.op.relay.posts(path)))
    place.expire()
    if place.mode.sign_out_ends_others:
        signed_out(place, there)
    else:
        since = place.now
        place.renewed(there, since=since)
        assert place.op.relay.refreshes(since)[0].status == 200
        assert there.ask().status == 200


def test_i11_a_grant_that_the_provider_ended_leaves_its_reason(place: Place) -> None:
    ada = place.person()
    since = place.now
    token = next(call.reply for call in reversed(place.op.relay.calls) if call.grant)["refresh_token"]
    place.op.end_grant(token)
    assert ada.ask().status == 200  # until its access token is over nobody asks
    place.expire()
    signed_out(place, ada)
    call = place.op.relay.refreshes(since)[0]
    assert (call.status, call.error) == (400, "invalid_grant")
    assert len([each for each in place.op.relay.refreshes(since) if each.form["refresh_token"] == token]) == 1
    told = place.porter.replica.events("refresh_refused")[-1]
    assert (told["outcome"], told["code"], told["http_status"]) == ("dead", "invalid_grant", 400)
    assert told["iss"] == place.op.issuer
    assert told["detail"] == call.reply.get("error_description", "")
    assert token not in place.porter.replica.log.read_text()


def test_the_profile_expects_what_was_seen(place: Place) -> None:
    mode, profile = place.mode, PROFILES[place.op.profile or "generic"]
    safe = {
        Old.WORKS: set(Reuse),  # whatever we believe, nothing happens
        Old.ONCE_MORE: {Reuse.PUNISHED},
        Old.SAME_AGAIN: {Reuse.PUNISHED, Reuse.UNKNOWN, Reuse.GRACE, Reuse.IDEMPOTENT},
        Old.REFUSED: {Reuse.PUNISHED, Reuse.UNKNOWN},
        Old.ENDS_ALL: {Reuse.PUNISHED, Reuse.UNKNOWN},
    }
    assert profile.reuse in safe[mode.old]
    assert profile.rotates in (None, mode.old is not Old.WORKS)
    assert profile.new_id_token in (None, mode.id_token_again)


# A part of what the doctor says of a used refresh token.
DOCTOR: dict[Old, str] = {
    Old.WORKS: "works once more",  # Keycloak's refresh tokens are JWTs: another each time, and all good
    Old.ONCE_MORE: "works once more",
    Old.SAME_AGAIN: "gives the same successor again",
    Old.REFUSED: "refused at once; the newest one lives on",
    Old.ENDS_ALL: "the newest one dies with it",
}


def test_the_doctor_finds_what_the_table_says(place: Place) -> None:
    visitor = Visitor()

    def sign_in(url: str) -> str:
        back = place.op.sign_in(visitor, visitor.get(url), "ben").redirect
        assert back.startswith(place.porter.url + "/oauth2/callback")
        return back

    async def bring(url: str, redirect_uri: str) -> str:
        return await asyncio.to_thread(sign_in, url)

    settings = {
        **place.op.settings,
        "NIGHTPORTER_UPSTREAM": place.porter.app.url,
        "NIGHTPORTER_PUBLIC_URL": place.porter.url,
        "NIGHTPORTER_STORE": "memory:",
        "NIGHTPORTER_COOKIE_KEYS": "A" * 43,
    }
    report = asyncio.run(examine(read(env=settings), bring, aggressive=True, grace_wait_s=0))
    said = {finding.check: finding for finding in report.findings}
    assert [each.check for each in report.findings if each.level is Level.FAIL] == []
    for check in ("op.issuer", "op.jwks", "op.secret", "login", "login.refresh_token", "login.refresh"):
        assert said[check].level is Level.OK, said[check]
    assert DOCTOR[place.mode.old] in said["login.reuse"].what
    if not place.mode.whole_seconds:
        dies = "dies with the refresh" in said["login.old_access_token"].what
        assert dies == place.mode.old_access_token_dies
