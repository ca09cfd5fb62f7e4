"""Rules about where sessions are kept."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator

from proxy.config.declaration import Settings
from proxy.config.redis_address import AddressError, is_redis, redis_address
from proxy.config.rules import reads, short
from proxy.errors import Problem


@reads("store")
def _store(settings: Settings) -> Iterator[Problem]:
    store = settings.store.reveal()
    remedy = "write redis://host:6379/0, sqlite:/path/to/sessions.db, or memory: for a trial"
    if not store:
        yield Problem("store", "not set", remedy)
    elif is_redis(store):
        yield from _redis(store)
    elif store.startswith("sqlite:"):
        path = store.removeprefix("sqlite:")
        if not path or path.endswith("/") or path.startswith((":", "//")) or "\0" in path:
            yield Problem("store", "sqlite: without the path of a file", remedy)
        elif not os.path.isdir(os.path.dirname(path) or "."):
            remedy = "make the directory, writable for Nightporter's user, or write another path"
            yield Problem("store", "sqlite: in a directory that does not exist", remedy)
    elif store != "memory:":
        yield Problem("store", "not a kind of store that is known", remedy)


def _redis(store: str) -> Iterator[Problem]:
    try:
        redis_address(store)
    except AddressError as error:
        scheme = store.partition("://")[0]
        shape = {"sentinel": "host1,host2:26379/name", "cluster": "host1:6379,host2:6379"}
        form = shape.get(scheme.partition("+")[2], "host:6379/0")
        for problem in error.problems:
            yield Problem("store", problem, f"write {scheme}://user:password@{form}")


@reads("store", "store_ca_file", "store_cert_file", "store_key_file")
def _tls(settings: Settings) -> Iterator[Problem]:
    given = {
        "store_ca_file": settings.store_ca_file,
        "store_cert_file": settings.store_cert_file,
        "store_key_file": settings.store_key_file,
    }
    if not settings.store.reveal().startswith("rediss"):
        for key, path in given.items():
            if path:
                yield Problem(key, "set, but the store's URL has no TLS", "write rediss://, or remove it")
        return
    missing = False
    for key, path in given.items():
        if path and not os.access(path, os.R_OK):
            missing = True
            yield Problem(key, f"{path} cannot be read", "name a PEM file that Nightporter's user may read")
    if missing:
        return
    if settings.store_key_file and not settings.store_cert_file:
        yield Problem("store_key_file", "set without store_cert_file", "name the certificate, too")
        return
    context = ssl.create_default_context()
    try:
        if settings.store_ca_file:
            context.load_verify_locations(cafile=settings.store_ca_file)
    except (ssl.SSLError, OSError):
        yield Problem(
            "store_ca_file", f"{settings.store_ca_file} holds no certificates", "name a PEM file of CAs"
        )
    try:
        if settings.store_cert_file:
            context.load_cert_chain(settings.store_cert_file, settings.store_key_file or None)
    except (ssl.SSLError, OSError):
        remedy = "name a PEM certificate and the key that belongs to it, without a passphrase"
        yield Problem("store_cert_file", "not usable with its key", remedy)


@reads("store_prefix")
def _prefix(settings: Settings) -> Iterator[Problem]:
    if not re.fullmatch(r"[A-Za-z0-9:._-]{1,40}", settings.store_prefix):
        remedy = "write up to 40 letters, digits and : . _ - such as np:"
        yield Problem("store_prefix", short(settings.store_prefix), remedy)


@reads("store", "store_wait_replicas", "store_sentinel_username", "store_sentinel_password")
def _only_redis(settings: Settings) -> Iterator[Problem]:
    store = settings.store.reveal()
    if settings.store_wait_replicas and not is_redis(store):
        yield Problem("store_wait_replicas", "set, but only Redis has replicas", "remove it")
    sentinel = "+sentinel://" in store
    if (settings.store_sentinel_username or settings.store_sentinel_password) and not sentinel:
        key = "store_sentinel_username" if settings.store_sentinel_username else "store_sentinel_password"
        yield Problem(key, "set, but the store has no Sentinels", "remove it, or write redis+sentinel://")
    if settings.store_sentinel_username and not settings.store_sentinel_password:
        yield Problem("store_sentinel_username", "set without a password", "set store_sentinel_password")


@reads("store", "store_username", "store_password")
def _credentials(settings: Settings) -> Iterator[Problem]:
    store = settings.store.reveal()
    if settings.store_username and not settings.store_password:
        yield Problem("store_username", "set without a password", "set store_password")
    if not settings.store_password:
        return
    if not is_redis(store):
        yield Problem("store_password", "set, but only Redis takes one", "remove it")
    elif "@" in store:
        yield Problem("store_password", "set, and the store's URL has one, too", "keep one of them")
