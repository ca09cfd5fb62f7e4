"""The configuration changes under a running process: nothing is dropped, nobody is signed out.

By id: G1 and G2 (a wrong client secret, corrected), G3 (two secrets), G6 (another client), G7 (the key
ring).
"""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import signal
from pathlib import Path

import pytest

from tests.op.scripted import ScriptedOP
from tests.scenarios.browser import Browser
from tests.scenarios.house import House, until


def new_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def write(path: Path, text: str) -> None:
    """Replace a file at once, as an editor or a mounted secret does."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)


def reloads(house: House) -> int:
    return len(house.replica.events("configuration_reloaded"))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    write(path, new_key())
    return path


def house_with(home: Path, **files: Path) -> House:
    env: dict[str, str] = {}
    for name, path in files.items():
        env |= {f"NIGHTPORTER_{name.upper()}": "", f"NIGHTPORTER_{name.upper()}_FILE": str(path)}
    return House(home / "house", env=env)


def is_signed_in(browser: Browser) -> bool:
    return browser.get("/page").status == 200


def test_g7_a_new_cookie_key_is_used_without_a_restart_and_old_cookies_stay_good(
    tmp_path: Path, keys: Path
) -> None:
    (tmp_path / "house").mkdir()
    with house_with(tmp_path, cookie_keys=keys) as house:
        ada = house.somebody()
        first = ada.jar["np"]
        old = keys.read_text()
        write(keys, f"{new_key()}\n{old}")
        until(lambda: reloads(house) == 1)
        assert ada.get("/page").user == "ada-1"
        assert ada.jar["np"] == first  # a script's answer carries no new cookie
        assert ada.get("/page", navigation=True).user == "ada-1"
        second = ada.jar["np"]
        assert second != first
        # The old key goes: who holds only its cookie signs in again, who has the new one notices nothing.
        write(keys, keys.read_text().splitlines()[0])
        until(lambda: reloads(house) == 2)
        assert ada.get("/page").user == "ada-1"
        stale = house.browser()
        stale.jar["np"] = first
        assert stale.get("/page").status == 401
        assert stale.get("/page", navigation=True).status == 302
        assert ada.get("/page").user == "ada-1"


def test_g1_g2_a_wrong_client_secret_ends_no_session_and_its_correction_needs_no_restart(
    tmp_path: Path,
) -> None:
    (tmp_path / "house").mkdir()
    path = tmp_path / "secret"
    op = ScriptedOP()
    write(path, op.client_secret)
    env = {"NIGHTPORTER_CLIENT_SECRET": "", "NIGHTPORTER_CLIENT_SECRET_FILE": str(path)}
    with House(tmp_path / "house", op=op, env=env) as house:
        people = [house.somebody(f"user-{n}") for n in range(3)]
        cookies = [person.cookie for person in people]
        write(path, "a-wrong-secret")
        until(lambda: reloads(house) == 1)
        house.expire()
        for person in people:
            reply = person.get("/page", navigation=True)
            assert reply.status == 503
            assert int(reply.get("retry-after")) >= 1
        assert [person.cookie for person in people] == cookies
        assert "op" in house.replica.operations("/readyz").text
        write(path, op.client_secret)
        until(lambda: reloads(house) == 2)
        house.advance(61.0)  # what each session was told to wait
        assert [person.get("/page").user for person in people] == [f"user-{n}" for n in range(3)]


def test_a_configuration_that_cannot_be_used_changes_nothing_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    toml = tmp_path / "nightporter.toml"
    write(toml, 'public_paths = ["/open"]\n')
    with House(tmp_path / "house", env={"NIGHTPORTER_CONFIG": str(toml)}) as house:
        nobody = house.browser()
        assert nobody.get("/open").status == 200
        write(toml, 'public_paths = ["/open"]\nidle_s = "soon"\nno_such = 1\n')
        until(lambda: len(house.replica.events("configuration_refused")) >= 2)
        told = " ".join(str(line.get("detail")) for line in house.replica.events("configuration_refused"))
        assert "idle_s" in told
        assert "no_such" in told
        assert nobody.get("/open").status == 200
        write(toml, 'public_paths = ["/other"]\n')
        until(lambda: reloads(house) == 1)
        assert nobody.get("/open").status == 401
        assert nobody.get("/other").status == 200


def test_open_connections_and_streams_go_on_across_a_reload(tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    toml = tmp_path / "nightporter.toml"
    write(toml, 'public_paths = ["/open"]\n')
    with House(tmp_path / "house", env={"NIGHTPORTER_CONFIG": str(toml)}) as house:
        ada = house.somebody()
        kept = http.client.HTTPConnection("127.0.0.1", house.replica.port, timeout=30)
        kept.request("GET", "/page", headers={"Cookie": ada.cookie})
        assert kept.getresponse().read()
        mine = kept.sock.getsockname()
        write(toml, 'public_paths = ["/open"]\n[headers]\nX-Mail = "email"\n')
        until(lambda: reloads(house) == 1)
        kept.request("GET", "/page", headers={"Cookie": ada.cookie, "X-Mail": "mallory@example.com"})
        seen = kept.getresponse().read().decode()
        assert kept.sock.getsockname() == mine  # the same connection, under the new rules
        assert "ada-1@example.com" in seen
        assert "mallory" not in seen


def test_sighup_reads_again_and_names_what_needs_a_restart(tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    toml = tmp_path / "nightporter.toml"
    write(toml, "absolute_s = 86400\n")
    with House(tmp_path / "house", env={"NIGHTPORTER_CONFIG": str(toml)}) as house:
        before = house.replica.port
        write(toml, f'absolute_s = 43200\n[journal]\ndir = "{tmp_path}"\n')
        os.kill(house.replica.pid, signal.SIGHUP)
        until(lambda: reloads(house) >= 1)
        assert house.replica.events("restart_needed")[0]["settings"] == ["journal.dir"]
        assert house.replica.events("configuration_reloaded")[0]["settings"] == ["absolute_s"]
        assert house.replica.port == before
        ada = house.somebody()
        assert ada.session()["ends_in_s"] <= 43200


def test_g3_a_client_secret_is_replaced_without_anybody_noticing(tmp_path: Path) -> None:
    """The whole rotation: both configured, the provider switches, the old one is taken away."""
    (tmp_path / "house").mkdir()
    first, following = tmp_path / "first", tmp_path / "next"
    op = ScriptedOP()
    write(first, op.client_secret)
    write(following, "the-next-secret")
    env = {
        "NIGHTPORTER_CLIENT_SECRET": "",
        "NIGHTPORTER_CLIENT_SECRET_FILE": str(first),
        "NIGHTPORTER_CLIENT_SECRET_NEXT_FILE": str(following),
    }
    with House(tmp_path / "house", op=op, env=env) as house:
        people = [house.somebody(f"user-{n}") for n in range(3)]
        op.client_secret = "the-next-secret"  # the provider forgets the old one
        for _ in range(2):
            house.expire()
            for person in people:
                assert person.get("/page", navigation=True).status == 200
        refused = [call for call in op.refreshes() if call.auth == "bad"]
        assert len(refused) == 1
        (line,) = house.replica.events("client_secret_switched")
        assert (line["in_use"], line["refused"]) == ("client_secret_next", "client_secret")
        assert 'provider_next_secret{provider="generic"} 1.0' in house.replica.operations("/metrics").text
        write(first, "the-next-secret")
        until(lambda: reloads(house) == 1)
        house.expire()
        for person in people:
            assert person.get("/page").status == 200
        assert len([call for call in op.refreshes() if call.auth == "bad"]) == 1
        assert "provider_next_secret{" not in house.replica.operations("/metrics").text, "there is one"


def test_g6_tokens_of_another_client_are_never_sent_and_come_back_with_the_configuration(
    tmp_path: Path,
) -> None:
    (tmp_path / "house").mkdir()
    toml = tmp_path / "nightporter.toml"
    op = ScriptedOP()
    write(toml, f'client_id = "{op.client_id}"\n')
    env = {"NIGHTPORTER_CLIENT_ID": "", "NIGHTPORTER_CONFIG": str(toml)}
    with House(tmp_path / "house", op=op, env=env) as house:
        ada = house.somebody()
        write(toml, 'client_id = "another-client"\n')
        until(lambda: reloads(house) == 1)
        house.expire()
        calls = len(op.refreshes())
        assert ada.get("/page").status == 401
        assert ada.get("/page", navigation=True).status == 302
        assert len(op.refreshes()) == calls
        write(toml, f'client_id = "{op.client_id}"\n')
        until(lambda: reloads(house) == 2)
        assert is_signed_in(ada)
