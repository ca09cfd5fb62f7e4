"""Header fields: which are passed on, which are stripped, which are ours to write.

Two rules carry everything. A name is judged by its **normal form** (lower case, every
non-alphanumeric folded to ``-``), because that is how far apart apps tell names: CGI, WSGI
and Rack read `X_Forwarded_User` and `X-Forwarded-User` as one variable. And ours are added
**after** everything else was removed, so nothing a client sends can take them away, not
even by naming them in `Connection` (CVE-2024-45410).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from urllib.parse import urlsplit

from proxy.core.cookies import CookieNames, cut
from proxy.core.header_names import (
    CLAIMS,
    HOP_BY_HOP,
    IDENTITY_NAMES,
    KNOWN_IDENTITY,
    KNOWN_PREFIXES,
    OVERRIDES,
)
from proxy.errors import ConfigError, Problem

# What a field is to us. Plain ints: they are compared once per line of every head.
PASS, DROP, HOST, COOKIE, CONNECTION, LENGTH, CODING, EXPECT, UPGRADE, FORWARDED, CLAIM, REQUEST_ID = range(
    12
)
SET_COOKIE, CACHE, SHARED, DATE, EVENTS, CHALLENGE = range(12, 18)
SOURCE = 18

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
"""The usual ones; others may be legal, too."""
IN_TARGET = bytes(c for c in range(0x21, 0x7F) if c != 0x23)
"""What a target may hold: visible ASCII without "#" (a fragment is never sent, RFC 9110 §4.2.5)."""

_REQUEST = {
    b"host": HOST,
    b"cookie": COOKIE,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"x-forwarded-for": FORWARDED,
    b"x-forwarded-proto": FORWARDED,
    b"x-forwarded-host": FORWARDED,
    b"x-forwarded-port": FORWARDED,
    b"forwarded": FORWARDED,
    b"x-request-id": REQUEST_ID,
    **dict.fromkeys(CLAIMS, CLAIM),
    **dict.fromkeys(HOP_BY_HOP, DROP),
}
_RESPONSE = {
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"upgrade": UPGRADE,
    b"set-cookie": SET_COOKIE,
    b"cache-control": CACHE,
    b"cdn-cache-control": SHARED,  # RFC 9213: targeted fields override Cache-Control at a CDN
    b"surrogate-control": SHARED,
    b"date": DATE,
    b"content-type": EVENTS,
    b"www-authenticate": CHALLENGE,
    **dict.fromkeys(HOP_BY_HOP, DROP),
}
_RESERVED = (frozenset(_REQUEST) - {b"x-real-ip"}) | {b"content-type"}

_ALNUM = b"0123456789abcdefghijklmnopqrstuvwxyz"
_FOLD = bytes(c if c in _ALNUM else c + 32 if 65 <= c <= 90 else 45 for c in range(256))
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SANE_ID = re.compile(rb"[A-Za-z0-9._~+/=-]{1,128}")
_SANE_HOST = re.compile(rb"[A-Za-z0-9._~:\[\]-]{1,255}")
_PLAIN = re.compile(r"(?! )[ -$&-~]*(?<! )")
_PLAIN_ITEM = re.compile(r"(?! )[ -$&-+\--~]*(?<! )")
_DIRECTIVE = re.compile(rb'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')


def normal(name: bytes) -> bytes:
    """The form in which a field name is judged: lower case, non-alphanumerics as ``-``."""
    return name.translate(_FOLD)


def _escape(text: str, plain: re.Pattern[str], also: str = "") -> bytes:
    if plain.fullmatch(text):
        return text.encode("ascii")
    # White space at the ends would be lost on the way (RFC 9110 §5.5), so it is escaped too.
    last = len(text) - 1
    out = bytearray()
    for at, char in enumerate(text):
        if " " <= char <= "~" and char != "%" and char not in also and not (char == " " and at in (0, last)):
            out += char.encode("ascii")
        else:
            out += b"".join(b"%%%02X" % byte for byte in char.encode("utf-8", "surrogatepass"))
    return bytes(out)


def identity_block(values: Sequence[tuple[str, str | Sequence[str]]]) -> bytes:
    """Header lines that tell the app who is calling, each ending in CRLF.

    Values are encoded injectively: controls, ``%``, non-ASCII (as UTF-8) and white space at
    the ends are percent-encoded, and in list items the separator ``,`` as well, so no value
    can look like another, like two, or like a line of its own. Empty list items are left out.

    Args:
        values: field name and one text, or name and the items of a list.
    Raises:
        ValueError: a name is no token (RFC 9110 §5.1).
    Source: RFC 3986 §2.1; RFC 9110 §5.5, §5.6.1.
    """
    out: list[bytes] = []
    for name, value in values:
        if not _TOKEN.fullmatch(name):
            raise ValueError("a header name must be a token")
        if isinstance(value, str):
            text = _escape(value, _PLAIN)
        else:
            text = b",".join(_escape(item, _PLAIN_ITEM, ",") for item in value if item)
        out.append(b"%b: %b\r\n" % (name.encode("ascii"), text))
    return b"".join(out)


def private(value: bytes) -> bytes:
    """A `Cache-Control` value that keeps a protected answer out of shared caches.

    ``public`` and ``s-maxage`` go. A value that then neither says ``private`` or
    ``no-store`` nor makes caches come back (``no-cache``) gets ``private``: a cookie, unlike
    `Authorization`, does not keep a shared cache from storing (RFC 9111 §3, §5.2.2).
    """
    kept: list[bytes] = []
    safe = False
    for found in _DIRECTIVE.findall(value):
        directive: bytes = found.strip(b" \t")
        name = directive.partition(b"=")[0].rstrip(b" \t").lower()
        if not name or name in (b"public", b"s-maxage"):
            continue
        # `private="Set-Cookie"` and `no-cache="…"` speak of single fields only.
        safe = safe or directive.lower() in (b"private", b"no-store", b"no-cache")
        kept.append(directive)
    return b", ".join(kept if safe else [b"private", *kept])


def sets_ours(value: bytes, ours: Sequence[CookieNames]) -> bool:
    """Say whether a `Set-Cookie` value of the app would set one of our cookies.

    A cookie without a name (``=__Host-np=x`` or ``__Host-np``) is sent back by browsers as
    if its value were the whole pair, so leading ``=`` count for nothing.
    """
    name = value.lstrip(b"= \t").partition(b";")[0].partition(b"=")[0].rstrip(b" \t")
    return any(names.is_ours(name) for names in ours)


class Trusted:
    """Peers whose `X-Forwarded-*` are believed; nobody by default.

    Args:
        cidrs: networks or addresses; ``unix`` stands for peers on a unix socket.
    Raises:
        ConfigError: an entry is no network, or trusts the whole world.
    """

    __slots__ = ("_networks", "_unix")

    def __init__(self, cidrs: Sequence[str] = ()) -> None:
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._unix = "unix" in cidrs
        problems: list[Problem] = []
        for cidr in cidrs:
            if cidr == "unix":
                continue
            try:
                network = ipaddress.ip_network(cidr, strict=False)
            except ValueError:
                problems.append(Problem("trusted_proxies", f"{cidr!r} is no network", "write 10.0.0.0/8"))
                continue
            if network.prefixlen == 0:
                # oauth2-proxy trusted 0.0.0.0/0 after a fix (#3506): everybody could spoof.
                problems.append(Problem("trusted_proxies", f"{cidr!r} trusts everybody", "name the proxies"))
            self._networks.append(network)
        if problems:
            raise ConfigError(problems)

    def __contains__(self, address: str) -> bool:
        if not address:
            return self._unix
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in self._networks)


class HeaderPolicy:
    """What the configuration says about fields; built once, asked once per new line.

    Args:
        cookie_names: ours (one set for each kind of public URL), cut out of `Cookie` and
            protected against the app's `Set-Cookie`.
        public_urls: origins this proxy is reached by; the first is used for untrusted peers
            unless another one has the request's host. Empty = nothing is said about them.
        identity: names that we set, stripped from requests in every spelling together with
            the well-known ones of other proxies.
        authorization_from_us: `Authorization` carries our token, so the client's is stripped.
        forwarded: also write RFC 7239 `Forwarded`.
        via: pseudonym for `Via` (RFC 9110 §7.6.3); "" leaves it out.
        sources: lower-case names by which an engine says what it asks about (`forward_auth.py`).
    Raises:
        ConfigError: an identity name is no token, or is one that frames or routes messages.
    """

    def __init__(
        self,
        cookie_names: Sequence[CookieNames],
        public_urls: Sequence[str] = (),
        *,
        identity: Sequence[str] = IDENTITY_NAMES,
        authorization_from_us: bool = False,
        forwarded: bool = False,
        via: str = "",
        sources: Collection[bytes] = (),
    ) -> None:
        self._sources = frozenset(sources)
        self.cookie_names = tuple(dict.fromkeys(cookie_names))
        self._forwarded = forwarded
        self._via = b"Via: 1.1 %b\r\n" % via.encode("ascii") if via else b""
        self._strip = set(KNOWN_IDENTITY | OVERRIDES)
        problems: list[Problem] = []
        for name in identity:
            folded = normal(name.encode("utf-8"))
            if not _TOKEN.fullmatch(name) or folded in _RESERVED:
                problems.append(Problem("identity headers", repr(name), "choose another field name"))
            self._strip.add(folded)
        if problems:
            raise ConfigError(problems)
        if authorization_from_us:
            self._strip.add(b"authorization")
        self._origins: dict[bytes, tuple[bytes, bytes, bytes]] = {}
        for url in public_urls:
            parts = urlsplit(url)
            scheme = parts.scheme.encode("ascii")
            port = parts.port or (443 if parts.scheme == "https" else 80)
            host = (
                parts.netloc.rpartition("@")[2]
                .lower()
                .encode("idna" if not parts.netloc.isascii() else "ascii")
            )
            origin = (scheme, host, b"%d" % port)
            self._origins.setdefault(host, origin)
            self._origins.setdefault(
                b"%b:%d" % (host.rpartition(b":")[0] if parts.port else host, port), origin
            )
        self._default = next(iter(self._origins.values()), None)

    def request_kind(self, name: bytes) -> int:
        """What a request field of this lower-case name is to us."""
        if name in self._sources:
            return SOURCE
        folded = name.translate(_FOLD)
        kind = _REQUEST.get(folded)
        if kind is not None:
            # `Transfer_Encoding` frames nothing here but may do so in a CGI-like app.
            return kind if name == folded else DROP
        if folded in self._strip or folded.startswith(KNOWN_PREFIXES):
            return DROP
        return PASS

    def response_kind(self, name: bytes) -> int:
        """What a response field of this lower-case name is to us."""
        folded = name.translate(_FOLD)
        kind = _RESPONSE.get(folded)
        if kind is not None:
            return kind if name == folded else DROP
        return DROP if folded.startswith(b"proxy-") else PASS

    def cookie_line(self, value: bytes) -> bytes:
        """The `Cookie` line for the app, without our cookies; b"" if nothing is left."""
        for names in self.cookie_names:
            value = cut(value, names)
        return b"Cookie: " + value if value else b""

    def forwarded_block(self, address: str, host: bytes) -> bytes:
        """`X-Forwarded-*` for an untrusted peer: its address, and the public URL's word.

        Args:
            address: the peer's IP address, "" on a unix socket.
            host: the request's Host, to choose among several public URLs.
        Returns:
            Lines, each ending in CRLF.
        """
        return self._block(address.encode("ascii", "replace") or b"unix:", self._origin(host), b"")

    def extended_block(
        self, address: str, host: bytes, tls: bool, get: Callable[[bytes], bytes | None]
    ) -> bytes:
        """`X-Forwarded-*` behind a trusted peer: its own words, extended by its address.

        Args:
            tls: whether the peer spoke TLS to us; used when it says nothing about the scheme.
            get: field value by lower-case name, repeated ones joined with ", ".
        Source: RFC 7239 §4, §5; what is not sane is replaced as for an untrusted peer.
        """
        scheme, origin_host, port = self._origin(host) or (b"https" if tls else b"http", host, b"")
        hop = address.encode("ascii", "replace") or b"unix:"
        chain = get(b"x-forwarded-for")
        claimed = (get(b"x-forwarded-proto") or b"").lower()
        if claimed in (b"http", b"https"):
            scheme, port = claimed, b"443" if claimed == b"https" else b"80"
        claimed = get(b"x-forwarded-host") or b""
        if _SANE_HOST.fullmatch(claimed):
            origin_host = claimed
        claimed = get(b"x-forwarded-port") or b""
        if claimed.isdigit() and len(claimed) <= 5:
            port = claimed
        return self._block(
            b"%b, %b" % (chain, hop) if chain else hop,
            (scheme, origin_host, port),
            get(b"forwarded") or b"",
            hop,
        )

    def request_id(self, claimed: bytes) -> bytes:
        """A trusted peer's request id, or b"" where it is not a sane token of ≤ 128 bytes."""
        return claimed if _SANE_ID.fullmatch(claimed) else b""

    def _origin(self, host: bytes) -> tuple[bytes, bytes, bytes] | None:
        if len(self._origins) <= 2:  # one, with and without its port
            return self._default
        return self._origins.get(host.lower(), self._default)

    def _block(
        self, chain: bytes, origin: tuple[bytes, bytes, bytes] | None, earlier: bytes, hop: bytes = b""
    ) -> bytes:
        out = b"X-Forwarded-For: %b\r\n" % chain
        if origin is not None:
            out += b"X-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % origin[:2]
            if origin[2]:
                out += b"X-Forwarded-Port: %b\r\n" % origin[2]
        if self._forwarded:
            hop = hop or chain
            node = b'"[%b]"' % hop if hop.count(b":") > 1 else b"unknown" if hop == b"unix:" else hop
            element = b"for=%b" % node
            if origin is not None:
                element += b';host="%b";proto=%b' % (origin[1], origin[0])
            out += b"Forwarded: %b\r\n" % (b"%b, %b" % (earlier, element) if earlier else element)
        return out + self._via
