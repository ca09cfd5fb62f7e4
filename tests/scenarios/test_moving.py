"""A deployment moves from oauth2-proxy: its arguments are imported, and what asked it asks on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.house import House, until
from tests.unit.importing.cases import run


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A replica that runs what the import printed; only places of this machine are given beside it."""
    home = tmp_path_factory.mktemp("moved")
    house = House(home / "house", start=False)
    replica = house.replica
    arguments = [
        "--provider=oidc",
        f"--oidc-issuer-url={house.op.issuer}",
        f"--client-id={house.op.client_id}",
        f"--client-secret={house.op.client_secret}",
        "--cookie-secret=0123456789abcdef0123456789abcdef",
        "--cookie-refresh=1m",
        "--cookie-secure=false",
        "--email-domain=example.com",
        "--scope=openid profile email offline_access",
        f"--redirect-url={house.url}/oauth2/callback",
        f"--upstream={house.app.url}/",
        f"--http-address=127.0.0.1:{replica.port}",
        f"--metrics-address=127.0.0.1:{replica.operations_port}",
        "--skip-auth-route=^/open$",
        "--skip-auth-route=^/assets/",
        "--pass-access-token",
        "--prefer-email-to-user=true",
        "--reverse-proxy=true",
        "--trusted-proxy-ip=127.0.0.1",
    ]
    (home / "arguments.txt").write_text("\n".join(arguments))
    status, out, err = run("oauth2-proxy", str(home / "arguments.txt"))
    assert status == 0, err
    (home / "nightporter.toml").write_text(out)
    (home / "secret").write_text(house.op.client_secret)
    replica.env = {
        "NIGHTPORTER_CONFIG": str(home / "nightporter.toml"),
        "NIGHTPORTER_CLIENT_SECRET_FILE": str(home / "secret"),
        "NIGHTPORTER_STORE": f"sqlite:{home / 'sessions.db'}",
    }
    try:
        replica.begin()
        until(replica.ready)
        yield house
    finally:
        house.end()


def test_people_sign_in_by_the_old_names_and_stay(moved: House) -> None:
    browser = moved.browser()
    landed = browser.visit("/oauth2/start?rd=/page?x=1")
    assert (landed.status, landed.url) == (200, moved.url + "/page?x=1")
    renewed = len(moved.op.refreshes())
    moved.expire()
    assert browser.get("/page").status == 200
    assert len(moved.op.refreshes()) == renewed + 1


def test_the_app_is_told_by_the_names_it_knows(moved: House) -> None:
    page = moved.browser().visit("/page")
    assert page.seen["x-forwarded-user"] == page.seen["x-forwarded-email"] != ""
    assert page.seen["x-forwarded-user"].endswith("@example.com")
    assert page.token


@pytest.mark.parametrize(("path", "status"), [("/open", 200), ("/assets/a.js", 200), ("/opening", 401)])
def test_public_paths_are_public(moved: House, path: str, status: int) -> None:
    assert moved.browser().get(path).status == status


def test_proxies_and_probes_ask_on(moved: House) -> None:
    browser = moved.browser()
    assert browser.get("/oauth2/auth").status == 401
    browser.sign_in()
    assert browser.get("/oauth2/auth").status == 202
    assert browser.get("/oauth2/auth?allowed_email_domains=example.org").status == 403
    assert browser.get("/oauth2/userinfo").json["email"].endswith("@example.com")
    for path in ("/ping", "/ready"):
        assert moved.browser().get(path).status == 200
    assert moved.replica.operations("/metrics").status == 200


def test_a_sign_out_by_the_old_name_asks_and_a_script_posts(moved: House) -> None:
    browser = moved.browser()
    browser.sign_in()
    assert "Sign out?" in browser.get("/oauth2/sign_out", navigation=True).text
    assert browser.get("/page").status == 200
    assert browser.post("/oauth2/sign_out").status == 200
    assert browser.get("/page").status == 401


def test_no_secret_of_the_old_arguments_is_in_the_new_file(moved: House) -> None:
    text = Path(moved.replica.env["NIGHTPORTER_CONFIG"]).read_text()
    assert moved.op.client_secret not in text
    assert "0123456789abcdef" not in text
