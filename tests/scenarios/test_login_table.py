"""Every row of `tests/data/oidc_login_cases.csv` against the running product: a browser, the served
proxy, an OP with that fault.

A sign-in that must not be believed ends at one calm page with a request id: no session, no 500, no
loop, nothing of the OP's words, nothing sent to where the OP pointed. A refresh that must not
end a session leaves it as it was, and one that must ends it with a reason and one clean sign-in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.op.faulty import CASES, Case
from tests.op.scripted import ScriptedOP
from tests.scenarios.browser import Browser, Reply
from tests.scenarios.house import House, until

SIGN_IN = [case for case in CASES.values() if not case.on_refresh]
REFRESH = [case for case in CASES.values() if case.on_refresh]

OWN_HOUSE = ("alg-es", "kid-absent-multi", "rotate-", "jwks-", "disc-", "tok-slow")
"""What concerns keys, discovery or time is tried by a process that knows nothing yet."""

REASONS = ("invalid_grant", "identity_mismatch", "rotation_lost")

SLOW = {
    "NIGHTPORTER_OP_TIMEOUT_S": "3",
    "NIGHTPORTER_OP_CONNECT_TIMEOUT_S": "3",
    "NIGHTPORTER_REFRESH_WAIT_S": "6",
}


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One process for the rows whose fault leaves nothing behind in it."""
    with House(tmp_path_factory.mktemp("login")) as house:
        yield house


@pytest.fixture
def house(long_lived: House, tmp_path: Path, case: Case) -> Iterator[House]:
    if case.id.startswith(OWN_HOUSE):
        with House(tmp_path, env=SLOW if case.id == "tok-slow" else {}) as own:
            yield own
        return
    yield long_lived
    long_lived.op.reset()


def ended_calmly(house: House, browser: Browser, page: Reply) -> None:
    """The sign-in did not come about, and whoever reads the page or the log knows enough."""
    assert 400 <= page.status < 600
    assert page.status != 500
    assert page.get("content-type").startswith("text/html")
    assert page.get("cache-control") == "no-store"
    assert page.get("x-request-id") in page.text
    assert sum("/authorize" in url for _, url in browser.trail) <= 1  # no loop
    for said in ("<script>", "alert(1)", house.op.client_secret, "Traceback", "said by the OP"):
        assert said not in page.text
    assert "np" not in browser.jar
    assert browser.get("/api").status == 401
    failed = [line for line in house.replica.events("login_failed") if line["request"] in page.text]
    assert len(failed) == 1
    assert failed[0]["code"]


def came_in(browser: Browser, page: Reply) -> None:
    assert page.url.endswith("/page?x=1")
    assert page.user == "ada-1"
    assert sum("/authorize" in url for _, url in browser.trail) == 1
    assert browser.get("/api").user == "ada-1"


@pytest.mark.parametrize("case", SIGN_IN, ids=lambda case: case.id)
def test_sign_in(house: House, case: Case) -> None:
    if case.id == "rotate-before-sign":
        house.somebody()  # the old keys are known
    requests, seen = len(house.op.requests), len(house.app.seen)
    case.apply(house.op)
    browser = house.browser()
    page = browser.visit("/page?x=1")
    assert house.op.hits.get("collector", 0) == 0
    if page.status == 200:
        assert case.expect in ("accept", "either"), "it must not be believed"
        came_in(browser, page)
    else:
        assert case.expect in ("reject", "either"), page.text
        ended_calmly(house, browser, page)
        assert len(house.app.seen) == seen  # the app heard of nobody
    redeemed = [r for r in house.op.requests[requests:] if r.form.get("grant_type") == "authorization_code"]
    assert len(redeemed) <= 1  # a code is sent once, whatever came back


def test_what_the_app_is_told_of_unusual_claims(long_lived: House) -> None:
    for name, header, told in (
        ("email-unverified", "x-forwarded-email", None),
        ("claims-utf8", "x-forwarded-user", "ada-1"),
    ):
        CASES[name].apply(long_lived.op)
        assert long_lived.browser().visit("/page?x=1").seen.get(header) == told
        long_lived.op.reset()
    CASES["claims-crlf"].apply(long_lived.op)
    page = long_lived.browser().visit("/page?x=1")
    if page.status == 200:
        seen = page.seen  # a repeated field would be an error by itself
        assert seen["x-forwarded-user"] == "ada-1"
        assert "y" not in seen
        assert not any("\0" in value or "\r" in value or "\n" in value for value in seen.values())
    long_lived.op.reset()


@pytest.fixture(scope="module")
def refresh_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("refresh")) as house:
        yield house


def renewals(house: House) -> float:
    return house.replica.metric("nightporter_refresh_seconds_count")


@pytest.mark.parametrize("case", REFRESH, ids=lambda case: case.id)
def test_refresh(refresh_house: House, case: Case) -> None:
    house = refresh_house
    ada = house.somebody()
    jar, done = dict(ada.jar), renewals(house)
    case.apply(house.op)
    house.into_window()
    assert ada.get("/a").status == 200  # the access token is alive: nobody waits
    until(lambda: renewals(house) > done)
    told = ada.get("/api")
    assert told.status in (200, 401)
    ended = told.status == 401
    if not ended:
        house.op.reset()
        house.advance(61)  # the old access token is over
        told = ada.get("/api")
        ended = told.status == 401
    if ended:
        assert case.expect in ("end", "either")
        assert told.json["reason"] in REASONS
        assert told.get("x-request-id") == told.json["request_id"]
        house.op.reset()
        ada.trail.clear()
        assert ada.visit("/page?x=1").status == 200
        assert sum("/authorize" in url for _, url in ada.trail) == 1
    else:
        assert case.expect in ("keep", "either")
        assert told.user == "ada-1"
        assert ada.jar == jar
    house.op.reset()
    assert ada.get("/b").status == 200


def test_no_row_is_left_out() -> None:
    assert len(SIGN_IN) + len(REFRESH) == len(CASES) == 90
    assert ScriptedOP().client_id  # the OP of these tests is ours
