"""The public origins we are reached under: never taken from the request, only chosen by it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from proxy.core.cookies import CookieNames, names_for
from proxy.core.seal import KeyRing


class Origin(Struct, frozen=True):
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
    def host(self) -> str:
        """The host alone, in lower case."""
        return urlsplit(self.url).hostname or ""

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
        self.all = tuple(made)
        self._by_authority = {origin.authority.lower().encode(): origin for origin in made}
        for origin in made:
            default_port = b":443" if origin.https else b":80"
            self._by_authority.setdefault(origin.authority.lower().encode() + default_port, origin)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Names of the cookie keys, newest first; they say nothing about the keys."""
        return tuple(name.hex() for name in self.main.ring.ids)

    @property
    def sealing(self) -> str:
        """Name of the key that seals cookies now."""
        return self.main.ring.sealing.hex()

    def agree(self, announced: Sequence[Collection[str]]) -> bool:
        """Seal with the newest key that every live replica can open.

        Args:
            announced: key names of each replica. Where no key is common to all, the one that
                seals now stays: somebody's configuration is wrong, and changing keys heals nothing.

        Returns:
            Whether the sealing key changed.
        """
        common = [name for name in self.key_ids if all(name in keys for keys in announced)]
        return bool(common) and self.seal_with(common[0])

    def seal_with(self, name: str) -> bool:
        """Seal with the key of this name if the ring holds it; whether that is a change."""
        if name == self.sealing or name not in self.key_ids:
            return False
        for origin in self.all:
            origin.ring.seal_with(bytes.fromhex(name))
        return True

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
