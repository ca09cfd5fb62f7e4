"""Canaille as a plain process (`servers/canaille_server.py` configures it).

It rotates and refuses old tokens, sends no ID token with a refresh, and its refresh token lives no
longer than the access token that came with it: a person who asks for nothing near the end of
that life has to sign in again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.op.child import Child
from tests.op.real import OPS, RealOP
from tests.op.relay import Relay

SERVER = Path(__file__).parent / "servers" / "canaille_server.py"


class CanailleOP(RealOP):
    """The running provider.

    Args:
        home: directory for its log.
        app: public URL of the client.
        life_s: life of an access token, and of the refresh token.
    """

    scopes = "openid profile email groups"
    fields: ClassVar[Mapping[str, str]] = {"login": "{name}", "password": "{name}"}
    agree: ClassVar[Mapping[str, str]] = {"answer": "logout"}

    def __init__(self, home: Path, app: str, *, life_s: float = 300) -> None:
        relay = Relay()
        super().__init__(relay.url, "canaille-client", "canaille-canary", relay)
        asked = {
            "host": relay.url.removeprefix("http://"),
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "redirect_uri": f"{app}/oauth2/callback",
            "post_logout_uri": f"{app}/oauth2/logged-out",
            "life_s": life_s,
            "people": ["ada", "ben", "cleo"],
        }
        python = OPS / "canaille" / "bin" / "python"
        self.child = Child("canaille", [str(python), str(SERVER), json.dumps(asked)], home / "op.log")
        relay.upstream = json.loads(self.child.line('{"port"'))["port"]

    def stop(self) -> None:
        super().stop()
        self.child.stop()
