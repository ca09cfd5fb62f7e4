"""What the OP client is told at the start."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import field

from proxy.config.grammar import is_loopback
from proxy.core.discreet import Discreet
from proxy.core.providers import Profile


class OPConfig(Discreet, frozen=True):
    """One provider, as configured.

    Attributes:
        issuer: exact.
        client_id: ours there.
        client_secret: "" if there is none.
        client_secret_next: another one, used where the OP refuses the first; "" if there is none.
        client_key: PEM or JWK for `private_key_jwt`, "" if there is none.
        client_auth: auto, basic, post, client_secret_jwt, private_key_jwt or none.
        assertion_audience: whom a `client_secret_jwt` or `private_key_jwt` is addressed to:
            ``token_endpoint`` (what most OPs document) or ``issuer`` (draft-ietf-oauth-rfc7523bis).
        redirect_uri: sent along with a refresh where the profile says so; "" = never.
        scopes: asked for at sign-in.
        authorize_params: further authorization parameters.
        profile: the provider's ways.
        ca_file: PEM of the CAs to trust instead of the system's; "" = the system's.
        proxy: egress HTTP proxy, "" = none; the environment's are never used.
        timeout_s: limit of one request, reply included.
        connect_timeout_s: limit of connecting.
        max_answer_bytes: a longer answer is refused.
        jwks_refetch_s: shortest time between two fetches of the keys.
        skew_s: tolerated clock difference.
        insecure_http: plain HTTP beyond loopback is allowed.
    """

    issuer: str
    client_id: str
    client_secret: str = ""
    client_secret_next: str = ""
    client_key: str = ""
    client_auth: str = "auto"
    assertion_audience: str = "token_endpoint"
    redirect_uri: str = ""
    scopes: tuple[str, ...] = ()
    authorize_params: Mapping[str, str] = field(default_factory=dict[str, str])
    profile: Profile = field(default_factory=lambda: Profile("generic"))
    ca_file: str = ""
    proxy: str = ""
    timeout_s: float = 15.0
    connect_timeout_s: float = 5.0
    max_answer_bytes: int = 1 << 20
    jwks_refetch_s: float = 30.0
    skew_s: float = 60.0
    insecure_http: bool = False

    def may_use(self, url: str) -> bool:
        """Whether an address may be called: https, or plain HTTP where that was allowed.

        Plain HTTP to loopback is for trials, whose issuer is there too: an OP elsewhere has no
        business with this machine's own ports.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            return False
        if not host or port == 0 or parts.username is not None or parts.fragment or not url.isascii():
            return False
        if any(ord(char) <= 32 or ord(char) == 127 for char in url):
            return False
        if parts.scheme == "https":
            return True
        here = is_loopback(host) and is_loopback(urlsplit(self.issuer).hostname or "")
        return parts.scheme == "http" and (self.insecure_http or here)
