"""Sockets to listen on, from an address."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from proxy.errors import ConfigError, Problem


def bound(setting: str, *, host: str, port: int, path: str, private: bool = False) -> socket.socket:
    """A bound socket.

    Args:
        setting: whose address it is, for the message.
        host: name or IP address; unused for a unix socket.
        port: 0 = any.
        path: of a unix socket, "" for TCP. A socket that a dead process left is replaced.
        private: a unix socket is for our own user only.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    try:
        if path:
            if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
                Path(path).unlink()
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(path)
            if private:
                os.chmod(path, 0o600)
            return sock
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        where = path or f"{host}:{port}"
        found = f"cannot listen on {where}: {error.strerror or error}"
        raise ConfigError([Problem(setting, found, "free the address, or choose another")]) from None
    return sock
