"""How values are written: addresses, origins, keys, lists. Pure; raises ValueError only."""

from __future__ import annotations

import binascii
import ipaddress
import re
from base64 import urlsafe_b64decode
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

HOST = re.compile(r"(?:(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.?")
DOMAIN = re.compile(r"(?:(?!-)[a-z0-9-]{1,63}(?<!-)\.)+(?!-)[a-z0-9-]{2,63}(?<!-)")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSEEN = re.compile(r"[\x00-\x20\x7f]")


class Address(NamedTuple):
    """Where to listen or to connect.

    Attributes:
        host: name or IP address without brackets; "" for a unix socket.
        path: path of the unix socket, else "".
        tls: whether to speak TLS (an https upstream).
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False


def listen_address(text: str) -> Address:
    """Read ``host:port``, ``[v6]:port`` or ``unix:/path``."""
    if text.startswith("unix:"):
        return _unix(text)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("no port")
    return Address(_host(host), int(port))


def upstream_address(text: str) -> Address:
    """Read ``http://host:port``, ``https://host:port`` or ``unix:/path``."""
    if text.startswith("unix:"):
        return _unix(text)
    url = web_url(text)
    if url.path not in ("", "/") or "?" in text or "#" in text:
        raise ValueError("more than an origin")
    tls = url.scheme == "https"
    return Address(url.hostname or "", url.port or (443 if tls else 80), "", tls)


def upstream_rule(text: str) -> tuple[str, str]:
    """Read ``/path/``, ``host/`` or ``host/path``: host ("" = any) and path prefix ("" = all).

    Raises:
        ValueError: it is neither.
    """
    host, slash, rest = text.partition("/")
    if not slash:
        raise ValueError("no path; a host alone is written host/")
    if not re.fullmatch(r"(?:[A-Za-z0-9_~-][A-Za-z0-9._~-]*(?:/|$))*", rest):
        raise ValueError("not a plain path")
    if host:
        name, _, port = host.partition(":")
        _host(name)
        if ":" in host and not (port.isascii() and port.isdigit()):
            raise ValueError("not a port")
    path = "/" + rest.rstrip("/")
    return host.lower(), "" if path == "/" else path


def web_url(text: str) -> SplitResult:
    """Read an absolute http(s) URL without credentials; whatever urlsplit forgives is refused."""
    if _UNSEEN.search(text) or "\\" in text or not text.isascii():
        raise ValueError("characters that no URL has")
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not text.lower().startswith(f"{url.scheme}://"):
        raise ValueError("not http:// or https://")
    if not url.hostname or "@" in url.netloc:
        raise ValueError("no host, or credentials in it")
    host, _, port = url.netloc.rpartition(":")
    if not host or url.netloc.endswith("]"):
        host, port = url.netloc, ""
    elif not port:
        raise ValueError("a colon without a port")
    _host(host)
    try:
        good = url.port != 0
    except ValueError:  # its message would repeat what stands there
        good = False
    if not good:
        raise ValueError("no port from 1 to 65535")
    return url


def origin(text: str) -> str:
    """Read a web origin and write it the one canonical way: lower case, no default port, no slash."""
    url = web_url(text)
    if url.path not in ("", "/") or "?" in text or "#" in text:
        raise ValueError("more than an origin")
    host = (url.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    default = 443 if url.scheme == "https" else 80
    return f"{url.scheme}://{host}" + ("" if url.port in (None, default) else f":{url.port}")


def is_loopback(host: str) -> bool:
    """Whether a host can only mean this machine (RFC 6761 §6.3 for ``localhost``)."""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def decode_keys(text: str) -> tuple[bytes, ...]:
    """Read cookie keys: 32 bytes each as URL-safe base64, padding optional, newest first.

    Raises:
        ValueError: says which key (from 1) is wrong and how, without a character of it.
    """
    keys: list[bytes] = []
    for number, word in enumerate(split(text), 1):
        if not re.fullmatch(r"[A-Za-z0-9_-]+={0,2}", word):
            raise ValueError(f"key {number} is not URL-safe base64")
        bare = word.rstrip("=")
        try:
            key = urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
        except binascii.Error:
            raise ValueError(f"key {number} is not URL-safe base64") from None
        if len(key) != 32:
            raise ValueError(f"key {number} holds {len(key)} bytes")
        if key in keys:
            raise ValueError(f"key {number} is there twice")
        keys.append(key)
    return tuple(keys)


def split(text: str) -> list[str]:
    """Words of a list in one text: separated by whitespace or commas."""
    return text.replace(",", " ").split()


def _unix(text: str) -> Address:
    path = text[len("unix:") :]
    # sun_path holds 108 bytes with its final NUL (unix(7))
    if not path.startswith("/") or path.endswith("/") or len(path.encode()) > 107 or _UNSEEN.search(path):
        raise ValueError("not an absolute path of at most 107 bytes")
    return Address(path=path)


def _host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return str(ipaddress.IPv6Address(host[1:-1]))
    if re.fullmatch(r"[0-9.]+", host):
        return str(ipaddress.IPv4Address(host))
    if not HOST.fullmatch(host) or len(host) > 253:
        raise ValueError("not a host name")
    return host
