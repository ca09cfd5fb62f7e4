"""Forward auth: an engine carries the traffic and asks about each request.

What the engine says about the original request decides, so it is read from exactly one place,
which the configured engine writes itself and no client can reach (oauth2-proxy GHSA-7x63-xv5r-3p2x
believed `X-Forwarded-Uri` from anybody). Missing, doubled or malformed: refused.

Answers follow what the engine can do with them. Every 2xx names every header that the app may
read, with an empty value where there is nothing to say, so that the engine overwrites what
a client sent; `Cookie` is among them, without ours. Everything else than 2xx goes to the
client as it is, except behind nginx, which knows only 2xx, 401 and 403, and behind Envoy, which
lets no 5xx through.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from proxy.core.gate import Answer, Forward
from proxy.core.headers import IN_TARGET, METHODS

_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,64}\])(?::[0-9]{1,5})?")
_CODES = {302: 401, 303: 401}


class Engine(enum.StrEnum):
    """Who asks."""

    NGINX = "nginx"
    TRAEFIK = "traefik"
    CADDY = "caddy"
    HAPROXY = "haproxy"
    ENVOY = "envoy"


_SOCKET = b"sec-websocket-key"
_SOURCES = {
    Engine.NGINX: (b"x-original-method", b"x-original-uri", b"host"),
    Engine.TRAEFIK: (b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"),
    Engine.CADDY: (b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"),
    Engine.HAPROXY: (b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"),
}
"""Fields that hold the original method, target and host. Envoy sends the request itself."""

ENVOY_PREFIX = b"/ext-authz"
"""In front of the target that Envoy asks about (its `path_prefix`): another engine that asks at the wrong
address, or a browser that got there, has not said this, and is refused instead of believed."""


def source_names(engine: Engine) -> frozenset[bytes]:
    """The fields that `Questions` looks at, for the policy by which the engine's heads are read."""
    return frozenset((_SOCKET, *_SOURCES.get(engine, ()))) - {b"host"}


def target_name(engine: Engine) -> bytes:
    """The field in which it says the original target; none for Envoy, which sends the request itself."""
    return _SOURCES[engine][1] if engine in _SOURCES else b""


class Question(Protocol):
    """The engine's request; see `wire/head.py`."""

    @property
    def method(self) -> bytes: ...
    @property
    def target(self) -> bytes: ...
    @property
    def host(self) -> bytes: ...
    @property
    def cookie(self) -> bytes: ...
    @property
    def cookie_line(self) -> bytes: ...
    @property
    def request_id(self) -> bytes: ...
    @property
    def sources(self) -> Sequence[bytes]: ...
    def get(self, name: bytes, /) -> bytes | None: ...


class Original(Struct, eq=False):
    """The request that the engine asks about, as the gate looks at one.

    Attributes:
        question: the engine's.
        method, target, path, host: of the original request.
        cookie: as the client sent it.
        upgrade_websocket: it wants to become a WebSocket, whatever the engine made of its
            `Upgrade`; over HTTP/2 that is an extended CONNECT (RFC 8441).
    """

    question: Question
    method: bytes
    target: bytes
    path: bytes
    host: bytes
    cookie: bytes
    request_id: bytes
    upgrade_websocket: bool

    def get(self, name: bytes) -> bytes | None:
        """A field's value, by lower-case name."""
        return self.question.get(name)


class Questions:
    """Reads what one engine asks about.

    Args:
        engine: who asks.
    """

    def __init__(self, engine: Engine) -> None:
        self._names = _SOURCES.get(engine)

    def original(self, question: Question) -> Original | None:
        """The request that is asked about; None if the engine's word is not plain.

        Args:
            question: read by a policy that knows `source_names`.
        """
        method = target = host = None
        socket = False
        in_method, in_target, in_host = self._names or (b"", b"", b"")
        for line in question.sources:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name == in_target and target is None:
                target = value.strip(b" \t")
            elif name == in_method and method is None:
                method = value.strip(b" \t")
            elif name == in_host and host is None:
                host = value.strip(b" \t")
            elif name == _SOCKET:
                socket = True
            else:  # a second one
                return None
        if not in_target:  # Envoy's question is the request itself
            method, host = question.method, question.host
            target = question.target.removeprefix(ENVOY_PREFIX)
            if target == question.target:
                return None
        elif in_host == b"host":
            # One only, and a plain one, or the request would have been refused.
            host = question.host
            if not host or host.endswith(b":"):
                return None
        elif host is None or _HOST.fullmatch(host) is None:
            return None
        if target is None or target[:1] != b"/" or target.translate(None, IN_TARGET):
            return None
        if method is None or (method not in METHODS and not _METHOD.fullmatch(method)):
            return None
        path, socket = target.partition(b"?")[0], socket or method == b"CONNECT"
        return Original(question, method, target, path, host, question.cookie, question.request_id, socket)


class Answers:
    """Turns verdicts into answers for one engine.

    Args:
        engine: who asks.
        names: every header that we may set for the app.
    """

    def __init__(self, engine: Engine, names: Sequence[str]) -> None:
        self._engine = engine
        self._names = [name.encode("ascii") for name in names]

    def passed(self, forward: Forward, cookie_line: bytes) -> Answer:
        """2xx: the request may go on.

        Args:
            cookie_line: for the app, without ours; b"" if nothing is left.
        """
        ready = self._fields(forward.identity)
        if cookie_line:
            ready += cookie_line + b"\r\n"
        else:
            ready += b"Cookie:\r\n"
            if self._engine is Engine.ENVOY:
                ready += b"x-envoy-auth-headers-to-remove: cookie\r\n"
        for value in forward.set_cookie:
            ready += b"Set-Cookie: %b\r\n" % value
        return Answer(200, decision=forward.decision, ready=ready)

    def refused(self, answer: Answer, home: str) -> Answer:
        """Anything but 2xx.

        Args:
            home: public origin of the original request.
        """
        if self._engine is Engine.TRAEFIK:
            # It reads a relative Location as one of the address it asked.
            fields = [
                (name, home.encode("ascii") + value if name == b"Location" and value[:1] == b"/" else value)
                for name, value in answer.headers
            ]
            return Answer(answer.status, fields, answer.body, answer.decision)
        if self._engine is Engine.ENVOY and answer.status >= 500:
            # It takes a 5xx for a failure of ours and hides it; its configuration turns this back.
            return Answer(429, answer.headers, answer.body, answer.decision)
        if self._engine is not Engine.NGINX:
            return answer
        fields = [field for field in answer.headers if field[0].lower() != b"location"]
        fields += [
            (b"X-Nightporter-Location", value) for name, value in answer.headers if name == b"Location"
        ]
        status = _CODES.get(answer.status, answer.status)
        if status not in (401, 403):
            # nginx makes a 500 of everything else; its configuration turns this back.
            fields.append((b"X-Nightporter-Status", b"%d" % status))
            status = 403
        return Answer(status, fields, answer.body, answer.decision)

    def _fields(self, identity: bytes) -> bytes:
        said = {line.partition(b":")[0].lower() for line in identity.split(b"\r\n")}
        empty = [name for name in self._names if name.lower() not in said]
        return identity + b"".join([name + b":\r\n" for name in empty])
