"""Where Redis is: the store's URL as a value. Pure; raises ValueError only.

::

    redis://user:password@host:6379/0                      one server (or one name for the primary)
    rediss://…                                             the same over TLS
    redis+sentinel://user:password@host1,host2:26379/name  the primary that Sentinels know as `name`
    redis+cluster://user:password@host1:6379,host2         a cluster, found through any of its nodes

`rediss+sentinel` and `rediss+cluster` are the same over TLS. User and password are percent-encoded.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import unquote

from msgspec import Struct

from proxy.config.grammar import HOST

SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_UNSEEN = re.compile(r"[\x00-\x20\x7f]")


class RedisAddress(Struct, frozen=True):
    """A Redis store's URL, read.

    Attributes:
        kind: one server, Sentinels, or a cluster.
        hosts: servers, Sentinels or nodes, each with its port.
        tls: whether to speak TLS, to Sentinels too.
        username: ACL user; "" = the default one.
        password: of that user.
        service: the primary's name at the Sentinels, else "".
        db: number of the database.
    """

    kind: Literal["single", "sentinel", "cluster"]
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    username: str = ""
    password: str = ""
    service: str = ""
    db: int = 0

    def __repr__(self) -> str:
        return f"RedisAddress({self.kind}, {self.hosts})"  # no user, no password


class AddressError(ValueError):
    """What is wrong with the URL, all of it; no part of a user or password is repeated."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def is_redis(url: str) -> bool:
    """Whether the URL means Redis, by its scheme alone."""
    return url.partition("://")[0] in SCHEMES


def redis_address(url: str) -> RedisAddress:
    """Read a Redis store's URL.

    Raises:
        AddressError: with every problem found.
    """
    scheme, _, rest = url.partition("://")
    tls = scheme.startswith("rediss")
    kind: Literal["single", "sentinel", "cluster"] = "single"
    if scheme.endswith("+sentinel"):
        kind = "sentinel"
    elif scheme.endswith("+cluster"):
        kind = "cluster"
    wrong: list[str] = []
    if _UNSEEN.search(url) or not url.isascii():
        wrong.append("white space or characters that must be percent-encoded")
    if "?" in rest or "#" in rest:
        wrong.append("a query or a fragment (percent-encode ? and # in a password)")
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, _, path = rest.partition("/")
    userinfo, at, places = authority.rpartition("@")
    if at and "@" in userinfo:
        wrong.append("an @ in the user or password that is not percent-encoded")
    username, _, password = userinfo.partition(":")
    if at and not password:
        wrong.append("a user without a password")
    default_port = 26379 if kind == "sentinel" else 6379
    hosts: list[tuple[str, int]] = []
    for place in places.split(","):
        try:
            hosts.append(_place(place, default_port))
        except ValueError as error:
            wrong.append(str(error))
    if kind == "single" and len(hosts) > 1:
        wrong.append("several hosts, which only redis+sentinel:// and redis+cluster:// take")
    service, db = "", path
    if kind == "sentinel":
        service, _, db = path.partition("/")
        if not service:
            wrong.append("no name of the primary: it stands behind the Sentinels, as in …:26379/mymaster")
    if kind == "cluster" and db.strip("/"):
        wrong.append("a database number, which no cluster has")
    elif db and not re.fullmatch(r"[0-9]{1,5}/?", db):
        wrong.append("a path that is no database number")
    if wrong:
        raise AddressError(wrong)
    number = int(db.strip("/") or 0)
    return RedisAddress(
        kind, tuple(hosts), tls, unquote(username), unquote(password), unquote(service), number
    )


def _place(text: str, default_port: int) -> tuple[str, int]:
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError("an IPv6 address that does not end in ]")
        port = port[1:]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("brackets without an IPv6 address in them") from None
    else:
        host, _, port = text.partition(":")
        if not host:
            raise ValueError("a place without a host")
        if not HOST.fullmatch(host):
            raise ValueError("a host that is no name and no address (IPv6 needs brackets)")
    if port and (not port.isdigit() or not 0 < int(port) < 65536):
        raise ValueError("a port that is not from 1 to 65535")
    return host, int(port or default_port)
