"""Our own side: public URLs and cookies, the store, the app."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from proxy.config import Settings
from proxy.config.grammar import Address, is_loopback, upstream_address
from proxy.config.redis_address import is_redis
from proxy.core.cookies import names_for
from proxy.doctor import sessions
from proxy.doctor.report import Finding, fail, ok, warn

CONNECT_S = 3.0


async def checks(settings: Settings) -> AsyncIterator[Finding]:
    """Everything that is ours to get right."""
    for finding in public_urls(settings):
        yield finding
    for finding in limits(settings):
        yield finding
    async for finding in store(settings):
        yield finding
    async for finding in sessions.checks(settings):
        yield finding
    async for finding in upstream(settings):
        yield finding


def public_urls(settings: Settings) -> Iterator[Finding]:
    """Whether cookies can do their work at each public address."""
    for url in settings.public_urls:
        name = names_for(url).session.decode()
        if url.startswith("https://"):
            yield ok("own.cookie", f"{url}: {name}, which only this host can set or read")
        elif is_loopback(urlsplit(url).hostname or ""):
            yield ok("own.cookie", f"{url}: {name}, for trials on this machine")
        else:
            yield warn(
                "own.cookie",
                f"{url} is plain HTTP: {name} travels in the clear",
                "Whoever sees the cookie has the session.",
                "Put TLS in front and write https:// in public_url.",
            )


def limits(settings: Settings) -> Iterator[Finding]:
    """Whether the session's own limits defeat the refresh tokens."""
    if settings.idle_s < 3600:
        yield warn(
            "own.idle",
            f"idle_s is {settings.idle_s:.0f} s",
            "People who pause longer sign in again, whatever the provider allows.",
            "Raise idle_s, if that is not meant so.",
        )
    else:
        yield ok("own.idle", f"sessions end after {settings.idle_s / 3600:.0f} h unused")


async def store(settings: Settings) -> AsyncIterator[Finding]:
    """The session store: by its own checks."""
    where = settings.store.reveal()
    if is_redis(where):
        from proxy.doctor import redis

        async for finding in redis.checks(settings):
            yield finding
    elif settings.sqlite_path:
        yield sqlite(Path(settings.sqlite_path))
    else:
        yield warn(
            "store.kind",
            "sessions are in memory",
            "A restart signs everybody out.",
            "Set store to sqlite:/path or redis://…",
        )


def sqlite(path: Path) -> Finding:
    """The directory of the database: there, writable, on a disk that stays."""
    parent = path.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return fail(
            "store.sqlite",
            f"{parent} cannot be written",
            "No session can begin.",
            "Create the directory and give it to the user that runs Nightporter.",
        )
    if parent.resolve().is_relative_to("/tmp"):  # noqa: S108  # looked at, not used
        return warn(
            "store.sqlite",
            f"{path} is in /tmp",
            "It may be gone after a restart.",
            "Put it on a volume that stays.",
        )
    return ok("store.sqlite", f"{path}: sessions survive restarts; one process only")


async def upstream(settings: Settings) -> AsyncIterator[Finding]:
    """Whether each app answers, and whether it can be reached around us."""
    texts = dict.fromkeys(text for text in (settings.upstream, *settings.upstreams.values()) if text)
    if not texts:
        yield ok("app.reach", "none is configured: the engine that asks for forward auth carries the traffic")
        what = "Nightporter cannot see whether the app is reached around that engine"
        why = "Whoever reaches it without the engine can send any identity header."
        yield warn("app.around", what, why, "Let a network policy admit the engine only.")
    for text in texts:
        async for finding in _app(upstream_address(text), settings):
            yield finding


async def _app(address: Address, settings: Settings) -> AsyncIterator[Finding]:
    if address.path:
        good = await _connects_unix(address.path)
        yield ok("app.reach", f"{address.path} takes connections") if good else _away(address.path)
        yield ok("app.around", "a unix socket: nobody else reaches the app")
        return
    place = f"{address.host}:{address.port}"
    ca_file = settings.upstream_tls.ca_file or settings.ca_file or None
    context = ssl.create_default_context(cafile=ca_file) if address.tls else None
    name = settings.upstream_tls.server_name if address.tls else ""
    good = await _connects(address.host, address.port, context, name)
    yield ok("app.reach", f"{place} takes connections") if good else _away(place)
    if not is_loopback(address.host):
        yield warn(
            "app.around",
            f"the app is at {place}",
            "Whoever reaches it without Nightporter can send any identity header.",
            "Bind the app to loopback or a unix socket, or let a network policy admit Nightporter only.",
        )
        return
    outside = _own_address()
    if good and outside and await _connects(outside, address.port, None):
        yield fail(
            "app.around",
            f"the app also answers at {outside}:{address.port}",
            "Whoever reaches it without Nightporter can send any identity header.",
            "Bind the app to 127.0.0.1 only.",
        )
    else:
        yield ok("app.around", "the app is on loopback")


def _away(place: str) -> Finding:
    return fail(
        "app.reach", f"{place} takes no connection", "People get 502.", "Start the app, or correct upstream."
    )


async def _connects(host: str, port: int, context: ssl.SSLContext | None, name: str = "") -> bool:
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=(name or host) if context else None
            )
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _connects_unix(path: str) -> bool:
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_unix_connection(path)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): only chooses a route
        found = str(probe.getsockname()[0])
        return "" if is_loopback(found) else found
    return ""
