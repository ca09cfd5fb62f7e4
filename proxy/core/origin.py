"""The public origins we are reached under: never taken from the request, only chosen by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxy.core.cookies import CookieNames, names_for
from proxy.core.seal import KeyRing


@dataclass(frozen=True, slots=True)
class Origin:
    """One public origin with its cookies.

    Attributes:
        url: e.g. ``https://app.example.com``, without a trailing slash.
        names: of its cookies.
        ring: seals its cookies; a cookie of one origin does not open at another.
    """

    url: str
    names: CookieNames
    ring: KeyRing

    @property
    def authority(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def https(self) -> bool:
        return self.url.startswith("https://")


class Origins:
    """The configured origins; the first is the main one.

    Args:
        urls: the setting `public_url`.
        keys: the cookie keys, newest first.
    """

    def __init__(self, urls: Sequence[str], keys: Sequence[bytes]) -> None:
        made = [Origin(url.rstrip("/"), names_for(url), KeyRing(keys, url.rstrip("/"))) for url in urls]
        self.main = made[0]
        self._by_authority = {origin.authority.lower().encode(): origin for origin in made}
        for origin in made:
            default_port = b":443" if origin.https else b":80"
            self._by_authority.setdefault(origin.authority.lower().encode() + default_port, origin)

    def of(self, host: bytes) -> Origin:
        """The origin that a Host field names, else the main one: a foreign Host chooses nothing."""
        if len(self._by_authority) <= 2:
            return self.main
        return self._by_authority.get(host.lower(), self.main)

    def known(self, origin: str) -> bool:
        """Whether an `Origin` field value is one of ours."""
        scheme, _, authority = origin.partition("://")
        found = self._by_authority.get(authority.lower().encode())
        return found is not None and found.url.startswith(scheme + "://")
