"""Ports that stay ours while the server behind them is away."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

_FIRST = 10_000
_TURN = Path(tempfile.gettempdir()) / f"nightporter-ports-{os.getuid()}"
"""The port handed out last, for all processes of this user."""


def free_port() -> int:
    """A loopback port that nobody listens on, from below the kernel's ephemeral range.

    Tests stop servers and start them again on the same port; in between, a port of the
    ephemeral range could become the source port of anybody's outgoing connection. And every
    port is handed out once before any comes again: a random one was at times handed out
    twice before the first server had bound it.
    """
    beyond = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with _TURN.open("a+") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        turn.seek(0)
        port = int(turn.read() or _FIRST - 1)
        for _ in range(beyond - _FIRST):
            port = port + 1 if _FIRST <= port + 1 < beyond else _FIRST
            if _is_free(port):
                turn.truncate(0)
                turn.write(str(port))
                return port
    raise AssertionError("no free port on loopback")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
