"""Cookie keys: made, kept beside a SQLite store, read back."""

from __future__ import annotations

import base64
import os
import secrets
import stat

from proxy.config.declaration import Settings
from proxy.config.grammar import decode_keys
from proxy.errors import ConfigError, Problem


def new_key() -> str:
    """One cookie key: 32 random bytes as URL-safe base64, without padding."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()


def key_file(settings: Settings) -> str:
    """Where a SQLite store's keys are kept: beside the database."""
    return settings.sqlite_path + ".keys"


def cookie_keys(settings: Settings) -> tuple[bytes, ...]:
    """The keys to seal cookies with, newest first; makes and keeps one where none is set.

    Raises:
        ConfigError: the kept file cannot be read, written or trusted.
    """
    if settings.cookie_keys:
        return settings.cookie_key_bytes()
    if not settings.sqlite_path:
        return decode_keys(new_key())
    path = key_file(settings)
    try:
        if not os.path.exists(path):
            _keep(path, new_key())
        with open(path, encoding="ascii") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                remedy = "chmod 600 it; if a stranger may have read it, delete it (everybody signs in again)"
                raise ConfigError([Problem("cookie_keys", f"{path} is open to other users", remedy)])
            keys = decode_keys(stream.read())
    except OSError as error:
        remedy = "make it readable and writable for Nightporter's user, or set cookie_keys"
        raise ConfigError([Problem("cookie_keys", f"{path}: {error.strerror}", remedy)]) from None
    except ValueError:
        keys = ()
    if not keys:
        remedy = "restore it from a backup, or delete it (everybody signs in again)"
        raise ConfigError([Problem("cookie_keys", f"{path} holds no cookie keys", remedy)])
    return keys


def _keep(path: str, key: str) -> None:
    """Write a key file that is never seen half written, and never over another's.

    Linking fails if the name exists: of two processes that start at once, both use the
    first one's key.
    """
    draft = f"{path}.{os.getpid()}-{secrets.token_hex(4)}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(key + "\n")
            stream.flush()
            os.fsync(handle)
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        os.unlink(draft)
