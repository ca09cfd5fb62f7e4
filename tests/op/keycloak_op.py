"""Keycloak as a plain process: started once, a realm of its own for each mode.

It is put in place by `scripts/install-keycloak`; every run starts on a copy of the empty database
that was made there. Realms are made through its admin API.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.op.child import START_S, Child, ChildFailed
from tests.op.real import OPS, FurtherClient, RealOP
from tests.op.relay import Relay, forward

HOME = OPS / "keycloak" / "home"
START_LIMIT_S = 5 * START_S
"""A JVM on a busy machine; it takes ten seconds on an idle one."""

REUSE_BLIND_S = 1.2
"""A refresh token that comes back within the same second can go unseen: Keycloak compares whole seconds."""

MODES: Mapping[str, Mapping[str, Any]] = {
    "off": {"revokeRefreshToken": False},
    "reuse-0": {"revokeRefreshToken": True, "refreshTokenMaxReuse": 0},
    "reuse-1": {"revokeRefreshToken": True, "refreshTokenMaxReuse": 1},
    "offline": {"revokeRefreshToken": True, "refreshTokenMaxReuse": 0},
}
"""The realm's settings; `offline` asks for scope offline_access, whose sessions outlive a logout."""


class KeycloakServer:
    """The process. `begin` returns at once; `port` waits until it is up.

    Args:
        home: directory for its database and log.
    """

    def __init__(self, home: Path) -> None:
        database = home / "h2"
        shutil.copytree(HOME / "data" / "h2", database)
        command = [
            *("bash", str(HOME / "bin" / "kc.sh"), "start-dev", "--db=dev-file"),
            *("--http-host=127.0.0.1", "--http-port=0"),
            f"--db-url=jdbc:h2:file:{database / 'keycloakdb'};NON_KEYWORDS=VALUE",
        ]
        heap = {"JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m"}
        self._child = Child("keycloak", command, home / "keycloak.log", environ=heap)
        self._port = 0
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        with self._lock:
            if not self._port:
                said = self._child.line("Listening on", START_LIMIT_S)
                found = re.search(r"Listening on: http://[\d.]+:(\d+)", said)
                if found is None:
                    raise ChildFailed(f"keycloak did not say where it listens: {said}")
                self._port = int(found[1])
            return self._port

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """A call of the admin API; what it answers, None for nothing."""
        token = self._json(
            "POST",
            "/realms/master/protocol/openid-connect/token",
            {"Content-Type": "application/x-www-form-urlencoded"},
            urlencode(
                {
                    "grant_type": "password",
                    "client_id": "admin-cli",
                    "username": "admin",
                    "password": "admin",
                }
            ).encode(),
        )["access_token"]
        fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return self._json(
            method, "/admin" + path, fields, json.dumps(body).encode() if body is not None else None
        )

    def _json(self, method: str, path: str, fields: Mapping[str, str], body: bytes | None) -> Any:
        host = f"127.0.0.1:{self.port}"
        status, _, answer = forward(self.port, method, path, [("Host", host), *fields.items()], body)
        assert status in (200, 201, 204), (method, path, status, answer[:500])
        return json.loads(answer) if answer else None

    def stop(self) -> None:
        self._child.stop()


class KeycloakOP(RealOP):
    """One realm.

    Args:
        server: that it lives in.
        app: public URL of the client.
        life_s: life of an access token.
        mode: one of `MODES`.
        realm: its name; "" = the mode's.
        further: clients beside the one.
        settings: of the realm, beside the mode's.
        back_channel: it tells the client of sign-outs.
    """

    profile = "keycloak"

    def __init__(
        self,
        server: KeycloakServer,
        app: str,
        *,
        life_s: int = 300,
        mode: str = "off",
        realm: str = "",
        further: Sequence[FurtherClient] = (),
        settings: Mapping[str, Any] | None = None,
        back_channel: bool = False,
    ) -> None:
        relay = Relay()
        realm = realm or mode
        super().__init__(f"{relay.url}/realms/{realm}", "keycloak-client", "keycloak canary +&", relay)
        self.scopes = "openid profile email" + (" offline_access" if mode == "offline" else "")
        relay.upstream = server.port
        attributes = {"post.logout.redirect.uris": f"{app}/oauth2/logged-out"}
        if back_channel:
            attributes |= {
                "backchannel.logout.url": f"{app}/oauth2/backchannel-logout",
                "backchannel.logout.session.required": "true",
            }
        server.admin(
            "POST",
            "/realms",
            {
                "realm": realm,
                "enabled": True,
                "sslRequired": "external",
                "accessTokenLifespan": life_s,
                **MODES[mode],
                **(settings or {}),
                "clients": [
                    {
                        "clientId": self.client_id,
                        "secret": self.client_secret,
                        "redirectUris": [f"{app}/oauth2/callback"],
                        "attributes": attributes,
                    },
                    *map(client_of, further),
                ],
                "users": [
                    {
                        "username": name,
                        "email": f"{name}@example.com",
                        "emailVerified": True,
                        "firstName": name.title(),
                        "lastName": "Keycloak",
                        "enabled": True,
                        "credentials": [{"type": "password", "value": name, "temporary": False}],
                        "realmRoles": ["offline_access"],
                    }
                    for name in ("ada", "ben", "cleo")
                ],
            },
        )


_AUTHENTICATORS = {"client_secret_jwt": "client-secret-jwt", "private_key_jwt": "client-jwt"}


def client_of(further: FurtherClient) -> dict[str, Any]:
    """A client as Keycloak's admin API writes it."""
    says: dict[str, Any] = {
        "clientId": further.client_id,
        "clientAuthenticatorType": _AUTHENTICATORS.get(further.method, "client-secret"),
        "redirectUris": ["http://127.0.0.1/none"],
    }
    if further.key is None:
        return {**says, "secret": further.secret}
    keys = json.dumps({"keys": [dict(further.key)]})
    return {**says, "attributes": {"use.jwks.string": "true", "jwks.string": keys}}
