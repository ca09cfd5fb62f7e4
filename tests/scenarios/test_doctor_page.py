"""The doctor's page of a serving process: on a listener of its own, for this machine only."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.op.scripted import Script
from tests.scenarios.house import House, free_port


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def asked(
    connection: http.client.HTTPConnection, path: str = "/", method: str = "GET", **fields: str
) -> tuple[int, dict[str, str], str]:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    found = {name.lower(): value for name, value in reply.getheaders()}
    text = reply.read().decode()
    connection.close()
    return reply.status, found, text


def test_it_shows_what_is_wrong_first_and_what_to_change_and_holds_no_secret(tmp_path: Path) -> None:
    at = tmp_path / "admin.sock"
    env = {"NIGHTPORTER_ADMIN_LISTEN": f"unix:{at}", "NIGHTPORTER_SCOPES": "openid email"}
    with House(tmp_path / "house", env=env) as house:
        ada = house.somebody()
        house.op.always["refresh"] = Script(process=False, status=401, body='{"error": "invalid_client"}')
        status, fields, text = asked(_Unix(at))
        assert status == 200
        assert fields["content-type"].startswith("text/html")
        assert fields["cache-control"] == "no-store"
        assert "default-src 'none'" in fields["content-security-policy"]
        assert text.index('class="level FAIL"') < text.index('class="level WARN"') < text.index("op.jwks")
        assert "Compare client_id and client_secret" in text
        assert "1 of 1 live sessions have no refresh token" in text, "and the store is looked at"
        assert "nightporter_provider_sign_ins_without_refresh_token" in text

        status, fields, text = asked(_Unix(at), "/report.json")
        body = json.loads(text)
        assert (status, body["exit_status"]) == (200, 2)
        levels = {each["check"]: each["level"] for each in body["findings"]}
        assert levels["op.secret"] == "FAIL"
        assert levels["config.refresh_token"] == "FAIL"
        assert body["seen"]["generic"]["sign_ins_without_refresh_token"] == 1
        for secret in (house.op.client_secret, ada.cookie, "eyJ"):
            assert secret not in text

        assert stat.S_IMODE(os.stat(at).st_mode) == 0o600
        assert asked(_Unix(at), "/", "POST")[0] == 405
        assert asked(_Unix(at), "/metrics")[0] == 404
        assert asked(_Unix(at), Sec_Fetch_Site="cross-site")[0] == 403
        assert asked(_Unix(at), Sec_Fetch_Site="none")[0] == 200
        assert house.replica.operations("/report.json").status == 404
        assert ada.get("/report.json").user == "ada-1", "to people it is a path of the app's"


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("[::1]", 200), ("rebound.example", 403)])
def test_over_tcp_it_is_for_this_machine_by_name_too(host: str, status: int, tmp_path: Path) -> None:
    port = free_port()
    with House(tmp_path, env={"NIGHTPORTER_ADMIN_LISTEN": f"127.0.0.1:{port}"}):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        assert asked(connection, Host=f"{host}:{port}")[0] == status
