"""The one RP that the demo's OP knows."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus

from proxy.demo.grants import Refused


@dataclass(frozen=True, slots=True)
class Client:
    """See the module's docstring.

    Attributes:
        origin: its public origin. The redirect URI below it is exact; a post-logout target may
            be any page of the origin, because the demo should outlive a renamed page.
    """

    client_id: str
    secret: str
    origin: str

    @property
    def redirect_uri(self) -> str:
        return self.origin + "/oauth2/callback"

    def may_land_on(self, uri: str) -> bool:
        """Whether a sign-out may end on this page."""
        return uri == self.origin or uri.startswith(self.origin + "/")

    def authenticate(self, authorization: str, form: Mapping[str, str]) -> None:
        """client_secret_basic or client_secret_post, one of them (RFC 6749 §2.3.1).

        Args:
            authorization: the header field, "" if there is none.

        Raises:
            Refused: ``invalid_client`` or ``invalid_request``.
        """
        scheme, _, blob = authorization.partition(" ")
        if scheme:
            if "client_secret" in form:
                raise Refused("invalid_request", "Two ways of client authentication at once.")
            try:
                decoded = base64.b64decode(blob, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                decoded = ""
            user, _, password = decoded.partition(":")
            client_id, secret = unquote_plus(user), unquote_plus(password)
            known = scheme.lower() == "basic"
        else:
            client_id, secret, known = form.get("client_id", ""), form.get("client_secret", ""), True
        right = hmac.compare_digest(client_id.encode(), self.client_id.encode())
        right &= hmac.compare_digest(secret.encode(), self.secret.encode())
        if not (known and right):
            raise Refused("invalid_client", "Client id or secret is wrong.", status=401)
