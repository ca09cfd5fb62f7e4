"""django-oauth-toolkit as a plain process (`servers/django_server.py` configures it).

It rotates; what it does with an old refresh token is one of three modes. Its issuer has a path, its
discovery document names no revocation endpoint (it has one), and rotation ends the old access token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.op.child import Child
from tests.op.real import OPS, RealOP
from tests.op.relay import Relay

SERVER = Path(__file__).parent / "servers" / "django_server.py"

MODES: Mapping[str, Mapping[str, Any]] = {
    "rotate": {"REFRESH_TOKEN_REUSE_PROTECTION": False},
    "protect": {"REFRESH_TOKEN_REUSE_PROTECTION": True},
    "grace": {"REFRESH_TOKEN_REUSE_PROTECTION": True, "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 60},
}
"""rotate: an old token is refused, the others live on. protect: it ends the family. grace: for a
minute it gives the same successor to everybody who asks (then it ends the family)."""


class DjangoOP(RealOP):
    """The running provider.

    Args:
        home: directory for its database and log.
        app: public URL of the client.
        life_s: life of an access token.
        mode: one of `MODES`.
    """

    agree: ClassVar[Mapping[str, str]] = {"allow": "yes"}

    def __init__(self, home: Path, app: str, *, life_s: float = 300, mode: str = "rotate") -> None:
        relay = Relay()
        super().__init__(f"{relay.url}/o", "django-client", "django canary", relay)
        asked = {
            "home": str(home),
            "issuer": self.issuer,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "redirect_uri": f"{app}/oauth2/callback",
            "post_logout_uri": f"{app}/oauth2/logged-out",
            "life_s": life_s,
            "oauth": MODES[mode],
            "people": ["ada", "ben", "cleo"],
        }
        python = OPS / "django" / "bin" / "python"
        self.child = Child("django", [str(python), str(SERVER), json.dumps(asked)], home / "op.log")
        relay.upstream = json.loads(self.child.line('{"port"'))["port"]

    def metadata(self) -> dict[str, Any]:
        return {"revocation_endpoint": f"{self.issuer}/revoke_token/"} | super().metadata()

    def stop(self) -> None:
        super().stop()
        self.child.stop()
